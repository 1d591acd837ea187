"""Promise: `penstock check --online` names what a far end would refuse, or lose without a word, before the first record goes;
each finding is one sentence that says what to change. It sends nothing, unless it is told to send a test record."""
import json
import os
import re
import subprocess

import pytest
from penstock import ROOT, binary, wait_until, write_config

WORKSPACE = '/subscriptions/99999999-8888-7777-6666-555555555555/resourceGroups/siem/providers/' \
            'Microsoft.OperationalInsights/workspaces/siem'
TEMPLATE = json.loads((ROOT / 'conf' / 'dcr.json').read_text())
AUDIT = 'Custom-PenstockAudit'


class Scene:
    def __init__(self, tmp_path, far_end):
        self.tmp_path, self.far_end = tmp_path, far_end
        self.rule = far_end.deploy(TEMPLATE, workspaceResourceId=WORKSPACE)['dcrResourceId']
        (tmp_path / 'state').mkdir()

    def check(self, *words, sinks=None, **more):
        keys = {'dcr_resource_id': self.rule, 'management': self.far_end.address['endpoint'], **more}
        conf = write_config(self.tmp_path / 'penstock.conf', ('daemon', {'state_dir': self.tmp_path / 'state'}),
                            ('source a', {'type': 'file', 'path': f'{self.tmp_path}/*.json'}),
                            *(sinks or [self.far_end.sink(**keys)]))
        done = subprocess.run([binary(), 'check', '--online', '-c', conf, *words], capture_output=True, text=True, timeout=120,
                              env={**os.environ, 'NO_PROXY': '127.0.0.1'})
        assert 'hunter' not in done.stdout + done.stderr
        self.found = [re.fullmatch(r'(good|unknown|wrong) +(?:source|sink) (\w+): (.+)', line).groups()
                      for line in done.stdout.splitlines()[:-1]]
        counts = [sum(word == kind for word, _, _ in self.found) for kind in ('good', 'unknown', 'wrong')]
        assert done.stdout.splitlines()[-1] == '# %d good, %d unknown, %d wrong' % tuple(counts), done.stdout
        assert done.returncode == (1 if counts[2] else 0), done.stdout + done.stderr
        return self

    def said(self, word):
        return [sentence for kind, _, sentence in self.found if kind == word]

    def declared(self, change):
        """What is shown as deployed, changed."""
        properties = json.loads(json.dumps(next(part for part in TEMPLATE['resources'] if 'kind' in part)['properties']))
        change(properties)
        self.far_end.rule(properties={'streamDeclarations': properties['streamDeclarations'], 'dataFlows': properties['dataFlows']})


@pytest.fixture
def scene(tmp_path, penstock, far_end):
    return Scene(tmp_path, far_end)


def columns(properties, stream=AUDIT):
    return properties['streamDeclarations'][stream]['columns']


# ---- What is well ----

def test_all_is_well_and_nothing_was_sent(scene):
    scene.check()
    assert scene.said('wrong') == []
    assert scene.said('unknown') == ['whether the app may write there shows when something is sent: --send-test-record sends one '
                                     'marked record']
    good = scene.said('good')
    assert 'Entra gives a token' in good and 'the endpoint answers' in good and 'its spool can be written to' in good
    assert sum(sentence.startswith('stream Custom-Penstock') for sentence in good) == 4
    assert scene.far_end.requests('ingest') == [] and scene.far_end.count() == 0


@pytest.mark.parametrize('events, stream', [('', 'Custom-PenstockUnknown'), ('audit, alert', AUDIT),
                                            ('alert', 'Custom-PenstockAlert'), ('network', 'Custom-PenstockNetworkSession')])
def test_a_test_record_is_sent_where_it_was_asked_for(scene, events, stream):
    scene.check('--send-test-record', events=events or None)
    assert scene.said('wrong') == [] and scene.said('unknown') == []
    (row,) = scene.far_end.rows()
    assert scene.far_end.count(stream) == 1 and scene.far_end.violations() == []
    assert 'test record' in json.dumps(row) and row['EventVendor'] == 'Penstock'


def test_what_the_rule_has_counted_is_told(scene):
    scene.check('--send-test-record')
    assert 'in the last hour the DCR received 1 rows, and lost nothing that it knows of' in scene.check().said('good')
    scene.far_end.rule(counted={'ColumnsDroppedCount': None})    # a service that does not know this one yet
    assert any(said.startswith('in the last hour the DCR received 1 rows') for said in scene.check().said('good'))


@pytest.mark.parametrize('counted, word, sentence', [
    ({'TransformationErrors_Count': 3}, 'wrong', "the DCR's transformation failed 3 times"),
    ({'ColumnsDroppedCount': 7}, 'wrong', 'the DCR dropped 7 values whose columns it does not know'),
    ({'RowsReceived_Count': 10, 'RowsDropped_Count': 2}, 'unknown', 'the DCR dropped 2 of 10 rows'),
])
def test_what_the_rule_has_lost_is_named(scene, counted, word, sentence):
    scene.far_end.rule(counted=counted)
    scene.check()
    assert any(said.startswith('in the last hour ' + sentence) for said in scene.said(word)), scene.found
    assert not any('lost nothing' in said for said in scene.said('good'))


# ---- What is wrong ----

@pytest.mark.parametrize('change, sentence', [
    (lambda p: columns(p).remove({'name': 'Operation', 'type': 'string'}),
     r"the DCR's stream Custom-PenstockAudit does not declare 1 of the columns that are sent, .*: Operation \(string\); deploy"),
    (lambda p: columns(p).clear(), r'does not declare \d\d\d? of the columns .* and \d+ more; deploy'),
    (lambda p: columns(p)[0].update(type='string'),
     r'declares 1 of the columns with another type, .*: TimeGenerated is string and should be datetime; deploy'),
    (lambda p: p['streamDeclarations'].pop(AUDIT), r'the DCR has no stream Custom-PenstockAudit, so posts to it are refused'),
    (lambda p: p['dataFlows'].pop(1), r'no data flow of the DCR takes the stream Custom-PenstockAudit'),
])
def test_what_would_be_lost_is_named(scene, change, sentence):
    scene.declared(change)
    (wrong,) = scene.check().said('wrong')
    assert re.search(sentence, wrong), wrong


@pytest.mark.parametrize('change, sentence', [
    (lambda p: p['dataFlows'][1].update(outputStream='Custom-Mine_CL'),
     'the DCR sends the stream Custom-PenstockAudit to Custom-Mine_CL, and not to Microsoft-ASimAuditEventLogs'),
    (lambda p: p['dataFlows'][1].update(transformKql='source | where true'),
     'the DCR has a transformation of its own for the stream Custom-PenstockAudit'),
    (lambda p: p['dataFlows'][1].update(transform=[]), 'the DCR has a transformation of its own'),
])
def test_what_cannot_be_judged_is_said(scene, change, sentence):
    scene.declared(change)
    scene.check()
    assert scene.said('wrong') == []
    assert any(said.startswith(sentence) for said in scene.said('unknown')), scene.found


def test_only_what_the_sink_sends_is_compared(scene):
    scene.declared(lambda properties: properties['streamDeclarations'].pop(AUDIT))
    assert scene.check(events='network, alert, unknown').said('wrong') == []


def test_columns_that_are_too_many_do_not_matter(scene):
    scene.declared(lambda properties: columns(properties).append({'name': 'Mine', 'type': 'string'}))
    assert scene.check().said('wrong') == []


def test_another_rule_is_noticed(scene):
    scene.far_end.rule(properties={'immutableId': 'dcr-' + 'f' * 32})
    (wrong,) = scene.check().said('wrong')
    assert wrong.startswith('dcr_resource_id names the rule dcr-ffff')


@pytest.mark.parametrize('properties', [{'streamDeclarations': 7, 'dataFlows': 'x'}, {'streamDeclarations': {AUDIT: []}},
                                        {'dataFlows': [{'streams': [1, None, {}]}, 5]}, {'immutableId': ['x']}])
def test_an_odd_answer_is_survived(scene, properties):
    scene.far_end.rule(properties=properties)
    scene.check()


def test_without_the_right_to_read_it_says_what_was_not_checked(scene):
    scene.far_end.rule(readable=False)
    scene.check()
    assert scene.said('wrong') == []
    assert any('may not read the rule (status 403); give it the role Monitoring Reader' in said for said in scene.said('unknown'))
    scene.check(dcr_resource_id=None)
    assert any('set "dcr_resource_id", and give the app the role' in said for said in scene.said('unknown'))


def test_a_management_that_is_not_there_is_no_right_that_is_missing(scene):
    said = scene.check(management='https://127.0.0.1:9').said('unknown')
    assert sum('https://127.0.0.1:9 did not answer' in one for one in said) == 2
    assert not any('Monitoring Reader' in one for one in said)


def test_a_rule_that_is_not_there(scene):
    (wrong,) = scene.check(dcr_resource_id=scene.rule + 'x').said('wrong')
    assert wrong.startswith('there is no DCR under "dcr_resource_id"')


def test_a_wrong_secret(scene):
    scene.far_end.rotate_secret(write=False)
    (wrong,) = scene.check('--send-test-record').said('wrong')
    assert 'AADSTS7000215' in wrong
    assert any('without a token for' in said for said in scene.said('unknown'))


def test_nobody_is_there(scene):
    scene.far_end.down()
    assert any('the endpoint cannot be reached' in said for said in scene.check().said('wrong'))


def test_a_role_that_is_missing_shows_with_the_test_record(scene):
    scene.far_end.settings(granted=False)
    (wrong,) = scene.check('--send-test-record').said('wrong')
    assert wrong.startswith('the test record was not taken: status 403') and 'Monitoring Metrics Publisher' in wrong


def test_a_spool_that_cannot_be_written(scene):
    """As root every folder can be: so one that is none."""
    (scene.tmp_path / 'state' / 'spool').mkdir()
    (scene.tmp_path / 'state' / 'spool' / 'sentinel').write_text('')
    (wrong,) = scene.check().said('wrong')
    assert 'cannot write to' in wrong and '/spool/sentinel: ' in wrong


def test_the_daemon_says_it_at_its_start(scene, penstock, far_end):
    """A warning, and what can be delivered is."""
    scene.declared(lambda properties: columns(properties).remove({'name': 'Operation', 'type': 'string'}))
    logs = scene.tmp_path / 'logs'
    logs.mkdir()
    (logs / 'one.json').write_text('{"any": "record"}\n')
    sections = (('source a', {'type': 'file', 'path': f'{logs}/*.json'}),
                far_end.sink(dcr_resource_id=scene.rule, management=far_end.address['endpoint']))
    daemon = penstock(*sections).start()
    wait_until(lambda: far_end.count() == 1, daemon=daemon)
    wait_until(lambda: 'Operation (string)' in daemon.log.read_text(), daemon=daemon)
    assert daemon.stop() == 0
    (line,) = [line for line in daemon.log.read_text().splitlines() if 'does not declare' in line]
    assert 'sink=sentinel' in line and 'warning' in line or '<4>' in line, line


def test_a_daemon_that_cannot_look_says_so_once(scene, penstock, far_end):
    """And holds no line to those that it will not ask again."""
    far_end.rotate_secret(write=False)
    daemon = penstock(('source a', {'type': 'file', 'path': f'{scene.tmp_path}/*.none'}),
                      far_end.sink(dcr_resource_id=scene.rule, management=far_end.address['endpoint'])).start()
    wait_until(lambda: 'without a token for' in daemon.log.read_text(), daemon=daemon)
    wait_until(lambda: far_end.state()['lines'] == 0, daemon=daemon)
    assert daemon.stop() == 0
    assert daemon.log.read_text().count('were not checked') == 1


def test_a_daemon_stops_while_it_looks(scene, penstock, far_end):
    far_end.fault(where='token', do='hang', count=-1)
    daemon = penstock(('source a', {'type': 'file', 'path': f'{scene.tmp_path}/*.none'}),
                      far_end.sink(dcr_resource_id=scene.rule, management=far_end.address['endpoint'])).start()
    wait_until(lambda: far_end.state()['held'] == 1, daemon=daemon)
    assert daemon.stop() == 0
    far_end.clear()


def test_a_test_record_wants_online(scene):
    done = subprocess.run([binary(), 'check', '--send-test-record'], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith('Usage: penstock check')
