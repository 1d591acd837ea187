#!/usr/bin/python3
"""Generates input for benchmarks and experiments: seeded, any size, a file per family.

    tests/bench/generate.py activity 1G /tmp/activity.json
    tests/bench/generate.py nsg 500M /tmp/PT1H.json --seed 3 --tuples 200
    tests/bench/generate.py alert 10M -            # to standard output

Prints on stderr, as one JSON line, what was made: records, events, bytes, sums of the flows' counters.
"""
import argparse
import dataclasses
import json
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / 'lib'))

import records      # noqa: E402

UNITS = {'K': 10**3, 'M': 10**6, 'G': 10**9}


def size_of(text):
    return int(float(text[:-1]) * UNITS[text[-1].upper()]) if text[-1:].upper() in UNITS else int(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('family', choices=('activity', 'nsg', 'vnet', 'alert'))
    parser.add_argument('size', type=size_of, help='bytes, with K, M or G')
    parser.add_argument('path')
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--tuples', type=int, default=40, help='flow tuples a record')
    parser.add_argument('--macs', type=int, default=1, help='network interfaces a blob')
    options = parser.parse_args()
    path = '/dev/stdout' if options.path == '-' else options.path
    start = time.monotonic()
    if options.family == 'activity':
        made = records.write_activity(path, size=options.size, seed=options.seed)
    elif options.family == 'alert':
        made = records.write_alerts(path, size=options.size, seed=options.seed)
    else:
        write = records.write_nsg if options.family == 'nsg' else records.write_vnet
        made = write(path, size=options.size, seed=options.seed, tuples=options.tuples, macs=options.macs)
    print(json.dumps({**dataclasses.asdict(made), 'seconds': round(time.monotonic() - start, 1)}), file=sys.stderr)


if __name__ == '__main__':
    main()
