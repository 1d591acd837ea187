"""The far end's stand-in keeps the documented rules, so that what passes here passes there."""
import gzip
import http.client
import json
import ssl
import threading
import urllib.parse
import uuid

import pytest

from farend import FarEnd
from penstock import ROOT, wait_until

NETWORK = 'Custom-PenstockNetworkSession'
ROW = {'TimeGenerated': '2026-11-22T03:29:33.5481234Z', 'EventOriginalUid': 'a-1', 'SrcBytes': 2**40, 'SrcPortNumber': 443,
       'SrcGeoLatitude': 1.5, 'TcpFlagsAck': True, 'AdditionalFields': {'Rule': ['x']}, 'EventMessage': 'h\u00e9'}


class Caller:
    """Speaks to the stand-in as a client of the API would."""

    def __init__(self, far_end):
        self.far_end = far_end
        self.address = far_end.address
        self.context = ssl.create_default_context(cafile=self.address['ca_file'])
        self.bearer = None

    def call(self, method, path, body=None, headers=None):
        where = urllib.parse.urlsplit(self.address['endpoint'])
        connection = http.client.HTTPSConnection(where.hostname, where.port, context=self.context, timeout=20)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            text = answer.read()
            is_json = answer.headers.get_content_type() == 'application/json'
            return answer.status, json.loads(text) if text and is_json else None, answer.headers
        finally:
            connection.close()

    def token(self, tenant=None, **form):
        form = {'grant_type': 'client_credentials', 'client_id': self.address['client'],
                'client_secret': open(self.address['secret_file']).read(), 'scope': self.address['scope'], **form}
        form = {key: value for key, value in form.items() if value is not None}
        return self.call('POST', f'/{tenant or self.address["tenant"]}/oauth2/v2.0/token', urllib.parse.urlencode(form),
                         {'Content-Type': 'application/x-www-form-urlencoded'})

    def post(self, body, stream=NETWORK, dcr=None, version='2023-01-01', compress=False, method='POST', **headers):
        if self.bearer is None:
            self.bearer = self.token()[1]['access_token']
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if compress:
            body = gzip.compress(body)
            headers['Content-Encoding'] = 'gzip'
        headers = {'Authorization': f'Bearer {self.bearer}', 'Content-Type': 'application/json',
                   **{key.replace('_', '-'): value for key, value in headers.items()}}
        headers = {key: value for key, value in headers.items() if value is not None}
        return self.call(method, f'/dataCollectionRules/{dcr or self.address["dcr"]}/streams/{stream}?api-version={version}',
                         body, headers)


@pytest.fixture(scope='module')
def shared(tmp_path_factory):
    with FarEnd(tmp_path_factory.mktemp('farend')) as started:
        yield started


@pytest.fixture
def caller(shared):
    """The module's stand-in, put back to its defaults."""
    shared.clear()
    shared.settings(strict=True, json_max=1_000_000, granted=True, requests_per_window=12_000, bytes_per_window=2_000_000_000,
                    window_seconds=60, span_streams=[])
    shared.token(token_seconds=3599, refresh_in=None)
    return Caller(shared)


def test_rows_are_accepted_in_order_and_kept(caller):
    before = caller.far_end.count()
    rows = [dict(ROW, EventOriginalUid=f'order-{i}') for i in range(20)]
    status, body, headers = caller.post(rows[:10], x_ms_client_request_id=str(uuid.uuid4()))
    assert (status, body) == (204, None) and headers['x-ms-request-id']
    assert caller.post(rows[10:], compress=True)[0] == 204
    assert caller.far_end.count() == before + 20
    assert caller.far_end.rows(NETWORK)[-20:] == rows
    assert caller.far_end.uids()[-20:] == [row['EventOriginalUid'] for row in rows]


@pytest.mark.parametrize('change, status, code', [
    ({'version': '2020-01-01'}, 400, 'UnsupportedApiVersion'),
    ({'Authorization': None}, 401, 'InvalidToken'),
    ({'Authorization': 'Bearer nonsense'}, 401, 'InvalidToken'),
    ({'dcr': 'dcr-' + 'f' * 32}, 404, 'NotFound'),
    ({'stream': 'Custom-None'}, 404, 'NotFound'),
    ({'Content_Type': 'text/plain'}, 415, 'UnsupportedMediaType'),
    ({'Content_Encoding': 'deflate'}, 415, 'UnsupportedMediaType'),
    ({'x_ms_client_request_id': 'no guid'}, 400, 'InvalidClientRequestId'),
])
def test_a_wrong_call_is_refused(caller, change, status, code):
    got, body, headers = caller.post([ROW], **change)
    assert (got, body['error']['code'], headers['x-ms-error-code']) == (status, code, code)


def test_only_post_is_known(caller):
    assert caller.post([ROW], method='PUT')[0] == 405


@pytest.mark.parametrize('body, status', [
    (b'', 500), (b'[]', 500), (b'{}', 400), (b'[1]', 400), (b'[{"a":1},[]]', 400), (b'[{"a":1}', 400), (b'[{"a":NaN}]', 400),
    (b'[{"a":"\xff"}]', 400), (b'[{"a":"\x01"}]', 400), (b'[' * 100_000, 400), (b'[{}]x', 400),
], ids=lambda value: str(value)[:20])
def test_a_wrong_body_is_refused(caller, body, status):
    assert caller.post(body)[0] == status


@pytest.mark.parametrize('body', [b'no gzip', gzip.compress(b'[{}]', mtime=0)[:-9]])
def test_broken_gzip_is_refused(caller, body):
    assert caller.post(body, Content_Encoding='gzip')[0] == 400


def test_one_megabyte_on_the_wire_is_the_end(caller):
    caller.far_end.settings(json_max=0)
    row = json.dumps([ROW]).encode()
    assert caller.post(row + b' ' * (1_048_576 - len(row)))[0] == 204
    status, body, headers = caller.post(row + b' ' * (1_048_577 - len(row)))
    assert status == 413 and headers['x-ms-error-code'] == 'ContentLengthLimitExceeded'
    assert body['error'] == {'code': 'ContentLengthLimitExceeded', 'message':
                             'Maximum allowed content length: 1048576 bytes (1 MB). Provided content length: 1048577 bytes.'}


def test_a_million_bytes_of_json_is_our_own_end(caller):
    row = json.dumps([ROW]).encode()
    assert caller.post(row + b' ' * (1_000_000 - len(row)), compress=True)[0] == 204
    before = len(caller.far_end.violations())
    assert caller.post(row + b' ' * (1_000_001 - len(row)), compress=True)[0] == 413
    assert caller.far_end.violations()[before:] == [(NETWORK, None, None, 'json-too-large')]


def test_a_gzip_bomb_is_refused(caller):
    caller.far_end.settings(json_max=0)
    assert caller.post(b'[' + b' ' * (50 * 1024 * 1024) + b']', compress=True)[0] == 413


@pytest.mark.parametrize('change, column, what', [
    ({'Nonsense': 1}, 'Nonsense', 'undeclared-column'),
    ({'TenantId': 'x'}, 'TenantId', 'undeclared-column'),
    ({'EventCount': '1'}, 'EventCount', 'type'),
    ({'EventCount': 2**31}, 'EventCount', 'type'),
    ({'EventCount': True}, 'EventCount', 'type'),
    ({'SrcBytes': 2**63}, 'SrcBytes', 'type'),
    ({'SrcGeoLatitude': '1.5'}, 'SrcGeoLatitude', 'type'),
    ({'TcpFlagsAck': 1}, 'TcpFlagsAck', 'type'),
    ({'EventMessage': 5}, 'EventMessage', 'type'),
    ({'EventStartTime': '22/11/2026'}, 'EventStartTime', 'type'),
    ({'EventStartTime': '2026-13-01T00:00:00Z'}, 'EventStartTime', 'type'),
    ({'TimeGenerated': None}, 'TimeGenerated', 'missing'),
])
def test_what_the_service_would_lose_is_a_violation(caller, change, column, what):
    rows = [ROW, dict(ROW, **change)]
    for strict, status in ((True, 400), (False, 204)):
        caller.far_end.settings(strict=strict)
        before, count = len(caller.far_end.violations()), caller.far_end.count()
        assert caller.post(rows)[0] == status
        assert caller.far_end.violations()[before:] == [(NETWORK, 1, column, what)]
        assert caller.far_end.count() == count + (0 if strict else 2)


def test_a_key_given_twice_is_a_violation(caller):
    before = len(caller.far_end.violations())
    assert caller.post(b'[{"TimeGenerated":"2026-11-22T00:00:00Z","SrcDvcId":"1","SrcDvcId":"2"}]')[0] == 400
    assert caller.far_end.violations()[before:] == [(NETWORK, None, 'SrcDvcId', 'duplicate-key')]


@pytest.mark.parametrize('column, value', [('EventMessage', '\u00e9' * 32_769), ('AdditionalFields', {'x': 'y' * 65_536})],
                         ids=['string', 'dynamic'])
def test_a_long_value_would_be_cut(caller, column, value):
    for strict, status in ((True, 400), (False, 204)):
        caller.far_end.settings(strict=strict)
        before = len(caller.far_end.violations())
        assert caller.post([dict(ROW, **{column: value})])[0] == status
        assert caller.far_end.violations()[before:] == [(NETWORK, 0, column, 'field-too-long')]


def test_the_raw_stream_takes_any_column(caller):
    before = len(caller.far_end.violations())
    assert caller.post([{'time': 'x', 'TimeGenerated': '2026-11-22T00:00:00Z', 'anything': [1]}], 'Custom-PenstockRaw')[0] == 204
    assert len(caller.far_end.violations()) == before


def test_half_an_hour_where_asked_for(caller):
    rows = [dict(ROW, TimeGenerated='2026-11-22T00:00:00Z'), dict(ROW, TimeGenerated='2026-11-22T00:30:00.1Z')]
    assert caller.post(rows)[0] == 204
    caller.far_end.settings(span_streams=[NETWORK])
    assert caller.post(rows)[1]['error']['code'] == 'RecordsTimeRangeIsMoreThan30Minutes'
    assert caller.post(rows[:1])[0] == 204


@pytest.mark.parametrize('limit', [{'requests_per_window': 2}, {'bytes_per_window': 900}])
def test_too_much_is_throttled_until_the_window_ends(caller, limit):
    caller.post([ROW])
    caller.far_end.settings(window_seconds=1, **limit)
    answers = [caller.post([dict(ROW, EventMessage='x' * 200)]) for _ in range(5)]
    assert 429 in [status for status, _, _ in answers]
    assert all(int(headers['Retry-After']) >= 1 for status, _, headers in answers if status == 429)
    wait_until(lambda: caller.post([ROW])[0] == 204, 5)


def test_missing_rights(caller):
    caller.far_end.settings(granted=False)
    status, body, _ = caller.post([ROW])
    assert status == 403 and body['error']['code'] == 'OperationFailed'
    assert caller.address['dcr'] in body['error']['message'] and 'AccessGranted: False' in body['error']['message']


@pytest.mark.parametrize('change, status, error, code', [
    ({'tenant': str(uuid.uuid4())}, 400, 'invalid_request', 90002),
    ({'grant_type': None}, 400, 'invalid_request', 900144),
    ({'grant_type': 'password'}, 400, 'unsupported_grant_type', 70003),
    ({'client_id': 'somebody'}, 400, 'unauthorized_client', 700016),
    ({'client_secret': None}, 401, 'invalid_client', 7000216),
    ({'client_secret': 'wrong'}, 401, 'invalid_client', 7000215),
    ({'scope': 'https://monitor.azure.com'}, 400, 'invalid_scope', 70011),
    ({'scope': 'https://vault.azure.net/.default'}, 400, 'invalid_resource', 500011),
])
def test_token_errors(caller, change, status, error, code):
    got, body, _ = caller.token(**change)
    assert (got, body['error'], body['error_codes']) == (status, error, [code])
    assert body['error_description'].startswith(f'AADSTS{code}: ')


def test_a_token_ends_and_can_be_revoked(caller):
    assert caller.post([ROW])[0] == 204
    caller.far_end.revoke_tokens()
    assert caller.post([ROW])[0] == 401
    caller.far_end.token(token_seconds=1, refresh_in=1)
    answer = caller.token()[1]
    assert (answer['expires_in'], answer['refresh_in'], answer['token_type']) == (1, 1, 'Bearer')
    caller.bearer = answer['access_token']
    assert caller.post([ROW])[0] == 204
    wait_until(lambda: caller.post([ROW])[0] == 401, 5)


def test_a_rotated_secret(caller):
    old = open(caller.address['secret_file']).read()
    caller.far_end.rotate_secret()
    assert caller.token(client_secret=old)[0] == 401
    assert caller.token()[0] == 200
    caller.far_end.rotate_secret(write=False)
    assert caller.token()[0] == 401
    caller.far_end.rotate_secret()


def test_faults_come_in_order_and_end(caller):
    caller.far_end.fault(do='status', status=503, count=2)
    caller.far_end.fault(do='status', status=429, retry_after=7)
    answers = [caller.post([ROW]) for _ in range(4)]
    assert [status for status, _, _ in answers] == [503, 503, 429, 204]
    assert answers[2][2]['Retry-After'] == '7'


@pytest.mark.parametrize('word, accepted', [('reset', 0), ('reset-late', 0), ('lose-answer', 1), ('garbage', 0)])
def test_a_broken_connection_and_what_was_accepted(caller, word, accepted):
    assert caller.post([ROW])[0] == 204
    before = caller.far_end.count()
    caller.far_end.fault(do=word)
    with pytest.raises((OSError, http.client.HTTPException)):
        caller.post([ROW])
    assert caller.far_end.count() == before + accepted
    wait_until(lambda: caller.far_end.requests()[-1]['fault'] == word, what='the line that is written after the answer')
    assert caller.post([ROW])[0] == 204


def test_hanging_ends_when_cleared(caller):
    caller.post([ROW])
    caller.far_end.fault(do='hang')
    ended = []

    def hang():
        try:
            caller.post([ROW])
        except (OSError, http.client.HTTPException) as error:
            ended.append(error)
    thread = threading.Thread(target=hang)
    thread.start()
    wait_until(lambda: caller.far_end.state()['faults_waiting'] == 0, 5)
    assert not ended
    caller.far_end.clear()
    thread.join(10)
    assert ended


def test_token_faults(caller):
    caller.far_end.fault(where='token', do='status', status=429, retry_after=3)
    status, _, headers = caller.token()
    assert (status, headers['Retry-After']) == (429, '3')
    assert caller.token()[0] == 200


def test_unknown_faults_and_settings_are_refused(caller):
    for word in (lambda: caller.far_end.fault(do='explode'), lambda: caller.far_end.fault(do='status', colour=1),
                 lambda: caller.far_end.settings(colour=1), lambda: caller.far_end.token(colour=1)):
        with pytest.raises(ValueError, match='no such'):
            word()


def test_down_refuses_and_up_is_the_same_place(caller):
    assert caller.post([ROW])[0] == 204
    caller.far_end.down()
    with pytest.raises(ConnectionRefusedError):
        caller.post([ROW])
    caller.far_end.up()
    assert caller.post([ROW])[0] == 204


@pytest.mark.filterwarnings('ignore:ssl.TLSVersion.TLSv1_1')
def test_nobody_else_is_trusted_and_old_tls_is_refused(caller):
    caller.context = ssl.create_default_context()
    with pytest.raises(ssl.SSLCertVerificationError):
        caller.token()
    caller.context = ssl.create_default_context(cafile=caller.address['ca_file'])
    caller.context.set_ciphers('ALL:@SECLEVEL=0')
    caller.context.minimum_version = caller.context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        caller.token()


ARM = '/subscriptions/99999999-8888-7777-6666-555555555555/resourceGroups/siem/providers/'
RULE = ARM + 'Microsoft.Insights/dataCollectionRules/penstock'
METRICS = RULE + '/providers/Microsoft.Insights/metrics?api-version=2018-01-01&aggregation=Total&interval=PT1H' \
                 '&timespan=2026-11-22T08:00:00Z/2026-11-22T09:00:00Z&metricnames='


@pytest.mark.parametrize('path, scope, status, code', [
    (RULE + '?api-version=2023-03-11', 'https://management.azure.com/.default', 200, None),
    (RULE.lower() + '?api-version=2023-03-11', 'https://management.azure.com/.default', 200, None),
    (RULE + '?api-version=2023-03-11', 'https://monitor.azure.com/.default', 401, 'InvalidAuthenticationToken'),
    (RULE + '?api-version=2023-03-11', None, 401, 'InvalidAuthenticationToken'),
    (RULE + '?api-version=2018-01-01', 'https://management.azure.com/.default', 400, 'InvalidApiVersionParameter'),
    (RULE + 'x?api-version=2023-03-11', 'https://management.azure.com/.default', 404, 'ResourceNotFound'),
    (METRICS + 'RowsReceived_Count', 'https://management.azure.com/.default', 200, None),
    (METRICS + 'RowsReceived_Count,Rows', 'https://management.azure.com/.default', 400, 'BadRequest'),
    (METRICS.replace('PT1H', 'PT1M') + 'RowsReceived_Count', 'https://management.azure.com/.default', 200, None),
    (METRICS.replace('PT1H', 'PT1M').replace('08:00:00', '08:00:01') + 'RowsReceived_Count',
     'https://management.azure.com/.default', 400, 'BadRequest'),
    (METRICS.replace('PT1H', 'PT2M') + 'RowsReceived_Count', 'https://management.azure.com/.default', 400, 'BadRequest'),
    (METRICS.replace('T09', 'T07') + 'RowsReceived_Count', 'https://management.azure.com/.default', 400, 'BadRequest'),
])
def test_resource_manager_is_strict(tmp_path, path, scope, status, code):
    with FarEnd(tmp_path / 'farend') as far_end:
        far_end.deploy(json.loads((ROOT / 'conf' / 'dcr.json').read_text()), workspaceResourceId=ARM + 'x/workspaces/siem')
        caller = Caller(far_end)
        headers = {'Authorization': 'Bearer ' + caller.token(scope=scope)[1]['access_token']} if scope else {}
        got, body, _ = caller.call('GET', path, None, headers)
        assert (got, body.get('error', {}).get('code')) == (status, code)
        if status == 200 and 'metrics' not in path:
            assert body['properties']['immutableId'] == far_end.address['dcr'] and body['id'] == RULE


def test_count_mode_counts_without_reading(tmp_path):
    with FarEnd(tmp_path, '--check', 'count', '--keep', 'ids') as far_end:
        caller = Caller(far_end)
        assert caller.post([ROW] * 50, compress=True)[0] == 204
        assert far_end.state()['rows'] == {NETWORK: 50}
        assert caller.post({'a': 1})[0] == 400


def test_ids_alone_are_kept_where_asked(tmp_path):
    with FarEnd(tmp_path, '--keep', 'ids') as far_end:
        assert Caller(far_end).post([ROW])[0] == 204
        assert far_end.query('SELECT uid, row FROM rows') == [('a-1', None)]


def test_it_ends_with_its_starter(tmp_path):
    far_end = FarEnd(tmp_path).start()
    far_end.process.stdin.close()
    assert far_end.process.wait(10) == 0
