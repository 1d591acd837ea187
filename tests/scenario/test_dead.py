"""Dead letters: what a far end rejects for good is found among its neighbours and kept with its reason; what is our own fault
is held; and `penstock dead` shows, resends and drops letters while the daemon runs, through crashes too."""
import hashlib
import json
import math
import os
import signal
import subprocess

import pytest

from penstock import binary, build_folder, environment, parse_line, total, wait_until

FAST = {'flush': '100ms', 'spool_after': '60s', 'retry_min': '50ms', 'retry_max': '300ms'}


def line(n, text=''):
    return json.dumps({'time': f'2026-11-22T{n // 3600 % 24:02}:{n // 60 % 60:02}:{n % 60:02}Z', 'category': 'Made',
                       'operationName': 'made/by/test', 'n': n, 'text': text}).encode()


def uid(raw):
    return f'{hashlib.sha256(raw).hexdigest()[:32]}-0'


def quoted(uids):
    return [f'"{one}"' for one in uids]


class Dead:
    """A daemon over one file, and what lies in its dead letters."""

    def __init__(self, penstock, far_end, tmp_path, **sink):
        self.logs = tmp_path / 'logs'
        self.logs.mkdir()
        self.far_end = far_end
        self.uids = []
        self.daemon = penstock(('source made', {'type': 'file', 'path': f'{self.logs}/*.json', 'rescan': '1s'}),
                               far_end.sink(**{**FAST, **sink}))
        self.file = self.daemon.state_dir / 'dead' / 'sentinel.jsonl'

    def write(self, count, text=''):
        """So many more records; their ids."""
        raws = [line(n, text) for n in range(len(self.uids), len(self.uids) + count)]
        self.uids += map(uid, raws)
        with open(self.logs / f'{len(self.uids)}.json', 'wb') as file:
            file.write(b''.join(raw + b'\n' for raw in raws))
        return self.uids[-count:]

    def bury(self, count=1, among=10):
        """A daemon that has run, and left so many letters; their ids."""
        uids = self.write(among)[:count]
        self.far_end.settings(poison=quoted(uids))
        self.daemon.start()
        wait_until(lambda: len(self.letters()) == count and self.far_end.distinct() == among - count, 60, 'the letters', self.daemon)
        return uids

    def letters(self):
        """Whole lines only: the last one may be on its way."""
        lines = self.file.read_bytes().split(b'\n')[:-1] if self.file.exists() else []
        return [json.loads(one) for one in lines]

    def dead_uids(self):
        return [letter['message']['EventOriginalUid'] for letter in self.letters()]

    def command(self, *words, **more):
        return self.daemon.command('dead', words[0], '-c', str(self.daemon.config), *words[1:], **more)

    def listed(self, *words):
        done = self.command('list', '--json', *words)
        assert done.returncode == 0, done.stderr
        return [json.loads(one) for one in done.stdout.splitlines()]

    def ids(self):
        return [letter['id'] for letter in self.listed()]


@pytest.fixture
def dead(penstock, far_end, tmp_path):
    return lambda **sink: Dead(penstock, far_end, tmp_path, **sink)


def alarms(daemon):
    return [parse_line(text) for text in daemon.log_text().splitlines() if ' error ' in text]


# What goes there, and what does not.

def test_the_guilty_message_is_found_with_few_requests(dead, far_end):
    """One among n costs about 2·log2 n requests more, and its letter says all there is to know."""
    one = dead(flush='5s')           # so that all of it is one batch
    n = 2000
    uids = one.write(n, text='x' * 20)
    guilty = uids[1371]
    far_end.settings(poison=quoted([guilty]))
    one.daemon.start()
    wait_until(lambda: far_end.distinct() == n - 1 and one.letters(), 60, 'the others and the letter', one.daemon)
    requests = far_end.requests()
    rejected = [request for request in requests if request['status'] == 400]
    batches = 1 + sum(request['rows'] for request in requests) // n    # at least; what is cut shows in the rejected ones
    assert len(rejected) <= math.ceil(math.log2(n)) + 1
    assert len(requests) <= batches + 2 * math.ceil(math.log2(n))
    [letter] = one.letters()
    assert letter['message']['EventOriginalUid'] == guilty
    assert (letter['sink'], letter['schema'], letter['kind'], letter['status']) == ('sentinel', 'asim', 'unknown', '400')
    assert letter['reason'].startswith('status 400, InvalidRow') and letter['time'].startswith('20')
    path = letter['stream'].removeprefix('made')
    with open(path if os.path.exists(path) else path[1:], 'rb') as file:
        file.seek(letter['position'])
        assert uid(file.readline().rstrip(b'\n')) == guilty
    assert one.daemon.stop() == 0
    counters = one.daemon.counters()
    assert (total(counters, 'delivered'), total(counters, 'dead'), total(counters, 'held')) == (n - 1, 1, 0)


@pytest.mark.plain
@pytest.mark.parametrize('status', [401, 403, 404, 407, 410])
def test_our_own_fault_is_neither_delivered_nor_dead(dead, far_end, status):
    one = dead()
    one.write(100)
    far_end.fault(do='status', status=status, count=-1)
    one.daemon.start()
    wait_until(lambda: total(one.daemon.counters(), 'refusals') >= 3, 60, 'three refusals', one.daemon)
    counters = one.daemon.counters()
    assert total(counters, 'held') == 100
    assert total(counters, 'delivered') == total(counters, 'dead') == total(counters, 'dropped') == 0
    [alarm] = alarms(one.daemon)
    assert alarm['outcome'] == 'refused' and f'status {status}' in alarm['why']
    far_end.clear()
    wait_until(lambda: far_end.distinct() == 100, 60, 'all of it', one.daemon)
    assert one.daemon.stop() == 0
    assert not one.file.exists()
    assert 'takes our messages again' in one.daemon.log_text()


def test_a_wrong_rule_costs_a_few_letters_not_all(dead, far_end):
    """A far end that rejects everything is held after a few letters, alarms once, and is tried on; resend brings the rest."""
    one = dead(retry_min='3s', retry_max='3s', dead_in_a_row='5')
    uids = one.write(200)
    far_end.settings(poison=['EventOriginalUid'])
    one.daemon.start()
    wait_until(lambda: alarms(one.daemon), 60, 'the alarm', one.daemon)
    [alarm] = alarms(one.daemon)
    assert 'dead_in_a_row' in alarm['msg'] and 'status 400' in alarm['why']
    wait_until(lambda: len(one.letters()) >= 6, 60, 'one more: it does not stand still', one.daemon)
    assert len(far_end.requests()) < 60
    assert far_end.count() == 0
    far_end.settings(poison=[])
    wait_until(lambda: far_end.distinct() == len(uids) - len(one.letters()), 60, 'the others', one.daemon)
    assert len(one.letters()) < 50
    assert len(alarms(one.daemon)) == 1
    done = one.command('resend', 'sentinel', '--all')
    assert done.returncode == 0, done.stderr
    assert sorted(far_end.uids()) == sorted(uids)
    assert one.letters() == []


def test_without_the_guard_all_of_it_dies(dead, far_end):
    one = dead(dead_in_a_row='0')
    uids = one.write(100)
    far_end.settings(poison=['EventOriginalUid'])
    one.daemon.start()
    wait_until(lambda: len(one.letters()) == 100, 60, 'all letters', one.daemon)
    assert one.dead_uids() == uids
    assert alarms(one.daemon) == []
    assert one.daemon.log_text().count('go to the dead letters') < 5     # sums, not a line each


def test_full_dead_letters_hold_everything(dead, far_end):
    """At dead_max nothing more is sent, nothing is lost, it is said once; with room it goes on by itself."""
    one = dead(dead_max='1M', dead_in_a_row='0')
    uids = one.write(100, text='y' * 30_000)
    far_end.settings(poison=['EventOriginalUid'])
    one.daemon.start()
    wait_until(lambda: alarms(one.daemon), 60, 'the alarm', one.daemon)
    far_end.settings(poison=[])
    before = one.file.stat().st_size
    counters = one.daemon.counters()
    assert before <= 1 << 20
    assert total(counters, 'dead') == len(one.letters()) < 100
    assert total(counters, 'dead') + total(counters, 'delivered') + total(counters, 'held') == 100
    assert one.command('resend', 'sentinel', '--all').returncode == 0
    wait_until(lambda: total(one.daemon.counters(), 'held') == 0, 60, 'what was held', one.daemon)
    [alarm] = alarms(one.daemon)
    assert 'full' in alarm['msg'] and 'written again' in one.daemon.log_text()
    assert sorted(far_end.uids() + one.dead_uids()) == sorted(uids)


def test_dead_letters_that_cannot_be_written_wait(dead, far_end):
    one = dead()
    one.file.parent.mkdir()
    one.file.mkdir()                 # a folder where the file should be: not even root can write that
    uids = one.write(10)
    far_end.settings(poison=quoted(uids[:1]))
    one.daemon.start()
    wait_until(lambda: alarms(one.daemon), 60, 'the alarm', one.daemon)
    assert total(one.daemon.counters(), 'dead') == 0
    one.file.rmdir()
    wait_until(lambda: one.file.exists() and one.dead_uids() == uids[:1], 60, 'the letter', one.daemon)
    wait_until(lambda: far_end.distinct() == 9, 60, 'the others', one.daemon)
    assert len(alarms(one.daemon)) == 1


# The command.

def test_list_and_show(dead):
    one = dead()
    uids = one.bury(2)
    done = one.command('list')
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == '2 dead letters'
    letters = one.listed('sentinel')
    assert [letter['id'] in done.stdout for letter in letters] == [True, True]
    assert 'message' not in letters[0]
    shown = one.command('show', '--json', letters[1]['id'])
    assert shown.returncode == 0
    assert json.loads(shown.stdout)['message']['EventOriginalUid'] == uids[1]
    shown = one.command('show', letters[0]['id'])
    assert uids[0] in shown.stdout and 'status 400' in shown.stdout
    message = shown.stdout[shown.stdout.index('\n{') + 1:]
    assert json.loads(message) == one.letters()[0]['message']
    missing = one.command('show', '0' * 16)
    assert missing.returncode == 1 and '0' * 16 in missing.stderr
    assert one.command('show', 'nonsense').returncode == 2
    assert one.command('list', 'other').stdout == '0 dead letters\n'


def test_the_configuration_may_lack_its_environment(dead):
    """Looking needs no secrets: a shell without the unit's variables will do."""
    one = dead(username='x')         # and not even a sound configuration
    one.daemon.config.write_text(one.daemon.config.read_text() + 'proxy = ${NOT_SET_ANYWHERE}\n')
    assert one.command('list').stdout == '0 dead letters\n'
    assert one.daemon.command('dead', 'list', '--state-dir', str(one.daemon.state_dir)).stdout == '0 dead letters\n'


def test_what_steers_a_terminal_is_shown_not_obeyed(dead):
    """Escapes in what came from outside, as raw bytes and as JSON escapes, in every column."""
    one = dead()
    one.bury()
    letter = one.letters()[0]
    evil = '\x1b]0;owned\x07\x1b[31m\x9b2J\u202e\u2028\x7f'
    letter.update(reason=f'status 400, {evil}', stream=f'made/{evil}', sink=evil, status=evil, time=f'2026{evil}',
                  kind=evil, schema=evil)
    letter['message'] = {'RawText': evil, evil: [{}, [], [1, {'a': None}]]}
    raw = json.dumps(letter, separators=(',', ':'), ensure_ascii=False).replace('"time":', '"time":', 1)
    with open(one.file, 'a', encoding='utf-8') as file:
        file.write(raw.replace('\x1b', '\\u001b').replace('\x07', '\\u0007') + '\n')
    ident = one.ids()[1]
    for words in (['list'], ['list', '--json'], ['show', ident], ['show', '--json', ident]):
        done = one.command(*words)
        assert done.returncode == 0, done.stderr
        assert not set(done.stdout) & set(evil.replace(']0;owned', '').replace('[31m', '').replace('2J', '')), words
    shown = json.loads(one.command('show', '--json', ident).stdout)
    assert shown.pop('id') == ident
    assert shown == letter           # the escapes mean the same


def test_resend_after_the_far_end_was_mended(dead, far_end):
    """What is delivered leaves the file, beside a daemon that goes on; what is rejected again stays with a new reason."""
    one = dead()
    uids = one.bury(3)
    first = one.letters()
    far_end.settings(poison=quoted(uids[2:]))
    assert one.command('resend', 'sentinel', one.ids()[0]).stdout == '1 delivered, 0 refused again and kept\n'
    assert one.dead_uids() == uids[1:]
    done = one.command('resend', 'sentinel', '--all')
    assert (done.returncode, done.stdout) == (1, '1 delivered, 1 refused again and kept\n')
    [letter] = one.letters()
    assert letter['message'] == first[2]['message'] and letter['time'] > first[2]['time']
    assert [letter[key] for key in ('stream', 'position', 'kind', 'ticks')] == [first[2][key] for key in ('stream', 'position', 'kind', 'ticks')]
    assert letter['reason'] != first[2]['reason']        # another request's id
    far_end.settings(poison=[])
    assert one.command('resend', 'sentinel', '--all').stdout == '1 delivered, 0 refused again and kept\n'
    assert one.file.read_bytes() == b''
    assert sorted(far_end.uids()) == sorted(one.uids)
    assert far_end.violations() == []
    assert not (one.daemon.state_dir / 'resend-sentinel').exists()


def test_the_daemon_appends_to_the_new_file(dead, far_end):
    """After a rewriting the daemon's next letter is in the file that has the name."""
    one = dead()
    one.bury(2)
    assert one.command('drop', 'sentinel', '--all', '--yes').stdout == '2 dropped\n'
    more = [uid(line(n)) for n in range(10, 15)]
    far_end.settings(poison=quoted(more[:2]))
    one.write(5)
    wait_until(lambda: one.dead_uids() == more[:2], 60, 'two more letters', one.daemon)
    assert one.daemon.stop() == 0


def test_drop(dead, far_end):
    one = dead()
    uids = one.bury(3)
    ids = one.ids()
    before = one.file.read_bytes()
    refused = one.command('drop', 'sentinel', '--all')
    assert refused.returncode == 2 and '--yes' in refused.stderr
    for words in (['drop', 'sentinel'], ['drop'], ['drop', 'sentinel', ids[0], '--all', '--yes'], ['drop', '../x', ids[0]],
                  ['resend', 'sentinel'], ['resend', 'nobody', '--all'], ['nothing'], []):
        assert one.daemon.command('dead', *words, '-c', str(one.daemon.config)).returncode == 2, words
    assert one.file.read_bytes() == before
    done = one.command('drop', 'sentinel', ids[1], '0' * 16)
    assert (done.returncode, done.stdout) == (1, '1 dropped\n') and '0' * 16 in done.stderr
    assert one.dead_uids() == [uids[0], uids[2]]
    assert one.ids() == [ids[0], ids[2]]                 # an id outlives the rewriting
    assert one.command('drop', 'sentinel', '--all', '--yes').stdout == '2 dropped\n'
    assert one.listed() == [] and far_end.distinct() == 7


def test_damaged_lines_are_named_and_kept(dead, far_end):
    """A torn last line, a foreign one, one that is no JSON: each is named with file and line, and nothing else is disturbed."""
    one = dead()
    uids = one.bury(2)
    assert one.daemon.stop() == 0
    good = one.file.read_bytes().splitlines(keepends=True)
    torn = good[0][:200]
    one.file.write_bytes(good[0] + b'# a note by the operator\n' + b'{"time":"x","message":{}}\n' + good[1] + torn)
    done = one.command('list')
    assert done.returncode == 1
    assert [text.split(': ')[0] for text in done.stderr.splitlines()] == [f'{one.file}:{n}' for n in (2, 3, 5)]
    assert done.stdout.splitlines()[-1] == '2 dead letters'
    far_end.settings(poison=[])
    done = one.command('resend', 'sentinel', '--all')
    assert (done.returncode, done.stdout) == (1, '2 delivered, 0 refused again and kept\n')
    assert f'{one.file}:2: ' in done.stderr
    assert one.file.read_bytes() == b'# a note by the operator\n{"time":"x","message":{}}\n' + torn + b'\n'
    one.file.write_bytes(one.file.read_bytes()[:-1])     # torn again: the daemon's next letter stands on a line of its own
    more = [uid(line(n)) for n in range(10, 12)]
    far_end.settings(poison=quoted(more[:1]))
    one.write(2)
    one.daemon.start()
    wait_until(lambda: one.file.read_bytes().count(b'\n') == 4, 60, 'the letter', one.daemon)
    assert uid(line(10)).encode() in one.file.read_bytes().splitlines()[3]
    expected = sorted(set(uids) | set(one.uids) - set(more[:1]))
    wait_until(lambda: len(far_end.uids()) >= len(expected), 60, 'the letter\'s neighbour', one.daemon)
    assert sorted(far_end.uids()) == expected


def test_a_letter_of_another_schema_stays(dead, far_end):
    one = dead()
    one.bury()
    far_end.settings(poison=[])
    one.file.write_bytes(one.file.read_bytes().replace(b'"schema":"asim"', b'"schema":"ocsf"'))
    done = one.command('resend', 'sentinel', '--all')
    assert (done.returncode, done.stdout) == (1, '0 delivered, 0 refused again and kept\n')
    assert 'another schema' in done.stderr and len(one.letters()) == 1


def test_killed_while_resending(dead, far_end):
    """kill -9 amid a resend: no letter is lost, and the next resend brings them all; twice only under the same id."""
    one = dead()
    uids = one.bury(8, among=20)
    far_end.settings(poison=[])
    far_end.fault(do='lose-answer', count=1)
    far_end.fault(do='hang', count=-1)
    words = [binary(), 'dead', 'resend', '-c', one.daemon.config, 'sentinel', '--all']
    resend = subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    wait_until(lambda: far_end.distinct() == 20, 60, 'the letters to arrive')
    busy = one.command('resend', 'sentinel', '--all')
    assert busy.returncode == 1 and 'already' in busy.stderr
    busy = one.command('drop', 'sentinel', '--all', '--yes')
    assert busy.returncode == 1 and 'being resent' in busy.stderr
    resend.kill()
    resend.wait()
    assert one.dead_uids() == uids
    far_end.clear()
    assert one.command('resend', 'sentinel', '--all').stdout == '8 delivered, 0 refused again and kept\n'
    assert one.letters() == []
    assert set(far_end.uids()) == set(one.uids)


@pytest.mark.parametrize('point', ['openat@*.jsonl.new:1:after', 'pwrite@*.jsonl.new:1:half', 'fsync@*.jsonl.new:1:before',
                                   'renameat@*.jsonl.new:1:before', 'renameat@*.jsonl.new:1:after', 'fsync@*/dead:1:before'])
def test_killed_while_rewriting(dead, far_end, point):
    """Death at each step of the last one: the file is as it was or as it should be, and the same command brings it there."""
    one = dead()
    uids = one.bury(3)
    keep, sent, dropped = one.ids()[0], one.ids()[1], one.ids()[2]
    far_end.settings(poison=[])
    for words, gone in ((['resend', 'sentinel', sent], 1), (['drop', 'sentinel', dropped], 2)):
        before = one.dead_uids()
        after = [one_uid for one_uid in before if one_uid != uids[gone]]
        killed = subprocess.run([build_folder() / 'tests' / 'penstock-kill', 'dead', words[0], '-c', one.daemon.config, *words[1:]],
                                env={**environment(), 'PENSTOCK_KILL': point}, capture_output=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        renamed = point.startswith(('renameat@*.jsonl.new:1:after', 'fsync@*/dead'))
        assert one.dead_uids() == (after if renamed else before)
        again = one.command(*words)
        assert again.returncode == renamed, again.stderr             # 1: no such letter any more
        assert one.dead_uids() == after
    assert one.ids() == [keep]
    assert uids[1] in far_end.uids() and not {uids[0], uids[2]} & set(far_end.uids())


def test_stopped_while_resending(dead, far_end):
    """SIGTERM while the far end is away: it ends, and every letter is still there."""
    one = dead()
    uids = one.bury(4)
    assert one.daemon.stop() == 0
    far_end.settings(poison=[])
    far_end.down()
    words = [binary(), 'dead', 'resend', '-c', one.daemon.config, 'sentinel', '--all']
    resend = subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while 'busy or away' not in resend.stderr.readline():
        assert resend.poll() is None
    resend.send_signal(signal.SIGTERM)
    out, _ = resend.communicate(timeout=60)
    assert resend.returncode == 1
    assert out == '0 delivered, 0 refused again and kept, 4 without an answer and kept\n'
    assert one.dead_uids() == uids
    assert not (one.daemon.state_dir / 'resend-sentinel').exists()


def test_appended_while_resending(dead, far_end):
    """Letters that the daemon writes while a resend runs are in the file afterwards."""
    one = dead()
    uids = one.bury(4)
    more = [uid(line(n)) for n in range(10, 14)]
    far_end.settings(poison=quoted(more))
    far_end.fault(do='slow', delay=2, count=1)
    words = [binary(), 'dead', 'resend', '-c', one.daemon.config, 'sentinel', '--all']
    resend = subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, text=True)
    wait_until(lambda: (one.daemon.state_dir / 'resend-sentinel' / 'spool' / 'sentinel').exists() or resend.poll() is not None,
               30, 'the resend to begin')
    one.write(4)
    wait_until(lambda: set(more) <= set(one.dead_uids()), 60, 'the new letters', one.daemon)
    out, _ = resend.communicate(timeout=60)
    assert out.startswith('4 delivered')
    assert one.dead_uids() == more
    assert set(far_end.uids()) == set(one.uids) - set(more) and set(uids) <= set(far_end.uids())


@pytest.mark.kafka
@pytest.mark.plain
def test_kafka(penstock, broker, tmp_path):
    """A topic that is not there holds all; one that is too narrow for a message costs that message, until it is wider."""
    (tmp_path / 'logs').mkdir()
    raws = [line(n, text='z' * (50_000 if n == 3 else 10)) for n in range(8)]
    (tmp_path / 'logs' / 'a.json').write_bytes(b''.join(raw + b'\n' for raw in raws))
    sink = {'type': 'kafka', 'brokers': broker.bootstrap, 'schema': 'ocsf', 'kafka.compression.codec': 'none',
            'kafka.topic.metadata.propagation.max.ms': '1000', **FAST}
    source = 'source made', {'type': 'file', 'path': f'{tmp_path}/logs/*.json'}
    daemon = penstock(source, ('sink siem', {**sink, 'topic': 'narrow'})).start()
    wait_until(lambda: total(daemon.counters(), 'refusals') >= 2, 120, 'refusals', daemon)
    counters = daemon.counters()
    assert (total(counters, 'held'), total(counters, 'delivered'), total(counters, 'dead')) == (8, 0, 0)
    assert len(alarms(daemon)) == 1
    broker.create_topic('narrow', max_message_bytes=20_000)
    file = daemon.state_dir / 'dead' / 'siem.jsonl'
    wait_until(lambda: file.exists() and file.read_bytes().endswith(b'\n'), 120, 'the letter', daemon)
    wait_until(lambda: len(broker.read_all('narrow')) == 7, 60, 'the others', daemon)
    assert daemon.stop() == 0
    letter = json.loads(file.read_bytes())
    assert (letter['status'], letter['schema']) == ('MSG_SIZE_TOO_LARGE', 'ocsf')
    assert letter['message']['metadata']['uid'] == uid(raws[3])
    broker.create_topic('wide')
    daemon.configure(source, ('sink siem', {**sink, 'topic': 'wide'}))
    done = daemon.command('dead', 'resend', '-c', str(daemon.config), 'siem', '--all')
    assert (done.returncode, done.stdout) == (0, '1 delivered, 0 refused again and kept\n'), done.stderr
    [message] = broker.read_all('wide')
    assert json.loads(message[3])['metadata']['uid'] == uid(raws[3])
