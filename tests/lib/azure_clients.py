"""Microsoft's own client libraries, unchanged: Python's from PyPI, Node's from npm, into $PENSTOCK_CACHE, once."""
import json
import os
import shutil
import subprocess

from azurite import cache, run
from kafka import Unavailable

PYTHON = ['azure-monitor-ingestion==1.0.4', 'azure-identity==1.27.0', 'PyJWT[crypto]==2.15.1']
NODE = '@azure/identity@4.9.1'     # runs on the Node of Debian 12

# What Microsoft's libraries have from other packages counts on Node 20's global `crypto`, which Debian 12's Node 18 hides.
FOR_NODE = {'NODE_OPTIONS': '--experimental-global-webcrypto'}


def python_client():
    """An interpreter that has azure.identity, azure.monitor.ingestion and jwt."""
    def fill(folder):
        run('/usr/bin/python3', '-m', 'venv', folder / 'venv')
        run(folder / 'venv' / 'bin' / 'pip', 'install', '-q', *PYTHON)
    return cache('azure-python-clients', fill) / 'venv' / 'bin' / 'python'


def node_client():
    """A folder whose node_modules has @azure/identity."""
    for tool in ('node', 'npm'):
        if not shutil.which(tool):
            raise Unavailable(f'{tool} is not installed')
    return cache(NODE.replace('@', '-').replace('/', '-').strip('-'), lambda folder: run(
        'npm', 'install', '--no-audit', '--no-fund', '--ignore-scripts', '--omit=dev', '--prefix', folder, NODE))


def run_script(words, given, variables, ca_file, within=()):
    """What the script prints, read as JSON; `given` is its one argument. `within`: a program to run it in."""
    done = subprocess.run([*map(str, within), *map(str, words), json.dumps(given)], capture_output=True, text=True, timeout=180,
                          env={**os.environ, **FOR_NODE, 'REQUESTS_CA_BUNDLE': str(ca_file), 'NODE_EXTRA_CA_CERTS': str(ca_file),
                               'NO_PROXY': '127.0.0.1,localhost', **variables})
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)
