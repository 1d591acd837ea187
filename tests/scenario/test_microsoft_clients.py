"""Microsoft's own clients of the ingestion API, unchanged, against the far end's stand-in: so that it is not our daemon's mirror
image. What they send is accepted; what the service would refuse them is refused here in the words it has for it.

They come from PyPI and npm into $PENSTOCK_CACHE, by default ~/.cache/penstock, once.
"""
import json
import os
import pathlib
import subprocess
import sys

import pytest

from azure_clients import FOR_NODE
from farend import FarEnd

NETWORK = 'Custom-PenstockNetworkSession'
ROW = {'TimeGenerated': '2026-11-22T03:29:33.5481234Z', 'EventOriginalUid': 'a-1', 'SrcBytes': 2**40, 'SrcPortNumber': 443,
       'SrcGeoLatitude': 1.5, 'TcpFlagsAck': True, 'AdditionalFields': {'Rule': ['x']}, 'EventMessage': 'h\u00e9'}

# Each reads {"address": {…}, "secret": text, "uploads": [{"dcr", "stream", "rows"}]} and prints one [status, code] an upload.

PYTHON = '''
import json, sys
from azure.identity import ClientSecretCredential
from azure.monitor.ingestion import LogsIngestionClient
given = json.load(sys.stdin)
address = given['address']
credential = ClientSecretCredential(address['tenant'], address['client'], given['secret'], authority=address['endpoint'],
                                    disable_instance_discovery=True)
client = LogsIngestionClient(address['endpoint'], credential, retry_backoff_factor=0.05)
answers = []
for upload in given['uploads']:
    answer = [204, None]
    def failed(upload_error):
        error = upload_error.error
        token = 'AADSTS7000215' in str(error)
        answer[:] = [401, 'AADSTS7000215'] if token else [error.status_code, error.error.code]
    client.upload(rule_id=upload['dcr'], stream_name=upload['stream'], logs=upload['rows'], on_error=failed)
    answers.append(answer)
print(json.dumps(answers))
'''

JAVASCRIPT = '''
const { ClientSecretCredential } = require('@azure/identity');
const { LogsIngestionClient } = require('@azure/monitor-ingestion');
const given = JSON.parse(require('fs').readFileSync(0));
const address = given.address;
const credential = new ClientSecretCredential(address.tenant, address.client, given.secret,
                                              { authorityHost: address.endpoint, disableInstanceDiscovery: true });
const client = new LogsIngestionClient(address.endpoint, credential, { retryOptions: { retryDelayInMs: 50 } });
(async () => {
  const answers = [];
  for (const upload of given.uploads) {
    let answer = [204, null];
    const failed = (error) => {
      if (String(error).includes('AADSTS7000215')) answer = [401, 'AADSTS7000215'];
      else answer = [error.statusCode, error.code];
    };
    try {
      await client.upload(upload.dcr, upload.stream, upload.rows, { onError: ({ cause }) => failed(cause) });
    } catch (error) {
      if (answer[0] === 204) failed(error);
    }
    answers.push(answer);
  }
  console.log(JSON.stringify(answers));
})();
'''


def install(home, *commands):
    """Runs them once; a skip where the registry cannot be reached."""
    if not (home / 'complete').exists():
        home.parent.mkdir(parents=True, exist_ok=True)
        for words in commands:
            done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
            if done.returncode != 0:
                pytest.skip(f'no official client: {" ".join(map(str, words[:3]))}: {(done.stderr or done.stdout).strip()[-300:]}')
        (home / 'complete').touch()


def client_command(language):
    """The words that run it, and the variables by which it finds the authority to trust."""
    cache = pathlib.Path(os.environ.get('PENSTOCK_CACHE') or os.path.expanduser('~/.cache/penstock'))
    if language == 'python':
        home = cache / 'azure-client'
        interpreter = '/usr/bin/python3' if os.path.exists('/usr/bin/python3') else sys.executable
        install(home, (interpreter, '-m', 'venv', '--clear', home),
                (home / 'bin' / 'pip', 'install', '-q', 'azure-monitor-ingestion==1.0.4', 'azure-identity'))
        return [home / 'bin' / 'python', '-c', PYTHON], 'REQUESTS_CA_BUNDLE', {}
    # The newest wants Node 20, where Debian 12 has 18.
    node = subprocess.run(['node', '--version'], capture_output=True, text=True).stdout.strip() or pytest.skip('no node')
    version = '1.2.0' if int(node.lstrip('v').split('.')[0]) >= 20 else '1.0.0'
    home = cache / f'azure-client-js-{version}'
    install(home, ('npm', 'install', '--no-audit', '--no-fund', '--ignore-scripts', '--prefix', home,
                   f'@azure/monitor-ingestion@{version}', '@azure/identity@4.4.1'))
    return ['node', '-e', JAVASCRIPT], 'NODE_EXTRA_CA_CERTS', {'NODE_PATH': str(home / 'node_modules'), **FOR_NODE}


@pytest.fixture(params=['python', 'javascript'])
def client(request, tmp_path):
    """A far end, and a function by which the client uploads to it."""
    command, authority, variables = client_command(request.param)
    with FarEnd(tmp_path / 'farend') as far_end:
        # Their limit is 1 MiB of JSON before compression, a little more than the one we set ourselves.
        far_end.settings(json_max=1_048_576 + 4096)

        def upload(*uploads, secret=None):
            given = {'address': far_end.address, 'secret': secret or open(far_end.address['secret_file']).read(),
                     'uploads': [{'dcr': far_end.address['dcr'], 'stream': NETWORK, 'rows': [ROW], **one} for one in uploads]}
            (tmp_path / 'given').write_text(json.dumps(given))         # Node 18 cannot wait for a pipe
            with open(tmp_path / 'given') as stdin:
                done = subprocess.run(command, stdin=stdin, capture_output=True, text=True, timeout=300, env={
                    **os.environ, **variables, authority: far_end.address['ca_file'], 'NO_PROXY': '127.0.0.1', 'no_proxy': '127.0.0.1'})
            assert done.returncode == 0, done.stderr
            return [tuple(answer) for answer in json.loads(done.stdout)]
        yield far_end, upload


def test_what_they_send_is_accepted(client):
    """In several calls, compressed, through a far end that is busy and in trouble at first."""
    far_end, upload = client
    far_end.fault(do='status', status=503, count=1)
    far_end.fault(do='status', status=429, retry_after=1, count=1)
    rows = [dict(ROW, EventOriginalUid=f'official-{i}', EventMessage='x' * 700) for i in range(4000)]
    assert upload({'rows': rows}) == [(204, None)]
    assert sorted(far_end.uids()) == sorted(row['EventOriginalUid'] for row in rows)
    assert far_end.violations() == []
    taken = [request for request in far_end.requests() if request['status'] == 204]
    assert len(taken) >= 3 and all(request['encoding'] == 'gzip' for request in taken)


def test_what_they_would_be_refused_is_refused(client):
    far_end, upload = client
    nobody = 'dcr-' + 'f' * 32
    assert upload({'stream': 'Custom-None'}, {'dcr': nobody}, {'rows': [dict(ROW, EventMessage='x' * 1_200_000)]},
                  {'rows': [dict(ROW, Nonsense=1)]}, {'rows': [dict(ROW, SrcBytes='many')]}, {}) == [
        (404, 'NotFound'), (404, 'NotFound'), (413, 'ContentLengthLimitExceeded'), (400, 'InvalidRow'), (400, 'InvalidRow'), (204, None)]
    # Half an hour where the stream is declared so; and what the service loses without a word is lost as quietly.
    far_end.settings(span_streams=[NETWORK], strict=False)
    rows = [ROW, dict(ROW, TimeGenerated='2026-11-22T04:29:33Z')]
    assert upload({'rows': rows}, {'rows': [dict(ROW, Nonsense=1)]}) == [(400, 'RecordsTimeRangeIsMoreThan30Minutes'), (204, None)]
    far_end.settings(granted=False)
    assert upload({}) == [(403, 'OperationFailed')]
    assert upload({}, secret='wrong') == [(401, 'AADSTS7000215')]
