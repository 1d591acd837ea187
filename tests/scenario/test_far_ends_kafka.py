"""What the daemon does when Kafka's side misbehaves: brokers that die, freeze, come back and lose their leader, lines that are
cut, topics that shrink or vanish, rights that are taken away. Against real brokers; each test is a sentence.

Judged as in test_far_ends_sentinel.py: all arrived, repeats only with the same id, in order, counters that add up; an alarm
where a human must act, once, and none where it passes.
"""
import json
import re

import pytest

import scenes
from clock import Clock
from judge import alarms, event_id, judge, warnings
from kafka import AUTHORIZER, Cluster, Unavailable, missing
from penstock import total
from proxy import Proxy
from stranger import Stranger

pytestmark = pytest.mark.kafka

# The last two: how long librdkafka believes in a topic that is not there, and how soon it looks again.
FAST = {'type': 'kafka', 'schema': 'ocsf', 'timeout': '2s', 'flush': '50ms', 'retry_min': '50ms', 'retry_max': '500ms',
        'kafka.reconnect.backoff.max.ms': '500', 'kafka.topic.metadata.propagation.max.ms': '1000',
        'kafka.topic.metadata.refresh.interval.ms': '1000'}
RECORDS = 2000                       # about 9 MB of messages
BROKER = AUTHORIZER                  # some rights are taken away


class Scene(scenes.Scene):
    """To one partition of one topic."""

    records = RECORDS
    patience = 180

    def __init__(self, tmp_path, broker, penstock, name, bootstrap=None, **sink):
        super().__init__(tmp_path, penstock)
        self.broker = broker
        self.topic = re.sub(r'[^a-z0-9]', '-', name.lower())
        broker.create_topic(self.topic)
        self.sink = {**FAST, 'brokers': bootstrap or broker.bootstrap, 'topic': self.topic, **sink}
        self.configure()

    def configure(self, **more):
        self.sink.update(more)
        super().configure(('sink siem', self.sink))

    def until_some(self, count):
        self.until(lambda: self.count('delivered') >= count, f'{count} to be delivered')

    def until_delivered(self):
        count = len(self.expected)
        self.until(lambda: self.count('delivered') + self.count('dead') >= count, f'{count} to be delivered')

    def arrived(self):
        return [json.loads(value)['metadata']['uid'] for *_, value in self.broker.read_all(self.topic)]

    def judge(self, fault, **more):
        return judge(self.daemon, fault, self.expected, self.arrived(), repeats=True, **more)


@pytest.fixture
def scene(tmp_path, broker, penstock, request):
    return Scene(tmp_path, broker, penstock, request.node.name)


@pytest.fixture
def sasl_scene(tmp_path, broker, penstock, request):
    """As `scene`, over TLS and as a user who may write there."""
    (tmp_path / 'password').touch(0o600)
    (tmp_path / 'password').write_text(broker.password + '\n')
    scene = Scene(tmp_path, broker, penstock, request.node.name, bootstrap=broker.bootstrap_sasl, username=broker.user,
                  password_file=tmp_path / 'password', ca_file=broker.ca)
    broker.grant(scene.topic)
    return scene


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
            scene = Scene(tmp_path, cluster, penstock, 'leaders', timeout='10s')
            scene.daemon.start()
            for _ in range(3):
                scene.write(3000)
                scene.until_some(len(scene.expected) - 2500)
                leader = scene.until(lambda: cluster.leader(scene.topic), 'a leader')
                leader.stop(kill=True)
                scene.until_delivered()
                leader.start()
                scene.until(lambda: cluster.in_sync(scene.topic) == 3, 'all replicas')
            for broker in cluster.brokers[:2]:       # one of three is not enough, for acks=all and for the controllers
                broker.stop(kill=True)
            scene.write(500)
            scene.until_tried_again(1)
            for broker in cluster.brokers[:2]:
                broker.launch()
            for broker in cluster.brokers[:2]:
                broker.await_answer()
            scene.until_delivered()
            assert alarms(scene.daemon) == []
            scene.judge('Kafka: leader killed, three times; then two of three')
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
        # A request that fails as a whole is sent again behind those that followed it: sinks/kafka.c says why.
        scene.judge(f'Kafka: line {word}', way=fault.get('way'), order=word != 'corrupt')


# ---- TLS ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('shift, says', [('-30d', 'expired'), ('+30d', 'not yet valid')])
def test_a_broker_whose_certificate_is_out_of_its_time_gets_nothing(sasl_scene, broker, tmp_path, shift, says):
    """Not even the password: everything is held, one alarm names certificate and clock, and the renewal ends it."""
    scene, stranger = sasl_scene, Stranger(broker, tmp_path, shift)
    with Proxy(('127.0.0.1', stranger.port)) as line:
        scene.configure(brokers=f'localhost:{line.port}')
        scene.write(200)
        scene.daemon.start()
        scene.until_refused(2)
        line.target = ('localhost', int(broker.bootstrap_sasl.rsplit(':', 1)[1]))
        scene.until_delivered()
        (alarm,) = alarms(scene.daemon)
        assert 'certificate' in alarm['why'] and 'clock' in alarm['why'] and 'ca_file' in alarm['why']
        scene.judge(f'Kafka: certificate {says}')
    stranger.listener.close()


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

def test_rights_that_are_revoked_hold_all_until_they_are_granted_again(sasl_scene, broker):
    """The user may no longer write: held, one alarm that says so, neither delivered nor dead; granted, all of it goes."""
    scene = sasl_scene
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


def test_a_password_that_is_no_longer_right_holds_all_until_its_file_is(sasl_scene, broker, tmp_path):
    """The file is read again after each refusal: the new password needs no restart."""
    scene = sasl_scene
    (tmp_path / 'password').write_text('yesterdays-password\n')
    scene.write(200)
    scene.daemon.start()
    scene.until_refused(2)
    (tmp_path / 'password').write_text(broker.password + '\n')
    scene.until_delivered()
    (alarm,) = alarms(scene.daemon)
    assert 'password_file' in alarm['why']
    assert 'yesterdays-password' not in scene.daemon.log_text() and broker.password not in scene.daemon.log_text()
    scene.judge('Kafka: wrong password')


# ---- The clock ---------------------------------------------------------------------------------------------------

@pytest.mark.plain
def test_a_clock_that_jumps_by_hours_holds_nothing_up(scene, tmp_path):
    """On, back and a day on, with a broker that is there all the time: nobody waits for an hour that has gone.

    librdkafka's waits end by the wall clock. What libfaketime makes of them is worse than a clock that is set: they end at
    once, or hours late unless something happens."""
    clock = Clock(tmp_path)
    scene.write(300)
    scene.daemon.start(**clock.variables)
    for shift in ('+5h', '-10h', '+24h', '+0'):
        scene.until_delivered()
        clock.set(shift)
        scene.write(300)
    scene.until_delivered()
    assert alarms(scene.daemon) == []
    scene.judge('Kafka: clock jumps by hours both ways')
