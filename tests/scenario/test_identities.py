"""Who the daemon is to Entra: every kind of identity delivers, what is wrong is said once and held, what is mended is taken up.

The stand-in verifies what it is shown to the letter (tests/farend/assertions.py). So that it is no mirror image of ours,
Microsoft's own clients get their tokens there as well, unchanged, and what we sign is verified by a library that is not ours.
"""
import hashlib
import json
import os
import re
import ssl
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from base64 import urlsafe_b64decode

import pytest

import assertions
import scenes
import tls
from azure_clients import node_client, python_client, run_script
from azurite import Azurite
from clock import Clock
from farend import FarEnd
from judge import alarms, warnings
from kafka import Unavailable, missing
from penstock import binary, slower, wait_until
from window import Window

FAST = {'flush': '50ms', 'retry_min': '50ms', 'retry_max': '300ms'}
RESOURCE = '/subscriptions/0000/resourceGroups/logs/providers/Microsoft.ManagedIdentity/userAssignedIdentities/penstock'
ASSIGNED = '77777777-8888-9999-aaaa-bbbbbbbbbbbb'


class Scene(scenes.Scene):
    records = 50

    def __init__(self, tmp_path, far_end, penstock, **keys):
        super().__init__(tmp_path, penstock)
        self.far_end = far_end
        self.before = far_end.count()              # another test's records are the same
        self.configure(sink(far_end, **keys))

    def until_delivered(self):
        self.until(lambda: self.far_end.count() - self.before >= len(self.expected), 'all events')
        self.until(lambda: self.count('held') + self.count('spooled') == 0, 'all answers')


def sink(far_end, **keys):
    """Nothing of an identity is in it but what `keys` say."""
    nobody = dict.fromkeys(('authority', 'tenant', 'client', 'secret_file'))
    return far_end.sink(**{**FAST, **nobody, **keys})


def files(far_end):
    return {'pem': far_end.folder / 'client.pem', 'pfx': far_end.folder / 'client.pfx', 'password': far_end.folder / 'client.password',
            'token': far_end.folder / 'federated.token', 'secret': far_end.folder / 'secret'}


def app(far_end):
    return {'tenant': far_end.address['tenant'], 'client': far_end.address['client'], 'authority': far_end.address['endpoint']}


def app_variables(far_end):
    return {'AZURE_TENANT_ID': far_end.address['tenant'], 'AZURE_CLIENT_ID': far_end.address['client'],
            'AZURE_AUTHORITY_HOST': far_end.address['endpoint']}


def imds(far_end):
    return {'AZURE_POD_IDENTITY_AUTHORITY_HOST': far_end.address['managed']}


def app_service(far_end):
    return {'IDENTITY_ENDPOINT': f'{far_end.address["managed"]}/msi/token', 'IDENTITY_HEADER': far_end.address['managed_header']}


def arc(far_end):
    return {'IDENTITY_ENDPOINT': f'{far_end.address["managed"]}/metadata/identity/oauth2/token',
            'IMDS_ENDPOINT': far_end.address['managed']}


def arc_machine(tmp_path, far_end):
    """A program that runs others where the stand-in's keys lie in the agent's folder."""
    keys = far_end.folder / 'arc'
    keys.mkdir(exist_ok=True)
    inner, outer = tmp_path / 'on-arc', tmp_path / 'arc'
    inner.write_text(f'#!/bin/sh\nmount -t tmpfs none /var/opt && mkdir -p /var/opt/azcmagent/tokens &&\n'
                     f'mount --bind {keys} /var/opt/azcmagent/tokens || exit 97\nexec "$@"\n')
    outer.write_text(f'#!/bin/sh\nexec unshare --mount {"" if os.geteuid() == 0 else "--map-root-user"} {inner} "$@"\n')
    for script in (inner, outer):
        script.chmod(0o755)
    done = subprocess.run([outer, 'true'], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f'no mount namespace here: {done.stderr.strip()}')
    return outer


def arc_daemon(tmp_path, far_end):
    program = tmp_path / 'penstock-on-arc'
    program.write_text(f'#!/bin/sh\nexec {arc_machine(tmp_path, far_end)} {binary()} "$@"\n')
    program.chmod(0o755)
    return program


@pytest.fixture(scope='module')
def shared(tmp_path_factory):
    """Keys take their time to be made: one stand-in for all tests that leave it as it was."""
    with FarEnd(tmp_path_factory.mktemp('entra'), '--assertions') as far_end:
        far_end.managed(assigned=[ASSIGNED, RESOURCE])
        yield far_end


@pytest.fixture
def entra(shared):
    shared.clear()
    shared.revoke_tokens()
    shared.token(token_seconds=3599, refresh_in=None)
    shared.managed(up=True, system=True, realm=None)
    shared.assertion(seconds=3600)
    return shared


# ---- Every kind delivers -----------------------------------------------------------------------------------------

WAYS = {
    'secret': (lambda end: {'auth': 'secret', **app(end), 'secret_file': files(end)['secret']}, None),
    'secret, auto': (lambda end: {**app(end), 'secret_file': files(end)['secret']}, None),
    'certificate': (lambda end: {'auth': 'certificate', **app(end), 'certificate_file': files(end)['pem']}, None),
    'certificate, RS256': (lambda end: {**app(end), 'certificate_file': files(end)['pem'], 'signature': 'RS256'}, None),
    'certificate, PKCS#12': (lambda end: {**app(end), 'certificate_file': files(end)['pfx'],
                                          'certificate_password_file': files(end)['password']}, None),
    'certificate of the environment': (lambda end: {}, lambda end: {
        **app_variables(end), 'AZURE_CLIENT_CERTIFICATE_PATH': str(files(end)['pem'])}),
    'federated token': (lambda end: {**app(end), 'token_file': files(end)['token']}, None),
    'workload identity': (lambda end: {'auth': 'workload-identity'}, lambda end: {
        **app_variables(end), 'AZURE_FEDERATED_TOKEN_FILE': str(files(end)['token'])}),
    'workload identity, auto': (lambda end: {}, lambda end: {
        **app_variables(end), 'AZURE_FEDERATED_TOKEN_FILE': str(files(end)['token'])}),
    'VM': (lambda end: {'auth': 'managed-identity'}, imds),
    'VM, auto': (lambda end: {}, imds),
    'VM, an assigned one by client': (lambda end: {'auth': 'managed-identity', 'client': ASSIGNED}, imds),
    'VM, an assigned one by resource': (lambda end: {'identity': RESOURCE}, imds),
    'App Service': (lambda end: {'auth': 'managed-identity'}, app_service),
    'App Service, an assigned one by resource': (lambda end: {'identity': RESOURCE}, app_service),
    'Arc': (lambda end: {'auth': 'managed-identity'}, arc),
}


@pytest.mark.parametrize('way', WAYS)
def test_every_identity_delivers(tmp_path, entra, penstock, way):
    """A token by this way, and one more when the first is revoked; nothing to see in the log."""
    keys, variables = WAYS[way]
    scene = Scene(tmp_path, entra, penstock, **keys(entra))
    scene.write()
    scene.daemon.start(program=arc_daemon(tmp_path, entra) if way == 'Arc' else None, **(variables(entra) if variables else {}))
    scene.until_delivered()
    issued = entra.state()['tokens_issued']
    entra.revoke_tokens()
    scene.write()
    scene.until_delivered()
    assert entra.state()['tokens_issued'] == issued + 1
    assert scene.daemon.stop() == 0
    assert alarms(scene.daemon) == warnings(scene.daemon) == []


def test_sinks_of_one_identity_share_its_token(tmp_path, entra, penstock):
    scene = Scene(tmp_path, entra, penstock)
    keys = {**app(entra), 'certificate_file': files(entra)['pem']}
    scene.configure(*(entra.sink(name, **{**FAST, 'secret_file': None, **keys}) for name in ('one', 'two', 'three')))
    issued = entra.state()['tokens_issued']
    scene.write()
    scene.daemon.start()
    scene.until(lambda: scene.count('delivered') == 3 * len(scene.expected), 'three times each')
    assert entra.state()['tokens_issued'] == issued + 1


def test_a_container_is_read_by_any_identity(tmp_path, far_end, penstock):
    """Two sources over one container: an app with a certificate, and the machine's own identity, each with a token for storage."""
    (tmp_path / 'storage').mkdir()
    tls.make_server(tmp_path / 'storage')
    storage = ('--sign', '--assertions', '--audience', 'https://storage.azure.com')
    try:
        with Azurite(tmp_path / 'azurite', tls=tmp_path / 'storage') as azurite, FarEnd(tmp_path / 'entra', *storage) as entra:
            azurite.container('logs').upload_blob('a.json', b'{"a":1}\n{"a":2}\n')
            authorities = tmp_path / 'authorities.pem'
            authorities.write_bytes((tmp_path / 'storage' / 'ca.pem').read_bytes() + (entra.folder / 'ca.pem').read_bytes())
            daemon = penstock(azurite.source('logs', 'app', auth='certificate', **app(entra), certificate_file=files(entra)['pem'],
                                             ca_file=authorities),
                              azurite.source('logs', 'machine', auth='managed-identity', ca_file=authorities), far_end.sink(**FAST))
            daemon.start(**imds(entra))
            wait_until(lambda: far_end.count() == 4, daemon=daemon, what='both')
            assert daemon.stop() == 0 and alarms(daemon) == []
            assert entra.state()['tokens_issued'] == 2
    except Unavailable as reason:
        missing(reason)


@pytest.mark.plain
def test_a_token_is_renewed_before_it_ends(tmp_path, entra, penstock):
    """At half its life where that is short. While the new one cannot be had the old one serves: no post waits, none is refused."""
    entra.token(token_seconds=20)
    scene = Scene(tmp_path, entra, penstock, **WAYS['certificate'][0](entra))
    scene.daemon.start()
    scene.write(5)
    scene.until_delivered()
    before, issued = len(entra.requests()), entra.state()['tokens_issued']
    entra.fault(where='token', do='status', status=503, retry_after=1)
    while entra.state()['tokens_issued'] < issued + 2:
        scene.write(5)
        scene.until_delivered()
    assert {request['status'] for request in entra.requests()[before:]} == {204}
    assert entra.state()['faults_waiting'] == 0
    assert alarms(scene.daemon) == warnings(scene.daemon) == []


# ---- What is wrong, and what mends it ----------------------------------------------------------------------------

def certificate_unknown(end):
    end.assertion(certify=True, write=False)


def certificate_back(end):
    end.assertion()


WRONGS = {
    'the certificate is another': ('certificate', certificate_unknown, certificate_back, 'AADSTS700027', 'upload the one in certificate_file'),
    'the file holds no certificate': ('certificate', lambda end: files(end)['pem'].write_text('nothing'), certificate_back,
                                      'client.pem', 'neither PEM nor PKCS#12'),
    'the file is open to all': ('certificate', lambda end: files(end)['pem'].chmod(0o644), lambda end: files(end)['pem'].chmod(0o600),
                                'client.pem', 'open to everyone'),
    'the token is over': ('workload identity', lambda end: end.assertion(nbf=int(time.time()) - 7200, exp=int(time.time()) - 3600),
                          lambda end: end.assertion(seconds=3600), 'AADSTS700024', 'is it still renewed'),
    'the subject is another': ('workload identity', lambda end: end.assertion(sub='system:serviceaccount:logs:other'),
                               lambda end: end.assertion(seconds=3600), 'AADSTS700213', 'subject'),
    'the issuer is another': ('workload identity', lambda end: end.assertion(iss='https://other.example/'),
                              lambda end: end.assertion(seconds=3600), 'AADSTS700211', 'issuer'),
    'the audience is another': ('workload identity', lambda end: end.assertion(aud='api://other'),
                                lambda end: end.assertion(seconds=3600), 'AADSTS700212', 'api://AzureADTokenExchange'),
    'the secret is another': ('secret', lambda end: end.rotate_secret(write=False), lambda end: end.rotate_secret(),
                              'AADSTS7000215', 'put the secret'),
}


@pytest.mark.parametrize('wrong', WRONGS)
def test_what_is_wrong_is_said_and_what_is_mended_is_taken_up(tmp_path, entra, penstock, wrong):
    """One alarm that says what to mend; all is held; the file that was put right is found within seconds, without a restart."""
    way, spoil, mend, code, says = WRONGS[wrong]
    keys, variables = WAYS[way]
    scene = Scene(tmp_path, entra, penstock, **keys(entra))
    spoil(entra)
    try:
        scene.write()
        scene.daemon.start(**(variables(entra) if variables else {}))
        scene.until_refused()
        asked = len(entra.requests('token'))
        scene.until_refused(6)
        assert len(entra.requests('token')) == asked           # a refusal is not asked for again and again
    finally:
        mend(entra)
    began = time.monotonic()
    scene.until_delivered()
    assert time.monotonic() - began < 40 * slower()            # the hold would last for a minute
    (alarm,) = alarms(scene.daemon)
    assert code in alarm['why'] and says in alarm['why'] and 'nothing is lost' in alarm['msg']


@pytest.mark.parametrize('way', ['secret', 'certificate', 'workload identity'])
def test_a_rotation_in_time_is_not_noticed(tmp_path, entra, penstock, way):
    """New secret, new certificate, new federated token, while posts go on: no alarm, no warning."""
    keys, variables = WAYS[way]
    scene = Scene(tmp_path, entra, penstock, **keys(entra))
    scene.daemon.start(**(variables(entra) if variables else {}))
    for turn in range(3):
        scene.write()
        scene.until_delivered()
        {'secret': entra.rotate_secret, 'certificate': lambda: entra.assertion(certify=True),
         'workload identity': lambda: entra.assertion(seconds=600)}[way]()
        entra.revoke_tokens()
    scene.write()
    scene.until_delivered()
    assert alarms(scene.daemon) == warnings(scene.daemon) == []


@pytest.mark.plain
def test_a_clock_that_is_off_is_named(tmp_path, entra, penstock):
    """An assertion is good for ten minutes by Entra's clock."""
    clock = Clock(tmp_path, '+2h')
    scene = Scene(tmp_path, entra, penstock, **WAYS['certificate'][0](entra))
    scene.write()
    scene.daemon.start(**clock.variables)
    scene.until_refused()
    (alarm,) = alarms(scene.daemon)
    assert 'AADSTS700024' in alarm['why'] and 'clock' in alarm['why']


@pytest.mark.plain
def test_a_clock_that_jumps_takes_no_token_away(tmp_path, entra, penstock):
    """Lives are counted by a clock that only grows; only what is signed looks at the wall's."""
    clock = Clock(tmp_path)
    scene = Scene(tmp_path, entra, penstock, **WAYS['certificate'][0](entra))
    scene.daemon.start(**clock.variables)
    issued = entra.state()['tokens_issued']
    for shift in ('+0', '+5h', '-10h', '+0'):
        clock.set(shift)
        scene.write()
        scene.until_delivered()
    assert entra.state()['tokens_issued'] == issued + 1
    assert alarms(scene.daemon) == warnings(scene.daemon) == []


def test_imds_that_is_absent_is_waited_for(tmp_path, entra, penstock):
    """A machine whose endpoint does not answer yet: warnings that name the choice, no alarm; present, all is delivered."""
    entra.managed(up=False)
    before = len(entra.requests('managed'))
    scene = Scene(tmp_path, entra, penstock, **WAYS['VM'][0](entra))
    scene.write()
    scene.daemon.start(**imds(entra))
    scene.until_tried_again(1)
    entra.managed(up=True)
    entra.fault(where='managed', do='status', status=410)      # it is being updated
    scene.until_delivered()
    assert alarms(scene.daemon) == []
    assert 'no machine of Azure' in warnings(scene.daemon)[0]['why']
    assert [request['status'] for request in entra.requests('managed')[before:]] == [410, 200]


def test_a_machine_without_an_identity_is_told_so(tmp_path, entra, penstock):
    entra.managed(system=False)
    scene = Scene(tmp_path, entra, penstock, **WAYS['VM'][0](entra))
    scene.write()
    scene.daemon.start(**imds(entra))
    scene.until_refused()
    (alarm,) = alarms(scene.daemon)
    assert 'no such identity: assign one' in alarm['why']


@pytest.mark.parametrize('realm', ['/etc/shadow', '/var/opt/azcmagent/tokens/../../../../etc/shadow.key', '/tmp/stolen.key'])
def test_arcs_challenge_opens_no_file_elsewhere(tmp_path, entra, penstock, realm):
    """Whoever listens on the agent's port may ask for any file; what comes back is a refusal, and nothing is sent to it."""
    entra.managed(realm=realm)
    scene = Scene(tmp_path, entra, penstock, **WAYS['Arc'][0](entra))
    issued, asked = entra.state()['tokens_issued'], len(entra.requests('managed'))
    scene.write()
    scene.daemon.start(program=arc_daemon(tmp_path, entra), **arc(entra))
    scene.until_refused()
    (alarm,) = alarms(scene.daemon)
    assert 'does not name a key in /var/opt/azcmagent/tokens' in alarm['why'] and realm not in scene.daemon.log_text()
    assert entra.state()['tokens_issued'] == issued
    assert [request['status'] for request in entra.requests('managed')[asked:]] == [401]


@pytest.mark.parametrize('variables, says', [
    ({'AZURE_TENANT_ID': 't', 'AZURE_CLIENT_ID': 'c', 'AZURE_CLIENT_SECRET': 'pl4nted'}, 'secrets come from files alone'),
    ({'IDENTITY_ENDPOINT': 'https://x', 'IDENTITY_HEADER': 'pl4nted', 'IDENTITY_SERVER_THUMBPRINT': 'x'}, 'Service Fabric'),
])
def test_an_environment_that_cannot_be_used_ends_the_start(tmp_path, entra, penstock, variables, says):
    scene = Scene(tmp_path, entra, penstock)
    scene.daemon.start(**variables)
    assert scene.daemon.process.wait(30 * slower()) != 0
    assert says in scene.daemon.log_text() and 'pl4nted' not in scene.daemon.log_text()


# ---- Nothing leaks -----------------------------------------------------------------------------------------------

def planted(end):
    """What no one may ever read: of files a line in their middle, as a careless log would show it."""
    made = {'secret': files(end)['secret'].read_text().strip(), 'password': files(end)['password'].read_text().strip(),
            'token': files(end)['token'].read_text().strip()[-80:], 'header': end.address['managed_header'], 'bearer': 'eyJ0eXAiOiJKV1Qi'}
    made['key'] = files(end)['pem'].read_text().split('PRIVATE KEY-----')[1].split('\n')[5]
    made['encoded'] = re.sub(r'[^A-Za-z0-9._~-]', lambda found: f'%{ord(found[0]):02X}', made['secret'])
    return made


@pytest.mark.parametrize('level', ['error', 'info', 'debug'])
@pytest.mark.parametrize('way', ['secret', 'certificate, PKCS#12', 'workload identity', 'App Service'])
def test_no_secret_is_ever_shown(tmp_path, entra, penstock, way, level):
    """Not in the log at any level, not to `ps`, not in status and metrics, not though the far ends' error bodies quote what they were
    sent."""
    keys, variables = WAYS[way]
    scene = Scene(tmp_path, entra, penstock, **keys(entra))
    scene.daemon.configure(('source logs', {'type': 'file', 'path': f'{scene.logs}/*.json'}), sink(entra, **keys(entra)), log_level=level)
    hidden = planted(entra)
    echo = '{"error":"invalid_client","error_description":"%s","error_codes":[7000215],"trace_id":"%s"}' % (
        ' '.join(hidden.values()), hidden['secret'])
    where = 'managed' if way == 'App Service' else 'token'
    asked = len(entra.requests(where))
    entra.fault(where=where, do='status', status=400 if where == 'managed' else 401, body=echo)
    entra.fault(do='status', status=401, body=echo, code='eyJ0eXAiOiJKV1Qi', count=2)
    scene.write()
    scene.daemon.start(**(variables(entra) if variables else {}))
    seen = [open(f'/proc/{scene.daemon.process.pid}/cmdline', 'rb').read().decode()]
    scene.until(lambda: len(entra.requests(where)) > asked, 'the refusal')
    window = Window(scene.daemon, wait=False)
    scene.until(lambda: 'token' in window.get('/status.json', by_socket=True).text, 'the trouble to be shown')
    seen += [window.get(path, by_socket=True).text for path in ('/', '/status.json', '/metrics')]
    if where == 'token':                                       # or the refusal would be remembered for a minute
        for name in ('secret', 'pfx', 'token'):
            os.utime(files(entra)[name])
    seen.append(subprocess.run(['ps', '-ww', '-o', 'args', '-p', str(scene.daemon.process.pid)], capture_output=True, text=True).stdout)
    if where == 'token':
        scene.until(lambda: entra.count() - scene.before >= len(scene.expected), 'all events')
    scene.daemon.stop()
    seen.append(scene.daemon.log_text())
    for name, text in hidden.items():
        assert all(text not in place for place in seen), name


def where_in_memory(pid, texts):
    """{name: the mappings that hold its text}, each as [range, whether it is locked and left out of dumps]."""
    found = {name: [] for name in texts}
    place = None
    with open(f'/proc/{pid}/mem', 'rb', buffering=0) as memory:
        for line in open(f'/proc/{pid}/smaps').readlines():
            if re.match(r'[0-9a-f]+-[0-9a-f]+ r', line) and '[v' not in line:
                place = [int(end, 16) for end in line.split()[0].split('-')]
            elif line.startswith('VmFlags:') and place:
                memory.seek(place[0])
                held = memory.read(place[1] - place[0])
                for name, text in texts.items():
                    if text.encode() in held:
                        found[name].append([f'{place[0]:x}-{place[1]:x}', {'lo', 'dd'} <= set(line.split()[1:])])
                place = None
    return found


@pytest.mark.plain
@pytest.mark.parametrize('way', ['secret', 'certificate', 'certificate, PKCS#12', 'workload identity'])
def test_no_secret_stays_in_memory(tmp_path, entra, penstock, way):
    """When a token has been had, what it was had by is nowhere, in no buffer of a library's either; the token itself lies where it is
    neither swapped nor dumped. No dump is ever written, and nobody but root may look."""
    keys, variables = WAYS[way]
    scene = Scene(tmp_path, entra, penstock, **keys(entra))
    scene.write()
    scene.daemon.start(**(variables(entra) if variables else {}))
    scene.until_delivered()
    pid = scene.daemon.process.pid
    assert re.search(r'^Max core file size\s+0\s+0\s', open(f'/proc/{pid}/limits').read(), re.M)
    if os.geteuid() != 0:
        with pytest.raises(PermissionError):
            open(f'/proc/{pid}/mem', 'rb')
        return
    texts = planted(entra)
    scene.until(lambda: all(locked for places in where_in_memory(pid, texts).values() for _, locked in places), 'the last request to end')
    found = where_in_memory(pid, texts)
    assert [name for name in found if found[name] and name != 'bearer'] == [] and len(found['bearer']) == 1


# ---- Judged by others --------------------------------------------------------------------------------------------

VERIFY = '''
import json, sys
import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
given = json.loads(sys.argv[1])
certificate = x509.load_pem_x509_certificate(open(given['certificate'], 'rb').read())
text = open(given['jwt']).read()
claims = jwt.decode(text, certificate.public_key(), algorithms=[given['algorithm']], audience=given['audience'],
                    issuer=given['client'], options={'require': ['exp', 'iat', 'nbf', 'jti', 'sub', 'aud', 'iss']})
print(json.dumps([jwt.get_unverified_header(text), claims, certificate.fingerprint(hashes.SHA256()).hex(),
                  certificate.fingerprint(hashes.SHA1()).hex()]))
'''


SHOWN = {
    'as it should be': ({}, {}, 200, None),
    'as it should be, RS256': ({'alg': 'RS256'}, {}, 200, None),
    'without a signature': ({'alg': 'none'}, {}, 401, 5002738),
    'by its secret': ({'alg': 'HS256'}, {}, 401, 5002738),
    'signed by another key': ({'key': 'issuer.key'}, {}, 401, 700027),
    'with another thumbprint': ({'x5t#S256': 'AAAA'}, {}, 401, 700027),
    'for another endpoint': ({}, {'aud': 'https://login.microsoftonline.com/common/oauth2/v2.0/token'}, 401, 700023),
    'of another app': ({}, {'iss': ASSIGNED}, 401, 700021),
    'about another app': ({}, {'sub': ASSIGNED}, 401, 700021),
    'that is over': ({}, {'nbf': -1200, 'exp': -600}, 401, 700024),
    'that is not yet valid': ({}, {'nbf': 600, 'exp': 1200}, 401, 700024),
    'that is good for an hour': ({}, {'exp': 3600}, 401, 700024),
    'without an id': ({}, {'jti': None}, 401, 50013),
    'with a used id': ({}, {'jti': 'used'}, 401, 50013),
}


@pytest.mark.parametrize('shown', SHOWN)
def test_the_stand_in_looks_closely(entra, shown):
    """An assertion that differs in one thing from a good one is refused for that."""
    header, claims, status, code = SHOWN[shown]
    address, now = entra.address, int(time.time())
    url = f'{address["endpoint"]}/{address["tenant"]}/oauth2/v2.0/token'
    der = subprocess.run(['openssl', 'x509', '-in', entra.folder / 'registered.crt', '-outform', 'DER'], capture_output=True, check=True)
    whole = {'typ': 'JWT', 'alg': 'PS256', 'x5t#S256': assertions.base64url(hashlib.sha256(der.stdout).digest()), **header}
    key = whole.pop('key', 'registered.key')
    times = {'nbf': 0, 'exp': 600, **{name: claims[name] for name in ('nbf', 'exp') if name in claims}}
    claims = {'iss': address['client'], 'sub': address['client'], 'aud': url, 'jti': str(uuid.uuid4()), **claims,
              **{name: now + value for name, value in times.items()}}
    pss = ['-sigopt', 'rsa_padding_mode:pss', '-sigopt', 'rsa_pss_saltlen:32'] if whole['alg'] == 'PS256' else []
    answers = []
    for _ in range(2 if claims['jti'] == 'used' else 1):
        body = '.'.join(assertions.base64url(json.dumps(part).encode()) for part in (whole, claims))
        signature = assertions.openssl('dgst', '-sha256', '-sign', entra.folder / key, *pss, given=body.encode())
        answers.append(ask_token(entra, url, f'{body}.{assertions.base64url(signature)}'))
    assert answers[-1] == (status, code)


def ask_token(entra, url, assertion):
    """Status, and the AADSTS code of a refusal."""
    form = {'grant_type': 'client_credentials', 'client_id': entra.address['client'], 'scope': entra.address['scope'],
            'client_assertion_type': 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer', 'client_assertion': assertion}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(
        context=ssl.create_default_context(cafile=entra.address['ca_file'])))
    try:
        with opener.open(url, urllib.parse.urlencode(form).encode(), timeout=30) as answer:
            return answer.status, None
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)['error_codes'][0]


def unavailable(make):
    try:
        return make()
    except Unavailable as reason:
        missing(reason)


@pytest.mark.parametrize('algorithm', ['PS256', 'RS256'])
def test_what_we_sign_is_verified_by_another_library(tmp_path, entra, penstock, algorithm):
    python = unavailable(python_client)
    scene = Scene(tmp_path, entra, penstock, **WAYS['certificate'][0](entra), signature=algorithm)
    scene.write()
    scene.daemon.start()
    scene.until_delivered()
    address = entra.address
    url = f'{address["endpoint"]}/{address["tenant"]}/oauth2/v2.0/token'
    header, claims, sha256, sha1 = run_script([python, '-c', VERIFY], {
        'certificate': str(entra.folder / 'registered.crt'), 'jwt': str(entra.folder / 'shown.jwt'), 'algorithm': algorithm,
        'audience': url, 'client': address['client']}, {}, address['ca_file'])
    thumbprint = urlsafe_b64decode((header.get('x5t#S256') or header['x5t']) + '==').hex()
    assert thumbprint == (sha256 if algorithm == 'PS256' else sha1)
    assert header['alg'] == algorithm and claims['sub'] == address['client'] and claims['exp'] - claims['nbf'] == 600


PYTHON = '''
import json, sys
import azure.identity as identity
kind, given, more, scope = json.loads(sys.argv[1])
token = getattr(identity, kind)(**given, **more).get_token(scope)
print(json.dumps(token.token))
'''

NODE = '''
const identity = require('@azure/identity');
const [kind, given, scope] = JSON.parse(process.argv[process.argv.length - 1]);
new identity[kind](...given).getToken(scope).then(
    token => console.log(JSON.stringify(token.token)),
    error => { console.error(error); process.exit(1); });
'''

APPS = {
    'secret': (lambda end, f: ('ClientSecretCredential', {'client_secret': f['secret'].read_text().strip()}),
               lambda end, f: ('ClientSecretCredential', f['secret'].read_text().strip())),
    'certificate': (lambda end, f: ('CertificateCredential', {'certificate_path': str(f['pem'])}),
                    lambda end, f: ('ClientCertificateCredential', {'certificatePath': str(f['pem'])})),
    'PKCS#12': (lambda end, f: ('CertificateCredential', {'certificate_path': str(f['pfx']),
                                                         'password': f['password'].read_text().rstrip('\n')}), None),
    'workload identity': (lambda end, f: ('WorkloadIdentityCredential', {'token_file_path': str(f['token'])}),
                          lambda end, f: ('WorkloadIdentityCredential', None)),
}
MACHINES = {'VM': imds, 'App Service': app_service, 'Arc': arc}


# Microsoft's library for Node reads PEM alone.
@pytest.mark.parametrize('kind, library', [(kind, library) for kind in [*APPS, *MACHINES] for library in ('Python', 'Node')
                                           if (kind, library) != ('PKCS#12', 'Node')])
def test_microsofts_own_clients_get_a_token_here(tmp_path, entra, kind, library):
    address, variables, within = entra.address, {}, []
    if kind in MACHINES:
        variables = MACHINES[kind](entra)
        within = [arc_machine(tmp_path, entra)] if kind == 'Arc' else []
        python, node = ('ManagedIdentityCredential', {}), ('ManagedIdentityCredential', [])
        more = {}
    else:
        of_python, of_node = APPS[kind]
        python = of_python(entra, files(entra))
        more = {'tenant_id': address['tenant'], 'client_id': address['client'], 'authority': address['endpoint'],
                'disable_instance_discovery': True}
        options = {'authorityHost': address['endpoint'], 'disableInstanceDiscovery': True}
        node = of_node(entra, files(entra)) if of_node else None
        if node and node[1] is None:
            node = (node[0], [{'tenantId': address['tenant'], 'clientId': address['client'], 'tokenFilePath': str(files(entra)['token']),
                               **options}])
        elif node:
            node = (node[0], [address['tenant'], address['client'], node[1], options])
    if library == 'Python':
        interpreter = unavailable(python_client)
        token = run_script([interpreter, '-c', PYTHON], [*python, more, address['scope']], variables, address['ca_file'], within)
    else:
        folder = unavailable(node_client)
        script = tmp_path / 'token.js'
        script.write_text(NODE)
        token = run_script(['node', script], [*node, address['scope']],
                           {**variables, 'NODE_PATH': str(folder / 'node_modules')}, address['ca_file'], within)
    assert token.startswith('eyJ')
