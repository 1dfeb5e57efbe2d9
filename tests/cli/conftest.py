"""What tests of the command line share: stand-in programs and the real ``psys`` process."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_PREAMBLE = """
import json, os, signal, subprocess, sys
CONFIG = json.loads(os.environ["TF_CONFIG"])
KIND, INDEX = CONFIG["task"]["type"], CONFIG["task"]["index"]

def conclude(**fields):
    path = os.environ["PSYS_VERDICT_FILE"]
    with open(path + ".new", "w") as file:
        json.dump(fields, file)
    os.rename(path + ".new", path)

def hang():
    while True:
        signal.pause()

"""


@pytest.fixture
def write_script(tmp_path: Path) -> Callable[[str], Path]:
    """Write a program that plays every role; it knows CONFIG, KIND, INDEX, conclude(), hang()."""

    def write(body: str) -> Path:
        path = tmp_path / "program.py"
        path.write_text(_PREAMBLE + body)
        return path

    return write


@pytest.fixture
def start_psys(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start ``python -m psys`` with its output in pipes; ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
        inherited = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
        process = subprocess.Popen(
            [sys.executable, "-m", "psys", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**inherited, "TMPDIR": str(tmp_path), **environment},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with process:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)


@pytest.fixture
def run_psys(
    start_psys: Callable[..., subprocess.Popen[str]],
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``python -m psys`` to its end."""

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        process = start_psys(*arguments, **environment)
        stdout, stderr = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    return run


@pytest.fixture
def ends() -> Callable[[int], bool]:
    """Wait for the end of a process that is not our child; whether it came within 20 s."""

    def wait(pid: int) -> bool:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return True
        try:
            return bool(select.select([descriptor], [], [], 20.0)[0])
        finally:
            os.close(descriptor)

    return wait
