#!/usr/bin/python3
"""The far end's stand-in: Logs Ingestion API, Entra's token endpoint and Resource Manager on one HTTPS port, with faults.

Started with a folder; everything it makes lies there: ca.pem, server.pem, secret, accepted.db, address.json. The latter
is also printed as one line when the ports are open. A second port, plain HTTP on loopback, is the tests' remote control:

    GET  /state              counts so far                   POST /faults    add a fault (faults.py says which)
    POST /settings {...}     ingestion.Settings by name      POST /clear     forget the faults, let go who hangs
    POST /down, /up          close and open the HTTPS port   POST /rotate    a new secret, written to the secret file
    POST /revoke             forget all tokens               POST /token {"token_seconds": n, "refresh_in": n}
    POST /certificate        show what server.pem holds now, to new connections
    POST /assertion          {"certify": true, "write": false} register a new certificate; else claims of the federated token
    POST /managed            {"up": false, "assigned": [...], "system": false, "realm": "..."}: managed.Managed by name
    POST /deploy             {"template", "parameters"}: an ARM template; its outputs are in /state from then on
    POST /rule               {"readable": false} who reads it is refused; {"properties": {...}} change the
                             deployed rule; {"counted": {"RowsDropped_Count": 1}} its metrics

README.md beside this file tells what is known of the real ones and what is guessed.
"""
import argparse
import asyncio
import dataclasses
import json
import os
import pathlib
import secrets
import signal
import socket
import sys

from aiohttp import web

import arm
import assertions
import entra
import faults
import ingestion
import managed
import store
import streams
import tls

HERE = pathlib.Path(__file__).resolve().parent


class Port:
    """The HTTPS port. While it is down its number stays ours: a socket that is bound but does not listen holds it."""

    def __init__(self, app, number, context):
        self.runner = web.AppRunner(app, access_log=None, auto_decompress=False, keepalive_timeout=75)
        self.context = context
        self.holder = open_socket(number)
        self.number = self.holder.getsockname()[1]
        self.site = None

    async def up(self):
        if self.runner.server is None:
            await self.runner.setup()
        if self.site is None:
            self.site = web.SockSite(self.runner, open_socket(self.number), ssl_context=self.context, backlog=512)
            await self.site.start()

    def lines(self):
        """Connections that are open now."""
        return len(self.runner.server.connections) if self.runner.server else 0

    async def down(self):
        if self.site is None:
            return
        # SockSite.stop() would first wait for the connections; they are to break, as when a machine dies.
        self.site._server.close()
        self.runner._unreg_site(self.site)
        self.site = None
        for connection in list(self.runner.server.connections):
            if connection.transport is not None:
                connection.transport.abort()


def open_socket(number):
    opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    opened.bind(('127.0.0.1', number))
    return opened


class FarEnd:
    def __init__(self, options):
        self.folder = pathlib.Path(options.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        tls.make_server(self.folder, options.names)
        self.faults = faults.Faults(options.seed)
        self.store = store.Store(fresh_database(self.folder / 'accepted.db'), options.keep == 'rows')
        self.entra = entra.Entra(options.tenant, options.client, options.secret, options.audience,
                                 entra.Signer(self.folder) if options.sign else None)
        self.ingestion = ingestion.Ingestion(options.dcr, streams.read_streams(options.streams), self.entra, self.store,
                                             self.faults, options.check)
        self.arm = arm.Arm(self.entra, self.ingestion)
        self.port = Port(self.app(), options.port, tls.server_context(self.folder))
        if options.assertions:
            self.entra.assertions = assertions.Assertions(self.folder)
        self.managed = managed.Managed(self.folder, self.entra, self.store, self.faults)
        self.managed_port = Port(self.managed.app(), 0, None)
        self.arm.endpoint = f'https://127.0.0.1:{self.port.number}'
        self.entra.others.add(arm.AUDIENCE)
        self.control = web.AppRunner(self.control_app(), access_log=None)
        self.write_secret()

    def app(self):
        app = web.Application()
        app.router.add_post('/dataCollectionRules/{dcr}/streams/{stream}', self.ingestion.on_request)
        app.router.add_post('/{tenant}/oauth2/v2.0/token', self.on_token)
        app.router.add_get('/subscriptions/{rest:.+}', self.arm.on_get)
        app.router.add_get('/{tenant}/v2.0/.well-known/openid-configuration', self.on_discovery)
        return app

    def control_app(self):
        app = web.Application()
        app.router.add_get('/state', self.on_state)
        for name in ('faults', 'clear', 'settings', 'down', 'up', 'rotate', 'revoke', 'token', 'certificate', 'assertion', 'managed',
                     'deploy', 'rule'):
            app.router.add_post('/' + name, self.on_control)
        return app

    def write_secret(self):
        write_whole(self.folder / 'secret', self.entra.secret, 0o600)

    async def start(self):
        await self.port.up()
        await self.managed_port.up()
        await self.control.setup()
        control = web.TCPSite(self.control, '127.0.0.1', 0)
        await control.start()
        control_port = control._server.sockets[0].getsockname()[1]
        address = {
            'endpoint': f'https://127.0.0.1:{self.port.number}', 'control': f'http://127.0.0.1:{control_port}',
            'ca_file': str(self.folder / 'ca.pem'), 'secret_file': str(self.folder / 'secret'),
            'database': str(self.folder / 'accepted.db'), 'tenant': self.entra.tenant, 'client': self.entra.client,
            'dcr': next(iter(self.ingestion.dcrs)), 'scope': self.entra.resource + '/.default', 'pid': os.getpid(),
            'managed': f'http://127.0.0.1:{self.managed_port.number}', 'managed_header': self.managed.header,
        }
        write_whole(self.folder / 'address.json', json.dumps(address), 0o644)
        print(json.dumps(address), flush=True)
        notify_ready()

    async def on_token(self, request):
        entry = self.store.begin('token')
        try:
            response = await self.token_answer(request, entry)
            entry.status = response.status
        except entra.TokenError as error:
            entry.status, entry.code = error.status, str(error.code)
            response = entra.error_response(error)
        except faults.Dropped:
            response = web.Response()
        finally:
            self.store.end(entry)
        return response

    async def token_answer(self, request, entry):
        fault = self.faults.next('token')
        if fault is not None:
            entry.fault = fault.do
            if fault.delay:
                await asyncio.sleep(fault.delay)
            if fault.do == 'reset':
                faults.drop(request)
        if request.content_type != 'application/x-www-form-urlencoded':
            raise entra.TokenError(400, 'invalid_request', 900144, 'The request body is no form.')
        form = await request.post()
        if fault is not None:
            early = await self.ingestion.misbehave(request, fault)
            if early is not None:
                return early
        answer = self.entra.answer(request.match_info['tenant'], request.headers.get('Authorization'), form,
                                   f'https://{request.host}{request.path}')
        if fault is not None and fault.do == 'lose-answer':
            faults.drop(request)
        return web.json_response(answer, headers={'Cache-Control': 'no-store, no-cache'})

    async def on_discovery(self, request):
        """What Microsoft's own library asks first."""
        tenant = request.match_info['tenant']
        base = f'https://{request.host}/{tenant}'
        return web.json_response({
            'issuer': f'{base}/v2.0', 'authorization_endpoint': f'{base}/oauth2/v2.0/authorize',
            'token_endpoint': f'{base}/oauth2/v2.0/token', 'jwks_uri': f'{base}/discovery/v2.0/keys',
            'response_types_supported': ['code'], 'subject_types_supported': ['pairwise'],
            'id_token_signing_alg_values_supported': ['RS256']})

    async def on_state(self, request):
        state = self.store.state()
        state.update(up=self.port.site is not None, tokens_issued=self.entra.issued, faults_waiting=len(self.faults.waiting),
                     held=self.faults.held, lines=self.port.lines(), settings=dataclasses.asdict(self.ingestion.settings), outputs=self.arm.outputs,
                     roles=self.arm.roles)
        return web.json_response(state)

    async def on_control(self, request):
        given = await request.json() if request.can_read_body else {}
        try:
            await self.obey(request.path[1:], given)
        except (ValueError, TypeError, KeyError) as error:
            return web.json_response({'error': str(error)}, status=400)
        return await self.on_state(request)

    async def obey(self, word, given):
        if word == 'faults':
            self.faults.add(given)
        elif word == 'clear':
            self.faults.clear()
        elif word == 'settings':
            change(self.ingestion.settings, given)
        elif word == 'down':
            await self.port.down()
        elif word == 'up':
            await self.port.up()
        elif word == 'rotate':
            self.entra.secret = given.get('secret') or secrets.token_urlsafe(30)
            if given.get('write', True):
                self.write_secret()
        elif word == 'revoke':
            self.entra.tokens.clear()
        elif word == 'deploy':
            self.arm.outputs = self.arm.deploy(given['template'], given['parameters'])
        elif word == 'rule':
            self.arm.change(**given)
        elif word == 'certificate':
            tls.load(self.port.context, self.folder)
        elif word == 'assertion':
            self.obey_assertion(**given)
        elif word == 'managed':
            await self.obey_managed(**given)
        elif word == 'token':
            for name, value in given.items():
                if name not in ('token_seconds', 'refresh_in'):
                    raise ValueError(f'no such setting: {name}')
                setattr(self.entra, name, value)

    def obey_assertion(self, certify=False, write=True, **claims):
        if certify:
            self.entra.assertions.certify(write)
        elif claims:
            self.entra.assertions.mount_token(**claims)
        elif write:
            self.entra.assertions.write_certificate()

    async def obey_managed(self, up=None, **given):
        if up is not None:
            await (self.managed_port.up() if up else self.managed_port.down())
        for name, value in given.items():
            if name not in ('assigned', 'system', 'realm'):
                raise ValueError(f'no such setting: {name}')
            setattr(self.managed, name, value)


def change(settings, given):
    names = {field.name for field in dataclasses.fields(settings)}
    for name, value in given.items():
        if name not in names:
            raise ValueError(f'no such setting: {name}')
        setattr(settings, name, value)


def write_whole(path, text, mode):
    """The file is there whole or not at all: whoever waits for it never reads half."""
    part = path.with_suffix('.part')
    part.unlink(missing_ok=True)
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), 'w') as file:
        file.write(text)
    part.rename(path)


def notify_ready():
    """Tells systemd, if it has started us: whoever comes after finds certificate, secret and port."""
    name = os.environ.get('NOTIFY_SOCKET')
    if name:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.sendto(b'READY=1', '\0' + name[1:] if name[0] == '@' else name)


def fresh_database(path):
    for name in (path, path.with_name(path.name + '-wal'), path.with_name(path.name + '-shm')):
        name.unlink(missing_ok=True)
    return path


def parse_options(words):
    parser = argparse.ArgumentParser(description='A stand-in for the Logs Ingestion API and Entra\'s token endpoint.')
    parser.add_argument('--folder', required=True, help='where its files go')
    parser.add_argument('--port', type=int, default=0, help='HTTPS port on 127.0.0.1; 0: any')
    parser.add_argument('--streams', default=HERE / 'streams.json', help='the stream declarations')
    parser.add_argument('--check', choices=('full', 'count', 'none'), default='full',
                        help='count: sizes and caller only; none: bodies stay closed')
    parser.add_argument('--keep', choices=('rows', 'ids'), default='rows', help='ids: event ids without the rows')
    parser.add_argument('--names', default='DNS:localhost,IP:127.0.0.1,IP:::1', help='names in the certificate')
    parser.add_argument('--dcr', action='append', help='immutable id; may be repeated')
    parser.add_argument('--tenant', default='11111111-2222-3333-4444-555555555555')
    parser.add_argument('--client', default='66666666-7777-8888-9999-aaaaaaaaaaaa')
    parser.add_argument('--secret', default='a~secret.of+the/test=&%', help='needs URL encoding, as real ones may')
    parser.add_argument('--audience', default='https://monitor.azure.com')
    parser.add_argument('--sign', action='store_true', help='tokens that others can verify, by jwks.json in the folder')
    parser.add_argument('--assertions', action='store_true', help='the app has a certificate and a federated credential, too')
    parser.add_argument('--seed', type=int, default=1, help='for faults with a chance')
    parser.add_argument('--watch-stdin', action='store_true', help='end when standard input ends')
    options = parser.parse_args(words)
    options.dcr = options.dcr or ['dcr-0123456789abcdef0123456789abcdef']
    return options


async def serve(options):
    far_end = FarEnd(options)
    end = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end.set)
    if options.watch_stdin:
        loop.add_reader(sys.stdin.fileno(), lambda: os.read(sys.stdin.fileno(), 4096) or end.set())
    await far_end.start()
    await end.wait()
    await far_end.port.down()
    await far_end.managed_port.down()
    far_end.store.db.close()


if __name__ == '__main__':
    asyncio.run(serve(parse_options(sys.argv[1:])))
