"""What the daemon does when Sentinel's side misbehaves: on the line, in TLS, by name, by the clock, and with our rights.

Each test is a sentence. It judges what arrived (all of it, repeats only with the same id, in order), whether the counters add
up, and what the operator saw: an alarm (a line of level error) where a human must act, once, saying what to mend; none where
it passes by itself.
"""
import email.utils
import os
import subprocess
import time

import pytest

import scenes
import tls
from clock import Clock
from farend import FarEnd
from judge import alarms, judge, warnings
from penstock import binary, total
from proxy import Proxy

FAST = {'flush': '50ms', 'retry_min': '50ms', 'retry_max': '300ms'}
RECORDS = 600                        # about 3 MB of rows, five posts


class Scene(scenes.Scene):
    """Straight to the far end or through the proxy."""

    records = RECORDS

    def __init__(self, tmp_path, far_end, penstock, endpoint=None, **sink):
        super().__init__(tmp_path, penstock)
        self.far_end = far_end
        if endpoint:
            sink['endpoint'] = endpoint
        self.configure(far_end.sink(**{**FAST, **sink}))

    def until_delivered(self, seconds=None):
        count = len(self.expected)
        self.until(lambda: self.far_end.distinct() >= count, f'{count} events to arrive', seconds)
        self.until(lambda: self.count('held') + self.count('spooled') == 0, 'all answers', seconds)

    def judge(self, fault, **more):
        assert self.far_end.violations() == []
        return judge(self.daemon, fault, self.expected, self.far_end.uids(), **more)


@pytest.fixture
def scene(tmp_path, far_end, penstock):
    return Scene(tmp_path, far_end, penstock)


@pytest.fixture
def line(far_end):
    """A proxy before the ingestion API, and its address."""
    with Proxy(('127.0.0.1', int(far_end.address['endpoint'].rsplit(':', 1)[1]))) as proxy:
        proxy.endpoint = f'https://127.0.0.1:{proxy.port}'
        yield proxy


@pytest.fixture
def far_scene(tmp_path, far_end, penstock, line):
    """As `scene`, through the proxy; the token endpoint is asked directly."""
    return Scene(tmp_path, far_end, penstock, endpoint=line.endpoint)


@pytest.fixture
def hasty_scene(tmp_path, far_end, penstock, line):
    """As `far_scene`, for what only a timeout gets us out of; on a busy machine it may strike an honest answer, too."""
    return Scene(tmp_path, far_end, penstock, endpoint=line.endpoint, timeout='1s', connect_timeout='1s')


def answered_at(far_end, status):
    """When requests were answered with this status."""
    return [at for at, in far_end.query("SELECT at FROM requests WHERE kind = 'ingest' AND status = ? ORDER BY id", status)]


# ---- Busy and in trouble -----------------------------------------------------------------------------------------

@pytest.mark.parametrize('form', ['seconds', 'date'])
def test_a_429_with_retry_after_is_obeyed(tmp_path, far_end, penstock, form):
    """The far end names a time, in seconds or as a date, and hears nothing from us before."""
    scene = Scene(tmp_path, far_end, penstock, retry_max='1s')
    named = int(time.time()) + 4
    wait = '3' if form == 'seconds' else email.utils.formatdate(named, usegmt=True)
    far_end.fault(do='status', status=429, retry_after=wait)
    scene.write()
    scene.daemon.start()
    scene.until_delivered()
    asked, taken = answered_at(far_end, 429)[0], answered_at(far_end, 204)[0]
    assert taken >= named if form == 'date' else taken - asked >= 2.9
    assert alarms(scene.daemon) == [] and '429' in warnings(scene.daemon)[0]['why']
    scene.judge(f'429 with Retry-After as {form}')


@pytest.mark.parametrize('wait', ['99999999999999999999', '86400', '-5', 'soon', '',
                                  'Fri, 31 Dec 9999 23:59:59 GMT', 'Thu, 01 Jan 1970 00:00:00 GMT'])
def test_a_429_with_an_absurd_retry_after_is_obeyed_only_so_far(tmp_path, far_end, penstock, wait):
    """Whatever a far end asks for, it is not obeyed for longer than ten times retry_max."""
    scene = Scene(tmp_path, far_end, penstock, retry_max='100ms')
    far_end.fault(do='status', status=429, retry_after=wait)
    scene.write(100)
    scene.daemon.start()
    scene.until_delivered(30)
    assert alarms(scene.daemon) == []
    assert all(line['delay_ms'] <= 1000 for line in warnings(scene.daemon))
    scene.judge('429 with an absurd Retry-After', value=wait)


def test_a_far_end_in_trouble_is_tried_until_it_is_well(scene, far_end):
    """500, 502, 503, 504, 408, 425, each twice over: one warning, and its end; no alarm, nothing sent twice."""
    statuses = (500, 502, 503, 504, 408, 425)
    for status in statuses:
        far_end.fault(do='status', status=status, count=2)
    scene.write()
    scene.daemon.start()
    scene.until_delivered()
    assert [far_end.query('SELECT count(*) FROM requests WHERE status = ?', status) for status in statuses] == [[(2,)]] * 6
    [told] = warnings(scene.daemon)
    assert 'status 500' in told['why'] and told['retries'] == 1
    assert scene.daemon.log_text().count('takes our messages again') == 1
    assert alarms(scene.daemon) == []
    counters = scene.judge('500, 502, 503, 504, 408, 425')
    assert total(counters, 'retries') == 2 * len(statuses)


# ---- On the line -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('after', [0, 100, 3000, 20_000])
def test_a_line_cut_amid_the_upload_costs_a_retry(far_scene, line, after):
    """Reset before, in and after the TLS handshake, and amid a post: it is sent again, and arrives once."""
    line.fault('cut', way='up', after=after, count=3)
    far_scene.write()
    far_scene.daemon.start()
    far_scene.until_delivered()
    assert line.struck == 3
    assert alarms(far_scene.daemon) == []
    far_scene.judge('connection reset amid the upload', after=after)


def test_a_reset_under_a_large_upload_makes_the_posts_smaller(tmp_path, far_end, penstock, line):
    """A gateway that finds a post too long may just hang up: the batch is cut, and nothing of it is taken for dead."""
    # `flush` is long, so that a machine on which parsing takes its time has large posts, too.
    scene = Scene(tmp_path, far_end, penstock, endpoint=line.endpoint, compress='no', flush='5s')
    line.fault('cut', way='up', after=600_000, count=2)
    scene.write()
    scene.daemon.start()
    scene.until_delivered()
    assert alarms(scene.daemon) == []
    counters = scene.judge('connection reset under a large upload')
    assert total(counters, 'cuts') >= 1


@pytest.mark.parametrize('after', [500, 2300, 2500])
def test_a_line_cut_amid_the_answer_may_repeat_but_not_lose(far_scene, line, after):
    """Whether the far end took it is not known: it is sent again, and what came twice has the same id."""
    line.fault('cut', way='down', after=after, count=4)
    far_scene.write()
    far_scene.daemon.start()
    far_scene.until_delivered()
    assert line.struck >= 1
    assert alarms(far_scene.daemon) == []
    far_scene.judge('connection reset amid the answer', repeats=True, after=after)


def test_a_flipped_bit_is_caught_by_tls_and_sent_again(far_scene, line):
    """Bytes that were changed on the way never reach a table."""
    line.fault('corrupt', way='up', after=5000, count=2)
    far_scene.write()
    far_scene.daemon.start()
    far_scene.until_delivered()
    assert line.struck >= 1
    assert alarms(far_scene.daemon) == []
    far_scene.judge('bit flipped on the line', repeats=True)


def test_an_answer_that_drips_is_given_up_and_asked_again(hasty_scene, line):
    """A byte now and then keeps a line alive, but not beyond `timeout`."""
    line.fault('trickle', way='down', seconds=0.05)
    hasty_scene.write(100)
    hasty_scene.daemon.start()
    hasty_scene.until_tried_again()
    line.honest()
    hasty_scene.until_delivered()
    assert alarms(hasty_scene.daemon) == []
    assert any('in time' in warning['why'] for warning in warnings(hasty_scene.daemon))
    hasty_scene.judge('slow-loris answer', repeats=True)


def test_a_half_open_line_is_given_up_after_the_timeout(hasty_scene, line):
    """A line that worked and then swallows everything: no error ever comes, and `timeout` alone gets us out."""
    hasty_scene.write(100)
    hasty_scene.daemon.start()
    hasty_scene.until_delivered()
    line.fault('swallow')
    hasty_scene.write(100)
    hasty_scene.until_tried_again()
    line.honest()
    hasty_scene.until_delivered()
    assert alarms(hasty_scene.daemon) == []
    hasty_scene.judge('half-open connection', repeats=True)


def test_a_line_that_stays_dead_alone_is_left_for_a_new_one(hasty_scene, line):
    """Only the old connection is dead: the next try makes a new one instead of waiting on it again."""
    hasty_scene.write(100)
    hasty_scene.daemon.start()
    hasty_scene.until_delivered()
    before = line.accepted
    line.fault('swallow', count=1)
    hasty_scene.write(100)
    hasty_scene.until_delivered()
    assert line.accepted > before
    counters = hasty_scene.judge('half-open connection, the next one is well', repeats=True)
    assert total(counters, 'retries') >= 1


def test_a_port_that_refuses_is_tried_until_it_listens(far_scene, line):
    line.fault('refuse')
    far_scene.write()
    far_scene.daemon.start()
    far_scene.until_tried_again()
    line.honest()
    far_scene.until_delivered()
    assert alarms(far_scene.daemon) == []
    far_scene.judge('connections refused', repeats=True)


# ---- TLS ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('shift, says', [('-30d', 'certificate has expired'), ('+30d', 'certificate is not yet valid')],
                         ids=['expired', 'not yet valid'])
def test_a_certificate_out_of_its_time_is_refused_until_it_is_renewed(scene, far_end, tmp_path, shift, says):
    """Nobody is let in on trust: everything is held, one alarm names certificate and clock, and the renewal ends it."""
    scene.write(100)
    scene.daemon.start()
    scene.until_delivered()
    tls.make_server(far_end.folder, variables=Clock(tmp_path, shift).variables)
    far_end.show_certificate()
    far_end.down()                       # the line that was verified goes
    far_end.up()
    scene.write(100)
    scene.until_refused()
    assert far_end.distinct() == 100
    tls.make_server(far_end.folder)
    far_end.show_certificate()
    scene.until_delivered()
    (alarm,) = alarms(scene.daemon)
    assert says in alarm['why'] and 'clock' in alarm['why'] and 'ca_file' in alarm['why']
    scene.judge(says)


def test_a_stranger_with_another_authority_gets_nothing(tmp_path, far_end, penstock):
    """The name now leads to someone whose certificate is of an authority we do not trust."""
    with FarEnd(tmp_path / 'stranger') as stranger:
        port = [int(end.address['endpoint'].rsplit(':', 1)[1]) for end in (far_end, stranger)]
        with Proxy(('127.0.0.1', port[1])) as line:
            scene = Scene(tmp_path, far_end, penstock, endpoint=f'https://127.0.0.1:{line.port}')
            scene.write(100)
            scene.daemon.start()
            scene.until_refused()
            assert stranger.requests() == []
            line.target = ('127.0.0.1', port[0])
            scene.until_delivered()
    (alarm,) = alarms(scene.daemon)
    assert 'not trusted' in alarm['why']
    scene.judge('certificate of an unknown authority')


# ---- Names -------------------------------------------------------------------------------------------------------

def namespace(tmp_path, hosts):
    """A program that runs the daemon with its own /etc/hosts and a name server that is not there."""
    (tmp_path / 'resolv.conf').write_text('nameserver 127.0.0.1\noptions timeout:1 attempts:1\n')
    program = tmp_path / 'in-namespace'
    program.write_text(f'#!/bin/sh\nmount --bind {hosts} /etc/hosts && mount --bind {tmp_path}/resolv.conf /etc/resolv.conf || '
                       f'exit 97\nexec {binary()} "$@"\n')
    program.chmod(0o755)
    outer = tmp_path / 'namespace'
    # Root has the right already; anybody else gets it inside a user namespace of their own.
    outer.write_text(f'#!/bin/sh\nexec unshare --mount {"" if os.geteuid() == 0 else "--map-root-user"} {program} "$@"\n')
    outer.chmod(0o755)
    done = subprocess.run([outer, '--version'], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f'no mount namespace here: {done.stderr.strip()}')
    return outer


def test_a_name_that_fails_and_comes_back_costs_nothing(tmp_path, penstock):
    """No name of the far end's can be resolved, and no name server answers: held, and delivered as soon as one does."""
    name = 'ingest.penstock.test'
    hosts = tmp_path / 'hosts'
    hosts.write_text('127.0.0.1 localhost\n')
    with FarEnd(tmp_path / 'farend', '--names', f'DNS:{name},IP:127.0.0.1') as far_end:
        port = far_end.address['endpoint'].rsplit(':', 1)[1]
        scene = Scene(tmp_path, far_end, penstock, endpoint=f'https://{name}:{port}', authority=f'https://{name}:{port}')
        scene.write(100)
        scene.daemon.start(program=namespace(tmp_path, hosts))
        scene.until_tried_again(1)
        assert far_end.requests('token') == []
        hosts.write_text(f'127.0.0.1 localhost {name}\n')
        scene.until_delivered()
        assert alarms(scene.daemon) == []
        assert any('resolve' in warning['why'] for warning in warnings(scene.daemon))
        scene.judge('name resolution fails and comes back')


# ---- Tokens ------------------------------------------------------------------------------------------------------

def test_a_token_that_ends_while_its_endpoint_is_down_is_waited_for(scene, far_end):
    """The old token serves to its end; then all is held, without an alarm, until a new one can be had."""
    far_end.token(token_seconds=3)
    scene.write(100)
    scene.daemon.start()
    scene.until_delivered()
    far_end.fault(where='token', do='reset', count=-1)
    scene.until(lambda: total(scene.daemon.counters(), 'retries') >= 1 or scene.write(20) or time.sleep(0.3),
                'the token endpoint to be missed')
    far_end.clear()
    scene.until_delivered()
    assert alarms(scene.daemon) == []
    assert any('token endpoint did not answer' in warning['why'] for warning in warnings(scene.daemon))
    scene.judge('token endpoint down while the token expires', repeats=True)


# ---- The clock ---------------------------------------------------------------------------------------------------

@pytest.mark.plain
def test_a_clock_that_jumps_by_hours_holds_nothing_up(tmp_path, penstock):
    """Five hours on, ten hours back, a day on: tokens, timers and retries go by the clocks that only grow."""
    clock = Clock(tmp_path)
    # Valid on all of these days; what happens where it is not has its own test.
    (tmp_path / 'farend').mkdir()
    wide = {'days': 20, 'variables': Clock(tmp_path / 'farend', '-5d').variables}
    tls.make_server(tmp_path / 'farend', **wide)
    with FarEnd(tmp_path / 'farend') as far_end:
        tls.make_server(far_end.folder, **wide)
        far_end.show_certificate()
        scene = Scene(tmp_path, far_end, penstock)
        scene.write(200)
        scene.daemon.start(**clock.variables)
        scene.until_delivered()
        for shift in ('+5h', '-10h', '+24h', '+0'):
            clock.set(shift)
            far_end.fault(do='status', status=503, count=2)       # a retry and its wait lie astride the jump
            scene.write(200)
            scene.until_delivered(30)
        assert far_end.state()['tokens_issued'] == 1              # none was thrown away for the clock's sake
        assert alarms(scene.daemon) == []
        scene.judge('clock jumps by hours both ways')


@pytest.mark.plain
def test_a_clock_set_back_beyond_the_certificates_is_named_in_the_alarm(tmp_path, far_end, penstock):
    """To a clock three days slow no certificate is valid yet: all is held until the clock is set."""
    clock = Clock(tmp_path)
    scene = Scene(tmp_path, far_end, penstock)
    scene.write(100)
    scene.daemon.start(**clock.variables)
    scene.until_delivered()
    clock.set('-3d')
    far_end.down()                       # the line that was verified goes
    far_end.up()
    scene.write(100)
    scene.until_refused()
    clock.set('+0')
    scene.until_delivered()
    (alarm,) = alarms(scene.daemon)
    assert 'not yet valid' in alarm['why'] and 'clock' in alarm['why']
    scene.judge('clock three days slow')


# ---- Our own fault -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize('status, says', [
    (401, 'scope'), (403, 'Monitoring Metrics Publisher'), (404, 'Custom-PenstockAudit'), (405, 'endpoint'), (410, 'gone'),
    (302, 'redirect'),
])
def test_a_refusal_that_is_our_fault_holds_all_and_alarms_once(scene, far_end, status, says):
    """Held, told once with what to mend, tried at retry_max's pace, neither delivered nor dead; mended, all of it goes."""
    far_end.fault(do='status', status=status, count=-1, headers={'Location': 'https://elsewhere.example/'})
    scene.write()
    scene.daemon.start()
    scene.until_refused(4)
    counters = scene.daemon.counters()
    assert total(counters, 'delivered') == total(counters, 'dead') == 0
    far_end.clear()
    scene.until_delivered()
    times = answered_at(far_end, status)
    tries = times[::2] if status == 401 else times               # a 401 is asked again at once, with a new token
    assert all(later - sooner >= 0.25 for sooner, later in zip(tries, tries[1:]))
    (alarm,) = alarms(scene.daemon)
    assert f'status {status}' in alarm['why'] and says in alarm['why'] and 'nothing is lost' in alarm['msg']
    assert sum('takes our messages again' in line for line in scene.daemon.log_text().splitlines()) == 1
    scene.judge(f'refused with {status}')


def test_rights_that_go_and_come_alarm_each_time_they_go(scene, far_end):
    """Revoked, granted, revoked, granted: two alarms, two all-clears, everything delivered."""
    for turn in (1, 2):
        far_end.settings(granted=False)
        scene.write(100)
        if turn == 1:
            scene.daemon.start()
        scene.until(lambda: len(alarms(scene.daemon)) == turn, 'the alarm')
        far_end.settings(granted=True)
        scene.until_delivered()
    assert len(alarms(scene.daemon)) == 2
    scene.judge('rights revoked and granted, twice')


@pytest.mark.parametrize('in_flight', [1, 4])
def test_one_stream_that_is_missing_alarms_once_while_others_deliver(tmp_path, far_end, penstock, in_flight):
    """The DCR lacks one stream of two: the alarm comes once, however many posts of the other one are taken in between."""
    scene = Scene(tmp_path, far_end, penstock, in_flight=in_flight, stream_unknown='Custom-Missing')
    scene.daemon.start()
    for turn in range(3):                # with a fourth the window of four would be full, and all would wait
        alien = scene.logs / f'alien-{turn}.json'
        alien.write_text(f'{{"time":"2026-11-18T00:00:00Z","alien":{turn}}}\n')
        scene.write(20)
        scene.files.append(alien)
        if in_flight > 1:
            scene.until(lambda: far_end.count('Custom-PenstockAudit') >= 20 * (turn + 1), 'the other stream')
        scene.until_refused(turn + 1)
    assert scene.daemon.stop() == 0
    (alarm,) = alarms(scene.daemon)
    assert 'Custom-Missing' in alarm['why']
    assert 'takes our messages again' not in scene.daemon.log_text()
    scene.daemon.configure(('source logs', {'type': 'file', 'path': f'{scene.logs}/*.json'}), far_end.sink(**FAST))
    scene.daemon.start()
    scene.until_delivered()
    scene.judge('one of two streams missing', order=False)
