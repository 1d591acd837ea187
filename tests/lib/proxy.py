"""A byte-level proxy on loopback that cuts, delays, trickles, corrupts, swallows and refuses; switchable while it runs.

    with Proxy(('127.0.0.1', port)) as proxy:
        ... point the daemon at proxy.port ...
        proxy.fault('cut', way='up', after=5000)      # the next 5000 bytes upwards pass, then the line is reset
        proxy.fault('swallow')                        # half-open: both ends believe in the line, nothing passes
        proxy.honest()

It knows nothing of what it carries: TLS, HTTP and Kafka look alike. Ways: 'up' is towards the far end, 'down' comes back.
    cut       after `after` bytes on that way of a line, reset it, at both ends
    swallow   read and pass nothing, close nothing; a line caught by it stays dead when the proxy is honest again
    trickle   pass one byte each `seconds` on that way
    delay     pass every piece `seconds` late
    corrupt   turn one bit of the byte at `after` on that way of a line
    refuse    reset new lines, and those that are open
A fault holds for all lines until the next call; with `count`, for so many lines, then the proxy is honest.
"""
import asyncio
import socket
import struct
import threading

WORDS = ('cut', 'swallow', 'trickle', 'delay', 'corrupt', 'refuse')
PIECE = 16384


class Fault:
    def __init__(self, word, way='up', after=0, seconds=0.0, count=-1):
        if word not in WORDS or way not in ('up', 'down'):
            raise ValueError(f'no such fault: {word} {way}')
        self.word, self.way, self.after, self.seconds, self.count = word, way, after, seconds, count
        self.lines = set()               # those it has struck, where it counts


class Line:
    """One connection through the proxy."""

    def __init__(self, near, far):
        self.ends = {'up': (near, far), 'down': (far, near)}      # way: (read from, write to)
        self.passed = {'up': 0, 'down': 0}
        self.dead = False                # swallowed

    def reset(self):
        for _, (_, writer) in self.ends.items():
            peer = writer.get_extra_info('socket')
            if peer is not None and peer.fileno() >= 0:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            writer.transport.abort()


class Proxy:
    def __init__(self, target, port=0):
        self.target = target
        self.listener = socket.create_server(('127.0.0.1', port))
        self.port = self.listener.getsockname()[1]
        self.present = None              # the fault; one reference, set from outside, read by the loop
        self.lines = set()
        self.accepted = 0
        self.struck = 0                  # lines that a fault has changed
        self.loop = asyncio.new_event_loop()
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        self.ready.wait()
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.listener.close()

    # ---- remote control, from the test's thread --------------------------------------------------------------

    def fault(self, word, **more):
        self.present = Fault(word, **more)
        if word == 'refuse':
            self.reset_lines()

    def honest(self):
        self.present = None

    def reset_lines(self):
        """Those that are open now."""
        self.loop.call_soon_threadsafe(self.reset_all)

    # ---- the loop's thread -----------------------------------------------------------------------------------

    def run(self):
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(asyncio.start_server(self.on_line, sock=self.listener, limit=PIECE))
        self.loop.call_soon(self.ready.set)
        self.loop.run_forever()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.reset_all()
        self.loop.run_until_complete(asyncio.sleep(0))

    def reset_all(self):
        for line in list(self.lines):
            line.reset()

    async def on_line(self, reader, writer):
        self.accepted += 1
        line = Line((reader, writer), (None, writer))
        try:
            if self.strikes('refuse', line):
                return
            far_reader, far_writer = await asyncio.open_connection(*self.target, limit=PIECE)
            line.ends = {'up': (reader, far_writer), 'down': (far_reader, writer)}
            self.lines.add(line)
            await asyncio.gather(self.carry(line, 'up'), self.carry(line, 'down'))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            line.reset()
            self.lines.discard(line)

    def strikes(self, word, line, way=None):
        """The present fault, if it is this one and takes this line."""
        fault = self.present
        if fault is None or fault.word != word or way not in (None, fault.way):
            return None
        if line not in fault.lines:
            if fault.count >= 0 and len(fault.lines) >= fault.count:
                return None
            fault.lines.add(line)
            self.struck += 1
        return fault

    async def carry(self, line, way):
        reader, writer = line.ends[way]
        while True:
            piece = await reader.read(PIECE)
            if not piece and not line.dead:
                writer.write_eof() if writer.can_write_eof() else None
                return
            if line.dead or self.strikes('swallow', line):
                line.dead = True
                if not piece:            # nobody is there any more
                    await asyncio.sleep(3600)
                continue
            await self.pass_on(line, way, writer, bytearray(piece))

    async def pass_on(self, line, way, writer, piece):
        start = line.passed[way]
        line.passed[way] += len(piece)
        if (fault := self.strikes('delay', line, way)):
            await asyncio.sleep(fault.seconds)
        if (fault := self.strikes('corrupt', line, way)) and start <= fault.after < start + len(piece):
            piece[fault.after - start] ^= 0x10
        fault = self.strikes('cut', line, way)
        if fault and start + len(piece) >= fault.after:
            writer.write(bytes(piece[:max(0, fault.after - start)]))
            await asyncio.sleep(0.02)    # what was passed shall arrive before the reset does
            line.reset()
            return
        while piece and (fault := self.strikes('trickle', line, way)):
            writer.write(bytes(piece[:1]))
            del piece[:1]
            await asyncio.sleep(fault.seconds)
        writer.write(bytes(piece))
        await writer.drain()
