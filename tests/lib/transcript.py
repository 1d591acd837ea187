"""Transcripts of a terminal that are run again and compared: what a user types, and what stands on the screen then.

    mkdir logs                           what comes before the first section is done before each of them …

    ## A word is misspelt                 … which begin in a folder of their own,
    $ sed -i s/memory/memroy/ penstock.conf
    $ cat > file <<END                   have commands for bash, …
    > and their further lines
    > END
    $ penstock check -c penstock.conf
    penstock.conf:3: unknown key …       … what each printed, errors and all, …
    [2]                                  … and its exit status, unless that was 0.

What differs from run to run is written as one word: the folder is /home/you, log lines have no time, ports of this machine are PORT,
ids of requests are ID, what librdkafka says of a connection is not ours.
"""
import os
import re
import subprocess

GUID = r'[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}'


class Transcript:
    def __init__(self, file):
        """`before`: commands of the preamble. `sections`: {heading: lines}."""
        self.file = file
        self.head, *rest = re.split(r'^(?=## )', file.read_text(), flags=re.M)
        self.before = commands(self.head.splitlines())
        self.sections = {text.partition('\n')[0][3:]: text.rstrip('\n').split('\n')[1:] for text in rest}

    def save(self, sections):
        text = ''.join(f'## {heading}\n' + '\n'.join(lines) + '\n\n' for heading, lines in sections.items())
        self.file.write_text(self.head + text.rstrip('\n') + '\n')


def commands(lines):
    """[(command as typed, of as many lines as it has)]; what was printed is left out."""
    found = []
    for line in lines:
        if line.startswith('$ '):
            found.append([line])
        elif line.startswith('> ') and found:
            found[-1].append(line)
    return found


def run(folder, before, lines, environment):
    """The section as it looks when it is run now."""
    for command in before:
        _, status = typed(folder, command, environment)
        assert status == 0, command
    made = []
    for command in commands(lines):
        printed, status = typed(folder, command, environment)
        made += command + printed.splitlines() + [f'[{status}]'] * (status != 0)
    return made


def typed(folder, command, environment):
    done = subprocess.run(['bash', '-c', '\n'.join(line[2:] for line in command)], cwd=folder, env={**environment, 'PWD': str(folder)},
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False)
    return settled(done.stdout, folder), done.returncode


def settled(text, folder):
    text = text.replace(os.path.realpath(folder), '/home/you').replace(str(folder), '/home/you')
    text = re.sub(r'^\d{4}-\d\d-\d\dT[\d:.]+Z ', '', text, flags=re.M)
    text = re.sub(r'(127\.0\.0\.1|localhost):\d{4,5}\b', r'\1:PORT', text)
    text = re.sub(rf'((?:trace id|request) ){GUID}', r'\1ID', text)
    text = re.sub(r' after \d+ ms\b', ' after 0 ms', text)
    return re.sub(r'\((?:\w+://)?[\w.]+:PORT/\w+: .*\)$', "(librdkafka's words)", text, flags=re.M)
