"""What a reload does to the flow, to counts, and to what sinks of one rule share."""
import json
import pathlib

import pytest

from farend import FarEnd
from penstock import total, wait_until
from records import write_activity
from test_reload import AWAY, QUICK, files, reload, reloaded, up


def flow(daemon):
    return json.loads(daemon.command('status', '-c', daemon.config, '--json').stdout)['daemon']['flow']


@pytest.mark.kafka
def test_a_reload_that_fails_for_want_of_memory_leaves_the_flow_open(tmp_path, penstock, far_end):
    """What was opened beside took all of the budget; when it has gone, an idle daemon reads what comes then."""
    sections = files('logs', tmp_path / '*.json'), far_end.sink(in_flight=1, **QUICK)
    daemon = up(penstock(*sections, memory='16M'))
    topics = [(f'source hub{n}', {'type': 'kafka', 'bootstrap': '127.0.0.1:1', 'topic': 't'}) for n in range(3)]
    daemon.configure(*sections, *topics, memory='16M')
    done = reload(daemon)
    assert done.returncode == 2 and '"memory" is too small' in done.stderr
    made = write_activity(tmp_path / 'a.json', 5)
    wait_until(lambda: far_end.count() == made.events, daemon=daemon)
    assert daemon.stop() == 0


def test_more_memory_while_the_flow_is_closed_and_a_source_that_is_new(tmp_path, penstock, far_end):
    """The flow opens with the swap: whoever hears of it has been started."""
    far_end.down()
    for seed in range(1, 9):
        write_activity(tmp_path / f'{seed}.json', 1500, seed=seed)
    sink = far_end.sink(spool_max='1M', batch_bytes='400K', spool_compress='no', in_flight=1, **AWAY)
    daemon = up(penstock(files('logs', tmp_path / '*.json'), sink, memory='16M', stop_wait='2s'))
    wait_until(lambda: 'the spool is full' in daemon.log_text(), daemon=daemon)
    wait_until(lambda: flow(daemon) != 'open', daemon=daemon)
    (tmp_path / 'more').mkdir()
    write_activity(tmp_path / 'more' / 'a.json', 5, seed=99)
    daemon.configure(files('logs', tmp_path / '*.json'), files('more', tmp_path / 'more/*.json'), sink, memory='200M', stop_wait='2s')
    assert reloaded(daemon) == ['daemon: changed', 'source more: added', '2 untouched']
    far_end.up()
    wait_until(lambda: far_end.distinct() == 8 * 1500 + 5, 60, daemon=daemon)
    assert daemon.stop() == 0


def test_a_source_that_comes_again_goes_on_counting(tmp_path, penstock, far_end):
    """Its row in every ledger is the same as before, so what it read must be, too."""
    write_activity(tmp_path / 'a.json', 10)
    both = files('a', tmp_path / 'a.json'), files('b', tmp_path / 'b.json'), far_end.sink(**QUICK)
    daemon = up(penstock(*both))
    wait_until(lambda: far_end.count() == 10, daemon=daemon)
    daemon.configure(*both[1:])
    reloaded(daemon)
    daemon.configure(*both)
    reloaded(daemon)
    counters = daemon.counters()
    assert total(counters, 'read', source='a') == total(counters, 'delivered', source='a') == 10
    assert daemon.stop() == 0


def test_an_authority_that_is_renewed_under_its_name_is_believed(tmp_path, penstock, far_end):
    """The file of `ca_file` has other bytes: the sink that reads it next trusts those, and no longer the ones before."""
    ca = tmp_path / 'ca.pem'
    ca.write_bytes(pathlib.Path(far_end.address['ca_file']).read_bytes())
    source = files('logs', tmp_path / '*.json')
    daemon = up(penstock(source, far_end.sink(**{**QUICK, 'ca_file': ca})))
    made = write_activity(tmp_path / 'a.json', 5)
    wait_until(lambda: far_end.count() == made.events, daemon=daemon)
    with FarEnd(tmp_path / 'other') as other:
        ca.write_bytes(pathlib.Path(other.address['ca_file']).read_bytes())
        daemon.configure(source, other.sink(far_end.sink()[0].split()[1], **{**QUICK, 'ca_file': ca}))
        assert reloaded(daemon) == ['sink sentinel: changed', '1 untouched']
        more = write_activity(tmp_path / 'b.json', 5, seed=2)
        wait_until(lambda: other.count() == more.events, 10, daemon=daemon)
        assert daemon.stop() == 0
