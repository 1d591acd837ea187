"""What test runs note down for the reliability page: one JSON line or one JSON file each, in the folder $PENSTOCK_RELIABILITY.

    note('429 with Retry-After', records=500, delivered=500, lost=0, repeated=0, reordered=0, dead=0)

tests/lib/reliability_page.py makes tests/RELIABILITY.md of it.
"""
import json
import os
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]


def folder():
    made = pathlib.Path(os.environ.get('PENSTOCK_RELIABILITY') or ROOT / 'build' / 'test' / 'reliability')
    made.mkdir(parents=True, exist_ok=True)
    return made


def append(name, entry):
    """One line more; several processes may do so at once."""
    handle = os.open(folder() / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, (json.dumps(entry) + '\n').encode())
    finally:
        os.close(handle)


def write(name, result):
    """A whole file; the last writer's stays."""
    part = folder() / f'{name}.part'
    part.write_text(json.dumps(result, indent=1) + '\n')
    part.rename(folder() / name)


def note(fault, records, delivered, lost, repeated, reordered, dead, runs=1, peak_bytes=None, **more):
    """What a fault did to so many records."""
    append('faults.jsonl', {'fault': fault, 'records': records, 'delivered': delivered, 'lost': lost, 'repeated': repeated,
                            'reordered': reordered, 'dead': dead, 'runs': runs, 'peak_bytes': peak_bytes, **more})
