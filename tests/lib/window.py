"""The daemon seen through its port and its socket: status.json, metrics, health.

    daemon = penstock(…, listen='127.0.0.1:0').start()
    window = Window(daemon)
    assert window.get('/readyz').status == 200
    assert window.metrics()['penstock_records_read_total', 'logs'] == 100
"""
import http.client
import json
import re
import socket
from collections import namedtuple

from penstock import parse_line, wait_until

Answer = namedtuple('Answer', 'status headers text')

SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)')
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__('localhost', timeout=30)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Window:
    def __init__(self, daemon, wait=True):
        self.daemon = daemon
        self.url = wait_until(self._logged, 20, 'the port to be open', daemon) if wait else None
        self.socket = daemon.state_dir / 'status.sock'

    def _logged(self):
        found = [parse_line(line)['url'] for line in self.daemon.log_text().splitlines() if 'status page and metrics' in line
                 and 'url=' in line]
        return found[-1] if found else None

    @property
    def port(self):
        return int(self.url.rstrip('/').rsplit(':', 1)[1])

    def get(self, path, method='GET', body=None, by_socket=False, **headers):
        """One request; headers with '_' for '-'. host=None leaves none out: that of the port."""
        connection = UnixConnection(self.socket) if by_socket else http.client.HTTPConnection('127.0.0.1', self.port, timeout=30)
        try:
            connection.request(method, path, body, {name.replace('_', '-'): value for name, value in headers.items()})
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read().decode())
        finally:
            connection.close()

    def json(self):
        answer = self.get('/status.json')
        assert answer.status == 200
        return json.loads(answer.text)

    def sink(self, name):
        return next(sink for sink in self.json()['sinks'] if sink['name'] == name)

    def metrics(self):
        """{(name, label's values …): value}, and {name: type} beside it."""
        return parse_metrics(self.get('/metrics').text)


def parse_metrics(text):
    """{(name, values of its labels in their order …): number}."""
    found = {}
    for line in text.splitlines():
        if line.startswith('#') or not line:
            continue
        name, labels, value = SAMPLE.fullmatch(line).groups()
        key = (name, *(value for _, value in LABEL.findall(labels or '')))
        assert key not in found, f'{key} is there twice'
        found[key] = float(value)
    return found


def metric_heads(text):
    """{name: type} of every metric that has a head, in order."""
    return dict(re.findall(r'^# TYPE (\S+) (\S+)$', text, re.M))
