"""Promise: whoever deploys what `penstock dcr` prints loses no column. It declares what the sinks send, neither more nor less, and
all of it fits the tables. conf/dcr.json is the same for a sink that leaves everything to the defaults.

That columns and writers agree for every field is held by tests/unit/table.c; here are the files, and what comes of them."""
import csv
import json
import pathlib
import re
import subprocess

import pytest
from bicep import read_bicep
from farend import FarEnd
from penstock import Penstock, binary, wait_until, write_config
from streams import CHECKS, COLUMN_NAME, RESERVED_COLUMNS

ROOT = pathlib.Path(__file__).resolve().parents[2]
SAMPLES = sorted(path for path in (ROOT / 'tests' / 'samples').rglob('*') if path.is_file() and path.suffix != '.tsv')
WORKSPACE = '/subscriptions/99999999-8888-7777-6666-555555555555/resourceGroups/siem/providers/' \
            'Microsoft.OperationalInsights/workspaces/siem'
PRINCIPAL = '12345678-0000-0000-0000-000000000001'
SINK = {'type': 'sentinel', 'endpoint': 'https://x.ingest.monitor.azure.com', 'dcr': 'dcr-' + '0' * 32,
        'tenant': '0' * 8 + '-0000-0000-0000-' + '0' * 12, 'client': '0' * 8 + '-0000-0000-0000-' + '0' * 12,
        'secret_file': '/secret'}
# By the version of the schema, or the class, that a row names.
ASIM = {'0.2.7': 'Custom-PenstockNetworkSession', '0.1.2': 'Custom-PenstockAudit', '0.1': 'Custom-PenstockAlert',
        None: 'Custom-PenstockUnknown'}
OCSF = {4001: 'Custom-PenstockNetworkSession', 6003: 'Custom-PenstockAudit', 2004: 'Custom-PenstockAlert',
        0: 'Custom-PenstockUnknown'}


def run(tmp_path, *words, sinks=(('sink s', SINK),)):
    conf = write_config(tmp_path / 'penstock.conf', ('source a', {'type': 'file', 'path': '/any'}), *sinks)
    return subprocess.run([binary(), 'dcr', '-c', conf, *words], capture_output=True, text=True, timeout=60)


def printed(tmp_path, *words, **more):
    done = run(tmp_path, *words, **more)
    assert done.returncode == 0, done.stderr
    return done.stdout


def sink(**more):
    return 'sink ' + more.pop('name', 's'), {**SINK, **more}


class Rule:
    """What a template declares."""

    def __init__(self, template):
        tables = [part for part in template['resources'] if part['type'].endswith('/tables')]
        rule, = (part for part in template['resources'] if part['type'].endswith('/dataCollectionRules'))
        self.properties = rule['properties']
        self.tables = {table['properties']['schema']['name']: {
            column['name']: column['type'].lower() for column in table['properties']['schema']['columns']} for table in tables}
        self.streams = {name: {column['name']: column['type'] for column in stream['columns']}
                        for name, stream in self.properties['streamDeclarations'].items()}
        self.outputs = {flow['streams'][0]: flow['outputStream'] for flow in self.properties['dataFlows']}

    def table_of(self, stream):
        kind, _, name = self.outputs[stream].partition('-')
        if kind == 'Custom':
            return self.tables[name]
        with open(ROOT / 'tests' / 'reference' / 'asim' / 'tables' / f'{name}.csv') as file:
            return {row['Column']: row['Type'].replace('bool', 'boolean') for row in csv.DictReader(file)}


# ---- The file of the repository ----

def test_the_examples_template_is_what_the_program_prints(tmp_path):
    subprocess.run([ROOT / 'conf' / 'dcr-update', binary(), tmp_path / 'dcr.json'], check=True)
    assert (tmp_path / 'dcr.json').read_text() == (ROOT / 'conf' / 'dcr.json').read_text(), 'run conf/dcr-update'


def test_streams_are_the_defaults_of_the_sink():
    rule = Rule(json.loads((ROOT / 'conf' / 'dcr.json').read_text()))
    options = subprocess.run([binary(), 'version', '--options'], capture_output=True, text=True, check=True).stdout
    defaults = set(re.findall(r'default (Custom\\-\w+)', options))
    assert {name.replace('-', '\\-') for name in rule.streams} == defaults - {'Custom\\-PenstockRaw'}
    assert rule.outputs.keys() == rule.streams.keys()


# ---- Columns ----

@pytest.mark.parametrize('schema', ['asim', 'ocsf'])
def test_every_column_is_one_of_its_table(tmp_path, schema):
    rule = Rule(json.loads(printed(tmp_path, sinks=[sink(schema=schema)])))
    for stream, columns in rule.streams.items():
        table = rule.table_of(stream)
        assert 'TimeGenerated' in table
        for name, kind in columns.items():
            assert COLUMN_NAME.match(name) and name not in RESERVED_COLUMNS, name
            assert kind in CHECKS, kind
            assert table.get(name) == kind, (stream, name)


@pytest.mark.parametrize('schema', ['asim', 'ocsf'])
def test_every_row_fits_its_stream(tmp_path, schema):
    """All the samples there are, and each of them damaged: what is written is declared, with a type that holds it."""
    rule = Rule(json.loads(printed(tmp_path, sinks=[sink(schema=schema)])))
    seen = set()
    for path in SAMPLES:
        data = path.read_bytes()
        for given in (data, data.replace(b'"', b'', 3), data[:len(data) // 2]):
            lines = subprocess.run([binary(), 'parse', '--schema', schema], input=given, capture_output=True, timeout=120).stdout
            for line in lines.splitlines():
                row = json.loads(line)
                stream = ASIM[row.get('EventSchemaVersion')] if schema == 'asim' else OCSF[row['class_uid']]
                for name, value in row.items():
                    assert name in rule.streams[stream], (path.name, stream, name)
                    assert CHECKS[rule.streams[stream][name]](value) in (None, 'field-too-long'), (path.name, stream, name)
                seen.add(stream)
    assert seen == rule.streams.keys()


# ---- The command ----

@pytest.mark.sanitize
def test_only_what_the_sinks_send_is_declared(tmp_path):
    rule = Rule(json.loads(printed(tmp_path, sinks=[sink(events='audit, unknown', stream_audit='Custom-Mine',
                                                         stream_unknown='Custom-the.rest_CL')])))
    assert rule.outputs == {'Custom-Mine': 'Microsoft-ASimAuditEventLogs', 'Custom-the.rest_CL': 'Custom-the_rest_CL'}
    assert rule.streams.keys() == rule.outputs.keys() and rule.tables.keys() == {'the_rest_CL'}


@pytest.mark.sanitize
def test_two_sinks_of_one_rule_share_it(tmp_path):
    sinks = [sink(name='a', events='audit'), sink(name='b', events='network, audit'), ('sink k', {
        'type': 'kafka', 'brokers': '127.0.0.1:9092', 'topic': 't'})]
    assert list(Rule(json.loads(printed(tmp_path, sinks=sinks))).streams) == ['Custom-PenstockAudit',
                                                                             'Custom-PenstockNetworkSession']
    assert list(Rule(json.loads(printed(tmp_path, '--sink', 'a', sinks=sinks))).streams) == ['Custom-PenstockAudit']


@pytest.mark.parametrize('words, sinks, status, sentence', [
    ((), [sink(name='a'), sink(name='b', dcr='dcr-' + '1' * 32)], 2, 'more than one DCR: choose one sink with --sink'),
    ((), [sink(name='a'), sink(name='b', schema='ocsf')], 2, 'would take events of two kinds or schemas (sinks a and b)'),
    ((), [sink(stream_audit='Custom-X', stream_alert='Custom-X')], 2, 'the stream Custom-X would take events of two kinds'),
    ((), [sink(schema='ocsf', stream_audit='Custom-X-Y', stream_alert='Custom-x_Y_CL')], 2, 'would end in one table, x_Y_CL'),
    ((), [sink(schema='raw')], 1, 'only you can know the columns of the stream Custom-PenstockRaw'),
    ((), [('sink k', {'type': 'kafka', 'brokers': '127.0.0.1:9092', 'topic': 't'})], 1, 'no sink of type sentinel'),
    (('--sink', 'nobody'), [sink()], 2, 'there is no sink nobody'),
    (('--principal', 'me'), [sink()], 2, '--principal: expected the object id'),
    ((), [sink(dcr_resource_id='/subscriptions/x/../y')], 2, 'dcr_resource_id: expected /subscriptions/'),
    ((), [sink(management='https://management.azure.com/x?y')], 2, 'management: expected https://HOST'),
    (('more',), [sink()], 2, 'nothing to do with "more"'),
])
def test_what_cannot_be_printed_is_said(tmp_path, words, sinks, status, sentence):
    done = run(tmp_path, *words, sinks=sinks)
    assert (done.returncode, done.stdout) == (status, ''), done.stderr
    assert sentence in done.stderr, done.stderr


@pytest.mark.parametrize('schema', ['asim', 'ocsf'])
def test_bicep_says_what_the_template_says(tmp_path, schema):
    sinks = [sink(schema=schema)]
    template = json.loads(printed(tmp_path, '--principal', PRINCIPAL, sinks=sinks))
    (tmp_path / 'dcr.bicep').write_text(printed(tmp_path, '--bicep', '--principal', PRINCIPAL, sinks=sinks))
    bicep = read_bicep(tmp_path / 'dcr.bicep')
    rule = bicep['resources'].pop('rule')
    assert bicep['resources'].pop('workspace')['existing']
    role = bicep['resources'].pop('publisher')
    assert bicep['parameters'].keys() == template['parameters'].keys()
    assert bicep['outputs'].keys() == template['outputs'].keys()
    assert [resource['type'] + resource['api_version'] for resource in [*bicep['resources'].values(), rule, role]] == \
           [resource['type'] + resource['apiVersion'] for resource in template['resources']]
    assert plain(rule['config']['properties']['streamDeclarations']) == \
           Rule(template).properties['streamDeclarations']
    assert plain(rule['config']['properties']['dataFlows']) == Rule(template).properties['dataFlows']
    for name, table in Rule(template).tables.items():
        schema = bicep['resources'][f'table_{name}']['config']['properties']['schema']
        assert {column['name']: column['type'].lower() for column in schema['columns']} == table
        assert all(column['description'] for column in schema['columns'])


def plain(tree):
    """The parser leaves escapes and the quotes of keys as they stand."""
    if isinstance(tree, dict):
        return {key.strip("'"): plain(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [plain(value) for value in tree]
    return tree.replace("\\'", "'") if isinstance(tree, str) else tree


# ---- Deployed ----

@pytest.mark.parametrize('schema', ['asim', 'ocsf'])
def test_what_is_deployed_takes_all_that_is_sent(tmp_path, schema):
    """The template, worked out and judged by a strict far end, and then the daemon over all samples: no value is lost."""
    with FarEnd(tmp_path / 'far') as far_end:
        heading, keys = far_end.sink(schema=schema)
        template = json.loads(printed(tmp_path, '--principal', PRINCIPAL, sinks=[(heading, keys)]))
        outputs = far_end.deploy(template, workspaceResourceId=WORKSPACE, location='westeurope', dcrName='mine')
        assert outputs['immutableId'] == keys['dcr'] and outputs['logsIngestion'] == keys['endpoint']
        assert far_end.state()['roles'] == [[PRINCIPAL, outputs['dcrResourceId']]]
        paths = ','.join(sorted({str(path.parent / '*') for path in SAMPLES}))
        daemon = Penstock(tmp_path / 'daemon', ('source all', {'type': 'file', 'path': paths}), (heading, keys), record_max='64K')
        daemon.start()
        wait_until(lambda: len(far_end.state()['rows']) == 4, daemon=daemon)
        assert daemon.stop() == 0
        assert [what for what in far_end.violations() if what[3] != 'field-too-long'] == []


def test_a_template_with_a_fault_is_refused_there(tmp_path):
    """That the far end above can say no."""
    with FarEnd(tmp_path / 'far') as far_end:
        good = printed(tmp_path)
        for old, new, sentence in (('"type": "long"', '"type": "string"', 'InvalidTransformOutput'),
                                   ('Microsoft-ASimAudit', 'Microsoft-ASimAlert', 'InvalidTransformOutput'),
                                   ('Microsoft-ASimAudit', 'Microsoft-Syslog', 'InvalidOutputTable'),
                                   ('PenstockUnknown_CL"', 'Penstock-Unknown_CL"', 'InvalidPayload'),
                                   ('"kind": "Direct"', '"kind": "Linux"', 'InvalidPayload'),
                                   ('parameters(\'dcrName\')', 'parameter(\'dcrName\')', 'InvalidTemplate')):
            assert old in good
            with pytest.raises(ValueError, match=sentence):
                far_end.deploy(json.loads(good.replace(old, new)), workspaceResourceId=WORKSPACE)
        far_end.deploy(json.loads(good), workspaceResourceId=WORKSPACE)
