"""How cost and throughput go with size: curves of points, each a case of its own, and why each bends where it does.

Every point moves about the same bytes, so that a start weighs the same on all of one curve.
"""
import dataclasses
import shutil

import measure
import records
from cases import Case, delivered, moved
from lab import files
from measure import MB

BYTES = 24 * MB


@dataclasses.dataclass
class Point(Case):
    curve: str = ''
    series: str = ''
    x: float = 0


@dataclasses.dataclass
class Curve:
    name: str                        # and its file's
    title: str
    axis: str                        # what x is
    log: bool                        # x in powers of ten
    why: str                         # it bends where it does


# ---- Files: the same bytes in ever more of them

def write_files(folder, count):
    """A folder tree with so many files of equal size; whole records, at least one each."""
    maker = records.Maker(3)
    each = max(1, 24_000 // count)   # records of 1.7 KB
    made = records.Made()
    for n in range(count):
        place = folder / f'{n // 1000:03}'
        place.mkdir(parents=True, exist_ok=True)
        lines = []
        for _ in range(each):
            text, one = records.defender_alert(maker)
            lines.append(text + b'\n')
            made.add(one)
            made.bytes += 1
        (place / f'{n:06}.json').write_bytes(b''.join(lines))
    return made


def with_files(count):
    def once(lab):
        folder, made = lab.generated(f'files-{count}', lambda folder: write_files(folder, count))
        return moved(measure.daemon(lab.folder / 'daemon', [files(f'{folder}/**/*.json'), lab.sentinel(in_flight=4)],
                                    delivered(made.events)), made.bytes, made.events)
    return once


# ---- Workers: four streams, as many threads

STREAMS = 4


def write_streams(folder, path, made):
    """So many files with the same in them."""
    folder.mkdir(exist_ok=True)
    for n in range(STREAMS):
        shutil.copy(path, folder / f'{n}.json')
    return made


def with_workers(family, count):
    def once(lab):
        path, made = lab.logs(family, BYTES // 2 if family == 'activity' else BYTES // 8)
        folder, _ = lab.generated(f'streams-{family}', lambda folder: write_streams(folder, path, made))
        return moved(measure.daemon(lab.folder / 'daemon', [files(f'{folder}/*.json'), lab.sentinel(in_flight=4)],
                                    delivered(STREAMS * made.events), workers=count), STREAMS * made.bytes, STREAMS * made.events)
    return once


# ---- Sinks: every record to each

SCHEMAS = ('ocsf', 'asim', 'raw')
SINKS_MEMORY = '512M'                # eight windows do not fit in the default


def with_sinks(count, different):
    def once(lab):
        path, made = lab.logs('activity', BYTES)
        broker = lab.kafka()
        topics = []
        try:
            sinks = []
            for n in range(count):
                lab.topics += 1
                topics.append(f'bench{lab.topics}')
                broker.create_topic(topics[-1])
                sinks.append(lab.siem(topics[-1], f'siem{n}', 'lz4', schema=SCHEMAS[n % 3] if different else 'ocsf'))
            return moved(measure.daemon(lab.folder / 'daemon', [files(path), *sinks], delivered(made.events * count),
                                        memory=SINKS_MEMORY), made.bytes, made.events)
        finally:
            for topic in topics:
                broker.delete_topic(topic)
    return once


# ---- Records of another size

def write_sized(path, size):
    """Alerts with so many bytes each; the weight is in a member that no schema has a column for."""
    maker = records.Maker(4)
    made = records.Made()
    with open(path, 'wb') as file:
        while made.bytes < BYTES:
            text, one = records.defender_alert(maker)
            more = max(0, size - len(text) - 12)
            noise = ''.join(maker.guid() for _ in range(min(more, 7200) // 36 + 1)) if more else ''
            line = text[:-1] + b',"Detail":"' + (noise * (more // max(1, len(noise)) + 1))[:more].encode() + b'"}\n'
            file.write(line)
            made.records += 1
            made.events += one.events
            made.bytes += len(line)
    return made


def with_size(size, schema):
    def once(lab):
        path, made = lab.generated(f'sized-{size}.json', lambda path: write_sized(path, size))
        with lab.topic() as topic:
            return moved(measure.daemon(lab.folder / 'daemon', [files(path), lab.siem(topic, codec='lz4', schema=schema)],
                                        delivered(made.events)), made.bytes, made.events)
    return once


# ---- A far end that is far away

def with_delay(ms, in_flight):
    def once(lab):
        path, made = lab.logs('activity', BYTES)
        far_end = lab.far_end()
        if ms:
            far_end.fault(do='slow', delay=ms / 1000, count=-1)
        try:
            return moved(measure.daemon(lab.folder / 'daemon', [files(path), lab.sentinel(in_flight=in_flight)],
                                        delivered(made.events)), made.bytes, made.events)
        finally:
            far_end.clear()
    return once


# ---- Spool: a sync is shared by what came while the one before was under way

def with_sync(kilobytes, spool):
    def once(lab):
        path, made = lab.logs('activity', BYTES)
        with lab.topic() as topic:
            return moved(measure.daemon(
                lab.folder / 'daemon', [files(path), lab.siem(topic, codec='lz4', batch_bytes=f'{kilobytes}K', spool=spool)],
                delivered(made.events)), made.bytes, made.events)
    return once


CURVES = [
    Curve('files', 'The same records in more files', 'files', True, '''
Defender alerts of 1.7 KB, 24,000 of them in all, and one in each of 100,000 files. What a file costs by itself is being found, opened, looked
at and read to its end: about five reads, five looks at its inode and ten wake-ups between loop and workers, 60 to 80 µs
together, where an alert takes 10 to 20. So nothing is seen of it until a file holds fewer than some ten records; from there on the curve is
that of the files, not of their bytes.'''),
    Curve('workers', 'Workers', 'workers', False, '''
Four files, so that there are jobs for more than one. A worker is one job at a time of framing, parsing and writing; reading and gzip are
done beside it by the same pool of threads, and TLS by the loop. So one worker keeps more than one core busy, a second costs nothing, since
jobs share nothing, and what it gains is what daemon and far end have left of the cores: of two, little.'''),
    Curve('sinks', 'Every record to more sinks', 'sinks', False, '''
To Kafka, lz4, a topic each. A record is read, parsed and given its id once, and written once a schema, whatever the number of sinks. What
comes with each sink is its own: a copy into its batch, librdkafka, lz4. That is a straight line, and no small one; the first sink of a
schema pays for its writing as well, which is less than a producer costs, so that the two lines lie close. Each sink's window is memory:
eight of them need more than the default budget, which `penstock check` says.'''),
    Curve('record-size', 'Size of a record', 'bytes a record', True, '''
To Kafka, lz4. A small record costs by the record: it is claimed, gets its event, its times and addresses are read, librdkafka carries it as a
message with headers of its own. From 60 KB on that has vanished, and what is left is by the byte: framing, UTF-8 and JSON, SHA-256 for
the id, the copy with its escapes, lz4.'''),
    Curve('far-end', 'Latency of the far end', 'ms until an answer', False, '''
Activity Log to Sentinel. CPU is the same; the clock waits. A post holds at most 1 MB of JSON, here about 0.8 MB of log, so that one post at a
time cannot be faster than 0.8 MB per answer: 8 MB/s at 100 ms, 1.6 MB/s at 500 ms. The curve bends where that falls below
what the processors give, and eight posts at once (`in_flight = 8`, when order does not matter) move the bend to eight times the
latency. `batch_bytes = 4M` would move it as well, where the gateway takes that.'''),
    Curve('spool-sync', 'Bytes between two syncs', 'KB a batch', True, '''
Activity Log to Kafka, lz4. There is no sync by the clock: an append writes every batch that waits, up to 64, and syncs once; what comes
meanwhile is the next append. So the interval is the disk's own, and `batch_bytes` says how much one sync carries at least. Below 125 KB the
clock waits, with or without a spool: the broker answers for eight batches at a time (`in_flight`), and eight small ones are little for a
round trip; what CPU there is goes into batches, each sealed, submitted, answered and settled by itself. Above, `always` costs what it
must: zstd over every message, the checksum, the write.'''),
]


def points(curve, series, xs, quick, once):
    return [Point('scale', f'{curve}, {series}', f'{x:g}', once(x), None, x in quick, curve, series, x) for x in xs]


POINTS = points('files', 'to Sentinel', (1, 10, 100, 1000, 10_000, 100_000), (1, 1000), with_files)
for each in ('activity', 'nsg'):
    POINTS += points('workers', each, (1, 2), (), lambda count, family=each: with_workers(family, count))
POINTS += points('sinks', 'same schema', (1, 2, 4, 8), (1, 4), lambda count: with_sinks(count, False))
POINTS += points('sinks', 'three schemas in turn', (1, 2, 3, 4, 8), (), lambda count: with_sinks(count, True))
for each in ('ocsf', 'raw'):
    POINTS += points('record-size', each, (2_000, 5_000, 20_000, 60_000, 200_000, 600_000), (2000, 60_000) if each == 'raw' else (),
                     lambda size, schema=each: with_size(size, schema))
for each in (1, 8):
    POINTS += points('far-end', f'{each} at once', (0, 10, 50, 100, 200, 500), (0, 100) if each == 8 else (),
                     lambda ms, in_flight=each: with_delay(ms, in_flight))
for each in ('when-needed', 'always'):
    POINTS += points('spool-sync', f'spool = {each}', (8, 32, 125, 500, 1000), (32, 1000) if each == 'always' else (),
                     lambda kilobytes, spool=each: with_sync(kilobytes, spool))
