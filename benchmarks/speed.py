"""What this machine gives at the moment: import it before numpy, for it asks for one thread."""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
for _name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(_name, None)  # the probe is of what this CPU can do

import platform
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

SAME_SPEED = 0.15
"""Windows whose probes differ by more are not compared."""

_SIDE = 768
_matrix = np.ones((_SIDE, _SIDE), np.float32)
_product = np.empty_like(_matrix)


def probe_gflops(repeats: int = 7) -> float:
    """Return GFLOP/s of a float32 matrix product on one thread, the median of ``repeats``."""
    secs = []
    for _ in range(repeats):
        begun = time.perf_counter()
        np.dot(_matrix, _matrix, out=_product)
        secs.append(time.perf_counter() - begun)
    return 2 * _SIDE**3 / statistics.median(secs) / 1e9


def busy_secs() -> float:
    """Return CPU seconds that all processes of this machine have used."""
    fields = Path("/proc/stat").read_text().split("\n")[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def describe_machine() -> dict[str, Any]:
    """Return what a reader of the figures should know of this machine."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = {line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")}
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": ", ".join(sorted(models)),
        "cores": os.cpu_count(),
        "memory_gib": round(memory_bytes / 2**30, 1),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "probe_gflops": round(probe_gflops(), 1),
    }
