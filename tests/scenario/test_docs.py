"""README.md and docs/ are true: every link has its end, every configuration passes `penstock check`, every command and option exists,
and the page of messages has all that the log can say."""
import os
import re
import subprocess

import pytest
from messages import messages
from penstock import ROOT, binary

PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md')), ROOT / 'conf' / 'metrics.md']
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

# What a recipe that shows one end only is completed with.
ENDS = {'source': '[source any]\ntype = file\npath = /srv/azure/*.json\n',
        'sink': '[sink any]\ntype = kafka\nbrokers = kafka1:9092\ntopic = t\n'}


# ---- Links ----

def prose(page):
    """Without code, whose brackets are no links."""
    return re.sub(r'`[^`\n]*`', '', re.sub(r'^    .*$', '', page.read_text(), flags=re.M))


def anchors(page):
    """As GitHub makes them of headings."""
    return {re.sub(r'[^\w\- ]', '', heading.strip().lower()).replace(' ', '-')
            for heading in re.findall(r'^#+ (.+)$', page.read_text(), re.M)}


@pytest.mark.parametrize('page', PAGES, ids=NAMES)
def test_every_link_has_its_end(page):
    for target in re.findall(r'\]\(([^)\s]+)\)', prose(page)):
        if target.startswith(('http://', 'https://')):
            continue
        path, _, anchor = target.partition('#')
        end = (page.parent / path).resolve() if path else page
        assert end.exists(), target
        assert not anchor or anchor in anchors(end), f'{target}: {sorted(anchors(end))}'


def test_a_link_without_an_end_would_be_seen(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text('# Here\n[a](#there)\n')
    with pytest.raises(AssertionError, match='#there'):
        test_every_link_has_its_end(page)


# ---- Configurations ----

def blocks(page):
    """What is set off by four blanks, and is a configuration of ours: (line, text)."""
    found, lines = [], page.read_text().split('\n')
    for number, line in enumerate(lines, 1):
        if re.match(r'    \[(daemon|source \w+|sink \w+)\]$', line) and not (found and found[-1][2]):
            found.append([number, '', True])
        if found and found[-1][2]:
            more = any(rest.startswith('    [') for rest in lines[number:number + 1])
            if line == '    END':                              # of a here-document
                found[-1][2] = False
            elif line.startswith('    '):
                found[-1][1] += line[4:] + '\n'
            elif line or not more:
                found[-1][2] = False
            else:
                found[-1][1] += '\n'
    return [(number, text) for number, text, _ in found]


CASES = [(page, number, text) for page in PAGES for number, text in blocks(page)]


def completed(text):
    return text + ''.join('\n' + end for kind, end in ENDS.items() if f'[{kind} ' not in text)


@pytest.mark.parametrize('text', [text for _, _, text in CASES], ids=[f'{page.name}:{number}' for page, number, _ in CASES])
def test_every_configuration_is_one(text, tmp_path):
    config = tmp_path / 'penstock.conf'
    config.write_text(completed(text).replace('/usr/lib/penstock/parsers', str(tmp_path)))    # which must be there
    done = subprocess.run([binary(), 'check', '-c', config], capture_output=True, text=True, timeout=60, check=False,
                          env={**os.environ, 'CREDENTIALS_DIRECTORY': str(tmp_path)})
    assert done.returncode == 0, done.stderr


def test_enough_configurations_were_found():
    """Were none found, all of them would be right."""
    assert len(CASES) >= 10 and {page.name for page, _, _ in CASES} >= {'README.md', 'cookbook.md', 'disasters.md'}


# ---- Commands ----

def test_every_command_and_option_exists():
    helps = {}
    for page in PAGES:
        for words in re.findall(r'(?:^    (?:sudo )?(?:[A-Z_]+=\S+ )*|`(?:sudo )?|penstock:rX )penstock ([a-z]+(?: [^`\n|>#]*)?)', page.read_text(), re.M):
            command = words.split()[0]
            if command not in helps:
                helps[command] = subprocess.run([binary(), command, '--help'], capture_output=True, text=True, timeout=60, check=False)
            assert helps[command].returncode == 0, f'{page.name}: penstock {words}'
            for option in re.findall(r'(?<!\S)(--[a-z-]+)', words):
                assert option in helps[command].stdout, f'{page.name}: penstock {words}'
    assert len(helps) >= 7


# ---- Pictures ----

def test_pictures_of_the_terminal_are_up_to_date(tmp_path):
    """Drawn by the program, of a daemon that is made up; a program that draws otherwise would be seen."""
    update = ROOT / 'conf' / 'pictures-update'
    due = subprocess.run([update, '--check', binary()], capture_output=True, text=True, timeout=120, check=False)
    assert due.returncode == 0, due.stderr
    other = tmp_path / 'penstock'
    other.write_text('#!/bin/sh\necho penstock, otherwise\n')
    other.chmod(0o755)
    due = subprocess.run([update, '--check', other], capture_output=True, text=True, timeout=120, check=False)
    assert due.returncode == 1 and 'status.svg' in due.stderr


# ---- Messages ----

def listed():
    return re.findall(r'^\*\*(.+)\*\* \((\w+)\)$', (ROOT / 'docs' / 'messages.md').read_text(), re.M)


def test_every_message_of_the_log_is_on_its_page():
    said, page = messages(), dict(listed())
    assert len(page) == len(listed()), 'one stands there twice'
    assert set(said) - set(page) == set(), 'docs/messages.md lacks these'
    assert set(page) - set(said) == set(), 'docs/messages.md has these, which nobody says'
    assert {text: (level, said[text]) for text, level in page.items() if level not in said[text]} == {}


def test_every_message_says_what_to_do():
    """A line of bold is followed by its remedy, but for the counters."""
    text = (ROOT / 'docs' / 'messages.md').read_text()
    bare = re.findall(r'^\*\*(.+)\*\* \(\w+\)\n(?=\*\*|\n|$)', text, re.M)
    assert set(bare) <= {'records', 'lag', 'messages', 'sink', 'memory'}


def test_every_metric_that_wakes_somebody_says_what_to_do():
    advice = dict(re.findall(r'^\| `(\w+)` \|.*\| *(.*?) *\|$', (ROOT / 'conf' / 'metrics.md').read_text(), re.M))
    alerts = set(re.findall(r'penstock_\w+', re.sub(r'#.*', '', (ROOT / 'conf' / 'alerts.yml').read_text())))
    alerts -= {'penstock_spool_max_bytes', 'penstock_workers'}      # what others are compared with
    assert len(alerts) > 10 and [name for name in sorted(alerts) if not advice[name]] == []


@pytest.mark.parametrize('source, texts', [
    ('log_line(LOG_WARN, "a" "b", NULL);', {'ab': {'warning'}}),
    ('log_line(bad ? LOG_ERROR : LOG_NOTE, x ? "one" : y ? "two, \\"2\\"" : "three", "key", value, NULL);',
     {text: {'error', 'info'} for text in ('one', 'two, "2"', 'three')}),
    ('const char *word = z ? "up; here" : "down";\nlog_line(LOG_NOTE, word, NULL);', {'up; here': {'info'}, 'down': {'info'}}),
])
def test_messages_are_found_in_source(source, texts, tmp_path, monkeypatch):
    (tmp_path / 'daemon').mkdir()
    (tmp_path / 'daemon' / 'any.c').write_text(f'/* log_line(LOG_NOTE, "not this", NULL); */\nvoid f(void)\n{{\n{source}\n}}\n')
    monkeypatch.setattr('messages.ROOT', tmp_path)
    assert messages() == texts
