"""What the far end has accepted, in one SQLite file that tests open and judge by.

Memory does not grow with the number of rows. A request's rows are committed before its answer is written, so what was
answered 204 is in the file, and what a killed stand-in never answered may be there too: as with the real service.

    rows(seq, request, stream, uid, row)     one a row accepted, in order; row is NULL unless rows are kept
    requests(id, at, kind, dcr, stream, status, wire_bytes, json_bytes, rows, encoding, client_request_id, fault, code)
    violations(request, stream, position, column, what)   what the service would have lost without a word
"""
import json
import sqlite3
import time

VIOLATIONS_KEPT = 10_000             # the rest is only counted

TABLES = '''
    CREATE TABLE rows (seq INTEGER PRIMARY KEY, request INTEGER, stream TEXT, uid TEXT, row TEXT);
    CREATE INDEX rows_uid ON rows (stream, uid);       -- tests ask for counts while rows pour in
    CREATE TABLE requests (id INTEGER PRIMARY KEY, at REAL, kind TEXT, dcr TEXT, stream TEXT, status INTEGER, wire_bytes INTEGER,
        json_bytes INTEGER, rows INTEGER, encoding TEXT, client_request_id TEXT, fault TEXT, code TEXT);
    CREATE TABLE violations (request INTEGER, stream TEXT, position INTEGER, column TEXT, what TEXT);
'''


class Request:
    """One line of the request log, filled while the request is handled."""

    def __init__(self, ident, kind, dcr=None, stream=None):
        self.id = ident
        self.kind = kind
        self.dcr = dcr
        self.stream = stream
        self.status = 0              # 0: never answered
        self.wire_bytes = self.json_bytes = self.rows = 0
        self.encoding = self.client_request_id = self.fault = self.code = None


class Store:
    def __init__(self, path, keep_rows):
        self.path = path
        self.keep_rows = keep_rows
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute('PRAGMA journal_mode = WAL')
        self.db.execute('PRAGMA synchronous = OFF')
        self.db.executescript(TABLES)
        self.ids = 0
        self.rows = {}               # stream -> rows accepted
        self.statuses = {}           # kind -> status -> requests
        self.bytes = {'wire': 0, 'json': 0}
        self.violations = 0
        self.largest = {'wire': 0, 'json': 0}

    def begin(self, kind, dcr=None, stream=None):
        self.ids += 1
        return Request(self.ids, kind, dcr, stream)

    def accept(self, request, rows):
        """Takes the rows over. They carry their stream's name and, where the schema has one, the event's id."""
        lines = ((request.id, request.stream, row_uid(row),
                  json.dumps(row, ensure_ascii=False, separators=(',', ':')) if self.keep_rows else None) for row in rows)
        self.db.execute('BEGIN')
        self.db.executemany('INSERT INTO rows (request, stream, uid, row) VALUES (?, ?, ?, ?)', lines)
        self.db.execute('COMMIT')
        self.count_rows(request, len(rows))

    def count_rows(self, request, count):
        request.rows = count
        self.rows[request.stream] = self.rows.get(request.stream, 0) + count

    def violation(self, request, position, column, what):
        self.violations += 1
        if self.violations <= VIOLATIONS_KEPT:
            self.db.execute('INSERT INTO violations VALUES (?, ?, ?, ?, ?)',
                            (request.id, request.stream, position, column, what))

    def end(self, request):
        statuses = self.statuses.setdefault(request.kind, {})
        statuses[request.status] = statuses.get(request.status, 0) + 1
        self.bytes['wire'] += request.wire_bytes
        self.bytes['json'] += request.json_bytes
        self.largest['wire'] = max(self.largest['wire'], request.wire_bytes)
        self.largest['json'] = max(self.largest['json'], request.json_bytes)
        self.db.execute('INSERT INTO requests VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)',
                        (request.id, time.time(), request.kind, request.dcr, request.stream, request.status, request.wire_bytes,
                         request.json_bytes, request.rows, request.encoding, request.client_request_id, request.fault,
                         request.code))

    def state(self):
        return {'rows': self.rows, 'requests': self.statuses, 'bytes': self.bytes, 'largest': self.largest,
                'violations': self.violations}


def row_uid(row):
    """The event id where the schemas keep it: ASIM, then OCSF, then ECS."""
    uid = row.get('EventOriginalUid')
    if uid is None:
        for outer, inner in (('metadata', 'uid'), ('event', 'id')):
            holder = row.get(outer)
            if isinstance(holder, dict) and inner in holder:
                return str(holder[inner])
    return uid if uid is None or isinstance(uid, str) else str(uid)
