"""The bench: runs every case so many times, turn about, and prints a table. tests/bench/run builds first and calls it.

Turn about means: all cases once, then all once more. What changes with the hour then changes all rows alike, and medians and
ratios hold. Every finished run is a line in build/bench/runs.jsonl; a bench that was stopped goes on behind the last one, if
commit, machine and sizes are the same.
"""
import argparse
import json
import os
import pathlib
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / 'tests' / 'lib'), str(ROOT / 'tests' / 'farend')]

import curves                                                       # noqa: E402
import page                                                         # noqa: E402
from cases import CASES                                             # noqa: E402
from generate import size_of                                        # noqa: E402
from kafka import Unavailable                                       # noqa: E402
from lab import FAMILIES, Lab                                       # noqa: E402
from measure import GB, MB                                          # noqa: E402

ALL = CASES + curves.POINTS
GROUPS = tuple({case.group: None for case in ALL})
FOLDER = ROOT / 'build' / 'bench'
TWICE = ('scale', 'latency')         # groups that take most of the time and vary least: two runs at most
MARGIN = 1.1                         # a run counts whose yardstick took so much of the best one at most


def machine():
    model = next((line.split(':', 1)[1].strip() for line in open('/proc/cpuinfo') if line.startswith('model name')), '?')
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30
    return f'{model}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}'


def commit():
    done = subprocess.run(['git', '-C', ROOT, 'describe', '--always', '--dirty'], capture_output=True, text=True, check=False)
    return done.stdout.strip() or 'none'


class Book:
    """The runs that are done, on disk as they end. Another commit, machine or size begins a new one; the old one is kept once."""

    def __init__(self, path, head):
        self.path, self.runs = pathlib.Path(path), []
        old = self.path.read_text().splitlines() if self.path.exists() else []
        self.head = json.loads(old[0]) if old else None
        if self.head is None or {**self.head, 'date': ''} != {**head, 'date': ''}:
            if old:
                self.path.rename(self.path.with_suffix('.before.jsonl'))
            self.head = head
            self.path.write_text(json.dumps(head) + '\n')
            return
        for line in old[1:]:
            try:
                self.runs.append(json.loads(line))
            except ValueError:       # the last line, of a bench that was killed while it wrote
                self.path.write_text('\n'.join([old[0], *map(json.dumps, self.runs)]) + '\n')
                break

    def has(self, key, number):
        return any(run['key'] == key and run['run'] == number for run in self.runs)

    def add(self, key, number, found):
        self.runs.append({'key': key, 'run': number, **found})
        with open(self.path, 'a', encoding='utf-8') as file:
            file.write(json.dumps(self.runs[-1]) + '\n')

    def of(self, key):
        return [run for run in self.runs if run['key'] == key]


def median(values):
    """And half the way from the least to the most."""
    return statistics.median(values), (max(values) - min(values)) / 2


def numbers_of(runs):
    """Every number's [median, spread]."""
    if 'wall' in runs[0]:
        return {'MB/s': median([run['bytes'] / MB / run['wall'] for run in runs]),
                'CPU s/GB': median([run['cpu'] / (run['bytes'] / GB) for run in runs]),
                'Mev/CPUs': median([run['events'] / 1e6 / run['cpu'] for run in runs]),
                'RSS MiB': (max(run['rss'] for run in runs) / 2**20, 0)}
    return {name: runs[0][name] if name == 'unit' else median([run[name] for run in runs])
            for name in runs[0] if name not in ('key', 'run', 'load', 'yardstick')}


def steady(runs, best):
    """Those that met the machine about as fast as it ever was in this bench: chosen by the yardstick, never by the outcome."""
    return [run for run in runs if run['yardstick'] <= MARGIN * best]


def summary(runs, best=None):
    """What the runs of one case come to: the numbers of the steady ones, or of all where none is, and `of`: how many are steady, of
    how many. `best` is the best yardstick of all cases' runs; a latency has none, and counts whatever it was."""
    if not runs:
        return None
    if 'yardstick' not in runs[0]:
        return numbers_of(runs)
    found = steady(runs, best)
    return {'of': [len(found), len(runs)], **numbers_of(found or runs)}


def cost_of(found):
    """The one number that is compared with an earlier table: CPU, or time, where less is better."""
    return next((found[name][0] for name in ('CPU s/GB', 'CPU', 'p50', 'ns') if name in found), None)


def line_of(case, found, before):
    """One line of the table."""
    of = '{}/{}'.format(*found['of']) if 'of' in found else ''
    ratio = f'{cost_of(found) / cost_of(before):6.2f}x' if before else ''
    if 'MB/s' in found:
        (speed, a), (cpu, b) = found['MB/s'], found['CPU s/GB']
        numbers = (f'{speed:7.1f} ±{a:5.1f} {cpu:8.2f} ±{b:5.2f} {"" if case.budget is None else f"{case.budget:.2f}":>6} '
                   f'{found["Mev/CPUs"][0]:8.2f} {found["RSS MiB"][0]:6.0f}')
    elif 'ns' in found:
        numbers = f'{found["ns"][0]:9.2f} ±{found["ns"][1]:6.2f} ns/{found["unit"]:38}'
    else:
        numbers = '  '.join('{} {:.1f} ±{:.1f}'.format(name, *number) for name, number in found.items() if name != 'of') + ' ms'
    return f'{case.name:48} {case.family:9} {of:4} {numbers} {ratio}'.rstrip()


def print_table(cases, table, before):
    group = None
    for case in cases:
        found = table['rows'].get(case.key)
        if found is None:
            continue
        if case.group != group:
            group = case.group
            columns = '    MB/s         CPU s/GB        budget Mev/CPUs RSS MiB' if 'MB/s' in found else ''
            print(f'\n{group:58} {"runs" if "of" in found else ""} {columns}'.rstrip())
        print(line_of(case, found, before.get(case.key)))


def chosen(options):
    cases = [case for case in ALL if options.only is None or case.group in options.only]
    cases = [case for case in cases if options.family is None or case.family in options.family or case.group == 'scale']
    cases = [case for case in cases if options.match is None or options.match in case.key]
    return [case for case in cases if case.quick or not options.quick]


def measure_all(cases, lab, book, runs):
    """Turn about; a case whose far end cannot be had has no row."""
    left = {case.key for case in cases}
    for number in range(runs):
        for case in cases:
            if case.key not in left or book.has(case.key, number) or (case.group in TWICE and number >= 2):
                continue
            print(f'{time.strftime("%H:%M:%S")} {number + 1}/{runs} {case.key}', file=sys.stderr, flush=True)
            try:
                book.add(case.key, number, {'load': os.getloadavg()[0], **case.once(lab)})
            except Unavailable as reason:
                print(f'  left out: {reason}', file=sys.stderr)
                left.discard(case.key)
            except (RuntimeError, AssertionError, subprocess.SubprocessError) as trouble:
                print(f'  failed: {trouble}', file=sys.stderr)


def parse_options():
    parser = argparse.ArgumentParser(prog='tests/bench/run', description='Measures Penstock and its peers; prints one table.')
    parser.add_argument('--quick', action='store_true', help='less data, one run, fewer rows and points: some minutes')
    parser.add_argument('--size', type=size_of,
                        help='of an Activity Log, with K, M or G; other logs have a quarter of it (400M; quick: 40M)')
    parser.add_argument('--runs', type=int, help='of everything (3; quick: 1)')
    parser.add_argument('--only', action='append', choices=GROUPS, help='this group of rows; may be repeated')
    parser.add_argument('--family', action='append', choices=FAMILIES + ('nsg-lines',), help='this kind of log')
    parser.add_argument('--match', help='rows whose name has this in it')
    parser.add_argument('--against', type=pathlib.Path, metavar='FILE', help='an earlier table as JSON: ratios to it')
    parser.add_argument('--save', type=pathlib.Path, metavar='FILE', help='the table as JSON, beside build/bench/table.json')
    parser.add_argument('--page', action='store_true', help='write docs/performance.md, its plots and README\'s figures anew')
    parser.add_argument('--fresh', action='store_true', help='forget what a bench that was stopped has measured')
    options = parser.parse_args()
    options.size = options.size or (40 * MB if options.quick else 400 * MB)
    options.runs = options.runs or (1 if options.quick else 3)
    return options


def main():
    options = parse_options()
    before = json.loads(options.against.read_text())['rows'] if options.against else {}
    if options.fresh:
        (FOLDER / 'runs.jsonl').unlink(missing_ok=True)
    book = Book(FOLDER / 'runs.jsonl', {'machine': machine(), 'commit': commit(), 'size': options.size,
                                        'date': time.strftime('%Y-%m-%d %H:%M', time.gmtime())})
    cases = chosen(options)
    folder = FOLDER / 'run'
    shutil.rmtree(folder, ignore_errors=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit('stopped; the same command goes on'))   # and takes the far ends with it
    start = time.monotonic()
    try:
        with Lab(folder, options.size, FOLDER) as lab:
            measure_all(cases, lab, book, options.runs)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    yardsticks = sorted(run['yardstick'] for run in book.runs if 'yardstick' in run) or [0]
    rows = {case.key: summary(book.of(case.key), yardsticks[0]) for case in ALL}
    table = {**book.head, 'runs': options.runs, 'load': statistics.median([run['load'] for run in book.runs] or [0]),
             'yardstick': [yardsticks[0], statistics.median(yardsticks), yardsticks[-1]], 'margin': MARGIN,
             'rows': {key: found for key, found in rows.items() if found}}
    for path in filter(None, (FOLDER / 'table.json', options.save)):
        path.write_text(json.dumps(table, indent=1) + '\n')
    print(f'{table["machine"]}\n{table["date"]} UTC, commit {table["commit"]}, {table["size"] / MB:.0f} MB, '
          f'{options.runs} runs, load {table["load"]:.1f}, {time.monotonic() - start:.0f} s; yardstick '
          '{:.0f} ms at best, {:.0f} mostly, {:.0f} at worst'.format(*table['yardstick']))
    print_table(cases, table, before)
    if options.page:
        page.write(table, CASES, curves)


if __name__ == '__main__':
    main()
