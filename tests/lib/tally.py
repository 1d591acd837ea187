#!/usr/bin/python3
"""Counts one suite's results for tests/run: prints one line and each failure in full, adds to the totals.

    tally.py NAME SECONDS TOTALS meson|junit FILE

FILE is meson's testlog.json (each test a cmocka program, counted by its test functions) or pytest's JUnit file. No file, or
one without a single test, is a failure: a suite that did not run has not passed.
"""
import json
import os
import re
import sys
import xml.etree.ElementTree


def count_meson(path):
    passed = failed = skipped = 0
    failures = []
    with open(path, encoding='utf-8') as file:
        for line in file:
            test = json.loads(line)
            output = (test.get('stdout') or '') + (test.get('stderr') or '')
            good = len(re.findall(r'^\[       OK \] ', output, re.M))
            bad = len(set(re.findall(r'^\[  FAILED  \] (\w+)$', output, re.M)))
            left_out = len(re.findall(r'^\[  SKIPPED \] \w+$', output, re.M))
            if test['result'] == 'SKIP':
                left_out = max(left_out, 1)
            elif test['result'] not in ('OK', 'EXPECTEDFAIL'):
                bad = max(bad, 1)
            elif good + left_out == 0:
                good = 1
            passed, failed, skipped = passed + good, failed + bad, skipped + left_out
            if bad or (left_out and nothing_may_be_skipped()):
                failures.append((f'{test["name"]}: {test["result"]}', output))
    return passed, failed, skipped, failures


def count_junit(path):
    passed = failed = skipped = 0
    failures = []
    for case in xml.etree.ElementTree.parse(path).iter('testcase'):
        trouble = [child for child in case if child.tag in ('failure', 'error')]
        if trouble:
            failed += 1
            output = '\n'.join((child.text or child.get('message') or '') for child in trouble)
            failures.append((f'{case.get("classname")}::{case.get("name")}', output))
        elif case.find('skipped') is not None:
            skipped += 1
            print(f'    skipped: {case.get("name")}: {case.find("skipped").get("message")}')
        else:
            passed += 1
    return passed, failed, skipped, failures


def nothing_may_be_skipped():
    return os.environ.get('PENSTOCK_TESTS') == 'all'


def main(name, seconds, totals, kind, path):
    try:
        passed, failed, skipped, failures = {'meson': count_meson, 'junit': count_junit}[kind](path)
    except (OSError, ValueError, xml.etree.ElementTree.ParseError) as error:
        passed, failed, skipped, failures = 0, 1, 0, [(name, f'no results: {error}')]
    if passed + failed + skipped == 0:
        failed, failures = 1, [(name, 'not one test was run')]
    if nothing_may_be_skipped():
        failed, skipped = failed + skipped, 0
    more = f', {skipped} skipped' if skipped else ''
    for title, output in failures:
        print(f'--- {title}\n{output.rstrip()}\n---')
    print(f'{name:<44} {passed} passed, {failed} failed{more}  ({seconds} s)')
    with open(totals, 'a', encoding='utf-8') as file:
        file.write(f'{passed} {failed} {skipped}\n')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
