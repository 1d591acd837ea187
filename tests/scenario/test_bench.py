"""The bench's own promises: a run that was stopped goes on, medians are medians, the page says what was measured. Nothing here
looks at a time."""
import json
import re
import shutil
import sys
import xml.etree.ElementTree

import pytest

from conftest import ROOT

sys.path.append(str(ROOT / 'tests' / 'bench'))

import bench                         # noqa: E402
import cases                         # noqa: E402
import curves                        # noqa: E402
import page                          # noqa: E402
import svg                           # noqa: E402
from lab import Lab                  # noqa: E402

HEAD = {'machine': 'a machine', 'commit': 'abc', 'size': 5, 'date': '2026-11-22 09:00'}


def run(key, wall=2.0, **more):
    return {'key': key, 'bytes': 10**9, 'events': 10**6, 'wall': wall, 'cpu': 4.0, 'rss': 2**20, **more}


def test_a_bench_that_was_stopped_goes_on(tmp_path):
    path = tmp_path / 'runs.jsonl'
    book = bench.Book(path, HEAD)
    book.add('a', 0, {'p50': 1.5})
    with open(path, 'a', encoding='utf-8') as file:
        file.write('{"key": "a", "ru')           # killed while it wrote
    again = bench.Book(path, {**HEAD, 'date': 'later'})
    assert again.has('a', 0) and not again.has('a', 1) and again.head == HEAD
    again.add('a', 1, {'p50': 2.5})
    last = bench.Book(path, HEAD)
    assert bench.summary(last.of('a')) == {'p50': (2.0, 0.5)}


def test_another_commit_begins_anew(tmp_path):
    path = tmp_path / 'runs.jsonl'
    bench.Book(path, HEAD).add('a', 0, {'p50': 1})
    book = bench.Book(path, {**HEAD, 'commit': 'def'})
    assert not book.runs and json.loads(path.read_text())['commit'] == 'def'
    assert '"p50"' in (tmp_path / 'runs.before.jsonl').read_text()


def test_medians_and_spreads():
    found = bench.summary([run('a', 2.0), run('a', 4.0), run('a', 1.0)])
    assert found['MB/s'] == (500.0, 375.0) and found['CPU s/GB'] == (4.0, 0.0) and found['RSS MiB'] == (1.0, 0)


def test_runs_are_chosen_by_their_yardsticks():
    runs = [run('a', 2.0, yardstick=51.0), run('a', 4.0, yardstick=54.0), run('a', 1.0, yardstick=80.0)]
    found = bench.summary(runs, best=50.0)
    assert found['MB/s'] == (375.0, 125.0) and found['of'] == [2, 3]
    found = bench.summary(runs, best=40.0)
    assert found['MB/s'] == (500.0, 375.0) and found['of'] == [0, 3]      # none was steady: all count, and that is said


def test_keys_differ():
    keys = [case.key for case in bench.ALL]
    assert len(set(keys)) == len(keys)
    assert set(page.README_ROWS) <= set(keys)
    assert {page.against(case) for case in cases.CASES} - {None} <= set(keys)


def test_the_page_says_what_was_measured(tmp_path, monkeypatch):
    rows = {case.key: bench.summary([{'key': case.key, 'ns': 2.5, 'unit': 'byte', 'yardstick': 60.0} if case.group == 'doors' else
                                     {'key': case.key, 'p50': 1, 'p90': 2, 'p99': 3, 'max': 4} if case.group == 'latency' else
                                     {'key': case.key, 'CPU': 50.0, 'yardstick': 60.0} if case.group == 'start' else
                                     run(case.key, yardstick=60.0)], best=50.0) for case in bench.ALL}
    monkeypatch.setattr(page, 'DOCS', tmp_path / 'docs')
    monkeypatch.setattr(page, 'ROOT', tmp_path)
    shutil.copy(ROOT / 'README.md', tmp_path)
    page.write({**HEAD, 'runs': 3, 'load': 0.5, 'yardstick': [50, 60, 75], 'margin': 1.1, 'rows': rows}, cases.CASES, curves)
    text = (tmp_path / 'docs' / 'performance.md').read_text()
    for case in cases.CASES:
        assert f'| {case.name} |' in text
    assert '50 ms at best' in text and '| 0 of 1 |' in text
    for name in re.findall(r'\(performance/(.*?)\)', text):
        drawn = xml.etree.ElementTree.parse(tmp_path / 'docs' / 'performance' / name).getroot()
        assert 'a machine' in ''.join(drawn.itertext())
    assert len(list((tmp_path / 'docs' / 'performance').iterdir())) == len(curves.CURVES)
    assert '| 4.0 |' in (tmp_path / 'README.md').read_text()


@pytest.mark.parametrize('highest, last', [(0.7, 0.8), (4, 4), (9.9, 10), (33, 40), (1234, 1500)])
def test_ticks_are_round(highest, last):
    ticks = svg.nice(highest)
    assert ticks[0] == 0 and ticks[-1] == pytest.approx(last) and 3 <= len(ticks) <= 6


def test_a_row_is_measured(tmp_path):
    with Lab(tmp_path / 'lab', 200_000) as lab:
        found = cases.parse('nsg', 'asim')(lab)
    # Too short for a look at its memory.
    assert found['yardstick'] > 0 and found['events'] > 100 and found['cpu'] > 0 and found['wall'] > 0 and found['bytes'] >= 50_000
