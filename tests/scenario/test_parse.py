"""penstock parse: every record of every sample comes out, claimed by the right parser or with a reason; exit status and faults."""
import gzip
import json
import os
import pathlib
import random
import subprocess
import time

import pytest

from penstock import ROOT, binary, slower

SAMPLES = ROOT / 'tests' / 'samples'
FILES = sorted(path for path in SAMPLES.glob('*/*') if path.is_file())
WHOLE = [path for path in FILES if path.suffix != '.txt']      # the .txt are those that are no JSON as published
FAMILIES = {'activity-log': 'activity-log', 'nsg-flow': 'nsg-flow', 'vnet-flow': 'vnet-flow', 'defender': 'defender-alert'}
ELSEWHERE = {
    'activity-log/docs2018-rest-security.json': 'defender-alert',          # the Activity Log's Security category
    'activity-log/mdc-security-alert-activated.json': 'defender-alert',
    'defender/asc-eventhub-assessment.json': None,                         # an assessment is no alert
}

pytestmark = pytest.mark.sanitize


def parse(*args, data=None, **options):
    return subprocess.run([str(binary()), 'parse', *map(str, args)], input=data, capture_output=True,
                          timeout=20 * slower(), check=False, **options)


def messages(run):
    return [json.loads(line) for line in run.stdout.splitlines()]


def stats(run):
    return {key: int(value) for key, value in (pair.split('=') for pair in run.stderr.decode().splitlines()[-1].split())}


def faults(run):
    return [line for line in run.stderr.decode().splitlines() if not line.startswith('records=')]


def name_of(path):
    return str(path.relative_to(SAMPLES))


def records_of(path):
    """The records of a sample that is JSON, by Python's parser."""
    decoder, text, at, found = json.JSONDecoder(), path.read_text(encoding='utf-8-sig'), 0, []

    def take(value):
        if isinstance(value, list):
            for item in value:
                take(item)
        elif isinstance(value.get('records', value.get('value')), list):
            take(value.get('records', value.get('value')))
        else:
            found.append(value)

    while text[at:].strip():
        at += len(text[at:]) - len(text[at:].lstrip())
        value, at = decoder.raw_decode(text, at)
        take(value)
    return found


@pytest.mark.parametrize('path', WHOLE, ids=name_of)
def test_whole_files_come_out_whole(path):
    run = parse('--schema', 'raw', '--stats', path)
    assert messages(run) == records_of(path)
    assert stats(run)['records'] == len(records_of(path))
    assert stats(run)['malformed'] == stats(run)['oversize'] == 0
    assert (run.returncode == 1) == bool(faults(run)) == bool(stats(run)['partly'])


@pytest.mark.parametrize('path', WHOLE, ids=name_of)
def test_the_right_parser_claims_and_no_other(path):
    family = ELSEWHERE.get(name_of(path), FAMILIES.get(path.parent.name))
    for parser in set(FAMILIES.values()):
        counts = stats(parse('--parser', parser, '--stats', path))
        assert counts['unknown'] == (0 if parser == family else counts['records']), parser


@pytest.mark.parametrize('path', [path for path in FILES if path.suffix == '.txt'], ids=name_of)
def test_broken_files_say_what_is_wrong_once(path):
    run = parse('--stats', path)
    assert run.returncode == 1
    assert len(faults(run)) == 1
    position, why = faults(run)[0].removeprefix(f'{path}:').split(': ', 1)
    assert 0 <= int(position) < path.stat().st_size and len(why) > 10
    assert len(messages(run)) >= stats(run)['records'] >= 1


def test_a_truncated_envelope_gives_its_whole_records():
    run = parse('--stats', SAMPLES / 'nsg-flow' / 'docs2018-v1-truncated.txt')
    assert stats(run) | {'records': 4, 'events': 13, 'unknown': 1, 'malformed': 1} == stats(run)


def tuples_of(value):
    """Every flow tuple below: the texts of the flowTuples arrays."""
    if isinstance(value, list):
        for item in value:
            yield from tuples_of(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key == 'flowTuples':
                yield from item
            else:
                yield from tuples_of(item)


@pytest.mark.parametrize('path', [path for path in WHOLE if path.parent.name in ('nsg-flow', 'vnet-flow')], ids=name_of)
def test_one_event_per_tuple_and_no_byte_lost(path):
    tuples = [text.split(',') for text in tuples_of(records_of(path))]
    events = messages(parse(path))
    assert len(events) == len(tuples) > 0
    for column, field in enumerate(('SrcPackets', 'SrcBytes', 'DstPackets', 'DstBytes'), start=9):
        expected = sum(int(fields[column] or 0) for fields in tuples if len(fields) > column)
        assert sum(event.get(field, 0) for event in events) == expected, field


def test_ids_are_the_same_however_it_is_read(tmp_path):
    path = SAMPLES / 'nsg-flow' / 'sumo-pt1h-v2.json'
    plain = parse(path)
    packed = tmp_path / 'PT1H.json.gz'
    packed.write_bytes(gzip.compress(path.read_bytes()))
    lines = ''.join(json.dumps(record, separators=(',', ':'), ensure_ascii=False) + '\n' for record in records_of(path))
    assert plain.returncode == 0
    assert parse(packed).stdout == plain.stdout
    assert parse('-', data=path.read_bytes()).stdout == plain.stdout
    assert parse(data=lines.encode()).stdout == plain.stdout
    ids = [event['EventOriginalUid'] for event in messages(plain)]
    assert len(set(ids)) == len(ids)


def test_a_torn_archive_is_said(tmp_path):
    packed = tmp_path / 'torn.gz'
    packed.write_bytes(gzip.compress(b'{"a":1}\n' * 100000)[:-20])
    run = parse('--schema', 'raw', packed)
    assert run.returncode == 1 and len(faults(run)) >= 1
    assert len(run.stdout.splitlines()) > 10000


def test_oversize_costs_only_itself():
    run = parse('--schema', 'raw', '--record-max', '1M', '--stats', data=b'{"a":"' + b'x' * 3000000 + b'"}\n{"b":1}\n')
    assert run.returncode == 1 and len(faults(run)) == 1
    assert stats(run) | {'records': 2, 'oversize': 1, 'unknown': 2} == stats(run)
    assert messages(run)[1] == {'b': 1}


def test_wrong_use():
    for args in (['--schema', 'csv'], ['--parser', 'nsg'], ['--record-max', 'big'], ['--nonsense'], ['--plugin-dir', '/nowhere']):
        run = parse(*args, data=b'')
        assert run.returncode == 2 and run.stderr and not run.stdout, args
    assert parse('--help').returncode == 0
    run = parse('/nowhere/PT1H.json', SAMPLES / 'nsg-flow' / 'sumo-pt1h-v2.json')
    assert run.returncode == 1 and len(messages(run)) == 153


def test_names_cannot_move_the_cursor(tmp_path):
    path = tmp_path / 'a\x1b[2J\nb'
    path.write_text('text\n')
    run = parse(path)
    assert b'a\\x1b[2J\\x0ab:0: ' in run.stderr


def test_who_hangs_up_has_had_enough():
    with subprocess.Popen([str(binary()), 'parse', '--schema', 'raw'], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as run:
        run.stdout.close()
        try:
            for _ in range(100):
                run.stdin.write(b'{"a":1}\n' * 10000)
        except BrokenPipeError:
            pass
        run.stdin = None
        assert run.stderr.read() == b''
        assert run.wait(20 * slower()) == 0


def test_a_users_parser(tmp_path):
    plugin = pathlib.Path(binary()).parent / 'tests' / 'plugin' / 'keyvault.so'
    sample = SAMPLES / 'key-vault' / 'docs2018-records.json'
    (tmp_path / 'keyvault.so').symlink_to(plugin)
    run = parse('--plugin-dir', tmp_path, '--stats', sample)
    assert run.returncode == 0
    assert stats(run)['unknown'] == 0
    assert [event['Operation'] for event in messages(run)] == [record['operationName'] for record in records_of(sample)]
    assert [event['SrcIpAddr'] for event in messages(run)] == [record['callerIpAddress'] for record in records_of(sample)]


@pytest.mark.parametrize('schema', ['asim', 'ocsf', 'raw'])
def test_spoiled_samples_neither_crash_nor_hang(schema, tmp_path):
    """All samples end to end, with bytes changed, cut, doubled and swapped: it ends, and each line written is JSON."""
    chance = random.Random(schema)
    data = b'\n'.join(path.read_bytes() for path in FILES)
    for round_ in range(int(os.environ.get('PENSTOCK_ROUNDS', 12))):
        spoiled = bytearray(data)
        for _ in range(chance.choice((3, 30, 300))):
            at = chance.randrange(len(spoiled))
            match chance.randrange(4):
                case 0:
                    spoiled[at] = chance.choice(b'{}[]",:\\\n\0x\xff')
                case 1:
                    del spoiled[at:at + chance.randrange(40)]
                case 2:
                    spoiled[at:at] = spoiled[at - chance.randrange(200):at]
                case 3:
                    spoiled[at:at] = chance.choice((b'{"records":[', b']}', b'}{', b'"', b'\r\n', b'\xef\xbb\xbf'))
        begin = time.monotonic()
        run = parse('--schema', schema, '--stats', data=bytes(spoiled))
        assert run.returncode in (0, 1), (round_, run.stderr[-2000:])
        assert time.monotonic() - begin < 10 * slower()
        for line in run.stdout.splitlines():
            json.loads(line)
