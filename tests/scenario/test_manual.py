"""The manual pages and shell completions say what the program says of itself."""
import os
import pty
import re
import select
import shutil
import signal
import subprocess

import pytest
from penstock import ROOT, binary

UPDATE = ROOT / 'conf' / 'manual-update'
PAGES = ('penstock.1', 'penstock.conf.5', 'penstock-parser.3')
COMPLETION = ROOT / 'conf' / 'completion'


def run(*words, **more):
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=120, check=False, **more)


def helps():
    """The --help of every command, by its name."""
    names = re.findall(r'^  ([a-z]+) {2,}', run(binary(), 'help').stdout, re.M)
    return {name: run(binary(), name, '--help').stdout for name in names if name != 'help'}


def test_pages_and_completions_are_up_to_date():
    due = run('/usr/bin/python3', UPDATE, '--check', binary())
    assert due.returncode == 0, due.stderr


def test_a_word_of_help_that_changes_would_be_seen(tmp_path):
    """A program with another option in one command's help: everything made of it is due, and nothing was written."""
    other = tmp_path / 'penstock'
    other.write_text(f'#!/bin/sh\n{binary()} "$@" | sed "s/--parser NAME/--reader NAME/"\n')
    other.chmod(0o755)
    due = run('/usr/bin/python3', UPDATE, '--check', other)
    assert due.returncode == 1
    assert 'penstock.1, penstock.bash, _penstock, penstock.fish' in due.stderr
    test_pages_and_completions_are_up_to_date()


@pytest.mark.parametrize('command', helps())
def test_every_option_in_the_help_is_known(command):
    options = re.findall(r'^  (?:(-\w), |    )(--[a-z-]+)( [A-Z]+)?  ', helps()[command], re.M)
    for letter, name, value in options:
        for option in filter(None, (letter, name)):
            answer = run(binary(), command, option, *['4K'] * bool(value), '--help')
            assert (answer.returncode, answer.stdout[:6]) == (0, 'Usage:'), f'{command} {option}: {answer.stderr}'


@pytest.mark.parametrize('page', PAGES)
def test_pages_are_sound(page):
    """groff has no complaint, and man knows name and purpose."""
    shown = run('man', '--warnings', '-E', 'UTF-8', '-l', '-Tutf8', '-Z', ROOT / 'conf' / page)
    assert (shown.returncode, shown.stderr) == (0, '')
    found = run('lexgrog', ROOT / 'conf' / page)
    assert re.search(r'"penstock[\w.-]* - .+"', found.stdout), found.stdout + found.stderr


def test_page_of_the_parser_has_every_function():
    page = (ROOT / 'conf' / 'penstock-parser.3').read_text()
    functions = set(re.findall(r'\b(pen_\w+)\(', (ROOT / 'parsers' / 'parser.h').read_text()))
    assert len(functions) > 40
    assert {name for name in functions if name + '(' not in page} == set()


# What a user has typed, the last word unfinished, and what may follow; `files` are those of an example folder.
CASES = [
    (['ru'], {'run'}),
    (['dead', ''], {'list', 'show', 'resend', 'drop'}),
    (['dead', 'list', '--s'], {'--state-dir'}),
    (['spool', 'ch'], {'check'}),
    (['spool', 'check', '--on'], set()),                  # an option of `penstock check`, which this is not
    (['check', '--on'], {'--online'}),
    (['run', '--config', 'on'], {'one.conf'}),
    (['replay', 'on'], {'one.conf'}),
    (['replay', '--sink', 'on'], set()),
    (['parse', '--plugin-dir', 'on'], {'one.d/'}),
    (['help', 'rep'], {'replay'}),
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'one.conf').touch()
    (tmp_path / 'one.d').mkdir()
    return tmp_path


@pytest.mark.parametrize('words, follow', CASES, ids=lambda value: ' '.join(value) if isinstance(value, list) else '')
def test_bash_completes(folder, words, follow):
    """As readline asks: the words, and the function; where it found nothing and says `default`, files."""
    script = f'''
        compopt() {{ kind=$2; }}
        source {COMPLETION / 'penstock.bash'}
        COMP_WORDS=(penstock {' '.join(word or "''" for word in words)}); COMP_CWORD={len(words)}; kind=
        _penstock || true
        printf '%s\\n' "${{COMPREPLY[@]}}"
        [ "$kind" != default ] || compgen -f -- {words[-1] or "''"}
        [ "$kind" != dirnames ] || compgen -d -S / -- {words[-1] or "''"}
    '''
    done = run('bash', '-c', script, cwd=folder)
    assert done.stderr == ''
    found = set(done.stdout.split())
    assert (found - {'one.d'} if 'one.conf' in found else found) == follow


@pytest.mark.skipif(shutil.which('fish') is None, reason='fish is not installed')
@pytest.mark.parametrize('words, follow', CASES, ids=lambda value: ' '.join(value) if isinstance(value, list) else '')
def test_fish_completes(folder, words, follow):
    line = ' '.join(['penstock', *words])
    done = run('fish', '--no-config', '-c', f"source {COMPLETION / 'penstock.fish'}; complete -C '{line}'", cwd=folder)
    assert done.stderr == ''
    found = {line.split('\t')[0] for line in done.stdout.splitlines()}
    assert (found - {'one.d/'} if 'one.conf' in found else found) == follow


@pytest.mark.skipif(shutil.which('zsh') is None, reason='zsh is not installed')
@pytest.mark.parametrize('words, follow', [(words, follow) for words, follow in CASES if follow and not words[-1].startswith('on')],
                         ids=lambda value: ' '.join(value) if isinstance(value, list) else '')
def test_zsh_completes(folder, words, follow):
    """At a terminal, since nothing else makes zsh complete: it lists what may follow, or puts in what alone does."""
    setup = f'PS1=; unsetopt prompt_sp; unset zle_bracketed_paste; fpath=({COMPLETION} $fpath); autoload -Uz compinit; ' \
            f'compinit -u -D; zstyle ":completion:*" verbose no; setopt nobeep no_auto_menu; echo READY-$((1 + 1))\n'
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execvpe('zsh', ['zsh', '-f', '-i'], {'PATH': os.environ['PATH'], 'TERM': 'dumb', 'COLUMNS': '300', 'HOME': str(folder)})
    try:
        os.write(terminal, setup.encode())
        read_until(terminal, 'READY-2')
        # What is on the line then is run as a command of ours, which says so: all that was listed has come by then.
        os.write(terminal, f'penstock() {{ print -r "RUN-$((1 + 1)) $*"; }}\npenstock {" ".join(words)}\t\n'.encode())
        said = read_until(terminal, r'RUN-2 .*\n')
    finally:
        os.close(terminal)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    shown = set(re.split(r'[\s\x07]+', said))
    assert follow <= shown, said
    assert not shown & ({'list', 'check', 'run', '--online', '--config'} - follow - set(words)), said


def read_until(terminal, pattern):
    said = ''
    while not re.search(pattern, said):
        ready, _, _ = select.select([terminal], [], [], 60)
        assert ready, f'no {pattern} in {said!r}'
        said += os.read(terminal, 65536).decode(errors='replace')
    return said
