"""Promise: the same records make the same messages, byte for byte, until someone changes tests/golden on purpose."""
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / 'golden'))

import run                               # noqa: E402

pytestmark = pytest.mark.skipif(not run.binary().exists(), reason=f'no {run.binary()}: build first, or set PENSTOCK_BIN')


@pytest.mark.parametrize('schema', run.SCHEMAS)
@pytest.mark.parametrize('path', run.inputs(), ids=lambda path: f'{path.parent.name}/{path.stem}')
def test_golden(path, schema):
    difference = run.difference(path, schema)
    assert not difference, f'{difference}\nIf this is what you want: tests/golden/run.py --update'


def test_no_orphans():
    """Every output has its input."""
    wanted = {run.golden(path, schema) for path in run.inputs() for schema in run.SCHEMAS}
    assert set(run.FOLDER.glob('*/*.out')) == wanted
