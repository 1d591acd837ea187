"""What a process costs: wall clock, CPU and memory of Penstock, or of a peer, from its start to its last message.

CPU is the process's own, with its threads and the children it has waited for: the far ends run beside it and may cost more than
it does, so that the wall clock, with few cores, says as much about them. GB and MB are of input, decimal.
"""
import dataclasses
import functools
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

from penstock import Penstock, binary, build_folder, environment, total

MB, GB = 10**6, 10**9
LOOK_EVERY = 0.02                    # seconds between two looks at a process's memory
GIVE_UP = 600


@dataclasses.dataclass
class Cost:
    wall: float                      # seconds
    cpu: float                       # seconds, user and system
    rss: int                         # bytes resident at their highest
    yardstick: float = None          # milliseconds: how slow the machine was, directly before and after


def ended(process, status=(0,)):
    """Waits for the process: its CPU seconds."""
    _, how, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(how)
    if process.returncode not in status:
        raise RuntimeError(f'{process.args[0]} exited with {process.returncode}')
    return usage.ru_utime + usage.ru_stime


def is_over(process):
    """It has ended and is still to be waited for; Popen's own poll() would take what wait4() has to tell."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def peak_of(process):
    """Resident bytes at their highest. Not from wait4(), whose figure begins with what Python held before the exec."""
    status = pathlib.Path(f'/proc/{process.pid}/status').read_text()
    found = re.search(r'^VmHWM:\s+(\d+) kB', status, re.M)
    return int(found[1]) * 1024 if found else 0


def wait_a_little(start):
    """Between two questions whether all is done: often at first, since answers cost the daemon CPU; the clock is right to 3 %."""
    time.sleep(max(LOOK_EVERY, 0.03 * (time.monotonic() - start)))


def yardstick():
    """What the same small piece of work costs just now, in milliseconds of CPU: yardstick.c."""
    return float(subprocess.run([build_folder() / 'tests' / 'bench-yardstick'], stdout=subprocess.PIPE, check=True).stdout)


def by_yardstick(measure):
    """The function's Cost, with the mean of what the yardstick took directly before and after."""
    @functools.wraps(measure)
    def measure_between(*arguments, **more):
        before = yardstick()
        cost = measure(*arguments, **more)
        return dataclasses.replace(cost, yardstick=(before + yardstick()) / 2)
    return measure_between


@by_yardstick
def parse(path, schema):
    """Runs `penstock parse` to its end."""
    start, peak = time.monotonic(), 0
    process = subprocess.Popen([binary(), 'parse', '--schema', schema, path], stdout=subprocess.DEVNULL, env=environment())
    while not is_over(process):
        peak = max(peak, peak_of(process))
        time.sleep(LOOK_EVERY)
    return Cost(time.monotonic() - start, ended(process), peak)


def waiting(counters):
    return total(counters, 'held') + total(counters, 'spooled')


@by_yardstick
def daemon(folder, sections, done, fresh=True, **settings):
    """Runs the daemon until done(counters); from its start to then."""
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    running = Penstock(folder, *sections, **settings)
    try:
        start = time.monotonic()
        running.start()
        while not done(running.counters()):
            if time.monotonic() - start > GIVE_UP or running.exited() is not None:
                raise RuntimeError(f'not everything was delivered:\n{running.log_tail()}')
            wait_a_little(start)
        wall = time.monotonic() - start
        peak = peak_of(running.process)
        running.process.send_signal(signal.SIGTERM)
        return Cost(wall, ended(running.process), peak)
    finally:
        running.kill()


def end_of(bootstrap, topic):
    """How many messages the topic's one partition has."""
    told = subprocess.run(['kcat', '-b', bootstrap, '-Q', '-t', f'{topic}:0:-1'], capture_output=True, text=True, check=False)
    found = re.search(r'offset (\d+)', told.stdout)
    return int(found[1]) if found else 0


@by_yardstick
def peer(begin, log, bootstrap, topic, messages):
    """Runs the process that begin() starts until the topic has all messages, or it ends by itself."""
    start, peak = time.monotonic(), 0
    process = begin()
    try:
        while end_of(bootstrap, topic) < messages:
            if is_over(process):
                break                # kcat does, when all is sent
            if time.monotonic() - start > GIVE_UP:
                raise RuntimeError(f'{end_of(bootstrap, topic)} of {messages} messages came:\n{log.read_text()[-2000:]}')
            peak = max(peak, peak_of(process))
            wait_a_little(start)
        wall = time.monotonic() - start
        if not is_over(process):
            os.kill(process.pid, signal.SIGTERM)
        cost = Cost(wall, ended(process, (0, -signal.SIGTERM)), peak)
        if end_of(bootstrap, topic) < messages:
            raise RuntimeError(f'{process.args[0]} ended too early:\n{log.read_text()[-2000:]}')
        return cost
    finally:
        if process.returncode is None:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
