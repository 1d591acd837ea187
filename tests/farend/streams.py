"""The stream declarations: which columns a stream has and what may stand in them.

The service takes a row with a wrong value and stores null, takes an undeclared column and drops it, and says 204 to
both. Here each of them is named, so that a test can ask.
"""
import csv
import json
import pathlib
import re

TABLES = pathlib.Path(__file__).resolve().parents[1] / 'reference' / 'asim' / 'tables'

# Columns the service fills itself: in the table, never in a stream declaration.
SERVICE_COLUMNS = {'_ResourceId', '_SubscriptionId', '_BilledSize', '_IsBillable', 'TenantId', 'Type', 'SourceSystem'}
RESERVED_COLUMNS = {'_ResourceId', 'id', '_SubscriptionId', 'TenantId', 'Type', 'UniqueId', 'Title'}

FIELD_BYTES_MAX = 64 * 1024

DATETIME = re.compile(
    r'\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,7})?(Z|[+-]\d\d:\d\d)\Z')
COLUMN_NAME = re.compile(r'[A-Za-z][A-Za-z0-9_]{0,44}\Z')


# One function a type: None where the value fits, else the word under which its loss is remembered.

def check_string(value):
    if type(value) is not str:
        return 'type'
    if len(value) * 4 > FIELD_BYTES_MAX and len(value.encode('utf-8', 'replace')) > FIELD_BYTES_MAX:
        return 'field-too-long'
    return None


def check_int(value):
    return None if type(value) is int and -2**31 <= value < 2**31 else 'type'


def check_long(value):
    return None if type(value) is int and -2**63 <= value < 2**63 else 'type'


def check_real(value):
    return None if type(value) is float or type(value) is int else 'type'


def check_boolean(value):
    return None if type(value) is bool else 'type'


def check_datetime(value):
    return None if type(value) is str and DATETIME.match(value) else 'type'


def check_dynamic(value):
    if len(json.dumps(value, ensure_ascii=False, separators=(',', ':')).encode('utf-8', 'replace')) > FIELD_BYTES_MAX:
        return 'field-too-long'
    return None


CHECKS = {
    'string': check_string, 'int': check_int, 'long': check_long, 'real': check_real, 'boolean': check_boolean,
    'datetime': check_datetime, 'dynamic': check_dynamic,
}


class Stream:
    """One declared stream. `columns` is None where any column goes; `timed`: its transformation makes TimeGenerated."""

    def __init__(self, name, columns, timed=False):
        self.name = name
        self.columns = columns
        self.timed = timed
        self.checks = None if columns is None else {column: CHECKS[kind] for column, kind in columns.items()}

    def losses(self, row):
        """What the service would silently lose of this row: (column, word), none where the row is clean."""
        losses = []
        if self.checks is None:
            return losses
        checks = self.checks
        for column, value in row.items():
            check = checks.get(column)
            if check is None:
                losses.append((column, 'undeclared-column'))
            elif value is not None:
                word = check(value)
                if word is not None:
                    losses.append((column, word))
        if row.get('TimeGenerated') is None and not self.timed:
            losses.append(('TimeGenerated', 'missing'))
        return losses


def table_columns(table):
    """A physical table's columns as a stream declaration spells their types."""
    with open(TABLES / f'{table}.csv', newline='', encoding='utf-8') as file:
        rows = [(row['Column'], row['Type'].lower()) for row in csv.DictReader(file)]
    kinds = {'bool': 'boolean', 'guid': 'string'}
    return {column: kinds.get(kind, kind) for column, kind in rows if column not in SERVICE_COLUMNS}


def read_streams(path):
    """Reads declarations: a stream takes its columns from a table, from a list, or takes "any"."""
    streams = {}
    for name, declared in json.loads(pathlib.Path(path).read_text(encoding='utf-8')).items():
        if not name.startswith('Custom-'):
            raise ValueError(f'{path}: stream {name}: names start with Custom-')
        columns = table_columns(declared['table']) if 'table' in declared else declared['columns']
        if columns == 'any':
            columns = None
        for column, kind in (columns or {}).items():
            if kind not in CHECKS:
                raise ValueError(f'{path}: stream {name}: column {column}: no such type: {kind}')
            if column in RESERVED_COLUMNS or not COLUMN_NAME.match(column):
                raise ValueError(f'{path}: stream {name}: column {column}: the service refuses this name')
        streams[name] = Stream(name, columns)
    return streams
