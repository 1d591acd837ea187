"""Promise: `penstock check --online` also asks containers, event hubs and topics: it lists, it looks, and it makes nothing."""
import os
import re
import secrets
import subprocess

import pytest
from azurite import KEY
from penstock import binary, write_config

BROKER = {'auto.create.topics.enable': 'true'}     # it makes topics when asked for them: we must not ask like that


def check(tmp_path, *sections, words=()):
    (tmp_path / 'state').mkdir(exist_ok=True)
    conf = write_config(tmp_path / 'penstock.conf', ('daemon', {'state_dir': tmp_path / 'state'}), *sections)
    done = subprocess.run([binary(), 'check', '--online', '-c', conf, *words], capture_output=True, text=True, timeout=120,
                          env={**os.environ, 'NO_PROXY': '127.0.0.1'})
    found = [re.fullmatch(r'(good|unknown|wrong) +(source|sink) \w+: (.+)', line).groups() for line in done.stdout.splitlines()[:-1]]
    wrong = [sentence for word, _, sentence in found if word == 'wrong']
    assert done.returncode == (1 if wrong else 0), done.stdout + done.stderr
    return wrong, [sentence for word, kind, sentence in found if word == 'good' and 'spool' not in sentence], done


# ---- Containers, at a real Azurite ----

@pytest.mark.sanitize
def test_a_container_is_listed_and_read(azurite, far_end, tmp_path):
    container = azurite.container(f'logs-{secrets.token_hex(4)}')
    source = azurite.source(container.container_name, key_file=azurite.secret(KEY))
    assert 'the container can be listed, and holds nothing to read yet' in check(tmp_path, source, far_end.sink())[1]
    container.upload_blob('any', b'{}')
    wrong, good, _ = check(tmp_path, source, far_end.sink())
    assert wrong == [] and 'the container can be listed and read' in good


@pytest.mark.parametrize('rights, name, sentence', [
    ('r', '', 'does not allow both read and list'), ('l', '', 'does not allow both read and list'),
    ('rl', '-not', 'there is no such container'),
])
def test_what_stands_in_the_way_of_a_container_is_named(azurite, far_end, tmp_path, rights, name, sentence):
    container = azurite.container(f'logs-{secrets.token_hex(4)}')
    container.upload_blob('any', b'{}')
    name = container.container_name + name
    source = azurite.source(name, auth='sas', sas_file=azurite.secret('?' + azurite.sas(name, rights)))
    (wrong,), good, _ = check(tmp_path, source, far_end.sink())
    assert sentence in wrong and not any('container' in said for said in good)


# ---- Topics, at a real Kafka ----

def ends(broker, topic, tmp_path, password=None, **more):
    """The same broker, to read from and to deliver to, over TLS with a login."""
    secret = tmp_path / 'password'
    secret.write_text(password or broker.password)
    secret.chmod(0o600)
    keys = {'topic': topic, 'ca_file': broker.ca, 'username': broker.user, 'password_file': secret, **more}
    keys = {key: value for key, value in keys.items() if value is not None}
    return (('source hub', {'type': 'event-hub', 'bootstrap': broker.bootstrap_sasl, 'group': 'any', **keys}),
            ('sink siem', {'type': 'kafka', 'schema': 'ocsf', 'brokers': broker.bootstrap_sasl, **keys}))


@pytest.mark.sanitize
@pytest.mark.kafka
def test_a_topic_is_looked_at_and_nothing_is_sent(broker, tmp_path):
    broker.create_topic('looked', 3)
    wrong, good, _ = check(tmp_path, *ends(broker, 'looked', tmp_path))
    assert wrong == [] and good == ['the brokers let us in, and the topic looked has 3 partitions'] * 2
    assert broker.read_all('looked') == []


@pytest.mark.sanitize
@pytest.mark.kafka
def test_a_test_record_is_sent_where_it_was_asked_for(broker, tmp_path):
    broker.create_topic('tested')
    wrong, good, _ = check(tmp_path, *ends(broker, 'tested', tmp_path), words=['--send-test-record'])
    assert wrong == [] and good[-1] == 'the test record was taken by the topic tested'
    (message,) = broker.read_all('tested')
    assert 'test record' in str(message)


@pytest.mark.kafka
@pytest.mark.parametrize('keys, sentence', [
    ({'topic': 'nowhere'}, 'there is no such topic: create it'),
    ({'password': 'wr0ng-secret'}, 'the login is refused'),
    ({'ca_file': None}, 'TLS fails: check security, ca_file'),
])
def test_what_stands_in_the_way_of_a_topic_is_named(broker, tmp_path, keys, sentence):
    """Twice: the asking must not make the topic."""
    for _ in range(2):
        wrong, good, done = check(tmp_path, *ends(broker, tmp_path=tmp_path, **{'topic': 'any', **keys}))
        assert len(wrong) == 2 and all(sentence in said for said in wrong) and good == [], wrong
        assert 'wr0ng-secret' not in done.stdout + done.stderr


@pytest.mark.sanitize
@pytest.mark.kafka
def test_brokers_that_are_not_there(tmp_path):
    wrong, _, _ = check(tmp_path, ('source files', {'type': 'file', 'path': f'{tmp_path}/*.json'}),
                        ('sink nowhere', {'type': 'kafka', 'brokers': '127.0.0.1:1', 'topic': 't'}))
    assert len(wrong) == 1 and "check the brokers' addresses, security and the firewall" in wrong[0], wrong


def test_a_name_that_no_topic_can_have(tmp_path):
    """Refused by the client, before a broker is asked."""
    wrong, _, done = check(tmp_path, ('source files', {'type': 'file', 'path': f'{tmp_path}/*.json'}),
                           ('sink siem', {'type': 'kafka', 'brokers': '127.0.0.1:1', 'topic': 'n' * 600}))
    assert done.returncode == 1 and len(wrong) == 1 and 'there is no such topic' in wrong[0], wrong
