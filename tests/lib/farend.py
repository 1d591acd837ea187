"""The far end's stand-in, as tests hold it: starts it, tells it how to fail, reads what it accepted.

    with FarEnd(folder) as far_end:
        far_end.fault(do='status', status=429, retry_after=1, count=3)
        ...
        assert far_end.uids() == expected

Only the standard library is used here; the stand-in itself needs aiohttp.
"""
import json
import os
import pathlib
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request

SCRIPT = pathlib.Path(__file__).resolve().parents[1] / 'farend' / 'farend.py'


class FarEnd:
    def __init__(self, folder, *words):
        """`words` are further options of farend.py, such as '--check', 'count'."""
        self.folder = pathlib.Path(folder)
        self.words = [str(word) for word in words]
        self.process = None
        self.address = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def start(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        # An inherited standard input that never ends would outlive us: the pipe ends with this process.
        self.log = open(self.folder / 'farend.log', 'ab')
        self.process = subprocess.Popen([python(), str(SCRIPT), '--folder', str(self.folder), '--watch-stdin', *self.words],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log)
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            raise RuntimeError('the far end did not start:\n' + (self.folder / 'farend.log').read_text())
        self.address = json.loads(line)
        return self

    def stop(self):
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self.log.close()
        self.process = None

    def sink(self, name='sentinel', **more):
        """The section of a Sentinel sink that delivers here; `more` are further keys, None leaves one out."""
        keys = {'type': 'sentinel', 'schema': 'asim', 'endpoint': self.address['endpoint'], 'dcr': self.address['dcr'],
                'authority': self.address['endpoint'], 'tenant': self.address['tenant'], 'client': self.address['client'],
                'secret_file': self.address['secret_file'], 'ca_file': self.address['ca_file'], **more}
        return f'sink {name}', {key: value for key, value in keys.items() if value is not None}

    # Remote control.

    def control(self, word, given=None):
        data = None if word == 'state' else json.dumps(given or {}).encode()
        request = urllib.request.Request(f'{self.address["control"]}/{word}', data,
                                         {'Content-Type': 'application/json'} if data else {})
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise ValueError(json.load(error)['error']) from None

    def state(self):
        return self.control('state')

    def fault(self, **given):
        return self.control('faults', given)

    def clear(self):
        return self.control('clear')

    def settings(self, **given):
        return self.control('settings', given)

    def down(self):
        return self.control('down')

    def up(self):
        return self.control('up')

    def rotate_secret(self, write=True):
        """The secret changes; with write=False the file keeps the old one, as when nobody told the daemon."""
        return self.control('rotate', {'write': write})

    def revoke_tokens(self):
        return self.control('revoke')

    def token(self, **given):
        return self.control('token', given)

    def assertion(self, **given):
        """certify=True: another certificate is the app's from now on. Else claims, or seconds, of a new federated token."""
        return self.control('assertion', given)

    def managed(self, **given):
        """The machine's identities: up=False is a port that refuses; assigned, system, realm as farend.py says."""
        return self.control('managed', given)

    def deploy(self, template, **parameters):
        """An ARM template of a rule, whose streams take the place of those that were there; its outputs."""
        return self.control('deploy', {'template': template, 'parameters': parameters})['outputs']

    def rule(self, **given):
        return self.control('rule', given)

    def show_certificate(self):
        """New connections see what server.pem holds by now."""
        return self.control('certificate')

    # What arrived. Safe to ask at any time: a request's rows appear together, before its answer is sent.

    def query(self, sql, *values):
        with sqlite3.connect(f'file:{self.folder}/accepted.db?mode=ro', uri=True, timeout=30) as db:
            return db.execute(sql, values).fetchall()

    def count(self, stream=None):
        return self.query('SELECT count(*) FROM rows WHERE ? IS NULL OR stream = ?', stream, stream)[0][0]

    def uids(self, stream=None):
        """Event ids in the order of their arrival, repeats included."""
        return [uid for uid, in self.query('SELECT uid FROM rows WHERE ? IS NULL OR stream = ? ORDER BY seq', stream, stream)]

    def distinct(self):
        return self.query('SELECT count(DISTINCT uid) FROM rows')[0][0]

    def rows(self, stream=None):
        return [json.loads(row) for row, in
                self.query('SELECT row FROM rows WHERE ? IS NULL OR stream = ? ORDER BY seq', stream, stream)]

    def violations(self):
        """(stream, row's position in its request, column, what): empty is what a test wants."""
        return self.query('SELECT stream, position, column, what FROM violations')

    def requests(self, kind='ingest'):
        names = ('id', 'at', 'dcr', 'stream', 'status', 'wire_bytes', 'json_bytes', 'rows', 'encoding', 'client_request_id', 'fault', 'code')
        return [dict(zip(names, line)) for line in
                self.query(f'SELECT {", ".join(names)} FROM requests WHERE kind = ? ORDER BY id', kind)]


def python():
    """Debian's interpreter has Debian's aiohttp; one from elsewhere in PATH has not."""
    return os.environ.get('PENSTOCK_PYTHON') or ('/usr/bin/python3' if os.path.exists('/usr/bin/python3') else sys.executable)
