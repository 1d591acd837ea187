"""Bicep, read by a parser that is not ours: pycep-parser of PyPI, in a virtual environment that is kept between runs.

Microsoft's own compiler comes in no package registry, so types and expressions are not checked: only the grammar, and that
the file says what the ARM template says.
"""
import json
import os
import subprocess
import sys

import pytest

READ = 'import json, pathlib, pycep, sys; print(json.dumps(pycep.BicepParser().parse(file_path=pathlib.Path(sys.argv[1]))))'


def read_bicep(path):
    """The file's parameters, resources and outputs as a tree; a test that cannot have the parser is skipped."""
    done = subprocess.run([parser_python(), '-c', READ, str(path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def parser_python():
    cache = os.environ.get('PENSTOCK_CACHE') or os.path.expanduser('~/.cache/penstock')
    home = os.path.join(cache, 'bicep')
    if not os.path.exists(os.path.join(home, 'complete')):
        interpreter = '/usr/bin/python3' if os.path.exists('/usr/bin/python3') else sys.executable
        for words in ([interpreter, '-m', 'venv', '--clear', home], [f'{home}/bin/pip', 'install', '-q', 'pycep-parser==0.7.1']):
            done = subprocess.run(words, capture_output=True, text=True)
            if done.returncode != 0:
                pytest.skip(f'no parser of Bicep: {" ".join(words[:3])}: {(done.stderr or done.stdout).strip()[-300:]}')
        open(os.path.join(home, 'complete'), 'w').close()
    return f'{home}/bin/python'
