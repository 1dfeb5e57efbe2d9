from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

import psys
from psys.cli.main import main

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("arguments", [["--version"], ["version"]])
def test_python_m_psys_is_psys(run_psys: Run, arguments: list[str]) -> None:
    result = run_psys(*arguments)
    assert (result.returncode, result.stdout) == (0, psys.__version__ + "\n")


def test_an_unknown_command_is_one_clear_line(run_psys: Run) -> None:
    result = run_psys("checkpoint", "x")
    assert result.returncode == 2
    assert "invalid choice: 'checkpoint'" in result.stderr.splitlines()[-1]


def test_an_error_psys_raised_is_one_line_without_a_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["checkpoints", "/no/such/model_dir"]) == 2
    assert capsys.readouterr().err == (
        "psys checkpoints: expected a model_dir or HOST:PORT, but '/no/such/model_dir' is no "
        "directory and no address\n"
    )
