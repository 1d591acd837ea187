"""Input that means harm: names that steer a terminal, drips of single bytes, streams longer than any 32-bit number."""
import gzip
import json
import subprocess
import threading

import pytest

from penstock import binary, environment, slower, wait_until

LIFE = {'flush': '100ms', 'retry_min': '50ms', 'retry_max': '500ms'}
NAME = 'a\x1b[2J\x1b]0;x\x07\u009b1m\n<0>msg="all is well"'          # clears, retitles, forges a line of the journal
STEERING = [c for c in map(chr, [*range(0x20), *range(0x7f, 0xa0)]) if c != '\n']


def assert_steers_nothing(text):
    assert not [c for c in text if c in STEERING], text
    assert not [line for line in text.splitlines() if line.startswith('<0>')], text


def test_names_on_a_terminal(penstock, far_end, tmp_path):
    """A file's name may be anybody's: in shell patterns it becomes an argument, in plugin folders it is found."""
    daemon = penstock(('source s', {'type': 'file', 'path': f'{tmp_path}/logs/*'}), far_end.sink())
    plugins = tmp_path / 'plugins'
    plugins.mkdir(mode=0o755)
    (plugins / f'{NAME}.so').write_text('no shared object')
    for words in (['replay', '-c', daemon.config, f'/nowhere/{NAME}'], ['parse', f'/nowhere/{NAME}'],
                  ['parse', '--plugin-dir', plugins], ['replay', '-c', daemon.config, f'/nowhere/,{NAME}']):
        run = daemon.command(*words, input='')
        assert run.stderr, words
        assert_steers_nothing(run.stderr)


def test_names_in_the_log(penstock, far_end, tmp_path):
    """A file of that name is read like any other; what the log says of it is one line, escaped."""
    logs = tmp_path / 'logs'
    logs.mkdir()
    (logs / f'{NAME}.gz').write_bytes(b'\x1f\x8b\x08' + b'\0' * 7 + b'\xff' * 9)
    (logs / f'{NAME}.json').write_text('{"a":1}\nno JSON\n')
    daemon = penstock(('source s', {'type': 'file', 'path': f'{logs}/*'}), far_end.sink(**LIFE)).start()
    wait_until(lambda: far_end.count() >= 2, daemon=daemon)
    wait_until(lambda: '.gz' in daemon.log_text(), what='a word on the damaged archive', daemon=daemon)
    assert daemon.stop() == 0
    assert_steers_nothing(daemon.log_text())


def drip(process, data):
    for i in range(len(data)):
        process.stdin.write(data[i:i + 1])
        process.stdin.flush()
    process.stdin.close()


@pytest.mark.sanitize
def test_single_bytes(tmp_path):
    """Read byte by byte, packed and plain, a stream gives the same messages."""
    data = b'{"records":[{"time":"2026-11-22T09:00:00Z","a":"\xc3\xa9"},{"a":"\\u0000"}]}\r\n{"a":1}\ntext\n{"torn":"'
    wanted = subprocess.run([binary(), 'parse', '--schema', 'raw'], input=data, capture_output=True, check=False,
                            timeout=20 * slower())
    assert len(wanted.stdout.splitlines()) == 5
    for stream in (data, gzip.compress(data)):
        with subprocess.Popen([binary(), 'parse', '--schema', 'raw'], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, bufsize=0, env=environment()) as process:
            drip(process, stream)
            assert process.stdout.read() == wanted.stdout
            assert process.stderr.read() == wanted.stderr


BLOCK = 8 << 20
BEYOND = (4 << 30) // BLOCK + 3      # blocks: past 2^31 and 2^32


def feed(process, head, block, times, tail):
    process.stdin.write(head)
    for _ in range(times):
        process.stdin.write(block)
    process.stdin.write(tail)
    process.stdin.close()


@pytest.mark.long
@pytest.mark.parametrize('head, block', [
    (b'{"a":"', b'x' * BLOCK),                                       # within a string
    (b'{"a":[', b'{"b":[1,"]"]},' * (BLOCK // 14) + b' ' * (BLOCK % 14)),   # brackets without end
    (b'line ', b'x' * BLOCK),                                        # text
    (b'{"a":"x"} }', b'{ : ' * (BLOCK // 4)),                        # damage, and a candidate every few bytes
    (b'\n', b'\0' * BLOCK),                                          # what a sparse file reads as
    (b'{"records":[', b'{"a":"' + b'y' * 4090 + b'"},'),         # one line of good records
], ids=['string', 'brackets', 'text', 'damage', 'zeros', 'records'])
def test_a_line_past_4_gigabytes(head, block):
    """What follows is read, and said to stand where it stands."""
    times = BEYOND * BLOCK // len(block)
    tail = b'\n{"after":1}\nno JSON\n'
    with subprocess.Popen([binary(), 'parse', '--schema', 'raw', '--stats'], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, env=environment()) as process:
        writer = threading.Thread(target=feed, args=(process, head, block, times, tail))
        writer.start()
        before, last, count = b'', b'', 0
        for line in process.stdout:
            before, last, count = last, line, count + 1
        writer.join()
        said = process.stderr.read().decode().splitlines()
    assert process.returncode == 1
    assert json.loads(before) == {'after': 1} and json.loads(last)['RawText'] == 'no JSON'
    whole = len(head) + len(block) * times
    assert said[-2].startswith(f'(standard input):{whole + len(tail) - len("no JSON") - 1}: '), said[-3:]
    assert said[-1].startswith(f'records={count} ') and f'bytes_in={whole + len(tail)} ' in said[-1]
