"""The test library reads log lines and counters as they are printed."""
import json
import os
import subprocess
import sys

import pytest

from conftest import ROOT
from penstock import Penstock, parse_counters, parse_line, total, wait_until

LOG = '''\
2026-11-22T05:00:00.000Z info source=flows read=3 events=9 msg=records
2026-11-22T05:00:01.000Z info source=flows read=10 events=30 msg=records
2026-11-22T05:00:01.000Z info source=flows sink=siem taken=10 delivered=7 dead=1 dropped=0 held=0 spooled=2 msg=messages
2026-11-22T05:00:01.000Z info source=alerts sink=siem taken=5 delivered=5 dead=0 dropped=0 held=0 spooled=0 msg=messages
2026-11-22T05:00:01.000Z info sink=siem flow=open batches=4 bytes=999 msg="sink"
2026-11-22T05:00:01.000Z info held=17 peak=99 budget=1000 flow=open msg=memory
2026-11-22T05:00:01.000Z warning sink=siem outcome=retry read=5 status=503 msg="far end is busy, \\"holding\\""
'''


def test_a_line_is_its_keys():
    assert parse_line('x sink=siem delay_ms=-8 why="a \\"b\\" c=d" empty="" path=/a/b=c') == {
        'sink': 'siem', 'delay_ms': -8, 'why': 'a "b" c=d', 'empty': '', 'path': '/a/b=c'}


def test_the_last_counters_count():
    counters = parse_counters(LOG)
    assert set(counters) == {('flows', None), ('flows', 'siem'), ('alerts', 'siem'), (None, 'siem'), (None, None)}
    assert (total(counters, 'batches'), total(counters, 'held'), counters[None, None]['peak']) == (4, 0, 99)
    assert total(counters, 'read') == total(counters, 'read', source='flows') == 10
    assert total(counters, 'delivered', sink='siem') == total(counters, 'delivered') == 12
    assert total(counters, 'dead', source='flows') == 1
    assert total(counters, 'delivered', sink='other') == 0


FAKE = '''#!{python}
import signal, sys, time
time.sleep({late})
def on_usr1(*_):
    print('info source=a read=1 msg=records', flush=True)
    print('info sink=b source=a delivered=1 msg=messages', flush=True)
    print('info held=0 budget=1 msg=memory', flush=True)
signal.signal(signal.SIGUSR1, on_usr1)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
while True:
    time.sleep(10)
'''


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A daemon of ten lines, to prove the library and not the daemon."""
    script = tmp_path / 'fake'
    script.write_text(FAKE.format(python=sys.executable, late=0.3))
    script.chmod(0o755)
    monkeypatch.setenv('PENSTOCK_BIN', str(script))
    daemon = Penstock(tmp_path / 'daemon', ('source a', {'type': 'file'}), ('sink b', {'type': 'kafka'})).start()
    yield daemon
    daemon.kill()


def test_counters_are_asked_for_only_when_that_is_safe(fake):
    assert total(fake.counters(), 'delivered', sink='b') == 1
    assert fake.memory()[0] > 0
    assert fake.stop() == 0
    assert total(fake.counters(), 'read') == 1


def test_waiting_ends_with_the_daemon(fake):
    fake.kill()
    with pytest.raises(AssertionError, match='exited with -9'):
        wait_until(lambda: False, 30, 'nothing', fake)


TALLY = ROOT / 'tests' / 'lib' / 'tally.py'


def tally(tmp_path, tests, all_of_them=False):
    log = tmp_path / 'testlog.json'
    log.write_text(''.join(json.dumps(test) + '\n' for test in tests))
    env = {key: value for key, value in os.environ.items() if key != 'PENSTOCK_TESTS'}
    if all_of_them:
        env['PENSTOCK_TESTS'] = 'all'
    done = subprocess.run([sys.executable, TALLY, 'unit', '1', tmp_path / 'totals', 'meson', log], env=env,
                          capture_output=True, text=True)
    return done.returncode, (tmp_path / 'totals').read_text().splitlines()[-1]


GOOD = {'name': 'a', 'result': 'OK', 'stderr': '[       OK ] one\n[       OK ] two\n[  SKIPPED ] three\n'}


@pytest.mark.parametrize('tests, all_of_them, expected', [
    ([GOOD], False, (0, '2 0 1')),
    ([GOOD], True, (1, '2 1 0')),
    ([GOOD, {'name': 'b', 'result': 'FAIL', 'stdout': '[  FAILED  ] x\n', 'stderr': '[  FAILED  ] x\n'}], False, (1, '2 1 1')),
    ([{'name': 'b', 'result': 'ERROR', 'stderr': '[       OK ] one\nAddressSanitizer: …\n'}], False, (1, '1 1 0')),
    ([{'name': 'b', 'result': 'TIMEOUT'}], False, (1, '0 1 0')),
    ([], False, (1, '0 1 0')),
])
def test_the_tally_counts_what_was_run(tmp_path, tests, all_of_them, expected):
    assert tally(tmp_path, tests, all_of_them) == expected
