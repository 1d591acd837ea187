"""The unit is as narrow as it claims, systemd understands it, and it leaves the program what it needs."""
import ipaddress
import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
UNIT = ROOT / 'systemd' / 'penstock.service'

pytestmark = pytest.mark.skipif(shutil.which('systemd-analyze') is None, reason='systemd-analyze is not installed')


def analyze(*args):
    return subprocess.run(['systemd-analyze', '--no-pager', *map(str, args)], capture_output=True, text=True, timeout=60,
                          check=False)


def values(name):
    return re.findall(rf'^{name}=(.*)$', UNIT.read_text(), flags=re.M)


def test_exposure_is_low():
    report = analyze('security', '--offline=yes', UNIT).stdout
    level = re.search(r'Overall exposure level for penstock.service: ([0-9.]+)', report)
    assert level, report
    assert float(level[1]) <= 1.0, report


def test_systemd_understands_it(tmp_path):
    """Nothing is unknown or misspelt; the program and the page stand in, since neither is installed here."""
    unit = tmp_path / 'penstock.service'
    text = re.sub(r'^(Exec\w+)=/usr/bin/penstock ', r'\1=/bin/true ', UNIT.read_text(), flags=re.M)
    unit.write_text(re.sub(r'^Documentation=.*\n', '', text, flags=re.M))
    verified = analyze('verify', '--man=no', unit)
    complaints = [line for line in verified.stderr.splitlines() if 'penstock' in line]
    assert complaints == []


def test_a_misspelt_line_would_be_seen(tmp_path):
    unit = tmp_path / 'penstock.service'
    unit.write_text(UNIT.read_text().replace('ProtectClock=', 'ProtectClok='))
    assert 'ProtectClok' in analyze('verify', '--man=no', unit).stderr


def test_system_calls_it_needs_are_left():
    """prctl and prlimit64 forbid core dumps at start, the rest is files, inotify, threads and sockets."""
    allowed = set()

    def calls(name):
        if not name.startswith('@'):
            return {name}
        listed = analyze('syscall-filter', name).stdout.splitlines()[1:]
        return {call for line in listed if line.strip() and not line.strip().startswith('#') for call in calls(line.strip())}

    for line in values('SystemCallFilter'):
        names = set().union(*(calls(name) for name in line.lstrip('~').split()))
        allowed = allowed - names if line.startswith('~') else allowed | names
    needed = {'prctl', 'prlimit64', 'umask', 'clone', 'clone3', 'futex', 'openat', 'pread64', 'pwrite64', 'fsync',
              'fdatasync', 'ftruncate', 'fallocate', 'rename', 'unlink', 'inotify_init1', 'inotify_add_watch', 'epoll_wait',
              'epoll_pwait', 'eventfd2', 'timerfd_create', 'socket', 'connect', 'sendmsg', 'recvmsg', 'getrandom', 'mmap',
              'statfs', 'statx', 'fcntl', 'flock', 'sched_getaffinity', 'madvise', 'mremap'}
    assert needed - allowed == set()


def test_stop_leaves_time_for_batches_in_flight():
    """The unit waits longer than the daemon's own `stop_wait` of 8 s, and than the 10 s in which it promises to be gone."""
    assert int(values('TimeoutStopSec')[0]) > 10


def test_nothing_hides_the_logs():
    """A folder may be closed, which the log tells; one that is empty in here and full out there must not be."""
    assert values('ProtectHome') == ['yes']
    for name in ('RootDirectory', 'RootImage', 'TemporaryFileSystem', 'InaccessiblePaths', 'PrivateNetwork'):
        assert values(name) == []


def test_every_far_end_can_be_reached():
    """All of unicast, old and new, a machine's own name server and metadata service included; no multicast, no broadcast."""
    assert values('IPAddressDeny') == ['any']
    allowed = [ipaddress.ip_network(net) for net in values('IPAddressAllow')[0].replace('localhost', '127.0.0.0/8 ::1').split()]

    def reached(text):
        address = ipaddress.ip_address(text)
        return any(address in net for net in allowed if net.version == address.version)
    for text in ('20.38.0.1', '127.0.0.53', '10.0.0.4', '168.63.129.16', '169.254.169.254', '172.16.0.1', '223.255.255.254',
                 '::1', '2603:1020::1', 'fd00::1', 'fe80::1', '64:ff9b::1426:1', '64:ff9b:1::1'):
        assert reached(text), text
    for text in ('224.0.0.251', '239.255.255.250', '255.255.255.255', 'ff02::1', 'ff0e::1'):
        assert not reached(text), text


def test_users_and_folders_agree():
    users = (ROOT / 'systemd' / 'penstock.sysusers').read_text()
    folders = (ROOT / 'systemd' / 'penstock.tmpfiles').read_text()
    assert re.search(rf'^u {values("User")[0]} ', users, flags=re.M)
    mode = values('StateDirectoryMode')[0]
    assert re.search(rf'^d /var/lib/penstock {mode} penstock penstock', folders, flags=re.M)


@pytest.mark.skipif(shutil.which('systemd-sysusers') is None, reason='systemd-sysusers is not installed')
def test_sysusers_and_tmpfiles_make_them(tmp_path):
    """Into an empty root: the user is there, and the folders with their modes."""
    (tmp_path / 'etc').mkdir()
    made = subprocess.run(['systemd-sysusers', f'--root={tmp_path}', str(ROOT / 'systemd' / 'penstock.sysusers')],
                          capture_output=True, text=True, check=False)
    if made.returncode != 0 and 'ermi' in made.stderr:
        pytest.skip('needs root: ' + made.stderr.strip())
    assert made.returncode == 0, made.stderr
    assert re.search(r'^penstock:.*:/usr/sbin/nologin$', (tmp_path / 'etc/passwd').read_text(), flags=re.M)
    made = subprocess.run(['systemd-tmpfiles', '--create', f'--root={tmp_path}', str(ROOT / 'systemd' / 'penstock.tmpfiles')],
                          capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    assert (tmp_path / 'etc/penstock/credentials').stat().st_mode & 0o777 == 0o700
    assert (tmp_path / 'var/lib/penstock').stat().st_mode & 0o777 == 0o700
