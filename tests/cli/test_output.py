from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

from psys.cli.output import Console, LastWords, RoleOutput


def last_words(text: str) -> str:
    words = LastWords()
    for line in text.splitlines():
        words.hear(line)
    return words.line


def test_the_last_words_are_the_exception_and_not_what_came_after_it() -> None:
    text = """starting
Traceback (most recent call last):
  File "x.py", line 1, in <module>
    f()
ValueError: labels must be <= 9
Exception ignored in: <module 'threading'>
bye
"""
    assert last_words(text) == "ValueError: labels must be <= 9"


def test_an_exception_of_any_name_counts_after_a_traceback() -> None:
    text = "Traceback (most recent call last):\n  File\npkg.Oops: no\nlater"
    assert last_words(text) == "pkg.Oops: no"


def test_of_chained_exceptions_the_last_one_counts() -> None:
    text = (
        "Traceback (most recent call last):\n  a\nKeyError: 1\n\n"
        "The above exception was the direct cause of the following exception:\n\n"
        "Traceback (most recent call last):\n  b\nModelError: unknown feature"
    )
    assert last_words(text) == "ModelError: unknown feature"


def test_an_error_psys_told_in_one_line_is_an_exception_too() -> None:
    text = "psys: ConfigError: no port (train.py, line 3)\nException ignored in: x\nbye"
    assert last_words(text) == "ConfigError: no port (train.py, line 3)"


def test_without_an_exception_the_last_line_that_says_something_counts() -> None:
    assert last_words("psys: port 7 is in use\n\n") == "psys: port 7 is in use"
    assert last_words("") == ""


def test_a_role_is_shown_behind_its_name_and_kept_whole_in_its_log(tmp_path: Path) -> None:
    shown = io.StringIO()
    reader, writer = os.pipe()
    log = tmp_path / "worker-0.log"
    output = RoleOutput("worker 0", os.fdopen(reader, "rb"), log, Console(shown, colour=False))
    output.start()
    os.write(writer, b"one\ntwo \xff\nno newline")
    os.close(writer)
    output.join()
    assert shown.getvalue() == "[worker 0] one\n[worker 0] two \ufffd\n[worker 0] no newline\n"
    assert log.read_bytes() == b"one\ntwo \xff\nno newline"


def test_colour_marks_the_role_and_leaves_its_line_alone() -> None:
    shown = io.StringIO()
    Console(shown, colour=True).show("ps 1", "ready")
    assert shown.getvalue() == "\x1b[33m[ps 1]\x1b[0m ready\n"


def test_reading_goes_on_when_nobody_reads_us_any_more(tmp_path: Path) -> None:
    our_reader, our_writer = os.pipe()
    os.close(our_reader)
    reader, writer = os.pipe()
    log = tmp_path / "chief.log"
    stdout = os.fdopen(our_writer, "w")
    output = RoleOutput("chief", os.fdopen(reader, "rb"), log, Console(stdout, colour=False))
    output.start()
    os.write(writer, b"one\ntwo\n")
    os.close(writer)
    output.join()
    assert log.read_bytes() == b"one\ntwo\n"
    with contextlib.suppress(BrokenPipeError):
        stdout.close()
