"""What tests of misbehaving far ends have in common: one file after the other through a daemon."""
from judge import ids_of
from penstock import total, wait_until
from records import write_activity


class Scene:
    """`records` a file where nothing else is said; `patience` are seconds."""

    records = 600
    patience = 120

    def __init__(self, tmp_path, penstock):
        self.logs = tmp_path / 'logs'
        self.logs.mkdir()
        self.files = []
        self.daemon = penstock()

    def configure(self, *sinks):
        self.daemon.configure(('source logs', {'type': 'file', 'path': f'{self.logs}/*.json'}), *sinks)

    def write(self, count=None):
        """One more file: its records come after all others."""
        part = self.logs / f'{len(self.files)}.part'
        write_activity(part, count or self.records, seed=len(self.files) + 1)
        path = part.with_suffix('.json')
        part.rename(path)
        self.files.append(path)

    @property
    def expected(self):
        return ids_of(*self.files)

    def count(self, key):
        return total(self.daemon.counters(), key)

    def until(self, condition, what, seconds=None):
        return wait_until(condition, seconds or self.patience, what, self.daemon)

    def until_tried_again(self, times=3):
        self.until(lambda: self.count('retries') >= times, f'{times} retries')

    def until_refused(self, times=3):
        """More than once, so that an alarm for each would show."""
        self.until(lambda: self.count('refusals') >= times, f'{times} refusals')
        assert self.count('held') + self.count('spooled') > 0 and self.count('dead') == 0
