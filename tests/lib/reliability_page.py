#!/usr/bin/python3
"""Writes the reliability page from what the tests have noted down.

    reliability_page.py FOLDER PAGE WRITER

FOLDER is what $PENSTOCK_RELIABILITY was in the run, WRITER says which run that was. Nothing is judged here: a loss is a failure of its test, and stands on the page.
"""
import datetime
import json
import os
import pathlib
import platform
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
MIB = 1 << 20


def entries(folder, name):
    """What a test has noted: a list of objects, from a JSON file of one or many, or from JSON lines. Absent: none."""
    path = folder / name
    if not path.exists():
        return []
    text = path.read_text(encoding='utf-8')
    if path.suffix == '.jsonl':
        return [json.loads(line) for line in text.splitlines()]
    try:
        found = json.loads(text)
    except ValueError:                             # one object a line
        found = [json.loads(line) for line in text.splitlines() if line.strip()]
    return found if isinstance(found, list) else [found]


def number(value):
    if isinstance(value, float):
        return f'{value:,.1f}'
    return f'{value:,}' if isinstance(value, int) and not isinstance(value, bool) else str(value)


def mib(value):
    return '' if value is None else f'{value / MIB:.1f} MiB'


def table(head, rows):
    """Markdown; numbers to the right."""
    right = [bool(rows) and all(re.fullmatch(r'[\d.,]*( MiB)?', str(row[i])) for row in rows) for i in range(len(head))]
    cells = [[str(cell).replace('|', '\\|') for cell in row] for row in rows]
    return ['| ' + ' | '.join(head) + ' |', '|' + '|'.join('---:' if r else '---' for r in right) + '|',
            *('| ' + ' | '.join(row) + ' |' for row in cells), '']


def plain_table(found):
    """Objects of the same few keys, as they are."""
    keys = list(dict.fromkeys(key for entry in found for key in entry))
    return table([key.replace('_', ' ') for key in keys], [[number(entry.get(key, '')) for key in keys] for entry in found])


def commit():
    def git(*words):
        return subprocess.run(['git', '-C', ROOT, *words], capture_output=True, text=True).stdout.strip()
    changed = git('status', '--porcelain', '--', ':!tests/RELIABILITY.md')
    return (git('rev-parse', '--short=10', 'HEAD') or 'unknown') + (' with changes' if changed else '')


def machine():
    model = re.search(r'^model name\s*:\s*(.+)$', pathlib.Path('/proc/cpuinfo').read_text(), re.M)
    memory = int(re.search(r'^MemTotal:\s+(\d+)', pathlib.Path('/proc/meminfo').read_text(), re.M)[1])
    return f'{model[1] if model else platform.machine()}, {os.cpu_count()} cores, {memory >> 20} GiB, Linux {platform.release()}'


COUNTS = ('records', 'delivered', 'dead', 'lost', 'repeated', 'reordered')


def headline(kills, faults, power, nth):
    """Every record counts once for each far end it had to reach."""
    judged = [sink for run in kills for sink in run['sinks'].values()] + faults
    tried = (sum(run['kills'] for run in kills) + sum(entry['runs'] for entry in faults) +
             sum(run.get('images', 0) for run in power) + sum(run.get('faults', 0) for run in nth))
    lost, records = sum(entry['lost'] for entry in judged), sum(entry['records'] for entry in judged)
    violations = sum(run.get('violations', 0) for run in power + nth)
    more = f'; of the disks that failed, {number(violations)} broke the promise' if violations else ''
    return f'**Lost {number(lost)} of {number(records)} records under {number(tried)} faults{more}.**'


def kills_section(kills):
    yield '## kill -9'
    yield ''
    yield ('One life after another over the same state and inputs: logs that rotate, blobs that grow, gzip archives, poisonous messages; an '
           'ingestion API and a real Kafka broker that are fair, faulty, away or standing still. `tests/crash/test_kills.py`')
    yield ''
    rows = [[number(run['kills']), name, *(number(sink[key]) for key in COUNTS), mib(run['peak_bytes'])]
            for run in kills for name, sink in run['sinks'].items()]
    yield from table(['kills', 'sink', *COUNTS, 'peak memory'], rows)
    for run in kills:
        deaths = ', '.join(f'{number(count)} {how}' for how, count in sorted(run['deaths'].items()))
        yield (f'{number(run["kills"])} kills in {number(run["seconds"])} s: {deaths}. Named points: {number(run["points_reached"])} of '
               f'{number(run["points"])} reached (before, after or amid a call on a file of the state folder). '
               f'{number(run["files"])} files, {number(run["rotations"])} rotations, {number(run["archives"])} archives. Seed {run["seed"]}.')
        yield ''
    yield ('*random*: at any moment from the start on; *point*: at the nth of a named call on a named file; *held*: while the far end holds '
           'its answer back, having taken the batch over or not; *stopping*: after SIGTERM. A repeat is the same event id again; order is '
           'judged by first arrivals, per file. What a sink has as *dead* are the poisonous messages.')
    yield ''


def faults_section(faults):
    merged = {}
    for entry in faults:                           # runs of the same fault are added up
        into = merged.setdefault(entry['fault'], dict.fromkeys((*COUNTS, 'runs'), 0) | {'peak_bytes': None})
        for key in (*COUNTS, 'runs'):
            into[key] += entry[key]
        if entry.get('peak_bytes'):
            into['peak_bytes'] = max(into['peak_bytes'] or 0, entry['peak_bytes'])
    yield '## Far ends that misbehave'
    yield ''
    yield from table(['fault', 'runs', *COUNTS, 'peak memory'],
                     [[name, number(into['runs']), *(number(into[key]) for key in COUNTS), mib(into['peak_bytes'])]
                      for name, into in merged.items()])


def memory_section(memory):
    highest = {}
    for run in memory:
        if run['peak_bytes'] >= highest.get(run['load'], run)['peak_bytes']:
            highest[run['load']] = run
    yield '## Memory'
    yield ''
    yield ('The kernel\'s own peak figure (`VmHWM`) of the daemon at default settings: a budget of 64 MiB and 16 MiB of program. '
           '`tests/scenario/test_memory.py`')
    yield ''
    yield from table(['load', 'peak memory', 'bound'], [[run['load'], mib(run['peak_bytes']), mib(run['bound_bytes'])] for run in highest.values()])


def other_sections(folder):
    for name, title, words in (
            ('power.json', 'Power cuts', 'A simulated disk that keeps what was synced, and any subset of what was not, torn at its sectors; '
             'after each cut the stores are opened again and compared with an oracle.'),
            ('letters.json', 'Power cuts while dead letters are taken away', 'The same, at every step of writing the file anew.'),
            ('nth.json', 'The nth call fails', 'Every call that reaches the disk fails in its turn, until a run passes clean.'),
            ('mutants.json', 'Deliberate bugs', 'Patches that break the promise on purpose, and the tests that noticed. `tests/mutants`'),
            ('model.json', 'The model', 'The protocol of window, spool, cursor and answers, checked exhaustively by spin. `tests/model`'),
            ('fuzz.json', 'Fuzzing', 'This run\'s share; `tests/fuzz/README.md` tells of the long ones.')):
        yield f'## {title}'
        yield ''
        found = entries(folder, name)
        yield words if found else 'Not in this run.'
        yield ''
        if found:
            yield from plain_table(found)


def page(folder, writer):
    kills, faults, memory = (entries(folder, name) for name in ('kills.jsonl', 'faults.jsonl', 'memory.jsonl'))
    yield '# Reliability'
    yield ''
    yield f'Written by {writer} on {datetime.date.today()}, commit {commit()}, on {machine()}.'
    yield ''
    yield headline(kills, faults, entries(folder, 'power.json') + entries(folder, 'letters.json'), entries(folder, 'nth.json'))
    yield ''
    for section, found in ((kills_section, kills), (faults_section, faults), (memory_section, memory)):
        if found:
            yield from section(found)
    yield from other_sections(folder)


def main(folder, path, writer):
    text = '\n'.join(page(pathlib.Path(folder), writer)).rstrip() + '\n'
    pathlib.Path(path).write_text(text, encoding='utf-8')


if __name__ == '__main__':
    main(*sys.argv[1:])
