"""Alert rules and dashboard: they are well formed, ask for what is there, and wake people when they should."""
import json
import re

from penstock import ROOT


def test_alerts_and_dashboard_name_metrics_that_exist(promtool):
    conf = ROOT / 'conf'
    known = set(re.findall(r'^\| `(\w+)`', (conf / 'metrics.md').read_text(), re.M)) | {'up'}
    checked = promtool('check', 'rules', conf / 'alerts.yml')
    assert checked.returncode == 0, checked.stdout + checked.stderr
    queries = re.findall(r'^        expr: (.*(?:\n          .*)*)', (conf / 'alerts.yml').read_text(), re.M)
    dashboard = json.loads((conf / 'grafana.json').read_text())
    panels = [panel for panel in dashboard['panels'] if panel['type'] != 'row']
    queries += [target['expr'] for panel in panels for target in panel['targets']]
    assert len(queries) > 25 and all(panel['targets'] for panel in panels)
    used = {name for query in queries for name in re.findall(r'\b(?:penstock|process)_\w+|\bup\b', query)}
    assert used - known == set() and len(used) > 20
    assert len({panel['id'] for panel in dashboard['panels']}) == len(dashboard['panels'])


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
      - { series: 'penstock_messages_dead_total{instance="a",sink="siem",source="logs"}', values: '0x50 3x10' }
    alert_rule_test:
      - { eval_time: 3m, alertname: PenstockNotReady }
      - { eval_time: 10m, alertname: PenstockNotReady, exp_alerts: [{ exp_labels: { severity: page, instance: b } ,
          exp_annotations: { summary: "Data stands still in Penstock on b", description: "`penstock status` or /readyz says which source or sink, and since when." } }] }
      - { eval_time: 5m, alertname: PenstockSinkRefused }
      - { eval_time: 40m, alertname: PenstockDeadLetters }
    promql_expr_test:
      - { expr: 'count by (sink) (ALERTS{alertname="PenstockSinkRefused",alertstate="firing"})', eval_time: 20m,
          exp_samples: [{ labels: '{sink="siem"}', value: 1 }] }
      - { expr: 'count by (sink) (ALERTS{alertname="PenstockSpoolFillsUp",alertstate="firing"})', eval_time: 50m,
          exp_samples: [{ labels: '{sink="slow"}', value: 1 }] }
      - { expr: 'count by (sink) (ALERTS{alertname="PenstockDeadLetters",alertstate="firing"})', eval_time: 55m,
          exp_samples: [{ labels: '{sink="siem"}', value: 1 }] }
''')
    tested = promtool('test', 'rules', 'test.yml', cwd=tmp_path)
    assert tested.returncode == 0, tested.stdout + tested.stderr
