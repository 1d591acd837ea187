"""`penstock check` as a user meets it: mistakes with file and line and exit 2; the effective configuration, sums and
warnings with exit 0. The annotated example is accepted."""
import os
import pathlib
import re
import subprocess

import pytest
from penstock import ROOT, Penstock, binary, wait_until, write_config


def penstock(*args, **env):
    env = {name: value for name, value in os.environ.items() if name != 'CREDENTIALS_DIRECTORY'} | env
    return subprocess.run([binary(), *map(str, args)], capture_output=True, text=True, timeout=30, env=env, check=False)


@pytest.fixture
def example(tmp_path):
    """conf/penstock.conf, with what it names brought into being below tmp_path; returns file and environment."""
    text = (ROOT / 'conf' / 'penstock.conf').read_text()
    credentials = tmp_path / 'credentials'
    for folder in ('state', 'credentials', 'azure/insights-activity-logs', 'azure/insights-logs-flowlogflowevent',
                   'azure/defender'):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / 'azure/defender/one.json').write_text('{}\n')
    (credentials / 'sentinel').write_text('hunter2\n')
    (credentials / 'sentinel').chmod(0o600)
    text = text.replace('/var/lib/penstock', str(tmp_path / 'state')).replace('/srv/azure', str(tmp_path / 'azure'))
    file = tmp_path / 'penstock.conf'
    file.write_text(re.sub(r'^#spool_max = 4G$', 'spool_max = 2M', text, flags=re.M))
    return file, {'CREDENTIALS_DIRECTORY': str(credentials)}


def known_keys(*keys):
    """Whether the plugins of this build know their rows yet."""
    return all(f'.B {key}\n' in penstock('version', '--options').stdout for key in keys)


needs_rows = pytest.mark.skipif(not known_keys('path', 'dcr', 'brokers'), reason='a plugin of the example is not built in')


@needs_rows
def test_example_is_accepted(example):
    file, env = example
    checked = penstock('check', '-c', file, **env)
    assert checked.returncode == 0, checked.stderr
    lines = checked.stdout.splitlines()
    assert '# memory = 64M' not in lines and 'memory = 64M' in lines    # set in the file, if only to the default
    assert '# flush = 2s' in lines                                    # not set
    assert f'secret_file = {env["CREDENTIALS_DIRECTORY"]}/sentinel' in lines
    assert 'hunter2' not in checked.stdout + checked.stderr
    assert '# memory: 64M budget + 16M program = 80M resident at most' in lines


@needs_rows
def test_what_is_printed_reads_back_the_same(example, tmp_path):
    file, env = example
    first = penstock('check', '-c', file, **env)
    again = tmp_path / 'again.conf'
    again.write_text(first.stdout)
    assert penstock('check', '-c', again, **env).stdout == first.stdout


@needs_rows
def test_warnings_name_what_stands_in_the_way(example, tmp_path):
    file, env = example
    secret = pathlib.Path(env['CREDENTIALS_DIRECTORY'], 'sentinel')
    (tmp_path / 'azure/defender/one.json').unlink()
    (tmp_path / 'azure/insights-activity-logs').rmdir()
    secret.unlink()
    (tmp_path / 'state').rmdir()
    checked = penstock('check', '-c', file, **env)
    assert checked.returncode == 0
    warnings = [re.sub(r'^.*?:(\d+): warning: ', '', line) for line in checked.stderr.splitlines()]
    assert len(warnings) == 4, warnings
    for part in (f'cannot write to {tmp_path}/state', f'nothing matches {tmp_path}/azure/defender/*.json yet',
                 f'cannot read the folder {tmp_path}/azure/insights-activity-logs/', f'cannot open the secret in {secret}'):
        assert any(part in warning for warning in warnings), (part, warnings)


@needs_rows
def test_patterns_are_proved_as_the_source_reads_them(tmp_path):
    (tmp_path / 'a b').mkdir()
    file = tmp_path / 'paths.conf'
    file.write_text(f'[daemon]\nstate_dir = {tmp_path}\n[source a]\ntype = file\npath = {tmp_path}/a b/**/x.json, rel/x.json\n'
                    '[sink k]\ntype = kafka\nbrokers = localhost:9\ntopic = t\nspool_max = 2M\n')
    checked = penstock('check', '-c', file)
    assert (checked.returncode, checked.stdout) == (2, '')
    assert checked.stderr.startswith(f'{file}:5: ') and 'rel/x.json' in checked.stderr
    file.write_text(file.read_text().replace(', rel/x.json', ''))
    checked = penstock('check', '-c', file)
    assert (checked.returncode, checked.stderr) == (0, '')
    file.write_text(file.read_text().replace('/a b/**/x.json', '/a b'))
    assert f'{file}:5: warning: {tmp_path}/a b is a folder' in penstock('check', '-c', file).stderr


# A sink whose rows are all right one by one, and one of which is wrong nevertheless: on its fourth line.
SENTINEL = '[sink s]\ntype = sentinel\n{}tenant = acme.example\nsecret_file = /nowhere/secret\n'
FAULTS_OF_SINKS = [
    (SENTINEL, {'endpoint': 'https://x.example', 'dcr': 'penstock-dcr'}, "the DCR's immutable id, not its name"),
    (SENTINEL, {'dcr': 'dcr-' + '0' * 32, 'endpoint': 'https://x.example/dataCollectionRules/x'}, 'https://HOST alone'),
    (SENTINEL, {'endpoint': 'https://x.example', 'client': 'penstock'}, "the application's id, a GUID"),
    ('[sink s]\ntype = kafka\n{}', {'brokers': 'a:1', 'kafka.compresion.codec': 'lz4'}, 'No such configuration property'),
    ('[sink s]\ntype = kafka\n{}', {'brokers': 'a:1', 'kafka.acks': '1'}, 'must be all'),
]


@needs_rows
@pytest.mark.parametrize('command', ['check', 'run', 'replay'])
@pytest.mark.parametrize('sink, keys, part', FAULTS_OF_SINKS)
def test_what_a_sink_finds_wrong_has_its_line(tmp_path, command, sink, keys, part):
    """Before anything is opened: a daemon that only fails when it starts would be started again and again."""
    file = tmp_path / 'sink.conf'
    whole = {'topic': 't'} if 'kafka' in sink else {'dcr': 'dcr-' + '0' * 32, 'client': '0' * 8 + '-0000-0000-0000-' + '0' * 12}
    rest = {key: value for key, value in whole.items() if key not in keys}
    text = sink.format(''.join(f'{key} = {value}\n' for key, value in {**keys, **rest}.items()))
    file.write_text(f'{text}[source a]\ntype = file\npath = {tmp_path}/x\n[daemon]\nstate_dir = {tmp_path}/state\n')
    done = penstock(command, '-c', file, *([file] if command == 'replay' else []))
    assert done.returncode == 2
    assert re.match(rf'{file}:4: .*{part}', done.stderr), done.stderr
    assert not (tmp_path / 'state').exists()


def test_output_that_does_not_arrive_is_a_failure():
    with open('/dev/full', 'w') as full:
        assert subprocess.run([binary(), 'version'], stdout=full, stderr=subprocess.DEVNULL, check=False).returncode == 1


def test_every_mistake_has_its_line(tmp_path):
    file = tmp_path / 'bad.conf'
    file.write_text('[daemon]\nmemroy = 64M\nlog_level = warn\nnonsense\n\n[sorce a]\ntype = file\n[sink s]\ntype = sentinal\n')
    checked = penstock('check', '-c', file)
    assert checked.returncode == 2
    assert checked.stdout == ''
    assert checked.stderr.splitlines() == [
        f'{file}:4: expected a [section], a comment or "key = value"',
        f'{file}:6: expected [daemon], [source NAME] or [sink NAME]; did you mean "source"?',
        f'{file}:2: unknown key "memroy" in [daemon]; did you mean "memory"?',
        f'{file}:3: "log_level": expected one of error, warning, info, debug, found "warn"; did you mean "warning"?',
        f'{file}:9: "type": expected a known type, found "sentinal"; did you mean "sentinel"?',
        f'{file}:1: expected at least one [source NAME]: there is nothing to read',
        f'penstock check: 6 mistakes in {file}',
    ]


def test_values_of_the_environment_are_never_shown(tmp_path):
    file = tmp_path / 'bad.conf'
    file.write_text('[daemon]\nmemory = ${PEN_SECRET}\nlog_level = ${PEN_SECRET}\n')
    checked = penstock('check', '-c', file, PEN_SECRET='hunter2')
    assert checked.returncode == 2
    assert 'found "${PEN_SECRET}"' in checked.stderr
    assert 'hunter2' not in checked.stdout + checked.stderr


def test_a_mistake_is_told_once(tmp_path):
    """A value that could not be read is not missing as well."""
    file = tmp_path / 'bad.conf'
    write_config(file, ('source a', {'type': 'file', 'path': '/srv/*.json'}),
                 ('sink s', {'type': 'sentinel', 'endpoint': 'https://a.example', 'dcr': 'dcr-' + 32 * '0',
                             'tenant': '00000000-0000-0000-0000-000000000000',
                             'client': '00000000-0000-0000-0000-000000000000', 'secret_file': '${PEN_NOWHERE}/s'}))
    checked = penstock('check', '-c', file)
    assert checked.stderr == f'{file}:11: the environment variable PEN_NOWHERE is not set\n' \
                             f'penstock check: 1 mistake in {file}\n'


def test_file_that_is_not_there():
    checked = penstock('check', '-c', '/nowhere/penstock.conf')
    assert checked.returncode == 2
    assert checked.stderr == 'penstock check: cannot open /nowhere/penstock.conf: No such file or directory\n'


@pytest.mark.parametrize('args, status, part', [
    ((), 2, 'Usage: penstock'),
    (('--help',), 0, 'Usage: penstock'),
    (('help',), 0, 'Usage: penstock'),
    (('help', 'check'), 0, 'Usage: penstock check'),
    (('check', '--help'), 0, 'Usage: penstock check'),
    (('version', '--help'), 0, 'Usage: penstock version'),
    (('--version',), 0, 'penstock '),
    (('version',), 0, 'penstock '),
    (('chek',), 2, 'did you mean "check"?'),
    (('frobnicate',), 2, 'unknown command'),
    (('check', '--nonsense'), 2, 'Usage: penstock check'),
    (('check', 'stray'), 2, 'Usage: penstock check'),
])
def test_commands(args, status, part):
    result = penstock(*args)
    assert result.returncode == status
    assert part in (result.stdout if status == 0 else result.stderr)


@needs_rows
def test_daemon_says_that_it_finds_nothing(tmp_path):
    """A path with a mistake in it looks like one whose logs are still to come: one line tells of either."""
    daemon = Penstock(tmp_path, ('source a', {'type': 'file', 'path': f'{tmp_path}/lgos/*.json'}),
                      ('sink k', {'type': 'kafka', 'brokers': '127.0.0.1:9', 'topic': 't'}))
    daemon.start()
    try:
        wait_until(lambda: 'source=a msg="no file matches' in daemon.log_text(), 10, 'the line', daemon)
        assert daemon.stop() == 0
    finally:
        daemon.kill()
