from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Iterator

import pytest

from psys.train.log import show_log_lines

LOGGER = logging.getLogger("psys")


@pytest.fixture
def unconfigure(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Make logging what a program finds that never touched it; pytest has set it up too."""
    level, propagate = LOGGER.level, LOGGER.propagate

    def clear() -> None:
        for logger in (LOGGER, logging.getLogger()):
            monkeypatch.setattr(logger, "handlers", [])

    yield clear
    LOGGER.setLevel(level)
    LOGGER.propagate = propagate


def test_lines_are_shown_once_with_the_time(
    unconfigure: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    unconfigure()
    show_log_lines()
    show_log_lines()
    LOGGER.info("Saved %s.", "it")
    LOGGER.debug("details")
    (line,) = capsys.readouterr().err.splitlines()
    assert line[2] == line[5] == ":"
    assert line[8:] == " Saved it."


def test_they_follow_stderr_to_wherever_it_goes(
    unconfigure: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    unconfigure()
    show_log_lines()
    above_the_bar = io.StringIO()
    monkeypatch.setattr(sys, "stderr", above_the_bar)
    LOGGER.info("one line")
    assert above_the_bar.getvalue().endswith(" one line\n")


@pytest.mark.parametrize("name", ["", "psys"])
def test_a_program_that_set_up_logging_is_left_alone(
    unconfigure: Callable[[], None], name: str
) -> None:
    unconfigure()
    mine = logging.NullHandler()
    logging.getLogger(name).addHandler(mine)
    show_log_lines()
    assert mine in logging.getLogger(name).handlers
    assert len(LOGGER.handlers) == (name == "psys")
    assert LOGGER.propagate
