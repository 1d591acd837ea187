"""Recipes of docs/cookbook.md as they stand there, run: but for addresses, authorities and secrets, which are the test's. What can be
had here is a Kafka with the services' own protocols, and the stand-in for Sentinel behind a proxy that takes CONNECT alone."""
import configparser
import re
import select
import socket
import socketserver
import threading

import pytest
from penstock import ROOT, wait_until
from records import write_activity

COOKBOOK = (ROOT / 'docs' / 'cookbook.md').read_text()


def recipe(heading, **changes):
    """The sections below a heading, as Penstock() takes them; `changes` are values by key, None takes a key out."""
    text = re.search(rf'^## {heading}$(.*?)(?=^## |\Z)', COOKBOOK, re.M | re.S)[1]
    text = re.search(r'(?:^    \[(?:source|sink) .*\n(?:(?:    .*)?\n)+)', text, re.M)[0]
    read = configparser.ConfigParser(delimiters='=', interpolation=None)
    read.optionxform = str
    read.read_string(re.sub(r'^ +', '', text, flags=re.M))
    return [(name, {key: changes.get(key, value) for key, value in read[name].items() if changes.get(key, value) is not None})
            for name in read.sections()]


@pytest.fixture
def logs(tmp_path):
    (tmp_path / 'logs').mkdir()
    return tmp_path / 'logs' / 'PT1H.json', write_activity(tmp_path / 'logs' / 'PT1H.json', records=20)


@pytest.mark.kafka
@pytest.mark.parametrize('heading', ['Confluent Cloud', 'Amazon MSK'])
def test_a_kafka_with_a_login(heading, broker, penstock, tmp_path, logs):
    path, made = logs
    topic = heading.split()[0].lower()
    broker.create_topic(topic)
    secret = tmp_path / 'password'
    secret.touch(0o600)
    secret.write_text(broker.password)
    (source, sink) = recipe(heading, path=path, brokers=broker.bootstrap_sasl, topic=topic, username=broker.user, password_file=secret)
    sink[1]['ca_file'] = broker.ca
    assert sink[1]['mechanism'] == {'Confluent Cloud': 'PLAIN', 'Amazon MSK': 'SCRAM-SHA-512'}[heading]
    daemon = penstock(source, sink).start()
    wait_until(lambda: len(broker.read_all(topic)) == made.events, 60, 'the events', daemon)
    assert daemon.stop() == 0


# ---- Behind a proxy ----

class Tunnel(socketserver.StreamRequestHandler):
    """CONNECT, and nothing else."""

    def handle(self):
        method, target, _ = self.rfile.readline().decode().split()
        while self.rfile.readline().strip():
            pass
        self.server.asked.append((method, target))
        if method != 'CONNECT':
            self.wfile.write(b'HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n')
            return
        with socket.create_connection(('127.0.0.1', self.server.far_port), 30) as far:
            self.wfile.write(b'HTTP/1.1 200 Connection established\r\n\r\n')
            ends = {self.connection: far, far: self.connection}
            while True:
                for end in select.select(list(ends), [], [])[0]:
                    data = end.recv(65536)
                    if not data:
                        return
                    ends[end].sendall(data)


@pytest.fixture
def proxy():
    socketserver.ThreadingTCPServer.daemon_threads = True
    with socketserver.ThreadingTCPServer(('127.0.0.1', 0), Tunnel) as server:
        server.asked = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.plain
def test_everything_goes_through_the_proxy(far_end, proxy, penstock, logs):
    """Tokens and posts, by CONNECT alone: the address that they go to leads nowhere without the proxy."""
    path, made = logs
    proxy.far_port = int(far_end.address['endpoint'].rsplit(':', 1)[1])
    nowhere = 'https://127.0.0.1:1'
    at = f'http://127.0.0.1:{proxy.server_address[1]}'
    changes = {key: far_end.address[key] for key in ('dcr', 'tenant', 'client', 'secret_file', 'ca_file')}
    _, sink = recipe('Behind a proxy, or with no way out but one', proxy=at, endpoint=nowhere, **changes)
    assert sink[1]['proxy'] == at and sink[1]['ca_file'] == far_end.address['ca_file']
    daemon = penstock(('source activity', {'type': 'file', 'path': path}),
                      (sink[0], {**sink[1], 'authority': nowhere})).start()
    wait_until(lambda: far_end.count() == made.events, daemon=daemon)
    assert daemon.stop() == 0
    assert set(proxy.asked) == {('CONNECT', '127.0.0.1:1')}
