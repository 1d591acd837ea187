"""The identities of machines: IMDS, App Service and Azure Arc, on one plain HTTP port of loopback.

    GET /metadata/identity/oauth2/token?api-version=2018-02-01    IMDS; 2020-06-01 is Arc's, which answers with a challenge first
    GET /msi/token?api-version=2019-08-01                          App Service, Functions, Container Apps

Arc's keys lie in the folder arc/ and are called /var/opt/azcmagent/tokens/NAME.key: a test mounts the one over the other.
"""
import pathlib
import secrets
import time
import uuid

from aiohttp import web

import faults

ARC_KEYS = '/var/opt/azcmagent/tokens'


class Managed:
    def __init__(self, folder, tokens, store, injected):
        self.keys = pathlib.Path(folder) / 'arc'
        self.tokens, self.store, self.faults = tokens, store, injected
        self.header = secrets.token_urlsafe(24)
        self.assigned = []           # user-assigned identities: client ids, object ids, resource ids
        self.system = True           # the machine has an identity of its own
        self.realm = None            # what Arc's challenge names in place of its key
        self.challenges = {}         # key -> its file

    def app(self):
        app = web.Application()
        for path in '/metadata/identity/oauth2/token', '/metadata/identity/oauth2/token/':   # Microsoft's Node library asks the latter
            app.router.add_get(path, self.on_request)
        app.router.add_get('/msi/token', self.on_request)
        return app

    async def on_request(self, request):
        entry = self.store.begin('managed', request.path)
        fault = self.faults.next('managed')
        try:
            if fault is not None and fault.do == 'reset':
                faults.drop(request)
            response = fault.response() if fault is not None else self.answer(request)
            entry.status, entry.fault = response.status, fault and fault.do
        except faults.Dropped:
            response = web.Response()
        finally:
            self.store.end(entry)
        return response

    def answer(self, request):
        version = request.query.get('api-version')
        if request.path == '/msi/token':
            return self.app_service(request) if version == '2019-08-01' else error(400, 'invalid_request')
        # A proxy on the way would add this; it is how IMDS keeps requests out that were not made by the machine itself.
        if request.headers.get('Metadata') != 'true' or 'X-Forwarded-For' in request.headers:
            return error(400, 'bad_request_102', 'Required metadata header not specified')
        if version in ('2020-06-01', '2019-11-01'):            # older libraries ask for the latter
            return self.arc(request)
        return self.grant(request, 'msi_res_id') if version == '2018-02-01' else error(400, 'invalid_request')

    def app_service(self, request):
        if request.headers.get('X-IDENTITY-HEADER') != self.header:
            return web.json_response({'statusCode': 401, 'message': 'Unauthorized'}, status=401)
        return self.grant(request, 'mi_res_id', life=False)

    def arc(self, request):
        kind, _, key = request.headers.get('Authorization', '').partition(' ')
        if not key:
            return self.challenge()
        if kind != 'Basic' or key not in self.challenges:
            return error(401, 'invalid_request')
        self.challenges.pop(key).unlink(missing_ok=True)
        return self.grant(request, 'msi_res_id')

    def challenge(self):
        name, key = f'{uuid.uuid4()}.key', secrets.token_urlsafe(64)
        self.keys.mkdir(exist_ok=True)
        self.challenges[key] = self.keys / name
        self.challenges[key].write_text(key)
        return web.Response(status=401, headers={'WWW-Authenticate': f'Basic realm={self.realm or f"{ARC_KEYS}/{name}"}'})

    def grant(self, request, by_path, life=True):
        named = [request.query[key] for key in ('client_id', 'object_id', by_path) if key in request.query]
        resource = request.query.get('resource', '')
        if len(named) > 1 or (named and named[0] not in self.assigned) or (not named and not self.system):
            return error(400, 'invalid_request', 'Identity not found')
        if resource.rstrip('/') != self.tokens.resource:
            return error(400, 'invalid_resource', f'AADSTS500011: The resource principal named {resource} was not found.')
        seconds, now = self.tokens.token_seconds, int(time.time())
        answer = {'access_token': self.tokens.issue(resource), 'expires_on': str(now + seconds), 'resource': resource,
                  'token_type': 'Bearer', 'client_id': named[0] if named else self.tokens.client}
        if life:
            answer.update(expires_in=str(seconds), not_before=str(now))
        return web.json_response(answer)


def error(status, word, text=''):
    return web.json_response({'error': word, 'error_description': text}, status=status)
