"""What a daemon is fed while it is killed again and again: files that rotate, blobs that grow, archives that appear.

Every record is known by the id of its event, computed from its bytes alone, with its file and its place in it. Nothing here
is ever taken away: what the daemon may lose to a rotation that is faster than itself is told in the README and is no part of this.
"""
import gzip
import hashlib
import os

from records import GrowingBlob, Maker, nsg_record

POISON = 'pois0nous'                 # a message with this word is refused by the far end for ever
TUPLES = 4


class Inputs:
    def __init__(self, folder, rnd):
        self.folder = folder
        self.rnd = rnd
        self.maker = Maker(rnd.randrange(1 << 30))
        self.expected = {}           # event id -> (file, place in the file)
        self.poisoned = set()
        self.files = self.archives = self.rotations = 0
        self.sizes = []              # by file: events
        for name in ('rotating', 'archives', 'blobs'):
            (folder / name).mkdir(parents=True)
        self.rotate()
        self.new_blob()

    def patterns(self):
        return ', '.join(f'{self.folder}/{name}' for name in ('rotating/app.log*', 'archives/*.gz', 'blobs/*.json'))

    def new_file(self):
        self.files += 1
        self.sizes.append(0)
        return self.files - 1

    def expect(self, file, raw, ordinals=1):
        whole = hashlib.sha256(raw).hexdigest()[:32]
        for ordinal in range(ordinals):
            uid = f'{whole}-{ordinal}'
            self.expected[uid] = (file, self.sizes[file])
            self.sizes[file] += 1
            if POISON.encode() in raw:
                self.poisoned.add(uid)

    def line(self, file):
        n = self.sizes[file]
        text = POISON if self.rnd.random() < 0.002 else 'x' * self.rnd.randrange(120)
        raw = (b'{"time":"2026-11-22T%02d:%02d:%02dZ","category":"Made","operationName":"made/by/test","file":%d,"n":%d,'
               b'"pad":"%s"}' % (n // 3600 % 24, n // 60 % 60, n % 60, file, n, text.encode()))
        self.expect(file, raw)
        return raw + b'\n'

    # The rotating log: app.log is renamed to app.log.1, that to app.log.2 and so on, and made anew.

    def append(self, lines):
        """So many lines; the last one may be torn until there is more."""
        text = self.torn + b''.join(self.line(self.log) for _ in range(lines))
        cut = len(text) - (self.rnd.randrange(1, 60) if lines and self.rnd.random() < 0.3 else 0)
        self.torn = text[cut:]
        with open(self.folder / 'rotating' / 'app.log', 'ab') as file:
            file.write(text[:cut])

    def rotate(self):
        if self.rotations:
            self.append(0)
            for n in range(self.rotations, 0, -1):
                old = self.folder / 'rotating' / ('app.log' if n == 1 else f'app.log.{n - 1}')
                old.rename(self.folder / 'rotating' / f'app.log.{n}')
        self.rotations += 1
        self.log, self.torn = self.new_file(), b''
        self.append(0)

    # An archive appears whole, by a rename.

    def archive(self, lines):
        file = self.new_file()
        part = self.folder / 'archives' / 'part'
        with gzip.open(part, 'wb', compresslevel=1) as packed:
            packed.write(b''.join(self.line(file) for _ in range(lines)))
        self.archives += 1
        os.rename(part, self.folder / 'archives' / f'{self.archives:04}.gz')

    # A flow log's blob, an hour each.

    def new_blob(self):
        self.blob_file = self.new_file()
        self.blob = GrowingBlob(self.folder / 'blobs' / f'{self.blob_file:05}.json')

    def commit(self, records):
        raws = [nsg_record(self.maker, tuples=TUPLES)[0] for _ in range(records)]
        for raw in raws:
            self.expect(self.blob_file, raw, TUPLES)
        self.blob.append(*raws)

    # Both together.

    def step(self):
        """A moment's worth."""
        self.append(self.rnd.randrange(1, 4))
        if self.rnd.random() < 0.2:
            self.commit(1)
        if self.rnd.random() < 0.002:
            self.rotate()

    def feed(self):
        """What has come together while the daemon was away."""
        self.append(self.rnd.randrange(50, 250))
        self.commit(self.rnd.randrange(1, 10))
        chance = self.rnd.random()
        if chance < 0.10:
            self.archive(self.rnd.randrange(200, 4000))
        elif chance < 0.14:
            self.rotate()
        elif chance < 0.18:
            self.new_blob()

    def finish(self):
        """No torn line is left: the daemon would wait for its end."""
        self.append(0)
