"""The Logs Ingestion API, strict: every documented limit and error, in one function read from top to bottom.

Where the real service is known to be silent (a row with an undeclared column, or with a value of the wrong type or of more
than 64 KB, is answered 204 and loses that value, or its end) the loss is remembered as a violation, and `strict` answers 400 so that a test fails
loudly. Which of its checks the service makes first is not documented; here the caller is checked before the body.

Known answers: 204, 403 and 413 with their bodies, 429 with Retry-After, 500 to an empty body, the header x-ms-error-code.
Not seen on any page: the codes in the bodies of 400, 401, 404 and 415. Nobody should read more from those than the status.
"""
import asyncio
import collections
import datetime
import json
import math
import re
import time
import uuid
import zlib
from dataclasses import dataclass, field

from aiohttp import web

import faults

API_VERSIONS = ('2023-01-01', '2021-11-01-preview')
CONTENT_LENGTH_MAX = 1_048_576       # on the wire
EXPANDED_MAX = 50 * 1024 * 1024      # found in the field behind gzip, undocumented


@dataclass
class Settings:
    """What a test may change while the stand-in runs."""
    strict: bool = True
    json_max: int = 1_000_000        # stricter than the service: a request's JSON before compression; 0: off
    requests_per_window: int = 12_000
    bytes_per_window: int = 2_000_000_000
    window_seconds: float = 60.0
    span_streams: list = field(default_factory=list)   # streams under the 30-minute rule
    poison: list = field(default_factory=list)         # texts; a request that holds one is refused whole, as for a bad row
    late_times: bool = False         # a TimeGenerated that is too old or too new becomes that of arrival, as it does there
    granted: bool = True             # the client has Monitoring Metrics Publisher on the DCR


class Refusal(Exception):
    def __init__(self, status, code, message, headers=None):
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers or {}

    def response(self, request_id):
        error = {'message': self.message} if self.code is None else {'code': self.code, 'message': self.message}
        headers = {'x-ms-request-id': request_id, **self.headers}
        if self.code is not None:
            headers['x-ms-error-code'] = self.code
        return web.Response(status=self.status, text=json.dumps({'error': error}), headers=headers,
                            content_type='application/json')


class Throttle:
    """Requests of one DCR, and their bytes of JSON, in the window that ends now: stricter than one that begins at full minutes."""

    def __init__(self):
        self.taken = collections.deque()
        self.bytes = 0

    def take(self, size, settings):
        now = time.monotonic()
        while self.taken and now - self.taken[0][0] >= settings.window_seconds:
            self.bytes -= self.taken.popleft()[1]
        if len(self.taken) >= settings.requests_per_window or self.bytes + size > settings.bytes_per_window:
            since = self.taken[0][0] if self.taken else now
            wait = max(1, math.ceil(since + settings.window_seconds - now))
            raise Refusal(429, 'TooManyRequests', 'The data collection rule receives too much.', {'Retry-After': str(wait)})
        self.taken.append((now, size))
        self.bytes += size


class Ingestion:
    def __init__(self, dcrs, streams, entra, store, fault_list, check):
        self.dcrs = {dcr: Throttle() for dcr in dcrs}
        self.streams = streams
        self.entra = entra
        self.store = store
        self.faults = fault_list
        self.check = check
        self.settings = Settings()

    async def on_request(self, request):
        entry = self.store.begin('ingest', request.match_info['dcr'], request.match_info['stream'])
        request_id = str(uuid.uuid4())
        try:
            response = await self.answer(request, entry, request_id)
            entry.status = response.status
        except Refusal as refusal:
            entry.status, entry.code = refusal.status, refusal.code
            response = refusal.response(request_id)
        except faults.Dropped:
            response = web.Response()          # goes nowhere: the connection is closed
        finally:
            self.store.end(entry)
        return response

    async def answer(self, request, entry, request_id):
        fault = self.faults.next('ingest')
        if fault is not None:
            entry.fault = fault.do
            if fault.delay:
                await asyncio.sleep(fault.delay)
            if fault.do == 'reset':
                faults.drop(request)
        self.check_caller(request, entry)
        self.check_head(request, entry)
        wire = await read_body(request, entry)
        if fault is not None:
            early = await self.misbehave(request, fault)
            if early is not None:
                return early
        if self.check != 'none':
            text = self.expand(request, wire, entry)
            self.dcrs[request.match_info['dcr']].take(len(text), self.settings)
            self.check_rows(entry, text)
        if fault is not None and fault.do == 'hold-answer':
            await self.faults.hold()
        if fault is not None and fault.do in ('hold-answer', 'lose-answer'):
            faults.drop(request)
        return web.Response(status=204, headers={'x-ms-request-id': request_id})

    async def misbehave(self, request, fault):
        """The faults that strike after the body; None where the request shall go on honestly."""
        if fault.do == 'status':
            return fault.response()
        if fault.do == 'reset-late':
            faults.drop(request)
        if fault.do == 'hang':
            await self.faults.hold()
            faults.drop(request)
        if fault.do == 'garbage':
            request.transport.write(b'\x00\x01 this is no HTTP \xff\r\n\r\n')
            request.transport.close()
            raise faults.Dropped
        return None

    def check_caller(self, request, entry):
        """Version, token, rights, names: wrong ones never depend on what is in the body."""
        version = request.query.get('api-version')
        if version not in API_VERSIONS:
            raise Refusal(400, 'UnsupportedApiVersion', f'The api-version {version!r} is not supported.')
        entry.client_request_id = request.headers.get('x-ms-client-request-id')
        if entry.client_request_id is not None and not is_guid(entry.client_request_id):
            raise Refusal(400, 'InvalidClientRequestId', 'x-ms-client-request-id is no GUID.')
        trouble = self.entra.trouble(request.headers.get('Authorization'))
        if trouble is not None:
            raise Refusal(401, 'InvalidToken', trouble, {'WWW-Authenticate': 'Bearer error="invalid_token"'})
        dcr = request.match_info['dcr']
        if dcr not in self.dcrs:
            raise Refusal(404, 'NotFound', f"Data collection rule with immutable Id '{dcr}' not found.")
        if not self.settings.granted:
            raise Refusal(403, 'OperationFailed', 'The authentication token provided does not have access to ingest data '
                          f"for the data collection rule with immutable Id '{dcr}' PipelineAccessResult: "
                          'AccessGranted: False, IsRbacPresent: False, IsDcrDceBindingValid: , DcrName: , DceName: ')
        if entry.stream not in self.streams:
            raise Refusal(404, 'NotFound', f"Stream '{entry.stream}' not found in data collection rule '{dcr}'.")

    def check_head(self, request, entry):
        if request.content_length is not None and request.content_length > CONTENT_LENGTH_MAX:
            entry.wire_bytes = request.content_length
            raise too_long(request.content_length)
        if request.content_type != 'application/json':
            raise Refusal(415, 'UnsupportedMediaType', 'Content-Type must be application/json.')
        entry.encoding = request.headers.get('Content-Encoding')
        if entry.encoding not in (None, 'gzip'):
            raise Refusal(415, 'UnsupportedMediaType', f'Content-Encoding {entry.encoding} is not supported.')

    def expand(self, request, wire, entry):
        if not wire:
            raise Refusal(500, None, 'An error occurred.')
        text = gunzip(wire) if entry.encoding == 'gzip' else wire
        entry.json_bytes = len(text)
        if self.settings.json_max and len(text) > self.settings.json_max:
            self.store.violation(entry, None, None, 'json-too-large')
            raise too_long(len(text), self.settings.json_max)
        return text

    def check_rows(self, entry, text):
        """Takes the rows over, or refuses them all."""
        if any(word.encode() in text for word in self.settings.poison):
            raise Refusal(400, 'InvalidRow', 'A row is not what the stream takes.')
        if self.check != 'full':
            self.store.count_rows(entry, quick_count(text))
            return
        duplicates = []
        rows = parse_rows(text, duplicates)
        stream = self.streams[entry.stream]
        first = None
        if duplicates:
            first = (None, duplicates[0], 'duplicate-key')
            self.store.violation(entry, *first)
        for position, row in enumerate(rows):
            for column, what in stream.losses(row):
                self.store.violation(entry, position, column, what)
                if first is None:
                    first = (position, column, what)
        if entry.stream in self.settings.span_streams:
            check_span(rows)
        if self.settings.late_times:
            correct_times(rows)
        if first is not None and self.settings.strict:
            raise Refusal(400, 'InvalidRow', 'Row %s, column %s: %s. The service would lose it without a word.' % first)
        self.store.accept(entry, rows)


def too_long(size, limit=CONTENT_LENGTH_MAX):
    words = ' (1 MB)' if limit == CONTENT_LENGTH_MAX else ''
    return Refusal(413, 'ContentLengthLimitExceeded',
                   f'Maximum allowed content length: {limit} bytes{words}. Provided content length: {size} bytes.')


async def read_body(request, entry):
    """The bytes on the wire; a body that never said its length is cut off where one that did is refused."""
    wire = bytearray()
    async for chunk in request.content.iter_any():
        wire += chunk
        entry.wire_bytes = len(wire)
        if len(wire) > CONTENT_LENGTH_MAX:
            raise too_long(len(wire))
    return bytes(wire)


def gunzip(wire):
    text = b''
    try:
        while wire:
            member = zlib.decompressobj(31)
            text += member.decompress(wire, EXPANDED_MAX + 1 - len(text))
            if len(text) > EXPANDED_MAX:
                raise too_long(len(text), EXPANDED_MAX)
            if not member.eof:
                raise Refusal(400, 'InvalidPayload', 'The gzip body ends early.')
            wire = member.unused_data
    except zlib.error as error:
        raise Refusal(400, 'InvalidPayload', f'The body is not gzip: {error}.') from None
    return text


def parse_rows(text, duplicates):
    """A JSON array of objects, as the standard says it, or a refusal. Names of repeated keys go to `duplicates`."""
    def to_object(pairs):
        made = dict(pairs)
        if len(made) != len(pairs):
            names = [name for name, _ in pairs]
            duplicates.extend(name for name in made if names.count(name) > 1)
        return made

    def refuse_constant(word):
        raise ValueError(f'{word} is no JSON')

    try:
        rows = json.loads(text.decode('utf-8'), object_pairs_hook=to_object, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, 'InvalidPayload', f'The body is not JSON: {error}') from None
    if not isinstance(rows, list) or not all(type(row) is dict for row in rows):
        raise Refusal(400, 'InvalidPayload', 'The body must be a JSON array of objects.')
    if not rows:
        raise Refusal(500, None, 'An error occurred.')
    return rows


def quick_count(text):
    """For benchmarks: the array's two ends, and about as many rows as there are TimeGenerated keys. No JSON is read."""
    if text[:1] != b'[' or text[-1:] != b']':
        raise Refusal(400, 'InvalidPayload', 'The body must be a JSON array of objects.')
    return text.count(b'"TimeGenerated":') or text.count(b'},{') + 1


def check_span(rows):
    times = [moment(row['TimeGenerated']) for row in rows if row.get('TimeGenerated')]
    if times and max(times) - min(times) > datetime.timedelta(minutes=30):
        raise Refusal(400, 'RecordsTimeRangeIsMoreThan30Minutes', 'The records span more than 30 minutes.')


def correct_times(rows):
    """More than two days old, or more than one day ahead: the service puts its own time there, without a word."""
    now = datetime.datetime.now(datetime.timezone.utc)
    for row in rows:
        age = now - moment(row['TimeGenerated'])
        if age > datetime.timedelta(days=2) or age < -datetime.timedelta(days=1):
            row['TimeGenerated'] = now.isoformat().replace('+00:00', 'Z')


def moment(text):
    """A datetime column's value; Python's own reader knows 3 or 6 digits of fraction, .NET writes up to 7."""
    try:
        at = datetime.datetime.fromisoformat(re.sub(r'\.(\d+)', lambda m: '.' + (m[1] + '000000')[:6],
                                                    text.replace('Z', '+00:00')))
    except ValueError:
        raise Refusal(400, 'InvalidPayload', 'TimeGenerated is no time.') from None
    return at if at.tzinfo else at.replace(tzinfo=datetime.timezone.utc)


def is_guid(text):
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False
