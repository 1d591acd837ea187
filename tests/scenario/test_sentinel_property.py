"""The batcher's property, at random: whatever the events' sizes and times and however the far end fails, each event is accepted
exactly once or dead; and a far end that is well refuses nothing and is asked hardly more often than sizes demand.
"""
import json
import math
import os
import random

import pytest

from judge import event_id
from penstock import total, wait_until

POST_MAX = 1_000_000


class Made:
    """Records of random sizes and times, a line each, and their ids."""

    def __init__(self, rnd, folder):
        self.rnd = rnd
        self.folder = folder
        self.text = ''.join(rnd.choice(('alpha ', 'beta\\n', 'gamma: ', 'é', '💧', '"', 'delta, ', '0123456789 ')) for _ in range(50_000))
        self.ids = []

    def size(self):
        """Mostly small, some of pages, and now and then one with more than a column takes."""
        dice = self.rnd.random()
        return self.rnd.randrange(400 if dice < 0.95 else 4000 if dice < 0.995 else 100_000)

    def write(self, count):
        """One more file of so many; their ids."""
        ids = []
        part = self.folder / f'{len(self.ids)}.part'
        with open(part, 'wb') as file:
            for n in range(len(self.ids), len(self.ids) + count):
                at, second = self.rnd.randrange(100_000), self.rnd.randrange(3 * 86_400)
                day = 19 + second // 86_400
                line = json.dumps({
                    'time': f'2026-11-{day}T{second // 3600 % 24:02}:{second // 60 % 60:02}:{second % 60:02}Z', 'n': n,
                    'text': self.text[at:at + self.size()]}, ensure_ascii=False).encode()
                ids.append(event_id(line))
                file.write(line + b'\n')
        part.rename(part.with_suffix('.json'))
        self.ids += ids
        return ids


FAULTS = [
    {'do': 'status', 'status': 503}, {'do': 'status', 'status': 500}, {'do': 'status', 'status': 429}, {'do': 'status', 'status': 413},
    {'do': 'status', 'status': 403}, {'do': 'reset'}, {'do': 'reset-late'}, {'do': 'garbage'}, {'do': 'slow', 'delay': 0.3},
]


@pytest.mark.plain
@pytest.mark.parametrize('events', [50_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_each_event_once_and_no_post_too_many(penstock, far_end_ids, tmp_path, events):
    seed = int(os.environ.get('PENSTOCK_SEED') or random.randrange(1 << 30))
    print(f'PENSTOCK_SEED={seed}')
    far_end, rnd = far_end_ids, random.Random(seed)
    logs = tmp_path / 'logs'
    logs.mkdir()
    made = Made(rnd, logs)
    daemon = penstock(('source made', {'type': 'file', 'path': f'{logs}/*.json', 'rescan': '1s'}),
                      far_end.sink(flush='5s', retry_min='20ms', retry_max='100ms'))

    def answered():
        counters = daemon.counters()
        return total(counters, 'read') == len(made.ids) and total(counters, 'held') + total(counters, 'spooled') == 0

    # First the weather is bad …
    first = made.write(events // 5)
    poison = set(rnd.sample(first, 3))
    far_end.settings(poison=[f'"{uid}"' for uid in poison])
    for fault in rnd.sample(FAULTS, len(FAULTS)):
        far_end.fault(**fault, count=-1, chance=0.03)
    daemon.start()
    wait_until(answered, 60 + events / 1000, 'the first part', daemon)
    # … then it is fair.
    far_end.clear()
    storm = len(far_end.requests())
    second = made.write(events - len(first))
    wait_until(answered, 60 + events / 1000, 'the rest', daemon)

    fair = far_end.requests()[storm:]
    needed = math.ceil(sum(request['json_bytes'] - 1 for request in fair) / (POST_MAX - 1))      # brackets; a comma a row
    print(f'{storm} requests in bad weather, {len(fair)} in fair, {needed} needed at least')
    assert {request['status'] for request in fair} == {204}
    assert len(fair) <= math.ceil(needed * 1.05) + 1               # one may be due before it is full, on a busy machine
    assert sum(request['rows'] for request in fair) == len(second)
    with open(daemon.state_dir / 'dead' / 'sentinel.jsonl', 'rb') as file:
        dead = {letter['message']['EventOriginalUid']: letter['status'] for letter in map(json.loads, file)}
    # A 413 of the bad weather may have met one that stood alone, in search of the guilty.
    assert poison <= set(dead) and all(dead[uid] == '413' for uid in set(dead) - poison)
    assert sorted(far_end.uids()) == sorted(set(made.ids) - set(dead))
    assert far_end.violations() == [] and max(request['json_bytes'] for request in far_end.requests()) <= POST_MAX
    assert daemon.stop() == 0
