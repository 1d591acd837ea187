"""Memory is flat: one endless line, one huge record, ten thousand files, a far end that is away while gigabytes come in, a
spool of gigabytes; the budget holds, and what can be sent arrives.
"""
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess

import pytest

import reliability
from penstock import binary, environment, slower, total, wait_until
from records import Maker, activity_line, nsg_record, write_activity, write_nsg
from test_promise import assert_adds_up, event_id

LIFE = {'flush': '100ms', 'retry_min': '50ms', 'retry_max': '500ms'}
PROGRAM = 16 << 20                   # what the program itself may take beyond the budget
BOUND = (64 << 20) + PROGRAM         # at default settings
GIB = 1 << 30


def sanitized():
    """Shadow memory is not ours to bound; tests/run says that it is there by asking for patience."""
    return slower() > 1


def judge(load, peak, bound=BOUND):
    """The kernel's peak figure of a process under some load."""
    if not sanitized():
        reliability.append('memory.jsonl', {'load': load, 'peak_bytes': peak, 'bound_bytes': bound})
        assert peak <= bound, f'{load}: {peak >> 20} MiB resident'


def gigabytes(size):
    return f'{size // GIB} GiB' if size >= GIB else f'{size >> 20} MiB'


def parse_peak(path, *words):
    """Peak resident bytes of `penstock parse`, and the lines it wrote. (What wait4() tells includes the parent's memory.)"""
    process = subprocess.Popen([binary(), 'parse', *words, path], stdout=subprocess.PIPE, env=environment())
    status = f'/proc/{process.pid}/status'
    count = peak = 0
    while block := process.stdout.read(1 << 20):
        count += block.count(b'\n')
        high = re.search(r'^VmHWM:\s+(\d+) kB', open(status).read(), re.M)
        peak = max(peak, int(high[1]) * 1024 if high else 0)
    process.stdout.close()
    assert process.wait() == 0
    assert peak > 0
    return peak, count


def one_line(path, size):
    made = write_nsg(path, size=size, tuples=200)
    with open(path, 'rb') as file:
        assert b'\n' not in file.read(1 << 20)
    peak, lines = parse_peak(path)
    assert lines == made.events
    judge(f'`parse`: a blob of {gigabytes(size)}, one line', peak, 48 << 20)


@pytest.fixture
def emptied(tmp_path):
    """What the test wrote is removed, whatever becomes of it: pytest keeps the folders of the last runs."""
    yield
    shutil.rmtree(tmp_path)


def test_one_line_of_100_megabytes(emptied, tmp_path):
    one_line(tmp_path / 'PT1H.json', 100 << 20)


@pytest.mark.long
def test_one_line_of_10_gigabytes(emptied, tmp_path):
    one_line(tmp_path / 'PT1H.json', 10 << 30)


def test_records_as_large_as_allowed(penstock, far_end, tmp_path):
    """Records of almost 4 MiB, whose trees and events are many times that, among small ones; then one beyond the bound."""
    logs = tmp_path / 'logs'
    logs.mkdir()
    maker, expected = Maker(2), []
    with open(logs / 'PT1H.json', 'wb') as file:
        file.write(b'{"records":[')
        for n, tuples in enumerate((5, 50_000, 5, 45_000, 5)):
            record = nsg_record(maker, tuples=tuples)[0]
            assert tuples == 5 or 3 << 20 < len(record) < 4 << 20
            file.write((b',' if n else b'') + record)
            whole = hashlib.sha256(record).hexdigest()[:32]
            expected += [f'{whole}-{i}' for i in range(tuples)]
        file.write(b',{"huge":"' + b'x' * (5 << 20) + b'"}]}')
    daemon = penstock(('source flows', {'type': 'file', 'path': f'{logs}/*.json'}), far_end.sink(**LIFE)).start()
    wait_until(lambda: far_end.count() >= len(expected) + 1, 120, 'all tuples', daemon)
    highest = daemon.memory()[1]
    assert daemon.stop() == 0
    flows = far_end.uids('Custom-PenstockNetworkSession')
    assert list(dict.fromkeys(flows)) == expected and len(flows) == len(expected)
    assert total(daemon.counters(), 'oversize') == 1
    judge('records of almost 4 MiB', highest)


@pytest.mark.kafka
def test_a_large_record_beside_sinks_that_are_away(penstock, far_end, tmp_path):
    """What these have in flight stays in memory, perhaps for ever: the passes over the record must not wait for it."""
    record = nsg_record(Maker(3), tuples=6000)[0]
    (tmp_path / 'large.json').write_bytes(record)
    away = [(f'sink away{n}', {'type': 'kafka', 'brokers': '127.0.0.1:1', 'topic': 'none', 'schema': 'ocsf', 'timeout': '1s',
                               'spool_after': '300ms'}) for n in range(2)]
    daemon = penstock(('source flows', {'type': 'file', 'path': f'{tmp_path}/large.json'}), far_end.sink(**LIFE), *away,
                      memory='48M').start()
    wait_until(lambda: far_end.count() >= 6000, 60, 'all tuples', daemon)
    assert daemon.stop() == 0
    assert far_end.uids() == [event_id(record, n) for n in range(6000)]
    assert_adds_up(daemon.counters())


@pytest.mark.parametrize('folders', [100, pytest.param(1000, marks=pytest.mark.long)])
def test_ten_thousand_files(penstock, far_end, tmp_path, folders):
    """Ten (or a hundred) thousand hourly blobs at once: every record arrives once, in memory that does not grow with the files."""
    maker, records = Maker(8), 0
    for hour in range(folders):
        folder = tmp_path / 'logs' / f'h={hour:02}'
        folder.mkdir(parents=True)
        for mac in range(100):
            with open(folder / f'mac={mac}.json', 'wb') as file:
                file.write(activity_line(maker)[0])
                records += 1
    daemon = penstock(('source many', {'type': 'file', 'path': f'{tmp_path}/logs/**/*.json'}), far_end.sink(**LIFE)).start()
    wait_until(lambda: far_end.count() >= records, 120 * folders // 100, 'all files', daemon)
    highest = daemon.memory()[1]
    assert daemon.stop() == 0
    assert far_end.count() == far_end.distinct() == records
    judge(f'{records:,} files', highest)
    # A second start knows them all: only what is new is read.
    with open(tmp_path / 'logs' / 'h=50' / 'mac=50.json', 'ab') as file:
        file.write(activity_line(maker)[0])
    daemon.start()
    wait_until(lambda: far_end.count() > records, 60, 'the new line', daemon)
    assert daemon.stop() == 0
    assert daemon.counters()[('many', None)]['read'] == 1
    assert far_end.count() == far_end.distinct() == records + 1


def write_archives(folder, size, count, block):
    """`count` gzip archives that are so many bytes when unpacked: one block of text again and again."""
    packed = gzip.compress(block, 1)
    for n in range(count):
        with open(folder / f'{n}.json.gz', 'wb') as file:
            for _ in range(size // count // len(block)):
                file.write(packed)
    return count * (size // count // len(block))


def activity_block(folder, size=4 << 20):
    """Lines of the Activity Log, and how many."""
    made = write_activity(folder / 'block', size=size)
    block = (folder / 'block').read_bytes()
    (folder / 'block').unlink()
    return block, made.records


def test_far_end_away_and_the_spool_full(penstock, far_end, tmp_path):
    """10 GiB of logs wait and the spool may have 4 MiB: the sources pause, and what was not read stays where it lies."""
    logs = tmp_path / 'logs'
    logs.mkdir()
    block, records = activity_block(tmp_path, 12 << 20)
    for n in range(10):
        with open(logs / f'{n}.json', 'wb') as file:
            file.write(block)
            file.truncate(GIB)       # a hole: nobody gets as far as that
    far_end.down()
    daemon = penstock(('source logs', {'type': 'file', 'path': f'{logs}/*.json'}),
                      far_end.sink(spool_after='100ms', spool_max='4M', **LIFE)).start()
    wait_until(lambda: daemon.counters()[(None, None)]['flow'] == 'paused', 60, 'the sources to be paused', daemon)
    retries = total(daemon.counters(), 'retries')
    wait_until(lambda: total(daemon.counters(), 'retries') >= retries + 4, 60, 'the far end to be tried again', daemon)
    assert total(daemon.counters(), 'read') < 10 * records
    judge('far end away, 10 GiB of input, sources paused', daemon.memory()[1])


@pytest.mark.plain
@pytest.mark.parametrize('size', [GIB // 2, pytest.param(10 * GIB, marks=pytest.mark.long)], ids=gigabytes)
def test_far_end_away_and_the_spool_large_enough(emptied, penstock, far_end, tmp_path, size):
    """Gigabytes come in while nothing can go out: all of it goes to the spool, through the same memory."""
    logs = tmp_path / 'logs'
    logs.mkdir()
    block, records = activity_block(tmp_path)
    records *= write_archives(logs, size, 4, block)
    far_end.down()
    daemon = penstock(('source logs', {'type': 'file', 'path': f'{logs}/*.gz'}), far_end.sink(spool_after='100ms', **LIFE)).start()

    def all_spooled():
        keys = daemon.counters()[('logs', 'sentinel')]
        return keys['taken'] == records and keys['held'] == 0
    wait_until(all_spooled, 120 + size / 5e6, 'all of it to lie in the spool', daemon)
    judge(f'far end away, {gigabytes(size)} of input spooled', daemon.memory()[1])
    assert daemon.stop() == 0


@pytest.mark.plain
@pytest.mark.parametrize('size', [GIB, pytest.param(20 * GIB, marks=pytest.mark.long)], ids=gigabytes)
def test_a_spool_of_gigabytes(emptied, penstock, far_end, tmp_path, size):
    """A backlog of gigabytes on disk: it is written, found by the next start and read back through the same memory."""
    logs = tmp_path / 'logs'
    logs.mkdir()
    maker = Maker(4)
    block = b'\n'.join(nsg_record(maker, tuples=60)[0] for _ in range(400)) + b'\n'
    write_archives(logs, size // 3, 4, block)      # a tuple's message is seven times the tuple: more than enough
    far_end.down()
    daemon = penstock(('source flows', {'type': 'file', 'path': f'{logs}/*.gz'}),
                      far_end.sink(spool_after='100ms', spool_compress='no', spool_max='100G', **LIFE)).start()
    wait_until(lambda: daemon.counters()[(None, 'sentinel')]['spool_bytes'] >= size, 120 + size / 5e6, 'the backlog', daemon)
    judge(f'spool of {gigabytes(size)}: written', daemon.memory()[1])
    daemon.kill()
    far_end.up()
    daemon.start()
    wait_until(lambda: far_end.count() >= 20_000, 120, 'the backlog to be sent', daemon)
    judge(f'spool of {gigabytes(size)}: opened and read back', daemon.memory()[1])
    daemon.kill()


@pytest.mark.parametrize('size', [GIB // 4, pytest.param(2 * GIB + 4096, marks=pytest.mark.long)], ids=gigabytes)
def test_one_line_of_two_gigabytes(penstock, far_end, tmp_path, size):
    """A line is too long for anyone: it costs itself, and its neighbours arrive. As many zeros between two records are none."""
    logs = tmp_path / 'logs'
    logs.mkdir()
    maker = Maker(6)
    with open(logs / 'zeros.json', 'wb') as file:
        file.write(activity_line(maker)[0])
        file.seek(size, os.SEEK_CUR)
        file.write(b'\n' + activity_line(maker)[0])
    million = b'x' * (1 << 20)
    with gzip.open(logs / 'json.json.gz', 'wb', compresslevel=1) as file:
        file.write(activity_line(maker)[0] + b'{"time":"2026-11-22T00:00:00Z","long":"')
        for _ in range(size >> 20):
            file.write(million)
        file.write(b'"}\n' + activity_line(maker)[0])
    daemon = penstock(('source logs', {'type': 'file', 'path': f'{logs}/*'}), far_end.sink(**LIFE)).start()
    wait_until(lambda: far_end.count() >= 5, 120 + size / 1e7, 'the neighbours', daemon)
    highest = daemon.memory()[1]
    assert daemon.stop() == 0
    assert far_end.count('Custom-PenstockAudit') == 4
    assert [len(json.dumps(row)) < 100_000 for row in far_end.rows('Custom-PenstockUnknown')] == [True]
    assert total(daemon.counters(), 'oversize') == 1
    judge(f'one line of {gigabytes(size)}', highest)
