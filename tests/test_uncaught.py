"""Uncaught errors in processes of their own: who shows them, and how."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from psys.errors import ConfigError
from psys.uncaught import one_line

FAIL = """
def build():
    psys.estimator.RunConfig(keep_checkpoint_max=-1)

build()
"""


def run(program: str, tmp_path: Path, *options: str, stdin: str = "") -> str:
    path = tmp_path / "train.py"
    path.write_text(program)
    done = subprocess.run(
        [sys.executable, *options, str(path)],
        input=stdin, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == (0 if options else 1)
    return done.stderr


def test_it_is_one_line_with_the_programs_own_place(tmp_path: Path) -> None:
    shown = run("import psys\n" + FAIL, tmp_path)
    assert shown.startswith("psys: ConfigError: ")
    assert shown.endswith(" (train.py, line 4)\n")
    assert shown.count("\n") == 1


def test_a_message_of_several_lines_is_folded() -> None:
    assert one_line(ConfigError("expected\n  one\n  two")) == "ConfigError: expected one two"


def test_other_errors_are_shown_as_ever(tmp_path: Path) -> None:
    shown = run("import psys\n{}['x']", tmp_path)
    assert shown.startswith("Traceback")
    assert shown.endswith("KeyError: 'x'\n")


@pytest.mark.parametrize("first", [True, False], ids=["before psys", "after psys"])
def test_a_hook_of_the_programs_own_stays(tmp_path: Path, first: bool) -> None:
    own = "import sys; sys.excepthook = lambda kind, *_: print('mine', kind, file=sys.stderr)"
    head = [own, "import psys"] if first else ["import psys", own]
    shown = run("\n".join([*head, FAIL]), tmp_path)
    assert shown == "mine <class 'psys.errors.ConfigError'>\n"


def test_an_interactive_interpreter_shows_the_traceback(tmp_path: Path) -> None:
    shown = run("import psys\n" + FAIL, tmp_path, "-i", stdin="exit()\n")
    assert "Traceback" in shown


def test_ubuntus_crash_reporter_is_nobodys_wish(tmp_path: Path) -> None:
    (tmp_path / "apport_python_hook.py").write_text(
        "import sys\n"
        "def hook(*exception):\n    print('report', file=sys.stderr)\n"
        "sys.excepthook = hook\n"
    )
    head = "import apport_python_hook, psys\n"
    assert run(head + FAIL, tmp_path).startswith("psys: ConfigError: ")
    assert run(head + "1 / 0", tmp_path) == "report\n"
