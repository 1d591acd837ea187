"""Which events go where: every source to every sink, unless `sources` or `events` of a sink say less; drops are counted."""
import json

from penstock import total, wait_until
from records import Made, write_activity, write_alerts, write_nsg

LIFE = {'flush': '100ms'}
AWAY = {**LIFE, 'spool_after': '200ms', 'retry_min': '50ms', 'retry_max': '300ms'}


def test_sources_and_events_narrow_a_sink(tmp_path, far_end, penstock):
    for name in ('one', 'two'):
        (tmp_path / name).mkdir()
    activity = write_activity(tmp_path / 'one' / 'a.json', records=30)
    flows = write_nsg(tmp_path / 'one' / 'n.json', records=3)
    alerts = write_alerts(tmp_path / 'two' / 'd.json', records=20)
    everything = activity.events + flows.events + alerts.events
    daemon = penstock(('source one', {'type': 'file', 'path': f'{tmp_path}/one/*'}),
                      ('source two', {'type': 'file', 'path': f'{tmp_path}/two/*'}),
                      far_end.sink('all', **LIFE),
                      far_end.sink('flows', sources='one', events='network', **LIFE),
                      far_end.sink('second', sources='two', events='audit, alert, unknown', **LIFE)).start()
    wait_until(lambda: far_end.count() == everything + flows.events + alerts.events, daemon=daemon, what='all of it')
    assert daemon.stop() == 0
    counters = daemon.counters()
    assert total(counters, 'delivered', sink='all') == everything
    assert counters[('one', 'flows')]['delivered'] == flows.events
    assert counters[('one', 'flows')]['dropped'] == activity.events
    assert counters[('two', 'second')]['delivered'] == alerts.events
    assert total(counters, 'taken', source='two', sink='flows') == total(counters, 'taken', source='one', sink='second') == 0
    assert far_end.violations() == []


def test_one_source_in_two_schemas(tmp_path, far_end, penstock):
    """Each sink's own schema: rows of a table here, records as they were read there."""
    (tmp_path / 'logs').mkdir()
    flows = write_nsg(tmp_path / 'logs' / 'n.json', records=4)
    daemon = penstock(('source flows', {'type': 'file', 'path': f'{tmp_path}/logs/*'}), far_end.sink('asim', **LIFE),
                      far_end.sink('raw', schema='raw', **LIFE)).start()
    wait_until(lambda: far_end.count() == flows.events + flows.records, daemon=daemon, what='events and records')
    assert daemon.stop() == 0
    raw = far_end.rows('Custom-PenstockRaw')
    assert sorted(map(json.dumps, raw)) == sorted(map(json.dumps, json.loads((tmp_path / 'logs' / 'n.json').read_bytes())['records']))
    assert daemon.counters()[('flows', 'asim')]['delivered'] == flows.events
    assert daemon.counters()[('flows', 'raw')]['delivered'] == flows.records


def test_a_far_end_that_is_down_does_not_stop_the_others(penstock, far_end, tmp_path):
    """Chunks fill the memory while one sink's window is full for good: the other still gets all of it."""
    logs = tmp_path / 'logs'
    logs.mkdir()
    made = Made()
    for n in range(32):
        made.add(write_activity(logs / f'{n}.json', 20, seed=n))
    daemon = penstock(('source logs', {'type': 'file', 'path': logs / '*.json', 'chunk': '8M'}),
                      far_end.sink(**LIFE),
                      far_end.sink('away', endpoint='https://127.0.0.1:1', **AWAY)).start()
    wait_until(lambda: far_end.distinct() >= made.events, 60, f'{made.events} events to arrive', daemon)
    assert daemon.stop() == 0
    counters = daemon.counters()
    assert total(counters, 'delivered', sink='sentinel') == total(counters, 'spooled', sink='away') == made.events
