"""What the ingestion API bounds: a far end that is strict about all of it never has to refuse us. Sizes of values, events and
posts, the span of a post, requests and bytes a minute, and what several DCRs, tenants and workspaces have to do with each other.
"""
import json
import random
import time

import pytest

from farend import FarEnd
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


def test_an_event_longer_than_a_post_is_dead_and_its_neighbours_are_not(tmp_path, far_end, penstock):
    """Without columns to cut (schema = raw) a record of more than 1 MB can go nowhere: the letter says why, nobody was asked."""
    scene = Scene(tmp_path, penstock, far_end.sink(**FAST, schema='raw'))
    records = [{'TimeGenerated': '2026-11-22T00:00:00Z', 'n': n} for n in range(100)]
    records[50]['text'] = 'x' * 1_000_000
    scene.write(records)
    scene.start().until_answered()
    assert far_end.count() == 99 and refusals(far_end) == []
    [letter] = [json.loads(line) for line in open(scene.daemon.state_dir / 'dead' / 'sentinel.jsonl', 'rb')]
    assert letter['reason'].startswith('an event of 10000') and 'batch_bytes = 999998' in letter['reason']
    assert letter['message']['n'] == 50
    counters = scene.stop()
    assert (total(counters, 'delivered'), total(counters, 'dead')) == (99, 1) and alarms(scene.daemon) == []


def test_batches_by_their_compressed_size(tmp_path, far_end, penstock):
    """Where the user bets on the gateway, which looks at the wire: larger batches, and what compresses badly is cut before it goes."""
    far_end.settings(json_max=0)
    scene = Scene(tmp_path, penstock, far_end.sink(**{**FAST, 'flush': '3s'}, batch_bytes='6M'))
    noise = random.Random(1)
    scene.write({'n': n, 'text': f'{noise.getrandbits(16000):x}' if n // 1000 == 1 else 'again and again ' * 250} for n in range(3000))
    scene.start().until_answered()
    counters = scene.stop()
    requests = far_end.requests()
    assert refusals(far_end) == [] and far_end.violations() == [] and sorted(far_end.uids()) == sorted(scene.ids)
    assert max(request['json_bytes'] for request in requests) > 2_000_000
    assert max(request['wire_bytes'] for request in requests) <= 1_000_000
    assert total(counters, 'cuts') >= 1


@pytest.mark.parametrize('order', ['in order', 'mixed'])
def test_no_post_spans_more_than_the_stream_allows(tmp_path, far_end, penstock, order):
    """Auxiliary and Lake tables take half an hour at a time: `span = 30m`, and none is refused, whatever the times."""
    far_end.settings(span_streams=[UNKNOWN])
    scene = Scene(tmp_path, penstock, far_end.sink(**FAST, span='30m', in_flight=4))
    times = [1_795_000_000 + n * 20 for n in range(1000)]          # more than five hours
    if order == 'mixed':
        random.Random(2).shuffle(times)
        times = times[:200]
    scene.write({'time': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(second))} for second in times)
    scene.start().until_answered()
    assert refusals(far_end) == [] and far_end.distinct() == len(times)
    scene.stop()


def test_old_events_keep_their_time_where_the_service_leaves_it(tmp_path, far_end, penstock):
    """TimeGenerated becomes the arrival's; EventStartTime and EventEndTime still say when it was."""
    far_end.settings(late_times=True)
    scene = Scene(tmp_path, penstock, far_end.sink(**FAST))
    record = json.loads(activity_line(Maker(1))[0])
    scene.write([dict(record, time='2024-02-29T12:00:00.1234567Z')])
    scene.start().until_answered()
    [row] = far_end.rows('Custom-PenstockAudit')
    assert row['EventStartTime'] == row['EventEndTime'] == '2024-02-29T12:00:00.1234567Z'
    assert not row['TimeGenerated'].startswith('2024')
    assert far_end.violations() == []
    scene.stop()


# A DCR's minute, and several DCRs.

def test_sinks_of_one_dcr_share_its_minute(tmp_path, far_end, penstock):
    """Together they would send many times what the DCR takes; each waits for its turn, and not one request is throttled."""
    # 1200 a minute are 20 at once and 19.7 a second more: 79 in any three seconds, and 8 that may have been on their way.
    far_end.settings(window_seconds=3, requests_per_window=100)
    keys = {**FAST, 'batch_bytes': '1K', 'in_flight': 4, 'requests_a_minute': 1200, 'spool_after': '60s'}
    scene = Scene(tmp_path, penstock, far_end.sink('one', **keys), far_end.sink('two', **keys))
    scene.write({'n': n, 'text': 'x' * 500} for n in range(120))
    scene.start().until_answered(120)
    assert len(far_end.requests()) >= 200
    assert refusals(far_end) == [] and far_end.count() == 240 and far_end.distinct() == 120
    assert total(scene.stop(), 'retries') == 0


def test_a_replay_leaves_half_to_the_daemon(tmp_path, far_end, penstock):
    """It is another process, and knows nothing of the daemon's posts: so it takes half of the minute at most."""
    # 600 a minute are 10 at once and 9.8 a second more: 40 in any three seconds; the whole would be 79.
    far_end.settings(window_seconds=3, requests_per_window=50)
    scene = Scene(tmp_path, penstock, far_end.sink(**FAST, batch_bytes='1K', requests_a_minute=1200, spool_after='60s'))
    archive = tmp_path / 'archive.json'
    archive.write_text(''.join(json.dumps({'n': n, 'text': 'x' * 500}) + '\n' for n in range(80)))
    done = scene.daemon.command('replay', '-c', str(scene.daemon.config), str(archive))
    assert done.returncode == 0, done.stderr
    assert len(far_end.requests()) >= 80 and refusals(far_end) == [] and far_end.distinct() == 80


def test_a_429_is_news_for_the_sink_that_met_it(tmp_path, far_end, penstock):
    """The DCR takes less than we were told, as when another machine sends there: Retry-After paces us, and all arrives."""
    far_end.settings(window_seconds=1, requests_per_window=20)
    scene = Scene(tmp_path, penstock, far_end.sink(**FAST, batch_bytes='1K'))
    scene.write({'n': n, 'text': 'x' * 500} for n in range(100))
    scene.start().until_answered(120)
    assert {status for status, _ in refusals(far_end)} == {429}
    assert sorted(far_end.uids()) == sorted(scene.ids)
    scene.stop()


DCRS = [f'dcr-{n}{"0" * 31}' for n in range(1, 4)]


@pytest.fixture
def workspaces(tmp_path):
    """Two tenants: one with two rules, which may be of two workspaces, and one with a rule of its own."""
    with FarEnd(tmp_path / 'one', '--dcr', DCRS[0], '--dcr', DCRS[1]) as one, \
            FarEnd(tmp_path / 'two', '--dcr', DCRS[2], '--tenant', 'bbbbbbbb-2222-3333-4444-555555555555',
                   '--client', 'cccccccc-7777-8888-9999-aaaaaaaaaaaa', '--secret', 'another one') as two:
        yield one, two


def test_several_dcrs_tenants_and_workspaces_in_one_daemon(tmp_path, workspaces, penstock):
    """Each sink has its own rule, token and rights: what befalls one is nothing to the others, and each gets what is its own."""
    one, two = workspaces
    scene = Scene(tmp_path, penstock, one.sink('first', **FAST, events='unknown'), one.sink('second', **FAST, dcr=DCRS[1], events='audit'),
                  two.sink('third', **FAST))
    alien = scene.write({'n': n} for n in range(200))
    audit = scene.write(activity_line(maker)[0].rstrip(b'\n') for maker in [Maker(3)] for _ in range(200))
    two.settings(granted=False)
    scene.start()
    scene.until(lambda: one.distinct() == 400, 'what is for the first tenant')
    scene.until(lambda: total(scene.daemon.counters(), 'refusals', sink='third') >= 1, 'the refusal')
    assert two.count() == 0
    two.settings(granted=True)
    scene.until_answered()

    def arrived(far_end):
        return far_end.query('SELECT requests.dcr, uid FROM rows JOIN requests ON rows.request = requests.id ORDER BY seq')
    assert [uid for dcr, uid in arrived(one) if dcr == DCRS[0]] == alien
    assert [uid for dcr, uid in arrived(one) if dcr == DCRS[1]] == audit
    assert {dcr for dcr, _ in arrived(two)} == {DCRS[2]} and sorted(uid for _, uid in arrived(two)) == sorted(alien + audit)
    # Two sinks, two rules, one tenant: tokens are each sink's own. The other tenant's never came here, nor ours there.
    assert {request['status'] for request in one.requests('token')} == {request['status'] for request in two.requests('token')} == {200}
    assert {request['status'] for request in one.requests()} == {204}
    [alarm] = alarms(scene.daemon)
    assert alarm['sink'] == 'third' and 'Monitoring Metrics Publisher' in alarm['why']
    scene.stop()
