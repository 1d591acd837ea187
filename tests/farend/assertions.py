"""What an app shows in place of a secret: a JWT that it signed with a registered certificate, or one of another issuer.

Verified to the letter, with the openssl command, so that no library of the caller's is its own judge: algorithm, thumbprint,
signature, audience, issuer and subject, times, and that no `jti` comes twice.
"""
import base64
import hashlib
import json
import pathlib
import subprocess
import tempfile
import time
import uuid

LIFE_MAX = 600                       # seconds: Microsoft's pages say 5 to 10 minutes
SKEW = 300
AUDIENCE = 'api://AzureADTokenExchange'
ISSUER, SUBJECT = 'https://issuer.penstock.test/', 'system:serviceaccount:logs:penstock'


class Refused(Exception):
    """An AADSTS code and its sentence."""

    def __init__(self, code, text):
        super().__init__(text)
        self.code, self.text = code, text


def openssl(*words, given=None):
    return subprocess.run(['openssl', *map(str, words)], input=given, capture_output=True, check=True).stdout


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b'=').decode()


def decode(text):
    return base64.urlsafe_b64decode(text + '=' * (-len(text) % 4))


class Assertions:
    """The app's registered certificate, and the issuer its federated credential names; their files lie in `folder`."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.issuer, self.subject, self.audience = ISSUER, SUBJECT, AUDIENCE
        self.used = set()            # each jti so far
        openssl('genrsa', '-out', self.folder / 'issuer.key', '2048')
        openssl('rsa', '-in', self.folder / 'issuer.key', '-pubout', '-out', self.folder / 'issuer.pub')
        self.certify()
        self.mount_token()

    def certify(self, write=True):
        """A new certificate is registered, the old one no more. write=False: client.pem and client.pfx stay as they were."""
        new = self.folder / 'registered'
        openssl('req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', 2, '-subj', '/CN=penstock', '-keyout', f'{new}.key',
                '-out', f'{new}.crt')
        openssl('x509', '-in', f'{new}.crt', '-pubkey', '-noout', '-out', f'{new}.pub')
        der = openssl('x509', '-in', f'{new}.crt', '-outform', 'DER')
        self.thumbprints = {'x5t': base64url(hashlib.sha1(der).digest()), 'x5t#S256': base64url(hashlib.sha256(der).digest())}
        if write:
            self.write_certificate()

    def write_certificate(self):
        new = self.folder / 'registered'
        put(self.folder / 'client.pem', pathlib.Path(f'{new}.crt').read_text() + pathlib.Path(f'{new}.key').read_text(), 0o600)
        put(self.folder / 'client.password', 'the p&ssword of client.pfx\n', 0o600)
        openssl('pkcs12', '-export', '-in', f'{new}.crt', '-inkey', f'{new}.key', '-out', f'{new}.pfx', '-passout',
                f'file:{self.folder}/client.password')
        put(self.folder / 'client.pfx', pathlib.Path(f'{new}.pfx').read_bytes(), 0o600)

    def mount_token(self, seconds=3600, **claims):
        """The token of the other issuer, in federated.token, where Kubernetes would mount it: open to all."""
        now = int(time.time())
        claims = {'iss': self.issuer, 'sub': self.subject, 'aud': [self.audience], 'iat': now, 'nbf': now, 'exp': now + seconds,
                  'jti': str(uuid.uuid4()), **claims}
        put(self.folder / 'federated.token', sign(self.folder / 'issuer.key', {'alg': 'RS256', 'kid': 'issuer'}, claims), 0o644)

    def check(self, assertion, client, url):
        """Raises Refused unless this assertion proves that its sender is `client`. `url`: the token endpoint it was sent to. What was
        shown last lies in shown.jwt, for others to judge."""
        put(self.folder / 'shown.jwt', assertion, 0o600)
        try:
            header, claims = (json.loads(decode(part)) for part in assertion.split('.')[:2])
            signature = decode(assertion.split('.')[2])
        except (ValueError, IndexError):
            raise Refused(50027, 'The client assertion is malformed.') from None
        if header.get('alg') not in ('PS256', 'RS256'):
            raise Refused(5002738, f"The algorithm '{header.get('alg')}' is not allowed.")
        if any(name in header for name in self.thumbprints):
            self.check_certificate(header, claims, client, url)
            key = self.folder / 'registered.pub'
        else:
            self.check_federation(claims)
            key = self.folder / 'issuer.pub'
        if not verifies(key, header['alg'], assertion.rpartition('.')[0].encode(), signature):
            raise Refused(700027, 'The client assertion contains an invalid signature.')
        self.check_times(claims)

    def check_certificate(self, header, claims, client, url):
        for name, thumbprint in self.thumbprints.items():
            if name in header and header[name].rstrip('=') != thumbprint:
                raise Refused(700027, 'The certificate with identifier used to sign the client assertion is not registered.')
        if header.get('typ') != 'JWT' or (header['alg'] == 'PS256' and 'x5t#S256' not in header):
            raise Refused(50027, 'The header of the client assertion is malformed.')
        if not claims.get('iss') == claims.get('sub') == client:
            raise Refused(700021, 'Client assertion application identifier does not match client_id parameter.')
        if claims.get('aud') != url:
            raise Refused(700023, f"Client assertion audience claim '{claims.get('aud')}' does not match '{url}'.")
        if not claims.get('jti') or claims['jti'] in self.used:
            raise Refused(50013, 'The client assertion was used before.')
        if claims.get('exp', 0) - claims.get('nbf', claims.get('iat', 0)) > LIFE_MAX:          # MSAL for Python sends no nbf
            raise Refused(700024, 'The client assertion is valid for too long.')
        self.used.add(claims['jti'])

    def check_federation(self, claims):
        audiences = claims.get('aud')
        audiences = audiences if isinstance(audiences, list) else [audiences]
        for code, name, fits in ((700211, 'issuer', claims.get('iss') == self.issuer),
                                 (700213, 'subject', claims.get('sub') == self.subject),
                                 (700212, 'audience', self.audience in audiences)):
            if not fits:
                raise Refused(code, f'No matching federated identity record found for the presented assertion {name}.')

    def check_times(self, claims):
        now = time.time()
        if not claims.get('nbf', 0) - SKEW <= now <= claims.get('exp', 0) + SKEW:
            raise Refused(700024, 'Client assertion is not within its valid time range.')


def put(path, content, mode):
    """Whole or not at all, as the mounts of Kubernetes and careful people do it."""
    part = path.with_name(path.name + '.part')
    part.write_bytes(content if isinstance(content, bytes) else content.encode())
    part.chmod(mode)
    part.rename(path)


def sign(key, header, claims):
    body = '.'.join(base64url(json.dumps(part).encode()) for part in ({'typ': 'JWT', **header}, claims))
    return f'{body}.{base64url(openssl("dgst", "-sha256", "-sign", key, given=body.encode()))}'


def verifies(key, algorithm, body, signature):
    options = ('-sigopt', 'rsa_padding_mode:pss', '-sigopt', 'rsa_pss_saltlen:32') if algorithm == 'PS256' else ()
    with tempfile.NamedTemporaryFile() as file:
        file.write(signature)
        file.flush()
        done = subprocess.run(['openssl', 'dgst', '-sha256', '-verify', key, '-signature', file.name, *options], input=body,
                              capture_output=True)
    return done.returncode == 0
