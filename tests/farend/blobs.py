"""A stand-in for Azure Blob Storage's reading half: listings, ranges, conditions, over a million names if need be, and the
races and refusals that Azurite does not show. Runs in a thread of the test, which holds its blobs in hand:

    with BlobService() as service:
        service.put('resourceId=/…/PT1H.json', b'{"records":[]}')
        service.fault(lambda request: request.method == 'GET' and …, status=503, headers={'Retry-After': '1'})
        ... service.source() is a section for penstock.conf ...

Known of the real one, and held here: pages of at most 5000 entries, folders counted among them, in the order of names; a
byte order mark before the XML; ETags without quotes in it; 206, 304, 412 and 416 as sources say. Signatures are not
checked: Azurite does that.
"""
import asyncio
import bisect
import email.utils
import threading
import time
from urllib.parse import unquote
from xml.sax.saxutils import escape

from aiohttp import web


class Blob:
    __slots__ = ("data", "modified", "created", "kind", "etag", "size")

    def __init__(self, data, modified=None, created=None, kind='BlockBlob'):
        self.data = data             # bytes, or a function that makes them
        self.modified = modified if modified is not None else time.time()
        self.created = created if created is not None else self.modified
        self.kind = kind
        self.etag = None

    def content(self):
        return self.data() if callable(self.data) else self.data


class Fault:
    def __init__(self, when, count, **more):
        self.when, self.count, self.more = when, count, more


class BlobService:
    """One container."""

    def __init__(self, container='logs'):
        self.container = container
        self.blobs = {}
        self.names = []              # sorted
        self.faults = []
        self.log = []                # (method, kind, name or prefix, status, bytes sent)
        self.etags = 0
        self.skew = 0
        self.page_max = 5000
        self.before = None           # called with each request, to race it
        self.lock = threading.Lock()

    # What tests do.

    def put(self, name, data, **more):
        """A blob, new or written over; `created` is kept where it is not given and the blob was there."""
        old = self.blobs.get(name)
        if old is not None and 'created' not in more:
            more['created'] = old.created
        blob = Blob(data, **more)
        self.etags += 1
        blob.etag = f'0x{self.etags:X}'
        with self.lock:
            if old is None:
                bisect.insort(self.names, name)
            self.blobs[name] = blob
        return blob

    def fill(self, blobs):
        """Many new ones at once."""
        for name, blob in blobs:
            blob.etag = '0x1'
            self.blobs[name] = blob
        self.names = sorted(self.blobs)

    def delete(self, name):
        with self.lock:
            del self.blobs[name]
            self.names.remove(name)

    def fault(self, when, count=1, **more):
        """The next `count` requests for which when(request) holds get status, headers, code, body; or are cut (cut=bytes);
        or are answered as things are now, but only when that threading.Event is set (until=event)."""
        self.faults.append(Fault(when, count, **more))
        return self.faults[-1]

    def count(self, method=None, kind=None):
        return sum(1 for entry in self.log if method in (None, entry[0]) and kind in (None, entry[1]))

    def sent(self, kind='blob'):
        return sum(entry[4] for entry in self.log if entry[1] == kind and entry[3] in (200, 206))

    def source(self, key_file, name='blobs', **more):
        keys = {'type': 'azure-blob', 'container': f'http://127.0.0.1:{self.port}/account/{self.container}', 'auth': 'key',
                'key_file': key_file, 'poll': '200ms', **more}
        return f'source {name}', {key: value for key, value in keys.items() if value is not None}

    # Serving.

    def __enter__(self):
        started = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self.thread.start()
        started.wait(30)
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.end.set)
        self.thread.join(30)

    def _run(self, started):
        asyncio.run(self._serve(started))

    async def _serve(self, started):
        self.loop, self.end = asyncio.get_running_loop(), asyncio.Event()
        runner = web.ServerRunner(web.Server(self._answer), keepalive_timeout=600)
        await runner.setup()
        site = web.TCPSite(runner, '127.0.0.1', 0)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]
        started.set()
        await self.end.wait()
        await runner.cleanup()

    async def _answer(self, request):
        listing = request.query.get('comp') == 'list'
        if self.before is not None:
            self.before(request)
        fault = next((fault for fault in self.faults if fault.count > 0 and fault.when(request)), None)
        if fault is not None:
            fault.count -= 1
        if fault is not None and 'status' in fault.more:
            response = self._error(fault.more['status'], fault.more.get('code'), fault.more.get('headers'))
        else:
            response = self._list(request) if listing else self._blob(request)
        if fault is not None and 'until' in fault.more:
            await asyncio.to_thread(fault.more['until'].wait, 60)
        response.headers['Date'] = email.utils.formatdate(time.time() + self.skew, usegmt=True)
        body = fault.more['body'] if fault is not None and 'body' in fault.more else response.body or b''
        what = request.query.get('prefix', '') if listing else unquote(request.path).split('/', 3)[3]
        cut = fault.more.get('cut') if fault is not None else None
        self.log.append((request.method, 'list' if listing else 'blob', what, response.status,
                         len(body) if cut is None else cut))
        if fault is not None and 'body' in fault.more:
            response = web.Response(status=200, body=body, headers={'Date': response.headers['Date']})
        if cut is None:
            return response
        stream = web.StreamResponse(status=response.status, headers={**response.headers, 'Content-Length': str(len(body))})
        await stream.prepare(request)
        await stream.write(body[:cut])
        request.transport.close()
        return stream

    def _error(self, status, code, headers=None):
        return web.Response(status=status, headers={**(headers or {}), **({'x-ms-error-code': code} if code else {})},
                            body=f'<?xml version="1.0"?><Error><Code>{code}</Code></Error>'.encode())

    def _list(self, request):
        query = request.query
        prefix, delimiter = query.get('prefix', ''), query.get('delimiter')
        most = min(int(query.get('maxresults', self.page_max)), self.page_max)
        after = query.get('marker') or prefix
        out, count, marker = [], 0, ''
        with self.lock:
            at = bisect.bisect_left(self.names, after)
            while at < len(self.names) and self.names[at].startswith(prefix):
                name = self.names[at]
                if count == most:
                    marker = name
                    break
                count += 1
                cut = name.find(delimiter, len(prefix)) if delimiter else -1
                if cut >= 0:
                    folder = name[:cut + 1]
                    out.append(f'<BlobPrefix><Name>{escape(folder)}</Name></BlobPrefix>')
                    at = bisect.bisect_left(self.names, folder + '\U0010ffff', at)
                    continue
                blob = self.blobs[name]
                size = blob.size if hasattr(blob, 'size') else len(blob.content())
                out.append(f'<Blob><Name>{escape(name)}</Name><Properties><Creation-Time>{date(blob.created)}</Creation-Time>'
                           f'<Last-Modified>{date(blob.modified)}</Last-Modified><Etag>{blob.etag}</Etag><Content-Length>{size}'
                           f'</Content-Length><Content-Type>application/octet-stream</Content-Type><BlobType>{blob.kind}'
                           '</BlobType><AccessTier>Hot</AccessTier><LeaseStatus>unlocked</LeaseStatus></Properties></Blob>')
                at += 1
        text = ('\ufeff<?xml version="1.0" encoding="utf-8"?><EnumerationResults ServiceEndpoint="http://127.0.0.1/" '
                f'ContainerName="{self.container}"><Prefix>{escape(prefix)}</Prefix><MaxResults>{most}</MaxResults><Blobs>'
                f'{"".join(out)}</Blobs><NextMarker>{escape(marker)}</NextMarker></EnumerationResults>')
        return web.Response(body=text.encode(), content_type='application/xml')

    def _blob(self, request):
        name = unquote(request.path).split('/', 3)[3]
        blob = self.blobs.get(name)
        if blob is None:
            return self._error(404, 'BlobNotFound')
        if request.headers.get('If-Match', f'"{blob.etag}"') != f'"{blob.etag}"':
            return self._error(412, 'ConditionNotMet')
        data = blob.content()
        headers = {'ETag': f'"{blob.etag}"', 'Last-Modified': date(blob.modified), 'x-ms-creation-time': date(blob.created),
                   'x-ms-blob-type': blob.kind, 'x-ms-request-id': 'stand-in'}
        if request.method == 'HEAD':
            return web.Response(headers={**headers, 'Content-Length': str(len(data))})
        begin, _, end = request.headers['Range'][len('bytes='):].partition('-')
        begin, end = int(begin), min(int(end or len(data) - 1), len(data) - 1)
        if begin >= len(data):
            error = self._error(416, 'InvalidRange')
            error.headers['Content-Range'] = f'bytes */{len(data)}'
            return error
        headers['Content-Range'] = f'bytes {begin}-{end}/{len(data)}'
        return web.Response(status=206, headers=headers, body=data[begin:end + 1])


def date(seconds):
    return email.utils.formatdate(seconds, usegmt=True)


def flow_blob(records):
    return b'{"records":[' + b','.join(records) + b']}'
