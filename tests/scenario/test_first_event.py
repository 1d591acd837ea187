"""From a bare Debian 12 to the first event that the stand-in accepts: the README's commands as they stand there, fewer than ten, timed."""
import re
import shutil
import subprocess
import time

import pytest
from machine import Machine, make_root
from penstock import ROOT, wait_until
from ports import Port

pytestmark = pytest.mark.long


def commands():
    """The section's, each with its here-document."""
    section = re.search(r'^## From a bare Debian 12 to the first event$(.*?)^## ', (ROOT / 'README.md').read_text(), re.M | re.S)[1]
    block = re.search(r'(?:^    .*\n|^\n(?=    ))+', section[section.index('\n    '):], re.M)[0]
    lines = [line[4:] for line in block.strip('\n').split('\n')]
    found = []
    for line in lines:
        if found and "<<'END'" in found[-1][0] and 'END' not in found[-1][1:]:
            found[-1].append(line)
        else:
            found.append([line])
    return ['\n'.join(one) for one in found]


def test_there_are_fewer_than_ten():
    assert 5 < len(commands()) < 10
    assert commands()[0].startswith('conf/package') and commands()[-1] == 'penstock status'


@pytest.fixture
def machine(tmp_path):
    """Bare: what debootstrap makes of it with an init, and the network, which its packages come by."""
    root = make_root(tmp_path / 'root', ['systemd-sysv'])
    with Machine(root, tmp_path, network=True) as booted:
        yield booted
    shutil.rmtree(root)


@pytest.fixture
def clone(tmp_path):
    """What `git clone` would bring."""
    tar = tmp_path / 'clone.tar'
    names = subprocess.run(['git', '-C', ROOT, 'ls-files', '-z'], capture_output=True, check=True).stdout
    subprocess.run(['tar', '-C', ROOT, '-c', '--null', '-T', '-', '-f', tar], input=names, check=True)
    return tar


def accepted(machine):
    """Rows that the stand-in has taken, by its own book."""
    look = 'import sqlite3; print(sqlite3.connect("/srv/stand-in/accepted.db", timeout=30).execute("SELECT count(*) FROM rows").fetchone()[0])'
    return int(machine.run('python3', '-c', look))


def test_from_a_bare_debian_to_the_first_event(machine, clone, capsys):
    machine.run('mkdir', '/root/penstock')
    machine.run('tar', '-C', '/root/penstock', '-xf', machine.lend(clone))
    port = Port()                                          # the network is ours: 8443 may be somebody's
    start = last = time.monotonic()
    for command in commands():
        machine.run('bash', '-ec', 'cd /root/penstock\n' + command.replace('8443', str(port.number)), seconds=3600)
        with capsys.disabled():
            print(f'\n  {time.monotonic() - last:7.1f} s  {command.splitlines()[0][:110]}', end='')
        last = time.monotonic()
    wait_until(lambda: accepted(machine) > 0, 60, 'the first event', machine)
    with capsys.disabled():
        print(f'\n  {time.monotonic() - start:7.1f} s  from a bare Debian 12 to the first event, {len(commands())} commands')
    assert machine.run('systemctl', 'is-active', 'penstock') == 'active'
    port.release()
