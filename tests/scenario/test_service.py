"""The daemon as a service manager sees it: signals, and what it says of itself."""
import os
import shutil
import signal
import socket
import threading

import pytest

from penstock import build_folder, wait_until

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


class Manager:
    """What systemd hears of its service, one entry a message. It listens all the time: a service would wait for it."""

    def __init__(self, path):
        self.path, self.said = str(path), []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        while True:
            said = self.socket.recv(4096).decode()
            if said == 'END':
                return
            self.said.append(said.splitlines())

    def end(self):
        """All that was sent before is heard by then."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b'END', self.path)

    def lines(self):
        return [line for said in self.said for line in said]


@pytest.fixture
def manager(tmp_path):
    listening = Manager(tmp_path / 'notify')
    yield listening
    listening.end()


def test_it_tells_systemd_what_it_does(penstock, far_end, manager):
    """READY once, when it works; a STATUS of one line; a sign of life; STOPPING."""
    daemon = penstock(SOURCE, far_end.sink())
    daemon.start(NOTIFY_SOCKET=manager.path, WATCHDOG_USEC='60000000')
    wait_until(lambda: {'READY=1', 'WATCHDOG=1'} <= set(manager.lines()), daemon=daemon)
    wait_until(lambda: any(line.startswith('STATUS=0 delivered') for line in manager.lines()), daemon=daemon)
    assert daemon.stop() == 0
    wait_until(lambda: 'STOPPING=1' in manager.lines())
    lines = manager.lines()
    assert lines.count('READY=1') == lines.count('STOPPING=1') == 1
    assert lines.index('READY=1') < lines.index('STOPPING=1')


@pytest.mark.plain
def test_no_sign_of_life_while_a_worker_hangs(tmp_path, penstock, far_end, manager):
    """The loop goes on and tells its status; that alone is no life. A record that is done with is."""
    (tmp_path / 'plugins').mkdir(mode=0o755)
    shutil.copy(build_folder() / 'tests' / 'plugin' / 'hangs.so', tmp_path / 'plugins')
    (tmp_path / 'hang').touch()
    daemon = penstock(('source logs', {'type': 'file', 'path': f'{tmp_path}/*.json'}), far_end.sink(),
                      plugin_dir=tmp_path / 'plugins')
    daemon.start(NOTIFY_SOCKET=manager.path, WATCHDOG_USEC='1000000', PENSTOCK_HANG=str(tmp_path / 'hang'))
    wait_until(lambda: 'WATCHDOG=1' in manager.lines(), daemon=daemon)
    (tmp_path / 'a.json').write_text('{"category":"Hang"}\n')

    def lately():
        return [line for said in manager.said[-8:] for line in said]
    wait_until(lambda: 'WATCHDOG=1' not in lately(), 60, 'the signs of life to end', daemon)
    assert len([line for line in lately() if line.startswith('STATUS=')]) == 8
    assert far_end.count() == 0
    (tmp_path / 'hang').unlink()
    wait_until(lambda: 'WATCHDOG=1' in lately(), 60, 'a sign of life', daemon)
    wait_until(lambda: far_end.count() == 1, daemon=daemon)
    assert daemon.stop() == 0
