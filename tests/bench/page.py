"""docs/performance.md, its plots, and the figures of README.md, out of a table of tests/bench/run.

What the numbers say stands here beside them, as far as it does not depend on the hour; the numbers themselves are never written
by hand.
"""
import pathlib
import re

import svg
from measure import GB, MB

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCS = ROOT / 'docs'
MARKS = '<!-- written by tests/bench/run --page: begin -->', '<!-- end -->'

BEGINNING = '''# What it costs

{where}.

Medians of up to {runs} runs, turn about; behind ± half the way from the least to the most. The load is the median of what `uptime` says: what
is above two or three is other work on the same cores, and then MB/s says little and CPU too much. MB and GB are of input, decimal. CPU is
the process's own, user and system, of all its threads. What the far ends cost on the same cores is not in it, but it is in MB/s.

A virtual machine's neighbours do not show in its load and still make everything on it up to half as dear again. So each run stands
between two yardsticks, a small piece of work that is always the same, and only those runs count whose yardsticks took at most {margin:.0%} more
CPU than the best of the whole bench: they are chosen by the yardstick and never by their own outcome. *Runs* says how many those are, of how
many; where it says 0, none was, and the row is the median of all. In this hour the yardstick took {best:.0f} ms at best, {middle:.0f} in the median
and {worst:.0f} at worst.

Made by `tests/bench/run --page`; how it is measured: [tests/bench/README.md](../tests/bench/README.md).
'''

SECTIONS = {
    'parse': '''## The pure pipeline

`penstock parse`: records in, messages to nowhere, on one core. A fifth of what an Activity Log costs is the SHA-256 that gives each
event its id, by the processor's own instructions (1.9 GB/s); a tenth is writing its claims out again. Of flow logs most is the
writing: a GB becomes 14 to 16 GB of messages.''',
    'sentinel': '''## To Sentinel

From a file, gzip and TLS on, a spool standing ready; one post at a time, which keeps order, unless said otherwise. The far end takes
what it gets without unpacking it. The floor of flow logs is gzip: the 14 GB of JSON in a GB of NSG records take igzip, at 2.3 GB/s and its
best level for this, some 6.1 CPU s; level 0 would save a fifteenth of that for bodies a quarter larger. TLS, HTTP and the loop take 160 µs a post.''',
    'blob': '''## From a container

Four blobs in ranges of 512 KB, by HTTP, to the same far end.''',
    'hub': '''## From a topic

A message a record, from a real broker, to the same far end.''',
    'kafka': '''## To Kafka

A real broker, acks=all and idempotence; OCSF unless said otherwise. Of flow logs with lz4, 53 % is librdkafka's broker thread (lz4
itself 27, copying messages into requests 10, polls and sends 5), 21 % is the loop, which fills batches, hands them over and hears
of each message, and 26 % reads, normalizes and writes them. What producing the same messages costs by themselves is a row of kcat's,
among the peers.''',
    'spool': '''## Through an outage

The far end is down and everything goes to disk, compressed and synced. Then it is up, and the spool is delivered: what was stored
needs no parsing again, only gzip and TLS.''',
    'promise': '''## The cost of the promise

With `spool = always` every message is on disk, synced, before its record is forgotten, whatever the far end says. Otherwise it goes
there only when it must, and a record is forgotten when the far end has it; nothing is lost either way. *Against* that: the
same row's CPU with a spool that stands ready.''',
    'peers': '''## Peers

Debian's own packages in the same run, on the same lines, with acks=all and idempotence everywhere. *Text* is passed through, *JSON* is
read and written again, of *tuples* each becomes a message. rsyslog has a queue in memory that goes to disk beyond its mark;
syslog-ng has flow control and, where it says so, a reliable disk buffer. Neither syncs. kcat is no daemon: it is what reading lines
and librdkafka cost alone; *the same messages* are those that Penstock makes of the log, from a file, keys too. Penstock normalizes
into OCSF, gives each event an id, and keeps its place and a spool. *Against* that: CPU
as a multiple of Penstock's for the same log and compression.''',
}
START = '''## Start and stop

CPU from start to end with one record: programs linked, options read, spool and `state.db` opened, TLS or a producer set up, all
closed again. It is part of every row above, where it weighs less the more CPU the row takes: of an Activity Log to Sentinel, {weight:.1%}.'''
LATENCY = '''## Latency

Milliseconds from a line's write to the moment when the far end has it whole. A line waits for `flush` at most; the budget of an idle daemon
is 20 ms more than that, of which librdkafka's `linger.ms` is 15 on the way to Kafka.'''
DOORS = '''## The hot paths by themselves

Nanoseconds, in the fastest of many rounds over half a megabyte: `tests/bench/doors.c` says what each takes in. How many instructions
they may take is held by `tests/bench/instructions`.'''
SCALE = '''## Scale

Every point of a curve moves about the same bytes, {size:.0f} MB and more, so that a start weighs the same on all.'''

# README.md: what someone wants to know who has not decided yet.
README_ROWS = ('parse: parse to asim, activity', 'parse: parse to asim, nsg', 'parse: parse to asim, vnet',
               'sentinel: file to Sentinel, activity', 'sentinel: file to Sentinel, nsg', 'sentinel: file to Sentinel, vnet',
               'kafka: file to Kafka, activity', 'kafka: file to Kafka, lz4, activity', 'kafka: file to Kafka, lz4, nsg',
               'kafka: file to Kafka, lz4, vnet', 'blob: container to Sentinel, vnet', 'spool: spool to Sentinel, activity')
README = '''By `tests/bench/run`; {where}.
CPU is the daemon's own, user and system, per GB of input; the budget is what we aim for. A load above two or three is other work on the
same cores; *runs* is how many met the machine undisturbed and count, of how many (0: none did, and all count). Peers, latency, the
cost of the spool and how all of it scales: [docs/performance.md](docs/performance.md).
'''


def against(case):
    """The key of the row that this one is held against, if any."""
    if case.group == 'promise':
        name = case.name.split(', spool always')[0]
        return f'{"sentinel" if "Sentinel" in name else "kafka"}: {name}, {case.family}'
    if case.group == 'peers' and case.family == 'nsg-lines':
        return 'peers: Penstock: file to Kafka, lz4, nsg-lines'
    if case.group == 'peers':
        return f'kafka: file to Kafka{", lz4" if case.name.endswith("lz4") else ""}, {case.family}'
    return None


def cell(value, digits=1):
    middle, spread = value
    digits = 0 if middle >= 100 else digits
    return f'{middle:.{digits}f}' + (f' ± {spread:.{digits}f}' if spread else '')


def runs(found):
    return '{} of {}'.format(*found['of'])


def moved_line(case, rows):
    found, other = rows[case.key], rows.get(against(case))
    if against(case) is None:
        measure = f'{case.budget:.1f}' if case.budget else ''
    else:
        measure = f'{found["CPU s/GB"][0] / other["CPU s/GB"][0]:.2f} ×' if other else ''
    return (f'| {case.name} | {case.family} | {cell(found["MB/s"])} | {cell(found["CPU s/GB"])} | {measure} | '
            f'{found["Mev/CPUs"][0]:.2f} | {found["RSS MiB"][0]:.0f} | {runs(found)} |')


def moved_table(cases, rows):
    measure = 'budget' if against(cases[0]) is None else 'against'
    return [f'| | log | MB/s | CPU s/GB | {measure} | million events per CPU s | resident MiB | runs |', '|---' * 8 + '|',
            *[moved_line(case, rows) for case in cases]]


def latency_table(cases, rows):
    lines = ['| | p50 | p90 | p99 | most |', '|---|---|---|---|---|']
    for case in cases:
        cells = [cell(rows[case.key][name]) for name in ('p50', 'p90', 'p99', 'max')]
        lines.append(f'| {case.name} | ' + ' | '.join(cells) + ' |')
    return lines


def start_table(cases, rows):
    return ['| | CPU ms | runs |', '|---|---|---|',
            *[f'| {case.name} | {cell(rows[case.key]["CPU"])} | {runs(rows[case.key])} |' for case in cases]]


def weight_of_start(rows, size):
    """What part of a row's CPU it is; 0 where one of the two was not measured."""
    start, row = rows.get('start: daemon, to Sentinel, activity'), rows.get('sentinel: file to Sentinel, activity')
    return start['CPU'][0] / 1000 / (row['CPU s/GB'][0] * size / GB) if start and row else 0


def door_table(cases, rows):
    families = list(dict.fromkeys(case.family for case in cases))
    lines = ['| door | per | ' + ' | '.join(families) + ' |', '|---' * (len(families) + 2) + '|']
    for name in dict.fromkeys(case.name for case in cases):
        here = {case.family: rows[case.key] for case in cases if case.name == name}
        cells = [cell(here[family]['ns'], 2) if family in here else '' for family in families]
        lines.append(f'| {name} | {next(iter(here.values()))["unit"]} | ' + ' | '.join(cells) + ' |')
    return lines


def plot(curve, points, rows, where):
    """The curve as SVG, or None where too little was measured."""
    panels = []
    for label in ('CPU s/GB', 'MB/s'):
        series = {}
        for point in points:
            if point.curve == curve.name and point.key in rows:
                series.setdefault(point.series, []).append((point.x, rows[point.key][label][0]))
        panels.append((f'{label} of input', {name: line for name, line in series.items() if len(line) > 1}))
    return svg.draw(curve.title, curve.axis, curve.log, panels, where) if panels[0][1] else None


def write_curves(curves, rows, where):
    """The plots, and the page's text around them."""
    folder = DOCS / 'performance'
    folder.mkdir(parents=True, exist_ok=True)
    text = []
    for curve in curves.CURVES:
        drawn = plot(curve, curves.POINTS, rows, where)
        if drawn:
            (folder / f'{curve.name}.svg').write_text(drawn)
            text += [f'![{curve.title}](performance/{curve.name}.svg)', curve.why + '\n']
    return [SCALE.format(size=curves.BYTES / MB) + '\n', *text] if text else []


def write_readme(cases, rows, where):
    cases = [case for key in README_ROWS for case in cases if case.key == key and key in rows]
    text = '\n'.join([MARKS[0], README.format(where=where), *moved_table(cases, rows), MARKS[1]])
    path = ROOT / 'README.md'
    marked = re.escape(MARKS[0]) + '.*?' + re.escape(MARKS[1])
    path.write_text(re.sub(marked, lambda _: text, path.read_text(), flags=re.S))


def write(table, cases, curves):
    rows = table['rows']
    where = (f'{table["machine"]}; {table["date"]} UTC, commit {table["commit"]}, {table["size"] / MB:.0f} MB of Activity Log and '
             f'{table["size"] / 4 / MB:.0f} of the others, load {table["load"]:.1f}')
    best, middle, worst = table['yardstick']
    text = [BEGINNING.format(where=where, runs=table['runs'], margin=table['margin'] - 1, best=best, middle=middle, worst=worst)]
    tables = [(group, words, moved_table) for group, words in SECTIONS.items()]
    tables += [('start', START.format(weight=weight_of_start(rows, table['size'])), start_table),
               ('latency', LATENCY, latency_table), ('doors', DOORS, door_table)]
    for group, words, draw in tables:
        here = [case for case in cases if case.group == group and case.key in rows]
        if here:
            text += [words + '\n', *draw(here, rows), '']
    text += write_curves(curves, rows, where)
    (DOCS / 'performance.md').write_text('\n'.join(text).rstrip() + '\n')
    write_readme(cases, rows, where)
