"""Entra's token endpoint: client secrets and assertions, with the errors that a misconfigured daemon meets."""
import base64
import json
import pathlib
import secrets
import subprocess
import time
import urllib.parse
import uuid

from aiohttp import web

import assertions

ASSERTION_TYPE = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer'
TOKEN_BYTES = 1200                   # real ones are long: about 1,600 characters


class TokenError(Exception):
    def __init__(self, status, error, code, text):
        super().__init__(text)
        self.status, self.error, self.code, self.text = status, error, code, text


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b'=').decode()


class Signer:
    """Makes real tokens (RS256) for far ends that look into them, such as a Kafka broker; its jwks.json lies in `folder`."""

    def __init__(self, folder):
        self.key = pathlib.Path(folder) / 'token.key'
        if not self.key.exists():
            openssl('genrsa', '-out', self.key, '2048')
        modulus = openssl('rsa', '-in', self.key, '-noout', '-modulus').decode().strip().removeprefix('Modulus=')
        keys = [{'kty': 'RSA', 'use': 'sig', 'alg': 'RS256', 'kid': 'test', 'n': base64url(bytes.fromhex(modulus)), 'e': 'AQAB'}]
        (pathlib.Path(folder) / 'jwks.json').write_text(json.dumps({'keys': keys}))

    def sign(self, claims):
        signed = '.'.join(base64url(json.dumps(part).encode())
                          for part in ({'typ': 'JWT', 'alg': 'RS256', 'kid': 'test'}, claims))
        return signed + '.' + base64url(openssl('dgst', '-sha256', '-sign', self.key, given=signed.encode()))


def openssl(*words, given=None):
    return subprocess.run(['openssl', *map(str, words)], input=given, capture_output=True, check=True).stdout


class Entra:
    """Issues tokens and knows them again. `resource` is what a scope must name, without /.default."""

    def __init__(self, tenant, client, secret, resource, signer=None):
        self.tenant, self.client, self.secret, self.resource = tenant, client, secret, resource
        self.others = set()          # further resources that tokens are issued for
        self.token_seconds = 3599
        self.refresh_in = None       # a number: sent along, as for long-lived tokens
        self.tokens = {}             # token -> (expires at, audience)
        self.issued = 0
        self.signer = signer
        self.assertions = None       # assertions.Assertions: the app has a certificate and a federated credential as well

    def issue(self, resource):
        self.forget_expired()
        token = 'eyJ0eXAiOiJKV1Qi.' + secrets.token_urlsafe(TOKEN_BYTES) + '.' + secrets.token_urlsafe(64)
        if self.signer:
            now = int(time.time())
            token = self.signer.sign({'aud': resource, 'iss': f'https://sts.windows.net/{self.tenant}/', 'sub': self.client,
                                      'jti': secrets.token_hex(8), 'iat': now, 'nbf': now, 'exp': now + self.token_seconds})
        self.tokens[token] = (time.monotonic() + self.token_seconds, resource)
        self.issued += 1
        return token

    def forget_expired(self):
        if len(self.tokens) > 1000:
            now = time.monotonic()
            self.tokens = {token: held for token, held in self.tokens.items() if held[0] > now}

    def trouble(self, authorization, resource=None):
        """None where the header holds a token of ours that is still good there, else a sentence."""
        kind, _, token = (authorization or '').partition(' ')
        if kind.lower() != 'bearer' or not token:
            return 'no bearer token'
        held = self.tokens.get(token)
        if held is None:
            return 'unknown or revoked token'
        if held[0] <= time.monotonic():
            return 'expired token'
        if held[1].rstrip('/') != (resource or self.resource):
            return 'wrong audience'
        return None

    def answer(self, tenant, authorization, form, url):
        """The token response for one request's form, sent to `url`; raises TokenError."""
        if tenant.lower() != self.tenant.lower():
            raise TokenError(400, 'invalid_request', 90002, f"Tenant '{tenant}' not found.")
        grant = form.get('grant_type')
        if grant is None:
            raise TokenError(400, 'invalid_request', 900144,
                             "The request body must contain the following parameter: 'grant_type'.")
        if grant != 'client_credentials':
            raise TokenError(400, 'unsupported_grant_type', 70003, f"The app requested an unsupported grant type '{grant}'.")
        client, secret = client_of(authorization, form)
        if client is None:
            raise TokenError(400, 'invalid_request', 900144,
                             "The request body must contain the following parameter: 'client_id'.")
        if client.lower() != self.client.lower():
            raise TokenError(400, 'unauthorized_client', 700016,
                             f"Application with identifier '{client}' was not found in the directory.")
        if 'client_assertion' in form and self.assertions is not None:
            self.check_assertion(client, form, url)
        elif secret is None:
            raise TokenError(401, 'invalid_client', 7000216,
                             "'client_assertion', 'client_secret' or 'request' is required for the 'client_credentials' "
                             'grant type.')
        elif secret != self.secret:
            raise TokenError(401, 'invalid_client', 7000215, 'Invalid client secret provided. Ensure the secret being '
                             f"sent in the request is the client secret value, not the client secret ID, for app '{client}'.")
        scope = form.get('scope')
        if scope is None:
            raise TokenError(400, 'invalid_request', 90014, "The required field 'scope' is missing from the request.")
        if not scope.endswith('/.default') or ' ' in scope.strip():
            raise TokenError(400, 'invalid_scope', 70011, f'The provided request must include a \'scope\' input parameter. '
                             f'The scope {scope} is not valid.')
        resource = scope[:-len('/.default')]
        if resource.rstrip('/') != self.resource and resource.rstrip('/') not in self.others:
            raise TokenError(400, 'invalid_resource', 500011,
                             f'The resource principal named {resource} was not found in the tenant.')
        answer = {'token_type': 'Bearer', 'expires_in': self.token_seconds, 'ext_expires_in': self.token_seconds,
                  'access_token': self.issue(resource)}
        if self.refresh_in is not None:
            answer['refresh_in'] = self.refresh_in
        return answer

    def check_assertion(self, client, form, url):
        if form.get('client_assertion_type') != ASSERTION_TYPE or 'client_secret' in form:
            raise TokenError(400, 'invalid_request', 900144, "The request body must contain 'client_assertion_type'.")
        try:
            self.assertions.check(form['client_assertion'], client, url)
        except assertions.Refused as refused:
            raise TokenError(401, 'invalid_client', refused.code, refused.text) from None


def client_of(authorization, form):
    """Client id and secret: from the form, or from HTTP Basic, which the endpoint takes as well."""
    if authorization and authorization.startswith('Basic '):
        try:
            text = base64.b64decode(authorization[6:], validate=True).decode()
        except ValueError:
            return None, None
        client, _, secret = text.partition(':')
        return urllib.parse.unquote(client), urllib.parse.unquote(secret)
    return form.get('client_id'), form.get('client_secret')


def error_response(error):
    body = {'error': error.error, 'error_description': f'AADSTS{error.code}: {error.text} Trace ID: {uuid.uuid4()}',
            'error_codes': [error.code], 'timestamp': time.strftime('%Y-%m-%d %H:%M:%SZ', time.gmtime()),
            'trace_id': str(uuid.uuid4()), 'correlation_id': str(uuid.uuid4())}
    return web.Response(status=error.status, text=json.dumps(body), content_type='application/json')
