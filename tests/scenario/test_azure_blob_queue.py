"""The azure-blob source with a storage queue of notices: Azurite's queue, written to by Microsoft's client as Event Grid does."""
import json
import secrets
import threading
import time

import pytest

from azurite import AzuriteQueue, FlowBlob, hour_name, now
from kafka import at_hand
from penstock import wait_until
from records import Maker, activity_line, nsg_record
from test_azure_blob import ACTIVITY, FLOW, NSG, blob_counters
from test_azure_blob_races import BlobService, flow_blob, ids, is_get, is_list
from test_promise import LIFE, event_id

HOURLY = {'poll': '100ms', 'rescan': '1h'}       # the queue is asked all the time, hours are listed once


@pytest.fixture(params=['base64', 'plain'], scope='module')
def service(request, tmp_path_factory):
    with at_hand(), AzuriteQueue(tmp_path_factory.mktemp('queue'), plain=request.param == 'plain') as started:
        yield started


@pytest.fixture
def queue(service):
    service.client.clear_messages()
    return service


@pytest.fixture
def container(azurite):
    return azurite.container(f'insights-logs-{secrets.token_hex(4)}')


def written(container, name, what='Microsoft.Storage.BlobCreated', cloud=True):
    """An event as Event Grid writes it, of CloudEvents' schema or its own."""
    data = {'api': 'PutBlockList', 'blobType': 'BlockBlob', 'url': f'https://acme.blob.core.windows.net/{container}/{name}'}
    event = {'subject': f'/blobServices/default/containers/{container}/blobs/{name}', 'id': secrets.token_hex(8), 'data': data}
    if cloud:
        return {**event, 'specversion': '1.0', 'type': what, 'source': '/subscriptions/S', 'time': f'{now():%Y-%m-%dT%H:%M:%SZ}'}
    return {**event, 'topic': '/subscriptions/S', 'eventType': what, 'eventTime': f'{now():%Y-%m-%dT%H:%M:%SZ}', 'dataVersion': ''}


def test_what_a_notice_names_is_read_at_once(penstock, far_end, azurite, container, queue):
    """New blobs and growth, of either schema, while no hour is listed; then the queue is empty."""
    maker, expected, name = Maker(51), [], container.container_name
    first = FlowBlob(container, hour_name(NSG, now()))
    daemon = penstock(azurite.source(name, queue=queue.url, **HOURLY), far_end.sink(**LIFE)).start()
    wait_until(lambda: blob_counters(daemon)['places'] == 1, daemon=daemon, what='the first listing')
    second = FlowBlob(container, hour_name(FLOW, now()))
    listed = 0
    for step in range(6):
        if step == 3:
            listed = blob_counters(daemon)['listed']
        for blob in (first, second):
            record = nsg_record(maker, tuples=3)[0]
            blob.append(record)
            expected += [event_id(record, n) for n in range(3)]
            queue.send(json.dumps(written(name, blob.blob.blob_name, cloud=step % 2 == 0)))
        wait_until(lambda: far_end.count() >= len(expected), daemon=daemon, what='what was written')
    wait_until(lambda: queue.left() == 0, daemon=daemon, what='an empty queue')
    counters = blob_counters(daemon)
    assert counters['notices'] == 12 and counters['listed'] == listed
    assert daemon.stop() == 0
    assert sorted(far_end.uids()) == sorted(expected)


def test_nothing_depends_on_a_notice(penstock, far_end, azurite, container, queue):
    """Growth that nobody told of is found by the listings, that of append blobs with every poll; what a notice told is not read twice."""
    maker, name = Maker(52), container.container_name
    lines = container.get_blob_client(hour_name(ACTIVITY, now(), mac=None))
    lines.create_append_blob()
    flow = FlowBlob(container, hour_name(NSG, now()))
    daemon = penstock(azurite.source(name, queue=queue.url, poll='100ms', rescan='2s'), far_end.sink(**LIFE)).start()
    expected = []
    for step in range(3):
        line, record = activity_line(maker)[0].rstrip(b'\n'), nsg_record(maker, tuples=1)[0]
        lines.append_block(line + b'\n')
        flow.append(record)
        if step == 1:
            for _ in range(5):
                queue.send(json.dumps([written(name, flow.blob.blob_name)] * 3))
        expected += [event_id(line), event_id(record, 0)]
        wait_until(lambda: far_end.count() >= len(expected), daemon=daemon, what='what was written')
    wait_until(lambda: queue.left() == 0, daemon=daemon, what='an empty queue')
    assert daemon.stop() == 0
    assert sorted(far_end.uids()) == sorted(expected)


@pytest.fixture
def stand_in():
    with BlobService() as started:
        yield started


def test_a_listing_that_a_notice_has_overtaken_is_no_news(penstock, far_end, stand_in, queue, key_file):
    """It shows the blob shorter than it was read meanwhile: that is no blob made anew, and nothing comes twice."""
    maker, late = Maker(56), threading.Event()
    records = [nsg_record(maker, tuples=3)[0] for _ in range(9)]
    name = hour_name(NSG, now())
    stand_in.put(name, flow_blob(records[:3]), modified=time.time() - 60)
    source = stand_in.source(key_file, queue=queue.url, poll='100ms', rescan='500ms')
    daemon = penstock(source, far_end.sink(**LIFE)).start()
    wait_until(lambda: far_end.count() >= 9, daemon=daemon, what='the first')
    hour = name.partition('m=00')[0]
    held = stand_in.fault(lambda request: is_list(request) and request.query.get('prefix') == hour, until=late)
    wait_until(lambda: held.count == 0, daemon=daemon, what='a listing to be under way')
    stand_in.put(name, flow_blob(records[:6]), modified=time.time() - 30)
    queue.send(json.dumps(written('logs', name)))
    wait_until(lambda: far_end.count() >= 18 and queue.left() == 0, daemon=daemon, what='what the notice named')
    late.set()
    listed = len(stand_in.log)
    wait_until(lambda: len(stand_in.log) >= listed + 8, daemon=daemon, what='the late listing and more')
    stand_in.put(name, flow_blob(records))
    wait_until(lambda: far_end.count() >= 27, daemon=daemon, what='the rest')
    assert daemon.stop() == 0
    assert far_end.uids() == ids(records, 3)
    assert 'written anew' not in daemon.log_text()


def test_a_queue_that_is_full_does_not_fill_memory(penstock, far_end, stand_in, queue, key_file):
    """Blobs in turn are as many as listings would bring, however many more the queue tells of; then all are read."""
    record, late, total = nsg_record(Maker(57), tuples=1)[0], threading.Event(), 6000
    names = [hour_name(NSG, now(), mac=f'{n:012X}') for n in range(total)]
    blob = flow_blob([record])
    for name in names:
        stand_in.put(name, blob)
    stand_in.fault(is_get, count=1, until=late)
    source = stand_in.source(key_file, queue=queue.url, parallel=1, poll='100ms', rescan='100ms')
    daemon = penstock(source, far_end.sink(**LIFE)).start()
    wait_until(lambda: blob_counters(daemon)['waiting'] >= 2000, daemon=daemon, what='the first listings')
    for at in range(total - 16, 0, -16):
        queue.send(json.dumps([written('logs', name) for name in names[at:at + 16]]))
    listed = stand_in.count(kind='list')
    wait_until(lambda: stand_in.count(kind='list') >= listed + 20, daemon=daemon, what='time in which the queue could be read')
    assert blob_counters(daemon)['waiting'] <= 3100
    late.set()
    wait_until(lambda: far_end.count() >= total and queue.left() == 0, 120, 'all of it', daemon)
    assert daemon.stop() == 0
    assert far_end.count() == total


def test_messages_that_lie(penstock, far_end, azurite, container, queue):
    """Blobs that are not, or not ours; other events: deleted. What is no event of a storage account is left, and named."""
    maker, name = Maker(53), container.container_name
    other = azurite.container(name + '-other')
    other.upload_blob(hour_name(NSG, now()), b'{"records":[' + nsg_record(maker, tuples=1)[0] + b']}')
    outside = hour_name('resourceId=/OUTSIDE', now())
    container.upload_blob(outside, b'{"records":[' + nsg_record(maker, tuples=1)[0] + b']}')
    mine = hour_name(NSG, now())
    daemon = penstock(azurite.source(name, queue=queue.url, prefix=NSG, **HOURLY), far_end.sink(**LIFE)).start()
    wait_until(lambda: blob_counters(daemon)['listed'] > 0, daemon=daemon, what='the first listing')
    record = nsg_record(maker, tuples=1)[0]
    lies = [written(name + '-other', mine), written(name, outside), written(name, mine + '-not'), written(name, '../' + mine),
            written(name, f'{NSG}/./x'), written(name, ''), written(name, f'{NSG}/y=2026/m=99/\u0000x'), written(name, NSG + 'n' * 5000),
            written(name, mine, what='Microsoft.Storage.BlobDeleted'), {**written(name, mine), 'subject': 7}]
    alien = ['hello', '{}', '[]', '[[]]', '{"type":"Microsoft.Storage.BlobCreated"', '{"type":1,"subject":[]}', '"text"', '7' * 45000]
    for text in [*map(json.dumps, lies), *alien]:
        queue.send(text)
    container.upload_blob(mine, b'{"records":[' + record + b']}')
    queue.send(json.dumps(written(name, mine)))
    wait_until(lambda: far_end.count() >= 1, daemon=daemon, what='the one that is true')
    wait_until(lambda: queue.left() == len(alien), daemon=daemon, what='the lies to be deleted')
    assert daemon.stop() == 0
    assert far_end.uids() == [event_id(record, 0)]
    assert 'is the queue another' in daemon.log_text()
    assert 'hello' not in daemon.log_text()


def test_a_message_that_nobody_takes_does_not_make_a_source_stand_still(penstock, far_end, azurite, container, queue):
    """It comes again and again, while there is nothing to read."""
    source = azurite.source(container.container_name, queue=queue.url, **HOURLY)
    daemon = penstock(source, far_end.sink(**LIFE), stalled_after='1s').start()
    wait_until(lambda: blob_counters(daemon)['listed'] > 0, daemon=daemon, what='the first listing')
    end = time.monotonic() + 4
    while time.monotonic() < end:
        queue.send('hello')
        wait_until(lambda: not queue.client.peek_messages(), daemon=daemon, what='the queue to be read')
        shown = daemon.command('status', '-c', daemon.config)
        assert shown.returncode == 0, shown.stdout
    assert 'is the queue another' in daemon.log_text()
    assert daemon.stop() == 0


@pytest.mark.parametrize('wrong, wanted', [('name', 'there is no such queue'), ('sas', 'does not allow to process'),
                                           ('port', 'the service cannot be reached')])
def test_a_queue_in_trouble_costs_nothing_but_time(penstock, far_end, azurite, container, queue, wrong, wanted):
    """One sentence that tells what to change; hours are listed with every poll meanwhile."""
    maker, name, more = Maker(54), container.container_name, {}
    flow = FlowBlob(container, hour_name(NSG, now()))
    url = {'name': queue.url + '-not', 'sas': queue.url, 'port': 'http://127.0.0.1:9/devstoreaccount1/notices'}[wrong]
    if wrong == 'sas':
        more = {'auth': 'sas', 'queue_sas_file': azurite.secret(queue.sas('r'))}
    daemon = penstock(azurite.source(name, queue=url, poll='100ms', rescan='1h', **more), far_end.sink(**LIFE)).start()
    for n in range(1, 4):
        flow.append(nsg_record(maker, tuples=1)[0])
        wait_until(lambda: far_end.count() >= n, daemon=daemon, what='what was written')
    wait_until(lambda: wanted in daemon.log_text(), daemon=daemon, what='the alarm')
    if wrong == 'sas':
        more['queue_sas_file'].write_text(queue.sas())
        wait_until(lambda: 'the queue can be read again' in daemon.log_text(), daemon=daemon, what='the queue')
    assert daemon.stop() == 0
    assert daemon.log_text().count('the queue cannot be read') == 1
    assert far_end.count() == 3
    assert 'sig=' not in daemon.log_text()


@pytest.mark.parametrize('wrong, wanted', [('', 'the queue can be read'), ('name', 'there is no such queue'),
                                           ('sas', 'does not allow to process')])
def test_the_queue_is_asked_online(penstock, far_end, azurite, container, queue, wrong, wanted):
    """`check --online`; what it has taken from the queue is back at once."""
    more = {'auth': 'sas', 'queue_sas_file': azurite.secret(queue.sas('r'))} if wrong == 'sas' else {}
    queue.send(json.dumps(written(container.container_name, 'any')))
    daemon = penstock(azurite.source(container.container_name, queue=queue.url + ('-not' if wrong == 'name' else ''), **more),
                      far_end.sink())
    done = daemon.command('check', '--online', '-c', str(daemon.config))
    (said,) = [line for line in done.stdout.splitlines() if wanted in line]
    assert said.startswith('wrong' if wrong else 'good')
    wait_until(lambda: list(queue.client.receive_messages()), what='the message')


def test_settings_are_checked(penstock, far_end, azurite, container):
    daemon = penstock(azurite.source(container.container_name, queue='https://acme.queue.core.windows.net'), far_end.sink())
    done = daemon.command('check', '-c', str(daemon.config))
    assert done.returncode == 2 and 'queue: expected https://ACCOUNT.queue' in done.stderr, done.stderr
