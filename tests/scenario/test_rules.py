"""Promise: no message breaks a rule of its far end, whatever the record: every sample, and thousands of damaged variations.

The rules are the far ends' own (tests/lib/rules.py). They are held to their word first: each must catch the event that
breaks it. What a rule only warns of is printed (pytest -rP).
"""
import collections
import copy
import json
import pathlib
import random
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'tests' / 'lib'))

import rules                             # noqa: E402
from penstock import binary, slower      # noqa: E402

BINARY = binary()
SAMPLES = sorted(path for path in (ROOT / 'tests' / 'samples').rglob('*') if path.is_file() and path.suffix != '.tsv')
JUDGES = {'asim': rules.Asim(), 'ocsf': rules.Ocsf()}


def parse(schema, data):
    """The messages of these bytes, one line each; records may fail (exit 1), the program may not."""
    done = subprocess.run([BINARY, 'parse', '--schema', schema], input=data, capture_output=True, timeout=300 * slower())
    assert done.returncode in (0, 1), done.stderr.decode(errors='replace')
    assert done.stdout == b'' or done.stdout.endswith(b'\n')
    return [line.decode('utf-8', errors='strict') for line in done.stdout.splitlines()]


def judge(schema, lines):
    """Fails on the first errors; returns what was only warned of, counted."""
    errors, warnings = collections.Counter(), collections.Counter()
    examples = {}
    for line in lines:
        for level, sentence in JUDGES[schema].judge(rules.read(line)):
            (errors if level == 'error' else warnings)[sentence] += 1
            examples.setdefault(sentence, line)
    for sentence, count in warnings.most_common():
        print(f'{schema}: {count} × {sentence}')
    assert not errors, '\n'.join(f'{count} × {sentence}\n    {examples[sentence][:1500]}'
                                 for sentence, count in errors.most_common(10))
    return warnings


# ---- The rules can fail ----------------------------------------------------------------------------------------

FLOW_ROW = {
    'TimeGenerated': '2026-07-22T12:00:00.1234567Z', 'EventCount': 1, 'EventStartTime': '2026-07-22T12:00:00Z',
    'EventEndTime': '2026-07-22T12:00:00Z', 'EventType': 'Flow', 'EventResult': 'Success', 'EventProduct': 'NSGFlow',
    'EventVendor': 'Microsoft', 'EventSchemaVersion': '0.2.7', 'Dvc': 'NSGFlow', 'EventOriginalUid': 'x-0',
    'SrcIpAddr': '192.0.2.1', 'DstIpAddr': '2001:db8::1', 'DstMacAddr': '00:0D:3A:F8:78:56', 'NetworkProtocol': 'TCP',
    'DvcId': '/subscriptions/x', 'DvcIdType': 'AzureResourceId', 'SrcBytes': 9000000000, 'TcpFlagsSyn': True,
    'SrcGeoLatitude': -0.5, 'AdditionalFields': {'FlowState': 'C'},
}
AUDIT_ROW = {
    **{name: FLOW_ROW[name] for name in ('TimeGenerated', 'EventCount', 'EventStartTime', 'EventEndTime', 'EventResult',
                                         'EventVendor', 'EventOriginalUid')},
    'EventType': 'Set', 'EventProduct': 'Azure', 'EventSchemaVersion': '0.1.2', 'Operation': 'Microsoft.X/y/write',
    'Object': 'y1', 'ObjectType': 'Cloud Resource', 'ActorUsername': 'a@example.com', 'ActorUsernameType': 'UPN',
}
ALERT_ROW = {
    **{name: FLOW_ROW[name] for name in ('TimeGenerated', 'EventCount', 'EventStartTime', 'EventEndTime', 'EventVendor',
                                         'EventOriginalUid')},
    'EventType': 'Alert', 'EventProduct': 'Defender for Cloud', 'EventSchemaVersion': '0.1', 'EventUid': 'u1',
    'AlertStatus': 'Active', 'ThreatRiskLevel': 50,
}
UNKNOWN_ROW = {'TimeGenerated': '2026-07-22T12:00:00Z', 'EventOriginalUid': 'x-0', 'RawData': {'a': 1}}

GONE = object()
ASIM_FAULTS = [
    (FLOW_ROW, 'EventSchema', 'NetworkSession'), (FLOW_ROW, 'FlowState', 'C'), (FLOW_ROW, 'TenantId', 'x'),
    (FLOW_ROW, 'EventCount', '1'), (FLOW_ROW, 'EventCount', True), (FLOW_ROW, 'EventCount', 2**31),
    (FLOW_ROW, 'SrcBytes', 1.5), (FLOW_ROW, 'TcpFlagsSyn', 1), (FLOW_ROW, 'SrcGeoLatitude', '1'),
    (FLOW_ROW, 'EventStartTime', '2026-07-22 12:00:00'), (FLOW_ROW, 'EventStartTime', 1784721600000),
    (FLOW_ROW, 'AdditionalFields', '{"FlowState":"C"}'), (FLOW_ROW, 'AdditionalFields', 'C'), (FLOW_ROW, 'EventResult', GONE), (FLOW_ROW, 'Dvc', GONE),
    (FLOW_ROW, 'EventType', 'Floww'), (FLOW_ROW, 'DvcIdType', GONE), (FLOW_ROW, 'DstMacAddr', '000D3AF87856'),
    (FLOW_ROW, 'SrcIpAddr', '192.0.2.256'), (FLOW_ROW, 'NetworkProtocol', 'tcp'), (FLOW_ROW, 'TimeGenerated', GONE),
    (FLOW_ROW, 'EventOriginalUid', GONE), (FLOW_ROW, 'EventSchemaVersion', '0.2.8'), (FLOW_ROW, 'SrcHostname', 'a b'),
    (FLOW_ROW, 'DstFQDN', 'nodots'), (FLOW_ROW, 'ThreatRiskLevel', 101),
    (AUDIT_ROW, 'Dvc', 'Azure'), (AUDIT_ROW, 'Operation', GONE), (AUDIT_ROW, 'Object', GONE),
    (AUDIT_ROW, 'EventType', 'Write'), (AUDIT_ROW, 'ActorUsernameType', GONE), (AUDIT_ROW, 'ObjectType', 'Disk'),
    (ALERT_ROW, 'EventUid', GONE), (ALERT_ROW, 'AlertStatus', 'Dismissed'), (ALERT_ROW, 'ThreatRiskLevel', -1),
    (UNKNOWN_ROW, 'Category', 'x'), (UNKNOWN_ROW, 'RawData', '{}'), (UNKNOWN_ROW, 'TimeGenerated', GONE),
]

EVENT = {
    'activity_id': 6, 'category_uid': 4, 'class_uid': 4001, 'type_uid': 400106, 'severity_id': 1, 'time': 1784721600000,
    'metadata': {'version': '1.8.0', 'uid': 'x-0', 'profiles': ['cloud', 'security_control'],
                 'product': {'name': 'NSGFlow', 'vendor_name': 'Microsoft'}},
    'cloud': {'provider': 'Azure'}, 'src_endpoint': {'ip': '192.0.2.1', 'port': 1}, 'dst_endpoint': {'ip': '2001:db8::1'},
    'connection_info': {'direction_id': 1, 'protocol_num': 6}, 'action_id': 1, 'firewall_rule': {'name': 'r'},
    'unmapped': {'a': {'b': [1]}},
}
OCSF_FAULTS = [
    ('class_uid', 4002), ('class_uid', GONE), ('type_uid', 400105), ('category_uid', 6), ('severity_id', 7),
    ('severity_id', '1'), ('time', '2026'), ('time', 1.5), ('time', GONE), ('metadata', GONE), ('cloud', GONE),
    ('metadata.version', '1.7.0'), ('metadata.uid', GONE), ('metadata.product', {}), ('metadata.product', GONE),
    ('metadata.profiles', ['cloud']), ('metadata.profiles', ['cloud', 'host', 'security_controls']),
    ('src_endpoint.port', 65536), ('src_endpoint.port', '1'), ('src_endpoint', {'port': 1}), ('src_endpoint.ip', 'x'),
    ('src_endpoint.mac', '000D3AF87856'), ('connection_info.direction_id', 5), ('connection_info.direction_id', GONE),
    ('connection_info.color', 'red'), ('color', 'red'), ('unmapped', 'text'), ('firewall_rule', {'desc': 'no name'}),
    ('actor', {'user': {'name': 'x'}}), ('action_id', True), ('severity', 'High'), ('activity_name', 'Close'),
    ('observables', {'type_id': 2}), ('observables', [{'name': 'x'}]), ('connection_info.direction_id', 99),
]


def changed(event, path, value):
    event = copy.deepcopy(event)
    *parents, leaf = path.split('.')
    inner = event
    for name in parents:
        inner = inner[name]
    if value is GONE:
        del inner[leaf]
    else:
        inner[leaf] = value
    return event


@pytest.mark.parametrize('row', [FLOW_ROW, AUDIT_ROW, ALERT_ROW, UNKNOWN_ROW], ids=['flow', 'audit', 'alert', 'unknown'])
def test_asim_rules_accept_a_good_row(row):
    assert JUDGES['asim'].judge(rules.read(json.dumps(row))).errors == []


@pytest.mark.parametrize('row, column, value', ASIM_FAULTS)
def test_asim_rules_catch(row, column, value):
    assert JUDGES['asim'].judge(changed(row, column, value)).errors


def test_ocsf_rules_accept_a_good_event():
    assert JUDGES['ocsf'].judge(rules.read(json.dumps(EVENT))).errors == []


@pytest.mark.parametrize('path, value', OCSF_FAULTS)
def test_ocsf_rules_catch(path, value):
    assert JUDGES['ocsf'].judge(changed(EVENT, path, value)).errors


@pytest.mark.parametrize('line', ['{"a":1,"a":2}', '{"AdditionalFields":{"a":1,"a":2}}', '{"unmapped":{"a":1,"a":2}}'])
def test_repeated_keys_are_caught(line):
    good = UNKNOWN_ROW if 'unmapped' not in line else EVENT
    schema = 'asim' if 'unmapped' not in line else 'ocsf'
    message = json.dumps({k: v for k, v in good.items() if k != 'unmapped'})[:-1] + ',' + line[1:]
    assert any('twice' in sentence for sentence in JUDGES[schema].judge(rules.read(message)).errors)


def test_no_nan():
    with pytest.raises(ValueError):
        rules.read('{"a":NaN}')


# ---- The table of fields ---------------------------------------------------------------------------------------

def fields():
    text = (ROOT / 'parsers' / 'fields.def').read_text()
    pattern = r'^FIELD\((\w+), (\w+), "(\w+)", ([\w|]+), (NULL|"[^"]*"), (NULL|"[^"]*"), (NULL|"[^"]*")\)'
    rows = re.findall(pattern, text, re.M)
    assert len(rows) == len(re.findall(r'^FIELD\(', text, re.M))
    return rows


def test_fields_are_the_tables_columns():
    """Every field is in exactly the tables that have its column, with its type."""
    types = {'TEXT': 'string', 'IP': 'string', 'MAC': 'string', 'INT': 'int', 'LONG': 'long', 'REAL': 'real', 'BOOL': 'bool',
             'TIME': 'datetime', 'JSON': 'dynamic'}
    tables = {'N': 'NetworkSession', 'A': 'AuditEvent', 'L': 'AlertEvent'}
    columns = {**{letter: JUDGES['asim'].columns[schema] for letter, schema in tables.items()}, 'U': rules.Asim.UNKNOWN}
    for _, kind, name, letters, *_ in fields():
        for letter, table in columns.items():
            if letter in letters.split('|'):
                assert table.get(name) == types[kind], f'{name} in {letter}'
            else:
                assert name not in table or name == 'EventOriginalUid', f'{name} is missing in {letter}'


def test_fields_ocsf_paths_exist():
    """Each OCSF path is one of some class, and its type takes the field's."""
    schema = JUDGES['ocsf']
    takes = {'TEXT': {'string_t'}, 'IP': {'string_t'}, 'MAC': {'string_t'}, 'INT': {'integer_t', 'long_t'},
             'LONG': {'long_t'}, 'REAL': {'float_t'}, 'BOOL': {'boolean_t'}, 'TIME': {'long_t'}, 'JSON': {'json_t'}}
    for name, kind, _, _, path, *_ in fields():
        if path == 'NULL':
            continue
        found = False
        for attributes in (c['attributes'] for c in schema.classes.values()):
            for part in path.strip('"').split('.'):
                attribute = attributes.get(part.removesuffix('[]'))
                if attribute is None:
                    break
                assert bool(attribute.get('is_array')) == part.endswith('[]'), f'{name}: {path}'
                attributes = schema.objects[attribute['object']]['attributes'] if 'object' in attribute else {}
            else:
                found = True
                rule = schema.types[attribute['type']]
                assert rule.get('type', attribute['type']) in takes[kind], f'{name}: {path}'
        assert found, f'{name}: {path} is in no class'


# ---- Every message keeps them ----------------------------------------------------------------------------------

needs_binary = pytest.mark.skipif(not BINARY.exists(), reason=f'no {BINARY}: build first, or set PENSTOCK_BIN')


@needs_binary
@pytest.mark.parametrize('schema', JUDGES)
@pytest.mark.parametrize('path', SAMPLES, ids=lambda path: str(path.relative_to(ROOT / 'tests' / 'samples')))
def test_samples_keep_the_rules(path, schema):
    lines = parse(schema, path.read_bytes())
    assert lines, 'nothing came out'
    judge(schema, lines)


ODD = [None, True, False, 0, -1, 2**63, 1e300, 0.5, '', ' ', 'x', '\x00\x1f"\\', 'é\u2028\U0001f600', '<null>', 'None', '{}',
       '[{"a":1}]', [], {}, [None], {'value': 'V', 'localizedValue': None}, '2026-13-45T99:99:99Z', '0001-01-01T00:00:00Z',
       '9999-12-31T23:59:59.9999999Z', '0.0.0.0', '::ffff:192.0.2.1', 'fe80::1%eth0', '192.0.2.1:443', '-7', '65536', 99999,
       'Critical', 'succeeded', 'A,B,,C', '/subscriptions/', 'x' * 5000, {'$ref': '9'}, '1469000000,1.2.3.4,::1,0,65536,99,X,Z']


def spots(node, path=()):
    """Every place of a document, as (container, key)."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield node, key
        yield from spots(value)


def spoiled(document, random):
    """One document with a few members taken away, replaced or written otherwise."""
    document = copy.deepcopy(document)
    for _ in range(random.randint(1, 6)):
        places = list(spots(document))
        if not places:
            break
        node, key = random.choice(places)
        act = random.randrange(5)
        value = node[key]
        if act == 0 and isinstance(node, dict):
            del node[key]
        elif act == 1:
            node[key] = copy.deepcopy(random.choice(ODD))
        elif act == 2 and isinstance(value, str):
            node[key] = random.choice([value.upper, value.lower, value.swapcase])() if random.random() < .5 else value[::-1]
        elif act == 3 and isinstance(value, str) and ',' in value:
            parts = value.split(',')
            parts[random.randrange(len(parts))] = random.choice(['', '-', '99', 'Z', '::1', '70000', '1e9'])
            node[key] = ','.join(parts)
        elif act == 4 and isinstance(node, dict):
            node[random.choice(['Category', 'a', key.swapcase(), key + '_2'])] = copy.deepcopy(value)
    return document


def documents():
    """The samples that are JSON, whole files and single lines."""
    for path in SAMPLES:
        for text in [path.read_text('utf-8', 'replace')] + path.read_text('utf-8', 'replace').splitlines():
            try:
                document = json.loads(text)
            except ValueError:
                continue
            if isinstance(document, (dict, list)):
                yield document


@needs_binary
@pytest.mark.sanitize
@pytest.mark.parametrize('schema', JUDGES)
@pytest.mark.parametrize('seed', range(4))
def test_variations_keep_the_rules(seed, schema):
    chance = random.Random(seed)
    lines = [json.dumps(spoiled(document, chance), ensure_ascii=chance.random() < .5)
             for document in documents() for _ in range(12)]
    messages = parse(schema, ('\n'.join(lines) + '\n').encode('utf-8', 'surrogatepass'))
    assert len(messages) >= len(lines) / 2
    judge(schema, messages)


@needs_binary
def test_schemas_agree_on_ids():
    """The same records give the same events, in the same order, with the same ids, whatever the schema."""
    data = b''.join(path.read_bytes() + b'\n' for path in SAMPLES if path.suffix == '.jsonl')
    asim = [json.loads(line)['EventOriginalUid'] for line in parse('asim', data)]
    ocsf = [json.loads(line)['metadata']['uid'] for line in parse('ocsf', data)]
    assert asim == ocsf
    assert len(asim) > 0
