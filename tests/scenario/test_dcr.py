"""Promise: whoever deploys conf/dcr.json loses no column. It declares what asim.c writes, and all of it fits the tables."""
import csv
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'tests' / 'lib'))
sys.path.insert(0, str(ROOT / 'tests' / 'farend'))

from penstock import binary      # noqa: E402
from streams import CHECKS, COLUMN_NAME, RESERVED_COLUMNS      # noqa: E402

TEMPLATE = json.loads((ROOT / 'conf' / 'dcr.json').read_text())
TABLE, RULE = TEMPLATE['resources']
STREAMS = {name: {column['name']: column['type'] for column in stream['columns']}
           for name, stream in RULE['properties']['streamDeclarations'].items()}
TARGETS = {flow['streams'][0]: flow['outputStream'] for flow in RULE['properties']['dataFlows']}
# By the version of the schema that a row names.
STREAM_OF = {'0.2.7': 'Custom-PenstockNetworkSession', '0.1.2': 'Custom-PenstockAudit', '0.1': 'Custom-PenstockAlert',
             None: 'Custom-PenstockUnknown'}


def table_of(stream):
    if TARGETS[stream] == 'Custom-PenstockUnknown_CL':
        columns = TABLE['properties']['schema']['columns']
        return {column['name']: column['type'].lower() for column in columns}
    with open(ROOT / 'tests' / 'reference' / 'asim' / 'tables' / f'{TARGETS[stream].removeprefix("Microsoft-")}.csv') as file:
        return {row['Column']: row['Type'].replace('bool', 'boolean') for row in csv.DictReader(file)}


def test_template_is_as_its_writer_writes_it(tmp_path):
    subprocess.run([ROOT / 'conf' / 'dcr-update', tmp_path / 'dcr.json'], check=True)
    assert (tmp_path / 'dcr.json').read_text() == (ROOT / 'conf' / 'dcr.json').read_text(), 'run conf/dcr-update'


def test_streams_are_the_defaults_of_the_sink():
    options = subprocess.run([binary(), 'version', '--options'], capture_output=True, text=True, check=True).stdout
    defaults = set(re.findall(r'default (Custom\\-\w+)', options))
    assert {name.replace('-', '\\-') for name in STREAMS} == defaults - {'Custom\\-PenstockRaw'}
    assert TARGETS.keys() == STREAMS.keys()


def test_every_column_is_one_of_its_table():
    for stream, columns in STREAMS.items():
        table = table_of(stream)
        for name, kind in columns.items():
            assert COLUMN_NAME.match(name) and name not in RESERVED_COLUMNS, name
            assert kind in CHECKS, kind
            assert table.get(name) == kind, (stream, name)


def test_every_row_fits_its_stream():
    seen = set()
    for path in sorted((ROOT / 'tests' / 'golden').glob('*/*.asim.out')):
        for line in path.read_bytes().splitlines():
            row = json.loads(line)
            stream = STREAM_OF[row.get('EventSchemaVersion')]
            for name, value in row.items():
                assert name in STREAMS[stream], (path.name, stream, name)
                assert CHECKS[STREAMS[stream][name]](value) is None, (path.name, stream, name)
            seen.add(stream)
    assert seen == STREAMS.keys()
