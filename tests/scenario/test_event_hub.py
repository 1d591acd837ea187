"""Event hubs and Kafka topics as a source, against a real broker: nothing lost, a partition's order kept, the group's offsets
committed when what they pass is safe."""
import gzip
import json
import subprocess

import pytest

from kafka import Kafka, Unavailable, missing
from penstock import total, wait_until

FAST = {'flush': '100ms', 'spool_after': '200ms', 'retry_min': '50ms', 'retry_max': '300ms'}


@pytest.fixture(scope='module')
def broker(tmp_path_factory):
    try:
        with Kafka(tmp_path_factory.mktemp('kafka')) as kafka:
            yield kafka
    except Unavailable as reason:
        missing(reason)


def record(n, stream=0):
    return {'time': f'2026-11-22T{n // 3600 % 24:02}:{n // 60 % 60:02}:{n % 60:02}Z', 'category': 'Made',
            'operationName': 'made/by/test', 'n': n, 'stream': stream}


def produce(broker, topic, values, partition=None, options=None):
    """Values in their order, into one partition; any bytes but the delimiter, which no record of ours holds."""
    delimiter = '\x01'
    command = ['kcat', '-b', broker.bootstrap, '-P', '-t', topic, '-D', delimiter, '-X', 'enable.idempotence=true']
    if partition is not None:
        command += ['-p', str(partition)]
    for key, value in (options or {}).items():
        command += ['-X', f'{key}={value}']
    data = delimiter.encode().join(values)
    subprocess.run(command, input=data, check=True, capture_output=True)


def hub(broker, topic, name='hub', **more):
    return f'source {name}', {'type': 'event-hub', 'bootstrap': broker.bootstrap, 'topic': topic, 'group': f'group-{topic}', **more}


def numbers(far_end):
    """n of every row, by stream, in the order of arrival."""
    return [json.loads(row[0])['n'] for row in
            far_end.query("SELECT json_extract(row, '$.RawData') FROM rows ORDER BY rowid")]


def test_messages_become_events_in_their_order(broker, penstock, far_end):
    """Envelopes, single records and arrays, each message by itself; a broken one costs itself only."""
    broker.create_topic('shapes')
    values = [json.dumps({'records': [record(0), record(1)]}).encode(), json.dumps(record(2)).encode(),
              json.dumps([record(3), record(4)]).encode(), b'{"records":[{"torn":', json.dumps(record(5)).encode()]
    produce(broker, 'shapes', values)
    daemon = penstock(hub(broker, 'shapes'), far_end.sink(**FAST)).start()
    wait_until(lambda: far_end.count() == 7, daemon=daemon)
    assert daemon.stop() == 0
    counters = daemon.counters()
    assert total(counters, 'read') == 7 and total(counters, 'malformed') == 1
    assert total(counters, 'delivered') == 7
