"""Memory is flat: one endless line, one huge record, ten thousand files; the budget holds, and all of it arrives."""
import hashlib
import re
import subprocess

import pytest

from penstock import binary, environment, slower, total, wait_until
from records import Maker, activity_line, nsg_record, write_nsg

LIFE = {'flush': '100ms', 'retry_min': '50ms', 'retry_max': '500ms'}
PROGRAM = 16 << 20                   # what the program itself may take beyond the budget


def sanitized():
    """Shadow memory is not ours to bound; tests/run says that it is there by asking for patience."""
    return slower() > 1


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
    assert sanitized() or peak < 48 << 20, f'{peak >> 20} MiB resident'


def test_one_line_of_100_megabytes(tmp_path):
    one_line(tmp_path / 'PT1H.json', 100 << 20)


@pytest.mark.long
def test_one_line_of_10_gigabytes(tmp_path):
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
    assert sanitized() or highest <= (64 << 20) + PROGRAM, f'{highest >> 20} MiB resident'


def test_ten_thousand_files(penstock, far_end, tmp_path):
    """Ten thousand hourly blobs at once: every record arrives once, in memory that does not grow with the files."""
    maker, records = Maker(8), 0
    for hour in range(100):
        folder = tmp_path / 'logs' / f'h={hour:02}'
        folder.mkdir(parents=True)
        for mac in range(100):
            with open(folder / f'mac={mac}.json', 'wb') as file:
                file.write(activity_line(maker)[0])
                records += 1
    daemon = penstock(('source many', {'type': 'file', 'path': f'{tmp_path}/logs/**/*.json'}), far_end.sink(**LIFE)).start()
    wait_until(lambda: far_end.count() >= records, 120, 'all files', daemon)
    highest = daemon.memory()[1]
    assert daemon.stop() == 0
    assert far_end.count() == far_end.distinct() == records
    assert sanitized() or highest <= (64 << 20) + PROGRAM, f'{highest >> 20} MiB resident'
    # A second start knows them all: only what is new is read.
    with open(tmp_path / 'logs' / 'h=50' / 'mac=50.json', 'ab') as file:
        file.write(activity_line(maker)[0])
    daemon.start()
    wait_until(lambda: far_end.count() > records, 60, 'the new line', daemon)
    assert daemon.stop() == 0
    assert daemon.counters()[('many', None)]['read'] == 1
    assert far_end.count() == far_end.distinct() == records + 1
