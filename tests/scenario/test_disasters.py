"""What docs/disasters.md and docs/upgrade.md say of lost and moved state, done."""
import os
import shutil

import pytest
from penstock import total, wait_until
from records import write_activity

FAST = {'flush': '100ms', 'spool_after': '200ms', 'retry_min': '50ms', 'retry_max': '300ms'}


@pytest.fixture
def logs(tmp_path):
    (tmp_path / 'logs').mkdir()
    return tmp_path / 'logs'


def delivered(daemon, far_end, count):
    wait_until(lambda: far_end.distinct() == count, 60, f'{count} events', daemon)
    wait_until(lambda: total(daemon.counters(), 'held') == total(daemon.counters(), 'spooled') == 0, 60, 'quiet', daemon)


def test_a_moved_file_is_read_on(logs, far_end, penstock):
    """Onto another disk, by the same path: nothing of it comes again, and what is added does."""
    path = logs / 'PT1H.json'
    made = write_activity(path, 100)
    daemon = penstock(('source logs', {'type': 'file', 'path': f'{logs}/*.json'}), far_end.sink(**FAST)).start()
    delivered(daemon, far_end, made.events)
    assert daemon.stop() == 0
    shutil.copy(path, logs / 'copy')
    os.replace(logs / 'copy', path)
    more = write_activity(logs / 'more', 10, seed=2)
    with open(path, 'ab') as file:
        file.write((logs / 'more').read_bytes())
    daemon.start()
    delivered(daemon, far_end, made.events + more.events)
    assert far_end.count() == made.events + more.events and 'reading on in it' in daemon.log_text()
    assert daemon.stop() == 0


def test_without_cursors_the_spool_is_delivered_and_files_come_again(logs, far_end, penstock):
    """state.db is lost: what waits in the spool is not, and what repeats has the same ids."""
    made = write_activity(logs / 'a.json', 100)
    daemon = penstock(('source logs', {'type': 'file', 'path': f'{logs}/*.json'}), far_end.sink(**FAST)).start()
    delivered(daemon, far_end, made.events)
    far_end.down()
    more = write_activity(logs / 'b.json', 50, seed=2)
    wait_until(lambda: total(daemon.counters(), 'spooled') == more.events, 60, 'the spool', daemon)
    assert daemon.stop() == 0
    (logs / 'b.json').unlink()                   # all there is of it is in the spool
    for file in daemon.state_dir.glob('state.db*'):
        file.unlink()
    far_end.up()
    daemon.start()
    delivered(daemon, far_end, made.events + more.events)
    wait_until(lambda: far_end.count() == 2 * made.events + more.events, 60, 'the files again', daemon)
    assert daemon.stop() == 0
