"""How far training is: a bar on a terminal, plain lines in a pipe or a file.

Told of every step the trainer takes, it decides itself how often to say something. It knows no
session, no cluster and no logging; it only writes to the stream it was given.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from psys.train.progress_bar import ProgressBar

_BAR_EVERY_SECS = 0.2
_LINE_EVERY_SECS = 10.0
_RATE_WINDOW_SECS = 15.0


class ProgressReporter:
    """Reports steps, examples/s, loss and the time left.

    The rate is of the whole cluster: the global step counts every trainer's steps, and each is
    taken to hold as many examples as this trainer's. Used by one thread at a time.
    """

    def __init__(
        self,
        total_steps: int | None,
        stream: TextIO,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; nothing is written before the first update.

        Args:
            total_steps: the global step at which training ends; None if it is not known.
            stream: a bar is drawn where this is a terminal.
            clock: seconds, never going back.
        """
        self._total_steps = total_steps
        self._stream = stream
        self._clock = clock
        self._rate = _Rate()
        self._loss: float | None = None
        self._global_step: int | None = None
        self._said_step: int | None = None
        self._next_secs = float("-inf")
        self._bar: ProgressBar | None = None
        if stream.isatty():
            # Here and not above: most processes have no terminal, and rich takes its time.
            from psys.train.progress_bar import ProgressBar

            self._bar = ProgressBar(total_steps, stream)

    def update(self, global_step: int, examples: int, loss: float | None) -> None:
        """Take note of one step of this trainer.

        Args:
            global_step: the global step once the step was applied.
            examples: the number of examples in the step's batch.
            loss: the step's loss, None if there is none to tell.
        """
        now = self._clock()
        self._rate.add(now, global_step, examples)
        self._global_step, self._loss = global_step, loss
        if now >= self._next_secs:
            self._next_secs = now + (_BAR_EVERY_SECS if self._bar else _LINE_EVERY_SECS)
            self._say()

    def line(self, text: str) -> None:
        """Write a line of text, above the bar where there is one."""
        if self._bar:
            self._bar.print(text)
        else:
            self._stream.write(text + "\n")
            self._stream.flush()

    def close(self) -> None:
        """Say how far it came in the end, and leave the terminal as it was."""
        if self._global_step is not None and self._said_step != self._global_step:
            self._say()
        if self._bar:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> ProgressReporter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _say(self) -> None:
        step = self._global_step
        if step is None:
            return
        self._said_step = step
        details = [f"{self._rate.examples_per_sec:,.0f} examples/s"] if self._rate.known else []
        if self._loss is not None:
            details.append(f"loss {self._loss:.4g}")
        left_secs = self._rate.secs_until(self._total_steps)
        if left_secs is not None:
            details.append(f"{format_duration(left_secs)} left")
        if self._bar:
            self._bar.show(step, "  ".join(details))
        else:
            count = str(step) if self._total_steps is None else f"{step}/{self._total_steps}"
            self.line(", ".join([f"step {count}", *details]))


def format_duration(seconds: float) -> str:
    """Return ``0:05``, ``12:34`` or ``3:02:01``."""
    minutes, secs = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{secs:02}" if hours else f"{minutes}:{secs:02}"


class _Rate:
    """Steps per second over the last few seconds, and examples per step."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()
        self._steps = 0
        self._examples = 0

    def add(self, now_secs: float, global_step: int, examples: int) -> None:
        """Take note of a step; a step below the last one means the model was rolled back."""
        if self._marks and global_step < self._marks[-1][1]:
            self._marks.clear()
        self._marks.append((now_secs, global_step))
        while len(self._marks) > 2 and now_secs - self._marks[1][0] >= _RATE_WINDOW_SECS:
            self._marks.popleft()
        self._steps += 1
        self._examples += examples

    @property
    def known(self) -> bool:
        """Whether time has passed and steps were taken in it."""
        return self._steps_per_sec > 0

    @property
    def examples_per_sec(self) -> float:
        """Examples per second of all trainers together."""
        return self._steps_per_sec * self._examples / max(self._steps, 1)

    def secs_until(self, step: int | None) -> float | None:
        """Seconds until a global step is reached, None if that cannot be told."""
        if step is None or not self.known or self._marks[-1][1] >= step:
            return None
        return (step - self._marks[-1][1]) / self._steps_per_sec

    @property
    def _steps_per_sec(self) -> float:
        if len(self._marks) < 2:
            return 0.0
        (first_secs, first_step), (last_secs, last_step) = self._marks[0], self._marks[-1]
        return (
            (last_step - first_step) / (last_secs - first_secs) if last_secs > first_secs else 0.0
        )
