"""The far ends' own rules, as code: what Microsoft's ASIM tester and an OCSF validator would say of a message.

Everything is read from tests/reference (see PROVENANCE.tsv there); nothing here knows our daemon. A judge returns findings,
(level, sentence); an `error` is what the far end loses or refuses, a `warning` is what it only marks.
"""
import csv
import ipaddress
import json
import pathlib
import re

REFERENCE = pathlib.Path(__file__).resolve().parent.parent / 'reference'


class Object(dict):
    """A JSON object that remembers keys given twice."""
    repeats = ()


def _object(pairs):
    made = Object(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        made.repeats = sorted({name for name in names if names.count(name) > 1})
    return made


def _no_constant(text):
    raise ValueError(f'{text} is no JSON')


def read(line):
    """One message, strictly: no NaN, and repeated keys are kept in mind."""
    return json.loads(line, object_pairs_hook=_object, parse_constant=_no_constant)


class Findings(list):
    def error(self, sentence):
        self.append(('error', sentence))

    def warning(self, sentence):
        self.append(('warning', sentence))

    @property
    def errors(self):
        return [sentence for level, sentence in self if level == 'error']


# ---- ASIM ------------------------------------------------------------------------------------------------------

# KQL's column types and what JSON value each takes.
def _is_int(value):
    return isinstance(value, int) and not isinstance(value, bool)


_DATETIME = re.compile(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,7})?Z')
_TYPES = {
    'string': lambda v: isinstance(v, str),
    'int': lambda v: _is_int(v) and -2**31 <= v < 2**31,
    'long': lambda v: _is_int(v) and -2**63 <= v < 2**63,
    'real': lambda v: _is_int(v) or isinstance(v, float),
    'bool': lambda v: isinstance(v, bool),
    'datetime': lambda v: isinstance(v, str) and _DATETIME.fullmatch(v) is not None,
    'dynamic': lambda v: not (isinstance(v, str) and v[:1] in ('{', '[')),      # JSON as text cannot be searched by key
}

# IANA's keywords, as the tester compares them: with case.
IANA = set('''HOPOPT ICMP IGMP GGP IPv4 ST TCP CBT EGP IGP BBN-RCC-MON NVP-II PUP ARGUS EMCON XNET CHAOS UDP MUX DCN-MEAS
HMP PRM XNS-IDP TRUNK-1 TRUNK-2 LEAF-1 LEAF-2 RDP IRTP ISO-TP4 NETBLT MFE-NSP MERIT-INP DCCP 3PC IDPR XTP DDP IDPR-CMTP
TP++ IL IPv6 SDRP IPv6-Route IPv6-Frag IDRP RSVP GRE DSR BNA ESP AH I-NLSP SWIPE NARP MOBILE TLSP SKIP IPv6-ICMP
IPv6-NoNxt IPv6-Opts CFTP SAT-EXPAK KRYPTOLAN RVD IPPC SAT-MON VISA IPCV CPNX CPHB WSN PVP BR-SAT-MON SUN-ND WB-MON
WB-EXPAK ISO-IP VMTP SECURE-VMTP VINES TTP IPTM NSFNET-IGP DGP TCF EIGRP OSPFIGP Sprite-RPC LARP MTP AX.25 IPIP MICP
SCC-SP ETHERIP ENCAP GMTP IFMP PNNI PIM ARIS SCPS QNX A/N IPComp SNP Compaq-Peer IPX-in-IP VRRP PGM L2TP DDX IATP STP
SRP UTI SMP SM PTP FIRE CRTP CRUDP SSCOPMCE IPLT SPS PIPE SCTP FC RSVP-E2E-IGNORE UDPLite MPLS-in-IP manet Shim6 WESP
ROHC Ethernet AGGFRAG NSH'''.split()) | {'Mobility Header', 'ISIS over IPv4'}

_FQDN = re.compile(r'([_a-zA-Z0-9][_a-zA-Z0-9-]{0,62}\.)+[a-zA-Z]{2,63}')
_DOMAIN = re.compile(r'([_a-zA-Z0-9][_a-zA-Z0-9-]{0,62}\.)*[a-zA-Z]{2,63}')
_HOSTNAME = re.compile(r'[a-zA-Z0-9-]{1,61}')
_MAC = re.compile(r'[a-fA-F0-9]{2}(:[a-fA-F0-9]{2}){5}')
_HEX = re.compile(r'[a-fA-F0-9]+')


def _is_ip(text):
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_hash(size):
    return lambda v: len(v) == size and _HEX.fullmatch(v) is not None


_LOGICAL = {
    'macaddress': _MAC.fullmatch,
    'ipaddress': _is_ip,
    'fqdn': _FQDN.fullmatch,
    'domain': _DOMAIN.fullmatch,
    'hostname': lambda v: _HOSTNAME.fullmatch(v) or _is_ip(v),
    'networkprotocol': lambda v: v in IANA,
    'risklevel': lambda v: 0 <= v <= 100,
    'confidencelevel': lambda v: 0 <= v <= 100,
    'md5': _is_hash(32), 'sha1': _is_hash(40), 'sha256': _is_hash(64), 'sha512': _is_hash(128),
}


def _has_term(text, listed):
    """KQL's `has`: the text as whole terms of one listed value, without case. The tester takes no more than that."""
    pattern = r'(?<![a-z0-9])' + re.escape(text.lower()) + r'(?![a-z0-9])'
    return re.search(pattern, '|'.join(listed).lower()) is not None


class Asim:
    """Rows of the ASIM tables. The table is told by EventSchemaVersion, as a query would."""

    TABLES = {'0.2.7': ('NetworkSession', 'ASimNetworkSessionLogs'), '0.1.2': ('AuditEvent', 'ASimAuditEventLogs'),
              '0.1': ('AlertEvent', 'ASimAlertEventLogs')}
    # Our own table of unknown records; tests/farend declares the same.
    UNKNOWN = {'TimeGenerated': 'datetime', 'RawData': 'dynamic', 'RawText': 'string', 'Trouble': 'string',
               'EventOriginalUid': 'string', 'EventProduct': 'string', 'EventVendor': 'string', 'Source': 'string',
               'AdditionalFields': 'dynamic'}
    SERVICE = {'Type', 'TenantId', 'SourceSystem', 'MG'}

    def __init__(self, reference=REFERENCE / 'asim'):
        self.columns, self.rules = {}, {}
        for schema, table in self.TABLES.values():
            with open(reference / 'tables' / f'{table}.csv', newline='') as file:
                self.columns[schema] = {row['Column']: row['Type'] for row in csv.DictReader(file)
                                        if not row['Column'].startswith('_') and row['Column'] not in self.SERVICE}
            self.rules[schema] = {}
        with open(reference / 'ASimTester.csv', newline='') as file:
            for row in csv.DictReader(file):
                self._add(row['Schema'], row['ColumnName'], row['Class'], row['LogicalType'], row['ListOfValues'],
                          row['Aliased'])
        with open(reference / 'asim-fields.csv', newline='') as file:
            for row in csv.DictReader(file):
                self._add(row['Schema'], row['Field'], row['Class'], row['Type'], row['FixedValue'] or row['AllowedValues'],
                          row['RequiredIf'])

    def _add(self, schema, column, kind, logical, values, parent):
        """Both sources' rules add up: the stricter class, every value that either lists."""
        if schema not in self.rules or column not in self.columns[schema]:
            return
        rule = self.rules[schema].setdefault(column, {'classes': set(), 'logical': set(), 'values': set(), 'parents': set()})
        rule['classes'].add(kind)
        rule['logical'].add(re.sub(r'\s*\(.*\)|\s', '', logical).lower())
        rule['values'].update(value for value in values.split('|') if value)
        if kind == 'Conditional':
            rule['parents'].update(p for p in parent.split('|') if p)
            if not parent and column.endswith('Type') and column[:-4] in self.columns[schema]:
                rule['parents'].add(column[:-4])

    def schema_of(self, row):
        return self.TABLES.get(row.get('EventSchemaVersion'), (None, None))[0]

    def judge(self, row):
        findings = Findings()
        schema = self.schema_of(row)
        if 'EventSchemaVersion' in row and schema is None:
            findings.error(f'EventSchemaVersion {row["EventSchemaVersion"]!r} is of no table')
            return findings
        columns = self.columns[schema] if schema else self.UNKNOWN
        for name in getattr(row, 'repeats', ()):
            findings.error(f'{name} is there twice')
        additional = row.get('AdditionalFields', {})
        if not isinstance(additional, dict):
            findings.error('AdditionalFields is no object')
        for name in getattr(additional, 'repeats', ()):
            findings.error(f'AdditionalFields.{name} is there twice')
        for name, value in row.items():
            if name not in columns:
                findings.error(f'{name} is no column of the table: its value would be lost')
            elif not _TYPES[columns[name]](value):
                findings.error(f'{name} is no {columns[name]}: {value!r:.60}')
        for name in ('TimeGenerated', 'EventOriginalUid'):
            if name not in row:
                findings.error(f'{name} is missing')
        if schema:
            self._judge_rules(self.rules[schema], columns, row, findings)
        return findings

    def _judge_rules(self, rules, columns, row, findings):
        for name, rule in rules.items():
            value = row.get(name)
            if value is None:
                if 'Mandatory' in rule['classes']:
                    findings.error(f'{name} is mandatory and missing')
                for parent in rule['parents'] & set(row):
                    findings.error(f'{name} is missing beside {parent}')
            elif value == '':
                if 'Mandatory' in rule['classes']:
                    findings.warning(f'{name} is mandatory and empty')
            elif _TYPES[columns[name]](value):
                self._judge_value(name, value, rule, findings)

    @staticmethod
    def _judge_value(name, value, rule, findings):
        if rule['values'] and isinstance(value, str) and value not in rule['values']:
            if name in ('EventProduct', 'EventVendor'):
                findings.warning(f'{name} {value!r} is not registered')     # the list names products Microsoft has parsers for
            elif _has_term(value, rule['values']):
                findings.warning(f'{name} {value!r} is only part of a listed value')
            else:
                findings.error(f'{name} {value!r} is none of {"|".join(sorted(rule["values"]))}')
        for logical in rule['logical'] & set(_LOGICAL):
            if not _LOGICAL[logical](value):
                findings.error(f'{name} {value!r:.60} is no {logical}')


# ---- OCSF ------------------------------------------------------------------------------------------------------

class Ocsf:
    """Events of the compiled schema: what a strict validator refuses is an error."""

    def __init__(self, path=REFERENCE / 'ocsf' / 'compiled-1.8.0-subset.json'):
        with open(path) as file:
            schema = json.load(file)
        self.version, self.types, self.objects = schema['ocsf_version'], schema['types'], schema['objects']
        self.classes = {c['uid']: c for c in schema['classes'].values()}

    def judge(self, event):
        findings = Findings()
        kind = self.classes.get(event.get('class_uid'))
        if kind is None or isinstance(event.get('class_uid'), bool):
            findings.error(f'class_uid {event.get("class_uid")!r} is unknown')
            return findings
        metadata = event.get('metadata')
        metadata = metadata if isinstance(metadata, dict) else {}
        profiles = metadata.get('profiles') if isinstance(metadata.get('profiles'), list) else []
        for profile in profiles:
            if profile not in kind['profiles']:
                findings.error(f'metadata.profiles: {profile} is no profile of {kind["caption"]}')
        if metadata.get('version') != self.version:
            findings.error(f'metadata.version {metadata.get("version")!r} is not {self.version}')
        if not metadata.get('uid'):
            findings.error('metadata.uid is missing: repeats could not be told')
        if event.get('type_uid') != event['class_uid'] * 100 + (event.get('activity_id') or 0):
            findings.error('type_uid does not fit class and activity')
        if event.get('category_uid') != kind['category_uid']:
            findings.error('category_uid does not fit the class')
        time = event.get('time')
        if _is_int(time) and not 10**11 < time < 10**14:
            findings.warning(f'time {time} is hardly in milliseconds')
        self._judge_object(event, kind, profiles, '', findings)
        for name in getattr(event.get('unmapped'), 'repeats', ()):
            findings.error(f'unmapped.{name} is there twice')
        return findings

    def _judge_object(self, value, kind, profiles, path, findings):
        for name in getattr(value, 'repeats', ()):
            findings.error(f'{path}{name} is there twice')
        attributes = kind['attributes']
        for name, item in value.items():
            attribute = attributes.get(name)
            if attribute is None:
                findings.error(f'{path}{name} is not in the schema')
            elif attribute.get('profile') and attribute['profile'] not in profiles:
                findings.error(f'{path}{name} belongs to profile {attribute["profile"]}, which is not named')
            else:
                self._judge_attribute(item, attribute, profiles, path + name, findings)
                self._judge_sibling(value, item, attribute, path + name, findings)
        for name, attribute in attributes.items():
            applies = not attribute.get('profile') or attribute['profile'] in profiles
            if attribute['requirement'] == 'required' and applies and name not in value:
                findings.error(f'{path}{name} is required and missing')
        for rule, names in kind.get('constraints', {}).items():
            count = sum(name in value for name in names)
            if count == 0 or rule == 'just_one' and count > 1:
                findings.error(f'{path or "event"} has {count} of {", ".join(names)}: {rule}')

    def _judge_attribute(self, value, attribute, profiles, path, findings):
        if attribute.get('is_array'):
            if not isinstance(value, list):
                findings.error(f'{path} is no array')
                return
            for i, item in enumerate(value):
                self._judge_value(item, attribute, profiles, f'{path}[{i}]', findings)
        else:
            self._judge_value(value, attribute, profiles, path, findings)

    def _judge_value(self, value, attribute, profiles, path, findings):
        if attribute['type'] == 'object_t':
            if not isinstance(value, dict):
                findings.error(f'{path} is no object')
            elif attribute['object'] != 'object':                       # `object` may hold anything
                self._judge_object(value, self.objects[attribute['object']], profiles, path + '.', findings)
            return
        self._judge_type(value, attribute['type'], path, findings)
        if 'enum' in attribute and str(value) not in attribute['enum']:
            findings.error(f'{path} {value!r} is none of its values')

    def _judge_type(self, value, name, path, findings):
        rule = self.types[name]
        base = rule.get('type', name)
        fits = {
            'string_t': lambda: isinstance(value, str),
            'integer_t': lambda: _is_int(value) and -2**31 <= value < 2**31,
            'long_t': lambda: _is_int(value) and -2**63 <= value < 2**63,
            'float_t': lambda: _is_int(value) or isinstance(value, float),
            'boolean_t': lambda: isinstance(value, bool),
            'json_t': lambda: True,
        }[base]
        if not fits():
            findings.error(f'{path} is no {name}: {value!r:.60}')
            return
        if 'range' in rule and not rule['range'][0] <= value <= rule['range'][1]:
            findings.error(f'{path} {value} is out of range')
        if 'max_len' in rule and len(value) > rule['max_len']:
            findings.error(f'{path} is longer than {rule["max_len"]}')
        if 'regex' in rule and not re.search(rule['regex'], value):
            findings.error(f'{path} {value!r:.60} is no {name}')
        if base == 'string_t' and value == '':
            findings.warning(f'{path} is empty')

    @staticmethod
    def _judge_sibling(value, item, attribute, path, findings):
        """A text beside its number is the number's caption, or with 99 the source's own word."""
        name = attribute.get('sibling')
        if name is None or isinstance(item, list) or 'enum' not in attribute:
            return
        if item == 99 and name not in value and name in ('activity_name', 'status', 'severity', 'action', 'direction', 'type'):
            findings.error(f'{path} is 99 and {name} does not say what')
        elif item != 99 and name in value and value[name] != attribute['enum'].get(str(item)):
            findings.error(f'{name} is {value[name]!r}, which is not what {path} {item} means')
