"""An archive as Azure leaves it: one file an hour in y=/m=/d=/h= folders, of records whose times and event ids are known.

    archive = Archive(tmp_path / 'archive', '2026-03-01')
    archive.hour(10, pack='gzip')
    assert sorted(far_end.uids()) == archive.ids('2026-03-01T10:00', '2026-03-01T12:00')
"""
import datetime
import gzip
import hashlib
import json
import pathlib
import subprocess

PLACE = 'resourceId=/SUBSCRIPTIONS/0F0F0F0F-1111-2222-3333-000000000001'


def when(text):
    return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.timezone.utc)


def record(time, number, more=''):
    """One of the Activity Log, as it is exported; exactly one event."""
    return json.dumps({
        'time': time.strftime('%Y-%m-%dT%H:%M:%S.%f0Z') if time else None, 'resourceId': f'/SUBSCRIPTIONS/0F0F/PROVIDERS/MICROSOFT.X/Y/{number}',
        'operationName': 'MICROSOFT.X/Y/WRITE', 'category': 'Administrative', 'resultType': 'Success', 'resultSignature': 'Succeeded.',
        'durationMs': '0', 'callerIpAddress': '192.0.2.7', 'correlationId': f'c-{number}', 'level': 'Information',
        'properties': {'eventCategory': 'Administrative', 'more': more},
    }).encode()


class Archive:
    def __init__(self, folder, day):
        self.folder, self.day = pathlib.Path(folder), when(day)
        self.events = {}             # id: its time
        self.number = 0

    def name(self, hour, file='PT1H.json'):
        return (self.day + datetime.timedelta(hours=hour)).strftime(f'{PLACE}/y=%Y/m=%m/d=%d/h=%H/m=00/{file}')

    def text(self, hour, records=60, late=0, more=''):
        """JSON lines, evenly over the hour; `late` hours before that of their folder."""
        lines = []
        for n in range(records):
            time = self.day + datetime.timedelta(hours=hour - late, seconds=3600 * n / records)
            self.number += 1
            lines.append(record(time, self.number, more))
            self.events[f'{hashlib.sha256(lines[-1]).hexdigest()[:32]}-0'] = time
        return b'\n'.join(lines) + b'\n'

    def hour(self, hour, pack=None, **more):
        path = self.folder / self.name(hour)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = self.text(hour, **more)
        if pack == 'gzip':
            path = path.with_suffix('.json.gz')
            text = gzip.compress(text)
        path.write_bytes(text)
        if pack == 'zstd':
            subprocess.run(['zstd', '-q', '--rm', path], check=True)
        return path

    def ids(self, start=None, end=None):
        return sorted(uid for uid, time in self.events.items()
                      if (start is None or time >= when(start)) and (end is None or time < when(end)))
