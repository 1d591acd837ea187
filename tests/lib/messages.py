"""The lines that the daemon can log, read from its source: the texts that log_line() is called with, directly or by those who hand
them on to it, each with its levels."""
import re

from penstock import ROOT

LEVELS = {'LOG_ERROR': 'error', 'LOG_WARN': 'warning', 'LOG_NOTE': 'info', 'LOG_TRACE': 'debug',
          'OUTLET_PAUSED': 'warning', 'OUTLET_SPOOLING': 'info', 'OUTLET_OPEN': 'info'}
# Who logs, and which arguments say how loud and what; a number, or the level itself.
LOGGERS = {'log_line': (0, 1), 'log_pairs': (0, 1), 'outlet_enter': (1, 2), 'blob_log': (1, 2), 'file_log': (1, 2),
           'hub_alarm': ('LOG_ERROR', 1)}
# Texts that are not ours: librdkafka's own lines. And those that are made: what `penstock check --online` says as well, progress.
OTHERS = {('kafka.c', 'text'), ('event_hub_client.c', 'text'), ('rule_watch.c', 'sentence'), ('replay.c', 'line')}
LITERALS = re.compile(r'(?:"(?:[^"\\]|\\.)*"\s*)+')


UP_TO_THE_END = r'(?:[^;"]|"(?:[^"\\]|\\.)*")*'       # of a statement


def messages():
    """{text: levels}"""
    found = {}
    for file in sorted([*ROOT.glob('daemon/**/*.c'), *ROOT.glob('sinks/*.c')]):
        text = re.sub(r'/\*.*?\*/', '', file.read_text(), flags=re.S)
        for call in re.finditer(r'(?<!\w)(\w+)\(', text):
            if call[1] not in LOGGERS or file.name == 'log.c':
                continue
            level, what = LOGGERS[call[1]]
            given = arguments(text, call.end() - 1)
            if re.search(r'\bconst char \*', given[what]):       # its definition
                continue
            levels = {LEVELS[word] for word in re.findall('|'.join(LEVELS), level if isinstance(level, str) else given[level])}
            for said in texts(file.name, text, given[what]):
                found.setdefault(said, set()).update(levels)
    return found


def texts(name, text, expression):
    """The literals that an argument can be; one that is a variable is looked up, by its name, where it is set or chosen."""
    if (name, re.match(r'\w*', expression)[0]) in OTHERS:
        return []
    if '"' in expression:
        return literals(expression)
    places = re.findall(rf'\b{expression} = ({UP_TO_THE_END});', text) + re.findall(rf'\w+_{expression}\[\] = \{{(.*?)\n\}};', text, re.S)
    for body in re.findall(rf'\b{expression}_for\(.*?\n}}\n', text, re.S):
        places += re.findall(f'return ({UP_TO_THE_END});', body)
    parameter = re.search(rf'\bconst char \*{expression}\b', text)
    assert places or parameter, f'{name}: where does "{expression}" come from?'
    return [said for place in places for said in literals(place)]


def literals(expression):
    return [''.join(re.findall(r'"((?:[^"\\]|\\.)*)"', run)).replace('\\"', '"') for run in LITERALS.findall(expression)]


def arguments(text, start):
    """The arguments of the call whose '(' is at `start`."""
    depth, last, found, quoted, at = 0, start + 1, [], False, start
    while True:
        char = text[at]
        if char == '\\' and quoted:
            at += 1
        elif char == '"':
            quoted = not quoted
        elif not quoted and char in '([{':
            depth += 1
        elif not quoted and (char in ')]}' or char == ',' and depth == 1):
            depth -= char != ','
            if depth == 0 or char == ',':
                found.append(text[last:at].strip())
                last = at + 1
            if depth == 0:
                return found
        at += 1
