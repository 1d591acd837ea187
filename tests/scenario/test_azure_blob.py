"""The azure-blob source against a real Azurite, written to by Microsoft's own client: judged by what arrived."""
import datetime
import gzip
import pathlib
import secrets
import sys
import time

import pytest

from azurite import KEY, Azurite, FlowBlob, TokenEndpoint, hour_name, now
from farend import FarEnd
from kafka import Unavailable, at_hand, missing
from penstock import parse_line, wait_until
from records import Maker, activity_line, nsg_record, vnet_record
from test_promise import LIFE, assert_adds_up, event_id
from window import Window

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / 'farend'))
import tls                                       # noqa: E402

NSG = ('resourceId=/SUBSCRIPTIONS/00000000-0000-0000-0000-000000000001/RESOURCEGROUPS/RG/PROVIDERS/MICROSOFT.NETWORK/'
       'NETWORKSECURITYGROUPS/NSG')
FLOW = 'flowLogResourceID=/00000000-0000-0000-0000-000000000001_NETWORKWATCHERRG/NETWORKWATCHER_WESTEUROPE_FLOW'
ACTIVITY = 'resourceId=/SUBSCRIPTIONS/00000000-0000-0000-0000-000000000001'


@pytest.fixture
def container(azurite):
    """An empty one for each test."""
    return azurite.container(f'insights-logs-{secrets.token_hex(4)}')


def blob_counters(daemon):
    """The last line that only this source writes."""
    daemon.counters()
    return [keys for keys in map(parse_line, daemon.log_text().splitlines()) if keys.get('msg') == 'lag'][-1]


def test_growing_block_and_append_blobs(penstock, far_end, azurite, container):
    """PT1H.json grows by blocks, an activity log by appends, both while they are read: every record once, in order."""
    maker, expected = Maker(21), {}
    flows = [(FlowBlob(container, hour_name(NSG, now())), nsg_record), (FlowBlob(container, hour_name(FLOW, now())), vnet_record)]
    lines = container.get_blob_client(hour_name(ACTIVITY, now(), mac=None))
    lines.create_append_blob()
    daemon = penstock(azurite.source(container.container_name), far_end.sink(**LIFE)).start()
    for step in range(20):
        for blob, make in flows:
            records = [make(maker, tuples=5)[0] for _ in range(step % 3)]
            blob.append(*records)
            expected.setdefault(blob, []).extend(event_id(raw, n) for raw in records for n in range(5))
        text = [activity_line(maker)[0].rstrip(b'\n') for _ in range(step % 4)]
        if text:
            lines.append_block(b''.join(line + b'\n' for line in text))
        expected.setdefault(lines, []).extend(event_id(line) for line in text)
        if step % 4 == 0:
            wait_until(lambda: far_end.count() >= sum(map(len, expected.values())), daemon=daemon, what='the tail')
    wait_until(lambda: far_end.count() >= sum(map(len, expected.values())), daemon=daemon, what='all of it')
    assert daemon.stop() == 0
    arrived = far_end.uids()
    assert sorted(arrived) == sorted(uid for ids in expected.values() for uid in ids)
    for ids in expected.values():
        assert [uid for uid in arrived if uid in set(ids)] == ids
    assert_adds_up(daemon.counters())
    assert 'anew' not in daemon.log_text()


def test_bytes_fetched_are_the_bytes_appended(penstock, far_end, azurite, container):
    """Each byte is fetched once, but for two at the tail and 64 before the new ones: at most 1 % more beside those."""
    maker, commits, events = Maker(22), 40, 0
    blobs = [FlowBlob(container, hour_name(NSG, now(), mac=f'{n:012X}')) for n in range(4)]
    daemon = penstock(azurite.source(container.container_name, chunk='8K'), far_end.sink(**LIFE)).start()
    for step in range(commits):
        for blob in blobs:
            blob.append(*(nsg_record(maker, tuples=10)[0] for _ in range(8)))       # more than a chunk
            events += 80
        if step % 6 == 0:
            wait_until(lambda: far_end.count() >= events, daemon=daemon, what='the tail')
    wait_until(lambda: far_end.count() >= events, daemon=daemon, what='all of it')
    counters = blob_counters(daemon)
    assert daemon.stop() == 0
    assert len(far_end.uids()) == len(set(far_end.uids())) == events
    written = sum(blob.size for blob in blobs)
    print(f'{written} bytes written in {commits * len(blobs)} commits, {counters["fetched"]} fetched')
    assert written <= counters['fetched'] <= written * 1.01 + commits * len(blobs) * (2 + 64), (written, counters)


def test_unchanged_blobs_cost_no_request(penstock, far_end, azurite, container):
    maker = Maker(23)
    for n in range(50):
        container.upload_blob(hour_name(NSG, now(), mac=f'{n:012X}'), b'{"records":[' + nsg_record(maker, tuples=2)[0] + b']}')
    daemon = penstock(azurite.source(container.container_name), far_end.sink(**LIFE)).start()
    wait_until(lambda: far_end.count() >= 100, daemon=daemon, what='all of it')
    before = blob_counters(daemon)
    wait_until(lambda: blob_counters(daemon)['requests'] >= before['requests'] + 20, daemon=daemon, what='some polls')
    after = blob_counters(daemon)
    assert daemon.stop() == 0
    assert after['fetched'] == before['fetched']
    daemon.start()                   # and so it is after a restart
    wait_until(lambda: blob_counters(daemon)['requests'] >= 10, daemon=daemon, what='some polls')
    counters = blob_counters(daemon)
    assert daemon.stop() == 0
    assert counters['fetched'] == 0
    assert far_end.count() == 100


@pytest.mark.plain
def test_nothing_is_lost_in_fifty_kills(penstock, far_end, azurite, container):
    """kill -9 at random, 50 times, while blobs of past hours are read and others grow."""
    maker, expected = Maker(24), []
    for n in range(400):
        records = [nsg_record(maker, tuples=3)[0] for _ in range(20)]
        when = now() - datetime.timedelta(hours=n % 100)
        container.upload_blob(hour_name(f'{NSG}-{n % 4}', when, mac=f'{n:012X}'), b'{"records":[' + b','.join(records) + b']}')
        expected += [event_id(raw, i) for raw in records for i in range(3)]
    growing = FlowBlob(container, hour_name(FLOW, now()))
    daemon = penstock(azurite.source(container.container_name, poll='100ms', watch='1s', chunk='4K', parallel='4'),
                      far_end.sink(spool_after='200ms', in_flight='2', **LIFE), cursor_save='20ms')
    kills = 50
    for kill in range(kills):
        before = far_end.count()
        records = [vnet_record(maker, tuples=4)[0] for _ in range(3)]
        growing.append(*records)
        expected += [event_id(raw, i) for raw in records for i in range(4)]
        daemon.start()
        if kill % 5 == 4:
            far_end.fault(do='status', status=503, count=2)
        share = len(expected) * (kill + 1) // (kills + 5)
        wait_until(lambda: far_end.count() > before or far_end.distinct() >= share, daemon=daemon, what='progress')
        daemon.kill()
    daemon.start()
    wait_until(lambda: far_end.distinct() >= len(expected), 120, 'all records', daemon)
    wait_until(lambda: all(keys['held'] + keys['spooled'] == 0 for key, keys in daemon.counters().items()
                           if None not in key), 60, 'an empty daemon', daemon)
    assert daemon.stop() == 0
    assert_adds_up(daemon.counters())
    assert set(far_end.uids()) == set(expected)
    print(f'{kills} kills, {len(expected)} events: 0 lost, {far_end.count() - len(expected)} repeated')


@pytest.mark.plain
def test_fifty_thousand_blobs_in_azurite(penstock, tmp_path):
    """A real service's pages and names at size. Begun some days ago, what lies before is walked past; the second start asks for
    nothing but what is new; a sweep lists every name, in flat memory. (All fifty thousand are read in test_azure_blob_races.py, from
    the stand-in: Azurite takes 2 to 3 ms of a core for each.)"""
    places, hours, read = 10, 5000, 100
    begin = (now() - datetime.timedelta(hours=hours - 1)).replace(minute=0, second=0, microsecond=0)

    def made():
        for place in range(places):
            for n in range(hours):
                when = begin + datetime.timedelta(hours=n)
                yield (hour_name(f'NSG-{place}', when), b'{"records":[{"category":"Made","place":%d,"hour":%d}]}' % (place, n),
                       when + datetime.timedelta(minutes=59))
    with at_hand(), Azurite(tmp_path / 'azurite', on_disk=True) as azurite, \
            FarEnd(tmp_path / 'farend', '--keep', 'ids') as far_end:
        container = azurite.container('insights-logs-flows')
        container.upload_blob('one', b'{}')
        azurite.filled('insights-logs-flows', made())
        since = begin + datetime.timedelta(hours=hours - read)
        source = azurite.source('insights-logs-flows', poll='1m', since=f'{since:%Y-%m-%dT%HZ}', timeout='300s')
        daemon = penstock(source, far_end.sink(**LIFE)).start()
        wait_until(lambda: far_end.count() >= places * read, 300, 'what was written since', daemon)
        assert_bounded('first start', daemon, places * read + 500)
        assert daemon.stop() == 0
        blob = FlowBlob(container, hour_name('NSG-3', now(), mac='00000000000B'))
        blob.append(b'{"category":"New"}')
        begun = time.monotonic()
        daemon.start()
        wait_until(lambda: far_end.count() > places * read, 300, 'the new one', daemon)
        print(f'second start: first delivery after {time.monotonic() - begun:.1f} s')
        assert assert_bounded('second start', daemon, 500)['fetched'] <= blob.size
        assert daemon.stop() == 0
        source[1]['relist'] = '1s'
        daemon.configure(source, far_end.sink(**LIFE))
        daemon.start()
        wait_until(lambda: blob_counters(daemon)['listed'] > places * hours * 500, 300, 'a sweep', daemon)
        assert assert_bounded('a sweep', daemon, 500)['fetched'] == 0
        assert daemon.stop() == 0
        assert far_end.count() == far_end.distinct() == places * read + 1


def assert_bounded(what, daemon, requests):
    """The counters, after a look at memory and requests."""
    counters, (_, highest) = blob_counters(daemon), daemon.memory()
    print(f'{what}: {counters["requests"]} requests, {highest >> 20} MiB resident at the highest')
    assert counters['requests'] <= requests and highest <= (64 + 16) << 20
    return counters


def test_sas_and_archives_and_odd_tails(penstock, far_end, azurite, container):
    """A SAS that may read and list; a packed blob; arrays that end otherwise than Azure's; lines without a last newline."""
    maker = Maker(25)
    raw = [nsg_record(maker, tuples=2)[0] for _ in range(12)]
    container.upload_blob(hour_name(NSG, now(), mac='00000000000A'), gzip.compress(b'{"records":[' + b','.join(raw[:3]) + b']}'))
    container.upload_blob(hour_name(NSG, now(), mac='00000000000B'), b'{ "records" : [\n' + b' ,\n '.join(raw[3:6]) + b'\n]\n}\r\n  ')
    container.upload_blob(hour_name(NSG, now(), mac='00000000000C'), b'[' + b','.join(raw[6:9]) + b'] ')
    container.upload_blob('outside/one file (1) \u00e4&+%.json', b'\n'.join(raw[9:12]))
    daemon = penstock(azurite.source(container.container_name, auth='sas'), far_end.sink(**LIFE)).start()
    wait_until(lambda: far_end.count() >= 24, daemon=daemon, what='all of it')
    assert daemon.stop() == 0
    assert sorted(far_end.uids()) == sorted(event_id(one, n) for one in raw for n in range(2))
    daemon.start()
    wait_until(lambda: blob_counters(daemon)['requests'] >= 10, daemon=daemon, what='some polls')
    counters = blob_counters(daemon)
    assert daemon.stop() == 0
    assert counters['fetched'] == 0 and far_end.count() == 24


def test_an_app_with_a_role_reads(penstock, far_end, tmp_path):
    """Entra: a token from the client secret, over TLS; one that is refused is asked for anew; a wrong secret is said."""
    tls.make_server(tmp_path / 'farend')
    maker = Maker(26)
    records = [nsg_record(maker, tuples=2)[0] for _ in range(3)]
    try:
        with Azurite(tmp_path / 'azurite', tls=tmp_path / 'farend') as azurite, \
                TokenEndpoint(tls.server_context(tmp_path / 'farend'), 'a secret') as entra:
            container = azurite.container('insights-logs-flows')
            container.upload_blob(hour_name(NSG, now(), mac='00000000000A'), b'{"records":[' + records[0] + b']}')
            secret = azurite.secret('a wrong secret')
            entra.spoiled = True
            daemon = penstock(azurite.source('insights-logs-flows', auth='entra', tenant='11111111-2222-3333-4444-555555555555',
                                             client='66666666-7777-8888-9999-aaaaaaaaaaaa', authority=entra.url, secret_file=secret),
                              far_end.sink(**LIFE), listen='127.0.0.1:0').start()
            wait_until(lambda: 'put the secret' in daemon.log_text(), daemon=daemon, what='the alarm')
            assert daemon.stop() == 0
            secret.write_text('a secret')
            daemon.start()
            wait_until(lambda: entra.issued > 0, daemon=daemon, what='a token that is no good')
            entra.spoiled = False
            wait_until(lambda: far_end.count() >= 2, daemon=daemon, what='the first')
            container.upload_blob(hour_name(NSG, now(), mac='00000000000B'), b'{"records":[' + b','.join(records[1:]) + b']}')
            wait_until(lambda: far_end.count() >= 6, daemon=daemon, what='the second')
            [life] = [value for key, value in Window(daemon).metrics().items() if key[0] == 'penstock_source_token_life_seconds']
            assert 60 < life <= 24 * 3600
            assert daemon.stop() == 0
            assert sorted(far_end.uids()) == sorted(event_id(raw, n) for raw in records for n in range(2))
    except Unavailable as reason:
        missing(reason)


@pytest.mark.parametrize('wrong, wanted', [
    ('key', 'key_file, sas_file'), ('no-key', 'holds no account key'), ('sas-read', 'does not allow both read and list'),
    ('sas-list', 'does not allow both read and list'), ('sas-expired', 'has expired'), ('no-sas', 'holds no SAS'),
    ('container', 'there is no such container'),
])
def test_what_is_wrong_is_said_once(penstock, far_end, azurite, container, wrong, wanted):
    """Real refusals; each becomes one sentence that names what to change, and no secret. Mended, it goes on."""
    raw = nsg_record(Maker(27), tuples=2)[0]
    container.upload_blob(hour_name(NSG, now()), b'{"records":[' + raw + b']}')
    name, more = container.container_name, {}
    if 'sas' in wrong:
        sas = azurite.sas(name, 'r' if wrong == 'sas-read' else 'l' if wrong == 'sas-list' else 'rl',
                          -60 if wrong == 'sas-expired' else 3600)
        good = azurite.sas(name)
        more = {'auth': 'sas', 'sas_file': azurite.secret('?what is this' if wrong == 'no-sas' else '?' + sas)}
    else:
        good = KEY
        more = {'key_file': azurite.secret('AAAA' * 21 + 'AA==' if wrong == 'key' else 'no base64' if wrong == 'no-key' else KEY)}
    daemon = penstock(azurite.source(name + '-not' if wrong == 'container' else name, **more), far_end.sink(**LIFE)).start()
    wait_until(lambda: wanted in daemon.log_text(), daemon=daemon, what='the alarm')
    if wrong == 'container':
        azurite.container(name + '-not').upload_blob(hour_name(NSG, now()), b'{"records":[' + raw + b']}')
    else:
        more.get('sas_file', more.get('key_file')).write_text(good)
    wait_until(lambda: far_end.count() >= 2, daemon=daemon, what='the record, once it is mended')
    assert daemon.stop() == 0
    assert len([line for line in daemon.log_text().splitlines() if ' error ' in line]) == 1
    assert 'sp=rl&s' not in daemon.log_text() and good not in daemon.log_text()
