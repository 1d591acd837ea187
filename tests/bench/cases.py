"""The table's rows: what is measured, on which logs, and what it may cost.

A case has a name for people, a group to choose it by, and once(lab): a dictionary of numbers for one run. Those that move logs
give bytes, events, wall, cpu and rss; latencies and doors give what belongs to them.
"""
import dataclasses
import subprocess

import latency
import measure
import peers
from lab import FAMILIES, files
from measure import GB, MB
from penstock import build_folder, environment, total

# Short rounds, and many: the fastest of them is one that nobody interrupted.
DOOR_BYTES = MB // 2
DOOR_ROUNDS = 25
DOORS = ('framer', 'json', 'parser', 'asim', 'ocsf', 'raw', 'work-asim', 'work-ocsf', 'work-raw', 'spool')


@dataclasses.dataclass
class Case:
    group: str
    name: str                        # of the row
    family: str
    once: object
    budget: float = None             # CPU seconds per GB of input, of the design
    quick: bool = True               # also measured where only a look is wanted

    @property
    def key(self):
        return f'{self.group}: {self.name}, {self.family}'


def moved(cost, size, events):
    return {'bytes': size, 'events': events, **dataclasses.asdict(cost)}


def delivered(events):
    return lambda counters: total(counters, 'delivered') >= events


# ---- Penstock

def parse(family, schema):
    def once(lab):
        path, made = lab.logs(family)
        return moved(measure.parse(path, schema), made.bytes, made.events)
    return once


def sentinel(family, **more):
    def once(lab):
        path, made = lab.logs(family)
        return moved(measure.daemon(lab.folder / 'daemon', [files(path), lab.sentinel(**more)], delivered(made.events)),
                     made.bytes, made.events)
    return once


def kafka(family, codec, **more):
    def once(lab):
        path, made = lab.logs(family)
        with lab.topic() as topic:
            return moved(measure.daemon(lab.folder / 'daemon', [files(path), lab.siem(topic, codec=codec, **more)],
                                        delivered(made.events)), made.bytes, made.events)
    return once


def hub(family):
    def once(lab):
        _, made = lab.logs(family)
        return moved(measure.daemon(lab.folder / 'daemon', [lab.hub(family), lab.sentinel()], delivered(made.events)),
                     made.bytes, made.events)
    return once


def blob(family):
    def once(lab):
        with lab.container(family) as (source, size, events):
            return moved(measure.daemon(lab.folder / 'daemon', [source, lab.sentinel()], delivered(events)), size, events)
    return once


OUTAGE = {'retry_min': '50ms', 'retry_max': '200ms', 'spool_max': '64G'}


def spool_write(family):
    """The far end is down and everything goes to disk; also what spool_read() begins with."""
    def once(lab):
        path, made = lab.logs(family)
        far_end = lab.far_end()
        far_end.down()
        try:
            cost = measure.daemon(lab.folder / 'spooled', [files(path), lab.sentinel(spool='always', **OUTAGE)],
                                  lambda counters: total(counters, 'spooled') >= made.events)
        finally:
            far_end.up()
        return moved(cost, made.bytes, made.events)
    return once


def spool_read(family):
    def once(lab):
        path, made = lab.logs(family)
        spool_write(family)(lab)
        cost = measure.daemon(lab.folder / 'spooled', [files(path), lab.sentinel(spool='always', **OUTAGE)],
                              lambda counters: delivered(made.events)(counters) and measure.waiting(counters) == 0, fresh=False)
        return moved(cost, made.bytes, made.events)
    return once


# ---- Peers

def peer(which, family, codec):
    def once(lab):
        path, made = lab.logs(family)
        messages = made.events if which.kind == 'tuples' else made.records
        with lab.topic() as topic:
            bootstrap = lab.kafka().bootstrap
            cost = measure.peer(lambda: which.start(lab.folder / 'peer', path, bootstrap, topic, codec),
                                lab.folder / 'peer' / 'log', bootstrap, topic, messages)
        return moved(cost, made.bytes, messages)
    return once


def kcat_same(family, codec):
    """What Penstock makes of the log, keys too, sent by kcat: per GB of the log's input, as in the other rows."""
    def once(lab):
        _, made = lab.logs(family)
        messages = lab.messages(family)
        with lab.topic() as topic:
            bootstrap = lab.kafka().bootstrap
            cost = measure.peer(lambda: peers.KCAT_KEYED.start(lab.folder / 'peer', messages, bootstrap, topic, codec),
                                lab.folder / 'peer' / 'log', bootstrap, topic, made.events)
        return moved(cost, made.bytes, made.events)
    return once


# ---- Latency: a line is appended, and the far end has it

def line_to_sentinel(gap_s, lines, rate=None, **more):
    return lambda lab: latency.to_sentinel(lab, gap_s, lines, more, rate)


def line_to_kafka(gap_s, lines, **more):
    return lambda lab: latency.to_kafka(lab, gap_s, lines, more)


# ---- Start and stop: of a file with one record in it

def started(cost):
    return {'CPU': 1000 * cost.cpu, 'yardstick': cost.yardstick}


def start_parse(lab):
    return started(measure.parse(lab.logs('activity', 1)[0], 'asim'))


def start_sentinel(lab):
    path, made = lab.logs('activity', 1)
    return started(measure.daemon(lab.folder / 'daemon', [files(path), lab.sentinel()], delivered(made.events)))


def start_kafka(lab):
    path, made = lab.logs('activity', 1)
    with lab.topic() as topic:
        return started(measure.daemon(lab.folder / 'daemon', [files(path), lab.siem(topic)], delivered(made.events)))


# ---- Doors: the hot paths by themselves, by doors.c

def door(name, family):
    def once(lab):
        path, _ = lab.logs(family, DOOR_BYTES)
        before = measure.yardstick()
        done = subprocess.run([build_folder() / 'tests' / 'bench-doors', str(DOOR_ROUNDS), name, path], cwd=lab.folder, text=True,
                              stdout=subprocess.PIPE, check=True, env=environment())
        units, unit, ns = done.stdout.split('\t')[2:]
        return {'ns': int(ns) / int(units), 'unit': unit, 'yardstick': (before + measure.yardstick()) / 2}
    return once


# ---- All of them

PARSE_BUDGET = {'activity': GB / (400 * MB), 'nsg': GB / (150 * MB), 'vnet': GB / (150 * MB)}
SENTINEL_BUDGET = {'activity': 6, 'nsg': 20, 'vnet': 20}

CASES = [Case('parse', f'parse to {schema}', family, parse(family, schema), PARSE_BUDGET.get(family) if schema == 'asim' else None)
         for family in FAMILIES for schema in ('asim', 'ocsf')]
CASES += [Case('sentinel', 'file to Sentinel', family, sentinel(family), SENTINEL_BUDGET.get(family)) for family in FAMILIES]
CASES += [Case('sentinel', 'file to Sentinel, 8 posts at once', 'activity', sentinel('activity', in_flight=8), 6)]
CASES += [Case('blob', 'container to Sentinel', family, blob(family)) for family in ('nsg', 'vnet')]
CASES += [Case('hub', 'topic to Sentinel', 'activity', hub('activity'))]
CASES += [Case('kafka', 'file to Kafka', 'activity', kafka('activity', 'none'), 4),
          Case('kafka', 'file to Kafka, lz4', 'activity', kafka('activity', 'lz4'), 5),
          Case('kafka', 'file to Kafka, lz4', 'nsg', kafka('nsg', 'lz4'), 25),
          Case('kafka', 'file to Kafka, lz4', 'vnet', kafka('vnet', 'lz4'), 25),
          Case('kafka', 'file to Kafka, raw', 'activity', kafka('activity', 'none', schema='raw'))]
CASES += [Case('spool', 'file to spool', 'activity', spool_write('activity'), quick=False),
          Case('spool', 'spool to Sentinel', 'activity', spool_read('activity')),
          Case('spool', 'spool to Sentinel', 'nsg', spool_read('nsg'), quick=False)]
# The cost of the promise: beside these, the same rows above with a spool that stands ready and is not needed.
CASES += [Case('promise', 'file to Sentinel, spool always', family, sentinel(family, spool='always', spool_max='64G'))
          for family in ('activity', 'nsg')]
CASES += [Case('promise', 'file to Kafka, lz4, spool always', 'activity',
               kafka('activity', 'lz4', spool='always', spool_max='64G')),
          Case('promise', 'file to Kafka, lz4, spool always, not compressed', 'activity',
               kafka('activity', 'lz4', spool='always', spool_max='64G', spool_compress='no'), quick=False)]
for one in peers.PEERS:
    log = 'nsg-lines' if one.kind == 'tuples' else 'activity'
    for codec in ('lz4',) if one.kind == 'tuples' else ('none', 'lz4') if one.kind == 'text' else ('none',):
        CASES.append(Case('peers', f'{one.name}: {one.kind} to Kafka' + ('' if codec == 'none' else ', ' + codec), log,
                          peer(one, log, codec), quick=codec == 'none' or one.kind == 'tuples'))
CASES += [Case('peers', 'kcat: the same messages to Kafka, lz4', family, kcat_same(family, 'lz4'), quick=False)
          for family in ('activity', 'nsg')]
CASES += [Case('peers', 'Penstock: file to Kafka, lz4', 'nsg-lines', kafka('nsg-lines', 'lz4'), 25)]
CASES += [Case('latency', 'line to Sentinel, idle, flush 10 ms', 'activity', line_to_sentinel(0.1, 100, flush='10ms')),
          Case('latency', 'line to Sentinel, 1000 lines/s, flush 100 ms', 'activity', line_to_sentinel(0.001, 8000, flush='100ms'),
               quick=False),
          *[Case('latency', f'line to Sentinel, 20 lines/s, flush {flush}' + (f', beside a replay at {rate}B/s' if rate else ''), 'activity',
                 line_to_sentinel(0.05, 400, rate, flush=flush), quick=False)
            for flush in ('2s', '100ms') for rate in (None, '1M', '4M')],
          Case('latency', 'line to Kafka, idle, flush 10 ms', 'activity', line_to_kafka(0.1, 100, flush='10ms')),
          Case('latency', 'line to Kafka, 1000 lines/s, flush 100 ms', 'activity', line_to_kafka(0.001, 8000, flush='100ms'),
               quick=False)]
CASES += [Case('start', 'penstock parse', 'activity', start_parse), Case('start', 'daemon, to Sentinel', 'activity', start_sentinel),
          Case('start', 'daemon, to Kafka', 'activity', start_kafka)]
CASES += [Case('doors', name, family, door(name, family), quick=family in ('activity', 'nsg'))
          for name in DOORS for family in FAMILIES if name not in ('raw', 'work-raw', 'spool') or family == 'activity']
