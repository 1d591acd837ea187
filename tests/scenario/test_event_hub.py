"""Event hubs and Kafka topics as a source, against a real broker: nothing lost, a partition's order kept, the group's offsets
committed when what they pass is safe, and a sentence for whatever a person must mend.

What arrives is read from a second topic, where the stream is the key, or from Sentinel's stand-in.
"""
import collections
import contextlib
import gzip
import json
import random
import subprocess
import time

import pytest

import reliability
from farend import FarEnd
from judge import alarms, event_id
from kafka import AUTHORIZER, Kafka, Unavailable, missing
from penstock import Penstock, slower, total, wait_until
from records import write_activity, write_nsg
from stranger import Stranger
from test_check_online_sources import check

pytestmark = pytest.mark.kafka

FAST = {'flush': '100ms', 'spool_after': '200ms', 'retry_min': '50ms', 'retry_max': '300ms'}
# How soon librdkafka looks again; Event Hubs allows a session no less than 6 s.
QUICK = {'kafka.reconnect.backoff.max.ms': '500', 'kafka.topic.metadata.refresh.interval.ms': '1000',
         'kafka.session.timeout.ms': '6000', 'kafka.heartbeat.interval.ms': '500'}
CONNECTION_STRING = 'Endpoint=sb://acme.servicebus.windows.net/;SharedAccessKeyName=listen;SharedAccessKey=c2VjcmV0IGtleQ=='


@pytest.fixture(scope='module')
def broker(tmp_path_factory):
    try:
        kafka = Kafka(tmp_path_factory.mktemp('kafka'), AUTHORIZER)
        # Two logins, as Event Hubs has them: a user, and a connection string under its one name.
        kafka.properties = {**AUTHORIZER, 'listener.name.sasl_ssl.plain.sasl.jaas.config':
                            'org.apache.kafka.common.security.plain.PlainLoginModule required '
                            f'user_{kafka.user}="{kafka.password}" user_$ConnectionString="{CONNECTION_STRING}";'}
        kafka.properties['group.min.session.timeout.ms'] = '1000'
        # Compaction, and not every 15 s only.
        kafka.properties.update({'log.cleaner.enable': 'true', 'log.cleaner.backoff.ms': '200',
                                 'log.cleaner.dedupe.buffer.size': '4000000'})
        kafka.properties['super.users'] += ';User:$ConnectionString'
        with kafka:
            yield kafka
    except Unavailable as reason:
        missing(reason)


def record(n, stream=0, **more):
    return {'time': f'2026-11-22T{n // 3600 % 24:02}:{n // 60 % 60:02}:{n % 60:02}Z', 'category': 'Made',
            'operationName': 'made/by/test', 'n': n, 'stream': stream, **more}


def values(first, count, stream=0):
    return [json.dumps(record(n, stream)).encode() for n in range(first, first + count)]


def produce(bootstrap, topic, messages, partition=None, **options):
    """Messages in their order, into one partition; (key, value) or value, any bytes but the delimiters.

    One request at a time: so a retry, as on a topic just made, changes no order. Idempotence would do that, too, but librdkafka then
    takes messages for delivered because later ones were, and may lose one."""
    command = ['kcat', '-b', bootstrap, '-P', '-t', topic, '-D', '\x01', '-X', 'max.in.flight.requests.per.connection=1']
    if partition is not None:
        command += ['-p', str(partition)]
    for key, value in options.items():
        command += ['-X', f'{key.replace("_", ".")}={value}']
    messages = list(messages)
    if messages and isinstance(messages[0], tuple):
        command += ['-K', '\x02']
        messages = [key + b'\x02' + value for key, value in messages]
    subprocess.run(command, input=b'\x01'.join(messages), check=True, capture_output=True)


def produce_files(bootstrap, topic, *files):
    """A message a file, of any bytes."""
    subprocess.run(['kcat', '-b', bootstrap, '-P', '-t', topic, '-p', '0', *map(str, files)], check=True, capture_output=True)


def secret(folder, name, text):
    path = folder / name
    path.write_text(text)
    path.chmod(0o600)
    return path


def hub(broker, topic, name='hub', **more):
    keys = {'type': 'event-hub', 'bootstrap': broker.bootstrap, 'topic': topic, 'group': f'group-{topic}', **QUICK,
            **{key.replace('__', '.'): value for key, value in more.items()}}
    return f'source {name}', {key: value for key, value in keys.items() if value is not None}


def siem(broker, topic, **more):
    return 'sink siem', {'type': 'kafka', 'schema': 'ocsf', 'brokers': broker.bootstrap, 'topic': topic, **FAST, **more}


def kept(messages):
    """The records of messages in OCSF, in their order."""
    return [json.loads(json.loads(value)['raw_data']) for *_, value in messages]


def numbers(far_end):
    """n of every row, in the order of arrival."""
    return [n for n, in far_end.query("SELECT json_extract(row, '$.RawData.n') FROM rows ORDER BY seq")]


def firsts(items):
    return list(dict.fromkeys(items))


def assert_adds_up(counters):
    for (source, sink), keys in counters.items():
        if source is not None and sink is not None:
            assert keys['taken'] == sum(keys[place] for place in ('delivered', 'dead', 'dropped', 'held', 'spooled'))


def stopped(daemon, seconds=15):
    assert daemon.stop(seconds) == 0
    counters = daemon.counters()
    assert_adds_up(counters)
    return counters


# ---- Messages ----------------------------------------------------------------------------------------------------

def test_messages_become_events_in_their_order(broker, penstock, far_end):
    """Envelopes, single records and arrays, each message by itself; a broken one costs itself only."""
    broker.create_topic('shapes')
    produce(broker.bootstrap, 'shapes', [
        json.dumps({'records': [record(0), record(1)]}).encode(), json.dumps(record(2)).encode(),
        json.dumps([record(3), record(4)]).encode(), b'{"records":[{"torn":', json.dumps(record(5)).encode()])
    daemon = penstock(hub(broker, 'shapes'), far_end.sink(**FAST)).start()
    wait_until(lambda: far_end.count() == 7, daemon=daemon)
    counters = stopped(daemon)
    assert total(counters, 'read') == 7 and total(counters, 'malformed') == 1
    assert [n for n in numbers(far_end) if n is not None] == list(range(6))
    assert [uid for uid in far_end.uids()].count(event_id(json.dumps(record(2)).encode())) == 1
    assert broker.committed('group-shapes', 'shapes') == {0: 5}


def test_small_messages_go_together_and_each_keeps_its_offset(broker, penstock, far_end):
    """One record each, among them torn ones, empty ones, gzip, and one that fills a chunk by itself."""
    broker.create_topic('small')
    count = 1500
    messages = [(b'key', json.dumps(record(n)).encode()) for n in range(count)]
    messages[100] = b'key', b'{"torn":'
    messages[101] = messages[700] = b'key', b''
    messages[800] = b'key', json.dumps({'records': [record(800, part=part) for part in range(2000)]}).encode()
    produce(broker.bootstrap, 'small', messages)
    far_end.down()
    daemon = penstock(hub(broker, 'small'), far_end.sink(**FAST)).start()
    wait_until(lambda: total(daemon.counters(), 'spooled') == count - 2 + 1999, 60, 'all of it to be spooled', daemon)
    shown = json.loads(daemon.command('status', '-c', daemon.config, '--json').stdout)
    assert shown['sources'][0]['bytes'] == sum(len(value) for _, value in messages)
    assert total(stopped(daemon), 'malformed') == 1
    assert broker.committed('group-small', 'small') == {0: count}
    exported = [json.loads(line) for line in daemon.command('spool', 'export', '-c', daemon.config, 'sentinel').stdout.splitlines()]
    assert [line['position'] for line in exported] == [offset for offset, (_, value) in enumerate(messages) if value
                                                       for _ in range(2000 if offset == 800 else 1)]
    for line in exported:
        assert line['position'] == line['message'].get('RawData', {'n': 100})['n']
    assert exported[5]['message']['EventOriginalUid'] == event_id(messages[5][1])


def test_gzip_is_unpacked_and_what_cannot_be_travels_as_it_is(broker, penstock, far_end, tmp_path):
    """One member, two members, a bomb, a torn one, an empty one, and a tombstone: each costs itself only."""
    broker.create_topic('gzip')
    whole = gzip.compress(json.dumps({'records': [record(n) for n in range(50)]}).encode())
    two = gzip.compress(b'\n'.join(values(50, 10))) + gzip.compress(b'\n' + b'\n'.join(values(60, 10)))
    bomb = gzip.compress(b'[' + b' ' * (40 << 20) + b'1]')
    files = []
    for i, data in enumerate((whole, two, bomb, whole[:-20], gzip.compress(b''), json.dumps(record(70)).encode())):
        files.append(tmp_path / f'message-{i}')
        files[-1].write_bytes(data)
    produce_files(broker.bootstrap, 'gzip', *files[:5])
    produce(broker.bootstrap, 'gzip', [(b'key', b'')])
    produce_files(broker.bootstrap, 'gzip', files[5])
    daemon = penstock(hub(broker, 'gzip'), far_end.sink(**FAST)).start()
    wait_until(lambda: 70 in numbers(far_end), daemon=daemon)
    counters = stopped(daemon)
    assert [n for n in numbers(far_end) if n is not None] == list(range(71))
    assert total(counters, 'read') - total(counters, 'malformed') == 71 and total(counters, 'malformed') >= 2
    assert 'holds more than 16 MiB' in daemon.log_text() and broker.committed('group-gzip', 'gzip') == {0: 7}


def test_messages_larger_than_a_fetch_are_read_whole(broker, penstock, far_end_ids):
    """Envelopes of 5 MB in a topic that takes them; a record above record_max among their neighbours."""
    broker.create_topic('large', max_message_bytes=10_000_000)
    expected, messages = [], []
    for m in range(4):
        lines = [json.dumps(record(n, m, pad='x' * 900)) for n in range(5000)]
        if m == 2:
            lines[1234] = json.dumps(record(1234, m, pad='x' * 4_500_000))
            lines[2000:] = []
        messages.append(('{"records":[' + ','.join(lines) + ']}').encode())
        expected += [event_id(line.encode()) for line in lines if len(line) < 4 << 20]
    produce(broker.bootstrap, 'large', messages, message_max_bytes=10_000_000)
    daemon = penstock(hub(broker, 'large'), far_end_ids.sink(**FAST)).start()
    wait_until(lambda: far_end_ids.count() >= len(expected) + 1, 120, 'all of them', daemon)
    peak = daemon.memory()[1]
    counters = stopped(daemon)
    assert total(counters, 'read') == len(expected) + 1 and total(counters, 'oversize') == 1
    wanted = set(expected)
    assert [uid for uid in far_end_ids.uids() if uid in wanted] == expected
    assert peak < (64 + 16) << 20 or slower() > 1, "sanitizers have a memory of their own"


def test_aborted_transactions_are_left_out_and_their_offsets_are_no_news(broker, penstock, far_end):
    broker.create_topic('transactions')
    broker.produce_in_transaction('transactions', values(0, 20))
    broker.produce_in_transaction('transactions', values(20, 20), commit=False)
    broker.produce_in_transaction('transactions', values(40, 20))
    produce(broker.bootstrap, 'transactions', values(60, 20))
    daemon = penstock(hub(broker, 'transactions'), far_end.sink(**FAST)).start()
    wait_until(lambda: far_end.count() == 60, daemon=daemon)
    counters = stopped(daemon)
    assert (total(counters, 'missing'), total(counters, 'holes')) == (0, 20 + 3)     # each end of a transaction has an offset
    assert numbers(far_end) == list(range(20)) + list(range(40, 80))
    assert alarms(daemon) == [] and broker.committed('group-transactions', 'transactions') == {0: 83}


def test_what_compaction_took_is_not_missing(broker, penstock, far_end):
    broker.create_topic('compacted', cleanup_policy='compact', segment_ms=100, min_cleanable_dirty_ratio=0.01)
    produce(broker.bootstrap, 'compacted', [(b'%d' % (n % 10), value) for n, value in enumerate(values(0, 200))])
    produce(broker.bootstrap, 'compacted', [(b'10', value) for value in values(200, 1)])

    def compacted():                                 # all but the newest segment: a message more makes it an elder one
        produce(broker.bootstrap, 'compacted', [(b'11', json.dumps(record(201)).encode())])
        return len(broker.read_all('compacted')) < 50
    wait_until(compacted, 60, 'the compaction')
    produce(broker.bootstrap, 'compacted', [(b'12', json.dumps(record(202)).encode())])
    daemon = penstock(hub(broker, 'compacted'), far_end.sink(**FAST)).start()
    wait_until(lambda: 202 in numbers(far_end), daemon=daemon)
    counters = stopped(daemon)
    (end,) = broker.committed('group-compacted', 'compacted').values()
    assert set(numbers(far_end)) == {*range(190, 203)}
    assert total(counters, 'missing') == 0 and total(counters, 'holes') == end - far_end.count() >= 190
    assert alarms(daemon) == []


# ---- Settings ----------------------------------------------------------------------------------------------------

GUID = '00000000-0000-0000-0000-000000000000'


@pytest.mark.parametrize('keys, sentence', [
    ({'start': 'yesterday'}, 'expected earliest, latest or a time'),
    ({'mechanism': 'OAUTHBEARER', 'tenant': GUID, 'client': GUID}, 'tenant: an app needs a secret_file'),
    ({'mechanism': 'OAUTHBEARER', 'auth': 'secret', 'tenant': GUID, 'client': GUID}, 'secret_file: auth = secret needs it'),
    ({'mechanism': 'OAUTHBEARER', 'tenant': GUID, 'client': 'me', 'secret_file': '/nowhere'}, "the application's id"),
    ({'mechanism': 'OAUTHBEARER', 'tenant': GUID, 'client': GUID, 'secret_file': '/nowhere', 'security': 'plaintext'},
     'would show tokens'),
    ({'tenant': GUID}, 'are for mechanism = OAUTHBEARER'),
    ({'bootstrap': 'acme.servicebus.windows.net:9093'}, 'Event Hubs wants a login'),
    ({'kafka.auto.offset.reset': 'latest'}, 'use `start`'),
    ({'kafka.fetch.wait.max.ms': 'soon'}, 'fetch.wait.max.ms'),
])
def test_settings_that_cannot_work_are_refused_by_check(tmp_path, keys, sentence):
    base = {'type': 'event-hub', 'bootstrap': 'localhost:9093', 'topic': 'hub'}
    daemon = Penstock(tmp_path, ('source hub', {**base, **keys}),
                      ('sink siem', {'type': 'kafka', 'brokers': 'localhost:9092', 'topic': 'siem'}))
    done = daemon.command('check', '-c', daemon.config)
    assert done.returncode == 2 and sentence in done.stdout + done.stderr


# ---- Logins ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('login', ['connection string', 'PLAIN', 'SCRAM-SHA-512'])
def test_login_over_tls(broker, penstock, far_end, tmp_path, login):
    topic = 'login-' + login.replace(' ', '-')
    broker.create_topic(topic)
    produce(broker.bootstrap, topic, values(0, 100))
    file = secret(tmp_path, 'secret', CONNECTION_STRING if login == 'connection string' else broker.password)
    keys = {'connection_string_file': file} if login == 'connection string' else \
        {'username': broker.user, 'password_file': file, 'mechanism': login}
    if login != 'connection string':
        broker.let_read(topic, f'group-{topic}')
    daemon = penstock(hub(broker, topic, bootstrap=broker.bootstrap_sasl, ca_file=broker.ca, **keys),
                      far_end.sink(**FAST)).start()
    wait_until(lambda: far_end.count() == 100, daemon=daemon)
    stopped(daemon)
    assert numbers(far_end) == list(range(100)) and alarms(daemon) == []
    assert 'SharedAccessKey' not in daemon.log_text() and broker.password not in daemon.log_text()


@pytest.fixture(scope='module')
def guarded(tmp_path_factory):
    """Entra's stand-in, which signs its tokens, and a broker that verifies them, as Event Hubs does."""
    folder = tmp_path_factory.mktemp('guarded')
    sasl = 'listener.name.sasl_ssl.oauthbearer.'
    with FarEnd(folder / 'entra', '--sign', '--assertions', '--audience', 'https://localhost') as entra:
        try:
            kafka = Kafka(folder / 'kafka', {
                **AUTHORIZER, 'sasl.enabled.mechanisms': 'OAUTHBEARER',
                sasl + 'sasl.jaas.config': 'org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;',
                sasl + 'sasl.server.callback.handler.class':
                    'org.apache.kafka.common.security.oauthbearer.secured.OAuthBearerValidatorCallbackHandler',
                sasl + 'sasl.oauthbearer.jwks.endpoint.url': f'file://{folder}/entra/jwks.json',
                sasl + 'sasl.oauthbearer.expected.audience': 'https://localhost',
                sasl + 'connections.max.reauth.ms': '5000'})
            kafka.properties['super.users'] += f';User:{entra.address["client"]}'
            with kafka:
                authorities = folder / 'authorities.pem'
                authorities.write_text(kafka.ca.read_text() + (folder / 'entra' / 'ca.pem').read_text())
                kafka.login = {'ca_file': authorities, 'mechanism': 'OAUTHBEARER', 'tenant': entra.address['tenant'],
                               'client': entra.address['client'], 'secret_file': entra.address['secret_file'],
                               'authority': entra.address['endpoint']}
                yield kafka, entra
        except Unavailable as reason:
            missing(reason)


def test_tokens_of_entra_log_source_and_sink_in_and_are_renewed(guarded, penstock):
    """From a hub to another hub, by a secret here and a certificate there; the tokens live for seconds, and the broker asks for new
    ones on lines that are open."""
    broker, entra = guarded
    certified = {key: value for key, value in broker.login.items() if key != 'secret_file'}
    certified['certificate_file'] = entra.folder / 'client.pem'
    for topic in 'tokens', 'tokens-out':
        broker.create_topic(topic)
    entra.token(token_seconds=8)
    produce(broker.bootstrap, 'tokens', values(0, 100))
    daemon = penstock(hub(broker, 'tokens', bootstrap=broker.bootstrap_sasl, **broker.login),
                      siem(broker, 'tokens-out', **{'brokers': broker.bootstrap_sasl, **certified})).start()
    wait_until(lambda: total(daemon.counters(), 'delivered') == 100, 60, 'the first', daemon)
    issued = entra.state()['tokens_issued']
    wait_until(lambda: entra.state()['tokens_issued'] >= issued + 2, 60, 'new tokens', daemon)
    produce(broker.bootstrap, 'tokens', values(100, 100))
    wait_until(lambda: total(daemon.counters(), 'delivered') == 200, 60, 'the rest', daemon)
    stopped(daemon)
    assert [made['n'] for made in kept(broker.read_all('tokens-out'))] == list(range(200))
    assert alarms(daemon) == [] and 'eyJ' not in daemon.log_text()
    entra.token(token_seconds=3599)


def test_tokens_of_entra_log_check_online_in(guarded, tmp_path):
    broker, _ = guarded
    broker.create_topic('checked')
    source = hub(broker, 'checked', bootstrap=broker.bootstrap_sasl, **broker.login)
    wrong, good, _ = check(tmp_path, source, siem(broker, 'checked', **{'brokers': broker.bootstrap_sasl, **broker.login}),
                           words=['--send-test-record'])
    assert wrong == [] and good[:2] == ['the brokers let us in, and the topic checked has 1 partition'] * 2
    assert len(broker.read_all('checked')) == 1


@pytest.fixture
def shut_out(guarded, penstock):
    """A daemon whose client secret was replaced, and that has said so."""
    broker, entra = guarded
    for topic in 'rotated', 'rotated-out':
        with contextlib.suppress(RuntimeError):      # it is there
            broker.create_topic(topic)
    entra.rotate_secret(write=False)
    daemon = penstock(hub(broker, 'rotated', bootstrap=broker.bootstrap_sasl, **broker.login),
                      siem(broker, 'rotated-out')).start()
    wait_until(lambda: alarms(daemon), 60, 'the alarm', daemon)
    yield daemon
    entra.rotate_secret()


def test_a_wrong_client_secret_is_named(shut_out):
    assert 'the login is refused: check `tenant`' in alarms(shut_out)[0]['msg']
    assert 'AADSTS7000215' in alarms(shut_out)[0]['why']
    stopped(shut_out)
    assert len(alarms(shut_out)) == 1


@pytest.mark.long
def test_a_client_secret_that_is_put_right_is_taken_up(guarded, shut_out):
    broker, entra = guarded
    daemon = shut_out
    produce(broker.bootstrap, 'rotated', values(0, 10))
    entra.rotate_secret()
    wait_until(lambda: total(daemon.counters(), 'delivered') == 10, 150, 'them', daemon)
    stopped(daemon)
    assert len(alarms(daemon)) == 1


# ---- What a person must mend -------------------------------------------------------------------------------------

MISTAKES = {
    'wrong key': ({'password_file': 'wrong'}, 'the login is refused: renew the secret'),
    'no such topic': ({'topic': 'nowhere', 'group': 'group-nowhere'}, 'there is no such topic'),
    'no right to read the topic': ({'topic': 'mistakes-closed'}, 'no right to read `topic`'),
    'no right to use the group': ({'group': 'closed'}, 'no right to use `group`'),
    'unknown authority': ({'ca_file': None}, 'set `ca_file`'),
    'no TLS': ({'security': 'plaintext', 'username': None, 'password_file': None}, 'set `security`'),
    'TLS where there is none': ({'bootstrap': 'plain'}, 'set `security`'),
    'nobody there': ({'bootstrap': '127.0.0.1:1'}, 'no broker can be reached: mend `bootstrap`'),
    'no such name': ({'bootstrap': 'x' * 64 + ':9093'}, "a broker's name has no address"),     # too long to be asked for
}


@pytest.fixture(scope='module')
def mistakes(broker):
    broker.create_topic('mistakes')
    broker.create_topic('mistakes-closed')
    produce(broker.bootstrap, 'mistakes', values(0, 10))
    broker.let_read('mistakes', 'group-mistakes')
    return broker


def test_each_mistake_is_one_sentence_that_says_what_to_mend(mistakes, penstock, far_end, tmp_path):
    broker, daemons = mistakes, {}
    secrets = {name: secret(tmp_path, name, text) for name, text in (('right', broker.password), ('wrong', 'wr0ng-secret'))}
    broker.let_read('nowhere', 'group-nowhere')      # or it would not even be told that there is none
    for n, (mistake, (keys, _)) in enumerate(MISTAKES.items()):
        keys = {'topic': 'mistakes', 'group': f'group-mistakes-{n}', 'bootstrap': broker.bootstrap_sasl, 'ca_file': broker.ca,
                'username': broker.user, 'password_file': 'right', **keys}
        broker.let_read('mistakes', keys['group'] if keys['group'] != 'closed' else 'group-mistakes')
        keys['password_file'] = secrets.get(keys['password_file'])
        if keys['bootstrap'] == 'plain':
            keys['bootstrap'] = broker.bootstrap
        daemons[mistake] = penstock(hub(broker, **keys), far_end.sink(**FAST)).start()
    for mistake, daemon in daemons.items():
        wait_until(lambda: alarms(daemon), 60, f'the sentence about {mistake}', daemon)
    time.sleep(3)                                    # a second one would come by now
    for mistake, daemon in daemons.items():
        said = [alarm['msg'] for alarm in alarms(daemon)]
        assert [MISTAKES[mistake][1] in msg for msg in said] == [True], (mistake, said)
        assert 'wr0ng-secret' not in daemon.log_text()
        stopped(daemon)
    assert far_end.count() == 0


@pytest.mark.parametrize('shift', ['-30d', '+30d'])
def test_a_certificate_out_of_its_time_may_be_our_clock(broker, penstock, far_end, tmp_path, shift):
    stranger = Stranger(broker, tmp_path, shift)
    daemon = penstock(hub(broker, 'mistakes', bootstrap=f'localhost:{stranger.port}', ca_file=broker.ca, username=broker.user,
                          password_file=secret(tmp_path, 'right', broker.password)), far_end.sink(**FAST)).start()
    wait_until(lambda: alarms(daemon), 60, 'the sentence', daemon)
    stranger.listener.close()
    stopped(daemon)
    (alarm,) = alarms(daemon)
    assert "this machine's clock is wrong" in alarm['msg'] and 'certificate' in alarm['why']


@pytest.mark.long
def test_a_key_that_is_put_right_is_taken_up_without_a_restart(mistakes, penstock, far_end, tmp_path):
    broker, password = mistakes, secret(tmp_path, 'password', 'wrong')
    daemon = penstock(hub(broker, 'mistakes', bootstrap=broker.bootstrap_sasl, ca_file=broker.ca, username=broker.user,
                          password_file=password), far_end.sink(**FAST)).start()
    wait_until(lambda: alarms(daemon), 60, 'the alarm', daemon)
    password.write_text(broker.password)
    wait_until(lambda: far_end.count() == 10, 120, 'them', daemon)
    stopped(daemon)
    assert len(alarms(daemon)) == 1


# ---- Where it begins ---------------------------------------------------------------------------------------------

def test_latest_begins_where_the_group_was_born_even_after_a_crash(broker, penstock, far_end):
    """kill -9 before the first message: what came in between is not skipped by a second, later `latest`."""
    broker.create_topic('latest')
    produce(broker.bootstrap, 'latest', values(0, 20))
    daemon = penstock(hub(broker, 'latest', start='latest'), far_end.sink(**FAST)).start()
    wait_until(lambda: broker.committed('group-latest', 'latest')[0] is not None, 60, 'the place', daemon)
    daemon.kill()
    produce(broker.bootstrap, 'latest', values(20, 20))
    daemon.start()
    wait_until(lambda: far_end.count() >= 20, 60, 'what came after', daemon)
    stopped(daemon)
    assert numbers(far_end) == list(range(20, 40))


def test_a_time_begins_with_the_first_message_of_that_time(broker, penstock, far_end):
    broker.create_topic('time')
    produce(broker.bootstrap, 'time', values(0, 20))
    time.sleep(1.1)
    start = time.time()
    time.sleep(1.1)
    produce(broker.bootstrap, 'time', values(20, 20))
    daemon = penstock(hub(broker, 'time', start=time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(start))),
                      far_end.sink(**FAST)).start()
    wait_until(lambda: far_end.count() >= 20, 60, 'what came after', daemon)
    stopped(daemon)
    assert numbers(far_end) == list(range(20, 40))


def test_a_group_that_was_forgotten_goes_on_from_the_daemons_own_cursor(broker, penstock, far_end):
    """With start = latest, too: what came while the daemon was away is read."""
    broker.create_topic('forgotten')
    produce(broker.bootstrap, 'forgotten', values(0, 20))
    daemon = penstock(hub(broker, 'forgotten'), far_end.sink(**FAST)).start()
    wait_until(lambda: far_end.count() == 20, daemon=daemon)
    stopped(daemon)
    broker.forget_group('group-forgotten')
    assert broker.committed('group-forgotten', 'forgotten') == {0: None}
    produce(broker.bootstrap, 'forgotten', values(20, 20))
    daemon.configure(hub(broker, 'forgotten', start='latest'), far_end.sink(**FAST))
    daemon.start()
    wait_until(lambda: far_end.count() >= 40, daemon=daemon)
    stopped(daemon)
    assert numbers(far_end) == list(range(40))


@pytest.mark.parametrize('running', [False, True])
def test_a_topic_made_anew_is_named_and_read_from_its_beginning(broker, penstock, far_end, running):
    topic = f'anew-{running}'
    broker.create_topic(topic)
    produce(broker.bootstrap, topic, values(0, 50))
    daemon = penstock(hub(broker, topic), far_end.sink(**FAST)).start()
    wait_until(lambda: far_end.count() == 50, daemon=daemon)
    wait_until(lambda: broker.committed(f'group-{topic}', topic) == {0: 50}, daemon=daemon)
    if not running:
        stopped(daemon)
    broker.delete_topic(topic)

    def make_again():
        with contextlib.suppress(RuntimeError):      # the old one takes its time to go
            broker.create_topic(topic)
            return True
    wait_until(make_again, 60, 'the topic to be made again')
    produce(broker.bootstrap, topic, values(50, 10))
    if not running:
        daemon.start()
    wait_until(lambda: far_end.count() >= 60, 60, 'the new messages', daemon)
    stopped(daemon)
    assert numbers(far_end) == list(range(60))
    # Deleting a topic makes brokers forget its offsets: then our own cursor tells.
    assert any('made again' in alarm['msg'] for alarm in alarms(daemon)), daemon.log_tail()


def test_messages_deleted_before_they_were_read_are_named_and_counted(broker, penstock, far_end):
    broker.create_topic('retention')
    produce(broker.bootstrap, 'retention', values(0, 50))
    daemon = penstock(hub(broker, 'retention'), far_end.sink(**FAST)).start()
    wait_until(lambda: far_end.count() == 50, daemon=daemon)
    stopped(daemon)
    produce(broker.bootstrap, 'retention', values(50, 50))
    broker.delete_records('retention', 80)
    daemon.start()
    wait_until(lambda: far_end.count() >= 70, 60, 'what is left', daemon)
    stopped(daemon)
    assert numbers(far_end) == list(range(50)) + list(range(80, 100))
    assert ['messages were deleted' in alarm['msg'] for alarm in alarms(daemon)] == [True]
    assert 'missing=30 ' in daemon.log_text()


# ---- Far ends and brokers that fail ------------------------------------------------------------------------------

@pytest.mark.plain
def test_a_stalled_far_end_pauses_the_source_and_keeps_the_group(broker, penstock, far_end_ids):
    """Nothing is taken for longer than a consumer may be silent: memory stays, the member stays, nothing is committed that is
    not safe, and afterwards nothing comes twice."""
    broker.create_topic('stalled', partitions=4)
    count = 60000
    for partition in range(4):
        produce(broker.bootstrap, 'stalled', [json.dumps({'records': [record(n, partition, pad='x' * 700)
                for n in range(first, first + 10)]}).encode() for first in range(0, count // 4, 10)], partition)
    far_end_ids.fault(do='hang')
    daemon = penstock(hub(broker, 'stalled', kafka__max__poll__interval__ms='6000'),
                      far_end_ids.sink(timeout='90s', **{**FAST, 'spool_max': '2M'}), memory='24M').start()
    wait_until(lambda: daemon.counters()[(None, None)]['flow'] == 'paused', 60, 'the pause', daemon)
    since = time.monotonic()
    while time.monotonic() < since + 12:             # twice as long
        assert daemon.exited() is None
        behind = total(daemon.counters(), 'behind')
        time.sleep(0.5)
    assert behind > 0 and daemon.memory()[1] < (24 + 16) << 20
    committed = broker.committed('group-stalled', 'stalled', 4)
    counters = daemon.counters()
    safe = total(counters, 'delivered') + total(counters, 'spooled')
    assert 10 * sum(offset or 0 for offset in committed.values()) <= safe
    far_end_ids.clear()
    wait_until(lambda: far_end_ids.distinct() == count, 120, 'all of them', daemon)
    text = daemon.log_text()
    assert 'MAXPOLL' not in text and 'taken from us' not in text
    stopped(daemon)
    assert far_end_ids.count() - far_end_ids.distinct() <= 2000, 'the one post whose answer never came'


@pytest.mark.plain
@pytest.mark.parametrize('per_message', [1, 100])
def test_two_hundred_partitions_stay_within_the_budget(broker, penstock, far_end_ids, per_message):
    """All of them full when the daemon comes: 40 MB, in many small messages or in fewer large ones."""
    topic, count, size = f'wide-{per_message}', 40_000, 1000
    broker.create_topic(topic, partitions=200)
    lines = [json.dumps(record(n, pad='x' * size)) for n in range(count)]
    produce(broker.bootstrap, topic, ['\n'.join(lines[n:n + per_message]).encode() for n in range(0, count, per_message)],
            partitioner='random', sticky_partitioning_linger_ms=0)
    daemon = penstock(hub(broker, topic), far_end_ids.sink(**FAST)).start()
    wait_until(lambda: far_end_ids.distinct() == count, 120, 'all of them', daemon)
    assert total(daemon.counters(), 'partitions') == 200
    peak = daemon.memory()[1]
    print(f'{per_message} records a message: at most {peak >> 20} MiB')
    stopped(daemon)
    assert far_end_ids.count() == count and peak < (64 + 16) << 20


@pytest.mark.parametrize('how', ['down', 'frozen'])
def test_a_stop_does_not_wait_for_brokers_that_do_not_answer(broker, penstock, far_end, how):
    topic = f'stop-{how}'
    broker.create_topic(topic)
    produce(broker.bootstrap, topic, values(0, 50))
    # It cannot leave its group: who comes next waits for the session's end.
    daemon = penstock(hub(broker, topic, kafka__session__timeout__ms='2000'), far_end.sink(**FAST)).start()
    wait_until(lambda: far_end.count() == 50, daemon=daemon)
    (broker.stop if how == 'down' else broker.freeze)()
    try:
        since = time.monotonic()
        stopped(daemon, 30)
        assert time.monotonic() - since < 20 * slower()
    finally:
        (broker.start if how == 'down' else broker.thaw)()
    daemon.start()
    produce(broker.bootstrap, topic, values(50, 50))
    wait_until(lambda: max(numbers(far_end)) == 99, 60, 'the rest', daemon)
    stopped(daemon)
    assert firsts(numbers(far_end)) == list(range(100))


# ---- Scaling out -------------------------------------------------------------------------------------------------

def write_streams(broker, topic, first, last, streams, per_message):
    """Records first to last of each of the streams, each stream in one partition, in messages of `per_message`."""
    messages = []
    for first in range(first, last, per_message):
        for stream in range(streams):
            messages.append((b'%d' % stream, json.dumps({'records': [
                record(n, stream) for n in range(first, first + per_message)]}).encode()))
    produce(broker.bootstrap, topic, messages)


def done(broker, topic, partitions):
    """How many messages the group has behind it."""
    return sum(offset or 0 for offset in broker.committed(f'group-{topic}', topic, partitions).values())


def assert_streams(broker, topic, streams, each):
    """All records of every stream, in order by first arrival; the same record has the same id. Returns how many came twice."""
    arrived, ids = collections.defaultdict(list), {}
    read = broker.read_all(topic)
    places = {}
    for partition, _, key, value in read:
        event = json.loads(value)
        made = json.loads(event['raw_data'])
        assert places.setdefault(key, partition) == partition
        assert ids.setdefault((made['stream'], made['n']), event['metadata']['uid']) == event['metadata']['uid']
        arrived[made['stream']].append(made['n'])
    assert sorted(arrived) == list(range(streams))
    for stream, seen in arrived.items():
        assert firsts(seen) == list(range(each)), f'stream {stream}: {len(set(seen))} of {each}'
    assert len(set(ids.values())) == len(ids)
    return len(read) - streams * each


@pytest.mark.plain
def test_three_daemons_share_a_group_while_one_dies_one_comes_and_the_broker_restarts(broker, penstock):
    """300,000 records. Every partition's records arrive, in order, whoever has the partition. (What a daemon has spooled is
    safe, and is its own to deliver, later than what follows it elsewhere: here nobody spools.)"""
    count, streams = 300_000, 24
    each = count // streams
    broker.create_topic('group', partitions=12)
    broker.create_topic('group-out', partitions=4)
    write_streams(broker, 'group', 0, each // 2, streams, 25)
    sink = siem(broker, 'group-out', spool_after='10m')
    daemons = [penstock(hub(broker, 'group'), sink).start() for _ in range(3)]

    def delivered():
        return sum(total(daemon.counters(), 'delivered') for daemon in daemons if daemon.running())
    wait_until(lambda: all(total(daemon.counters(), 'partitions') > 0 for daemon in daemons), 60, 'each to have partitions')
    wait_until(lambda: delivered() > count // 10, 60, 'some of them')
    daemons[0].kill()
    daemons.append(penstock(hub(broker, 'group'), sink).start())
    write_streams(broker, 'group', each // 2, each, streams, 25)
    wait_until(lambda: total(daemons[3].counters(), 'partitions') > 0, 60, 'the new one to have partitions')
    broker.restart(kill=True)

    wait_until(lambda: done(broker, 'group', 12) == count // 25, 180, 'all to be safe', daemons[1])
    for daemon in daemons[1:]:
        stopped(daemon)
        assert alarms(daemon) == []
    repeated = assert_streams(broker, 'group-out', streams, each)
    reliability.note('event hub: three daemons, one killed, one added, the broker restarted', records=count, delivered=count,
                     lost=0, repeated=repeated, reordered=0, dead=0)


def test_files_come_through_a_topic_with_the_ids_they_would_have_had(broker, penstock, far_end_ids, tmp_path):
    """Files to Kafka as they are, from there by two daemons of a group to Sentinel: the README's way to more machines."""
    broker.create_topic('middle', partitions=4)
    logs = tmp_path / 'logs'
    logs.mkdir()
    for seed in range(6):
        (write_activity if seed % 2 else write_nsg)(logs / f'{seed}.json', 400, seed=seed)
    source = 'source files', {'type': 'file', 'path': f'{logs}/*.json'}
    bringer = penstock(source, siem(broker, 'middle', schema='raw', **{'kafka.compression.codec': 'lz4'}))
    takers = [penstock(hub(broker, 'middle'), far_end_ids.sink(**FAST)).start() for _ in range(2)]
    wait_until(lambda: all(total(taker.counters(), 'partitions') == 2 for taker in takers), 60, 'both to have their share')
    bringer.start()
    wait_until(lambda: total(bringer.counters(), 'delivered') == 2400, 60, 'the topic to hold them', bringer)
    stopped(bringer)

    def taken():
        counters = [taker.counters() for taker in takers]
        return sum(total(c, 'read') for c in counters) == 2400 and \
            sum(total(c, 'delivered') for c in counters) == sum(total(c, 'events') for c in counters)
    wait_until(taken, 60, 'them to be delivered')
    for taker in takers:
        assert total(taker.counters(), 'partitions') > 0
        stopped(taker)
    through = far_end_ids.uids()
    direct = penstock(source, far_end_ids.sink(**FAST)).start()
    wait_until(lambda: far_end_ids.count() >= 2 * len(through), 60, 'them once more', direct)
    stopped(direct)
    assert len(set(through)) == len(through) and sorted(far_end_ids.uids()[len(through):]) == sorted(through)


@pytest.mark.long
def test_fifty_kills_lose_nothing(broker, penstock):
    """kill -9 at any moment of a life: while joining, locating, reading, committing."""
    kills, streams, each, rnd = 50, 8, 10_000, random.Random(50)
    broker.create_topic('kills', partitions=4)
    broker.create_topic('kills-out', partitions=4)
    daemon = penstock(hub(broker, 'kills', kafka__session__timeout__ms='1000', kafka__heartbeat__interval__ms='200'),
                      siem(broker, 'kills-out'), cursor_save='100ms')
    for kill in range(kills):
        there = each * (kill + 1) // kills
        write_streams(broker, 'kills', each * kill // kills, there, streams, 20)
        daemon.start()
        enough = rnd.choice((0, 0, 1, 500, 2000))
        wait_until(lambda: total(daemon.counters(), 'delivered') >= enough or done(broker, 'kills', 4) == there * streams // 20,
                   60, 'some of them', daemon)
        time.sleep(rnd.random())
        daemon.kill()
    daemon.start()
    wait_until(lambda: total(daemon.counters(), 'partitions') == 4, 60, 'its partitions', daemon)
    wait_until(lambda: done(broker, 'kills', 4) == each * streams // 20, 120, 'all to be safe', daemon)
    wait_until(lambda: all(total(daemon.counters(), place) == 0 for place in ('held', 'spooled')), 60, 'the rest', daemon)
    stopped(daemon)
    repeated = assert_streams(broker, 'kills-out', streams, each)
    reliability.note('event hub: kill -9', records=each * streams, delivered=each * streams, lost=0, repeated=repeated,
                     reordered=0, dead=0, runs=kills)
