"""The Debian package on a Debian 12 of its own that has nothing else: installed, started, hung, upgraded, removed, purged.

Two things may be given instead of made, for those who work on this: PENSTOCK_DEB, a package; PENSTOCK_ROOT, a bare Debian 12
with what the package depends on and recommends.
"""
import json
import os
import pathlib
import re
import shutil
import subprocess

import pytest
import records
from farend import FarEnd
from machine import Machine, make_root
from penstock import ROOT, wait_until, write_config

pytestmark = pytest.mark.long

def run(*words):
    done = subprocess.run([str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, f'{words}: {done.returncode}\n{done.stdout[-4000:]}'
    return done.stdout


@pytest.fixture(scope='module')
def package():
    if os.environ.get('PENSTOCK_DEB'):
        return pathlib.Path(os.environ['PENSTOCK_DEB'])
    return ROOT / run(ROOT / 'conf' / 'package', 'nocheck').split()[-1]


@pytest.fixture(scope='module')
def root(package, tmp_path_factory):
    if os.environ.get('PENSTOCK_ROOT'):
        yield os.environ['PENSTOCK_ROOT']
        return
    wanted = ','.join(run('dpkg-deb', '-f', package, field) for field in ('Depends', 'Recommends'))
    names = [re.match(r'\s*([a-z0-9.+-]+)', one)[1] for one in wanted.split(',')]
    made = make_root(tmp_path_factory.mktemp('debian') / 'root', ['systemd-sysv', *names])
    yield made
    shutil.rmtree(made)


@pytest.fixture
def machine(root, tmp_path):
    with Machine(root, tmp_path) as booted:
        yield booted


class Far:
    """The stand-in, on the machine's network, and the machine told of it: certificate, secret, configuration."""

    def __init__(self, machine, folder, monkeypatch):
        monkeypatch.setenv('PENSTOCK_PYTHON', str(machine.python(folder)))
        self.machine, self.folder = machine, folder / 'farend'
        self.end = FarEnd(self.folder).start()
        self.port = self.end.address['endpoint'].rsplit(':', 1)[1]

    def configure(self, credential='LoadCredential=sentinel:/etc/penstock/credentials/sentinel', unit='', **daemon):
        """As the README says: the file, the secret, and the line that lends it."""
        address = self.end.address
        self.machine.write('/etc/penstock/ca.pem', pathlib.Path(address['ca_file']).read_text())
        self.machine.write('/etc/penstock/credentials/sentinel', pathlib.Path(address['secret_file']).read_text(), 0o600)
        self.machine.path('/srv/azure').mkdir(exist_ok=True)
        sections = [('daemon', daemon), ('source files', {'type': 'file', 'path': '/srv/azure/*.json'}),
                    self.end.sink(ca_file='/etc/penstock/ca.pem', secret_file='${CREDENTIALS_DIRECTORY}/sentinel',
                                  spool_after='200ms', retry_min='200ms', retry_max='1s')]
        write_config(self.machine.path('/etc/penstock/penstock.conf'), *sections)
        self.machine.write('/etc/systemd/system/penstock.service.d/override.conf',
                           f'[Unit]\nStartLimitIntervalSec=0\n[Service]\n{credential}\nRestartSec=100ms\n{unit}\n')
        self.machine.run('systemctl', 'daemon-reload')

    def down(self):
        self.end.stop()

    def up(self):
        self.end = FarEnd(self.folder, '--port', self.port).start()


@pytest.fixture
def far(machine, tmp_path, monkeypatch):
    made = Far(machine, tmp_path, monkeypatch)
    yield made
    made.end.stop()


def write_activity(machine, name, count, seed=1):
    return records.write_activity(machine.path(f'/srv/azure/{name}'), count, seed=seed)


def installed(machine, package):
    machine.run('apt-get', 'install', '-y', machine.lend(package))


def status(machine, pattern):
    return re.search(pattern, machine.property('StatusText'))


def test_lintian_is_content(package):
    run('lintian', '--allow-root', '--fail-on', 'error,warning', package)


def test_what_is_in_it(package, tmp_path):
    """A parser of one's own is built with what is installed and nothing else, and runs in what is installed."""
    run('dpkg-deb', '-x', package, tmp_path / 'root')
    [found] = (tmp_path / 'root/usr/lib').glob('*/pkgconfig/penstock.pc')
    assert 'Version: ' + run('dpkg-deb', '-f', package, 'Version') in found.read_text()
    flags = run('env', f'PKG_CONFIG_SYSROOT_DIR={tmp_path}/root', 'pkg-config', '--cflags', found).split()
    run('cc', *flags, '-shared', '-fPIC', '-o', tmp_path / 'keyvault.so', ROOT / 'tests' / 'plugin' / 'keyvault.c')
    (tmp_path / 'a.json').write_text('{"category":"AuditEvent","operationVersion":"2015-06-01","operationName":"SecretGet"}\n')
    said = run(tmp_path / 'root/usr/bin/penstock', 'parse', '--plugin-dir', tmp_path, '--parser', 'keyvault', tmp_path / 'a.json')
    assert json.loads(said.splitlines()[0])['Operation'] == 'SecretGet'


def test_from_a_bare_debian_to_the_first_event(machine, package, far):
    """Installed it is no service yet; configured and enabled it delivers, and says so to systemd and the journal."""
    installed(machine, package)
    assert machine.property('ActiveState') == 'inactive'
    far.configure()
    made = write_activity(machine, 'a.json', 20)
    assert 'memory: 64M budget' in machine.run('env', 'CREDENTIALS_DIRECTORY=/etc/penstock/credentials', 'penstock', 'check')
    machine.run('systemctl', 'enable', '--now', 'penstock')        # returns when the daemon has said that it is ready
    wait_until(lambda: far.end.count() == made.events, 30, 'the events', machine)
    wait_until(lambda: status(machine, rf'^{made.events} delivered, 0 held'), 30, 'the status line', machine)
    asked = json.loads(machine.run('penstock', 'status', '--json'))     # the sandbox keeps nobody from asking
    assert [sink['name'] for sink in asked['sinks']] == ['sentinel']

    fields = json.loads(machine.journal('-o', 'json', 'PENSTOCK_MSG=started').splitlines()[-1])
    assert (fields['PRIORITY'], fields['PENSTOCK_SINKS'], fields['SYSLOG_IDENTIFIER']) == ('6', '1', 'penstock')
    process = machine.path(f'/proc/{machine.property("MainPID")}/status').read_text()
    assert re.search(r'^CapBnd:\s+0+$', process, re.M) and re.search(r'^NoNewPrivs:\s+1$', process, re.M)
    security = machine.run('systemd-analyze', '--no-pager', 'security', 'penstock.service', check=False)
    assert float(re.search(r'Overall exposure level for penstock.service: ([0-9.]+)', security)[1]) <= 1.0

    machine.run('systemctl', 'stop', 'penstock')
    assert machine.property('Result') == 'success'
    assert 'msg="stopped"' in machine.journal()


def test_a_reload_holds_or_fails_and_never_restarts(machine, package, far):
    """`systemctl reload` waits for the daemon's own word, in the sandbox; a file that will not do is a reload that failed."""
    installed(machine, package)
    far.configure()
    machine.run('systemctl', 'start', 'penstock')
    process, state = machine.property('MainPID'), machine.property('ActiveState')
    far.configure(memory='80M')
    machine.run('systemctl', 'reload', 'penstock')
    assert 'msg="the configuration was reloaded"' in machine.journal()
    assert (machine.property('MainPID'), machine.property('ActiveState')) == (process, state) == (process, 'active')
    far.configure(memory='lots')
    machine.run('systemctl', 'reload', 'penstock', check=False)
    wait_until(lambda: status(machine, 'the last reload failed'), 30, 'the status line', machine)
    assert (machine.property('MainPID'), machine.property('ActiveState')) == (process, 'active')
    made = write_activity(machine, 'a.json', 20)
    wait_until(lambda: far.end.count() == made.events, 30, 'the events', machine)
    machine.run('systemctl', 'stop', 'penstock')
    assert machine.property('Result') == 'success'


def test_a_secret_may_be_sealed_to_the_machine(machine, package, far):
    installed(machine, package)
    far.configure('LoadCredentialEncrypted=sentinel:/etc/penstock/credentials/sentinel.cred')
    machine.run('systemd-creds', 'encrypt', '--with-key=host', '--name=sentinel', '/etc/penstock/credentials/sentinel',
                '/etc/penstock/credentials/sentinel.cred')
    machine.path('/etc/penstock/credentials/sentinel').unlink()
    made = write_activity(machine, 'a.json', 3)
    machine.run('systemctl', 'start', 'penstock')
    wait_until(lambda: far.end.count() == made.events, 30, 'the events', machine)


def test_a_wrong_configuration_is_not_tried_again(machine, package):
    installed(machine, package)
    machine.write('/etc/penstock/penstock.conf', '[daemon]\nmemroy = 64M\n')
    machine.run('systemctl', 'start', 'penstock', check=False)
    assert (machine.property('ActiveState'), machine.property('ExecMainStatus')) == ('failed', '2')
    assert machine.property('NRestarts') == '0'
    assert 'did you mean "memory"' in machine.journal()


def test_homes_are_closed_and_the_log_says_so(machine, package):
    installed(machine, package)
    machine.path('/home/someone/logs').mkdir(mode=0o755, parents=True)
    write_config(machine.path('/etc/penstock/penstock.conf'),
                 ('source a', {'type': 'file', 'path': '/home/someone/logs/*.json'}),
                 ('sink k', {'type': 'kafka', 'brokers': '127.0.0.1:9', 'topic': 't'}))
    machine.run('systemctl', 'start', 'penstock')
    wait_until(lambda: 'path=/home error="permission denied"' in machine.journal(), 30, 'the line', machine)


def test_a_worker_that_hangs_is_the_watchdogs(machine, package, far, tmp_path):
    """The loop still turns and its timer fires; no sign of life is given all the same, since nothing moves. What was
    not delivered then is delivered by the next life."""
    installed(machine, package)
    run('dpkg-deb', '-x', package, tmp_path / 'root')
    run('cc', f'-I{tmp_path}/root/usr/include/penstock', '-shared', '-fPIC', '-o', tmp_path / 'hangs.so',
        ROOT / 'tests' / 'plugin' / 'hangs.c')
    machine.run('install', '-D', '-t', '/usr/lib/penstock/parsers', machine.lend(tmp_path / 'hangs.so'))
    machine.write('/srv/hang', '')
    far.configure(unit='WatchdogSec=3\nEnvironment=PENSTOCK_HANG=/srv/hang', plugin_dir='/usr/lib/penstock/parsers')
    machine.run('systemctl', 'start', 'penstock')
    machine.write('/srv/azure/hang.json', '{"category":"Hang","time":"2026-11-22T10:00:00Z"}\n')
    wait_until(lambda: machine.property('NRestarts') != '0', 60, 'the restart', machine)
    assert 'Watchdog timeout' in machine.journal()
    assert far.end.count() == 0
    machine.path('/srv/hang').unlink()
    wait_until(lambda: far.end.count() == 1, 60, 'the event', machine)
    assert machine.property('ActiveState') == 'active'


@pytest.fixture
def next_package(package, tmp_path):
    """The same as version 9, with an example that has changed."""
    folder = tmp_path / 'next'
    run('dpkg-deb', '-R', package, folder)
    control = folder / 'DEBIAN' / 'control'
    control.write_text(re.sub(r'^Version: .*$', 'Version: 9', control.read_text(), flags=re.M))
    with open(folder / 'etc' / 'penstock' / 'penstock.conf', 'a', encoding='utf-8') as example:
        example.write('# A word more.\n')
    run('dpkg-deb', '--root-owner-group', '-b', folder, tmp_path / 'penstock_9.deb')
    return tmp_path / 'penstock_9.deb'


def test_an_upgrade_restarts_it_and_loses_nothing(machine, package, next_package, far):
    """With messages in the spool and a configuration that somebody wrote: it stays as it is, and all of it arrives once."""
    installed(machine, package)
    far.configure()
    far.down()
    made = write_activity(machine, 'a.json', 200)
    machine.run('systemctl', 'enable', '--now', 'penstock')
    wait_until(lambda: status(machine, rf'\b{made.events} spooled'), 60, 'all of it to be spooled', machine)
    before = machine.property('MainPID')
    config = machine.path('/etc/penstock/penstock.conf').read_text()

    machine.run('dpkg', '--force-confold', '-i', machine.lend(next_package))
    assert machine.property('ActiveState') == 'active'
    assert machine.property('MainPID') not in (before, '0')
    assert machine.path('/etc/penstock/penstock.conf').read_text() == config
    later = write_activity(machine, 'b.json', 100, seed=2)
    far.up()
    wait_until(lambda: far.end.count() >= made.events + later.events, 60, 'all events', machine)
    wait_until(lambda: status(machine, ' 0 held, 0 spooled'), 60, 'quiet', machine)
    assert far.end.count() == far.end.distinct() == made.events + later.events


def test_an_upgrade_starts_nothing(machine, package, next_package):
    installed(machine, package)
    machine.run('dpkg', '--force-confold', '-i', machine.lend(next_package))
    assert machine.property('ActiveState') == 'inactive'
    assert machine.run('systemctl', 'is-enabled', 'penstock', check=False) == 'disabled'


def test_removal_keeps_what_is_not_delivered_and_purge_forgets_it(machine, package, far):
    installed(machine, package)
    far.configure()
    far.down()
    made = write_activity(machine, 'a.json', 50)
    machine.run('systemctl', 'enable', '--now', 'penstock')
    wait_until(lambda: status(machine, rf'\b{made.events} spooled'), 60, 'all of it to be spooled', machine)
    state = machine.path('/var/lib/penstock')

    machine.run('apt-get', 'remove', '-y', 'penstock')
    assert machine.run('systemctl', 'is-active', 'penstock', check=False) != 'active'
    assert (state / 'state.db').exists() and (state / 'spool' / 'sentinel').exists()
    assert not machine.path('/usr/bin/penstock').exists()

    far.up()
    machine.path('/srv/azure/a.json').unlink()                     # all there is of it lies in the spool
    machine.run('apt-get', 'install', '-y', machine.lend(package))
    machine.run('systemctl', 'start', 'penstock')
    wait_until(lambda: far.end.count() == made.events, 60, 'the events', machine)

    machine.run('apt-get', 'purge', '-y', 'penstock')
    assert not state.exists()
    assert not machine.path('/etc/penstock/penstock.conf').exists()
    assert machine.path('/etc/penstock/credentials/sentinel').exists()     # a person put it there
    assert machine.run('systemctl', 'is-enabled', 'penstock', check=False) != 'enabled'
