"""What a fault did to the records that met it: the promise, and what the operator saw of it.

    verdict = judge(daemon, 'half-open connection', expected=ids_of(path), arrived=far_end.uids())
    assert len(alarms(daemon)) == 1
"""
import hashlib

import reliability
from penstock import parse_line, total


def event_id(raw, ordinal=0):
    """The id of a record's event, computed from the raw bytes alone."""
    return f'{hashlib.sha256(raw).hexdigest()[:32]}-{ordinal}'


def ids_of(*paths):
    """Ids of the events in files of JSON lines, one event a line."""
    return [event_id(line.rstrip(b'\n')) for path in paths for line in open(path, 'rb')]


def without_repeats(ids):
    return list(dict.fromkeys(ids))


def reordered(expected, arrived):
    """How many ids arrived first behind one that should have come after them."""
    place = {uid: i for i, uid in enumerate(expected)}
    highest, behind = -1, 0
    for uid in without_repeats(arrived):
        at = place.get(uid, -1)
        behind += at < highest
        highest = max(highest, at)
    return behind


def lines(daemon, level):
    """Log lines of a level, as their keys, the counters left out."""
    found = [line.split(level + ' ', 1) for line in daemon.log_text().splitlines()]
    return [parse_line(parts[1]) for parts in found if len(parts) == 2 and 'msg=' in parts[1]]


def alarms(daemon):
    """What wants a human."""
    return lines(daemon, 'error')


def warnings(daemon):
    return lines(daemon, 'warning')


def judge(daemon, fault, expected, arrived, repeats=False, order=True, **more):
    """Stops the daemon. All arrived, what repeats has the same id, the order held, the counters add up, nothing is dead;
    noted for the reliability page before anything is asserted."""
    status = daemon.stop()
    counters = daemon.counters()
    lost = len(set(expected) - set(arrived))
    behind = reordered(expected, arrived) if order else 0
    dead = total(counters, 'dead')
    reliability.note(fault, records=len(expected), delivered=len(expected) - lost, lost=lost,
                     repeated=len(arrived) - len(set(arrived)), reordered=behind, dead=dead, **more)
    assert status == 0
    assert lost == 0 and set(arrived) == set(expected)
    assert repeats or len(arrived) == len(expected)
    assert behind == 0
    assert dead == total(counters, 'dropped') == 0
    for (source, sink), keys in counters.items():
        if source and sink:
            assert keys['taken'] == sum(keys[place] for place in ('delivered', 'dead', 'dropped', 'held', 'spooled'))
            assert keys['held'] == keys['spooled'] == 0
    return counters
