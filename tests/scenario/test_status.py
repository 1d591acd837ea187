"""What the daemon does can be seen: metrics that add up and are explained, health that fails when data stops, `status` and
`top` for people. And looking is all that anybody can do: the port takes no orders, wastes nothing, and tells no secrets."""
import contextlib
import fcntl
import json
import os
import re
import select
import shutil
import socket
import struct
import subprocess
import termios
import time

import pytest

from penstock import ROOT, binary, environment, slower, total, wait_until
from records import write_activity
from window import Window, metric_heads, parse_metrics

FAST = {'flush': '100ms', 'spool_after': '200ms', 'retry_min': '50ms', 'retry_max': '300ms'}
NOWHERE = {'type': 'kafka', 'brokers': '127.0.0.1:1', 'topic': 't', 'timeout': '1s', **FAST}
PORT = {'listen': '127.0.0.1:0'}

pytestmark = pytest.mark.kafka


@pytest.fixture
def logs(tmp_path):
    folder = tmp_path / 'logs'
    folder.mkdir()
    return folder


def files(folder, name='logs', **more):
    return f'source {name}', {'type': 'file', 'path': f'{folder}/*.json', **more}


def secret(folder, name, text):
    path = folder / name
    path.write_text(text)
    path.chmod(0o600)
    return path


# ---- Numbers ----

def test_numbers_add_up_and_promtool_takes_them(logs, far_end, penstock, promtool):
    """Of each source and sink: taken = delivered + dead + dropped + held + spooled, in the metrics as in the log."""
    write_activity(logs / 'a.json', 300, seed=1)
    daemon = penstock(files(logs), far_end.sink(**FAST), ('sink siem', NOWHERE), ('sink none', {**NOWHERE, 'events': 'alert'}),
                      **PORT).start()
    window = Window(daemon)
    wait_until(lambda: window.sink('sentinel')['delivered'] == window.sink('siem')['spooled'] == 300, daemon=daemon, what='300 here and there')
    text = window.get('/metrics').text
    metrics = parse_metrics(text)
    places = ('penstock_messages_delivered_total', 'penstock_messages_dead_total', 'penstock_messages_dropped_total',
              'penstock_messages_held', 'penstock_messages_spooled')
    for sink in ('sentinel', 'siem', 'none'):
        assert metrics['penstock_messages_taken_total', 'logs', sink] == sum(metrics[place, 'logs', sink] for place in places) == 300
    assert metrics['penstock_messages_delivered_total', 'logs', 'sentinel'] == 300
    assert metrics['penstock_messages_dropped_total', 'logs', 'none'] == 300
    assert metrics['penstock_records_read_total', 'logs'] == 300
    assert metrics['penstock_source_read_bytes_total', 'logs'] == (logs / 'a.json').stat().st_size
    assert metrics['penstock_source_behind_bytes', 'logs'] == 0
    assert metrics['penstock_spool_bytes', 'siem'] > 0
    assert metrics['penstock_sink_token_life_seconds', 'sentinel'] > 60
    assert ('penstock_sink_token_life_seconds', 'siem') not in metrics       # it needs none
    assert ('penstock_source_token_life_seconds', 'logs') not in metrics     # nor does it
    assert abs(metrics['process_start_time_seconds',] - time.time()) < 600
    assert 10 < metrics['process_open_fds',] < metrics['process_max_fds',]
    answers = {key[2:]: value for key, value in metrics.items() if key[:2] == ('penstock_sink_answers_total', 'sentinel')}
    assert list(answers) == [('204', 'delivered')] and sum(answers.values()) == metrics['penstock_sink_batches_total', 'sentinel']
    checked = promtool('check', 'metrics', input=text)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, '')
    counters = daemon.counters()
    assert counters['logs', 'siem']['spooled'] == 300 and total(counters, 'delivered', sink='sentinel') == 300


def test_retries_are_counted_by_status(logs, far_end, penstock):
    write_activity(logs / 'a.json', 20, seed=1)
    far_end.fault(do='status', status=503, count=2)
    far_end.fault(do='status', status=429, count=1)
    window = Window(penstock(files(logs), far_end.sink(**FAST), **PORT).start())
    wait_until(lambda: far_end.count() == 20, daemon=window.daemon)
    metrics = wait_until(lambda: (found := window.metrics()).get(('penstock_messages_held', 'logs', 'sentinel')) == 0 and found,
                         daemon=window.daemon)
    assert metrics['penstock_sink_answers_total', 'sentinel', '503', 'retry'] == 2
    assert metrics['penstock_sink_answers_total', 'sentinel', '429', 'retry'] == 1


def test_every_metric_is_explained(logs, tmp_path, penstock):
    """conf/metrics.md is what the program writes, and names all that it serves, whatever the sources are, and nothing else."""
    page = (ROOT / 'conf' / 'metrics.md').read_text()
    written = subprocess.run([binary(), 'version', '--metrics'], capture_output=True, text=True, timeout=30, check=True)
    assert written.stdout == page, 'run conf/manual-update PENSTOCK'
    daemon = penstock(files(logs),
                      ('source hub', {'type': 'kafka', 'bootstrap': '127.0.0.1:1', 'topic': 't', 'group': 'g'}),
                      ('source blobs', {'type': 'azure-blob', 'container': 'https://127.0.0.1:1/account/container', 'auth': 'sas',
                                        'sas_file': secret(tmp_path, 'sas', '?sv=2024&sp=rl&sig=x')}),
                      ('sink siem', NOWHERE), **PORT).start()
    text = Window(daemon).get('/metrics').text
    assert sorted(metric_heads(text)) == sorted(re.findall(r'^\| `(\w+)`', page, re.M))


# ---- Health ----

def test_an_idle_daemon_is_ready(logs, far_end, penstock):
    """Nothing to do, and the begun line at a file's end, are no reason to wake anybody."""
    write_activity(logs / 'a.json', 5, seed=1)
    with open(logs / 'a.json', 'a') as file:
        file.write('{"time":')
    window = Window(penstock(files(logs), far_end.sink(**FAST), stalled_after='1s', **PORT).start())
    wait_until(lambda: window.sink('sentinel')['delivered'] == 5, daemon=window.daemon)
    end = time.monotonic() + 4
    while time.monotonic() < end:
        assert window.get('/readyz')[::2] == (200, 'ok\n')
        assert window.get('/healthz').status == 200
        time.sleep(0.3)
    assert window.json()['ready'] and window.metrics()['penstock_ready',] == 1


def test_a_sink_that_is_away_is_not_ready_until_it_is_back(logs, far_end, penstock):
    write_activity(logs / 'a.json', 50, seed=1)
    far_end.fault(do='status', status=503, count=-1)
    window = Window(penstock(files(logs), far_end.sink(**FAST), stalled_after='1s', **PORT).start())
    answer = wait_until(lambda: (got := window.get('/readyz')).status == 503 and got, daemon=window.daemon, what='503')
    assert re.fullmatch(r'sink sentinel: nothing was delivered for \d+ s although 50 messages wait\n', answer.text)
    assert window.get('/healthz').status == 200
    sink = window.sink('sentinel')
    assert sink['mood'] in ('warn', 'bad') and sink['trouble'].startswith('status 503') and sink['stalled_ms'] >= 1000
    assert window.metrics()['penstock_ready',] == 0
    far_end.clear()
    wait_until(lambda: window.get('/readyz').status == 200, daemon=window.daemon, what='200 again')
    wait_until(lambda: window.sink('sentinel')['trouble'] is None, daemon=window.daemon)
    assert far_end.count() == 50


def test_a_full_spool_is_not_ready(logs, penstock):
    write_activity(logs / 'a.json', 4000, seed=1)
    window = Window(penstock(files(logs), ('sink siem', {**NOWHERE, 'schema': 'raw', 'spool_max': '3M', 'spool_compress': 'no'}),
                             stalled_after='1s', **PORT).start())
    wait_until(lambda: 'its spool has taken nothing more' in window.get('/readyz').text, 60, 'the full spool', window.daemon)
    assert window.sink('siem')['state'] == 'spool full'
    assert window.metrics()['penstock_sink_flow', 'siem'] == 2


def test_a_source_that_cannot_be_read_is_not_ready(tmp_path, penstock):
    sas = secret(tmp_path, 'sas', '?sv=2024&sp=rl&sig=x')
    window = Window(penstock(('source blobs', {'type': 'azure-blob', 'container': 'https://127.0.0.1:1/account/container', 'auth': 'sas',
                                               'sas_file': sas, 'poll': '1s'}),
                             ('sink siem', NOWHERE), stalled_after='10s', **PORT).start())
    wait_until(lambda: 'source blobs: it, or some of it, cannot be read' in window.get('/readyz').text, 60, '503', window.daemon)
    stalled = window.json()['sources'][0]
    assert stalled['mood'] in ('warn', 'bad')
    wait_until(lambda: window.json()['sources'][0]['stalled_ms'] > stalled['stalled_ms'] + 3000, daemon=window.daemon, what='no end of it')
    assert window.metrics()['penstock_source_troubles_total', 'blobs'] > 0


def test_one_file_that_cannot_be_read_is_not_ready(logs, far_end, penstock):
    """The others are read and delivered all the while; it is ready again when the file can be read, or is gone."""
    for name in ('mend.json', 'gone.json'):
        write_activity(logs / name, 5, seed=9)
        (logs / name).chmod(0)
    daemon = penstock(files(logs, rescan='1s'), far_end.sink(**FAST), stalled_after='2s', **PORT)
    obeys_modes = ('--bounding-set=-dac_override,-dac_read_search', binary())
    window = Window(daemon.start(*obeys_modes, 'run', '-c', daemon.config, program='setpriv'))
    write_activity(logs / 'other.json', 1, seed=1)

    def grows():
        with open(logs / 'other.json', 'a') as file:
            file.write((logs / 'other.json').read_text().splitlines()[0] + '\n')
        return True
    wait_until(lambda: grows() and 'source logs: it, or some of it' in window.get('/readyz').text, daemon=daemon, what='503')
    assert window.sink('sentinel')['delivered'] > 0
    (logs / 'mend.json').chmod(0o600)
    wait_until(lambda: 'path=' + str(logs / 'gone.json') in daemon.log_text(), daemon=daemon)
    assert window.get('/readyz').status == 503
    (logs / 'gone.json').unlink()
    wait_until(lambda: window.get('/readyz').status == 200, daemon=daemon, what='200 again')
    wait_until(lambda: window.sink('sentinel')['held'] == 0, daemon=daemon, what='all delivered')
    assert daemon.stop() == 0


# ---- The port ----

STRICT = {'X-Content-Type-Options': 'nosniff', 'Referrer-Policy': 'no-referrer', 'Cache-Control': 'no-store',
          'Cross-Origin-Resource-Policy': 'same-origin'}


@pytest.fixture
def window(logs, penstock):
    return Window(penstock(files(logs), ('sink siem', NOWHERE), **PORT).start())


def test_only_reading_and_strict_headers(window):
    types = {'/': 'text/html', '/page.css': 'text/css', '/page.js': 'text/javascript', '/icon.svg': 'image/svg+xml',
             '/status.json': 'application/json', '/metrics': 'text/plain; version=0.0.4', '/readyz': 'text/plain',
             '/healthz': 'text/plain', '/nothing': 'text/plain', '/../etc/passwd': 'text/plain', '/metrics/': 'text/plain'}
    for path, kind in types.items():
        answer = window.get(path)
        assert answer.status == (404 if kind == 'text/plain' and path not in ('/readyz', '/healthz') else 200), path
        assert answer.headers['Content-Type'].startswith(kind)
        for name, value in STRICT.items():
            assert answer.headers.get_all(name) == [value]
        assert "default-src 'none'" in answer.headers['Content-Security-Policy'] and 'unsafe' not in answer.headers['Content-Security-Policy']
        assert window.get(path, by_socket=True).status == answer.status
    head = window.get('/page.css', method='HEAD')
    assert (head.status, head.text) == (200, '') and int(head.headers['Content-Length']) > 1000
    for method in ('POST', 'PUT', 'DELETE', 'OPTIONS', 'TRACE', 'BREW'):
        answer = window.get('/status.json', method=method, body='x' * 100 if method in ('POST', 'PUT') else None)
        assert answer.status == 405 and answer.headers['Allow'] == 'GET, HEAD', method


def test_other_names_are_sent_away(window):
    """A page that had its name point at loopback would read along: the name gives it away."""
    for host in ('127.0.0.1', f'localhost:{window.port}', '[::1]', f'127.0.0.1:{window.port}'):
        assert window.get('/status.json', Host=host).status == 200, host
    for host in ('evil.example', f'evil.example:{window.port}', '127.0.0.1.evil.example', '10.0.0.1', ''):
        answer = window.get('/status.json', Host=host)
        assert answer.status in (400, 421) and 'sources' not in answer.text, host


def test_rude_requests_leave_no_mark(window):
    """Junk and endless heads: each is over, and the next one is answered."""
    before = window.daemon.memory()[0]
    junk = (b'\0' * 5000, b'\r\n' * 5000, b'GET /readyz HTTP/9.9\r\nHost: localhost\r\n\r\n', b'GET ' + b'/a' * 50000,
            b'GET / HTTP/1.1\r\n' + b'X: y\r\n' * 20000 + b'\r\n', b'\x16\x03\x01' + bytes(range(256)),
            b'POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n',
            b'GET /readyz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n')
    lines = [socket.create_connection(('127.0.0.1', window.port), timeout=30 * slower()) for _ in junk]
    for line, data in zip(lines, junk):
        with contextlib.suppress(OSError):         # it may hang up in the middle
            line.sendall(data)
    for line in lines:
        with line, contextlib.suppress(ConnectionError):
            assert b'"sources"' not in b''.join(iter(lambda line=line: line.recv(65536), b''))
    assert window.get('/readyz').status == 200
    assert window.daemon.running() and window.daemon.memory()[0] - before < 50e6


@pytest.mark.plain
def test_slow_clients_are_shown_out(window):
    """As many as there is room for, each with a byte now and then: after ten seconds they are gone, and others have their turn."""
    held = [socket.create_connection(('127.0.0.1', window.port)) for _ in range(40)]
    start = time.monotonic()
    try:
        gone = 0
        while gone < 40:
            assert time.monotonic() - start < 90 * slower(), f'{40 - gone} are still there'
            for line in held:
                try:
                    if line.fileno() >= 0:
                        line.send(b'G')
                        if select.select([line], [], [], 0)[0] and line.recv(100) == b'':
                            raise ConnectionResetError
                except OSError:
                    line.close()
                    gone += 1
            time.sleep(0.5)
        assert time.monotonic() - start >= 9
    finally:
        for line in held:
            line.close()
    assert window.get('/readyz').status == 200
    assert window.get('/readyz', by_socket=True).status == 200


def test_nothing_leaks(logs, tmp_path, far_end, penstock):
    """Secrets of every kind and what records hold are planted; no answer has them, nor do status and top."""
    planted = {'password': 'Pl4nted-Password-1', 'record': 'pl4nted-record-content', 'sas': 'Pl4ntedSasSignature'}
    (logs / 'a.json').write_text(''.join(
        json.dumps({'time': '2026-03-01T10:00:00Z', 'operationName': planted['record'], 'n': n}) + '\n' for n in range(50))
        + planted['record'] + '\n')
    far_end.settings(poison=['EventOriginalUid'])
    sink = {**NOWHERE, 'username': 'u', 'password_file': secret(tmp_path, 'password', planted['password'])}
    daemon = penstock(files(logs), far_end.sink(**FAST, dead_in_a_row=0), ('sink siem', sink),
                      ('source blobs', {'type': 'azure-blob', 'container': 'https://127.0.0.1:1/account/container', 'auth': 'sas',
                                        'sas_file': secret(tmp_path, 'sas', f'?sv=2024&sp=rl&sig={planted["sas"]}')}),
                      log_level='debug', stalled_after='1s', **PORT).start()
    window = Window(daemon)
    wait_until(lambda: window.sink('sentinel')['dead'] == 51 and window.sink('siem')['trouble'], 60, 'letters and trouble', daemon)
    planted['secret'] = open(far_end.address['secret_file']).read().strip()
    served = [window.get(path).text for path in ('/', '/page.js', '/status.json', '/metrics', '/readyz', '/healthz', '/nothing')]
    served += [daemon.command('status', '-c', daemon.config).stdout, daemon.command('status', '--json', '-c', daemon.config).stdout]
    assert all(served)
    for name, text in planted.items():
        assert not any(text in answer for answer in served), name
    assert not any('Bearer' in answer or 'eyJ' in answer for answer in served)


def test_a_port_that_is_taken_stops_nothing(logs, far_end, penstock):
    write_activity(logs / 'a.json', 5, seed=1)
    with socket.create_server(('127.0.0.1', 0)) as taken:
        address = f'127.0.0.1:{taken.getsockname()[1]}'
        daemon = penstock(files(logs), far_end.sink(**FAST), listen=address).start()
        wait_until(lambda: far_end.count() == 5, daemon=daemon)
        assert f'listen={address}' in daemon.log_text() and 'cannot be opened' in daemon.log_text()
        assert Window(daemon, wait=False).get('/readyz', by_socket=True).status == 200


def test_without_listen_there_is_no_port(logs, penstock):
    daemon = penstock(files(logs), ('sink siem', NOWHERE)).start()
    window = Window(daemon, wait=False)
    wait_until(window.socket.exists, daemon=daemon)
    listening = subprocess.run(['ss', '-Htlpn'], capture_output=True, text=True, check=False).stdout if shutil.which('ss') else ''
    assert f'pid={daemon.process.pid},' not in listening
    assert window.socket.stat().st_mode & 0o077 & 0o022 == 0 and daemon.stop() == 0 and not window.socket.exists()


@pytest.mark.parametrize('keys, sentence', [
    ({'listen': '0.0.0.0:9101'}, 'can be reached from other machines'),
    ({'listen': '[::]:9101'}, 'can be reached from other machines'),
    ({'listen': 'localhost:9101'}, 'expected an address and a port'),
    ({'listen': '9101'}, 'expected an address and a port'),
    ({'listen': '0.0.0.0:9101', 'listen_names': 'mon.example.net'}, None),
    ({'listen': '127.0.0.1:9101'}, None),
    ({'listen': ''}, None),
])
def test_what_may_be_listened_on(logs, penstock, keys, sentence):
    daemon = penstock(files(logs), ('sink siem', NOWHERE), **keys)
    done = daemon.command('check', '-c', daemon.config)
    if sentence is None:
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode == 2 and sentence in done.stdout + done.stderr


# ---- status and top ----

def terminal(*words, rows=30, columns=200, keys=(), **variables):
    """A command on a terminal of its own: what it wrote, and its exit status. `keys` are (text, how often to wait for it, key)."""
    master, slave = os.openpty()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack('HHHH', rows, columns, 0, 0))
    child = subprocess.Popen([binary(), *words], stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                             env={**environment(), 'TERM': 'xterm', **variables},
                             preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
    os.close(slave)
    keys, said, end = list(keys), b'', time.monotonic() + 60 * slower()
    try:
        while time.monotonic() < end:
            if not select.select([master], [], [], 0.5)[0]:
                continue
            try:
                said += os.read(master, 65536)
            except OSError:                        # the last one who had the terminal is gone
                break
            if keys and said.count(keys[0][0]) >= keys[0][1]:
                os.write(master, keys.pop(0)[2])
        return said.decode(), child.wait(10)
    finally:
        os.close(master)
        child.kill()
        child.wait()


def test_status_tells_people_what_is_wrong(logs, far_end, penstock):
    write_activity(logs / 'a.json', 100, seed=1)
    far_end.fault(do='status', status=403, count=-1)
    daemon = penstock(files(logs), far_end.sink(**FAST), ('sink siem', NOWHERE), stalled_after='1s').start()
    wait_until(lambda: total(daemon.counters(), 'refusals') > 0, daemon=daemon)
    wait_until(lambda: 'Not ready' in daemon.command('status', '-c', daemon.config).stdout, daemon=daemon)
    done = daemon.command('status', '-c', daemon.config)
    assert done.returncode == 1 and '\033' not in done.stdout and done.stderr == ''
    assert re.search(r'^logs +file +\w+ +100 ', done.stdout, re.M)
    assert re.search(r'^sentinel +sentinel +refuses us +0 ', done.stdout, re.M)
    assert re.search(r'^  sentinel: .*last answer: status 403.*the role Monitoring Metrics Publisher', done.stdout, re.M)
    assert all(len(line) < 500 for line in done.stdout.splitlines())
    found = json.loads(daemon.command('status', '--json', '-c', daemon.config).stdout)
    assert [sink['state'] for sink in found['sinks'] if sink['name'] == 'sentinel'] == ['refuses us']
    coloured, status = terminal('status', '-c', daemon.config)
    assert status == 1 and '\033[31;1mrefuses us' in coloured
    plain, _ = terminal('status', '-c', daemon.config, NO_COLOR='1')
    assert '\033' not in plain and 'refuses us' in plain


def test_status_of_a_daemon_that_is_well(logs, far_end, penstock):
    write_activity(logs / 'a.json', 100, seed=1)
    daemon = penstock(files(logs), far_end.sink(**FAST)).start()
    wait_until(lambda: far_end.count() == 100, daemon=daemon)
    done = daemon.command('status', '-c', daemon.config)
    assert done.returncode == 0 and ', ready;' in done.stdout
    assert daemon.stop() == 0
    done = daemon.command('status', '-c', daemon.config)
    assert done.returncode == 1 and 'no daemon answers in' in done.stderr
    assert daemon.command('top', '-c', daemon.config).returncode == 1
    assert daemon.command('status', 'what', '-c', daemon.config).returncode == 2


def test_a_socket_that_was_left_over_is_replaced(logs, penstock):
    daemon = penstock(files(logs), ('sink siem', NOWHERE)).start()
    window = Window(daemon, wait=False)
    wait_until(window.socket.exists, daemon=daemon)
    daemon.kill()
    assert window.socket.exists()
    daemon.start()
    wait_until(lambda: daemon.command('status', '-c', daemon.config).returncode == 0, daemon=daemon)


def test_top_draws_until_q(logs, far_end, penstock):
    write_activity(logs / 'a.json', 100, seed=1)
    daemon = penstock(files(logs), far_end.sink(**FAST)).start()
    wait_until(lambda: far_end.count() == 100, daemon=daemon)
    said, status = terminal('top', '-c', daemon.config, rows=6, keys=[(b'\033[H', 3, b'q')])
    assert status == 0 and said.startswith('\033[?1049h') and said.endswith('\033[?1049l')
    frames = said.split('\033[H')[1:]
    assert len(frames) >= 3 and all(frame.count('\n') <= 5 for frame in frames) and 'RATE' in frames[-1]
    assert '0/s' in frames[-1]
    for seen in (b'SINK', b'\033[H'):             # amid a screen that is being drawn, too
        said, status = terminal('top', '-c', daemon.config, keys=[(seen, 1, b'\x03')])
        assert status == 0 and said.endswith('\033[?1049l')


def test_top_without_a_terminal_is_plain(logs, penstock):
    daemon = penstock(files(logs), ('sink siem', NOWHERE)).start()
    wait_until(lambda: daemon.command('status', '-c', daemon.config).returncode == 0, daemon=daemon)
    with subprocess.Popen([binary(), 'top', '-c', daemon.config], stdout=subprocess.PIPE, text=True, env=environment()) as top:
        heads = 0
        for line in top.stdout:
            assert '\033' not in line
            heads += line.startswith('penstock ')
            if heads == 3:
                top.terminate()
                break
        assert top.wait(30) == 0
