"""The launcher's end of the pipe to its guard (``guard.py``): which process groups are alive."""

from __future__ import annotations

import subprocess
import sys

from psys.cli import guard


class Guard:
    """Keeps the guard process told; leaving the ``with`` block waits for its end."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def add(self, group: int) -> None:
        """Have a process group ended should the launcher be killed."""
        self._tell(f"+{group}\n")

    def discard(self, group: int) -> None:
        """Forget a process group, which is gone."""
        self._tell(f"-{group}\n")

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except BrokenPipeError:
            # Somebody killed the guard: the job goes on, only kill -9 is no longer covered.
            return

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._process.communicate()
        except BrokenPipeError:
            self._process.wait()


def start_guard() -> Guard:
    """Start the guard process.

    Raises:
        OSError: it cannot be started.
    """
    return Guard(
        subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )
    )
