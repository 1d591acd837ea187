"""Alert rules and dashboard: they are well formed, ask for what is there, and wake people when they should."""
import json
import re
import subprocess
import urllib.parse
import urllib.request

import pytest

import prometheus
from kafka import at_hand
from penstock import ROOT, environment, wait_until
from ports import Port
from records import write_activity
from window import Window


class Prometheus:
    """The server itself, over one daemon and our rules."""

    def __init__(self, program, folder, target):
        self.held = Port()
        self.address = f'127.0.0.1:{self.held.number}'
        (folder / 'prometheus.yml').write_text(f'''
global: {{ scrape_interval: 1s, evaluation_interval: 1s }}
rule_files: [{ROOT / 'conf' / 'alerts.yml'}]
scrape_configs: [{{ job_name: penstock, static_configs: [{{ targets: ['{target}'] }}] }}]
''')
        self.log = open(folder / 'prometheus.log', 'w')
        self.process = subprocess.Popen(
            [program, f'--config.file={folder}/prometheus.yml', f'--storage.tsdb.path={folder}/tsdb',
             f'--web.listen-address={self.address}'], stdout=self.log, stderr=self.log, env=environment())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(30)
        self.held.release()
        self.log.close()

    def ask(self, path, **query):
        url = f'http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(query)}'
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=30) as answer:
            return json.load(answer)['data']

    def is_up(self):
        assert self.process.poll() is None, open(self.log.name).read()[-2000:]
        try:
            return [target['health'] for target in self.ask('targets')['activeTargets']] == ['up']
        except OSError:
            return False


def dashboard_queries():
    dashboard = json.loads((ROOT / 'conf' / 'grafana.json').read_text())
    return [target['expr'] for panel in dashboard['panels'] if panel['type'] != 'row' for target in panel['targets']]


def test_alerts_and_dashboard_name_metrics_that_exist(promtool):
    conf = ROOT / 'conf'
    known = set(re.findall(r'^\| `(\w+)`', (conf / 'metrics.md').read_text(), re.M)) | {'up'}
    checked = promtool('check', 'rules', conf / 'alerts.yml')
    assert checked.returncode == 0, checked.stdout + checked.stderr
    queries = re.findall(r'^        expr: (.*(?:\n          .*)*)', (conf / 'alerts.yml').read_text(), re.M)
    queries += dashboard_queries()
    assert len(queries) > 25
    used = {name for query in queries for name in re.findall(r'\b(?:penstock|process)_\w+|\bup\b', query)}
    assert used - known == set() and len(used) > 20
    panels = json.loads((conf / 'grafana.json').read_text())['panels']
    assert len({panel['id'] for panel in panels}) == len(panels)


def test_alerts_fire_when_they_should(tmp_path, promtool):
    """promtool runs them over an hour of numbers: the sink that is refused, the spool that fills up, and silence otherwise."""
    (tmp_path / 'alerts.yml').write_text((ROOT / 'conf' / 'alerts.yml').read_text())
    (tmp_path / 'test.yml').write_text('''
rule_files: [alerts.yml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - { series: 'penstock_ready{instance="a"}', values: '1x60' }
      - { series: 'penstock_ready{instance="b"}', values: '0x60' }
      - { series: 'penstock_sink_refused{instance="b",sink="siem"}', values: '1x60' }
      - { series: 'penstock_sink_refused{instance="a",sink="siem"}', values: '0x60' }
      - { series: 'penstock_spool_bytes{instance="a",sink="slow"}', values: '0+1e6x60' }
      - { series: 'penstock_spool_max_bytes{instance="a",sink="slow"}', values: '2e8x60' }
      - { series: 'penstock_spool_bytes{instance="a",sink="fine"}', values: '0x60' }
      - { series: 'penstock_spool_max_bytes{instance="a",sink="fine"}', values: '2e8x60' }
      - { series: 'penstock_arrival_differs{instance="a",sink="fine"}', values: '0x60' }
      - { series: 'penstock_arrival_differs{instance="a",sink="slow"}', values: '0x30 1x30' }
      - { series: 'penstock_config_last_reload_successful{instance="a"}', values: '1x30 0x30' }
      - { series: 'penstock_messages_dead_total{instance="a",sink="siem",source="logs"}', values: '0x50 3x10' }
    alert_rule_test:
      - { eval_time: 3m, alertname: PenstockNotReady }
      - { eval_time: 10m, alertname: PenstockNotReady, exp_alerts: [{ exp_labels: { severity: page, instance: b } ,
          exp_annotations: { summary: "Data stands still in Penstock on b", description: "`penstock status` or /readyz says which source or sink, and since when." } }] }
      - { eval_time: 5m, alertname: PenstockSinkRefused }
      - { eval_time: 40m, alertname: PenstockDeadLetters }
      - { eval_time: 30m, alertname: PenstockReloadFailed }
    promql_expr_test:
      - { expr: 'count by (sink) (ALERTS{alertname="PenstockSinkRefused",alertstate="firing"})', eval_time: 20m,
          exp_samples: [{ labels: '{sink="siem"}', value: 1 }] }
      - { expr: 'count by (sink) (ALERTS{alertname="PenstockSpoolFillsUp",alertstate="firing"})', eval_time: 50m,
          exp_samples: [{ labels: '{sink="slow"}', value: 1 }] }
      - { expr: 'count by (sink) (ALERTS{alertname="PenstockNotAllArrives",alertstate="firing"})', eval_time: 50m,
          exp_samples: [{ labels: '{sink="slow"}', value: 1 }] }
      - { expr: 'count by (instance) (ALERTS{alertname="PenstockReloadFailed",alertstate="firing"})', eval_time: 50m,
          exp_samples: [{ labels: '{instance="a"}', value: 1 }] }
      - { expr: 'count by (sink) (ALERTS{alertname="PenstockDeadLetters",alertstate="firing"})', eval_time: 55m,
          exp_samples: [{ labels: '{sink="siem"}', value: 1 }] }
''')
    tested = promtool('test', 'rules', 'test.yml', cwd=tmp_path)
    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.plain
def test_a_prometheus_scrapes_it_and_every_panel_shows_something(tmp_path, far_end, penstock):
    """The real server: the daemon is up, no rule is broken, none fires, and the dashboard's queries find what they ask for."""
    with at_hand():
        program = prometheus.path('prometheus')
    (tmp_path / 'logs').mkdir()
    write_activity(tmp_path / 'logs' / 'a.json', 200, seed=1)
    daemon = penstock(('source logs', {'type': 'file', 'path': f'{tmp_path}/logs/*.json'}), far_end.sink(flush='100ms', retry_min='50ms'),
                      listen='127.0.0.1:0')
    far_end.fault(do='status', status=503, count=1)              # else there is no answer but "delivered" to show
    window = Window(daemon.start())
    with Prometheus(program, tmp_path, f'127.0.0.1:{window.port}') as server:
        wait_until(server.is_up, 60, 'a scrape', daemon)
        read = 'penstock_messages_delivered_total{source="logs",sink="sentinel",job="penstock"}'
        wait_until(lambda: [found['value'][1] for found in server.ask('query', query=read)['result']] == ['200'], 60, '200 delivered', daemon)
        rules = wait_until(lambda: (found := server.ask('rules')['groups'][0]['rules']) and
                           all(rule['health'] != 'unknown' for rule in found) and found, 60, 'the rules to be tried', daemon)
        assert [rule['name'] for rule in rules if rule['health'] != 'ok' or rule['state'] != 'inactive'] == []
        for query in dashboard_queries():
            if 'behind_messages' in query:                       # of queues, and there is none
                continue
            asked = query.replace('$instance', '.*').replace('$__rate_interval', '1m')
            wait_until(lambda asked=asked: server.ask('query', query=asked)['result'], 60, asked, daemon)
