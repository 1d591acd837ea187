"""kill -9, again and again, over the same state and the same inputs: nothing is lost, repeats carry the same id, order holds.

One life follows another. Each has its weather (the far ends fair, faulty, away or standing still) and its death:

    random    the daemon itself, at any moment from its start on
    point     penstock-kill, before, after or amid the nth of some call on some file: every call that any life was seen to make
              at its spools, dead letters and cursors has its turn (kill_io.c)
    held      while the far end holds back an answer, having taken the batch over or not
    stopping  after SIGTERM, before it has gone

Meanwhile logs rotate, blobs grow, archives appear and some messages are poisonous. At the end all faults are taken away, and
what arrived at both sinks is judged.
"""
import collections
import json
import os
import random
import re
import signal
import subprocess
import time

import pytest

import reliability
from arrivals import Arrivals
from inputs import POISON, Inputs
from kafka import Kafka, at_hand
from penstock import build_folder, slower, wait_until

LIFE = {'flush': '50ms', 'retry_min': '50ms', 'retry_max': '400ms', 'spool_after': '50ms'}
BACKLOG = 5000                       # events made but not yet arrived, above which nothing is added
LIVES_MAX = 3                        # lives that may pass per kill, before we give up on points that are not reached
UID = re.compile(rb'"uid":"([0-9a-f]{32}-\d+)"')

FAULTS = (
    {'do': 'status', 'status': 429, 'retry_after': '0', 'count': 2}, {'do': 'status', 'status': 500, 'count': 2},
    {'do': 'status', 'status': 503, 'count': 3}, {'do': 'reset'}, {'do': 'reset-late', 'count': 2}, {'do': 'lose-answer', 'count': 2},
    {'do': 'garbage'}, {'do': 'slow', 'delay': 0.2, 'count': 3}, {'do': 'slow', 'delay': 0.02, 'count': 10},
    {'where': 'token', 'do': 'status', 'status': 500, 'count': 1}, {'where': 'token', 'do': 'reset'},
)


@pytest.fixture
def broker(tmp_path):
    with at_hand(), Kafka(tmp_path / 'kafka') as kafka:
        kafka.create_topic('kills', partitions=1)
        yield kafka


class Weather:
    """How the two far ends are; each life may have another."""

    def __init__(self, far_end, broker, rnd):
        self.far_end, self.broker, self.rnd = far_end, broker, rnd
        self.sentinel = self.kafka = 'fair'
        self.days = collections.Counter()

    def change(self):
        if self.rnd.random() < 0.4:
            self.set(self.rnd.choice(('fair', 'faulty', 'faulty', 'away')), self.rnd.choice(('fair', 'fair', 'still')))
        if self.sentinel == 'faulty':
            for fault in self.rnd.sample(FAULTS, 2):
                self.far_end.fault(**fault)
        self.days[f'{self.sentinel}/{self.kafka}'] += 1

    def set(self, sentinel, kafka):
        if (self.sentinel == 'away') != (sentinel == 'away'):
            (self.far_end.down if sentinel == 'away' else self.far_end.up)()
        if self.kafka != kafka:
            self.broker.process.send_signal(signal.SIGSTOP if kafka == 'still' else signal.SIGCONT)
        self.sentinel, self.kafka = sentinel, kafka

    def clear_up(self):
        self.set('fair', 'fair')
        self.far_end.clear()


class Points:
    """The named points: every call on every kind of file that was ever seen, before and after it, and amid a write."""

    def __init__(self, state_dir, calls, rnd):
        self.state_dir, self.calls, self.rnd = str(state_dir), calls, rnd
        self.turns = collections.deque()
        self.known = collections.Counter()             # (call, pattern) -> the most that one life was seen to make
        self.reached = collections.Counter()
        self.tried = collections.Counter()

    def learn(self):
        """What the last life has called."""
        if not self.calls.exists():
            return
        seen = collections.Counter()
        for line in self.calls.read_text().splitlines():
            call, _, path = line.partition(' ')
            if path.startswith(self.state_dir) and not path.endswith(' (deleted)'):
                seen[call, '*' + re.sub(r'[0-9a-f]{16}', '?' * 16, path[len(self.state_dir):])] += 1
        self.calls.unlink()
        fresh = []
        for point, count in seen.items():
            if point not in self.known:
                fresh += [(*point, when) for when in ('before', 'after') + (('half',) if point[0] == 'pwrite' else ())]
            self.known[point] = max(self.known[point], count)
        self.rnd.shuffle(fresh)
        self.turns.extendleft(fresh)                   # the new ones first

    def next(self):
        """A point, and its nth time: mostly an early one."""
        if not self.turns:
            return None
        self.turns.rotate(-1)
        call, pattern, when = point = self.turns[-1]
        nth = int(self.known[call, pattern] ** self.rnd.random() + 0.5) if self.tried[point] < 2 else 1
        self.tried[point] += 1
        return point, f'{call}@{pattern}:{max(1, nth)}:{when}'


class Suite:
    def __init__(self, daemon, sections, settings, far_end, broker, inputs, rnd):
        self.sections, self.settings = sections, settings
        self.daemon, self.far_end, self.broker, self.inputs, self.rnd = daemon, far_end, broker, inputs, rnd
        self.weather = Weather(far_end, broker, rnd)
        self.calls = daemon.folder / 'calls'
        self.points = Points(daemon.state_dir, self.calls, rnd)
        self.sentinel = Arrivals(inputs.expected)
        self.dead = set()
        self.rows_read = 0
        self.deaths = collections.Counter()
        self.peak = 0
        self.pace = 0.0              # from a start to the first arrival, in seconds: what a moment is on this machine

    # ---- What has arrived ----

    def look(self):
        """Judges what is new at the ingestion API."""
        rows = self.far_end.query('SELECT seq, uid FROM rows WHERE seq > ? ORDER BY seq', self.rows_read)
        self.sentinel.arrive(uid for _, uid in rows)
        self.rows_read = rows[-1][0] if rows else self.rows_read
        return len(rows)

    def letters(self):
        """Event ids in the dead letters of the ingestion API's sink; a death may have torn a line."""
        path = self.daemon.state_dir / 'dead' / 'sentinel.jsonl'
        for line in path.read_bytes().splitlines() if path.exists() else ():
            try:
                self.dead.add(json.loads(line)['message']['EventOriginalUid'])
            except ValueError:
                pass
        return self.dead

    def take_letters(self):
        """As an administrator may who has read them: the next one makes the file anew."""
        self.letters()
        (self.daemon.state_dir / 'dead' / 'sentinel.jsonl').unlink(missing_ok=True)

    # ---- Lives ----

    def measure(self):
        """Two lives in fair weather tell how long a start takes here."""
        for _ in range(2):
            self.look()
            self.inputs.feed()
            began = time.monotonic()
            self.daemon.start(program=build_folder() / 'tests' / 'penstock-kill', PENSTOCK_CALLS=self.calls)
            wait_until(self.look, 60, 'the first arrivals', self.daemon)
            self.pace = max(self.pace, time.monotonic() - began)
            assert self.daemon.stop() == 0
            self.points.learn()

    def live(self, how):
        """One life and its death; False where the point was not reached and nothing was killed."""
        program, environment, point = None, {}, None
        if how == 'point' and (turn := self.points.next()) is not None:
            point, text = turn
            program = build_folder() / 'tests' / 'penstock-kill'
            environment = {'PENSTOCK_KILL': text, 'PENSTOCK_CALLS': self.calls}
        if how == 'held' and self.weather.sentinel != 'away':
            self.far_end.fault(do=self.rnd.choice(('hang', 'hold-answer')))
        self.daemon.start(program=program, **environment)
        moment = self.rnd.random() * 2 * self.pace
        if point is None:
            self.pass_time(moment, how)
        else:
            # It dies by itself, in its run or at its end.
            self.pass_time(self.pace + moment, how)
            if self.daemon.running():
                self.daemon.process.send_signal(signal.SIGTERM)
                self.wait_for_end()
        if how == 'stopping' and self.daemon.running():
            self.daemon.process.send_signal(signal.SIGTERM)
            time.sleep(self.rnd.random() ** 2 * self.pace)
        return self.die(how, point)

    def pass_time(self, seconds, how):
        """The daemon lives, logs are written."""
        began = time.monotonic()
        while self.daemon.running() and time.monotonic() - began < seconds:
            self.inputs.step()
            if how == 'held' and self.far_end.state()['held']:
                break
            time.sleep(0.01)

    def wait_for_end(self):
        """SIGTERM was sent, and a point may lie on the way; the daemon gives up by itself (stop_wait)."""
        try:
            self.daemon.process.wait(30 * slower())
        except subprocess.TimeoutExpired:
            raise AssertionError(f'does not end after SIGTERM:\n{self.daemon.log_tail()}') from None

    def weigh(self):
        """Its memory; one that is just dying at its point has none."""
        high = re.search(r'^VmHWM:\s+(\d+) kB', open(f'/proc/{self.daemon.process.pid}/status').read(), re.M)
        self.peak = max(self.peak, int(high[1]) * 1024 if high else 0)

    def die(self, how, point):
        """Whoever lives is killed; whoever ended by himself is asked how."""
        if self.daemon.running():
            self.weigh()
        self.daemon.kill()
        status = self.daemon.exited()
        stopped = status in (0, -signal.SIGTERM)       # the latter before it had a hand free for signals
        assert status == -signal.SIGKILL or stopped and how in ('stopping', 'point'), \
            f'{how} {point}: penstock ended with {status}:\n{self.daemon.log_tail()}'
        self.points.learn()
        if how == 'held':
            self.far_end.clear()     # lets go who is held
        if stopped:
            return False
        if point is not None:
            self.points.reached[point] += 1
        self.deaths[how] += 1
        return True

    def add_key(self):
        """The spools are encrypted from the first time on; later a new key is for what is written from then on."""
        keys = self.daemon.folder / 'keys'
        keys.touch(0o600)
        with open(keys, 'a') as file:
            file.write(self.rnd.randbytes(32).hex() + '\n')
        self.daemon.configure(*self.sections, **self.settings, key_file=keys)

    def run(self, kills):
        self.far_end.settings(poison=[POISON])
        self.measure()
        hows = ['random'] * 3 + ['point'] * 6 + ['held', 'stopping']
        lives = 0
        while self.deaths.total() < kills:
            lives += 1
            assert lives < kills * LIVES_MAX + 100, f'too few deaths: {self.deaths}'
            self.look()
            if self.rnd.random() < 0.2:
                self.take_letters()
            if lives % 40 == 20:
                self.add_key()
            if len(self.inputs.expected) - len(self.sentinel.seen) < BACKLOG:
                self.inputs.feed()
            self.weather.change()
            self.live(self.rnd.choice(hows))

    def finish(self):
        """All faults are gone: everything is to arrive, and the daemon to be empty."""
        self.weather.clear_up()
        self.inputs.finish()
        self.daemon.start()
        # Time is not the matter here, standing still is.
        while self.sentinel.lost(self.letters()):
            try:
                wait_until(self.look, 60, 'more to arrive', self.daemon)
            except AssertionError:
                print(f'still missing: {len(self.sentinel.lost(self.letters()))}\n{self.daemon.log_tail()}')
                break
        counters = wait_until(self.empty, 120, 'an empty daemon', self.daemon)
        self.weigh()
        assert self.daemon.stop() == 0
        for key, keys in counters.items():
            if None not in key:
                assert keys['taken'] == sum(keys[place] for place in ('delivered', 'dead', 'dropped', 'held', 'spooled')), key
                assert keys['dropped'] == 0, key
        self.look()

    def empty(self):
        counters = self.daemon.counters()
        waiting = sum(keys['held'] + keys['spooled'] for key, keys in counters.items() if None not in key)
        return counters if waiting == 0 else None

    def judge_kafka(self):
        judge = Arrivals(self.inputs.expected)
        command = ['kcat', '-b', self.broker.bootstrap, '-C', '-t', 'kills', '-o', 'beginning', '-e', '-q']
        with subprocess.Popen(command, stdout=subprocess.PIPE) as kcat:
            judge.arrive(UID.search(line)[1].decode() for line in kcat.stdout)
        assert kcat.returncode == 0
        return judge


@pytest.mark.parametrize('kills', [60, pytest.param(1000, marks=pytest.mark.long)])
def test_nothing_is_lost(penstock, far_end_ids, broker, tmp_path, kills):
    seed = int(os.environ.get('PENSTOCK_SEED') or random.randrange(1 << 30))
    print(f'PENSTOCK_SEED={seed}')
    began = time.monotonic()
    rnd = random.Random(seed)
    inputs = Inputs(tmp_path / 'logs', rnd)
    sections = (('source logs', {'type': 'file', 'path': inputs.patterns(), 'rescan': '1s'}),
                far_end_ids.sink(**LIFE),
                ('sink siem', {'type': 'kafka', 'brokers': broker.bootstrap, 'topic': 'kills', 'schema': 'ocsf', 'timeout': '1s', **LIFE}))
    settings = {'cursor_save': '50ms', 'stop_wait': '500ms'}
    daemon = penstock(*sections, **settings)
    suite = Suite(daemon, sections, settings, far_end_ids, broker, inputs, rnd)
    try:
        suite.run(kills)
        suite.finish()
    finally:
        suite.weather.set('fair', 'fair')          # a broker that stands still could not be stopped
    siem = suite.judge_kafka()
    figures = {'sentinel': suite.sentinel.figures(suite.letters()), 'kafka': siem.figures()}
    result = {'kills': kills, 'seed': seed, 'deaths': dict(suite.deaths), 'points': len(suite.points.turns),
              'points_reached': len(suite.points.reached), 'files': inputs.files, 'rotations': inputs.rotations,
              'archives': inputs.archives, 'weather': dict(suite.weather.days), 'peak_bytes': suite.peak,
              'seconds': round(time.monotonic() - began), 'sinks': figures}
    print(json.dumps(result, indent=1))
    for point in sorted(set(suite.points.turns) - set(suite.points.reached)):
        print('never reached:', *point)
    reliability.append('kills.jsonl', result)
    assert far_end_ids.violations() == []
    assert suite.letters() <= inputs.poisoned
    assert {name: (sink['lost'], sink['reordered'], sink['alien']) for name, sink in figures.items()} == \
        {'sentinel': (0, 0, 0), 'kafka': (0, 0, 0)}, \
        [(name, sorted(inputs.expected[uid] for uid in judge.lost(suite.letters()))[:20], judge.alien[:5])
         for name, judge in (('sentinel', suite.sentinel), ('kafka', siem))]


@pytest.mark.parametrize('kills', [12, pytest.param(100, marks=pytest.mark.long)])
def test_a_killed_replay_goes_on(penstock, far_end_ids, tmp_path, kills):
    """The same command again after each kill -9: when it says 0 all has been delivered, and once more when asked once more."""
    seed = int(os.environ.get('PENSTOCK_SEED') or random.randrange(1 << 30))
    print(f'PENSTOCK_SEED={seed}')
    rnd = random.Random(seed)
    inputs = Inputs(tmp_path / 'logs', rnd)
    for _ in range(6):
        inputs.archive(1000)
    inputs.append(3000)
    inputs.commit(300)
    inputs.finish()
    daemon = penstock(('source none', {'type': 'file', 'path': f'{tmp_path}/nothing/*'}), far_end_ids.sink(**LIFE), cursor_save='50ms')
    replay = ('replay', '-c', daemon.config, tmp_path / 'logs')
    program = build_folder() / 'tests' / 'penstock-kill'
    sums = collections.Counter()

    def judge_whole():
        """What has come since the last replay that ended with 0."""
        judge = Arrivals(inputs.expected)
        judge.arrive(far_end_ids.uids()[sums['arrived']:])
        sums.update(judge.figures(), arrived=judge.arrived, replays=1)

    began = time.monotonic()
    assert daemon.command(*replay).returncode == 0
    pace = time.monotonic() - began
    judge_whole()
    while sums['kills'] < kills or daemon.exited() != 0:
        far_end_ids.fault(**rnd.choice(FAULTS))
        point = rnd.choice(('pwrite', 'fdatasync', 'openat', 'unlinkat')) + f'@*:{rnd.randrange(1, 30)}:before'
        daemon.start(*replay, program=program,
                     **({'PENSTOCK_KILL': point} if sums['kills'] < kills and rnd.random() < 0.5 else {}))
        try:
            daemon.process.wait(rnd.random() * pace if sums['kills'] < kills else 120 * slower())
        except subprocess.TimeoutExpired:
            daemon.kill()
        if daemon.exited() == 0:
            judge_whole()
        else:
            assert daemon.exited() == -signal.SIGKILL, daemon.log_tail()
            sums['kills'] += 1
    print(dict(sums))
    reliability.note('kill -9 of a replay', sums['records'], sums['delivered'], sums['lost'], sums['repeated'], sums['reordered'],
                     dead=0, runs=sums['kills'])
    assert (sums['lost'], sums['reordered'], sums['alien']) == (0, 0, 0)
    assert far_end_ids.violations() == []
