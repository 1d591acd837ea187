"""Faults on demand: what the next requests shall meet instead of an honest answer.

One fault is a JSON object:
    {"where": "ingest", "token", "managed" or "arm", "do": WORD, "count": 1 (-1: until cleared), "chance": 1.0, "delay": seconds,
     "status": 503, "retry_after": "2", "code": "Busy", "message": "...", "body_bytes": 0, "headers": {}, "body": "..."}

    status        read the request, answer `status`
    reset         drop the connection on seeing the headers; nothing is accepted
    reset-late    read the whole request, then drop the connection; nothing is accepted
    lose-answer   accept the request, then drop the connection before the answer
    hang          read the request and never answer, until the faults are cleared or the caller leaves
    hold-answer   accept the request, then as with `hang`
    garbage       answer with bytes that are no HTTP
    slow          wait `delay` and go on honestly
"""
import asyncio
import json
import random
import socket
import struct

from aiohttp import web

WORDS = ('status', 'reset', 'reset-late', 'lose-answer', 'hang', 'hold-answer', 'garbage', 'slow')


class Fault:
    def __init__(self, **given):
        self.where = given.pop('where', 'ingest')
        self.do = given.pop('do')
        self.count = given.pop('count', 1)
        self.chance = given.pop('chance', 1.0)
        self.delay = given.pop('delay', 0.0)
        self.status = given.pop('status', 503)
        self.retry_after = given.pop('retry_after', None)
        self.code = given.pop('code', None)
        self.message = given.pop('message', 'This far end was told to fail.')
        self.body = given.pop('body', None)
        self.body_bytes = given.pop('body_bytes', 0)
        self.headers = given.pop('headers', {})
        if given or self.do not in WORDS or self.where not in ('ingest', 'token', 'managed', 'arm'):
            raise ValueError(f'no such fault: {self.do} at {self.where} {given or ""}')

    def response(self):
        headers = dict(self.headers)
        if self.retry_after is not None:
            headers['Retry-After'] = str(self.retry_after)
        if self.code is not None:
            headers['x-ms-error-code'] = self.code
        if self.body_bytes:
            text = 'x' * self.body_bytes
        elif self.body is not None:
            text = self.body
        else:
            text = json.dumps({'error': {'code': self.code or 'Fault', 'message': self.message}})
        return web.Response(status=self.status, text=text, headers=headers, content_type='application/json')


class Faults:
    """The faults that wait, first come first served per place."""

    def __init__(self, seed):
        self.waiting = []
        self.random = random.Random(seed)
        self.cleared = asyncio.Event()
        self.held = 0                # callers that hang now

    def add(self, given):
        self.waiting.append(Fault(**given))

    def clear(self):
        self.waiting.clear()
        self.cleared.set()           # whoever hangs now goes on
        self.cleared = asyncio.Event()

    async def hold(self):
        """Until the faults are cleared."""
        self.held += 1
        try:
            await self.cleared.wait()
        finally:
            self.held -= 1

    def next(self, where):
        for fault in self.waiting:
            if fault.where != where or self.random.random() >= fault.chance:
                continue
            if fault.count > 0:
                fault.count -= 1
                if fault.count == 0:
                    self.waiting.remove(fault)
            return fault
        return None


class Dropped(Exception):
    """The connection is gone; there is nobody to answer."""


def drop(request):
    """Ends the connection as a crash would: with a reset, not with a goodbye."""
    transport = request.transport
    if transport is not None:
        peer = transport.get_extra_info('socket')
        if peer is not None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        transport.abort()
    raise Dropped
