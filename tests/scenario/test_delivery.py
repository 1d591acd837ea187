"""The whole road: files in, Sentinel's stand-in out. Nothing is lost, nothing torn, and the counters say so."""
import pytest

import records
from penstock import total, wait_until

FAST = {'flush': '100ms', 'spool_after': '200ms', 'retry_min': '50ms', 'retry_max': '300ms'}


def source(path, name='logs', **more):
    return f'source {name}', {'type': 'file', 'path': path, **more}


def delivered_all(daemon, far_end, made, seconds=60):
    wait_until(lambda: far_end.distinct() >= made.events, seconds, f'{made.events} events to arrive', daemon)


def judge(daemon, far_end, made, repeats=False):
    """At the end: every event arrived, once unless repeats are allowed, and each counter has its place."""
    assert daemon.stop() == 0
    counters = daemon.counters()
    assert far_end.violations() == []
    assert far_end.distinct() == made.events
    assert repeats or far_end.count() == made.events
    for keys in (keys for (a, b), keys in counters.items() if a and b):
        assert keys['taken'] == sum(keys[place] for place in ('delivered', 'dead', 'dropped', 'held', 'spooled'))
    assert total(counters, 'dead') == total(counters, 'held') == 0
    return counters


def test_four_families_arrive_once(tmp_path, far_end, penstock):
    logs = tmp_path / 'logs'
    logs.mkdir()
    made = records.Made()
    made.add(records.write_activity(logs / 'activity.json', 300, seed=1))
    made.add(records.write_nsg(logs / 'nsg.json', 30, seed=2))
    made.add(records.write_vnet(logs / 'vnet.json', 30, seed=3))
    made.add(records.write_alerts(logs / 'alerts.json', 50, seed=4))
    daemon = penstock(source(logs / '*.json'), far_end.sink(**FAST)).start()
    delivered_all(daemon, far_end, made)
    counters = judge(daemon, far_end, made)
    assert total(counters, 'read') == made.records
    assert total(counters, 'delivered') == made.events
    sums = far_end.query("SELECT sum(json_extract(row, '$.SrcBytes')), sum(json_extract(row, '$.DstBytes')) FROM rows")
    assert sums == [(made.src_bytes, made.dst_bytes)]


@pytest.mark.parametrize('make', [records.nsg_record, records.vnet_record])
def test_a_growing_blob_is_read_once_and_whole(tmp_path, far_end, penstock, make):
    maker = records.Maker(7)
    blob = records.GrowingBlob(tmp_path / 'PT1H.json')
    daemon = penstock(source(tmp_path / 'PT1H.json'), far_end.sink(**FAST)).start()
    made = records.Made()
    for commit in range(12):
        texts = []
        for _ in range(commit % 3 + 1):
            text, one = make(maker, tuples=9)
            texts.append(text)
            made.add(one)
        blob.append(*texts)
        if commit % 2:
            delivered_all(daemon, far_end, made)
    delivered_all(daemon, far_end, made)
    judge(daemon, far_end, made)


def test_lag_is_what_is_known_and_not_yet_safe(tmp_path, far_end, penstock):
    """An event without a time and one of a clock that runs ahead say nothing about how far we are."""
    lines = (b'{"time":"2026-03-01T10:00:00Z","category":"Made","operationName":"made/one"}\n'
             b'{"time":"2026-03-01T09:00:00Z","category":"Made","operationName":"made/two"}\n'
             b'{"time":"2199-01-01T00:00:00Z","category":"Made","operationName":"made/three"}\n'
             b'{"no":"time"}\n')
    (tmp_path / 'a.json').write_bytes(lines)
    far_end.fault(do='status', status=503, count=1000)
    daemon = penstock(source(tmp_path / 'a.json'), far_end.sink(**{**FAST, 'spool_after': '1h'})).start()
    wait_until(lambda: total(daemon.counters(), 'held') == 4, daemon=daemon)
    lag = daemon.counters()[('logs', None)]
    assert (lag['newest'], lag['behind']) == ('2026-03-01T10:00:00Z', len(lines))
    far_end.clear()
    wait_until(lambda: far_end.count() == 4, daemon=daemon)
    wait_until(lambda: daemon.counters()[('logs', None)]['behind'] == 0, daemon=daemon)


def test_an_absent_far_end_costs_nothing(tmp_path, far_end, penstock):
    """Down for the whole input, then up: all of it arrives, in order, out of the spool."""
    made = records.write_activity(tmp_path / 'activity.json', 2000, seed=5)
    far_end.down()
    daemon = penstock(source(tmp_path / 'activity.json'), far_end.sink(**FAST)).start()
    wait_until(lambda: total(daemon.counters(), 'spooled') == made.events, 60, 'all of it to be spooled', daemon)
    far_end.up()
    delivered_all(daemon, far_end, made)
    counters = judge(daemon, far_end, made)
    assert total(counters, 'spooled') == 0
    times = [row['TimeGenerated'] for row in far_end.rows()]
    assert times == sorted(times)


def test_stopped_while_the_far_end_is_away(tmp_path, far_end, penstock):
    """What was spooled in one life is delivered in the next, though its file is gone."""
    made = records.write_activity(tmp_path / 'activity.json', 500, seed=6)
    far_end.down()
    daemon = penstock(source(tmp_path / 'activity.json'), far_end.sink(**FAST)).start()
    wait_until(lambda: total(daemon.counters(), 'read') == made.records, 60, 'all of it to be read', daemon)
    assert daemon.stop() == 0
    (tmp_path / 'activity.json').unlink()
    far_end.up()
    daemon.start()
    delivered_all(daemon, far_end, made)
    judge(daemon, far_end, made)


def test_killed_again_and_again(tmp_path, far_end, penstock):
    made = records.write_activity(tmp_path / 'activity.json', 6000, seed=8)
    daemon = penstock(source(tmp_path / 'activity.json'), far_end.sink(**FAST))
    for kill in range(6):
        daemon.start()
        least = made.events * kill // 8
        wait_until(lambda: far_end.distinct() > least, 60, 'some events', daemon)
        daemon.kill()
    daemon.start()
    delivered_all(daemon, far_end, made)
    judge(daemon, far_end, made, repeats=True)


@pytest.mark.parametrize('fault', [
    {'do': 'status', 'status': 503, 'count': 3}, {'do': 'status', 'status': 429, 'retry_after': 1},
    {'do': 'reset', 'count': 3}, {'do': 'reset-late', 'count': 3}, {'do': 'garbage', 'count': 2},
    {'do': 'status', 'status': 500, 'body_bytes': 3_000_000}, {'do': 'slow', 'delay': 0.5, 'count': 2},
    {'do': 'status', 'status': 413}, {'do': 'status', 'status': 401}, {'where': 'token', 'do': 'status', 'status': 500},
], ids=lambda fault: ' '.join(str(value) for value in fault.values()))
def test_a_fault_passes(tmp_path, far_end, penstock, fault):
    made = records.write_activity(tmp_path / 'activity.json', 900, seed=9)
    far_end.fault(**fault)
    daemon = penstock(source(tmp_path / 'activity.json'), far_end.sink(**FAST)).start()
    delivered_all(daemon, far_end, made)
    judge(daemon, far_end, made)


def test_an_answer_that_is_lost_repeats_the_same_ids(tmp_path, far_end, penstock):
    made = records.write_activity(tmp_path / 'activity.json', 900, seed=10)
    far_end.fault(do='lose-answer', count=2)
    daemon = penstock(source(tmp_path / 'activity.json'), far_end.sink(**FAST)).start()
    delivered_all(daemon, far_end, made)
    judge(daemon, far_end, made, repeats=True)
    assert far_end.count() > made.events


def test_tokens_end_and_are_renewed(tmp_path, far_end, penstock):
    made = records.write_activity(tmp_path / 'a.json', 100, seed=11)
    daemon = penstock(source(tmp_path / '*.json'), far_end.sink(**FAST)).start()
    delivered_all(daemon, far_end, made)
    far_end.revoke_tokens()
    made.add(records.write_activity(tmp_path / 'b.json', 100, seed=12))
    delivered_all(daemon, far_end, made)
    assert far_end.state()['tokens_issued'] == 2
    judge(daemon, far_end, made)


@pytest.mark.parametrize('trouble, cure', [
    pytest.param(lambda far_end: far_end.settings(granted=False), lambda far_end: far_end.settings(granted=True),
                 marks=pytest.mark.plain),
    (lambda far_end: far_end.rotate_secret(write=False), lambda far_end: far_end.rotate_secret()),
], ids=['rights', 'secret'])
def test_our_own_fault_holds_and_goes_on(tmp_path, far_end, penstock, trouble, cure):
    """Missing rights or a wrong secret lose nothing: the daemon says so, waits and delivers when it is cured."""
    made = records.write_activity(tmp_path / 'a.json', 200, seed=13)
    trouble(far_end)
    daemon = penstock(source(tmp_path / '*.json'), far_end.sink(**FAST)).start()
    wait_until(lambda: total(daemon.counters(), 'refusals') > 0, 30, 'a refusal', daemon)
    cure(far_end)
    delivered_all(daemon, far_end, made, 120)
    judge(daemon, far_end, made)
