"""A Debian 12 of its own for a test: systemd as its init, in a container without a network; or, where it must fetch packages, with ours.

    with Machine(root, folder) as machine:
        machine.run('apt-get', 'install', '-y', machine.lend(package))
        machine.write('/etc/penstock/penstock.conf', text)

`root` is what debootstrap made; it is shared and never written to: each machine works on an overlay in memory.
"""
import os
import pathlib
import shutil
import signal
import subprocess

import pytest
from penstock import slower, wait_until

NSPAWN = ('systemd-nspawn', '--quiet', '--register=no', '--keep-unit', '--private-users=no', '--volatile=overlay', '--console=pipe')


def make_root(folder, packages):
    """A bare Debian 12 and these packages, from where this machine has its own."""
    for need in ('debootstrap', 'systemd-nspawn', 'nsenter'):
        if shutil.which(need) is None:
            pytest.skip(f'{need} is not installed')
    if os.geteuid() != 0:
        pytest.skip('only root can make a machine')
    log = folder.with_suffix('.log')
    with open(log, 'wb') as out:
        made = subprocess.run(['debootstrap', '--variant=minbase', f'--include={",".join(packages)}', 'bookworm', folder],
                              stdout=out, stderr=out, check=False)
    assert made.returncode == 0, log.read_text()[-4000:]
    return folder


class Machine:
    def __init__(self, root, folder, network=False):
        self.root = root
        self.network = [] if network else ['--private-network']
        self.log = folder / 'machine.log'
        self.lent = folder / 'lent'          # is /lent inside, read-only
        self.process = None
        self.init = None

    def __enter__(self):
        """Booted; a test is skipped where a bare Debian cannot boot: that is the machine's fault and not ours."""
        self.lent.mkdir()
        with open(self.log, 'wb') as out:
            self.process = subprocess.Popen([*NSPAWN, *self.network, f'--bind-ro={self.lent}:/lent', '-D', self.root,
                                             '/usr/lib/systemd/systemd', '--system'],
                                            stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        try:
            wait_until(self.booted, 60, 'the machine to boot', self)
        except AssertionError as error:
            self.__exit__()
            pytest.skip(f'no machine boots here: {error}')
        return self

    def __exit__(self, *_):
        if self.init is not None and self.process.poll() is None:
            os.kill(self.init, signal.SIGKILL)
        self.process.kill()
        self.process.wait()

    # What wait_until() asks.

    def exited(self):
        return self.process.poll()

    def log_tail(self):
        return self.log.read_text(errors='replace')[-2000:]

    def booted(self):
        children = pathlib.Path(f'/proc/{self.process.pid}/task/{self.process.pid}/children').read_text().split()
        for child in children:
            status = pathlib.Path(f'/proc/{child}/status').read_text()
            if 'NSpid:\t' + child + '\t1\n' in status:
                self.init = int(child)
        return self.init is not None and self.run('systemctl', 'is-system-running', check=False) in ('running', 'degraded')

    # What a test does with it.

    def run(self, *words, check=True, seconds=120, **more):
        """What the command printed, errors included; without `check`, whatever its status."""
        done = subprocess.run(['nsenter', '-t', str(self.init), '-a', 'env', '-i', 'PATH=/usr/sbin:/usr/bin:/sbin:/bin',
                               'DEBIAN_FRONTEND=noninteractive', 'LC_ALL=C.UTF-8', *map(str, words)], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=seconds * slower(), check=False, **more)
        assert done.returncode == 0 or not check, f'{words}: {done.returncode}\n{done.stdout}\n{self.journal()}'
        return done.stdout.strip()

    def journal(self, *words):
        return self.run('journalctl', '--no-pager', '-u', 'penstock', *(words or ('-n', '30')), check=False)

    def property(self, name, unit='penstock'):
        return self.run('systemctl', 'show', unit, '--value', '-p', name)

    def path(self, inside):
        """Where a file of the machine is, seen from here."""
        return pathlib.Path(f'/proc/{self.init}/root') / inside.lstrip('/')

    def write(self, inside, text, mode=0o644):
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode)
        path.chmod(mode)
        path.write_text(text)

    def lend(self, file):
        """A file of ours, and its path inside."""
        shutil.copy(file, self.lent)
        return f'/lent/{pathlib.Path(file).name}'

    def python(self, folder):
        """A python3 of ours on the machine's network."""
        wrapper = folder / 'python'
        wrapper.write_text(f'#!/bin/sh\nexec nsenter -t {self.init} -n /usr/bin/python3 "$@"\n')
        wrapper.chmod(0o755)
        return wrapper
