"""SIGHUP and `penstock reload`: the new configuration holds as a whole or not at all, and what it does not touch goes on."""
import collections
import contextlib
import json
import os
import pathlib
import re
import secrets
import signal
import socket
import subprocess
import threading
import time
import urllib.request

import pytest

from azurite import FlowBlob, hour_name, now
from farend import FarEnd
from penstock import parse_line, total, wait_until
from records import Maker, activity_line, nsg_record, write_activity
from test_azure_blob import NSG
from test_service import Manager, held_up

QUICK = {'flush': '50ms'}
AWAY = {**QUICK, 'spool_after': '200ms', 'retry_min': '50ms', 'retry_max': '300ms'}


class Growing:
    """A file that somebody writes to all the time; `lines` are those that are whole."""

    def __init__(self, path, seed=1):
        self.path, self.maker, self.lines, self.over = pathlib.Path(path), Maker(seed), 0, threading.Event()
        self.path.parent.mkdir(exist_ok=True)
        self.path.touch()

    def __enter__(self):
        self.thread = threading.Thread(target=self.grow)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def grow(self):
        with open(self.path, 'ab', buffering=0) as file:
            while not self.over.wait(0.004):
                file.write(activity_line(self.maker)[0])
                self.lines += 1


def files(name, path, **more):
    return f'source {name}', {'type': 'file', 'path': path, **more}


def reload(daemon, *words):
    return daemon.command('reload', *(words or ('-c', daemon.config)))


def reloaded(daemon):
    """It went well: what it says of it, a line each."""
    done = reload(daemon)
    assert done.returncode == 0, done.stdout + done.stderr + daemon.log_tail()
    assert done.stderr == ''
    return done.stdout.splitlines()


def up(daemon):
    """Started, and there to be asked."""
    daemon.start()
    wait_until(lambda: daemon.command('status', '-c', daemon.config).stdout != '', daemon=daemon, what='an answer')
    return daemon


def config_status(daemon):
    """Whether the last reload went well, and how many there were."""
    status = json.loads(daemon.command('status', '-c', daemon.config, '--json').stdout)['daemon']
    return status['config_good'], status['reloads']


def connections(daemon, port):
    """Sockets of the daemon to this port of the loopback, as the kernel knows them: one that is made anew is another one."""
    table = pathlib.Path(f'/proc/{daemon.process.pid}/net/tcp').read_text().splitlines()[1:]
    there = {words[9] for words in map(str.split, table) if words[3] == '01' and int(words[2].split(':')[1], 16) == port}
    mine = set()
    for fd in os.listdir(f'/proc/{daemon.process.pid}/fd'):
        with contextlib.suppress(OSError):
            found = re.fullmatch(r'socket:\[(\d+)\]', os.readlink(f'/proc/{daemon.process.pid}/fd/{fd}'))
            mine |= {found[1]} if found else set()
    return there & mine


def port_of(url):
    return int(re.search(r':(\d+)', url.split('//')[1])[1])


def each_once(far_end, count):
    repeats = {uid: n for uid, n in collections.Counter(far_end.uids()).items() if n > 1}
    assert repeats == {}
    assert far_end.distinct() == count


# ---- It holds, or nothing does ----

def test_nothing_has_changed(tmp_path, penstock, far_end):
    daemon = up(penstock(files('logs', tmp_path / '*.json'), far_end.sink(**QUICK)))
    assert reloaded(daemon) == ['2 untouched']
    assert daemon.stop() == 0


def test_sources_and_sinks_come_change_and_go(tmp_path, penstock, far_end):
    made = [write_activity(tmp_path / name, 5, seed=seed) for seed, name in enumerate(('a.json', 'b.json'), 1)]
    daemon = up(penstock(files('one', tmp_path / 'a.json'), files('old', tmp_path / 'none'), far_end.sink(**QUICK),
                         far_end.sink('second', sources='old')))
    wait_until(lambda: far_end.count() == made[0].events, daemon=daemon)
    daemon.configure(files('two', tmp_path / 'b.json'), files('one', tmp_path / 'a.json', rescan='10s'),
                     far_end.sink(flush='51ms'), far_end.sink('third', sources='one'))
    assert sorted(reloaded(daemon)) == sorted([
        'sink sentinel: changed, and stays connected', 'sink third: added', 'sink second: removed', 'source two: added',
        'source one: changed', 'source old: removed', '0 untouched'])
    wait_until(lambda: far_end.count() == made[0].events + made[1].events, daemon=daemon)
    assert daemon.stop() == 0
    each_once(far_end, made[0].events + made[1].events)


def test_a_broken_file_changes_nothing_and_every_mistake_is_told(tmp_path, penstock, far_end):
    made = write_activity(tmp_path / 'a.json', 5)
    daemon = up(penstock(files('logs', tmp_path / '*.json'), far_end.sink(**QUICK)))
    wait_until(lambda: far_end.count() == made.events, daemon=daemon)
    daemon.configure(files('logs', tmp_path / '*.json', rescam='10s'), far_end.sink(flush='soon'))
    done = reload(daemon)
    assert done.returncode == 2 and done.stdout == ''
    assert re.search(r'penstock\.conf:\d+: .*rescam.*did you mean "rescan"', done.stderr)
    assert re.search(r'penstock\.conf:\d+: .*flush', done.stderr)
    assert '2 mistakes' in done.stderr and 'nothing has changed' in done.stderr
    told = [parse_line(line) for line in daemon.log_text().splitlines() if 'a mistake in the configuration' in line]
    assert [line['file'] for line in told] == [str(daemon.config)] * 2 and all(line['line'] > 0 for line in told)
    wait_until(lambda: config_status(daemon) == (0, 1))                 # it is made anew a few times a second
    assert 'the last reload failed' in daemon.command('status', '-c', daemon.config).stdout
    made.add(write_activity(tmp_path / 'b.json', 5, seed=2))
    wait_until(lambda: far_end.count() == made.events, daemon=daemon)
    daemon.configure(files('logs', tmp_path / '*.json'), far_end.sink(**QUICK))
    assert reloaded(daemon) == ['2 untouched']
    wait_until(lambda: config_status(daemon) == (1, 2))
    assert daemon.stop() == 0


@pytest.mark.parametrize('key, value', [('workers', '3'), ('plugin_dir', '/nowhere'), ('state_dir', '/nowhere')])
def test_what_only_a_restart_changes_is_refused(tmp_path, penstock, far_end, key, value):
    daemon = up(penstock(files('logs', tmp_path / '*.json'), far_end.sink(**QUICK), workers=2))
    daemon.configure(files('logs', tmp_path / '*.json'), far_end.sink('other', **QUICK), **{'workers': 2, key: value})
    done = reload(daemon, '--state-dir', daemon.state_dir)
    assert done.returncode == 2 and f'"{key}" in [daemon] changes: that needs a restart' in done.stderr
    assert total(daemon.counters(), 'batches', sink='sentinel') == 0       # it is there, as before
    assert daemon.stop() == 0


def test_what_cannot_be_opened_changes_nothing(tmp_path, penstock, far_end):
    """A secret that is not there is found while everything old still runs; what was opened before it is closed again."""
    with Growing(tmp_path / 'a.json') as growing:
        daemon = up(penstock(files('logs', tmp_path / 'a.json'), far_end.sink(**QUICK)))
        broken = ('source hub', {'type': 'kafka', 'bootstrap': '127.0.0.1:1', 'topic': 't', 'username': 'u',
                                 'password_file': tmp_path / 'none'})
        daemon.configure(files('more', tmp_path / '*.json'), broken, files('logs', tmp_path / 'a.json', rescan='10s'),
                         far_end.sink(in_flight=3), far_end.sink('new', **QUICK))
        done = reload(daemon)
        assert done.returncode in (1, 2) and 'source hub: ' in done.stderr and 'none' in done.stderr
        wait_until(lambda: far_end.count() > 50, daemon=daemon)
    wait_until(lambda: far_end.count() >= growing.lines, daemon=daemon)
    assert daemon.stop() == 0
    each_once(far_end, growing.lines)
    assert not any(sink == 'new' for _, sink in daemon.counters())


# ---- Under load ----

class Changing:
    """A configuration of which one thing at a time changes. What is called steady is never touched."""

    def __init__(self, tmp_path, ends, topic, brokers):
        self.tmp_path, self.ends, self.topic, self.brokers = tmp_path, ends, topic, brokers
        self.ca = tmp_path / 'ca.pem'
        self.ca.write_bytes(pathlib.Path(ends[1].address['ca_file']).read_bytes())
        self.n, self.guest, self.turned_round = 0, True, False
        self.in_flight, self.flush, self.rescan, self.linger, self.events = 2, 50, 60, 5, ''
        self.steps = (self.change_sink, self.change_rows, self.change_source, self.guest_comes_or_goes, self.change_secret,
                      self.change_filter, self.turn_round, self.change_kafka)

    def change_sink(self):
        self.in_flight = 5 - self.in_flight

    def change_rows(self):
        self.flush = 110 - self.flush

    def change_source(self):
        self.rescan = 121 - self.rescan

    def guest_comes_or_goes(self):
        self.guest = not self.guest

    def change_secret(self):
        self.ca.write_bytes(self.ca.read_bytes() + b'\n')

    def change_filter(self):
        self.events = '' if self.events else 'audit, unknown'

    def turn_round(self):
        self.turned_round = not self.turned_round

    def change_kafka(self):
        self.linger = 11 - self.linger

    def sections(self):
        kafka = {'type': 'kafka', 'brokers': self.brokers, 'schema': 'asim', **QUICK}
        events = {'events': self.events} if self.events else {}
        sections = [files('steady', self.tmp_path / 'logs' / 'steady'),
                    files('turning', self.tmp_path / 'logs' / 'turning', rescan=f'{self.rescan}s'),
                    *([files('guest', self.tmp_path / 'logs' / 'guest')] if self.guest else []),
                    self.ends[0].sink('steady', sources='steady', in_flight=1, **QUICK),
                    self.ends[1].sink('turned', flush=f'{self.flush}ms', in_flight=self.in_flight, ca_file=self.ca, **events),
                    ('sink kafka', {**kafka, 'topic': f'{self.topic}.steady', 'sources': 'steady, turning'}),
                    ('sink turned-kafka', {**kafka, 'topic': f'{self.topic}.turned', 'kafka.linger.ms': self.linger})]
        return sections[::-1] if self.turned_round else sections

    def step(self, daemon):
        self.steps[self.n % len(self.steps)]()
        self.n += 1
        daemon.configure(*self.sections())
        told = reloaded(daemon)
        assert not any('steady' in line or line.startswith('sink kafka:') for line in told)


@pytest.mark.kafka
@pytest.mark.parametrize('reloads', [pytest.param(17, id='some'), pytest.param(100, id='hundred', marks=pytest.mark.long)])
def test_reloads_under_load(tmp_path, penstock, broker, reloads):
    """None lost, none repeated, and what is not touched never connects again."""
    topic = f'reload{reloads}'
    for name in ('steady', 'turned'):
        broker.create_topic(f'{topic}.{name}', partitions=2)
    broker_port = int(broker.bootstrap.rsplit(':', 1)[1])
    with contextlib.ExitStack() as stack:
        ends = [stack.enter_context(FarEnd(tmp_path / name)) for name in ('end', 'turned-end')]
        changing = Changing(tmp_path, ends, topic, broker.bootstrap)
        with contextlib.ExitStack() as writers:
            growing = {name: writers.enter_context(Growing(tmp_path / 'logs' / name, seed))
                       for seed, name in enumerate(('steady', 'turning', 'guest'), 1)}
            daemon = up(penstock(*changing.sections()))
            wait_until(lambda: min(end.count() for end in ends) > 20 and
                       total(daemon.counters(), 'delivered', sink='kafka') > 20, daemon=daemon, what='all to flow')
            steady = connections(daemon, port_of(ends[0].address['endpoint']))
            clients = connections(daemon, broker_port)
            assert len(steady) == 1
            for _ in range(reloads):
                changing.step(daemon)
            assert connections(daemon, port_of(ends[0].address['endpoint'])) == steady
            stayed = clients & connections(daemon, broker_port)
            assert stayed and (stayed != clients or reloads < len(changing.steps))     # one of the two Kafka sinks is steady
            if not changing.guest:
                changing.guest_comes_or_goes()
                daemon.configure(*changing.sections())
                reloaded(daemon)
        lines = {name: file.lines for name, file in growing.items()}
        everything = sum(lines.values())

        def arrived():
            counters = daemon.counters()
            return (ends[0].count() >= lines['steady'] and ends[1].count() >= everything and
                    total(counters, 'held') == total(counters, 'spooled') == 0)
        wait_until(arrived, 60, 'all to arrive', daemon)
        counters = daemon.counters()
        assert daemon.stop() == 0
        each_once(ends[0], lines['steady'])
        each_once(ends[1], everything)
        assert [end.violations() for end in ends] == [[], []]
    for name, count in (('steady', lines['steady'] + lines['turning']), ('turned', everything)):
        ids = [json.loads(value)['EventOriginalUid'] for _, _, _, value in broker.read_all(f'{topic}.{name}')]
        assert len(ids) == len(set(ids)) == count, name
    assert total(counters, 'read', source='steady') == lines['steady']
    assert total(counters, 'read', source='turning') == lines['turning']
    for keys in counters.values():
        if 'taken' in keys:
            assert keys['taken'] == keys['delivered'] + keys['dead'] + keys['dropped'] + keys['held'] + keys['spooled']
    assert total(counters, 'taken', sink='turned') == everything
    assert 'level=err' not in daemon.log_text()


# ---- Each thing by itself ----

@pytest.fixture
def manager(tmp_path):
    listening = Manager(tmp_path / 'notify')
    yield listening
    listening.end()


def test_systemd_is_told_of_each_reload_and_of_its_end(tmp_path, penstock, far_end, manager):
    """RELOADING with the time that Type=notify-reload asks for, then READY; a failure stands in the status."""
    daemon = penstock(files('logs', tmp_path / '*.json'), far_end.sink(**QUICK))
    daemon.start(NOTIFY_SOCKET=manager.path)
    wait_until(lambda: 'READY=1' in manager.lines(), daemon=daemon)
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: manager.lines().count('READY=1') == 2, daemon=daemon)
    lines = manager.lines()
    assert lines.index('READY=1') < lines.index('RELOADING=1') < len(lines) - lines[::-1].index('READY=1')
    assert any(re.fullmatch(r'MONOTONIC_USEC=\d+', line) for line in lines)
    daemon.config.write_text('nonsense\n')
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: manager.lines().count('READY=1') == 3, daemon=daemon)
    wait_until(lambda: any('STATUS=' in line and 'the last reload failed' in line for line in manager.lines()), daemon=daemon)
    assert manager.lines().count('RELOADING=1') == 2
    assert daemon.stop() == 0


def test_a_hangup_while_it_starts_is_a_reload(penstock, far_end):
    daemon = penstock(files('logs', '/nowhere/*.json'), far_end.sink())
    text = daemon.config.read_bytes()
    go_on = held_up(daemon)
    daemon.process.send_signal(signal.SIGHUP)
    go_on()                                            # and the pipe it was read from is a pipe no longer
    daemon.config.unlink()
    daemon.config.write_bytes(text)
    wait_until(lambda: 'the configuration was reloaded' in daemon.log_text() or 'was not reloaded' in daemon.log_text(),
               daemon=daemon)
    assert reloaded(daemon) == ['2 untouched']
    assert daemon.stop() == 0


def test_reloads_asked_for_meanwhile_become_one(tmp_path, penstock, far_end):
    """While the first waits for its far end to answer, ten more ask: one does, and reads what is there at last."""
    far_end.fault(do='hang')
    write_activity(tmp_path / 'a.json', 5)
    daemon = up(penstock(files('logs', tmp_path / '*.json'), far_end.sink(**QUICK)))
    wait_until(lambda: far_end.state()['held'] == 1, daemon=daemon, what='the request that hangs')
    daemon.configure(files('logs', tmp_path / '*.json'), far_end.sink(in_flight=3, **QUICK))
    daemon.process.send_signal(signal.SIGHUP)
    for _ in range(10):
        daemon.process.send_signal(signal.SIGHUP)
    far_end.clear()
    assert '2 untouched' in reloaded(daemon)
    wait_until(lambda: 2 <= config_status(daemon)[1] <= 3, daemon=daemon)
    assert daemon.stop() == 0


@pytest.mark.parametrize('after', [0, 0.02, 0.2])
def test_a_stop_in_the_middle_of_a_reload_is_a_clean_stop(tmp_path, penstock, far_end, after):
    with Growing(tmp_path / 'a.json') as growing:
        daemon = up(penstock(files('logs', tmp_path / 'a.json'), far_end.sink(**QUICK)))
        wait_until(lambda: far_end.count() > 20, daemon=daemon)
        far_end.fault(do='slow', delay=0.5, count=-1)
        daemon.configure(files('logs', tmp_path / 'a.json', rescan='10s'), far_end.sink(in_flight=3, **QUICK),
                         files('new', tmp_path / 'n'), far_end.sink('new', sources='new'))
        daemon.process.send_signal(signal.SIGHUP)
        time.sleep(after)                              # whichever step that meets, the end is the same
        assert daemon.stop(30) == 0
    far_end.clear()
    daemon.start()
    wait_until(lambda: far_end.distinct() >= growing.lines, daemon=daemon)
    assert daemon.stop() == 0
    each_once(far_end, growing.lines)


def test_with_the_far_end_down_the_rest_goes_to_the_spool(tmp_path, penstock, far_end):
    """A source and the sink itself change while nothing can be delivered: bounded by stop_wait, and all arrives once."""
    with Growing(tmp_path / 'a.json') as growing:
        daemon = up(penstock(files('logs', tmp_path / 'a.json'), far_end.sink(**AWAY), stop_wait='2s'))
        wait_until(lambda: far_end.count() > 20, daemon=daemon)
        far_end.down()
        wait_until(lambda: total(daemon.counters(), 'spooled') > 20, daemon=daemon)
        for rescan in (10, 20):
            daemon.configure(files('logs', tmp_path / 'a.json', rescan=f'{rescan}s'), far_end.sink(**{**AWAY, 'in_flight': rescan // 10}),
                             stop_wait='2s')
            assert reloaded(daemon) == ['sink sentinel: changed', 'source logs: changed', '0 untouched']
        far_end.up()
    wait_until(lambda: far_end.distinct() >= growing.lines, daemon=daemon)
    assert daemon.stop() == 0
    assert far_end.distinct() == growing.lines


def test_a_request_under_way_is_waited_for(tmp_path, penstock, far_end):
    """The far end takes longer than a sink that stops would wait: the sink changes once it has answered, and sends nothing twice."""
    far_end.fault(do='slow', delay=4)
    made = write_activity(tmp_path / 'a.json', 20)
    daemon = up(penstock(files('logs', tmp_path / '*.json'), far_end.sink(**QUICK), stop_wait='2m'))
    wait_until(lambda: total(daemon.counters(), 'submitted') == 1, daemon=daemon)
    daemon.configure(files('logs', tmp_path / '*.json'), far_end.sink(in_flight=3, **QUICK), stop_wait='2m')
    assert reloaded(daemon) == ['sink sentinel: changed', '1 untouched']
    counters = daemon.counters()
    assert (total(counters, 'delivered'), total(counters, 'submitted')) == (made.events, 1)
    assert daemon.stop() == 0
    each_once(far_end, made.events)


def test_a_sink_that_leaves_leaves_its_spool_and_finds_it_again(tmp_path, penstock, far_end):
    made = write_activity(tmp_path / 'a.json', 20)
    away = ('sink away', {**far_end.sink()[1], **AWAY, 'endpoint': 'https://127.0.0.1:1'})
    source = files('logs', tmp_path / '*.json')
    daemon = up(penstock(source, far_end.sink(**QUICK), away))
    wait_until(lambda: total(daemon.counters(), 'spooled', sink='away') == made.events, daemon=daemon)
    daemon.configure(source, far_end.sink(**QUICK))
    assert reloaded(daemon) == ['sink away: removed', '2 untouched']
    orphan = [parse_line(line) for line in daemon.log_text().splitlines() if 'this sink left the configuration' in line]
    assert [(line['sink'], line['messages']) for line in orphan] == [('away', made.events)]
    made.add(write_activity(tmp_path / 'b.json', 20, seed=2))
    wait_until(lambda: far_end.count() == made.events, daemon=daemon)
    daemon.configure(source, far_end.sink(**QUICK), far_end.sink('away', **QUICK))
    assert reloaded(daemon) == ['sink away: added', '2 untouched']
    wait_until(lambda: far_end.count() == made.events + 20, daemon=daemon)      # what was spooled, and nothing of what it missed
    assert daemon.counters()[('(earlier)', 'away')]['delivered'] == 20
    assert daemon.stop() == 0


def test_a_source_that_leaves_stays_in_the_sums(tmp_path, penstock, far_end):
    made = [write_activity(tmp_path / name, 10, seed=seed) for seed, name in enumerate(('a.json', 'b.json'), 1)]
    daemon = up(penstock(files('a', tmp_path / 'a.json'), files('b', tmp_path / 'b.json'), far_end.sink(**QUICK)))
    wait_until(lambda: far_end.count() == 20, daemon=daemon)
    daemon.configure(files('b', tmp_path / 'b.json'), far_end.sink(**QUICK))
    assert reloaded(daemon) == ['source a: removed', '2 untouched']
    counters = daemon.counters()
    assert counters[('(earlier)', 'sentinel')]['delivered'] == counters[('b', 'sentinel')]['delivered'] == 10
    assert ('a', None) not in counters
    daemon.configure(files('b', tmp_path / 'b.json'), files('a', tmp_path / 'a.json'), far_end.sink(**QUICK))
    assert reloaded(daemon) == ['source a: added', '2 untouched']
    assert daemon.counters()[('a', 'sentinel')]['delivered'] == 10
    assert daemon.stop() == 0
    each_once(far_end, made[0].events + made[1].events)


def test_another_schema_goes_for_what_is_read_from_then_on(tmp_path, penstock, far_end):
    write_activity(tmp_path / 'a.json', 10)
    source = files('logs', tmp_path / '*.json')
    daemon = up(penstock(source, far_end.sink(**QUICK)))
    wait_until(lambda: far_end.count() == 10, daemon=daemon)
    daemon.configure(source, far_end.sink(schema='raw', **QUICK))
    assert reloaded(daemon) == ['sink sentinel: changed', '1 untouched']
    write_activity(tmp_path / 'b.json', 7, seed=2)
    wait_until(lambda: far_end.count() == 17, daemon=daemon)
    assert far_end.count('Custom-PenstockRaw') == 7
    assert far_end.violations() == []
    assert daemon.stop() == 0


@pytest.mark.parametrize('spooled', [False, True])
def test_another_schema_waits_for_what_was_written_in_the_old_one(tmp_path, penstock, far_end, spooled):
    """Rows of one table are no rows of another: what is in memory or on disk is delivered as what it is, or nothing changes."""
    write_activity(tmp_path / 'a.json', 10)
    source = files('logs', tmp_path / '*.json')
    far_end.down()
    daemon = up(penstock(source, far_end.sink(**(AWAY if spooled else {**AWAY, 'spool_after': '1h'})), stop_wait='2s'))
    if spooled:
        wait_until(lambda: total(daemon.counters(), 'spooled') == 10, daemon=daemon)
    else:
        wait_until(lambda: total(daemon.counters(), 'held') == 10, daemon=daemon)
    daemon.configure(source, far_end.sink(**{**AWAY, 'schema': 'raw'}), stop_wait='2s')
    done = reload(daemon)
    assert done.returncode == 1 and 'its spool holds messages as they were until now' in done.stderr
    far_end.up()
    wait_until(lambda: far_end.count() == 10 and total(daemon.counters(), 'spooled') == 0, daemon=daemon)
    assert far_end.count('Custom-PenstockRaw') == 0
    assert reloaded(daemon) == ['sink sentinel: changed', '1 untouched']
    assert daemon.stop() == 0
    each_once(far_end, 10)


def get(address, path):
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f'http://{address}{path}', timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def free_address():
    with socket.socket() as held:
        held.bind(('127.0.0.1', 0))
        return f'127.0.0.1:{held.getsockname()[1]}'


def test_the_window_moves_and_nothing_can_be_set_off_through_it(tmp_path, penstock, far_end):
    first, second = free_address(), free_address()
    sections = files('logs', tmp_path / '*.json'), far_end.sink(**QUICK)
    daemon = up(penstock(*sections, listen=first, log_level='info'))
    assert get(first, '/status.json') == 200 and get(first, '/reload') == 404
    daemon.configure(*sections, listen=second, log_level='error', memory='80M', cursor_save='20ms')
    assert reloaded(daemon) == ['daemon: changed', '2 untouched']
    assert get(first, '/healthz') is None and get(second, '/healthz') == 200
    assert get(second, '/reload') == 404
    daemon.configure(*sections)
    size = len(daemon.log_text())
    assert reloaded(daemon) == ['daemon: changed', '2 untouched']
    assert get(second, '/healthz') is None
    assert 'the configuration was reloaded' not in daemon.log_text()[size:]        # it was `error` that held until then
    assert daemon.stop() == 0
    assert (daemon.state_dir / 'status.sock').exists() is False


def test_the_keys_of_the_spool_are_read_again(tmp_path, penstock, far_end):
    """A line more, and what is spooled from then on is sealed with it; what was spooled before is read all the same."""
    keys = tmp_path / 'keys'
    keys.touch(mode=0o600)
    keys.write_text('11' * 32 + '\n')
    source = files('logs', tmp_path / '*.json')
    away = far_end.sink(**AWAY)
    far_end.down()
    daemon = up(penstock(source, away, key_file=keys))
    made = write_activity(tmp_path / 'a.json', 10)
    wait_until(lambda: total(daemon.counters(), 'spooled') == made.events, daemon=daemon)
    keys.write_text('11' * 32 + '\n' + '22' * 32 + '\n')
    assert reloaded(daemon) == ['daemon: changed', '2 untouched']
    made.add(write_activity(tmp_path / 'b.json', 10, seed=2))
    wait_until(lambda: total(daemon.counters(), 'spooled') == made.events, daemon=daemon)
    assert len(list((daemon.state_dir / 'spool' / 'sentinel').iterdir())) == 2
    far_end.up()
    wait_until(lambda: far_end.distinct() == made.events, daemon=daemon)
    assert daemon.stop() == 0


def test_a_spool_that_takes_nothing_keeps_a_source_from_changing_and_may_be_made_larger(tmp_path, penstock, far_end):
    """What is in memory can go nowhere: the source goes on as it is. More room for the spool is a change that helps."""
    far_end.down()
    for seed in range(1, 4):
        write_activity(tmp_path / f'{seed}.json', 1500, seed=seed)
    sink = {**AWAY, 'batch_bytes': '500K', 'spool_compress': 'no'}
    daemon = up(penstock(files('logs', tmp_path / '*.json'), far_end.sink(spool_max='1M', **sink), stop_wait='500ms'))
    wait_until(lambda: 'the spool is full' in daemon.log_text(), daemon=daemon)
    daemon.configure(files('logs', tmp_path / '*.json', rescan='10s'), far_end.sink(spool_max='1M', **sink), stop_wait='500ms')
    done = reload(daemon)
    assert done.returncode == 1 and 'sink sentinel can neither deliver nor spool' in done.stderr
    daemon.configure(files('logs', tmp_path / '*.json'), far_end.sink(spool_max='100M', **sink), stop_wait='500ms')
    assert reloaded(daemon) == ['sink sentinel: changed, and stays connected', '1 untouched']
    wait_until(lambda: total(daemon.counters(), 'spooled') == 4500, daemon=daemon)
    far_end.up()
    wait_until(lambda: far_end.distinct() == 4500, 60, daemon=daemon)
    assert daemon.stop() == 0


def test_who_asks_is_told_why_there_is_no_answer(tmp_path, penstock, far_end):
    daemon = penstock(files('logs', tmp_path / '*.json'), far_end.sink())
    done = reload(daemon)
    assert done.returncode == 1 and 'no daemon answers' in done.stderr
    assert reload(daemon, '-c', tmp_path / 'none').returncode == 2
    assert reload(daemon, 'now').returncode == 2


@pytest.mark.kafka
def test_a_topic_is_read_on_where_it_was_and_another_one_without_a_pause(tmp_path, penstock, broker, far_end):
    """A source of a topic changes under load: its successor begins at the offsets that were committed. One that is not touched
    keeps its connections, and its group its one member."""
    for topic in ('reload-turning', 'reload-steady'):
        broker.create_topic(topic, partitions=2)

    def topic(name, **more):
        return f'source {name}', {'type': 'kafka', 'bootstrap': broker.bootstrap, 'topic': f'reload-{name}', 'group': f'reload-{name}', **more}

    def sections(wait_ms):
        return topic('turning', **{'kafka.fetch.wait.max.ms': wait_ms}), topic('steady'), far_end.sink(**QUICK)
    daemon = up(penstock(*sections(50)))
    over, sent = threading.Event(), {'turning': 0, 'steady': 0}

    def produce():
        with contextlib.ExitStack() as stack:
            pipes = {name: stack.enter_context(subprocess.Popen(
                ['kcat', '-b', broker.bootstrap, '-P', '-t', f'reload-{name}', '-X', 'linger.ms=5'], stdin=subprocess.PIPE)) for name in sent}
            while not over.wait(0.005):
                for name, pipe in pipes.items():
                    pipe.stdin.write(json.dumps({'time': '2026-11-22T00:00:00Z', 'from': name, 'n': sent[name]}).encode() + b'\n')
                    pipe.stdin.flush()
                    sent[name] += 1
    writer = threading.Thread(target=produce)
    writer.start()
    try:
        wait_until(lambda: far_end.count() > 50, daemon=daemon)
        clients = connections(daemon, int(broker.bootstrap.rsplit(':', 1)[1]))
        for n in range(4):
            wait_until(lambda: total(daemon.counters(), 'read', source='turning') > (n + 1) * 50, 60, daemon=daemon)
            daemon.configure(*sections(60 + n))
            assert reloaded(daemon) == ['source turning: changed', '2 untouched']
        assert clients & connections(daemon, int(broker.bootstrap.rsplit(':', 1)[1]))
    finally:
        over.set()
        writer.join()
    wait_until(lambda: far_end.distinct() >= sum(sent.values()), 60, 'all to arrive', daemon)
    assert daemon.stop() == 0
    each_once(far_end, sum(sent.values()))


def test_a_container_is_read_on_where_it_was(penstock, far_end, azurite):
    """Blobs grow while their source changes again and again: each record once."""
    container = azurite.container(f'insights-logs-{secrets.token_hex(4)}')
    blobs = [FlowBlob(container, hour_name(NSG, now(), mac=f'{n:012X}')) for n in range(3)]
    maker, events = Maker(9), 0
    daemon = up(penstock(azurite.source(container.container_name, chunk='4K'), far_end.sink(**QUICK)))
    for n in range(8):
        for blob in blobs:
            blob.append(*(nsg_record(maker, tuples=10)[0] for _ in range(5)))
            events += 50
        daemon.configure(azurite.source(container.container_name, chunk=f'{5 + n}K'), far_end.sink(**QUICK))
        assert any(line.endswith(': changed') for line in reloaded(daemon))
    wait_until(lambda: far_end.count() >= events, daemon=daemon, what='all of it')
    assert daemon.stop() == 0
    each_once(far_end, events)
