"""The daemon under test: writes its configuration, runs it, waits for conditions, reads the counters it prints.

    daemon = Penstock(folder, ('source flows', {'type': 'file', 'path': f'{logs}/*.json'}), far_end.sink())
    daemon.start()
    wait_until(lambda: far_end.count() == 100, daemon=daemon)
    assert daemon.stop() == 0
    assert total(daemon.counters(), 'delivered', sink='sentinel') == 100
"""
import os
import pathlib
import re
import signal
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]

# One key of a log line: bare, or quoted with backslash escapes.
PAIR = re.compile(r'([A-Za-z_][A-Za-z0-9_.-]*)=("(?:[^"\\]|\\.)*"|\S*)')


def binary():
    """The penstock to test: $PENSTOCK_BIN, or what tests/run has built."""
    return pathlib.Path(os.environ.get('PENSTOCK_BIN') or ROOT / 'build' / 'test' / 'plain' / 'penstock').resolve()


def build_folder():
    """The build that binary() came from: its test programs lie in tests/."""
    return pathlib.Path(os.environ.get('PENSTOCK_BUILD') or binary().parent).resolve()


def slower():
    """How much longer everything may take: sanitizers and busy machines (PENSTOCK_SLOW) need it."""
    return float(os.environ.get('PENSTOCK_SLOW') or 1)


def wait_until(condition, seconds=30, what='the condition', daemon=None):
    """Waits for a condition and returns its value; fails at once when the daemon it hangs on has died."""
    end = time.monotonic() + seconds * slower()
    while True:
        value = condition()
        if value:
            return value
        if daemon is not None and daemon.exited() is not None:
            raise AssertionError(f'penstock exited with {daemon.exited()}, waiting for {what}:\n{daemon.log_tail()}')
        if time.monotonic() > end:
            tail = '' if daemon is None else ':\n' + daemon.log_tail()
            raise AssertionError(f'waited {seconds} s for {what}{tail}')
        time.sleep(0.02)


def write_config(path, *sections):
    """Sections are (heading, {key: value}); values are written as they are."""
    lines = []
    for heading, keys in sections:
        lines.append(f'[{heading}]')
        lines.extend(f'{key} = {value}' for key, value in keys.items())
        lines.append('')
    pathlib.Path(path).write_text('\n'.join(lines), encoding='utf-8')
    return pathlib.Path(path)


def parse_line(line):
    """The keys of one log line; whole numbers become numbers."""
    keys = {}
    for key, value in PAIR.findall(line):
        if value.startswith('"'):
            value = re.sub(r'\\(.)', r'\1', value[1:-1])
        keys[key] = int(value) if re.fullmatch(r'-?\d+', value) else value
    return keys


# What each kind of counters line has and no other line does.
COUNTERS = {'records': 'read', 'lag': 'behind',
            'messages': 'delivered', 'sink': 'batches', 'memory': 'budget'}


def parse_counters(log):
    """The last counters in a log: {(source, sink): keys}, None for what a line lacks.

    (source, None) what was read, (source, sink) where its messages are, (None, sink) the sink's batches, (None, None) memory.
    """
    counters = {}
    for line in log.splitlines():
        keys = parse_line(line)
        mark = COUNTERS.get(keys.get('msg'))
        if mark is not None and isinstance(keys.get(mark), int):
            counters.setdefault((keys.get('source'), keys.get('sink')), {}).update(keys)
    return counters


def total(counters, key, source=None, sink=None):
    """Sum of a counter over all sources or one, all sinks or one."""
    return sum(keys[key] for (a, b), keys in counters.items()
               if isinstance(keys.get(key), int) and source in (None, a) and sink in (None, b) and (a, b) != (None, None))


class Penstock:
    def __init__(self, folder, *sections, **daemon):
        """`daemon` are keys of the [daemon] section beside state_dir."""
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.state_dir = self.folder / 'state'
        self.state_dir.mkdir(exist_ok=True)
        self.log = self.folder / 'penstock.log'
        self.process = None
        self.configure(*sections, **daemon)

    def configure(self, *sections, **daemon):
        self.config = write_config(self.folder / 'penstock.conf',
                                   ('daemon', {'state_dir': self.state_dir, **daemon}), *sections)

    def start(self, *words, program=None, **variables):
        """Runs the daemon; a second start goes on where the first ended, log included. `variables` go into its environment."""
        words = words or ('run', '-c', self.config)
        with open(self.log, 'ab') as log:
            self.process = subprocess.Popen([program or binary(), *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env={**environment(), **variables})
        return self

    def command(self, *words, seconds=120, **more):
        """Another subcommand, to its end: subprocess.CompletedProcess with text."""
        return subprocess.run([binary(), *words], capture_output=True, text=True, timeout=seconds * slower(),
                              env=environment(), **more)

    def exited(self):
        return self.process.poll()

    def running(self):
        return self.process is not None and self.process.poll() is None

    def stop(self, seconds=15):
        """SIGTERM, as systemd does it: the exit status. Not gone in time is a failure."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds * slower())
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f'still there {seconds} s after SIGTERM:\n{self.log_tail()}') from None

    def kill(self):
        """SIGKILL, as a power cut does it."""
        if self.running():
            self.process.kill()
            self.process.wait()

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def log_text(self):
        return self.log.read_text(encoding='utf-8', errors='replace') if self.log.exists() else ''

    def log_tail(self, lines=40):
        return '\n'.join(self.log_text().splitlines()[-lines:])

    def counters(self):
        """Counters as of now (asked for by SIGUSR1), or, when the daemon has ended, those it left."""
        if not self.running():
            return parse_counters(self.log_text())
        size = self.log.stat().st_size

        def complete():
            with open(self.log, 'rb') as log:
                log.seek(size)
                found = parse_counters(log.read().decode('utf-8', 'replace'))
            return found if (None, None) in found else None      # the last line is the one about memory
        wait_until(self.catches_usr1, 20, 'SIGUSR1 to be caught', self)
        self.process.send_signal(signal.SIGUSR1)
        return wait_until(complete, 10, 'counters after SIGUSR1', self)

    def catches_usr1(self):
        """A daemon that is only starting would die of the signal; the kernel says when it no longer does."""
        caught = re.search(r'^SigCgt:\s+([0-9a-f]+)$', pathlib.Path(f'/proc/{self.process.pid}/status').read_text(), re.M)
        return caught is not None and int(caught[1], 16) >> (signal.SIGUSR1 - 1) & 1

    def memory(self):
        """Resident bytes now and at their highest."""
        status = pathlib.Path(f'/proc/{self.process.pid}/status').read_text()
        read = dict(re.findall(r'^(VmRSS|VmHWM):\s+(\d+) kB', status, re.M))
        return int(read['VmRSS']) * 1024, int(read['VmHWM']) * 1024


def environment():
    """What the daemon is started with: no proxy of the machine between it and loopback."""
    return {name: value for name, value in os.environ.items() if not name.lower().endswith('_proxy')}
