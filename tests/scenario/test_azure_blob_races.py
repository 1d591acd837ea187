"""The azure-blob source against a stand-in (tests/farend/blobs.py) for what Azurite does not show: races, refusals, a
container of many names. Judged by what arrived, and by the stand-in's log of requests."""
import datetime
import gzip
import sqlite3
import time

import pytest

from azurite import KEY, hour_name, now
from blobs import Blob, BlobService, flow_blob
from farend import FarEnd
from penstock import parse_line, wait_until
from records import Maker, activity_line, nsg_record
from test_promise import LIFE, assert_adds_up, event_id

PLACE = 'resourceId=/SUBSCRIPTIONS/S/RESOURCEGROUPS/RG/PROVIDERS/MICROSOFT.NETWORK/NETWORKSECURITYGROUPS/NSG'


@pytest.fixture
def service():
    with BlobService() as started:
        yield started


def ids(records, tuples):
    return [event_id(raw, n) for raw in records for n in range(tuples)]


def is_get(request):
    return request.method == 'GET' and request.query.get('comp') != 'list'


def is_list(request):
    return request.query.get('comp') == 'list'


def rows(daemon):
    """(key, attrs) of state.db."""
    with sqlite3.connect(f'file:{daemon.state_dir}/state.db?mode=ro', uri=True, timeout=30) as db:
        return db.execute('SELECT key, attrs FROM stream').fetchall()


def blob_counters(daemon):
    daemon.counters()
    return [keys for keys in map(parse_line, daemon.log_text().splitlines()) if keys.get('msg') == 'lag'][-1]


# Races.

def test_a_blob_that_changes_between_listing_and_reading(penstock, far_end, service, key_file):
    """412 again and again, in the middle of the blob too: no byte of one version is joined to another's."""
    maker = Maker(31)
    records = [nsg_record(maker, tuples=4)[0] for _ in range(60)]
    name, count = hour_name(PLACE, now()), 20
    service.put(name, flow_blob(records[:count]))

    def grow(request):
        nonlocal count
        if is_get(request) and count < len(records):
            count += 1
            service.put(name, flow_blob(records[:count]))
    service.before = grow
    daemon = penstock(service.source(key_file, chunk='4K'), far_end.sink(**LIFE)).start()
    wait_until(lambda: far_end.count() >= 240, daemon=daemon, what='all of it')
    assert daemon.stop() == 0
    assert far_end.uids() == ids(records, 4)
    assert any(entry[3] == 412 for entry in service.log)


def test_a_blob_made_anew_is_read_anew(penstock, far_end, service, key_file):
    """Deleted and made again, shorter or longer: noticed, said, and read from its start."""
    maker = Maker(32)
    old, new, more = ([nsg_record(maker, tuples=3)[0] for _ in range(n)] for n in (6, 3, 20))
    name = hour_name(PLACE, now())
    service.put(name, flow_blob(old), created=time.time() - 100)
    daemon = penstock(service.source(key_file), far_end.sink(**LIFE)).start()
    wait_until(lambda: far_end.count() >= 18, daemon=daemon, what='the first')
    service.put(name, flow_blob(new), created=time.time() - 50)
    wait_until(lambda: far_end.count() >= 27, daemon=daemon, what='the second')
    service.put(name, flow_blob(more), created=time.time())
    wait_until(lambda: far_end.count() >= 87, daemon=daemon, what='the third')
    assert daemon.stop() == 0
    assert far_end.uids() == ids(old + new + more, 3)
    assert daemon.log_text().count('written anew') == 2


@pytest.mark.parametrize('old_level, new_level, count', [(None, None, 20), (9, 9, 20), (9, 0, 8)],
                         ids=['lines', 'archive', 'archive of less'])
def test_a_blob_written_over_by_a_longer_one_is_read_anew(penstock, far_end, service, key_file, old_level, new_level, count):
    """A block list committed over it keeps the time of creation, and a record of the new one begins just at our place: the
    bytes before it tell, in an archive those that are unpacked, or that it ends before."""
    maker = Maker(43)
    first = [activity_line(maker)[0].rstrip(b'\n') for _ in range(12)]
    old = [line[:-1] + b',"turn":1}' for line in first]
    new = [line[:-1] + b',"turn":2}' for line in first[::-1]] + [activity_line(maker)[0].rstrip(b'\n') for _ in range(8)]
    new = new[:count]

    def blob(records, level):
        data = b''.join(line + b'\n' for line in records)
        return data if level is None else gzip.compress(data, level)
    assert len(blob(new, new_level)) > len(blob(old, old_level))
    service.put('export/all.jsonl', blob(old, old_level), created=1000000000)
    daemon = penstock(service.source(key_file), far_end.sink(**LIFE)).start()
    wait_until(lambda: far_end.count() >= 12, daemon=daemon, what='the first')
    service.put('export/all.jsonl', blob(new, new_level))
    wait_until(lambda: event_id(new[-1]) in far_end.uids(), daemon=daemon, what='the end of the second')
    assert daemon.stop() == 0
    assert far_end.uids() == [event_id(line) for line in old + new]
    assert daemon.log_text().count('written anew') == 1


def test_an_archive_that_grows_goes_on(penstock, far_end, service, key_file):
    """What was read of it is unpacked again, compared, and does not come twice; in chunks that are shorter than that, too."""
    maker, data, expected = Maker(44), b'', []
    daemon = penstock(service.source(key_file, chunk='4K'), far_end.sink(**LIFE)).start()
    for count in (2, 40, 3, 40):
        lines = [activity_line(maker)[0].rstrip(b'\n') for _ in range(count)]
        data += gzip.compress(b''.join(line + b'\n' for line in lines))
        expected += [event_id(line) for line in lines]
        service.put('export/all.jsonl', data, created=1000000000)
        wait_until(lambda: far_end.count() >= len(expected), daemon=daemon, what='the growth')
        if count == 3:
            assert daemon.stop() == 0
            daemon.start()
    assert daemon.stop() == 0
    assert far_end.uids() == expected
    assert 'anew' not in daemon.log_text()


def test_a_new_creation_time_alone_is_no_new_blob(penstock, far_end, service, key_file):
    """The 64 bytes before the position tell: the same blob goes on, and nothing comes twice."""
    maker = Maker(33)
    records = [nsg_record(maker, tuples=3)[0] for _ in range(9)]
    name = hour_name(PLACE, now())
    daemon = penstock(service.source(key_file), far_end.sink(**LIFE))
    for count in (3, 6, 9):
        service.put(name, flow_blob(records[:count]), created=time.time() + count)
        if count == 3:
            daemon.start()
        wait_until(lambda: far_end.count() >= 3 * count, daemon=daemon, what='the growth')
    assert daemon.stop() == 0
    assert far_end.uids() == ids(records, 3)
    assert 'anew' not in daemon.log_text()
    assert service.sent() <= len(flow_blob(records)) + 4 + 2 * 64


def test_trouble_on_the_way_costs_nothing(penstock, far_end, service, key_file):
    """429, 503, 500, an answer cut in its middle, a page cut in its middle, 416: all of it arrives, once."""
    maker = Maker(34)
    records = [nsg_record(maker, tuples=5)[0] for _ in range(40)]
    name = hour_name(PLACE, now())
    service.put(name, flow_blob(records))
    service.fault(is_list, status=429, code='ServerBusy', headers={'Retry-After': '1'})
    service.fault(is_list, cut=300)
    service.fault(is_get, status=416, code='InvalidRange')
    service.fault(is_get, status=503, code='ServerBusy')
    service.fault(is_get, cut=5000)
    service.fault(is_get, status=500, code='OperationTimedOut')
    daemon = penstock(service.source(key_file, chunk='16K'), far_end.sink(**LIFE)).start()
    wait_until(lambda: far_end.count() >= 200, daemon=daemon, what='all of it')
    assert daemon.stop() == 0
    assert far_end.uids() == ids(records, 5)
    assert service.sent() <= len(flow_blob(records)) + 2


@pytest.mark.parametrize('status, code', [(403, 'AuthorizationPermissionMismatch'), (500, 'InternalError')])
def test_one_blob_that_may_not_be_read_does_not_hold_the_others(penstock, far_end, service, key_file, status, code):
    """A condition of the role, or a key of its own that is gone: it is tried with every listing, and read once it may be."""
    maker = Maker(45)
    records = [nsg_record(maker, tuples=2)[0] for _ in range(9)]
    for n, record in enumerate(records):
        service.put(hour_name(PLACE, now(), mac=f'{n:012X}'), flow_blob([record]))
    bad = hour_name(PLACE, now(), mac=f'{4:012X}')
    fault = service.fault(lambda request: is_get(request) and bad in request.path, count=1 << 30, status=status, code=code)
    daemon = penstock(service.source(key_file, parallel='1'), far_end.sink(**LIFE)).start()
    wait_until(lambda: far_end.count() >= 16, daemon=daemon, what='all but one')
    service.put(hour_name(PLACE, now(), mac='FFFFFFFFFFFF'), flow_blob(records[:1]))
    wait_until(lambda: far_end.count() >= 18, daemon=daemon, what='one more')
    wait_until(lambda: 'cannot read a blob' in daemon.log_text(), daemon=daemon, what='a word about it')
    service.faults.remove(fault)
    wait_until(lambda: far_end.count() >= 20, daemon=daemon, what='that one')
    assert daemon.stop() == 0
    assert set(far_end.uids()) == set(ids(records, 2))
    assert daemon.log_text().count('cannot read a blob') == 1


def test_a_blob_deleted_under_the_reading(penstock, far_end, service, key_file):
    maker = Maker(35)
    records = [nsg_record(maker, tuples=5)[0] for _ in range(40)]
    doomed, other = hour_name(PLACE, now(), mac='00000000000A'), hour_name(PLACE, now(), mac='00000000000B')
    service.put(doomed, flow_blob(records))

    def delete(request):
        if is_get(request) and doomed in service.blobs and service.count('GET', 'blob') == 2:
            service.delete(doomed)
            service.put(other, flow_blob(records[:4]))
    service.before = delete
    daemon = penstock(service.source(key_file, chunk='4K'), far_end.sink(**LIFE)).start()
    wait_until(lambda: set(ids(records[:4], 5)) <= set(far_end.uids()), daemon=daemon, what='the other one')
    assert daemon.stop() == 0
    assert 'deleted before it was read' in daemon.log_text()
    assert_adds_up(daemon.counters())


LAUGHS = (b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><EnumerationResults><Blobs><Blob>'
          b'<Name>&b;</Name></Blob></Blobs></EnumerationResults>')
NONSENSE = {
    'nothing': b'', 'html': b'<html></html>', 'entities': LAUGHS, 'deep': b'<EnumerationResults>' + b'<a>' * 100,
    'long': b'<EnumerationResults><Blobs><Blob><Name>' + b'n' * 10000 + b'</Name></Blob></Blobs></EnumerationResults>',
    'half': b'<EnumerationResults><Blobs>',
}


@pytest.mark.parametrize('what', [*NONSENSE, 'range'])
def test_a_far_end_that_makes_no_sense(penstock, far_end, service, key_file, what):
    """No listing, an endless one, entities, a whole blob for a range: none of it taken for data, none of it fatal."""
    maker = Maker(36)
    records = [nsg_record(maker, tuples=5)[0] for _ in range(4)]
    service.put(hour_name(PLACE, now()), flow_blob(records))
    if what == 'range':
        service.fault(is_get, body=b'more than was asked for' * 1000)
    else:
        service.fault(is_list, body=NONSENSE[what])
    daemon = penstock(service.source(key_file), far_end.sink(**LIFE)).start()
    wait_until(lambda: far_end.count() >= 20, 60, 'all of it', daemon)
    assert daemon.stop() == 0
    assert far_end.uids() == ids(records, 5)


# Refusals.

@pytest.mark.parametrize('status, code, skew, wanted', [
    (403, 'AuthenticationFailed', 0, 'check key_file'),
    (403, 'AuthenticationFailed', 3600, 'clock is more than 15 minutes off'),
    (403, 'AuthenticationFailed', -3600, 'clock is more than 15 minutes off'),
    (403, 'AuthorizationPermissionMismatch', 0, 'read and list'),
    (403, 'AuthorizationFailure', 0, 'Networking'),
    (403, 'KeyBasedAuthenticationNotPermitted', 0, 'auth = entra'),
    (404, 'ContainerNotFound', 0, 'check container'),
    (401, 'NoAuthenticationInformation', 0, 'check auth'),
])
def test_a_refusal_says_once_what_to_change(penstock, far_end, service, key_file, status, code, skew, wanted):
    maker = Maker(37)
    record = nsg_record(maker, tuples=2)[0]
    service.put(hour_name(PLACE, now()), flow_blob([record]))
    service.skew = skew
    service.fault(lambda request: True, count=3, status=status, code=code)
    daemon = penstock(service.source(key_file), far_end.sink(**LIFE)).start()
    wait_until(lambda: far_end.count() >= 2, 60, 'the refusal to be over', daemon)
    assert daemon.stop() == 0
    alarms = [line for line in daemon.log_text().splitlines() if ' error ' in line]
    assert len(alarms) == 1 and wanted in alarms[0] and KEY not in daemon.log_text()
    assert 'can be read again' in daemon.log_text()


@pytest.mark.parametrize('changes, wanted', [
    ({'auth': 'sas', 'key_file': None}, '"sas_file'), ({'auth': 'secret', 'key_file': None}, 'tenant'),
    ({'container': 'https://a.blob.core.windows.net/logs?sv=1&sig=x'}, 'sas_file'),
    ({'container': 'https://a.blob.core.windows.net/logs/y=2026'}, 'prefix'),
    ({'container': 'https://a.blob.core.windows.net'}, 'CONTAINER'), ({'since': 'yesterday'}, 'since'),
    ({'container': 'http://a.blob.core.windows.net/logs'}, 'loopback'), ({'prefxi': 'x'}, 'prefix'),
])
def test_settings_are_checked(penstock, far_end, key_file, changes, wanted):
    keys = {'type': 'azure-blob', 'container': 'https://a.blob.core.windows.net/logs', 'auth': 'key', 'key_file': key_file, **changes}
    daemon = penstock(('source blobs', {key: value for key, value in keys.items() if value is not None}), far_end.sink())
    done = daemon.command('check', '-c', str(daemon.config))
    assert done.returncode == 2, done.stdout
    assert wanted.strip('"') in done.stderr, done.stderr


# What is remembered.

def test_finished_hours_are_one_number(penstock, far_end, service, key_file):
    """Past hours are let go: one row for their place. What is written late into them is found by a sweep."""
    maker, expected = Maker(38), []
    start = now() - datetime.timedelta(days=3)
    for n in range(60):
        record = nsg_record(maker, tuples=2)[0]
        when = start + datetime.timedelta(hours=n)
        service.put(hour_name(PLACE, when), flow_blob([record]), modified=when.timestamp() + 3600)
        expected += ids([record], 2)
    daemon = penstock(service.source(key_file, relist='2s', watch='1s'), far_end.sink(**LIFE), cursor_save='50ms').start()
    wait_until(lambda: far_end.count() >= 120, daemon=daemon, what='all of it')
    wait_until(lambda: len(rows(daemon)) == 2, daemon=daemon, what='the hours to be let go')
    late = [nsg_record(maker, tuples=2)[0] for _ in range(2)]
    service.put(hour_name(PLACE, start, mac='00000000000B'), flow_blob(late[:1]))          # a new one in an old hour
    wait_until(lambda: far_end.count() >= 122, daemon=daemon, what='the straggler')
    daemon.kill()
    reads = service.count('GET', 'blob')
    daemon.start()
    service.put(hour_name(PLACE, now()), flow_blob(late[1:]))
    wait_until(lambda: far_end.count() >= 124, daemon=daemon, what='the new hour')
    assert daemon.stop() == 0
    assert set(far_end.uids()) == set(expected + ids(late, 2))
    assert service.count('GET', 'blob') - reads <= 2


def test_hours_without_a_blob_are_counted_and_said(penstock, far_end, service, key_file):
    """A day with a blob an hour, then gaps: counted once, over a restart too; what never came every hour is not missed."""
    maker, expected = Maker(46), []
    start = now() - datetime.timedelta(hours=60)
    flow, idle = f'{PLACE}-FLOW', f'{PLACE}-IDLE'

    def write(place, hours):
        for hour in hours:
            when = start + datetime.timedelta(hours=hour)
            record = nsg_record(maker, tuples=1)[0]
            expected.extend(ids([record], 1))
            service.put(hour_name(place, when), flow_blob([record]), modified=when.timestamp() + 3600)
    write(flow, [*range(30), *range(32, 50)])                      # from hour 57 on it is not expected any more
    write(idle, [hour for hour in range(60) if hour % 2])
    daemon = penstock(service.source(key_file, watch='1s', relist='1h'), far_end.sink(**LIFE), cursor_save='20ms').start()
    wait_until(lambda: blob_counters(daemon)['hours_missing'] >= 2 + 7, daemon=daemon, what='the hours to be over')
    assert daemon.stop() == 0
    said = [keys for keys in map(parse_line, daemon.log_text().splitlines()) if keys.get('msg', '').startswith('no blob was written')]
    hour = [f'{start + datetime.timedelta(hours=n):y=%Y/m=%m/d=%d/h=%H/}' for n in (30, 50)]
    assert [(keys['prefix'], keys['from'], keys['hours']) for keys in said] == [(f'{flow}/', hour[0], 2), (f'{flow}/', hour[1], 7)]
    daemon.start()                   # these hours were judged: none of them again
    lists = service.count(kind='list')
    wait_until(lambda: service.count(kind='list') >= lists + 40, daemon=daemon, what='whole walks')
    assert blob_counters(daemon)['hours_missing'] == 0
    assert daemon.stop() == 0
    assert sorted(far_end.uids()) == sorted(expected)


def test_hours_are_over_by_the_services_clock(penstock, far_end, service, key_file):
    """Our clock is six hours ahead: what still grows there is not let go, over a restart neither."""
    maker = Maker(44)
    records = [nsg_record(maker, tuples=1)[0] for _ in range(3)]
    service.skew = -6 * 3600
    name, made = hour_name(PLACE, now() - datetime.timedelta(hours=6)), time.time() - 6 * 3600
    daemon = penstock(service.source(key_file), far_end.sink(**LIFE), cursor_save='20ms')
    for n in range(3):
        service.put(name, flow_blob(records[:n + 1]), modified=made + n)
        daemon.start()
        wait_until(lambda: far_end.count() >= n + 1, daemon=daemon, what='the growth')
        lists = service.count(kind='list')
        wait_until(lambda: service.count(kind='list') >= lists + 20, daemon=daemon, what='whole walks')
        assert daemon.stop() == 0
    assert far_end.uids() == ids(records, 1)


def test_since_begins_at_a_date(penstock, far_end, service, key_file):
    maker = Maker(39)
    records = [nsg_record(maker, tuples=1)[0] for _ in range(50)]
    for n, record in enumerate(records):
        when = now() - datetime.timedelta(hours=n)
        service.put(hour_name(PLACE, when), flow_blob([record]), modified=when.timestamp())
    since = now() - datetime.timedelta(hours=9)
    daemon = penstock(service.source(key_file, since=f'{since:%Y-%m-%dT%HZ}', relist='1s'), far_end.sink(**LIFE)).start()
    wait_until(lambda: far_end.count() >= 10, daemon=daemon, what='ten hours')
    wait_until(lambda: any(entry[2] == '' and entry[1] == 'list' for entry in service.log), daemon=daemon, what='a sweep')
    wait_until(lambda: service.count(kind='list') > 60, daemon=daemon, what='some polls')
    assert daemon.stop() == 0
    assert sorted(far_end.uids()) == sorted(ids(records[:10], 1))


def test_names_without_hours(penstock, far_end, service, key_file):
    """A flat container: read whole, then only what is new or has grown, over a restart and past what is remembered."""
    maker = Maker(40)
    lines = [activity_line(maker)[0].rstrip(b'\n') for _ in range(420)]
    for n in range(400):
        service.put(f'export/{n:05d}.jsonl', lines[n] + b'\n', modified=time.time() - 86400, kind='AppendBlob')
    daemon = penstock(service.source(key_file), far_end.sink(**LIFE)).start()
    wait_until(lambda: far_end.count() >= 400, daemon=daemon, what='all of it')
    for n in range(10):
        service.put(f'export/{n * 7:05d}.jsonl', lines[n * 7] + b'\n' + lines[400 + n] + b'\n', kind='AppendBlob')
    wait_until(lambda: far_end.count() >= 410, daemon=daemon, what='what has grown')
    daemon.kill()
    reads = service.count('GET', 'blob')
    daemon.start()
    for n in range(10):
        service.put(f'export/{n:05d}-new.jsonl', lines[410 + n] + b'\n', kind='AppendBlob')
    wait_until(lambda: far_end.distinct() >= 420, daemon=daemon, what='what is new')
    assert daemon.stop() == 0
    assert set(far_end.uids()) == {event_id(line) for line in lines}
    assert service.count('GET', 'blob') - reads <= 10 + (far_end.count() - 420)


@pytest.mark.plain
def test_nothing_is_lost_in_kills_of_a_sweep(penstock, far_end, service, key_file):
    """kill -9 twenty times while a flat container is read for the first time, its blobs growing and coming meanwhile."""
    maker, expected, contents = Maker(42), [], {}

    def write(name, **more):
        line = activity_line(maker)[0].rstrip(b'\n')
        expected.append(event_id(line))
        contents[name] = contents.get(name, b'') + line + b'\n'
        service.put(name, contents[name], kind='AppendBlob', **more)
    for n in range(1500):
        write(f'export/{n % 1200:05d}.jsonl', modified=time.time() - 3600)
    service.page_max = 50
    daemon = penstock(service.source(key_file, poll='50ms', parallel='4'), far_end.sink(spool_after='200ms', **LIFE),
                      cursor_save='20ms')
    for kill in range(20):
        before = far_end.count()
        write(f'export/{kill * 31 % 1200:05d}.jsonl')
        write(f'late/{kill:05d}.jsonl')
        daemon.start()
        share = len(expected) * (kill + 1) // 22
        wait_until(lambda: far_end.count() > before + 20 or far_end.distinct() >= share, daemon=daemon, what='progress')
        daemon.kill()
    daemon.start()
    wait_until(lambda: far_end.distinct() >= len(expected), 60, 'all of it', daemon)
    assert daemon.stop() == 0
    assert set(far_end.uids()) == set(expected)
    print(f'20 kills, {len(expected)} records: 0 lost, {far_end.count() - len(expected)} repeated')


def test_prefixes_choose(penstock, far_end, service, key_file):
    maker = Maker(41)
    records = [nsg_record(maker, tuples=1)[0] for _ in range(3)]
    for letter, record in zip('ABC', records):
        service.put(hour_name(f'resourceId=/{letter}', now()), flow_blob([record]))
    daemon = penstock(service.source(key_file, prefix='resourceId=/C,resourceId=/A'), far_end.sink(**LIFE)).start()
    wait_until(lambda: far_end.count() >= 2, daemon=daemon, what='two of three')
    wait_until(lambda: service.count(kind='list') > 20, daemon=daemon, what='some polls')
    assert daemon.stop() == 0
    assert sorted(far_end.uids()) == sorted(ids([records[0], records[2]], 1))


def test_what_is_written_now_does_not_wait_behind_a_backlog(penstock, far_end, service, key_file):
    maker = Maker(43)
    backlog = filled(service, 1, 3000, now() - datetime.timedelta(hours=3100))
    first, live = (nsg_record(maker, tuples=1)[0] for _ in range(2))
    service.put(hour_name(PLACE, now()), flow_blob([first]))
    daemon = penstock(service.source(key_file, parallel='1'), far_end.sink(**LIFE)).start()
    wait_until(lambda: event_id(first) in far_end.uids(), daemon=daemon, what='the first')
    service.before = lambda request: time.sleep(0.01)
    before = far_end.count()
    assert before < backlog / 2
    service.put(hour_name(PLACE, now()), flow_blob([first, live]))
    wait_until(lambda: event_id(live) in far_end.uids(), daemon=daemon, what='what is written now')
    assert far_end.count() < backlog
    service.before = None
    wait_until(lambda: far_end.count() >= backlog + 2, 120, 'the backlog', daemon)
    assert daemon.stop() == 0
    assert len(set(far_end.uids())) == backlog + 2


# Size.

def filled(service, places, hours, begin):
    """`places` times `hours` blobs of one record each; the record tells the name."""
    def made():
        for p in range(places):
            for h in range(hours):
                when = begin + datetime.timedelta(hours=h)
                name = hour_name(f'{PLACE}-{p:04d}', when)
                data = b'{"records":[{"time":"%s","category":"Made","n":%d}]}' % (f'{when:%Y-%m-%dT%H:00:00Z}'.encode(), p * hours + h)
                blob = Blob(data, modified=when.timestamp() + 3600, created=when.timestamp())
                blob.size = len(data)
                yield name, blob
    service.fill(made())
    return places * hours


def assert_small(daemon, service, what):
    resident, highest = daemon.memory()
    print(f'{what}: {service.count(kind="list")} listings, {service.count("GET", "blob")} blobs read, '
          f'{highest >> 20} MiB resident at the highest, {len(rows(daemon))} rows')
    assert highest <= (64 + 16) << 20


@pytest.mark.plain
def test_fifty_thousand_blobs(penstock, tmp_path, service, key_file):
    """All read at the first start; memory and state follow the hours that still grow; the second start reads nothing."""
    with FarEnd(tmp_path / 'farend', '--keep', 'ids') as far_end:
        total = filled(service, 10, 5000, now() - datetime.timedelta(hours=5000))
        daemon = penstock(service.source(key_file, poll='1s', parallel='16'), far_end.sink(**LIFE)).start()
        wait_until(lambda: far_end.count() >= total, 300, 'all of it', daemon)
        wait_until(lambda: len(rows(daemon)) < 100, 60, 'the hours to be let go', daemon)
        assert_small(daemon, service, 'first start')
        assert daemon.stop() == 0
        assert far_end.count() == far_end.distinct() == total
        service.log.clear()
        daemon.start()
        service.put(hour_name(f'{PLACE}-0003', now(), mac='00000000000B'), flow_blob([b'{"category":"New"}']))
        wait_until(lambda: far_end.count() > total, daemon=daemon, what='the new one')
        assert_small(daemon, service, 'second start')
        assert service.count('GET', 'blob') == 1
        assert daemon.stop() == 0


@pytest.mark.long
def test_a_million_blobs(penstock, tmp_path, service, key_file):
    """Begun a day ago: only that day is read, the rest is walked past; a sweep lists every name, in flat memory."""
    with FarEnd(tmp_path / 'farend', '--keep', 'ids') as far_end:
        begin = now() - datetime.timedelta(hours=10000)
        total = filled(service, 100, 10000, begin)
        since = now() - datetime.timedelta(hours=24)
        daemon = penstock(service.source(key_file, poll='1s', since=f'{since:%Y-%m-%dT%HZ}', relist='5s', watch='1s'),
                          far_end.sink(**LIFE)).start()
        wait_until(lambda: far_end.count() >= 100 * 23, 120, 'the last day', daemon)
        wait_until(lambda: sum(1 for entry in service.log if entry[1:3] == ('list', '')) >= total // 5000 + 10, 600, 'a sweep', daemon)
        assert_small(daemon, service, 'with a sweep')
        assert daemon.stop() == 0
        count = far_end.count()
        assert count <= 100 * 24
        service.log.clear()
        begun = time.monotonic()
        daemon.start()
        service.put(hour_name(f'{PLACE}-0050', now(), mac='00000000000B'), flow_blob([b'{"category":"New"}']))
        wait_until(lambda: far_end.count() > count, daemon=daemon, what='the new one')
        print(f'second start: first delivery after {time.monotonic() - begun:.1f} s')
        assert_small(daemon, service, 'second start')
        assert daemon.stop() == 0
