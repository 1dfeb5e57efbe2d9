"""What the roles of a launched cluster print: prefixed on the console, whole in a log file each.

One thread per pipe reads a role's output line by line, keeps it in the role's log file, shows it
behind ``[chief]`` or ``[worker 0]``, and remembers the last line that looks like an exception.
Nothing here stops reading while the role writes: a role must never wait for its launcher.
"""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import IO, TextIO

_COLOURS = {"chief": 32, "worker": 36, "ps": 33, "evaluator": 35}
_OWN_ERROR = re.compile(r"^psys: (\w+: .+)")
_EXCEPTION_LINE = re.compile(r"^[A-Za-z_][\w.]*(Error|Exception|Failed|Fenced|Interrupt)(:|$)")


class Console:
    """The launcher's stdout, shared by all readers: one line is never cut by another."""

    def __init__(self, stream: TextIO, colour: bool) -> None:
        self._stream = stream
        self._colour = colour
        self._lock = threading.Lock()
        self._gone = False

    def show(self, label: str, line: str) -> None:
        """Print one line of the role called ``label``."""
        prefix = f"[{label}]"
        if self._colour:
            prefix = f"\x1b[{_COLOURS.get(label.split()[0], 37)}m{prefix}\x1b[0m"
        self.write(f"{prefix} {line}")

    def write(self, line: str) -> None:
        """Print one line as it is; do nothing once the reader of our stdout is gone."""
        with self._lock:
            if self._gone:
                return
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except (BrokenPipeError, ValueError):
                self._gone = True


class LastWords:
    """The line of an output that best says why a process failed."""

    def __init__(self) -> None:
        self._in_traceback = False
        self._exception: str | None = None
        self._last = ""

    def hear(self, line: str) -> None:
        """Take the next line."""
        own = _OWN_ERROR.match(line)
        if own:
            self._exception, self._in_traceback = own[1], False
        elif line.startswith("Traceback (most recent call last)"):
            self._in_traceback = True
        elif self._in_traceback and line and not line[0].isspace():
            self._exception, self._in_traceback = line, False
        elif _EXCEPTION_LINE.match(line):
            self._exception = line
        if line.strip():
            self._last = line

    @property
    def line(self) -> str:
        """The last exception, or else the last line that was not empty."""
        return self._exception or self._last


class RoleOutput(threading.Thread):
    """Reads one role's output to its end."""

    def __init__(self, label: str, pipe: IO[bytes], log_path: Path, console: Console) -> None:
        super().__init__(name=f"output of {label}", daemon=True)
        self._label = label
        self._pipe = pipe
        self._log_path = log_path
        self._console = console
        self._last_words = LastWords()

    def run(self) -> None:
        """Read until every process that holds the pipe has closed it."""
        with self._pipe, self._log_path.open("wb", buffering=0) as log:
            for raw in self._pipe:
                log.write(raw)
                line = raw.decode("utf-8", errors="replace").rstrip("\r\n")
                self._last_words.hear(line)
                self._console.show(self._label, line)

    @property
    def last_words(self) -> str:
        """The line that best says why the role failed; complete once the thread ended."""
        return self._last_words.line
