"""The made-up records are what they claim to be: valid, unique, counted right, the same for the same seed."""
import json

import pytest

import records


def tuples_of(record):
    """Every flow tuple of an NSG or VNet record, split."""
    if 'flowRecords' in record:
        groups = [group['flowTuples'] for flow in record['flowRecords']['flows'] for group in flow['flowGroups']]
    else:
        groups = [flow['flowTuples'] for rule in record['properties']['flows'] for flow in rule['flows']]
    return [text.split(',') for group in groups for text in group]


@pytest.mark.parametrize('write', [records.write_nsg, records.write_vnet])
def test_flow_blobs_add_up(tmp_path, write):
    made = write(tmp_path / 'PT1H.json', 50, seed=3, tuples=17, macs=2)
    text = (tmp_path / 'PT1H.json').read_bytes()
    found = json.loads(text)['records']
    tuples = [one for record in found for one in tuples_of(record)]
    assert (len(found), len(tuples), len(text)) == (made.records, made.events, made.bytes) == (50, 850, made.bytes)
    assert {len(one) for one in tuples} == {13}
    sums = [sum(int(one[column] or 0) for one in tuples) for column in (9, 10, 11, 12)]
    assert sums == [made.src_packets, made.src_bytes, made.dst_packets, made.dst_bytes] and all(sums)
    assert len({json.dumps(record) for record in found}) == 50
    assert {record['macAddress'] for record in found} == {'6045BD000001', '6045BD000002'}


@pytest.mark.parametrize('write, low, high', [(records.write_activity, 2500, 3300), (records.write_alerts, 1200, 2500)])
def test_lines_are_records(tmp_path, write, low, high):
    made = write(tmp_path / 'log.json', 2500, seed=3)
    lines = (tmp_path / 'log.json').read_bytes().splitlines(keepends=True)
    assert len(lines) == len(set(lines)) == made.records == made.events == 2500
    assert sum(map(len, lines)) == made.bytes and low < made.bytes / made.records < high
    for line in lines[:300]:
        assert isinstance(json.loads(line), dict)


@pytest.mark.parametrize('write', [records.write_nsg, records.write_vnet, records.write_activity, records.write_alerts])
def test_a_seed_is_a_file(tmp_path, write):
    for name, seed in (('a', 1), ('b', 1), ('c', 2)):
        write(tmp_path / name, 30, seed=seed)
    assert (tmp_path / 'a').read_bytes() == (tmp_path / 'b').read_bytes() != (tmp_path / 'c').read_bytes()


def test_a_size_is_kept(tmp_path):
    made = records.write_activity(tmp_path / 'log.json', size=1_000_000)
    assert 1_000_000 <= made.bytes == (tmp_path / 'log.json').stat().st_size < 1_010_000


def test_a_growing_blob_is_whole_at_every_commit(tmp_path):
    maker = records.Maker(5)
    blob = records.GrowingBlob(tmp_path / 'PT1H.json')
    before = b''
    for commit in range(6):
        text = (tmp_path / 'PT1H.json').read_bytes()
        assert text.startswith(before[:-2]) and len(json.loads(text)['records']) == commit * 2
        before = text
        blob.append(records.nsg_record(maker)[0], records.nsg_record(maker)[0])
