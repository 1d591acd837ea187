"""What the ingestion API bounds: a far end that is strict about all of it never has to refuse us. Sizes of values, events and
posts, the span of a post, requests and bytes a minute, and what several DCRs, tenants and workspaces have to do with each other.
"""
import json

import pytest

from judge import alarms, event_id
from penstock import total, wait_until
from records import Maker, activity_line

FAST = {'flush': '100ms', 'retry_min': '50ms', 'retry_max': '500ms'}
UNKNOWN = 'Custom-PenstockUnknown'


class Scene:
    """Files of made records through a daemon to one far end or several."""

    def __init__(self, tmp_path, penstock, *sinks, **daemon):
        self.logs = tmp_path / 'logs'
        self.logs.mkdir()
        self.ids = []
        self.daemon = penstock(('source made', {'type': 'file', 'path': f'{self.logs}/*.json', 'rescan': '1s'}), *sinks, **daemon)

    def write(self, records):
        """One more file, a record a line: objects, or lines as they are."""
        raws = [record if isinstance(record, bytes) else json.dumps(record, ensure_ascii=False).encode() for record in records]
        ids = [event_id(raw) for raw in raws]
        part = self.logs / f'{len(self.ids)}.part'
        part.write_bytes(b''.join(raw + b'\n' for raw in raws))
        part.rename(part.with_suffix('.json'))
        self.ids += ids
        return ids

    def start(self):
        self.daemon.start()
        return self

    def until(self, condition, what, seconds=60):
        return wait_until(condition, seconds, what, self.daemon)

    def until_answered(self, seconds=60):
        """All that was written has come to its end, at every sink."""
        def done():
            counters = self.daemon.counters()
            return total(counters, 'read') == len(self.ids) and total(counters, 'held') + total(counters, 'spooled') == 0
        self.until(done, 'all answers', seconds)

    def stop(self):
        """Ends it; the counters, which add up."""
        assert self.daemon.stop() == 0
        counters = self.daemon.counters()
        for (source, sink), keys in counters.items():
            if source and sink:
                assert keys['taken'] == sum(keys[place] for place in ('delivered', 'dead', 'dropped', 'held', 'spooled'))
        return counters


def refusals(far_end):
    """What the far end would not take as it was; faults that a test asked for aside."""
    return [(request['status'], request['code']) for request in far_end.requests()
            if request['status'] not in (204, 401) and request['fault'] is None]


# Values.

def test_long_values_are_cut_on_a_character_and_told(tmp_path, far_end, penstock):
    """A value longer than 64 KB is cut by us, where the service would do it in silence: the row says so, and it is counted."""
    scene = Scene(tmp_path, penstock, far_end.sink(**FAST))
    long = {'ascii': 'x' * 300_000, 'two': 'é' * 50_000, 'four': 'a💧' * 30_000, 'escapes': '"\\\x01' * 40_000,
            'list': [{'n': n} for n in range(10_000)]}
    records = [{'time': '2026-11-22T00:00:00Z', key: value} for key, value in long.items()]
    records += [b'no JSON: ' + b'\xff' * 70_000, {'time': '2026-11-22T00:00:00Z', 'short': 'x' * 60_000}]
    ids = scene.write(records)
    scene.start().until_answered()
    rows = {row['EventOriginalUid']: row for row in far_end.rows(UNKNOWN)}
    assert set(rows) == set(ids) and far_end.violations() == [] and refusals(far_end) == []
    for uid, record in list(zip(ids, records))[:5]:
        text = json.dumps(record, ensure_ascii=False, separators=(',', ':'))
        left, was = rows[uid]['RawData'], rows[uid]['AdditionalFields']['PenstockCut']['RawData']
        assert text.startswith(left[:1000]) and 30_000 < len(json.dumps(left, ensure_ascii=False).encode()) <= 65_536
        assert was >= len(text.encode()) - 10 and was > 64_000
    torn = rows[ids[5]]
    assert 63_900 < len(torn['RawText'].encode()) <= 64_000 and set(torn['RawText'][9:]) == {'\ufffd'}
    assert torn['AdditionalFields']['PenstockCut']['RawText'] == len(records[5])
    assert 'AdditionalFields' not in rows[ids[6]]
    assert scene.stop()[('made', None)]['cut'] == 6


@pytest.mark.parametrize('column', ['EventMessage', 'AdditionalFields'])
def test_long_fields_of_known_records_are_cut(tmp_path, far_end, penstock, column):
    """The other columns of the row, and what else is in AdditionalFields, stay as they are."""
    scene = Scene(tmp_path, penstock, far_end.sink(**FAST))
    record = json.loads(activity_line(Maker(1))[0])
    record['properties']['note'] = 'kept'
    if column == 'EventMessage':
        record['resultDescription'] = 'ö' * 40_000
    else:
        record['properties'].update({f'large{i}': 'y' * 50_000 for i in range(3)})
    scene.write([record])
    scene.start().until_answered()
    [row] = far_end.rows('Custom-PenstockAudit')
    assert far_end.violations() == [] and refusals(far_end) == []
    assert row['AdditionalFields']['note'] == 'kept'
    assert row['AdditionalFields']['PenstockCut'][column] > 64_000
    if column == 'EventMessage':
        assert row[column] == 'ö' * 32_000
    else:
        assert len({row[column][f'large{i}'] for i in range(3)}) == 1
    assert scene.stop()[('made', None)]['cut'] == 1


# Posts.

def test_bytes_are_counted_as_they_arrive(tmp_path, far_end, penstock):
    """What we think a post holds is what the far end received, to the byte, and no post is larger than said."""
    scene = Scene(tmp_path, penstock, far_end.sink(**FAST, batch_bytes='50K'))
    scene.write({'n': n, 'text': 'é"\n' * (n % 97), 'more': 'x' * (n * 37 % 3000)} for n in range(1000))
    scene.start().until_answered()
    counters = scene.stop()
    requests = far_end.requests()
    assert refusals(far_end) == [] and far_end.violations() == []
    assert sum(request['json_bytes'] - 2 for request in requests) == counters[(None, 'sentinel')]['bytes']
    assert len(requests) == counters[(None, 'sentinel')]['batches']
    assert max(request['json_bytes'] for request in requests) <= 50 * 1024 + 2
    assert min(request['rows'] for request in requests) >= 1
