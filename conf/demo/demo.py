#!/usr/bin/python3
"""The demo after the build: stand-ins up, daemon over the sample logs, a table at the end. Called by conf/demo/run.

Four acts: the samples are read; a flow log grows as Azure's do; the SIEM goes away and the spool fills; it comes back.
"""
import os
import pathlib
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'tests' / 'lib'))

import records                                                            # noqa: E402
from farend import FarEnd                                                 # noqa: E402
from penstock import Penstock, total, wait_until                          # noqa: E402
from window import Window                                                 # noqa: E402

SAMPLES = ROOT / 'tests' / 'samples'
FAMILIES = ('activity-log', 'nsg-flow', 'vnet-flow', 'defender')
TOPIC = 'azure.security'
COLUMNS = ('read', 'delivered', 'spooled', 'held', 'dead', 'dropped')


def say(text):
    print(text, flush=True)


class MockKafka:
    """The brokers' stand-in; it ends when its standard input does."""

    def __init__(self, build):
        self.process = subprocess.Popen([build / 'tests' / 'mock-kafka', TOPIC], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        self.brokers = self.process.stdout.readline().strip()
        if not self.brokers:
            raise RuntimeError('the Kafka stand-in did not start')

    def count(self):
        """Messages in the topic, read back by a client that is not ours."""
        done = subprocess.run(['kcat', '-C', '-b', self.brokers, '-t', TOPIC, '-o', 'beginning', '-e', '-q', '-f', '%o\n'],
                              capture_output=True, text=True, timeout=30)
        return len(done.stdout.splitlines())

    def stop(self):
        self.process.stdin.close()
        self.process.wait()


def make_daemon(stage, far_end, kafka):
    """A source per family, one for everything else, one for the log that grows."""
    logs = stage / 'logs'
    shutil.copytree(SAMPLES, logs, ignore=shutil.ignore_patterns('PROVENANCE.tsv'))
    others = logs / 'other'
    others.mkdir()
    for folder in sorted(path for path in logs.iterdir() if path.name not in FAMILIES and path != others):
        folder.rename(others / folder.name)
    (logs / 'growing').mkdir()
    sources = [(f'source {family}', {'type': 'file', 'path': logs / family / '*'}) for family in FAMILIES]
    sources.append(('source other', {'type': 'file', 'path': others / '**' / '*'}))
    sources.append(('source growing', {'type': 'file', 'path': logs / 'growing' / 'PT1H.json'}))
    sentinel = far_end.sink('sentinel', flush='500ms', spool_after='500ms', retry_min='200ms', retry_max='1s')
    siem = ('sink siem', {'type': 'kafka', 'brokers': kafka.brokers, 'topic': TOPIC, 'schema': 'ocsf', 'flush': '500ms'})
    return Penstock(stage / 'penstock', *sources, sentinel, siem, listen='127.0.0.1:0')


class Progress:
    """Asks the daemon for its counters and prints one line when they have changed."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.start = time.monotonic()
        self.last = None

    def look(self):
        counters = self.daemon.counters()
        numbers = [('read', total(counters, 'read'))]
        for sink in sorted({sink for _, sink in counters if sink}):
            for key in ('delivered', 'spooled'):
                numbers.append((f'{sink} {key}', total(counters, key, sink=sink)))
        if numbers != self.last:
            say(f'  {time.monotonic() - self.start:5.1f} s   ' + '   '.join(f'{name} {n}' for name, n in numbers))
            self.last = numbers
        return counters

    def settle(self, least):
        """Until at least so many records are read and nothing is under way; two looks must agree."""
        before = []

        def settled():
            counters = self.look()
            now = [total(counters, key) for key in COLUMNS]
            quiet = total(counters, 'held') + total(counters, 'spooled') == 0 and total(counters, 'read') >= least
            before.append(now if quiet else None)
            return counters if quiet and len(before) > 3 and before[-4:] == [now] * 4 else time.sleep(0.25)
        return wait_until(settled, 60, 'everything to be delivered', self.daemon)


def table(counters):
    """One row a source for what was read, one row a source and sink for where its messages are."""
    lines = [('source', 'sink') + COLUMNS]
    for (source, sink), keys in sorted(counters.items(), key=lambda item: (item[0][0] or '', item[0][1] or '')):
        if source is not None:
            lines.append(('' if sink else source, sink or '') + tuple(str(keys.get(column, '')) for column in COLUMNS))
    lines.append(('all', '') + tuple(str(total(counters, column)) for column in COLUMNS))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        say('  ' + '  '.join(cell.ljust(width) if i < 2 else cell.rjust(width)
                              for i, (cell, width) in enumerate(zip(line, widths))))


def play(stage, far_end, kafka):
    daemon = make_daemon(stage, far_end, kafka)
    maker = records.Maker(2026)
    say(f'Starting the daemon: penstock run -c {daemon.config.relative_to(ROOT)}')
    daemon.start()
    try:
        say(f'Its status page, as long as it runs: {Window(daemon).url}')
        progress = Progress(daemon)
        read = total(progress.settle(1), 'read')

        say('A flow log grows block by block, as Azure writes it.')
        blob = records.GrowingBlob(stage / 'logs' / 'growing' / 'PT1H.json')
        for _ in range(3):
            blob.append(*[records.vnet_record(maker)[0] for _ in range(5)])
            progress.look()
        progress.settle(read + 15)

        say('Sentinel goes away. Kafka goes on; what Sentinel misses waits in its spool.')
        far_end.down()
        blob.append(*[records.vnet_record(maker)[0] for _ in range(20)])
        wait_until(lambda: total(progress.look(), 'spooled', sink='sentinel') > 0 or time.sleep(0.25), 40,
                   'the spool to be used', daemon)
        say('Sentinel is back.')
        far_end.up()
        progress.settle(read + 35)
        say('Stopping it, as systemd would.')
        status = daemon.stop()
    finally:
        daemon.kill()
    counters = daemon.counters()
    say('\nWhat the daemon counted (records are read; the rest are messages, for a flow record one a tuple):')
    table(counters)
    return daemon, counters, status


def judge(far_end, kafka, counters, status):
    """What the other side says about it; True where both agree."""
    rows, messages = far_end.count(), kafka.count()
    say('\nWhat the far ends have:')
    for stream, count, distinct in far_end.query('SELECT stream, count(*), count(DISTINCT uid) FROM rows GROUP BY stream'):
        say(f'  ingestion API  {stream:<32} {count:6} rows, {distinct} distinct event ids')
    say(f'  Kafka          {TOPIC:<32} {messages:6} messages')
    say('  Ids repeat where a sample holds the same record twice: the same bytes have the same id.')
    losses = far_end.violations()
    for stream, _, column, what in losses[:5]:
        say(f'  The service would have lost something: {stream}, column {column}: {what}')
    agreed = rows >= total(counters, 'delivered', sink='sentinel') > 0 and messages >= total(counters, 'delivered', sink='siem') > 0
    if not agreed:
        say('  That is less than the daemon counted.')
    return agreed and not losses and status == 0


def main(build):
    build = pathlib.Path(build).resolve()
    stage = build / 'stage'
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir()
    say('Starting the stand-ins for the ingestion API and for Kafka')
    kafka = MockKafka(build)
    try:
        with FarEnd(stage / 'farend') as far_end:
            daemon, counters, status = play(stage, far_end, kafka)
            well = judge(far_end, kafka, counters, status)
    except AssertionError as trouble:
        say(f'\nThe demo stopped: {trouble}')
        return 1
    finally:
        kafka.stop()
    here = stage.relative_to(ROOT)
    say(f'''
Where to look next:
  {daemon.config.relative_to(ROOT)}    the configuration it ran with
  {daemon.log.relative_to(ROOT)}     what it said
  sqlite3 {here}/farend/accepted.db 'SELECT row FROM rows LIMIT 3'    what arrived
  {build.relative_to(ROOT)}/penstock parse {SAMPLES.relative_to(ROOT)}/nsg-flow/*.json    the pure pipeline
  README.md                               the five-minute path to a real DCR and a real Kafka
  tests/run                               all the tests''')
    if not well:
        say('\nThis did not go as it should.')
    return 0 if well else 1


if __name__ == '__main__':
    os.environ['PENSTOCK_BIN'] = str(pathlib.Path(sys.argv[1]).resolve() / 'penstock')
    sys.exit(main(sys.argv[1]))
