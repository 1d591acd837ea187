"""What scenario and crash tests share: the far end's stand-in, the daemon, and the rule for tests that cannot run here."""
import os
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / 'tests' / 'lib'), str(ROOT / 'tests' / 'farend')]

from azurite import KEY, Azurite         # noqa: E402
from farend import FarEnd                # noqa: E402
from kafka import Kafka, at_hand         # noqa: E402
from penstock import Penstock, binary    # noqa: E402
import prometheus                        # noqa: E402


def pytest_addoption(parser):
    parser.addoption('--update', action='store_true', help='write what is expected anew, as it is now (test_mistakes.py)')


def pytest_configure(config):
    config.addinivalue_line('markers', 'sanitize: also run under the sanitizers')
    config.addinivalue_line('markers', 'plain: waits longer than it works: not under the sanitizers')
    config.addinivalue_line('markers', 'kafka: runs librdkafka, whose C11 threads gcc 12 cannot sanitize')
    config.addinivalue_line('markers', 'long: takes minutes; only in tests/run full')


def pytest_collection_modifyitems(items):
    """Whatever runs the daemon is worth running under the sanitizers, unless it takes long as it is."""
    for item in items:
        if 'penstock' in item.fixturenames and not any(item.iter_markers('long')) and not any(item.iter_markers('plain')):
            item.add_marker('sanitize')


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """With PENSTOCK_TESTS=all a skip is a failure: where everything should be at hand, nothing may be left out."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get('PENSTOCK_TESTS') == 'all' and not hasattr(report, 'wasxfail'):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = 'failed'
        report.longrepr = f'skipped although PENSTOCK_TESTS=all: {reason}'


@pytest.fixture
def far_end(tmp_path):
    with FarEnd(tmp_path / 'farend') as started:
        yield started


@pytest.fixture
def far_end_ids(tmp_path):
    """One that keeps event ids alone, for many of them."""
    with FarEnd(tmp_path / 'farend', '--keep', 'ids') as started:
        yield started


@pytest.fixture(scope='module')
def broker(request, tmp_path_factory):
    """A Kafka broker, with the properties that the module calls BROKER, if it does."""
    with at_hand(), Kafka(tmp_path_factory.mktemp('kafka'), getattr(request.module, 'BROKER', None)) as started:
        yield started


@pytest.fixture(scope='module')
def azurite(tmp_path_factory):
    with at_hand(), Azurite(tmp_path_factory.mktemp('azurite')) as started:
        yield started


@pytest.fixture
def penstock(tmp_path):
    """A daemon, not yet started: give it sections, then start it. It is killed at the end if it still runs."""
    made = []

    def make(*sections, **daemon):
        made.append(Penstock(tmp_path / f'penstock-{len(made)}' if made else tmp_path / 'penstock', *sections, **daemon))
        return made[-1]

    if not binary().exists():
        pytest.fail(f'no {binary()}: build first, or set PENSTOCK_BIN')
    yield make
    for daemon in made:
        daemon.kill()


@pytest.fixture
def key_file(tmp_path):
    """With the key of Azurite's account, which the stand-in for a storage account takes, too."""
    path = tmp_path / 'key'
    path.touch(mode=0o600)
    path.write_text(KEY)
    return path


@pytest.fixture
def promtool():
    with at_hand():
        prometheus.path('promtool')
    return prometheus.promtool
