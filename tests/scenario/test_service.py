"""The daemon as a service manager sees it: signals, and what it says of itself."""
import os
import signal
import socket

import pytest

from penstock import wait_until

SOURCE = ('source logs', {'type': 'file', 'path': '/nowhere/*.json'})


def held_up(daemon, *words):
    """Started and waiting in the middle of its start, for its configuration; what is returned ends the wait."""
    text = daemon.config.read_bytes()
    daemon.config.unlink()
    os.mkfifo(daemon.config)
    daemon.start(*words)
    pipe = open(daemon.config, 'wb', buffering=0)      # opens when the daemon does

    def go_on():
        pipe.write(text)
        pipe.close()
    return go_on


@pytest.mark.parametrize('name', ['TERM', 'INT'])
def test_a_stop_while_it_starts_is_a_clean_stop(penstock, far_end, name):
    daemon = penstock(SOURCE, far_end.sink())
    go_on = held_up(daemon)
    daemon.process.send_signal(signal.Signals[f'SIG{name}'])
    go_on()
    assert daemon.process.wait(60) == 0, daemon.log_tail()
    assert f'signal={name} msg="stopping"' in daemon.log_text()
    assert 'msg="stopped"' in daemon.log_text()


def test_a_replay_that_is_stopped_while_it_starts_says_what_is_left(tmp_path, penstock, far_end):
    (tmp_path / 'a.json').write_text('{"no":"time"}\n')
    far_end.down()
    daemon = penstock(SOURCE, far_end.sink())
    go_on = held_up(daemon, 'replay', '-c', daemon.config, tmp_path / 'a.json')
    daemon.process.send_signal(signal.SIGINT)
    go_on()
    assert daemon.process.wait(60) == 1, daemon.log_tail()
    assert 'not everything is delivered' in daemon.log_text()


def test_counters_may_be_asked_for_at_any_time(penstock, far_end):
    daemon = penstock(SOURCE, far_end.sink())
    go_on = held_up(daemon)
    daemon.process.send_signal(signal.SIGUSR1)
    go_on()
    wait_until(lambda: 'msg="memory"' in daemon.log_text(), daemon=daemon)
    assert daemon.stop() == 0


def test_it_tells_systemd_what_it_does(tmp_path, penstock, far_end):
    """READY once, when it works; a STATUS of one line; a sign of life; STOPPING."""
    path = tmp_path / 'notify'
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(path))
        notify.settimeout(60)
        daemon = penstock(SOURCE, far_end.sink())
        daemon.start(NOTIFY_SOCKET=str(path), WATCHDOG_USEC='60000000')
        said = []
        while not {'READY=1', 'WATCHDOG=1'} <= set(said) or not any('STATUS=' in line for line in said):
            said += notify.recv(4096).decode().splitlines()
        assert daemon.stop() == 0
        notify.setblocking(False)
        try:
            while True:
                said += notify.recv(4096).decode().splitlines()
        except BlockingIOError:
            pass
    assert said.count('READY=1') == said.count('STOPPING=1') == 1
    assert said.index('READY=1') < said.index('STOPPING=1')
