"""A process that exchanges does not give freed memory back, to take it again page by page."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, threading
import numpy as np

if sys.argv[1] == "keep":
    from psys.rpc.freed_memory import keep_freed_memory
    keep_freed_memory()

def exchange():
    # A request, copies of what it asks for, the reply: all freed in one go.
    blocks = [np.ones(size, np.uint8) for size in (3 << 20, 5 << 20, 7 << 20)]
    del blocks

def steps():
    exchange()
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for _ in range(50):
        exchange()
    print((resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before) / 50)

thread = threading.Thread(target=steps)  # as a ps serves: not from the main arena
thread.start()
thread.join()
"""


def faults_a_step(how: str) -> float:
    command = [sys.executable, "-c", PROGRAM, how]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has no mallopt")
def test_what_a_step_frees_the_next_one_uses() -> None:
    assert faults_a_step("keep") < 50 < faults_a_step("give back")
