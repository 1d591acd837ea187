"""Latency: from a line's write() to the moment when the far end has its request whole, line by line.

One file is one stream, whose order holds: the n-th row that arrived is the n-th line that was appended, so nothing needs to be
marked. At the stand-in of the ingestion API the moment is when a request was read and checked; in Kafka it is the time that the
broker gives a message when it appends it, in whole milliseconds.

Beside a replay the lines are the same; a day of flow logs goes to the same sink meanwhile, in streams of its own, by which the
two are told apart.
"""
import contextlib
import re
import subprocess
import time

import measure
from lab import files
from measure import GIVE_UP
from penstock import Penstock, binary, environment, total, wait_until
from records import Made, Maker, activity_line, write_vnet

WARM = 5                             # lines before those that count: tokens, connections


def append(path, gap_s, lines):
    """Appends that many lines, a gap apart; when each was. What is late is caught up with, not left out."""
    maker, stamps = Maker(2), []
    texts = [activity_line(maker)[0] for _ in range(lines)]
    with open(path, 'ab', buffering=0) as file:
        start = time.time()
        for n, text in enumerate(texts):
            wait = start + n * gap_s - time.time()
            if wait > 0:
                time.sleep(wait)
            stamps.append(time.time())
            file.write(text)
    return stamps


def percentiles(waits):
    waits = sorted(1000 * wait for wait in waits)

    def at(part):
        return waits[min(len(waits) - 1, int(part * len(waits)))]
    return {'p50': at(0.5), 'p90': at(0.9), 'p99': at(0.99), 'max': waits[-1]}


def day(lab, hour_bytes):
    """24 hours of VNet flow logs in Azure's folders."""
    def make(folder):
        made = Made()
        for hour in range(24):
            path = folder / f'flowLogResourceID=/A/y=2026/m=11/d=18/h={hour:02}/m=00/macAddress=000D3A000001/PT1H.json'
            path.parent.mkdir(parents=True)
            made.add(write_vnet(path, size=hour_bytes, seed=hour))
        return made
    return lab.generated(f'day-{hour_bytes}', make)[0]


@contextlib.contextmanager
def replay(daemon, folder, rate):
    """It must go on for as long as lines are appended, or nothing was measured."""
    log = daemon.folder / 'replay.log'
    with open(log, 'wb') as out, \
            subprocess.Popen([binary(), 'replay', '-c', daemon.config, '--rate', rate, folder], stdout=out, stderr=out,
                             env=environment()) as process:
        try:
            wait_until(lambda: process.poll() is not None or b'msg="started"' in log.read_bytes(), 60, 'the replay', daemon)
            yield
            if process.poll() is not None:
                raise RuntimeError(f'the replay was over too soon:\n{log.read_text()}')
        finally:
            process.kill()


def run(lab, sink, gap_s, lines, arrivals, beside=lambda daemon: contextlib.nullcontext()):
    """Appends while the daemon runs; arrivals() are the times of all rows in order, warm ones included."""
    path = lab.folder / 'latency.json'
    path.write_bytes(b'')
    daemon = None
    try:
        measure.shutil.rmtree(lab.folder / 'latency', ignore_errors=True)
        daemon = Penstock(lab.folder / 'latency', files(path), sink).start()
        append(path, 0.01, WARM)
        wait_until(lambda: total(daemon.counters(), 'delivered') >= WARM, 60, 'the first lines', daemon)
        with beside(daemon):
            stamps = append(path, gap_s, lines)
        wait_until(lambda: total(daemon.counters(), 'delivered') >= WARM + lines, GIVE_UP, 'the last line', daemon)
        daemon.stop()
    finally:
        if daemon is not None:
            daemon.kill()
    arrived = arrivals()[-lines:]
    if len(arrived) != lines:
        raise RuntimeError(f'{len(arrived)} of {lines} rows arrived')
    return percentiles([after - before for before, after in zip(stamps, arrived)])


def to_sentinel(lab, gap_s, lines, more, rate=None):
    """With a rate: beside a replay of a day, at so much a second."""
    far_end = lab.far_end('count')
    before = len(far_end.requests())

    def beside(daemon):
        hour_bytes = int(rate[:-1]) * 2**20 * int(gap_s * lines + 30) // 24
        return replay(daemon, day(lab, hour_bytes), rate)

    def arrivals():
        return [request['at'] for request in far_end.requests()[before:]
                if request['status'] == 204 and request['stream'] == 'Custom-PenstockAudit' for _ in range(request['rows'])]
    # A day of flow logs is more JSON than a DCR takes in a minute: its limits hold here, or the far end throttles both.
    sink = lab.sentinel(far_end, bytes_a_minute=None, requests_a_minute=None, **more)
    return run(lab, sink, gap_s, lines, arrivals, *([beside] if rate else []))


def to_kafka(lab, gap_s, lines, more):
    with lab.topic(message_timestamp_type='LogAppendTime') as topic:
        def arrivals():
            told = subprocess.run(['kcat', '-b', lab.kafka().bootstrap, '-C', '-t', topic, '-o', 'beginning', '-e', '-q',
                                   '-f', '%T\n'], capture_output=True, text=True, check=True).stdout
            return [int(stamp) / 1000 for stamp in re.findall(r'^(\d+)$', told, re.M)]
        return run(lab, lab.siem(topic, **more), gap_s, lines, arrivals)
