"""A wall clock that a test sets for one program: libfaketime, read anew at every look. The clocks that only grow stay true.

    clock = Clock(folder)
    daemon.start(**clock.variables)
    clock.set('+5h')                     # or '-3d', '+0'
"""
import glob
import pathlib

import pytest

LIBRARY = '/usr/lib/*/faketime/libfaketimeMT.so.1'


class Clock:
    def __init__(self, folder, shift='+0'):
        found = glob.glob(LIBRARY)
        if not found:
            pytest.skip('libfaketime is not installed')
        self.file = pathlib.Path(folder) / 'clock'
        self.set(shift)
        self.variables = {'LD_PRELOAD': found[0], 'FAKETIME_TIMESTAMP_FILE': str(self.file), 'FAKETIME_NO_CACHE': '1',
                          'FAKETIME_DONT_FAKE_MONOTONIC': '1', 'DONT_FAKE_MONOTONIC': '1', 'NO_FAKE_STAT': '1'}

    def set(self, shift):
        part = self.file.with_suffix('.part')
        part.write_text(shift + '\n')
        part.rename(self.file)
