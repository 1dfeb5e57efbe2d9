"""Which matrix kernels numpy is asked to use, in interpreters of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from psys.environment import WIDE_KERNELS, child_environment

NAME = "OPENBLAS_CORETYPE"
CPU = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
WIDE = "AuthenticAMD" in CPU and all(
    f" {flag}" in CPU for flag in ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
)


def chosen(program: str, **environment: str) -> str:
    """Return what the variable is at the end of a program."""
    bare = {name: value for name, value in os.environ.items() if name != NAME}
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport os\nprint(os.environ.get('{NAME}'))"],
        env={**bare, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_wide_vectors_are_used_where_the_cpu_has_them() -> None:
    assert chosen("import psys") == (WIDE_KERNELS if WIDE else "None")


def test_what_the_user_chose_stays() -> None:
    assert chosen("import psys", OPENBLAS_CORETYPE="Haswell") == "Haswell"


def test_once_numpy_is_there_it_is_too_late() -> None:
    assert chosen("import numpy\nimport psys") == "None"


def test_launched_processes_are_told_before_they_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NAME, raising=False)
    assert child_environment({}).get(NAME) == (WIDE_KERNELS if WIDE else None)
    monkeypatch.setenv(NAME, "Haswell")
    assert child_environment({})[NAME] == "Haswell"
