"""Prometheus' programs, out of Debian's package, which is not installed: that would start a server, for all to see."""
import shutil
import subprocess

from azurite import cache, run


def path(program):
    """Of `prometheus` or `promtool`; raises Unavailable."""
    found = shutil.which(program)

    def fill(folder):
        run('apt-get', '-o', 'APT::Sandbox::User=root', 'download', 'prometheus', cwd=folder)
        run('dpkg-deb', '--extract', *folder.glob('prometheus_*.deb'), folder / 'package')
    return found or str(cache('prometheus', fill) / 'package' / 'usr' / 'bin' / program)


def promtool(*words, **more):
    """promtool('check', 'metrics', input=text): its subprocess.CompletedProcess."""
    return subprocess.run([path('promtool'), *map(str, words)], capture_output=True, text=True, timeout=120, check=False, **more)
