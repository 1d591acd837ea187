"""What the daemon does when Kafka's side misbehaves: brokers that die, freeze, come back and lose their leader, lines that are
cut, topics that shrink or vanish, rights that are taken away. Against real brokers; each test is a sentence.

Judged as in test_far_ends_sentinel.py: all arrived, repeats only with the same id, in order, counters that add up; an alarm
where a human must act, once, and none where it passes.
"""
import json
import re

import pytest

from judge import alarms, event_id, ids_of, judge, warnings
from kafka import AUTHORIZER, Cluster, Kafka, Unavailable, missing
from penstock import total, wait_until
from proxy import Proxy
from records import write_activity

pytestmark = pytest.mark.kafka

# The last two: how long librdkafka believes in a topic that is not there, and how soon it looks again.
FAST = {'type': 'kafka', 'schema': 'ocsf', 'timeout': '2s', 'flush': '50ms', 'retry_min': '50ms', 'retry_max': '500ms',
        'kafka.reconnect.backoff.max.ms': '500', 'kafka.topic.metadata.propagation.max.ms': '1000',
        'kafka.topic.metadata.refresh.interval.ms': '1000'}
RECORDS = 2000                       # about 9 MB of messages


@pytest.fixture(scope='module')
def broker(tmp_path_factory):
    try:
        with Kafka(tmp_path_factory.mktemp('kafka'), AUTHORIZER) as kafka:
            yield kafka
    except Unavailable as reason:
        missing(reason)


class Scene:
    """One file after the other through a daemon to one partition of one topic."""

    def __init__(self, tmp_path, broker, penstock, name, bootstrap=None, topic_settings=None, **sink):
        self.logs = tmp_path / 'logs'
        self.logs.mkdir()
        self.broker = broker
        self.topic = re.sub(r'[^a-z0-9]', '-', name.lower())
        self.files = []
        broker.create_topic(self.topic, **(topic_settings or {}))
        self.daemon = penstock(('source logs', {'type': 'file', 'path': f'{self.logs}/*.json'}),
                               ('sink siem', {**FAST, 'brokers': bootstrap or broker.bootstrap, 'topic': self.topic, **sink}))

    def write(self, count=RECORDS):
        part = self.logs / f'{len(self.files)}.part'
        write_activity(part, count, seed=len(self.files) + 1)
        path = part.with_suffix('.json')
        part.rename(path)
        self.files.append(path)

    @property
    def expected(self):
        return ids_of(*self.files)

    def count(self, key):
        return total(self.daemon.counters(), key)

    def until(self, condition, what, seconds=90):
        return wait_until(condition, seconds, what, self.daemon)

    def until_some(self, count):
        self.until(lambda: self.count('delivered') >= count, f'{count} to be delivered')

    def until_delivered(self):
        count = len(self.expected)
        self.until(lambda: self.count('delivered') + self.count('dead') >= count, f'{count} to be delivered')

    def until_tried_again(self, times=2):
        self.until(lambda: self.count('retries') >= times, f'{times} retries')

    def until_refused(self, times=3):
        """More than once, so that an alarm for each would show."""
        self.until(lambda: self.count('refusals') >= times, f'{times} refusals')
        assert self.count('held') + self.count('spooled') > 0 and self.count('dead') == 0

    def arrived(self):
        return [json.loads(value)['metadata']['uid'] for *_, value in self.broker.read_all(self.topic)]

    def judge(self, fault, **more):
        return judge(self.daemon, fault, self.expected, self.arrived(), repeats=True, **more)


@pytest.fixture
def scene(tmp_path, broker, penstock, request):
    return Scene(tmp_path, broker, penstock, request.node.name)


# ---- Brokers -----------------------------------------------------------------------------------------------------

def test_a_broker_killed_amid_the_stream_is_waited_for(scene, broker):
    """Killed with messages on their way, and there again: what was not confirmed goes again, in order."""
    scene.write(4000)
    scene.daemon.start()
    scene.until_some(200)
    broker.restart(kill=True)
    scene.until_delivered()
    assert alarms(scene.daemon) == []
    scene.judge('Kafka: broker killed and restarted')


def test_brokers_that_are_down_from_the_start_are_waited_for_without_an_alarm(scene, broker):
    scene.write()
    broker.stop()
    scene.daemon.start()
    scene.until_tried_again()
    counters = scene.daemon.counters()
    assert total(counters, 'delivered') == 0
    broker.start()
    scene.until_delivered()
    assert alarms(scene.daemon) == []
    assert 'no report from the brokers' in scene.daemon.log_text()
    scene.judge('Kafka: all brokers down')


def test_a_broker_that_freezes_and_thaws_repeats_but_loses_nothing(scene, broker):
    """It takes what is sent and says nothing; given up and sent again, it may come twice. Three times over."""
    scene.write(500)
    scene.daemon.start()
    scene.until_delivered()
    for freeze in range(1, 4):
        broker.freeze()
        try:
            scene.write(500)
            scene.until_tried_again(freeze * 2)
        finally:
            broker.thaw()
        scene.until_delivered()
    assert alarms(scene.daemon) == []
    scene.judge('Kafka: broker frozen and thawed')


@pytest.mark.long
def test_leaders_that_die_one_after_the_other_lose_nothing(tmp_path, penstock):
    """Three brokers, three times the leader is killed amid the stream: another takes over, acks=all has kept it all."""
    try:
        with Cluster(tmp_path / 'cluster') as cluster:
            scene = Scene(tmp_path, cluster, penstock, 'leaders', timeout='30s')
            scene.daemon.start()
            for _ in range(3):
                scene.write(3000)
                scene.until_some(len(scene.expected) - 2500)
                leader = scene.until(lambda: cluster.leader(scene.topic), 'a leader')
                leader.stop(kill=True)
                scene.until_delivered()
                leader.start()
                scene.until(lambda: cluster.in_sync(scene.topic) == 3, 'all replicas')
            assert alarms(scene.daemon) == []
            scene.judge('Kafka: leader killed, three times')
    except Unavailable as reason:
        missing(reason)


# ---- On the line -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('fault', [
    {'word': 'cut', 'way': 'up', 'after': 200_000, 'count': 4}, {'word': 'cut', 'way': 'down', 'after': 1000, 'count': 4},
    {'word': 'corrupt', 'way': 'up', 'after': 300_000, 'count': 2}, {'word': 'delay', 'way': 'down', 'seconds': 0.3},
    {'word': 'trickle', 'way': 'down', 'seconds': 0.05, 'count': 3}, {'word': 'swallow', 'count': 4}, {'word': 'refuse'},
], ids=lambda fault: ' '.join(str(value) for value in fault.values()))
def test_a_bad_line_to_the_broker_costs_time_only(tmp_path, broker, penstock, request, fault):
    """Cut, corrupted, late, dripping, half-open or refused: no alarm, nothing lost, nothing dead."""
    with Proxy(('127.0.0.1', broker.behind), broker.front) as line:
        scene = Scene(tmp_path, broker, penstock, request.node.name, bootstrap=broker.bootstrap_proxied)
        scene.write(100)
        scene.daemon.start()
        scene.until_delivered()
        word = fault['word']
        line.fault(**fault)
        if 'count' in fault or word == 'delay':
            line.reset_lines()           # those from before would never meet it
        scene.write()
        if word in ('swallow', 'refuse'):
            scene.until_tried_again(1)
        elif word != 'delay':
            scene.until(lambda: line.struck >= 1, 'the fault to strike')
        line.honest()
        scene.until_delivered()
        assert alarms(scene.daemon) == []
        scene.judge(f'Kafka: line {word}', way=fault.get('way'))


# ---- Topics ------------------------------------------------------------------------------------------------------

def test_a_topic_whose_limit_is_lowered_kills_only_what_is_too_large(scene, broker):
    """max.message.bytes goes down to 50 kB amid the stream: record batches shrink; a message of 100 kB dies alone."""
    scene.write(200)
    scene.daemon.start()
    scene.until_delivered()
    broker.change_topic(scene.topic, max_message_bytes=50_000)
    large = json.dumps({'time': '2026-11-18T00:00:00Z', 'pad': 'x' * 100_000}).encode()
    (scene.logs / 'large.json').write_bytes(large + b'\n')
    scene.write(200)
    scene.until(lambda: scene.count('delivered') >= 400 and scene.count('dead') == 1, 'all but the large one')
    assert alarms(scene.daemon) == []
    assert scene.daemon.stop() == 0
    arrived = scene.arrived()
    assert set(arrived) == set(scene.expected)
    (letter,) = [json.loads(line) for line in (scene.daemon.state_dir / 'dead' / 'siem.jsonl').read_text().splitlines()]
    assert letter['message']['metadata']['uid'] == event_id(large)
    (told,) = [line for line in warnings(scene.daemon) if 'dead letters' in line['msg']]
    assert 'large' in told['why'].lower()


def test_a_topic_that_is_deleted_holds_all_until_it_is_made_again(scene, broker):
    """Nobody's topic is made by us: held, one alarm that names it, and all of what was held arrives in the new one."""
    scene.write(200)
    scene.daemon.start()
    scene.until_delivered()
    before = scene.arrived()
    broker.delete_topic(scene.topic)
    scene.write(500)
    scene.until_refused()
    broker.create_topic(scene.topic)
    scene.until_delivered()
    (alarm,) = alarms(scene.daemon)
    assert f'topic {scene.topic}' in alarm['why'] and 'create the topic' in alarm['why']
    judge(scene.daemon, 'Kafka: topic deleted and made again', scene.expected, before + scene.arrived(), repeats=True)


# ---- Rights ------------------------------------------------------------------------------------------------------

def test_rights_that_are_revoked_hold_all_until_they_are_granted_again(tmp_path, broker, penstock, request):
    """The user may no longer write: held, one alarm that says so, neither delivered nor dead; granted, all of it goes."""
    (tmp_path / 'password').touch(0o600)
    (tmp_path / 'password').write_text(broker.password + '\n')
    scene = Scene(tmp_path, broker, penstock, request.node.name, bootstrap=broker.bootstrap_sasl, username=broker.user,
                  password_file=tmp_path / 'password', ca_file=broker.ca)
    broker.grant(scene.topic)
    scene.write(200)
    scene.daemon.start()
    scene.until_delivered()
    broker.grant(scene.topic, revoke=True)
    scene.write(500)
    scene.until_refused()
    broker.grant(scene.topic)
    scene.until_delivered()
    (alarm,) = alarms(scene.daemon)
    assert f'topic {scene.topic}' in alarm['why'] and 'the right to write' in alarm['why']
    assert broker.password not in scene.daemon.log_text()
    scene.judge('Kafka: authorization revoked')
