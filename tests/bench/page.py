"""docs/performance.md, its plots, and the figures of README.md, out of a table of tests/bench/run.

What the numbers say stands here beside them, as far as it does not depend on the hour; the numbers themselves are never written
by hand.
"""
import pathlib
import re

import svg
from measure import MB

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCS = ROOT / 'docs'
MARKS = '<!-- written by tests/bench/run --page: begin -->', '<!-- end -->'

BEGINNING = '''# What it costs

{where}. Medians of {runs} runs; behind ± half the way from the least to the most. MB and GB are of input, decimal. CPU is the
process's own, user and system, of all its threads; what the far ends cost on the same two cores is not in it, but it is in MB/s.
Made by `tests/bench/run --page`; how it is measured: [tests/bench/README.md](../tests/bench/README.md).
'''

SECTIONS = (
    ('parse', 'The pure pipeline', '`penstock parse`, one core, messages to nowhere.'),
    ('sentinel', 'To Sentinel', 'From a file, gzip and TLS on, a spool standing ready, one post at a time unless said otherwise. The far end '
     'takes what it gets without unpacking it.'),
    ('blob', 'From a container', 'Ranges of 512 KB by HTTP, four blobs, to the same far end.'),
    ('hub', 'From a topic', 'A message a record, from a real broker, to the same far end.'),
    ('kafka', 'To Kafka', 'A real broker, acks=all and idempotence, OCSF unless said otherwise.'),
    ('spool', 'Through an outage', 'The far end is down and everything goes to disk, compressed and synced; then it is up, and the spool is '
     'delivered. What was stored needs no parsing again, only gzip and TLS.'),
    ('promise', 'The cost of the promise', 'With `spool = always` every message is on disk, synced, before its record is forgotten, '
     'whatever the far end says; otherwise it goes there only when it must. "Against" is the same row without.'),
    ('peers', 'Peers', 'Debian\'s own packages in the same run, on the same lines, acks=all and idempotence everywhere. *Text* is passed through, '
     '*JSON* is read and written again, *tuples* become a message each. rsyslog has a queue in memory that goes to disk beyond its '
     'mark, syslog-ng flow control and, where it says so, a reliable disk buffer, which does not sync; kcat is no daemon and stands for what reading '
     'lines and librdkafka cost alone. Penstock normalizes into OCSF, gives each event an id, and keeps its place and a spool.'),
)
BESIDE = {'file to Sentinel, spool always': 'file to Sentinel', 'file to Kafka, lz4, spool always': 'file to Kafka, lz4',
          'file to Kafka, lz4, spool always, not compressed': 'file to Kafka, lz4'}
GROUP_OF = {'file to Sentinel': 'sentinel', 'file to Kafka, lz4': 'kafka'}


def cell(value, digits=1):
    middle, spread = value
    digits = 0 if middle >= 100 else digits
    return f'{middle:.{digits}f}' + (f' ± {spread:.{digits}f}' if spread else '')


def moved_table(cases, rows, against=False):
    yield '| | log | MB/s | CPU s/GB | ' + ('against' if against else 'budget') + ' | million events per CPU s | resident MiB |'
    yield '|---|---|---|---|---|---|---|'
    for case in cases:
        found = rows[case.key]
        other = rows.get(f'{GROUP_OF[BESIDE[case.name]]}: {BESIDE[case.name]}, {case.family}') if against else None
        budget = (f'{found["CPU s/GB"][0] / other["CPU s/GB"][0]:.2f} ×' if other else '') if against else \
            f'{case.budget:.1f}' if case.budget else ''
        yield (f'| {case.name} | {case.family} | {cell(found["MB/s"])} | {cell(found["CPU s/GB"])} | {budget} | '
               f'{found["Mev/CPUs"][0]:.2f} | {found["RSS MiB"][0]:.0f} |')


def latency_table(cases, rows):
    yield '| | p50 | p90 | p99 | most |'
    yield '|---|---|---|---|---|'
    for case in cases:
        found = rows[case.key]
        yield f'| {case.name} | ' + ' | '.join(cell(found[name]) for name in ('p50', 'p90', 'p99', 'max')) + ' |'


def door_table(cases, rows):
    families = list(dict.fromkeys(case.family for case in cases))
    yield '| door | per | ' + ' | '.join(families) + ' |'
    yield '|---' * (len(families) + 2) + '|'
    for name in dict.fromkeys(case.name for case in cases):
        here = {case.family: rows[case.key] for case in cases if case.name == name}
        unit = next(iter(here.values()))['unit']
        yield f'| {name} | {unit} | ' + ' | '.join(cell(here[family]['ns'], 2) if family in here else '' for family in families) + ' |'


def of_group(cases, rows, group):
    return [case for case in cases if case.group == group and case.key in rows]


def plot(curve, points, rows):
    """The curve's SVG, or None where too little was measured."""
    panels = []
    for label in ('CPU s/GB', 'MB/s'):
        series = {}
        for point in points:
            if point.curve == curve.name and point.key in rows:
                series.setdefault(point.series, []).append((point.x, rows[point.key][label][0]))
        series = {name: line for name, line in series.items() if len(line) > 1}
        panels.append((label + ' of input', series))
    return svg.draw(curve.title, curve.axis, curve.log, panels) if panels[0][1] else None


def write(table, cases, curves):
    rows = table['rows']
    where = f'{table["machine"]}; {table["date"]} UTC, commit {table["commit"]}, {table["size"] / MB:.0f} MB of Activity Log, less of the others'
    text = [BEGINNING.format(where=where, runs=table['runs'])]
    for group, title, words in SECTIONS:
        here = of_group(cases, rows, group)
        if here:
            text += [f'## {title}\n', words + '\n', *moved_table(here, rows, group == 'promise'), '']
    here = of_group(cases, rows, 'latency')
    if here:
        text += ['## Latency\n', 'Milliseconds from a line\'s write to the moment when the far end has it whole.\n', *latency_table(here, rows), '']
    here = of_group(cases, rows, 'doors')
    if here:
        text += ['## The hot paths by themselves\n', 'Nanoseconds, of the fastest of five rounds over 2 MB (`tests/bench/doors.c`). What their instructions may '
                 'come to is held by `tests/bench/instructions`.\n', *door_table(here, rows), '']
    text += ['## Scale\n', 'Every point moves the same bytes, about 24 MB, so starts weigh on all of them.\n']
    (DOCS / 'performance').mkdir(parents=True, exist_ok=True)
    for curve in curves.CURVES:
        drawn = plot(curve, curves.POINTS, rows)
        if drawn:
            (DOCS / 'performance' / f'{curve.name}.svg').write_text(drawn)
            text += [f'![{curve.title}](performance/{curve.name}.svg)\n', curve.why + '\n']
    (DOCS / 'performance.md').write_text('\n'.join(text))
    write_readme(table, cases, where)


# README.md: what someone wants to know who has not decided yet.
README_ROWS = ('parse: parse to asim, activity', 'parse: parse to asim, nsg', 'parse: parse to asim, vnet',
               'sentinel: file to Sentinel, activity', 'sentinel: file to Sentinel, nsg', 'sentinel: file to Sentinel, vnet',
               'kafka: file to Kafka, activity', 'kafka: file to Kafka, lz4, activity', 'kafka: file to Kafka, lz4, nsg',
               'kafka: file to Kafka, lz4, vnet', 'blob: container to Sentinel, vnet', 'spool: spool to Sentinel, activity')


def write_readme(table, cases, where):
    found = {case.key: case for case in cases}
    text = [MARKS[0], f'By `tests/bench/run` on {where}. CPU is the daemon\'s own, user and system, per GB of input; the budget is what we aim for.\n']
    text += moved_table([found[key] for key in README_ROWS if key in table['rows']], table['rows'])
    text.append(MARKS[1])
    path = ROOT / 'README.md'
    path.write_text(re.sub(re.escape(MARKS[0]) + '.*?' + re.escape(MARKS[1]), lambda _: '\n'.join(text), path.read_text(), flags=re.S))
