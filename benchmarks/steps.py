"""A trainer's step counter in a small file that another process can read at any moment.

Works for psys and TF alike: a hook calls ``StepLog.note`` after each step. Reading costs the
trainer nothing.
"""

from __future__ import annotations

import mmap
import struct
import time
from pathlib import Path
from typing import NamedTuple

KEPT = 4096
_RECORD = struct.Struct("<qqdd")  # steps, global step, time of the first, time of the last


class Steps(NamedTuple):
    """What one trainer has done; times are of the monotonic clock, which all processes share."""

    steps: int
    global_step: int
    first_secs: float
    last_secs: float


class StepLog:
    """Written by one trainer."""

    def __init__(self, path: Path) -> None:
        partial = path.with_suffix(".partial")
        partial.write_bytes(bytes(KEPT))
        with partial.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), KEPT)
        partial.rename(path)
        self._steps = 0
        self._first = 0.0

    def note(self, global_step: int) -> None:
        """Count one step."""
        now = time.monotonic()
        self._steps += 1
        self._first = self._first or now
        record = _RECORD.pack(self._steps, global_step, self._first, now)
        # Twice: a reader that finds two different copies looks again.
        self._memory[: len(record)] = record
        self._memory[len(record) : 2 * len(record)] = record


def read_steps(path: Path) -> Steps:
    """Return a trainer's count; zero steps before its first."""
    while True:
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return Steps(0, 0, 0.0, 0.0)
        first, second = data[: _RECORD.size], data[_RECORD.size : 2 * _RECORD.size]
        if first == second:
            return Steps(*_RECORD.unpack(first))
