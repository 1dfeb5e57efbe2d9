"""The progress bar of a terminal."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn


class ProgressBar:
    """A rich progress bar without a thread of its own: it is drawn when there is news."""

    def __init__(self, total_steps: int | None, stream: TextIO) -> None:
        steps = "{task.completed:.0f}" + ("" if total_steps is None else "/{task.total:.0f}")
        self._progress = Progress(
            TextColumn("step " + steps),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[details]}"),
            console=Console(file=stream),
            auto_refresh=False,
            expand=True,
        )
        self._total_steps = total_steps
        self._task: TaskID | None = None

    def show(self, step: int, details: str) -> None:
        """Draw the bar at a step."""
        if self._task is None:
            self._progress.start()
            self._task = self._progress.add_task("", total=self._total_steps, details="")
        self._progress.update(self._task, completed=step, details=details, refresh=True)

    def print(self, text: str) -> None:
        """Write a line above the bar."""
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the bar as it stands and show the cursor again."""
        self._progress.stop()
