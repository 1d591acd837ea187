"""Promise: what a DCR accepted and then lost is noticed. Its own count of rows is compared with what it accepted, minute by minute;
a difference is one alarm with the numbers, where it cannot be asked that is no alarm, and the data never waits for any of it.

Only minutes that have settled are compared: so the daemon's clock is set on, once all is delivered.
"""
import json
import re

import pytest

from clock import Clock
from judge import alarms
from penstock import ROOT, parse_line, wait_until
from records import write_activity
from window import Window

pytestmark = pytest.mark.plain           # libfaketime and the sanitizers both want to be loaded first

WORKSPACE = '/subscriptions/99999999-8888-7777-6666-555555555555/resourceGroups/siem/providers/' \
            'Microsoft.OperationalInsights/workspaces/siem'
TEMPLATE = json.loads((ROOT / 'conf' / 'dcr.json').read_text())
RECORDS = 120


class Scene:
    """A daemon that has delivered RECORDS rows, and looks every second."""

    def __init__(self, tmp_path, penstock, far_end):
        self.far_end, self.clock = far_end, Clock(tmp_path)
        self.rule = far_end.deploy(TEMPLATE, workspaceResourceId=WORKSPACE)['dcrResourceId']
        self.logs = tmp_path / 'logs'
        self.logs.mkdir()
        self.daemon = penstock(listen='127.0.0.1:0')

    def sink(self, name='sentinel', **more):
        return self.far_end.sink(name, flush='50ms', management=self.far_end.address['endpoint'],
                                 **{'dcr_resource_id': self.rule, 'dcr_compare': '1s', **more})

    def deliver(self, *sinks):
        sinks = sinks or (self.sink(),)
        write_activity(self.logs / 'a.json', RECORDS, seed=1)
        self.daemon.configure(('source a', {'type': 'file', 'path': f'{self.logs}/*.json'}), *sinks, listen='127.0.0.1:0')
        self.daemon.start(**self.clock.variables)
        self.window = Window(self.daemon)
        self.until(lambda: all(sink['delivered'] == RECORDS for sink in self.window.json()['sinks']), 'delivery')
        return self

    def settle(self):
        """So much later that what was delivered is compared."""
        self.clock.set('+20m')
        return self

    def until(self, condition, what):
        return wait_until(condition, 60, what, self.daemon)

    def number(self, key, sink='sentinel'):
        return self.window.sink(sink).get('arrival_' + key)

    def looks(self, count=3):
        """So many more questions were asked and answered. Each is two."""
        before = len(self.far_end.requests('arm'))
        self.until(lambda: len(self.far_end.requests('arm')) >= before + 2 * count, 'more looks')

    def lines(self, msg):
        return [parse_line(line) for line in self.daemon.log_text().splitlines() if msg in line]

    def unknown(self):
        return self.lines('is not known')


@pytest.fixture
def scene(tmp_path, penstock, far_end):
    return Scene(tmp_path, penstock, far_end)


# ---- All arrives ----

def test_all_that_was_accepted_has_arrived(scene):
    scene.deliver()
    assert scene.number('accepted') is None                    # nothing has settled yet
    scene.settle()
    scene.until(lambda: scene.number('accepted') == RECORDS, 'the comparison')
    assert scene.number('received') == RECORDS and scene.number('differs') == scene.number('unknown_ms') == 0
    metrics = scene.window.metrics()
    assert metrics['penstock_arrival_received_rows', 'sentinel'] == metrics['penstock_arrival_accepted_rows', 'sentinel'] == RECORDS
    shown = scene.daemon.command('status', '-c', scene.daemon.config).stdout
    assert f'sentinel: arrived: all of {RECORDS} rows' in shown
    assert scene.daemon.stop() == 0
    assert alarms(scene.daemon) == [] and scene.unknown() == []


def test_more_than_we_sent_is_well(scene):
    """Others send to the same DCR, and so did our earlier life."""
    scene.far_end.rule(counted={'RowsReceived_Count': RECORDS + 1})
    scene.deliver().settle()
    scene.until(lambda: scene.number('received') == RECORDS + 1, 'the comparison')
    assert scene.number('differs') == 0 and alarms(scene.daemon) == []


def test_a_start_begins_anew(scene):
    """What an earlier life delivered is not asked for a second time, and is no difference."""
    scene.deliver().settle()
    scene.until(lambda: scene.number('accepted') == RECORDS, 'the comparison')
    assert scene.daemon.stop() == 0
    scene.daemon.start(**scene.clock.variables)
    scene.until(lambda: len(scene.lines('status page and metrics')) == 2, 'the port to be open')
    scene.window = Window(scene.daemon)
    scene.clock.set('+40m')
    scene.until(lambda: scene.number('accepted') == 0, 'the comparison')
    assert scene.number('differs') == 0 and alarms(scene.daemon) == []


def test_sinks_of_one_rule_are_compared_as_one(scene):
    """Only one of them says which rule it is: one asks, and both show it."""
    scene.deliver(scene.sink(), scene.sink('other', dcr_resource_id=None)).settle()
    scene.until(lambda: scene.number('accepted') == 2 * RECORDS, 'the comparison')
    assert scene.number('accepted', 'other') == scene.number('received', 'other') == 2 * RECORDS
    assert scene.number('differs') == scene.number('differs', 'other') == 0


def test_it_can_be_turned_off(scene):
    scene.deliver(scene.sink(dcr_compare='0')).settle()
    asked = len(scene.far_end.requests('arm'))                 # at the start: what the rule declares
    write_activity(scene.logs / 'b.json', 1, seed=2)
    scene.until(lambda: scene.far_end.count() == RECORDS + 1, 'delivery')
    assert scene.daemon.stop() == 0
    assert len(scene.far_end.requests('arm')) == asked <= 1


# ---- It does not ----

@pytest.mark.parametrize('counted, keys, why', [
    ({'RowsReceived_Count': RECORDS - 1}, {'received': RECORDS - 1}, 'fewer rows were received'),
    ({'RowsReceived_Count': 0}, {'received': 0}, 'fewer rows were received'),
    ({'RowsDropped_Count': 3}, {'dropped': 3}, 'a transformation drops rows'),
    ({'ColumnsDroppedCount': 7}, {'columns_dropped': 7}, '"penstock dcr" prints'),
    ({'TransformationErrors_Count': 2}, {'errors': 2}, 'a transformation fails'),
], ids=['a row', 'all rows', 'dropped', 'columns', 'errors'])
def test_a_loss_is_one_alarm_with_the_numbers_and_its_end_is_said(scene, counted, keys, why):
    scene.far_end.rule(counted=counted)
    scene.deliver().settle()
    scene.until(lambda: scene.number('differs') == 1, 'the alarm')
    scene.looks()
    (alarm,) = alarms(scene.daemon)
    expected = {'accepted': RECORDS, 'received': RECORDS, 'dropped': 0, 'columns_dropped': 0, 'errors': 0, **keys}
    assert {key: alarm[key] for key in expected} == expected and why in alarm['why'], alarm
    assert alarm['dcr'] == scene.far_end.address['dcr'] and re.fullmatch(r'\d{4}-\d\d-\d\dT\d\d:\d\d:00Z', alarm['from'])
    assert alarm['from'] < alarm['to']
    assert scene.window.sink('sentinel')['state'] == 'not all arrives'
    assert 'sentinel: NOT ALL ARRIVED' in scene.daemon.command('status', '-c', scene.daemon.config).stdout
    scene.far_end.rule(counted={'RowsReceived_Count': RECORDS, 'RowsDropped_Count': 0, 'ColumnsDroppedCount': 0,
                                'TransformationErrors_Count': 0})
    scene.until(lambda: scene.number('differs') == 0, 'the end of the alarm')
    scene.looks()
    assert scene.daemon.stop() == 0
    assert len(alarms(scene.daemon)) == 1 and len(scene.lines('arrives again')) == 1


def test_another_loss_is_said_too(scene):
    scene.far_end.rule(counted={'RowsDropped_Count': 3})
    scene.deliver().settle()
    scene.until(lambda: len(alarms(scene.daemon)) == 1, 'the alarm')
    scene.far_end.rule(counted={'TransformationErrors_Count': 2})
    scene.until(lambda: len(alarms(scene.daemon)) == 2, 'the other alarm')
    assert 'fails' in alarms(scene.daemon)[1]['why'] and 'drops' in alarms(scene.daemon)[1]['why']


# ---- It cannot be asked ----

def test_without_the_right_it_is_unknown_and_no_alarm(scene):
    scene.far_end.rule(readable=False)
    scene.deliver().settle()
    scene.until(lambda: (scene.number('unknown_ms') or 0) > 0, 'it to be unknown')
    scene.until(lambda: scene.number('unknown_ms') > 2000, 'more looks')
    assert scene.number('accepted') is None and scene.number('differs') is None
    assert 'whether all arrived is not known' in scene.daemon.command('status', '-c', scene.daemon.config).stdout
    (line,) = scene.unknown()
    assert 'Monitoring Reader' in line['why'] and line['dcr'] == scene.far_end.address['dcr']
    scene.far_end.rule(readable=True)
    scene.until(lambda: scene.number('received') == RECORDS, 'the comparison')
    assert scene.number('unknown_ms') == 0 and alarms(scene.daemon) == []


def test_a_far_end_that_is_down_is_unknown_and_no_alarm(scene):
    scene.deliver()
    scene.far_end.down()
    scene.settle()
    scene.until(lambda: len(scene.unknown()) == 1, 'it to be unknown')
    scene.far_end.up()
    scene.until(lambda: scene.number('received') == RECORDS, 'the comparison')
    assert alarms(scene.daemon) == []


@pytest.mark.parametrize('fault', [{'do': 'status', 'status': 503}, {'do': 'status', 'status': 200, 'body': '{"value": 7}'},
                                   {'do': 'status', 'status': 200, 'body': 'none'}, {'do': 'reset-late'}, {'do': 'garbage'}],
                         ids=['503', 'another JSON', 'no JSON', 'reset', 'no HTTP'])
def test_an_answer_that_is_none_is_unknown(scene, fault):
    scene.deliver()
    scene.far_end.fault(where='arm', count=-1, **fault)
    scene.settle()
    scene.until(lambda: len(scene.unknown()) == 1, 'it to be unknown')
    scene.far_end.clear()
    scene.until(lambda: scene.number('received') == RECORDS, 'the comparison')
    assert alarms(scene.daemon) == []


def test_an_alarm_outlives_what_is_unknown(scene):
    scene.far_end.rule(counted={'RowsDropped_Count': 3})
    scene.deliver().settle()
    scene.until(lambda: scene.number('differs') == 1, 'the alarm')
    scene.far_end.rule(readable=False)
    scene.until(lambda: scene.number('unknown_ms') > 0, 'it to be unknown')
    assert scene.number('differs') == 1 and scene.number('dropped') == 3
    scene.far_end.rule(readable=True)
    scene.until(lambda: scene.number('unknown_ms') == 0, 'it to be known')
    assert len(alarms(scene.daemon)) == 1


def test_a_service_that_does_not_count_columns_is_well(scene):
    scene.far_end.rule(counted={'ColumnsDroppedCount': None})
    scene.deliver().settle()
    scene.until(lambda: scene.number('received') == RECORDS, 'the comparison')
    assert scene.number('columns') is None and scene.number('differs') == 0 and alarms(scene.daemon) == []


def test_a_token_that_is_taken_back_is_replaced(scene):
    scene.deliver().settle()
    scene.until(lambda: scene.number('received') == RECORDS, 'the comparison')
    scene.far_end.revoke_tokens()
    scene.until(lambda: len(scene.unknown()) == 1, 'it to be unknown')
    scene.until(lambda: scene.number('unknown_ms') == 0, 'it to be known')
    assert alarms(scene.daemon) == []


def test_data_goes_on_and_the_daemon_stops_while_it_is_asked(scene):
    scene.deliver()
    scene.far_end.fault(where='arm', do='hang', count=-1)
    scene.settle()
    scene.until(lambda: scene.far_end.state()['held'] == 1, 'the question')
    write_activity(scene.logs / 'b.json', 1, seed=2)
    scene.until(lambda: scene.far_end.count() == RECORDS + 1, 'delivery')
    assert scene.daemon.stop() == 0
    scene.far_end.clear()
