"""What Penstock costs: throughput, CPU and memory of the real program, for `tests/bench/run`.

CPU and memory are the penstock process's own: the far ends run beside it and cost more than it does, so that the wall clock,
with few cores, says more about them. GB and MB are of input, decimal.
"""
import argparse
import contextlib
import os
import pathlib
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'tests' / 'lib'))

import records                                                      # noqa: E402
from farend import FarEnd                                           # noqa: E402
from generate import size_of                                        # noqa: E402
from kafka import Kafka, Unavailable                                # noqa: E402
from penstock import Penstock, binary, environment, total           # noqa: E402

MB, GB = 10**6, 10**9
LOOK_EVERY = 0.02                    # seconds between two looks at a process's memory,
ASK_EVERY = 0.25                     # or at the daemon's counters
GIVE_UP = 600

MAKERS = {'activity': records.write_activity, 'nsg': records.write_nsg, 'vnet': records.write_vnet,
          'alert': records.write_alerts}

# (work, family, schema, codec): CPU seconds per GB of input. `parse` has its budget as MB/s of one core.
BUDGETS = {('parse', 'activity', 'asim', ''): GB / (400 * MB), ('parse', 'nsg', 'asim', ''): GB / (150 * MB),
           ('parse', 'vnet', 'asim', ''): GB / (150 * MB),
           ('sentinel', 'activity', 'asim', 'gzip'): 6, ('sentinel', 'nsg', 'asim', 'gzip'): 20,
           ('sentinel', 'vnet', 'asim', 'gzip'): 20,
           ('kafka', 'activity', 'ocsf', 'none'): 4, ('kafka', 'activity', 'ocsf', 'lz4'): 5,
           ('kafka', 'nsg', 'ocsf', 'lz4'): 25, ('kafka', 'vnet', 'ocsf', 'lz4'): 25}
CASES = [('parse', family, schema, '') for family in MAKERS for schema in ('asim', 'ocsf')]
CASES += [case for case in BUDGETS if case[0] != 'parse']
CASES += [('hub', 'activity', 'asim', 'gzip')]


class Data:
    """One generated file a family; the seed is always the same."""

    def __init__(self, folder, size):
        self.folder, self.size, self.made = folder, size, {}

    def get(self, family):
        path = self.folder / f'{family}.json'
        if family not in self.made:
            self.made[family] = MAKERS[family](path, size=self.size, seed=1)
        return path, self.made[family]


def ended(process):
    """Waits for the process: its CPU seconds."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f'penstock exited with {process.returncode}')
    return usage.ru_utime + usage.ru_stime


def peak_of(process):
    """Resident bytes at their highest. Not from wait4(), whose figure begins with what Python held before the exec."""
    status = pathlib.Path(f'/proc/{process.pid}/status').read_text()
    found = re.search(r'^VmHWM:\s+(\d+) kB', status, re.M)
    return int(found[1]) * 1024 if found else 0


def run_parse(path, schema):
    start = time.monotonic()
    process = subprocess.Popen([binary(), 'parse', '--schema', schema, path], stdout=subprocess.DEVNULL, env=environment())
    peak = 0
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        peak = max(peak, peak_of(process))
        time.sleep(LOOK_EVERY)
    return time.monotonic() - start, ended(process), peak


def run_daemon(folder, source, made, sink):
    """From the start to the last answer; the spool stands ready, and takes what the far end is too slow for."""
    shutil.rmtree(folder, ignore_errors=True)
    daemon = Penstock(folder, ('source logs', source), sink)
    try:
        start = time.monotonic()
        daemon.start()
        while total(daemon.counters(), 'delivered') < made.events:
            if time.monotonic() - start > GIVE_UP or daemon.exited() is not None:
                raise RuntimeError(f'not everything was delivered:\n{daemon.log_tail()}')
            time.sleep(ASK_EVERY)
        wall = time.monotonic() - start
        peak = peak_of(daemon.process)
        daemon.process.send_signal(signal.SIGTERM)
        return wall, ended(daemon.process), peak
    finally:
        daemon.kill()


class Bench:
    def __init__(self, folder, options, stack):
        self.folder, self.options, self.stack = folder, options, stack
        self.data = Data(folder, options.size)
        self.broker, self.broker_kind = None, ''
        self.topics = 0
        self.filled = set()

    def kafka_topic(self, topic):
        """The brokers, with that topic: real ones where they can be had, else librdkafka's mock cluster, as the table says."""
        if self.broker is None and self.broker_kind == '':
            try:
                self.broker, self.broker_kind = self.stack.enter_context(Kafka(self.folder / 'kafka')), 'kafka'
            except Unavailable as reason:
                print(f'No Kafka ({reason}): its mock cluster stands in.', file=sys.stderr)
                self.broker_kind = 'mock'
        if self.broker is not None:
            self.broker.create_topic(topic)
            return self.broker.bootstrap
        mock = self.stack.enter_context(subprocess.Popen(
            [pathlib.Path(os.environ['PENSTOCK_BUILD']) / 'tests' / 'mock-kafka', topic],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        self.stack.callback(mock.stdin.close)
        return mock.stdout.readline().strip()

    def hub(self, family, path):
        """A source that reads a topic of real brokers: the family's lines, a message each, for a group that is new."""
        if family not in self.filled:
            bootstrap = self.kafka_topic(family)
            if self.broker is None:
                raise Unavailable('a topic that is read wants real brokers')
            subprocess.run(['kcat', '-b', bootstrap, '-P', '-t', family, '-l', path], check=True)
            self.filled.add(family)
        self.topics += 1
        return {'type': 'event-hub', 'bootstrap': self.broker.bootstrap, 'topic': family, 'group': f'bench{self.topics}'}

    def once(self, case):
        work, family, schema, codec = case
        path, made = self.data.get(family)
        if work == 'parse':
            return run_parse(path, schema)
        file = {'type': 'file', 'path': path}
        if work in ('sentinel', 'hub'):
            with FarEnd(self.folder / 'farend', '--check', 'count', '--keep', 'ids') as far_end:
                try:                 # what the daemon can do, not what a DCR takes: 2 GB a minute are 33 MB/s
                    return run_daemon(self.folder / 'daemon', self.hub(family, path) if work == 'hub' else file, made,
                                      far_end.sink(schema=schema, bytes_a_minute=0))
                finally:
                    (self.folder / 'farend' / 'accepted.db').unlink(missing_ok=True)
        self.topics += 1
        topic = f'bench{self.topics}'
        return run_daemon(self.folder / 'daemon', file, made,
                          ('sink siem', {'type': 'kafka', 'brokers': self.kafka_topic(topic), 'topic': topic,
                                         'schema': schema, 'kafka.compression.codec': codec}))

    def row(self, case):
        """One line of the table: medians, and behind ± half the way from the least to the most."""
        path, made = self.data.get(case[1])
        runs = [self.once(case) for _ in range(self.options.runs)]
        speed = [made.bytes / MB / wall for wall, _, _ in runs]
        cost = [cpu / (made.bytes / GB) for _, cpu, _ in runs]
        budget = BUDGETS.get(case)
        work, family, schema, codec = case
        name = f'{self.broker_kind if work == "kafka" else work} {codec}'.strip()
        return (f'{name:14} {family:9} {schema:5} {statistics.median(speed):7.0f} ±{spread(speed):4.0f} '
                f'{statistics.median(cost):8.2f} ±{spread(cost):5.2f} {"" if budget is None else f"{budget:.2f}":>7} '
                f'{made.events / 1e6 / statistics.median([cpu for _, cpu, _ in runs]):8.2f} '
                f'{max(peak for _, _, peak in runs) / 2**20:6.0f}')


def spread(values):
    return (max(values) - min(values)) / 2


def machine():
    model = next((line.split(':', 1)[1].strip() for line in open('/proc/cpuinfo') if line.startswith('model name')), '?')
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30
    return f'{model}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}'


def commit():
    done = subprocess.run(['git', '-C', ROOT, 'describe', '--always', '--dirty'], capture_output=True, text=True)
    return done.stdout.strip() or 'none'


def main():
    parser = argparse.ArgumentParser(prog='tests/bench/run', description='Measures Penstock; prints one table.')
    parser.add_argument('--size', type=size_of, default='300M', help='of each kind of log, with K, M or G (300M)')
    parser.add_argument('--runs', type=int, default=3, help='of everything (3)')
    parser.add_argument('--only', action='append', choices=('parse', 'sentinel', 'kafka', 'hub'), help='this kind of work')
    parser.add_argument('--family', action='append', choices=tuple(MAKERS), help='this kind of log')
    options = parser.parse_args()
    folder = ROOT / 'build' / 'bench' / 'run'
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    print(f'{machine()}\n{time.strftime("%Y-%m-%d %H:%M", time.gmtime())} UTC, commit {commit()}, '
          f'{options.size / MB:.0f} MB of each log, {options.runs} runs, load {os.getloadavg()[0]:.1f} at the start')
    print(f'{"":30} {"MB/s":>7} {"":5} {"CPU s/GB":>8} {"":6} {"budget":>7} {"Mev/CPUs":>8} {"RSS MiB":>7}')
    try:
        with contextlib.ExitStack() as stack:
            bench = Bench(folder, options, stack)
            for case in CASES:
                if options.only in (None, []) or case[0] in options.only:
                    if options.family is None or case[1] in options.family:
                        with contextlib.suppress(Unavailable):
                            print(bench.row(case), flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == '__main__':
    main()
