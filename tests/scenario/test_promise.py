"""The promise of the whole daemon, judged by what arrived: nothing lost, repeats only with the same id, order, flat memory,
and counters that add up after every one of these. What kill -9 does to it: tests/crash.
"""
import hashlib
import json
import os

import pytest

from penstock import slower, total, wait_until
from records import GrowingBlob, Maker, activity_line, nsg_record, vnet_record, write_activity, write_nsg

LIFE = {'flush': '100ms', 'retry_min': '50ms', 'retry_max': '500ms'}


def event_id(raw, ordinal=0):
    """The id of a record's event, computed from the raw bytes alone."""
    return f'{hashlib.sha256(raw).hexdigest()[:32]}-{ordinal}'


def assert_adds_up(counters):
    """taken = delivered + dead + dropped + held + spooled, per source and sink; every event was taken by every sink."""
    messages = {key: keys for key, keys in counters.items() if None not in key}
    assert messages
    for key, keys in messages.items():
        assert keys['taken'] == sum(keys[place] for place in ('delivered', 'dead', 'dropped', 'held', 'spooled')), key
        if key[0] != '(earlier)':
            assert keys['taken'] == counters[(key[0], None)]['events'], key


def kafka_ids(broker, topic):
    """Event ids by partition, in order."""
    partitions = {}
    for partition, offset, _, value in broker.read_all(topic):
        assert partition in partitions or offset == 0, 'the broker has forgotten the beginning'
        partitions.setdefault(partition, []).append(json.loads(value)['metadata']['uid'])
    return partitions


def without_repeats(ids):
    return list(dict.fromkeys(ids))


def test_growing_blob_is_tailed_record_by_record(penstock, far_end, tmp_path):
    """A PT1H.json whose last two bytes change with every commit: every tuple once, none twice, none torn."""
    logs = tmp_path / 'logs' / 'y=2026' / 'm=11'
    logs.mkdir(parents=True)
    maker, expected = Maker(5), []
    blobs = [(GrowingBlob(logs / 'nsg-PT1H.json'), nsg_record), (GrowingBlob(logs / 'vnet-PT1H.json'), vnet_record)]
    daemon = penstock(('source flows', {'type': 'file', 'path': f'{tmp_path}/logs/**/*.json', 'rescan': '1s'}),
                      far_end.sink(**LIFE)).start()
    for step in range(40):
        for blob, make in blobs:
            records = [make(maker, tuples=7)[0] for _ in range(step % 3)]
            blob.append(*records)
            expected += [event_id(raw, n) for raw in records for n in range(7)]
        if step % 4 == 0:            # now and then let the daemon catch up, so that it meets every kind of tail
            wait_until(lambda: far_end.count() >= len(expected), daemon=daemon, what='the tail')
    wait_until(lambda: far_end.count() >= len(expected), daemon=daemon, what='all tuples')
    assert daemon.stop() == 0
    assert sorted(far_end.uids()) == sorted(expected)
    assert far_end.violations() == []
    assert_adds_up(daemon.counters())
    assert total(daemon.counters(), 'malformed') == 0


def test_blob_that_grows_while_it_is_read(penstock, far_end, tmp_path):
    """Commits as fast as they can be made: no reading may mix what the file was with what it becomes."""
    (tmp_path / 'logs').mkdir()
    maker, expected = Maker(6), []
    blob = GrowingBlob(tmp_path / 'logs' / 'PT1H.json')
    daemon = penstock(('source flows', {'type': 'file', 'path': f'{tmp_path}/logs/*.json', 'rescan': '1s'}),
                      far_end.sink(**LIFE)).start()
    records = [nsg_record(maker, tuples=3)[0] for _ in range(3000)]
    for raw in records:
        blob.append(raw)
        expected += [event_id(raw, n) for n in range(3)]
    wait_until(lambda: far_end.count() >= len(expected), daemon=daemon, what='all tuples')
    assert daemon.stop() == 0
    assert far_end.uids() == expected
    assert 'anew' not in daemon.log_text()


@pytest.mark.kafka
def test_far_end_down_for_the_whole_input(penstock, far_end, broker, tmp_path):
    """Both far ends away: the spool takes its cap, sources wait, memory stays in its budget; then all arrives in order."""
    broker.create_topic('away', partitions=1)
    logs = tmp_path / 'logs'
    logs.mkdir()
    made = write_activity(logs / 'activity.json', records=40_000, seed=3)      # about 116 MB
    expected = [event_id(line.rstrip(b'\n')) for line in open(logs / 'activity.json', 'rb')]
    far_end.down()
    broker.stop()
    daemon = penstock(('source activity', {'type': 'file', 'path': f'{logs}/*.json'}),
                      far_end.sink(spool_after='100ms', spool_max='3M', **LIFE),
                      ('sink siem', {'type': 'kafka', 'brokers': broker.bootstrap, 'topic': 'away', 'schema': 'ocsf',
                                     'timeout': '1s', 'spool_after': '100ms', 'spool_max': '4M', **LIFE}),
                      memory='32M').start()
    wait_until(lambda: 'the spool is full' in daemon.log_text(), 60, 'a spool at its cap', daemon)
    counters = wait_until(lambda: (lambda c: c if c[(None, None)]['flow'] == 'paused' else None)(daemon.counters()), 60,
                          'sources to be paused', daemon)
    wait_until(lambda: daemon.counters()[(None, 'siem')]['retries'] >= 20, 60, 'Kafka to have been tried again', daemon)
    assert_adds_up(counters)
    assert counters[('activity', None)]['read'] < made.records
    assert counters[(None, 'sentinel')]['spool_bytes'] <= 3 << 20
    assert counters[(None, 'siem')]['spool_bytes'] <= 4 << 20
    far_end.up()
    broker.start()
    wait_until(lambda: far_end.count() >= made.records, 180, 'all records at the ingestion API', daemon)
    wait_until(lambda: all(keys['held'] + keys['spooled'] == 0 for key, keys in daemon.counters().items()
                           if None not in key), 180, 'an empty daemon', daemon)
    resident, highest = daemon.memory()
    assert daemon.stop() == 0
    assert_adds_up(daemon.counters())
    assert total(daemon.counters(), 'dead') == total(daemon.counters(), 'dropped') == 0
    assert without_repeats(far_end.uids()) == expected
    assert without_repeats(kafka_ids(broker, 'away')[0]) == expected
    if slower() == 1 and 'PENSTOCK_SANITIZED' not in os.environ:
        assert highest <= (32 + 16) << 20, f'{highest >> 20} MiB resident at the highest, {resident >> 20} at the end'


def test_one_bad_record_costs_itself_only(penstock, far_end, tmp_path):
    """Torn, cut, alien and oversized records among good ones: the good ones arrive, the others travel as unknown."""
    logs = tmp_path / 'logs'
    logs.mkdir()
    maker = Maker(9)
    good = [activity_line(maker)[0] for _ in range(300)]
    with open(logs / 'mixed.json', 'wb') as file:
        for i, line in enumerate(good):
            file.write(line)
            if i == 50:
                file.write(b'{"time":"2026-11-22T00:00:00Z","torn":"\n')
            if i == 100:
                file.write(b'not JSON at all\n')
            if i == 150:
                file.write(b'{"time":"2026-11-22T00:00:00Z","huge":"' + b'x' * 200_000 + b'"}\n')
            if i == 200:
                file.write(b'{"a":1,}\n')
    daemon = penstock(('source mixed', {'type': 'file', 'path': f'{logs}/*.json'}), far_end.sink(**LIFE),
                      record_max='100K').start()
    wait_until(lambda: far_end.count() >= 304, daemon=daemon, what='all of it')
    assert daemon.stop() == 0
    counters = daemon.counters()
    assert_adds_up(counters)
    uids = far_end.uids()
    assert {event_id(line.rstrip(b'\n')) for line in good} <= set(uids)
    assert counters[('mixed', None)]['read'] == 304
    assert counters[('mixed', None)]['unknown'] == 4
    assert counters[('mixed', None)]['oversize'] == 1
    assert len(far_end.rows('Custom-PenstockUnknown')) == 4


def test_poisoned_message_dies_alone(penstock, far_end, tmp_path):
    """A batch the far end rejects is bisected until the guilty message stands alone in the dead letters."""
    logs = tmp_path / 'logs'
    logs.mkdir()
    made = write_nsg(logs / 'PT1H.json', records=10)
    uids = []
    text = json.loads((logs / 'PT1H.json').read_bytes())
    for record in text['records']:
        raw = json.dumps(record, separators=(',', ':')).encode()
        uids += [event_id(raw, n) for n in range(40)]
    poison = uids[123]
    far_end.settings(poison=[f'"{poison}"'])
    daemon = penstock(('source flows', {'type': 'file', 'path': f'{logs}/*.json'}), far_end.sink(**LIFE)).start()
    wait_until(lambda: far_end.count() >= made.events - 1, daemon=daemon, what='the others')
    wait_until(lambda: total(daemon.counters(), 'dead') == 1, daemon=daemon, what='the dead letter')
    assert daemon.stop() == 0
    assert_adds_up(daemon.counters())
    assert sorted(far_end.uids()) == sorted(set(uids) - {poison})
    letters = [json.loads(line) for line in (daemon.state_dir / 'dead' / 'sentinel.jsonl').read_text().splitlines()]
    assert [letter['message']['EventOriginalUid'] for letter in letters] == [poison]
    assert letters[0]['sink'] == 'sentinel' and '400' in letters[0]['reason'] and letters[0]['position'] > 0


def test_stop_under_load_is_quick_and_safe(penstock, far_end, tmp_path):
    """SIGTERM amid the run: gone within ten seconds, what was in flight answered or spooled; the next life sends the rest."""
    logs = tmp_path / 'logs'
    logs.mkdir()
    made = write_activity(logs / 'activity.json', records=20_000, seed=4)
    expected = [event_id(line.rstrip(b'\n')) for line in open(logs / 'activity.json', 'rb')]
    daemon = penstock(('source activity', {'type': 'file', 'path': f'{logs}/*.json'}), far_end.sink(**LIFE)).start()
    wait_until(lambda: far_end.count() > 1000, daemon=daemon, what='the run to be under way')
    assert daemon.stop(10) == 0
    assert_adds_up(daemon.counters())
    assert far_end.count() < made.records
    daemon.start()
    wait_until(lambda: far_end.distinct() >= made.records, 60, 'the rest', daemon)
    assert daemon.stop() == 0
    assert without_repeats(far_end.uids()) == expected


def test_replay_delivers_and_ends(penstock, far_end, tmp_path):
    """Archives, packed or not, through the same sinks: all delivered, exit 0, and again when asked again."""
    logs = tmp_path / 'archive' / 'h=01'
    logs.mkdir(parents=True)
    one = write_activity(logs / 'a.json', records=3000, seed=6)
    two = write_nsg(logs / 'PT1H.json', records=20)
    os.system(f'gzip -k {logs}/a.json && rm {logs}/a.json && zstd -q --rm {logs}/PT1H.json')
    daemon = penstock(('source none', {'type': 'file', 'path': f'{tmp_path}/nothing/*.json'}), far_end.sink(**LIFE))
    for times in (1, 2):
        done = daemon.command('replay', '-c', str(daemon.config), str(tmp_path / 'archive'))
        assert done.returncode == 0, done.stderr
        assert far_end.count() == times * (one.events + two.events)
    assert len(set(far_end.uids())) == one.events + two.events
