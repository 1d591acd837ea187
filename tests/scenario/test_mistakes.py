"""What users meet when they make the commonest mistakes: mistakes/*.txt, run again and compared word by word. Each message says what
happened, where, and what to do; after a change of words, `pytest tests/scenario/test_mistakes.py --update` writes them anew, to be read."""
import glob
import os
import pathlib

import pytest
import transcript
from azurite import KEY
from clock import LIBRARY
from farend import FarEnd
from penstock import ROOT, binary, environment

FOLDER = pathlib.Path(__file__).parent / 'mistakes'
FILES = {file.stem: transcript.Transcript(file) for file in sorted(FOLDER.glob('*.txt'))}

# What the transcripts use beside penstock: run to a line and stopped, the stand-in's remote control, a clock of one's own.
TOOLS = {
    'till': r'''#!/usr/bin/python3
import signal, subprocess, sys
signal.alarm(60)
words, (command, _, then) = sys.argv[1], ' '.join(sys.argv[2:]).partition(', then ')
daemon = subprocess.Popen(command.split(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
signal.signal(signal.SIGALRM, lambda *_: daemon.kill())
for line in daemon.stdout:
    print(line, end='', flush=True)
    if words in line:
        break
if then:
    print('then', then, flush=True)
    print(f'[{subprocess.run(then.split(), check=False).returncode}]')
daemon.terminate()
daemon.stdout.read()
sys.exit(daemon.wait())
''',
    'farend': r'''#!/usr/bin/python3
import json, os, sys, urllib.request
given = {key: json.loads(value) for key, value in (word.split('=') for word in sys.argv[2:])}
request = urllib.request.Request(f'{os.environ["CONTROL"]}/{sys.argv[1]}', json.dumps(given).encode(), {'Content-Type': 'application/json'})
urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30).read()
''',
    'wrong-clock': f'''#!/bin/bash
library=(${{FAKETIME_LIBRARY:-{LIBRARY}}}) shift=$1
shift
FAKETIME="$shift" DONT_FAKE_MONOTONIC=1 FAKETIME_DONT_FAKE_MONOTONIC=1 NO_FAKE_STAT=1 LD_PRELOAD=${{library[0]}} exec "$@"
''',
}


@pytest.fixture(scope='module')
def tools(tmp_path_factory):
    folder = tmp_path_factory.mktemp('tools')
    for name, text in TOOLS.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    (folder / 'penstock').symlink_to(binary())
    return folder


@pytest.fixture(scope='module')
def around(tools, tmp_path_factory):
    """What the commands find in their environment."""
    with FarEnd(tmp_path_factory.mktemp('farend')) as far_end:
        yield {**{name: value for name, value in environment().items() if name != 'CREDENTIALS_DIRECTORY'}, 'LC_ALL': 'C.UTF-8',
               'PATH': f'{tools}:{os.environ["PATH"]}', 'TESTS': str(ROOT / 'tests'), 'ENDPOINT': far_end.address['endpoint'],
               'CONTROL': far_end.address['control'], 'FAREND': str(far_end.folder)}


@pytest.fixture(scope='module')
def kafka(broker):
    broker.create_topic('azure.security')
    return {'BROKER': broker.bootstrap_sasl, 'BROKER_CA': str(broker.ca), 'PASSWORD': broker.password}


@pytest.fixture(scope='module')
def storage(azurite):
    azurite.container('logs')
    return {'ACCOUNT': azurite.url, 'KEY': KEY, 'SAS': azurite.sas('logs'), 'SAS_READ': azurite.sas('logs', 'r'),
            'SAS_EXPIRED': azurite.sas('logs', seconds=-3600)}


@pytest.fixture(scope='module')
def written(request):
    """With --update the sections as they are now, put into their files at the end."""
    made = {}
    yield made
    for name, sections in made.items():
        FILES[name].save({**FILES[name].sections, **sections})


@pytest.mark.plain
@pytest.mark.parametrize('name, heading', [
    pytest.param(name, heading, marks=[pytest.mark.kafka] * (name == 'kafka')) for name, file in FILES.items() for heading in file.sections])
def test_a_mistake_is_told_as_it_was(name, heading, tmp_path, around, written, request):
    if any('wrong-clock' in line for line in FILES[name].sections[heading]) and not glob.glob(LIBRARY):
        pytest.skip('libfaketime is not installed')
    more = request.getfixturevalue(name) if name in ('kafka', 'storage') else {}
    now = transcript.run(tmp_path, FILES[name].before, FILES[name].sections[heading], {**around, **more})
    if request.config.getoption('--update'):
        written.setdefault(name, {})[heading] = now
        return
    assert now == FILES[name].sections[heading]
