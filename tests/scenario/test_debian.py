"""debian/ says what the rest of the tree says. What the package does is test_package.py's, which takes longer."""
import re
import subprocess

from penstock import ROOT

CONTROL = (ROOT / 'debian' / 'control').read_text()


def test_version_is_mesons():
    meson = re.search(r"^ +version: '([^']+)'", (ROOT / 'meson.build').read_text(), re.M)[1]
    assert (ROOT / 'debian' / 'changelog').read_text().startswith(f'penstock ({meson}) ')


def test_it_is_built_with_what_we_build_with():
    """Of tests/lib/packages.sh all libraries; compilers are any package's own."""
    script = '. tests/lib/packages.sh; echo "${packages_build[@]}"'
    ours = subprocess.run(['bash', '-c', script], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    needs = re.search(r'^Build-Depends: (.*?)^\S', CONTROL, re.M | re.S)[1]
    named = set(re.findall(r'[a-z0-9.+-]+-dev\b', needs))
    assert named - {'libcmocka-dev'} == {name for name in ours if name.endswith('-dev')} - {'libc6-dev'}
