"""A real Azurite (Microsoft's storage emulator) for tests, and Microsoft's own client to write into it.

    with Azurite(folder) as azurite:
        logs = azurite.container("insights-logs-flowlogflowevent")
        logs.upload_blob(name, data)                     # azure.storage.blob.ContainerClient
        ... azurite.source(logs.container_name) is a section for penstock.conf ...

Azurite comes from npm, the client from PyPI, both into $PENSTOCK_CACHE, by default ~/.cache/penstock, once. Where they
cannot be had, Azurite() raises Unavailable; `kafka.at_hand()` turns that into a skip or a failure. Needs node, npm,
python3-venv and openssl.
"""
import base64
import datetime
import fcntl
import http.server
import json
import os
import pathlib
import secrets
import shutil
import subprocess
import sys
import threading
import time
import urllib.parse

from kafka import Unavailable
from ports import Port

HERE = pathlib.Path(__file__).resolve().parent
AZURITE = 'azurite@3.35.0'           # runs on the Node of Debian 12
CLIENTS = 'azure-storage-blob==12.24.1', 'azure-storage-queue==12.12.0'
ACCOUNT = 'devstoreaccount1'         # Azurite's own, with its published key
KEY = 'Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=='
START_S = 60
FETCH_S = 600


def cache(name, fill):
    """A folder of the cache, filled on first use; a filling that was cut short never looks whole."""
    root = pathlib.Path(os.environ.get('PENSTOCK_CACHE') or pathlib.Path.home() / '.cache' / 'penstock')
    root.mkdir(parents=True, exist_ok=True)
    folder = root / name
    with open(root / '.lock', 'w') as lock:          # two test runs may start together
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / 'complete').exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            fill(folder)
            (folder / 'complete').touch()
    return folder


def run(*words, **more):
    try:
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=FETCH_S, **more)
    except subprocess.TimeoutExpired:
        raise Unavailable(f'{words[0]} did not end within {FETCH_S} s') from None
    if done.returncode != 0:
        raise Unavailable(f'{words[0]}: {(done.stderr or done.stdout).strip()[-300:]}')


def azurite_script(service):
    for tool in ('node', 'npm'):
        if not shutil.which(tool):
            raise Unavailable(f'{tool} is not installed')
    folder = cache(AZURITE.replace('@', '-'), lambda folder: run(
        'npm', 'install', '--no-audit', '--no-fund', '--ignore-scripts', '--omit=dev', '--prefix', folder, AZURITE))
    return folder / 'node_modules' / 'azurite' / 'dist' / 'src' / service / 'main.js'


def client_packages():
    """Microsoft's clients, made for Debian's interpreter: their folder joins sys.path."""
    def fill(folder):
        run('/usr/bin/python3', '-m', 'venv', folder / 'venv')
        run(folder / 'venv' / 'bin' / 'pip', 'install', '-q', *CLIENTS)
    folder = cache('azure-storage-clients', fill)
    return str(next((folder / 'venv' / 'lib').glob('python3*/site-packages')))


def blob_client():
    packages = client_packages()
    if packages not in sys.path:
        sys.path.append(packages)
    try:
        import azure.storage.blob
        import azure.storage.queue
    except ImportError as error:
        raise Unavailable(f'{CLIENTS} do not load: {error}') from None
    return azure.storage.blob


def token(seconds=3600):
    """What Azurite takes for one of Entra's: times, issuer and audience are looked at, the signature is not."""
    now = int(time.time())
    claims = {'iat': now - 10, 'nbf': now - 10, 'exp': now + seconds, 'iss': 'https://sts.windows.net/a-tenant/',
              'aud': 'https://storage.azure.com', 'oid': 'an-app'}

    def part(given):
        return base64.urlsafe_b64encode(json.dumps(given).encode()).rstrip(b'=').decode()
    return f'{part({"alg": "RS256", "typ": "JWT"})}.{part(claims)}.{base64.urlsafe_b64encode(b"none").decode().rstrip("=")}'


def started(words, folder, log_name):
    """One of Azurite's services, once it listens."""
    with open(folder / log_name, 'wb') as log:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder)
    end = time.monotonic() + START_S
    while b'successfully listens' not in (folder / log_name).read_bytes():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            raise RuntimeError(f'Azurite did not start:\n{(folder / log_name).read_text(errors="replace")[-2000:]}')
        time.sleep(0.05)
    return process


class Azurite:
    def __init__(self, folder, tls=None, on_disk=False):
        """`tls`: a folder with ca.pem, server.pem and server.key; then it speaks https and takes bearer tokens. `on_disk`: it
        keeps what it holds over a restart, and can be filled()."""
        self.folder = pathlib.Path(folder)
        self.tls = tls and pathlib.Path(tls)
        self.on_disk = on_disk
        self.process = None

    def __enter__(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        self.script = azurite_script('blob')
        self.client = blob_client()
        self.held = Port()
        self.port = self.held.number
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()
        self.held.release()

    def start(self):
        words = ['node', str(self.script), '--silent', '--blobPort', str(self.port), '--disableTelemetry', '--disableProductStyleUrl',
                 *(['--location', str(self.folder / 'data')] if self.on_disk else ['--inMemoryPersistence'])]
        if self.tls:
            words += ['--cert', str(self.tls / 'server.pem'), '--key', str(self.tls / 'server.key'), '--oauth', 'basic']
        self.process = started(words, self.folder, 'azurite.log')

    def stop(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.process = None

    def filled(self, container, blobs):
        """Many block blobs at once, in place of the one that is there: (name, data, when it was written). To be put one by one,
        fifty thousand would take Azurite minutes; so it is stopped, its own row of that one blob copied in the files it has
        written, and started again."""
        self.process.terminate()     # it writes what it holds
        self.process.wait(START_S)
        path = self.folder / 'data' / '__azurite_db_blob__.json'
        database = json.loads(path.read_text())
        rows = next(one for one in database['collections'] if one['name'] == '$BLOBS_COLLECTION$')
        row, = (row for row in rows['data'] if row['containerName'] == container)
        made = []
        with open(self.folder / 'data' / '__blobstorage__' / row['persistency']['id'], 'ab') as extent:
            for n, (name, data, when) in enumerate(blobs):
                time_text = f'{when:%Y-%m-%dT%H:%M:%S.000Z}'
                properties = {**row['properties'], 'creationTime': time_text, 'lastModified': time_text, 'etag': f'"0x{n + 1:X}"',
                              'contentLength': len(data)}
                del properties['contentMD5']
                made.append({**row, '$loki': n + 1, 'name': name, 'properties': properties,
                             'persistency': {**row['persistency'], 'offset': extent.tell(), 'count': len(data)}})
                extent.write(data)
        rows.update(data=made, idIndex=[row['$loki'] for row in made], maxId=len(made))
        for member, index in rows['binaryIndices'].items():
            index['values'] = sorted(range(len(made)), key=lambda n: made[n][member])
        path.write_text(json.dumps(database))
        self.start()

    @property
    def url(self):
        return f'{"https" if self.tls else "http"}://127.0.0.1:{self.port}/{ACCOUNT}'

    def container(self, name):
        """A new container, with Microsoft's own client for it."""
        more = {'connection_verify': str(self.tls / 'ca.pem')} if self.tls else {}
        service = self.client.BlobServiceClient(self.url, credential={'account_name': ACCOUNT, 'account_key': KEY}, **more)
        return service.create_container(name)

    def secret(self, text):
        path = self.folder / f'secret-{secrets.token_hex(4)}'
        path.touch(mode=0o600)
        path.write_text(text + '\n')
        return path

    def sas(self, container, permission='rl', seconds=3600, **more):
        start = datetime.datetime.now(datetime.timezone.utc)
        return self.client.generate_container_sas(ACCOUNT, container, account_key=KEY, permission=permission,
                                                  expiry=start + datetime.timedelta(seconds=seconds), **more)

    def source(self, container, name='blobs', auth='key', **more):
        """The section of a source that reads this container; `more` are further keys, None leaves one out."""
        keys = {'type': 'azure-blob', 'container': f'{self.url}/{container}', 'auth': auth, 'poll': '200ms', **more}
        if auth == 'key' and 'key_file' not in keys:
            keys['key_file'] = self.secret(KEY)
        if auth == 'sas' and 'sas_file' not in keys:
            keys['sas_file'] = self.secret(self.sas(container))
        if self.tls:
            keys.setdefault('ca_file', self.tls / 'ca.pem')
        return f'source {name}', {key: value for key, value in keys.items() if value is not None}


class FlowBlob:
    """A PT1H.json as Network Watcher commits it: block by block, the new one before the last, which is always `]}`."""

    def __init__(self, container, name):
        self.blob = container.get_blob_client(name)
        self.ids = []
        self.count = 0
        self.size = 0
        self._stage(b'{"records":[')
        self._stage(b']}')
        self._commit()

    def _stage(self, data, at=None):
        ident = secrets.token_hex(16)
        self.blob.stage_block(ident, data)
        self.ids.insert(len(self.ids) if at is None else at, ident)
        self.size += len(data)

    def _commit(self):
        self.blob.commit_block_list([block(ident) for ident in self.ids])

    def append(self, *records):
        """One commit, of one new block."""
        if not records:
            return
        self._stage((b',' if self.count else b'') + b','.join(records), len(self.ids) - 1)
        self.count += len(records)
        self._commit()


class AzuriteQueue:
    """Azurite's queue service, and Microsoft's client for one queue in it: queue.send(text), queue.left()."""

    def __init__(self, folder, name='notices', plain=False):
        self.folder, self.name, self.plain = pathlib.Path(folder), name, plain

    def __enter__(self):
        blob_client()
        from azure.storage.queue import QueueClient, TextBase64EncodePolicy
        self.held = Port()
        port = self.held.number
        self.folder.mkdir(parents=True, exist_ok=True)
        self.process = started(['node', str(azurite_script('queue')), '--inMemoryPersistence', '--silent', '--queuePort', str(port),
                                '--disableTelemetry', '--disableProductStyleUrl'], self.folder, 'azurite-queue.log')
        self.url = f'http://127.0.0.1:{port}/{ACCOUNT}/{self.name}'
        self.client = QueueClient(f'http://127.0.0.1:{port}/{ACCOUNT}', self.name,
                                  credential={'account_name': ACCOUNT, 'account_key': KEY},
                                  message_encode_policy=None if self.plain else TextBase64EncodePolicy())
        self.client.create_queue()
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.held.release()

    def send(self, text):
        self.client.send_message(text)

    def left(self):
        """Messages that nobody has deleted, hidden ones too."""
        return self.client.get_queue_properties().approximate_message_count

    def sas(self, permission='p', seconds=3600):
        from azure.storage.queue import generate_queue_sas
        return generate_queue_sas(ACCOUNT, self.name, account_key=KEY, permission=permission, expiry=now() +
                                  datetime.timedelta(seconds=seconds))


def block(ident):
    import azure.storage.blob
    return azure.storage.blob.BlobBlock(ident)


def hour_name(place, when, mac='000D3A000001'):
    """A name as Azure makes it: PLACE/y=…/m=…/d=…/h=…/m=00/macAddress=…/PT1H.json"""
    tail = f'macAddress={mac}/' if mac else ''
    return f'{place}/y={when:%Y}/m={when:%m}/d={when:%d}/h={when:%H}/m=00/{tail}PT1H.json'


def now():
    return datetime.datetime.now(datetime.timezone.utc)


class TokenEndpoint:
    """Entra's token endpoint, as far as a client secret needs it; its tokens are such as Azurite takes. HTTPS, in a thread."""

    def __init__(self, context, secret):
        endpoint = self
        self.secret, self.issued, self.spoiled = secret, 0, False

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                form = urllib.parse.parse_qs(self.rfile.read(int(self.headers['Content-Length'])).decode())
                if form.get('client_secret') != [endpoint.secret]:
                    return self.answer(401, {'error': 'invalid_client', 'error_codes': [7000215]})
                assert form['scope'] == ['https://storage.azure.com/.default']
                endpoint.issued += 1
                self.answer(200, {'token_type': 'Bearer', 'expires_in': 3599,
                                  'access_token': token(-60 if endpoint.spoiled else 3600)})

            def answer(self, status, given):
                body = json.dumps(given).encode()
                self.send_response(status)
                self.send_header('Content-Type', 'application/json')
                self.send_header('Content-Length', str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f'https://127.0.0.1:{self.server.server_address[1]}'

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
