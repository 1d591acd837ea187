"""The spool, opened: what waits on disk is listed, verified, exported, encrypted, adopted and dropped, never above its cap."""
import hashlib
import json
import os
import pathlib
import re
import secrets
import subprocess

import pytest

from penstock import binary, total, wait_until
from records import write_activity

LIFE = {'flush': '100ms', 'retry_min': '50ms', 'retry_max': '500ms', 'spool_after': '100ms'}
RECORDS = 300


def event_ids(path):
    return [hashlib.sha256(line.rstrip(b'\n')).hexdigest()[:32] + '-0' for line in open(path, 'rb')]


@pytest.fixture
def logs(tmp_path):
    (tmp_path / 'logs').mkdir()
    write_activity(tmp_path / 'logs' / 'a.json', records=RECORDS, seed=5)
    return tmp_path / 'logs'


def source(logs):
    return 'source activity', {'type': 'file', 'path': f'{logs}/*.json'}


def lines(run):
    return [json.loads(line) for line in run.stdout.splitlines()]


def folder(daemon, sink='sentinel'):
    return daemon.state_dir / 'spool' / sink


def spooled(daemon, sink='sentinel'):
    """Waits until all records lie in the spool of a far end that is down."""
    wait_until(lambda: total(daemon.counters(), 'spooled', sink=sink) == RECORDS, daemon=daemon, what='a full spool')


def drained(daemon):
    wait_until(lambda: all(keys['held'] + keys['spooled'] == 0 for key, keys in daemon.counters().items() if None not in key),
               60, 'an empty spool', daemon)


def blocks(path):
    """As du counts."""
    return sum(os.stat(os.path.join(at, name)).st_blocks * 512 for at, _, names in os.walk(path) for name in names + ['.'])


def contents(path):
    return b''.join(file.read_bytes() for file in sorted(path.iterdir()))


def test_looked_at_while_the_daemon_runs(penstock, far_end, logs, tmp_path):
    far_end.down()
    daemon = penstock(source(logs), far_end.sink(**LIFE)).start()
    spooled(daemon)
    listed, = lines(daemon.command('spool', 'list', '-c', daemon.config, '--json'))
    assert (listed['sink'], listed['state'], listed['messages']) == ('sentinel', 'configured', RECORDS)
    assert (listed['type'], listed['schema'], listed['key']) == ('sentinel', 'asim', '-')
    assert listed['bytes'] <= blocks(folder(daemon))
    assert 'sentinel' in daemon.command('spool', 'list', '-c', daemon.config).stdout
    checked = daemon.command('spool', 'check', '-c', daemon.config, '--json')
    assert (checked.returncode, lines(checked)) == (0, [{'sink': 'sentinel', 'damage': [], 'whole': RECORDS, 'locked': 0,
                                                         'lost': 0, 'aside': 0}])
    exported = daemon.command('spool', 'export', '-c', daemon.config, 'sentinel')
    assert exported.returncode == 0
    assert [message['message']['EventOriginalUid'] for message in lines(exported)] == event_ids(logs / 'a.json')
    assert {message['kind'] for message in lines(exported)} == {'audit'}
    assert {message['stream'] for message in lines(exported)} == {f'activity/{logs}/a.json'}
    out = tmp_path / 'out.json'
    assert daemon.command('spool', 'export', '-c', daemon.config, '--output', out, 'sentinel').returncode == 0
    assert out.read_text() == exported.stdout and out.stat().st_mode & 0o777 == 0o600
    assert daemon.command('spool', 'export', '-c', daemon.config, '--output', out, 'sentinel').returncode == 1
    refused = daemon.command('spool', 'drop', '-c', daemon.config, '--yes', 'sentinel')
    assert refused.returncode == 1 and 'stop that first' in refused.stderr
    far_end.up()
    drained(daemon)
    assert daemon.stop() == 0
    assert far_end.uids() == event_ids(logs / 'a.json')
    assert list(folder(daemon).iterdir()) == []


def test_encrypted(penstock, far_end, logs, tmp_path):
    """No word of a record is on disk; keys are added; without its key a spool waits and loses nothing."""
    keys = tmp_path / 'keys'
    first, second = secrets.token_hex(32), secrets.token_hex(32)
    ids = [hashlib.sha256(bytes.fromhex(key)).hexdigest()[:16] for key in (first, second)]
    keys.write_text(first + '\n')
    keys.chmod(0o600)
    far_end.down()
    daemon = penstock(source(logs), far_end.sink(spool_compress='no', **LIFE), key_file=keys).start()
    spooled(daemon)
    assert daemon.stop() == 0
    stored = contents(folder(daemon))
    assert len(stored) > RECORDS * 500 and b'EventOriginalUid' not in stored and b'a.json' not in stored
    assert lines(daemon.command('spool', 'list', '-c', daemon.config, '--json'))[0]['key'] == ids[0]
    # A key more writes; both read.
    keys.write_text(f'{first}\n# since November\n{second}\n')
    write_activity(logs / 'b.json', records=RECORDS, seed=6)
    daemon.start()
    wait_until(lambda: total(daemon.counters(), 'spooled') == 2 * RECORDS, daemon=daemon, what='more in the spool')
    assert daemon.stop() == 0
    assert lines(daemon.command('spool', 'list', '-c', daemon.config, '--json'))[0]['key'] == ids[1]
    # The old key is taken away too early: an alarm, and nothing moves.
    keys.write_text(second + '\n')
    checked = daemon.command('spool', 'check', '-c', daemon.config, '--json')
    assert checked.returncode == 0
    assert lines(checked)[0]['locked'] == lines(checked)[0]['whole'] == RECORDS
    exported = daemon.command('spool', 'export', '-c', daemon.config, 'sentinel')
    assert exported.returncode == 1 and len(exported.stdout.splitlines()) == RECORDS and 'key_file' in exported.stderr
    far_end.up()
    daemon.start()
    wait_until(lambda: f'key={ids[0]}' in daemon.log_text(), daemon=daemon, what='an alarm that names the key')
    assert total(daemon.counters(), 'spooled') == 2 * RECORDS
    assert daemon.stop() == 0
    assert far_end.count() == 0
    keys.write_text(f'{first}\n{second}\n')
    daemon.start()
    drained(daemon)
    assert daemon.stop() == 0
    assert far_end.uids() == event_ids(logs / 'a.json') + event_ids(logs / 'b.json')
    assert first not in daemon.log_text() and second not in daemon.log_text()


def test_damage_costs_its_frames(penstock, far_end, logs):
    far_end.down()
    daemon = penstock(source(logs), far_end.sink(batch_bytes='20000', spool_compress='no', **LIFE)).start()
    spooled(daemon)
    assert daemon.stop() == 0
    segment = max(folder(daemon).iterdir(), key=lambda file: file.stat().st_size)
    bytes_ = bytearray(segment.read_bytes())
    heads = [found.start() for found in re.finditer(b'PFR2', bytes_)]
    bytes_[heads[1] + 3000] ^= 1                   # a message of the second frame
    bytes_[heads[4] + 9] ^= 1                      # the head of the fifth
    segment.write_bytes(bytes_)
    checked = daemon.command('spool', 'check', '-c', daemon.config, '--json')
    damage = lines(checked)[0]
    assert checked.returncode == 1
    assert [place['offset'] for place in damage['damage']] == [heads[1], heads[5]]
    assert damage['whole'] + damage['lost'] == RECORDS and 0 < damage['lost'] < RECORDS / 4
    assert segment.name in daemon.command('spool', 'check', '-c', daemon.config, 'sentinel').stdout
    far_end.up()
    daemon.start()
    drained(daemon)
    assert daemon.stop() == 0
    assert total(daemon.counters(), 'dropped') == damage['lost']
    assert total(daemon.counters(), 'delivered') == damage['whole']
    assert f'segment={segment.name}' in daemon.log_text() and f'offset={heads[1]}' in daemon.log_text()
    assert set(far_end.uids()) < set(event_ids(logs / 'a.json')) and far_end.count() == damage['whole']


def test_orphan_is_named_and_adopted(penstock, far_end, logs):
    """A sink was renamed while its spool held messages: said at start and by check, and one command brings them home."""
    far_end.down()
    daemon = penstock(source(logs), far_end.sink('old', **LIFE)).start()
    spooled(daemon, 'old')
    assert daemon.stop() == 0
    daemon.configure(source(logs), far_end.sink('new', **LIFE),
                     ('sink siem', {'type': 'kafka', 'brokers': 'localhost:9', 'topic': 't', 'sources': 'activity'}))
    warned = daemon.command('check', '-c', daemon.config)
    assert warned.returncode == 0 and f'{RECORDS} messages' in warned.stderr and 'penstock spool adopt old' in warned.stderr
    assert lines(daemon.command('spool', 'list', '-c', daemon.config, '--json'))[0]['state'] == 'orphan'
    unfit = daemon.command('spool', 'adopt', '-c', daemon.config, 'old', 'siem')
    assert unfit.returncode == 1 and 'type sentinel' in unfit.stderr
    assert daemon.command('spool', 'adopt', '-c', daemon.config, 'old', 'none').returncode == 1
    assert daemon.command('spool', 'adopt', '-c', daemon.config, 'none', 'new').returncode == 1
    daemon.configure(source(logs), far_end.sink('new', **LIFE))
    write_activity(logs / 'b.json', records=RECORDS, seed=6)
    daemon.start()
    wait_until(lambda: 'sink=old' in daemon.log_text(), daemon=daemon, what='the orphan to be named')
    spooled(daemon, 'new')
    busy = daemon.command('spool', 'adopt', '-c', daemon.config, 'old', 'new')
    assert busy.returncode == 1 and 'stop that first' in busy.stderr
    assert daemon.stop() == 0
    adopted = daemon.command('spool', 'adopt', '-c', daemon.config, '--json', 'old', 'new')
    assert lines(adopted) == [{'from': 'old', 'to': 'new', 'messages': RECORDS}]
    listed, = lines(daemon.command('spool', 'list', '-c', daemon.config, '--json'))
    assert (listed['sink'], listed['messages']) == ('new', 2 * RECORDS)
    far_end.up()
    daemon.start()
    drained(daemon)
    assert daemon.stop() == 0
    assert far_end.uids() == event_ids(logs / 'b.json') + event_ids(logs / 'a.json')
    assert total(daemon.counters(), 'dropped') == 0


def test_a_spool_is_never_sent_as_what_it_is_not(penstock, far_end, logs):
    """The sink has another schema after a restart, and its spool rows of the old one: that is a mistake, not a start."""
    far_end.down()
    daemon = penstock(source(logs), far_end.sink(**LIFE)).start()
    spooled(daemon)
    assert daemon.stop() == 0
    far_end.up()
    daemon.configure(source(logs), far_end.sink(schema='raw', **LIFE))
    refused = daemon.command('run', '-c', daemon.config)
    assert refused.returncode == 2 and 'messages for a sink of type sentinel in schema asim' in refused.stderr
    assert 'another name' in refused.stderr
    checked = daemon.command('check', '-c', daemon.config)
    line = 1 + daemon.config.read_text().splitlines().index('schema = raw')
    assert checked.returncode == 2 and f'{daemon.config}:{line}: ' in checked.stderr
    assert far_end.count() == 0
    daemon.configure(source(logs), far_end.sink(**LIFE))
    daemon.start()
    drained(daemon)
    assert daemon.stop() == 0
    daemon.configure(source(logs), far_end.sink(schema='raw', **LIFE))
    assert daemon.command('check', '-c', daemon.config).returncode == 0
    daemon.start()                                       # nothing waits any more
    write_activity(logs / 'b.json', 7, seed=2)
    wait_until(lambda: far_end.count('Custom-PenstockRaw') == 7, daemon=daemon)
    assert daemon.stop() == 0
    assert far_end.count() == RECORDS + 7 and far_end.violations() == []


def test_dropped(penstock, far_end, logs):
    far_end.down()
    daemon = penstock(source(logs), far_end.sink(**LIFE)).start()
    spooled(daemon)
    assert daemon.stop() == 0
    asked = daemon.command('spool', 'drop', '-c', daemon.config, 'sentinel')
    assert asked.returncode == 2 and f'{RECORDS} messages' in asked.stderr
    assert len(list(folder(daemon).iterdir())) > 0
    assert f'{RECORDS} messages dropped' in daemon.command('spool', 'drop', '-c', daemon.config, '--yes', 'sentinel').stdout
    assert list(folder(daemon).iterdir()) == []
    write_activity(logs / 'b.json', records=RECORDS, seed=6)
    far_end.up()
    daemon.start()
    wait_until(lambda: far_end.count() >= RECORDS, daemon=daemon, what='what came after')
    assert daemon.stop() == 0
    assert far_end.uids() == event_ids(logs / 'b.json')


def test_files_of_others_do_not_stop_the_start(penstock, far_end, logs):
    """Segments of the first format, torn ones, nonsense and folders."""
    far_end.down()
    daemon = penstock(source(logs), far_end.sink(**LIFE)).start()
    spooled(daemon)
    assert daemon.stop() == 0
    (folder(daemon) / 'ffff000000000000.seg').write_bytes(b'nonsense')
    (folder(daemon) / '0000000000100000.seg').write_bytes(b'PENSPOOL\1\0\0\0' + bytes(5000) + b'x' * 5000)
    (folder(daemon) / '0000000000200000.seg').write_bytes(b'')
    (folder(daemon) / '0000000000300000.seg').mkdir()
    (folder(daemon) / '0000000000400000.seg').symlink_to('/etc/passwd')
    (folder(daemon) / 'notes.txt').write_text('hello')
    far_end.up()
    daemon.start()
    drained(daemon)
    assert daemon.stop() == 0
    assert far_end.uids() == event_ids(logs / 'a.json')
    assert 'another version of Penstock wrote it' in daemon.log_text()


def test_cap_holds_as_du_counts(penstock, far_end, tmp_path):
    (tmp_path / 'logs').mkdir()
    write_activity(tmp_path / 'logs' / 'a.json', records=12_000, seed=3)
    far_end.down()
    daemon = penstock(source(tmp_path / 'logs'), far_end.sink(spool_max='3M', **LIFE)).start()

    def full():
        assert blocks(folder(daemon)) <= 3 << 20
        return 'the spool is full' in daemon.log_text()
    wait_until(lambda: folder(daemon).exists(), daemon=daemon)
    wait_until(full, 60, 'a spool at its cap', daemon)
    assert blocks(folder(daemon)) > 1 << 20
    daemon.kill()
    assert blocks(folder(daemon)) <= 3 << 20
    far_end.up()
    daemon.start()
    wait_until(lambda: far_end.distinct() >= 12_000, 120, 'all of it', daemon)
    drained(daemon)
    assert daemon.stop() == 0


def test_cap_below_a_batch_is_refused(penstock, far_end, logs):
    daemon = penstock(source(logs), far_end.sink(spool_max='1M', **LIFE))
    checked = daemon.command('check', '-c', daemon.config)
    assert checked.returncode == 2 and '"spool_max": expected at least twice "batch_bytes"' in checked.stderr


def on_small_disk(tmp_path, size):
    """A program that runs penstock with a state folder on a disk of its own, which nobody else sees."""
    wrapper = tmp_path / 'on-small-disk'
    wrapper.write_text('#!/bin/sh\n'
                       'exec unshare --map-root-user --mount sh -c \'mount -t tmpfs -o size="$1" small "$2" && shift 2 && exec "$@"\' '
                       f'sh {size} "$STATE_DIR" "{binary()}" "$@"\n')
    wrapper.chmod(0o755)
    tried = subprocess.run(['unshare', '--map-root-user', '--mount', 'mount', '-t', 'tmpfs', 'small', '/mnt'], capture_output=True)
    if tried.returncode != 0:
        pytest.skip('no namespaces: this kernel or container lets us mount nothing')
    return wrapper


def test_full_disk_is_drained(penstock, far_end, tmp_path):
    """Not one byte is free: what lies in the spool is delivered all the same, what is rejected is buried, cursors are saved,
    and the room comes back."""
    records = 8_000
    first, second = tmp_path / 'logs' / 'a.json', tmp_path / 'logs' / 'b.json'
    first.parent.mkdir()
    write_activity(first, records=RECORDS, seed=3)
    far_end.down()
    daemon = penstock(source(tmp_path / 'logs'), far_end.sink(spool_compress='no', **LIFE), cursor_save='50ms')
    daemon.start(program=on_small_disk(tmp_path, '9m'), STATE_DIR=str(daemon.state_dir))
    spooled(daemon)
    write_activity(second, records=records, seed=4)
    wait_until(lambda: 'the spool cannot be written' in daemon.log_text(), 60, 'a full disk', daemon)
    state = pathlib.Path(f'/proc/{daemon.process.pid}/root{daemon.state_dir}')
    if 'the reserve is given' not in daemon.log_text():          # else cursors were the first to find no room
        assert (state / 'reserve').stat().st_blocks * 512 >= 4 << 20
        with open(state / 'filler', 'wb', buffering=0) as filler, pytest.raises(OSError):
            while True:                            # somebody else takes the last of it
                filler.write(bytes(4096))
    spooled_bytes = blocks(state / 'spool')
    assert spooled_bytes > 1 << 20
    uids = event_ids(first) + event_ids(second)
    poisoned = uids[RECORDS // 2]
    far_end.settings(poison=[f'"{poisoned}"'])
    far_end.up()
    wait_until(lambda: far_end.distinct() >= RECORDS + records - 1, 120, 'all records', daemon)
    drained(daemon)
    letters = (state / 'dead' / 'sentinel.jsonl').read_text().splitlines()
    (state / 'filler').unlink(missing_ok=True)
    wait_until(lambda: (state / 'reserve').exists() and (state / 'reserve').stat().st_blocks * 512 >= 4 << 20, 60,
               'the reserve to be made anew', daemon)
    assert blocks(state / 'spool' / 'sentinel') <= 8192
    assert daemon.stop() == 0
    assert set(far_end.uids()) == set(uids) - {poisoned}
    assert len(letters) == total(daemon.counters(), 'dead') == 1 and poisoned in letters[0]
    assert total(daemon.counters(), 'dropped') == 0
    if 'cursors cannot be saved' in daemon.log_text():
        assert 'the reserve is given' in daemon.log_text()
