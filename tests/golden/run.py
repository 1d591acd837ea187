#!/usr/bin/python3
"""Golden files: records in (PARSER/NAME.in), messages out (NAME.asim.out, NAME.ocsf.out), byte for byte.

    tests/golden/run.py             compares, and prints what differs
    tests/golden/run.py --update    writes the outputs anew: read the diff before you commit it

The penstock to test is $PENSTOCK_BIN, or what tests/run has built. Every input carries its own times: an arrival would not be
the same twice.
"""
import difflib
import pathlib
import subprocess
import sys

FOLDER = pathlib.Path(__file__).resolve().parent
SCHEMAS = ('asim', 'ocsf')
sys.path.insert(0, str(FOLDER.parent / 'lib'))

from penstock import binary, slower      # noqa: E402


def inputs():
    return sorted(FOLDER.glob('*/*.in'))


def output_of(path, schema):
    """What penstock makes of an input now. Records may fail, the program may not."""
    with open(path, 'rb') as records:
        done = subprocess.run([binary(), 'parse', '--schema', schema], stdin=records, capture_output=True, timeout=60 * slower())
    if done.returncode not in (0, 1):
        raise RuntimeError(f'penstock parse exited with {done.returncode}: {done.stderr.decode(errors="replace")}')
    return done.stdout.decode()


def golden(path, schema):
    return path.with_suffix(f'.{schema}.out')


def difference(path, schema):
    """'' where nothing has changed."""
    file = golden(path, schema)
    want = file.read_text() if file.exists() else ''
    got = output_of(path, schema)
    if want == got and file.exists():
        return ''
    name = str(file.relative_to(FOLDER))
    return '\n'.join(difflib.unified_diff(want.splitlines(), got.splitlines(), name, 'now', lineterm='', n=0)) or f'no {name}'


def main(arguments):
    differ = 0
    for path in inputs():
        for schema in SCHEMAS:
            if arguments == ['--update']:
                golden(path, schema).write_text(output_of(path, schema))
            elif text := difference(path, schema):
                print(text)
                differ += 1
    return differ > 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
