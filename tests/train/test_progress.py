from __future__ import annotations

import contextlib
import io
import os
import pty
import re

import pytest

from psys.train.progress import ProgressReporter, format_duration


class Clock:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def read_all(terminal: int) -> str:
    """Read what was written to a terminal whose other end is closed."""
    pieces = []
    with contextlib.suppress(OSError), os.fdopen(terminal, "rb", buffering=0) as reader:
        while piece := reader.read(4096):
            pieces.append(piece)
    return b"".join(pieces).decode()


def test_in_a_pipe_there_is_a_plain_line_every_ten_seconds_and_at_the_end() -> None:
    stream, clock = io.StringIO(), Clock()
    with ProgressReporter(1000, stream, clock) as progress:
        for step in range(1, 251):
            progress.update(step, examples=64, loss=1 / step)
            clock.now += 0.125
    assert stream.getvalue().splitlines() == [
        "step 1/1000, loss 1",
        "step 81/1000, 512 examples/s, loss 0.01235, 1:55 left",
        "step 161/1000, 512 examples/s, loss 0.006211, 1:45 left",
        "step 241/1000, 512 examples/s, loss 0.004149, 1:35 left",
        "step 250/1000, 512 examples/s, loss 0.004, 1:34 left",
    ]


def test_without_an_end_in_sight_no_time_left_is_claimed() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = ProgressReporter(None, stream, clock)
    progress.update(7, examples=10, loss=None)
    clock.now += 10
    progress.update(17, examples=10, loss=0.5)
    progress.close()
    assert stream.getvalue().splitlines() == ["step 7", "step 17, 10 examples/s, loss 0.5"]


def test_the_rate_counts_the_steps_of_all_trainers_and_only_recent_ones() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = ProgressReporter(None, stream, clock)
    step = 0
    for steps_between in (1, 3):
        for _ in range(30):
            progress.update(step, examples=100, loss=None)
            step += steps_between
            clock.now += 1
    progress.close()
    lines = stream.getvalue().splitlines()
    assert lines[2] == "step 20, 100 examples/s"
    assert lines[-1].endswith(", 300 examples/s")


def test_a_roll_back_is_no_negative_rate() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = ProgressReporter(100, stream, clock)
    for step in (50, 51, 20, 21):
        progress.update(step, examples=1, loss=float("nan"))
        clock.now += 10
    assert stream.getvalue().splitlines()[2:] == [
        "step 20/100, loss nan",
        "step 21/100, 0 examples/s, loss nan, 13:10 left",
    ]


def test_nothing_is_said_where_nothing_happened() -> None:
    stream = io.StringIO()
    ProgressReporter(10, stream).close()
    assert stream.getvalue() == ""


def test_on_a_terminal_there_is_a_bar_and_lines_go_above_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    terminal, ours = pty.openpty()
    with os.fdopen(ours, "w") as stream:
        clock = Clock()
        progress = ProgressReporter(200, stream, clock)
        for step in range(1, 101):
            progress.update(step, examples=32, loss=0.25)
            clock.now += 0.01
            if step == 50:
                progress.line("[saved] step 50")
        progress.close()
    drawn = read_all(terminal)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn)
    last = [line for line in re.split(r"[\r\n]+", text) if line.strip()][-1]
    assert last.startswith("step 100/200 ")
    assert "3,200 examples/s  loss 0.25  0:01 left" in last
    assert "[saved] step 50" in text
    assert drawn.count("\x1b[?25h") == drawn.count("\x1b[?25l") == 1  # the cursor is shown again


def test_durations_read_like_a_clock() -> None:
    assert [format_duration(s) for s in (0.4, 65, 3600)] == ["0:00", "1:05", "1:00:00"]
