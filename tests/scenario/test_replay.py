"""Replay as a job: a window of event time, a rate, a place to go on from, way for the daemon. Judged by what arrived, and when."""
import contextlib
import fcntl
import gzip
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

from archive import Archive
from blobs import BlobService
from farend import FarEnd
from penstock import binary, environment, parse_counters, wait_until
from test_promise import LIFE, assert_adds_up

FROM, TO = '2026-03-01T10:00', '2026-03-01T12:00'
WINDOW = ('--from', FROM + 'Z', '--to', TO + 'Z')


@pytest.fixture
def archive(tmp_path):
    return Archive(tmp_path / 'archive', '2026-03-01')


@pytest.fixture
def daemon(penstock, far_end, tmp_path):
    """Not started: replays need its configuration only."""
    return penstock(('source live', {'type': 'file', 'path': f'{tmp_path}/live/*.json', 'rescan': '1s'}), far_end.sink(**LIFE),
                    cursor_save='50ms')


def replay(daemon, *words, **more):
    return daemon.command('replay', '-c', daemon.config, *words, **more)


def jobs(daemon):
    """What `status` would say of each, from the file that it reads."""
    found = []
    for path in (daemon.state_dir / 'replay').glob('*/job'):
        try:
            found.append(json.loads(path.read_text()))
        except FileNotFoundError:
            pass                     # it ends just now
    return found


@contextlib.contextmanager
def process(words, **more):
    """One that does not outlive its test."""
    with subprocess.Popen([binary(), *words], env=environment(), **more) as started:
        try:
            yield started
        finally:
            started.kill()


def damage(path):
    data = path.read_bytes()
    path.write_bytes(data[:200] + b'\xff' * 64 + data[264:])


def status(daemon):
    """{} before it answers."""
    answer = daemon.command('status', '-c', daemon.config, '--json').stdout
    return json.loads(answer) if answer else {}


def job(daemon):
    return next(iter(jobs(daemon)), {})


# The window.

def test_a_window_is_delivered_and_nothing_else(daemon, far_end, archive):
    """Packed or not, late or not: each event by its own time, from included, to not; and what is left out is counted as dropped."""
    for hour in range(9, 14):
        archive.hour(hour, pack=[None, 'gzip', 'zstd'][hour % 3])
    archive.hour(40, late=29)        # events of 11:00
    archive.hour(41, late=20)        # none
    (archive.folder / 'export.jsonl').write_bytes(archive.text(11, records=7) + archive.text(12, records=5))
    done = replay(daemon, *WINDOW, archive.folder)
    assert done.returncode == 0, done.stderr
    expected = archive.ids(FROM, TO)
    assert sorted(far_end.uids()) == expected and len(expected) == 2 * 60 + 60 + 7
    counters = parse_counters(done.stderr)
    assert_adds_up(counters)
    messages = counters['replay', 'sentinel']
    assert (messages['delivered'], messages['dropped']) == (len(expected), len(archive.events) - len(expected))
    assert f'{len(archive.events) - len(expected)} of them outside of the window' in done.stderr
    assert jobs(daemon) == [] and list((daemon.state_dir / 'replay').iterdir()) == []


def test_what_cannot_hold_anything_is_not_opened(daemon, far_end, archive):
    """Hours that are too early or too late are passed over by their names: what is damaged there is not even noticed."""
    for hour in (10, 11):
        archive.hour(hour)
    for hour in (0, 8, 24 * 4, 24 * 40):
        path = archive.hour(hour, pack='gzip')
        damage(path)
    done = replay(daemon, *WINDOW, archive.folder)
    assert done.returncode == 0 and 'is damaged' not in done.stderr, done.stderr
    assert sorted(far_end.uids()) == archive.ids(FROM, TO)
    done = replay(daemon, *WINDOW, '--late', '900h', archive.folder)
    assert done.returncode == 1 and 'could not be read' in done.stderr, done.stderr


def test_events_without_a_time_are_in_every_window(daemon, far_end, tmp_path):
    (tmp_path / 'a.json').write_text('{"no":"time"}\nno JSON\n{"time":"tomorrow","operationName":"A/B/C","category":"Administrative"}\n')
    done = replay(daemon, *WINDOW, tmp_path / 'a.json')
    assert done.returncode == 0 and far_end.count() == 3, done.stderr


def test_raw_records_travel_whole_if_anything_of_them_is_in_the_window(penstock, far_end, archive, tmp_path):
    archive.hour(10)
    archive.hour(13)
    daemon = penstock(('source live', {'type': 'file', 'path': f'{tmp_path}/live/*.json'}), far_end.sink(**LIFE, schema='raw'))
    done = replay(daemon, *WINDOW, archive.folder)
    assert done.returncode == 0, done.stderr
    assert far_end.count() == 60
    assert_adds_up(parse_counters(done.stderr))


@pytest.mark.parametrize('words, sentence', [
    (['--from', 'yesterday'], '--from: expected a day (2026-03-01), a time (2026-03-01T10:00Z'),
    (['--to', '2026-02-30'], '--to: expected a day'),
    (['--from', '2026-03-02', '--to', '2026-03-01'], '--to: expected a time after --from'),
    (['--late', 'much'], '--late: expected a number with m, h or d behind it'),
    (['--rate', '5X'], '--rate: expected bytes a second (5M; K, M or G) or records a second (2000r)'),
    (['--rate', '0'], '--rate: expected'),
    (['--sink', 'nobody'], 'there is no sink nobody'),
    (['nowhere'], 'nowhere: No such file or directory, and there is no source of this name'),
    (['hub'], 'source hub: a kafka keeps no archive'),
    ([], 'expected 1 to 256 paths or sources'),
])
def test_wrong_words_are_refused(penstock, far_end, tmp_path, words, sentence):
    daemon = penstock(('source hub', {'type': 'kafka', 'bootstrap': '127.0.0.1:1', 'topic': 't', 'group': 'g'}), far_end.sink())
    path = [] if words in ([], ['nowhere'], ['hub']) else [tmp_path]
    done = replay(daemon, *words, *path)
    assert done.returncode == 2 and sentence in done.stderr, done.stderr
    assert not (daemon.state_dir / 'replay').exists()


# Sources by their names.

def test_a_source_by_its_name_goes_where_it_always_goes(penstock, far_end, archive, tmp_path):
    """Its own rows hold, and its route; the cursors of the daemon are not touched, and `start = end` is for the daemon."""
    archive.hour(10)
    daemon = penstock(('source other', {'type': 'file', 'path': f'{tmp_path}/other/*.json'}),
                      ('source activity', {'type': 'file', 'path': f'{archive.folder}/**', 'start': 'end'}),
                      far_end.sink('one', **LIFE, sources='other'), far_end.sink('two', **LIFE, sources='activity'))
    done = replay(daemon, *WINDOW, 'activity')
    assert done.returncode == 0, done.stderr
    assert sorted(far_end.uids()) == archive.ids(FROM, TO)
    counters = parse_counters(done.stderr)
    assert set(key for key in counters if None not in key) == {('activity', 'two')}
    assert not (daemon.state_dir / 'state.db').exists()


@pytest.fixture
def service():
    sys.path.insert(0, str(os.path.dirname(__file__)))
    with BlobService() as started:
        yield started


def test_a_container_is_read_by_its_window(penstock, far_end, service, key_file, archive):
    """Of a year of hours those are listed and fetched that may hold the window; then it ends by itself. Loose blobs are read, too."""
    for hour in {*range(-24 * 300, 24 * 20, 7), 9, 10, 11, 13}:
        service.put(archive.name(hour), archive.text(hour, records=3))
    service.put('export.json', archive.text(11, records=4))
    daemon = penstock(service.source(key_file, since='now'), far_end.sink(**LIFE))
    done = replay(daemon, *WINDOW, '--late', '2h', 'blobs')
    assert done.returncode == 0, done.stderr
    assert sorted(far_end.uids()) == archive.ids(FROM, TO)
    fetched = {name for method, kind, name, status, _ in service.log if kind == 'blob'}
    assert fetched == {'export.json', *(archive.name(hour) for hour in (9, 10, 11, 12, 13) if archive.name(hour) in service.blobs)}
    assert service.count(kind='list') < 40, service.count(kind='list')


def test_a_container_goes_on_after_a_kill(penstock, far_end, service, key_file, archive):
    for hour in range(24):
        service.put(archive.name(hour), archive.text(hour, records=200))
    daemon = penstock(service.source(key_file, queue='http://127.0.0.1:1/account/queue'), far_end.sink(**LIFE), cursor_save='50ms')
    words = ('replay', '-c', daemon.config, '--rate', '1000r', 'blobs')
    daemon.start(*words)
    wait_until(lambda: far_end.count() >= 1500, daemon=daemon, what='a part')
    daemon.kill()
    sent = service.sent()
    done = daemon.command(*words)
    assert done.returncode == 0, done.stderr
    assert set(far_end.uids()) == set(archive.ids())
    assert service.sent() < sent + sum(len(blob.content()) for blob in service.blobs.values()) * 0.9
    assert done.stderr.count('going on where it was') == 1


@pytest.mark.parametrize('name', ['PT1H.json', None])
def test_a_blob_that_goes_before_its_end_is_missed(penstock, far_end, service, key_file, archive, name):
    """Begun, stopped, deleted: the rest of it is not delivered, and the exit status says so."""
    service.put(archive.name(0) if name else 'other/a.json', archive.text(0, records=10))
    name = archive.name(1) if name else 'other/b.json'
    service.put(name, archive.text(1, records=3000))
    daemon = penstock(service.source(key_file), far_end.sink(**LIFE), cursor_save='50ms')
    words = ('replay', '-c', daemon.config, '--rate', '1000r', 'blobs')
    daemon.start(*words)
    wait_until(lambda: far_end.count() >= 500, daemon=daemon, what='a part')
    daemon.process.send_signal(signal.SIGINT)
    assert daemon.process.wait(60) == 1
    service.delete(name)
    done = replay(daemon, 'blobs')
    assert done.returncode == 1 and '1 files or blobs could not be read' in done.stderr, done.stderr


def test_a_containers_archives_are_whole_or_it_is_said(penstock, far_end, service, key_file, archive):
    """What is cut or damaged makes the exit status 1, again and again, until it is mended; the rest is delivered but once."""
    service.put(archive.name(0), archive.text(0))
    text = archive.text(1, records=2000)
    whole = gzip.compress(text)
    service.put(archive.name(1, 'PT1H.json.gz'), whole[:-20])
    daemon = penstock(service.source(key_file), far_end.sink(**LIFE))
    for _ in range(2):
        done = replay(daemon, 'blobs')
        assert done.returncode == 1 and 'ends in its middle' in done.stderr, done.stderr
    service.put(archive.name(1, 'PT1H.json.gz'), whole)
    done = replay(daemon, 'blobs')
    assert done.returncode == 0, done.stderr
    assert sorted(far_end.uids()) == archive.ids()


def test_a_blob_that_changes_under_the_reading_is_walked_again(penstock, far_end, service, key_file, archive):
    first = archive.text(0, records=300)
    service.put(archive.name(0), first)
    name = archive.name(0)

    def race(request):
        if request.method == 'GET' and 'comp' not in request.query and service.blobs[name].content() == first:
            service.put(name, first + archive.text(1, records=300))
    service.before = race
    daemon = penstock(service.source(key_file, chunk='16K'), far_end.sink(**LIFE))
    done = replay(daemon, 'blobs')
    assert done.returncode == 0, done.stderr
    assert sorted(far_end.uids()) == archive.ids()


# Going on.

def test_the_same_command_goes_on_after_a_kill(daemon, far_end, archive):
    """kill -9 in the middle: nothing is lost, what repeats has its id, and most of what was done is not done again."""
    for hour in range(12):
        archive.hour(hour, pack=[None, 'gzip'][hour % 2], records=500)
    words = ('replay', '-c', daemon.config, '--rate', '2000r', archive.folder)
    daemon.start(*words)
    wait_until(lambda: far_end.count() >= 3000, daemon=daemon, what='half of it')
    daemon.kill()
    before = far_end.count()
    done = daemon.command(*words)
    assert done.returncode == 0, done.stderr
    assert 'going on where it was' in done.stderr
    uids = far_end.uids()
    assert set(uids) == set(archive.ids())
    assert len(uids) - len(archive.events) < before / 2, 'what was done was done again'
    assert jobs(daemon) == []
    assert daemon.command(*words).returncode == 0
    assert far_end.count() == len(uids) + len(archive.events), 'a job that is done begins anew'


def test_a_stopped_job_is_listed_and_goes_on(daemon, far_end, archive):
    """Ctrl-C ends it in order; `penstock status` knows of it, whether a daemon runs or not; the window stays what it was."""
    for hour in range(6):
        archive.hour(hour, records=500)
    words = ('replay', '-c', daemon.config, '--rate', '1000r', '--from', '-3650d', archive.folder)
    daemon.start(*words)
    wait_until(lambda: job(daemon).get('records', 0) >= 500, daemon=daemon, what='some records')
    assert 'running' in daemon.command('status', '-c', daemon.config).stdout
    window = job(daemon)['from_ticks']
    daemon.process.send_signal(signal.SIGINT)
    assert daemon.process.wait(60) == 1
    assert 'the same command goes on there' in daemon.log_text()
    shown = daemon.command('status', '-c', daemon.config)
    assert re.search(r'REPLAY\n  [0-9a-f]{16}  stopped +[1-9]\d %.* records', shown.stdout), shown.stdout
    assert f'penstock replay -c {daemon.config} --rate 1000r --from -3650d {archive.folder}' in shown.stdout
    records = job(daemon)['records']
    again = ('replay', '-c', daemon.config, '--from', '-3650d', archive.folder)
    with open(daemon.log, 'ab') as log, process(again, stdout=log, stderr=log) as started:
        wait_until(lambda: started.poll() is not None or job(daemon).get('records', 0) > records, what='it to go on')
        if jobs(daemon):
            assert job(daemon)['from_ticks'] == window
        assert started.wait(120) == 0, daemon.log_tail()
    assert sorted(set(far_end.uids())) == archive.ids()
    assert 'REPLAY' not in daemon.command('status', '-c', daemon.config).stdout


def test_only_jobs_are_listed(daemon, far_end, archive):
    """Folders of other names are none; a job that is done leaves nothing behind, not even what a cut removal left."""
    archive.hour(0)
    folder = daemon.state_dir / 'replay'
    for name in 'odd\x1b[31m', 'f' * 16:
        (folder / name).mkdir(parents=True)
        (folder / name / 'job').write_text('{"state":"stopped","command":"penstock"}\n')
    shown = daemon.command('status', '-c', daemon.config).stdout
    assert 'f' * 16 in shown and '\x1b[31m' not in shown and 'odd' not in shown
    words = ('replay', '-c', daemon.config, '--rate', '10r', archive.folder)
    daemon.start(*words)
    wait_until(lambda: len(jobs(daemon)) == 3, daemon=daemon, what='the job')
    daemon.kill()
    name, = (path.name for path in folder.iterdir() if (path / 'state.db').exists())
    (folder / f'.{name}' / 'dead').mkdir(parents=True)
    (folder / f'.{name}' / 'job').write_text('{}')
    assert replay(daemon, archive.folder).returncode == 0
    assert sorted(path.name for path in folder.iterdir()) == sorted(['odd\x1b[31m', 'f' * 16])


def test_anew_begins_at_the_beginning(daemon, far_end, archive):
    for hour in range(4):
        archive.hour(hour, records=500)
    daemon.start('replay', '-c', daemon.config, '--rate', '500r', archive.folder)
    wait_until(lambda: far_end.count() >= 500, daemon=daemon, what='some')
    daemon.kill()
    before = far_end.count()
    done = replay(daemon, '--anew', archive.folder)
    assert done.returncode == 0 and 'going on' not in done.stderr, done.stderr
    assert far_end.count() == before + 2000


def test_one_job_runs_once(daemon, far_end, archive):
    archive.hour(0, records=2000)
    words = ('replay', '-c', daemon.config, '--rate', '200r', archive.folder)
    daemon.start(*words)
    wait_until(lambda: job(daemon).get('records', 0) > 0, daemon=daemon, what='it to run')
    for more in ([], ['--anew']):
        done = replay(daemon, *more, archive.folder)
        assert done.returncode == 1 and re.search('in use|running already', done.stderr), done.stderr
    daemon.kill()


def test_what_was_rejected_is_left_until_it_is_dealt_with(daemon, far_end, archive):
    """Exit 1 while its dead letters lie there, also when asked again, and nothing is sent twice; then it is done."""
    archive.hour(0, records=5)
    far_end.fault(do='status', status=400, count=-1)
    done = replay(daemon, archive.folder)
    [folder] = (daemon.state_dir / 'replay').iterdir()
    assert done.returncode == 1 and f'penstock dead list --state-dir {folder}' in done.stderr, done.stderr
    far_end.clear()
    done = replay(daemon, archive.folder)
    assert done.returncode == 1 and far_end.count() == 0, done.stderr
    assert daemon.command('dead', 'drop', '--state-dir', folder, 'sentinel', '--all', '--yes').returncode == 0
    assert replay(daemon, archive.folder).returncode == 0
    assert not folder.exists() and far_end.count() == 0


def test_what_cannot_be_read_is_said_and_tried_again(daemon, far_end, archive):
    archive.hour(0)
    path = archive.hour(1, pack='gzip', records=2000)
    whole = path.read_bytes()
    damage(path)
    done = replay(daemon, archive.folder)
    assert done.returncode == 1 and '1 files or blobs could not be read, or not whole' in done.stderr, done.stderr
    assert len(jobs(daemon)) == 1 and far_end.count() >= 60
    path.write_bytes(whole[:-20])
    for _ in range(2):               # asked again, it says so again
        done = replay(daemon, archive.folder)
        assert done.returncode == 1 and 'ends in its middle' in done.stderr, done.stderr
    path.write_bytes(whole)
    done = replay(daemon, archive.folder)
    assert done.returncode == 0, done.stderr
    assert set(far_end.uids()) == set(archive.ids())


@pytest.mark.parametrize('name', ['a[1].json', 'a*.json', 'a?.json', 'a\\b.json', ' a b ', '[0].d/', 'b ]*/'])
def test_a_name_that_is_there_is_no_pattern(daemon, far_end, archive, tmp_path, name):
    """a[1].json, given by its name, is that file: not a1.json, and not nothing."""
    path = tmp_path / 'named' / name
    (path if name.endswith('/') else path.parent).mkdir(parents=True)
    (path / 'PT1H.json' if name.endswith('/') else path).write_bytes(archive.text(0))
    others = Archive(tmp_path, '2026-03-02')
    for other in 'a1.json', 'axb.json', '0.d':
        (tmp_path / 'named' / other).write_bytes(others.text(0))
    done = replay(daemon, path)
    assert done.returncode == 0, done.stderr
    assert sorted(far_end.uids()) == archive.ids()


def test_folders_that_cannot_be_looked_into_are_not_forgotten(daemon, far_end, archive):
    path = archive.hour(0).parent / 'loop'
    path.symlink_to('loop')
    done = replay(daemon, archive.folder)
    assert done.returncode == 1 and '1 files or blobs could not be read' in done.stderr, done.stderr
    path.unlink()
    assert replay(daemon, archive.folder).returncode == 0
    assert sorted(far_end.uids()) == archive.ids()


def test_a_torn_end_goes_too_after_a_stop(daemon, far_end, archive):
    """All there is of a file is what there will be, in the second start as in the first."""
    path = archive.hour(0, records=3000)
    path.write_bytes(path.read_bytes() + b'{"time":"2026-03-01T00:59:59Z","operat')
    words = ('replay', '-c', daemon.config, '--rate', '1000r', archive.folder)
    daemon.start(*words)
    wait_until(lambda: far_end.count() >= 500, daemon=daemon, what='a part')
    daemon.kill()
    done = replay(daemon, archive.folder)
    assert done.returncode == 0, done.stderr
    assert len(set(far_end.uids()) - set(archive.ids())) == 1, 'the torn record'


def test_a_file_that_goes_before_its_end_is_missed(daemon, far_end, archive):
    archive.hour(0, records=10)
    path = archive.hour(1, records=3000)
    words = ('replay', '-c', daemon.config, '--rate', '1000r', archive.folder)
    daemon.start(*words)
    wait_until(lambda: far_end.count() >= 500, daemon=daemon, what='a part')
    daemon.kill()
    path.unlink()
    done = replay(daemon, archive.folder)
    assert done.returncode == 1 and '1 files or blobs could not be read' in done.stderr, done.stderr


def test_damage_in_its_spool_is_no_delivery(penstock, far_end, archive, tmp_path):
    """What lay on the job's disk when it was stopped and cannot be read again: it says so until all is sent anew."""
    archive.hour(0, records=2000)
    daemon = penstock(('source live', {'type': 'file', 'path': f'{tmp_path}/live/*.json'}),
                      far_end.sink(batch_bytes='20000', spool_after='100ms', spool_compress='no', **LIFE), cursor_save='50ms')
    far_end.down()
    daemon.start('replay', '-c', daemon.config, archive.folder)
    wait_until(lambda: job(daemon).get('records') == 2000, daemon=daemon, what='all to be read')
    daemon.process.send_signal(signal.SIGINT)
    assert daemon.process.wait(60) == 1
    far_end.up()
    segment = max(daemon.state_dir.glob('replay/*/spool/*/*'), key=lambda file: file.stat().st_size)
    content = bytearray(segment.read_bytes())
    content[[found.start() for found in re.finditer(b'PFR2', content)][1] + 3000] ^= 1
    segment.write_bytes(content)
    for _ in range(2):
        done = replay(daemon, archive.folder)
        assert done.returncode == 1 and 'lost to damage' in done.stderr, done.stderr
        assert 1500 < len(set(far_end.uids())) < 2000
    assert replay(daemon, '--anew', archive.folder).returncode == 0
    assert set(far_end.uids()) == set(archive.ids()) and jobs(daemon) == []


# The rate, and how far it is.

@pytest.mark.parametrize('rate, size', [('400r', 800), ('160K', None)])
def test_a_rate_holds(daemon, far_end, archive, rate, size):
    """Never faster, whatever the machine; how much slower it may be is the machine's mood."""
    for hour in range(8):
        archive.hour(hour, records=400)
    began = time.monotonic()
    done = replay(daemon, '--rate', rate, archive.folder)
    took = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    amount = 3200 / 400 if size else sum(path.stat().st_size for path in archive.folder.rglob('PT1H.json')) / (160 * 1024)
    assert took > amount * 0.7, (took, amount)      # the last chunks of eight files are not waited for


def test_the_time_left_is_right_after_a_third(daemon, far_end, archive):
    """Within 20 % after a third of the way: the rate is ours, so that it is not the machine's mood."""
    for hour in range(24):
        archive.hour(hour, records=400, pack=[None, None, 'gzip'][hour % 3], more=str(hour) * 40)
    daemon.start('replay', '-c', daemon.config, '--rate', '250K', archive.folder)
    said, ended_ms = None, None
    while daemon.running():
        now = job(daemon)
        if said is None and now.get('whole') and now['done'] * 3 >= now['total'] and 'left_s' in now:
            said = now
        if ended_ms is None and now.get('whole') and now['done'] == now['total']:
            ended_ms = now['updated_ms']
        time.sleep(0.05)
    assert daemon.exited() == 0, daemon.log_tail()
    took = ((ended_ms or time.time() * 1000) - said['updated_ms']) / 1000
    print(f'said {said["left_s"]} s, took {took:.1f} s')
    assert abs(said['left_s'] - took) <= 0.2 * took + 0.5, (said, took)      # it is said by the second


def screen(fd, until):
    """What comes from a terminal, until it holds that or ends."""
    text = b''
    while until not in text:
        try:
            text += os.read(fd, 65536)
        except OSError:
            break
    return text.decode()


def test_on_a_terminal_one_line_is_drawn_again_and_again(daemon, far_end, archive):
    """As wide as the terminal, whatever becomes of that; log lines stand on their own; Ctrl-C says how to go on."""
    for hour in range(12):
        archive.hour(hour, records=500)
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 100, 0, 0))
    with process(['replay', '-c', daemon.config, '--rate', '500r', archive.folder], stdin=side, stdout=side, stderr=side,
                 start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)) as started:
        os.close(side)
        text = screen(main, b' left')
        lines = [line for line in text.split('\r') if 'records' in line]
        assert len(lines) >= 2 and all(len(line) <= 104 for line in lines), lines
        assert re.search(r'\d+ %  [\d.k]+ records  [\d.]+ .?B  [\d.]+ .?B/s  \d+ s left', lines[-1]), lines[-1]
        assert 'newest 2026-03-01' in text
        fcntl.ioctl(main, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 30, 0, 0))
        started.send_signal(signal.SIGWINCH)
        screen(main, b'\r')
        narrow = screen(main, b'records')
        narrow += screen(main, b'\r')
        assert 'newest' not in narrow.split('\r')[-2], narrow
        os.write(main, b'\x03')
        rest = screen(main, b'\0')
        assert 'the same command goes on there' in rest
        assert started.wait(60) == 1
    os.close(main)


def test_not_on_a_terminal_lines_come_now_and_then(daemon, far_end, archive):
    for hour in range(8):
        archive.hour(hour, records=400)
    done = replay(daemon, '--rate', '200r', archive.folder)
    assert done.returncode == 0 and '\r' not in done.stderr, done.stderr
    said = [line for line in done.stderr.splitlines() if 'replay=' in line and ' records' in line]
    assert 1 <= len(said) <= 6, said


# Before it is done.

def test_a_dry_run_counts_and_sends_nothing(penstock, far_end, archive, tmp_path):
    """By table, with what Sentinel would bill: the values of all columns, and the workspace's id."""
    for hour in range(9, 13):
        archive.hour(hour)
    (archive.folder / 'alien.json').write_text('{"no":"time"}\n')
    daemon = penstock(('source live', {'type': 'file', 'path': f'{tmp_path}/live/*.json'}), far_end.sink(**LIFE),
                      ('sink siem', {'type': 'kafka', 'brokers': '127.0.0.1:1', 'topic': 't', 'schema': 'ocsf'}))
    done = replay(daemon, '--dry-run', *WINDOW, archive.folder)
    assert done.returncode == 0, done.stderr
    rows = {tuple(line.split()[:2]): line.split()[2:] for line in done.stdout.splitlines()[1:]}
    assert set(rows) == {('sentinel', 'ASimAuditEventLogs'), ('sentinel', 'PenstockUnknown_CL'), ('siem', 'audit'), ('siem', 'unknown')}
    assert rows['sentinel', 'ASimAuditEventLogs'][0] == rows['siem', 'audit'][0] == '120'
    assert rows['siem', 'audit'][-1] == '-'
    assert far_end.requests() == [] and not (daemon.state_dir / 'replay').exists()
    assert not list(tmp_path.glob('penstock-dry-run-*'))

    assert replay(daemon, *WINDOW, '--sink', 'sentinel', archive.folder).returncode == 0
    billed = 0
    for row in far_end.rows('Custom-PenstockAudit'):
        billed += 36 + sum(len((value if isinstance(value, str) else json.dumps(value, separators=(',', ':'))).encode())
                           for value in row.values() if value is not None)
    assert float(rows['sentinel', 'ASimAuditEventLogs'][-1]) * 1e9 == pytest.approx(billed, abs=501)       # a kB is shown


def test_where_nothing_is_nothing_is_said_to_be_done(penstock, far_end, tmp_path):
    daemon = penstock(('source live', {'type': 'file', 'path': f'{tmp_path}/nothing/*.json'}), far_end.sink(**LIFE))
    (tmp_path / 'empty').mkdir()
    for words, wanted in (([], 1), (['--from', '2026-03-01'], 0)):
        done = daemon.command('replay', '-c', daemon.config, *words, tmp_path / 'empty')
        assert done.returncode == wanted and 'there was nothing to read: check the paths' in done.stderr


# Beside the daemon.

def test_a_daemon_too_busy_to_answer_has_its_way(penstock, far_end, archive, tmp_path):
    daemon = penstock(('source live', {'type': 'file', 'path': f'{tmp_path}/nothing/*.json'}), far_end.sink(**LIFE)).start()
    wait_until(lambda: status(daemon).get('sinks'), daemon=daemon)
    archive.hour(1, records=3000)
    daemon.pause()
    with open(tmp_path / 'replay.log', 'wb') as log, \
            process(['replay', '-c', daemon.config, '--rate', '500r', archive.folder], stdout=log, stderr=log) as started:
        wait_until(lambda: job(daemon).get('gives_way_to') == 'a daemon that does not answer', 60, 'the replay to give way')
        daemon.resume()
        assert started.wait(120) == 0
    assert far_end.distinct() == len(archive.events)
    assert daemon.stop() == 0


def test_it_gives_way_to_the_daemons_own_traffic(penstock, far_end, archive, tmp_path):
    """While the daemon's sink of that name is held back, the replay stands still, and says so; then both go on."""
    with FarEnd(tmp_path / 'second') as second:
        live = tmp_path / 'live'
        live.mkdir()
        daemon = penstock(('source live', {'type': 'file', 'path': f'{live}/*.json', 'rescan': '1s'}),
                          far_end.sink(**{**LIFE, 'retry_min': '3s', 'retry_max': '3s'}))
        far_end.down()
        daemon.start()
        text = archive.text(0, records=10)
        live_ids = set(archive.events)
        (live / 'a.json').write_bytes(text)
        archive.hour(1, records=3000)
        wait_until(lambda: status(daemon).get('sinks', [{}])[0].get('hold_ms', 0) > 0,
                   daemon=daemon, what='the daemon to be held back')
        other = penstock(('source live', {'type': 'file', 'path': f'{tmp_path}/nothing/*.json'}), second.sink(**LIFE))
        config = tmp_path / 'replay.conf'
        config.write_text(other.config.read_text().replace(str(other.state_dir), str(daemon.state_dir)))
        with open(tmp_path / 'replay.log', 'wb') as log, \
                process(['replay', '-c', config, '--rate', '500r', archive.folder], stdout=log, stderr=log) as started:
            wait_until(lambda: job(daemon).get('gives_way_to') == 'sentinel', daemon=daemon, what='the replay to give way')
            shown = daemon.command('status', '-c', daemon.config)
            assert 'gives way to sentinel' in shown.stdout
            shown = status(daemon)
            assert [one['gives_way_to'] for one in shown['replays']] == ['sentinel']
            before = job(daemon)['records']
            wait_until(lambda: job(daemon)['updated_ms'] > shown['replays'][0]['updated_ms'] + 2500, what='some seconds')
            assert job(daemon)['records'] == before < 3000
            far_end.up()
            assert started.wait(120) == 0, (tmp_path / 'replay.log').read_text()
        wait_until(lambda: far_end.count() == 10, daemon=daemon, what='what is live')
        assert daemon.stop() == 0
        assert set(far_end.uids()) == live_ids and set(second.uids()) == set(archive.events) - live_ids
