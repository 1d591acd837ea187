#!/usr/bin/python3
"""Checks the models of tests/model with spin: what must hold does, and what each mutant breaks is found.

    tests/model/run [--full] [NAME…]     one JSON line per check; exit 1 if any ended otherwise than it must

Each result also goes into model.json in the folder $PENSTOCK_RELIABILITY, or build/test/reliability.
"""
import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SAFETY = ('-DSAFETY', '-DNOCLAIM')   # the asserts
PROGRESS = ('-DNFAIR=3',)            # the formula, with every process that can go on going on some day
DEPTH_MAX = 1000000
GOOD = ('holds', 'found out')


class Check:
    def __init__(self, name, model, property, *defines, rejected=False, full=False):
        self.name, self.model, self.property, self.defines = name, model, property, defines
        self.rejected, self.full = rejected, full

    def run(self):
        """What to tell; `result` is 'holds' or, of a mutant, 'found out', where all is well."""
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            call(folder, 'spin', '-a', *self.defines, str(ROOT / 'tests' / 'model' / self.model))
            call(folder, 'gcc', '-O1' if self.rejected else '-O2', '-w', '-DCOLLAPSE', '-DVECTORSZ=512', *self.property,
                 '-o', 'pan', 'pan.c')
            fair = () if self.property == SAFETY else ('-a', '-f')
            text = call(folder, './pan', *fair, f'-m{DEPTH_MAX}', '-w23')
        # A search that was cut short proves nothing.
        for trouble in ('max search depth too small', 'out of memory', 'hashtable full', 'VECTORSZ', 'blocking sel'):
            if trouble in text:
                raise RuntimeError(f'{self.name}: {trouble}:\n{text[-2000:]}')
        violated = int(re.search(r'errors: (\d+)', text)[1]) > 0
        return {
            'name': self.name, 'states': number(r'([0-9.e+]+) states, stored', text),
            'transitions': number(r'([0-9.e+]+) transitions', text), 'depth': number(r'depth reached ([0-9.e+]+)', text),
            'megabytes': number(r'([0-9.]+)\s+total actual memory usage', text),
            'result': (('not found out', 'found out') if self.rejected else ('holds', 'violated'))[violated],
            'seconds': round(time.monotonic() - start, 1),
        }


def call(folder, *words):
    done = subprocess.run(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise RuntimeError(f'{words[0]}: exit {done.returncode}:\n{done.stdout[-2000:]}')
    return done.stdout


def number(pattern, text):
    found = re.search(pattern, text)
    return int(float(found[1])) if found else 0


def mutant(word, what, property=SAFETY, model='outlet.pml'):
    return Check(f'mutant: {what}', model, property, f'-DMUTANT_{word}', rejected=True)


CHECKS = [
    Check('safety', 'outlet.pml', SAFETY, '-DCAP=2'),
    Check('safety, three frames', 'outlet.pml', SAFETY, full=True),
    Check('safety, torn appends', 'outlet.pml', SAFETY, '-DTORN', full=True),
    Check('safety, two in flight', 'outlet.pml', SAFETY, '-DWINDOW=2', '-DUPPER=5', '-DPARTS=9', '-DCAP=2', full=True),
    Check('safety, four records', 'outlet.pml', SAFETY, '-DRECORDS=4', full=True),
    Check('progress', 'outlet.pml', PROGRESS, '-DCAP=2', '-DSEGMENT=1'),
    Check('progress, three frames', 'outlet.pml', PROGRESS, full=True),
    Check('flow', 'flow.pml', PROGRESS),
    mutant('SYNC', 'safe when written, not when synced'),
    mutant('PLACE', 'the place saved behind what was read back, not what was settled'),
    mutant('OPEN', 'open again when the spool is read back, not when it is empty'),
    mutant('DEAD', 'a dead letter safe when it is begun'),
    mutant('PAUSE', 'nothing read back while paused', PROGRESS),
    mutant('CHUNKS', 'chunks and one full window keep the flow closed', PROGRESS, 'flow.pml'),
]


def keep(result):
    """Into model.json, in place of an older result of the same name."""
    folder = pathlib.Path(os.environ.get('PENSTOCK_RELIABILITY') or ROOT / 'build' / 'test' / 'reliability')
    file = folder / 'model.json'
    folder.mkdir(parents=True, exist_ok=True)
    results = json.loads(file.read_text()) if file.exists() else []
    results = [old for old in results if old['name'] != result['name']] + [result]
    file.write_text(json.dumps(results, indent=1) + '\n')


def main():
    parser = argparse.ArgumentParser(prog='tests/model/run', description='Checks the models with spin.')
    parser.add_argument('--full', action='store_true', help='the large ones too: several minutes, 6 GB')
    parser.add_argument('name', nargs='*', help='these only: ' + ', '.join(f'"{check.name}"' for check in CHECKS))
    words = parser.parse_args()
    good = True
    for check in CHECKS:
        if check.name in words.name if words.name else words.full or not check.full:
            result = check.run()
            print(json.dumps(result), flush=True)
            keep(result)
            good = good and result['result'] in GOOD
    return 0 if good else 1


if __name__ == '__main__':
    sys.exit(main())
