"""What the measurements share: generated logs, far ends that are started once, topics, and a folder that goes with them."""
import contextlib
import dataclasses
import hashlib
import json
import pathlib
import subprocess
import sys

import measure
import records
from azurite import KEY
from blobs import BlobService
from farend import FarEnd
from kafka import Kafka, Unavailable
from penstock import total

FAMILIES = ('activity', 'nsg', 'vnet', 'alert')
# A byte of a flow log becomes ten or more of messages: less of it is as much work.
SHARE = {'activity': 1, 'alert': 0.25, 'nsg': 0.25, 'vnet': 0.25, 'nsg-lines': 0.25}
MAKERS = {'activity': records.write_activity, 'nsg': records.write_nsg, 'vnet': records.write_vnet,
          'alert': records.write_alerts,
          'nsg-lines': lambda path, size, seed: records.write_lines(path, records.nsg_record, records.Maker(seed), None, size)}


# The last batch of a run is not full and waits for `flush`: by default 2 s, as long as many a run. And a far end that shares two
# cores with the daemon may be slower than it for more than 5 s: the row would then be one of the spool, or half of one.
STEADY = {'flush': '100ms', 'spool_after': '1m'}


def warm(path):
    """Reads a file, or all of a folder. What a machine has not read for a while may have left the page cache although memory was
    free, and reading it from the disk costs CPU: half as much again for the first row of a round, before this was here."""
    for file in [path] if path.is_file() else path.rglob('*.json'):
        with open(file, 'rb') as data:
            while data.read(measure.MB):
                pass


class Lab:
    def __init__(self, folder, size, logs=None):
        """`logs` keeps what was generated for the next bench: the same seed gives the same bytes as long as the generator is the same,
        and a hundred thousand files take longer to make, and to remove, than to read."""
        self.folder, self.size = pathlib.Path(folder), size
        generator = hashlib.sha256(pathlib.Path(records.__file__).read_bytes()).hexdigest()[:12]
        self.logs_folder = pathlib.Path(logs or folder) / f'logs-{generator}'
        self.stack = contextlib.ExitStack()
        self.topics, self.filled = 0, set()
        self.far_ends, self.broker, self.why_no_broker = {}, None, None

    def __enter__(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        self.logs_folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_):
        self.stack.close()

    def logs(self, family, size=None):
        """(path, what it holds) of a generated file; the seed is always the same."""
        size = size or int(self.size * SHARE[family])
        return self.generated(f'{family}-{size}.json', lambda path: MAKERS[family](path, size=size, seed=1))

    def generated(self, name, make):
        """(path, what it holds) of what make(path) makes, unless it is there: a file or a folder, and warm. What was cut short is made
        anew."""
        path, note = self.logs_folder / name, self.logs_folder / f'{name}.made'
        if not note.exists():
            made = make(path)
            note.write_text(json.dumps(dataclasses.asdict(made)))
        warm(path)
        return path, records.Made(**json.loads(note.read_text()))

    def far_end(self, check='none'):
        """The stand-in of the ingestion API: `none` does not unpack, so that it is the daemon that is measured."""
        if check not in self.far_ends:
            self.far_ends[check] = self.stack.enter_context(
                FarEnd(self.folder / f'farend-{check}', '--check', check, '--keep', 'ids'))
        return self.far_ends[check]

    def sentinel(self, far_end=None, **more):
        """What the daemon can do, not what a DCR takes: 2 GB a minute are 33 MB/s."""
        return (far_end or self.far_end()).sink(
            **{'schema': 'asim', 'bytes_a_minute': 0, 'requests_a_minute': 0, **STEADY, **more})

    def kafka(self):
        """A real broker; raises Unavailable."""
        if self.why_no_broker is not None:
            raise self.why_no_broker
        if self.broker is None:
            try:
                self.broker = self.stack.enter_context(Kafka(self.folder / 'kafka', {'file.delete.delay.ms': 1000}))
            except Unavailable as reason:
                print(f'No Kafka, and none of its rows: {reason}', file=sys.stderr)
                self.why_no_broker = reason
                raise
        return self.broker

    @contextlib.contextmanager
    def topic(self, **settings):
        """A new topic of one partition, which goes again."""
        broker = self.kafka()
        self.topics += 1
        name = f'bench{self.topics}'
        broker.create_topic(name, **settings)
        try:
            yield name
        finally:
            broker.delete_topic(name)

    def siem(self, topic, name='siem', codec='none', **more):
        return f'sink {name}', {'type': 'kafka', 'brokers': self.kafka().bootstrap, 'topic': topic, 'schema': 'ocsf',
                                'kafka.compression.codec': codec, **STEADY, **more}

    def messages(self, family):
        """A file of what the siem gets of the family's log: key, tab, message, line by line."""
        path, made = self.logs(family)
        out = self.folder / f'messages-{family}'
        if not out.exists():
            with self.topic() as topic, open(out, 'wb') as file:
                measure.daemon(self.folder / 'daemon', [files(path), self.siem(topic)],
                               lambda counters: total(counters, 'delivered') >= made.events)
                subprocess.run(['kcat', '-b', self.kafka().bootstrap, '-C', '-t', topic, '-e', '-q', '-f', '%k\t%s\n'], stdout=file,
                               check=True)
        warm(out)
        return out

    def hub(self, family):
        """A source that reads a topic: the family's lines, a message each, for a group that is new."""
        broker = self.kafka()
        if family not in self.filled:
            broker.create_topic(f'hub-{family}')
            subprocess.run(['kcat', '-b', broker.bootstrap, '-P', '-t', f'hub-{family}', '-l', self.logs(family)[0]], check=True)
            self.filled.add(family)
        self.topics += 1
        return 'source hub', {'type': 'event-hub', 'bootstrap': broker.bootstrap, 'topic': f'hub-{family}',
                              'group': f'bench{self.topics}'}

    @contextlib.contextmanager
    def container(self, family, blobs=4):
        """A source that reads a container with so many copies of the family's log, each another network interface's, and what
        they hold."""
        path, made = self.logs(family, int(self.size * SHARE[family] / blobs))
        data = path.read_bytes()
        key_file = self.folder / 'key'
        key_file.touch(mode=0o600)
        key_file.write_text(KEY + '\n')
        with BlobService() as service:
            for n in range(blobs):
                service.put(f'resourceId=/A/y=2026/m=11/d=18/h=06/m=00/macAddress={n:012X}/PT1H.json', data)
            yield service.source(key_file), made.bytes * blobs, made.events * blobs


def files(path, **more):
    return 'source logs', {'type': 'file', 'path': path, **more}
