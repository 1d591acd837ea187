"""The ingestion API's status codes, a test each and by name: what becomes of the batch, of the token, and what the operator sees.

The rows are those of Microsoft's documentation of the API and of its clients; 415 and the bodies of 400, 401 and 404 are
second-hand. That each of them also passes, and that nothing is lost or moved meanwhile, is test_far_ends_sentinel.py's.
"""
import json
import math

import pytest

import scenes
from judge import alarms, judge, warnings
from penstock import total

FAST = {'flush': '50ms', 'retry_min': '50ms', 'retry_max': '300ms'}
AUDIT = 'Custom-PenstockAudit'


class Scene(scenes.Scene):
    records = 100

    def __init__(self, tmp_path, far_end, penstock):
        super().__init__(tmp_path, penstock)
        self.far_end = far_end
        self.begin()

    def begin(self, **sink):
        self.configure(self.far_end.sink(**{**FAST, **sink}))

    def statuses(self, kind='ingest'):
        return [request['status'] for request in self.far_end.requests(kind)]

    def until_delivered(self, count=None):
        count = count or len(self.expected)
        self.until(lambda: self.far_end.distinct() >= count, f'{count} events to arrive')
        self.until(lambda: self.count('held') + self.count('spooled') == 0, 'all answers')

    def run(self):
        self.write()
        self.daemon.start()
        self.until_delivered()

    def judge(self, status):
        assert self.far_end.violations() == []
        return judge(self.daemon, f'status {status}, as documented', self.expected, self.far_end.uids())


@pytest.fixture
def scene(tmp_path, far_end, penstock):
    return Scene(tmp_path, far_end, penstock)


def letters(scene):
    path = scene.daemon.state_dir / 'dead' / 'sentinel.jsonl'
    return [json.loads(line) for line in open(path, 'rb')] if path.exists() else []


def test_204_is_delivered(scene):
    scene.run()
    assert set(scene.statuses()) == {204} and len(scene.statuses('token')) == 1
    assert alarms(scene.daemon) == warnings(scene.daemon) == []
    scene.judge(204)


@pytest.mark.parametrize('status', [200, 202])
def test_another_2xx_is_delivered_too(scene, far_end, status):
    """The monitoring page speaks of them; a stand-in that only says so has taken nothing, so nothing may come again."""
    far_end.fault(do='status', status=status, count=-1)
    scene.write()
    scene.daemon.start()
    scene.until(lambda: scene.count('delivered') == scene.records, 'all to be taken')
    assert set(scene.statuses()) == {status} and scene.count('retries') == 0
    assert scene.daemon.stop() == 0


def test_400_costs_the_guilty_message_alone(scene, far_end):
    """Permanent: the batch is bisected, and what will never go is in the dead letters with the far end's words."""
    scene.begin(flush='2s', stream_audit=AUDIT)
    scene.write()
    guilty = scene.expected[37]
    far_end.settings(poison=[f'"{guilty}"'])
    scene.daemon.start()
    scene.until_delivered(scene.records - 1)
    [letter] = letters(scene)
    assert letter['message']['EventOriginalUid'] == guilty and letter['status'] == '400'
    assert letter['reason'].startswith('status 400, InvalidRow')
    assert len(scene.statuses()) <= 1 + 2 * math.log2(scene.records) + 4
    assert alarms(scene.daemon) == []
    assert scene.daemon.stop() == 0


def test_401_gets_a_new_token_once(scene, far_end):
    """A token that ended, or was revoked: the next post brings another, and nobody is told."""
    scene.run()
    far_end.revoke_tokens()
    scene.write()
    scene.until_delivered()
    assert scene.statuses().count(401) == 1 and scene.statuses('token') == [200, 200]
    assert alarms(scene.daemon) == warnings(scene.daemon) == []
    scene.judge(401)


def test_401_with_every_token_is_our_fault(scene, far_end):
    """One new token, then an alarm: asking on and on for tokens would bar the application."""
    far_end.fault(do='status', status=401, count=-1)
    scene.write()
    scene.daemon.start()
    scene.until_refused()
    assert len(scene.statuses('token')) <= scene.count('refusals') + 2
    far_end.clear()
    scene.until_delivered()
    [alarm] = alarms(scene.daemon)
    assert 'status 401' in alarm['why'] and 'tenant' in alarm['why']
    scene.judge('401, whatever the token')


def test_403_waits_for_the_role(scene, far_end):
    """The role may take half an hour to work: everything is held, one alarm names it."""
    far_end.settings(granted=False)
    scene.write()
    scene.daemon.start()
    scene.until_refused()
    far_end.settings(granted=True)
    scene.until_delivered()
    [alarm] = alarms(scene.daemon)
    assert 'status 403, OperationFailed' in alarm['why'] and 'Monitoring Metrics Publisher' in alarm['why']
    scene.judge(403)


@pytest.mark.parametrize('wrong', [{'dcr': 'dcr-' + 'f' * 32}, {'stream_audit': 'Custom-Nobody'}], ids=['dcr', 'stream'])
def test_404_waits_for_the_configuration(scene, wrong):
    """A rule or stream that is not there: the service logs it nowhere, so the alarm has to say all."""
    scene.begin(**wrong)
    scene.write()
    scene.daemon.start()
    scene.until_refused()
    [alarm] = alarms(scene.daemon)
    assert 'status 404, NotFound' in alarm['why'] and wrong.get('stream_audit', '`dcr`') in alarm['why']
    assert scene.daemon.stop() == 0
    scene.begin()
    scene.daemon.start()
    scene.until_delivered()
    scene.judge(404)


def test_413_is_cut_until_it_fits(scene, far_end):
    """A limit below what is documented: halves, again and again, and every event arrives."""
    far_end.settings(json_max=20_000)
    scene.run()
    assert 413 in scene.statuses() and {413, 204} == set(scene.statuses())
    assert scene.count('cuts') == scene.statuses().count(413) and alarms(scene.daemon) == []
    assert {what for _, _, _, what in far_end.violations()} == {'json-too-large'}
    judge(scene.daemon, 'status 413, as documented', scene.expected, far_end.uids())


def test_413_to_a_single_event_is_its_end(scene, far_end):
    """No cut helps where one event is too much: it alone is dead, with that reason."""
    path = scene.logs / 'long.json'
    lines = [json.dumps({'time': '2026-11-22T00:00:00Z', 'n': n, 'text': 'x' * (50_000 if n == 20 else 10)}) for n in range(50)]
    path.write_text('\n'.join(lines) + '\n')
    far_end.settings(json_max=20_000)
    scene.daemon.start()
    scene.until_delivered(49)
    [letter] = letters(scene)
    assert letter['status'] == '413' and letter['message']['RawData']['n'] == 20
    assert scene.daemon.stop() == 0


def test_415_is_permanent_and_says_what_to_try(scene, far_end):
    """Every message is refused for a setting: a few letters, then an alarm instead of a graveyard; mended, the rest goes."""
    far_end.fault(do='status', status=415, count=-1)
    scene.write()
    scene.daemon.start()
    scene.until(lambda: alarms(scene.daemon), 'the alarm')
    far_end.clear()
    scene.until(lambda: scene.count('held') + scene.count('spooled') == 0, 'the rest')
    [alarm] = alarms(scene.daemon)
    assert 'status 415' in alarm['why'] and 'compress = no' in alarm['why']
    dead = {letter['message']['EventOriginalUid'] for letter in letters(scene)}
    assert 16 <= len(dead) <= 20 and set(far_end.uids()) | dead == set(scene.expected) and not set(far_end.uids()) & dead
    assert scene.daemon.stop() == 0


def test_429_waits_as_long_as_it_is_told(scene, far_end):
    scene.begin(retry_max='1s')
    far_end.fault(do='status', status=429, retry_after='2')
    scene.run()
    refused, taken = [request['at'] for request in far_end.requests()][:2]
    assert taken - refused >= 1.9
    [warning] = warnings(scene.daemon)
    assert 'status 429' in warning['why'] and warning['delay_ms'] == 2000 and alarms(scene.daemon) == []
    scene.judge(429)


def test_500_to_an_empty_body_is_never_met(scene, far_end):
    """The service answers so for ever to a post without rows: none is made, not even where nothing is to be said."""
    (scene.logs / 'empty.json').write_text('\n\n')
    (scene.logs / 'none.json').write_text('{"records":[]}')
    scene.run()
    scene.write()                    # by then the others have long been read
    scene.until_delivered()
    assert min(request['rows'] for request in far_end.requests()) > 0
    scene.judge('500, to an empty body')


@pytest.mark.parametrize('status', [408, 425, 500, 502, 503, 504])
def test_trouble_of_the_far_end_passes(scene, far_end, status):
    """503 may also be a right that does not work everywhere yet. All of them are tried again, and cost no alarm."""
    far_end.fault(do='status', status=status, count=3)
    scene.run()
    assert scene.statuses()[:3] == [status] * 3 and scene.count('retries') == 3
    [warning] = warnings(scene.daemon)
    assert f'status {status}' in warning['why'] and alarms(scene.daemon) == []
    scene.judge(status)


def test_no_answer_in_time_is_asked_again(scene, far_end):
    """Whether it was taken is not known: it may come twice, with the same id."""
    scene.begin(timeout='1s')
    far_end.fault(do='hold-answer')
    scene.run()
    far_end.clear()
    [warning] = warnings(scene.daemon)[:1]
    assert 'in time' in warning['why'] and alarms(scene.daemon) == []
    judge(scene.daemon, 'no answer in time, as documented', scene.expected, far_end.uids(), repeats=True)
