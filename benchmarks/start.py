"""Times how a job starts: ``python benchmarks/start.py [--runs N] [--other PATH]``.

Workload A with a chief, 2 workers and 2 ps, all started at once: seconds from there to the last
trainer's first step, and the memory of each role a few seconds after it, when the first checkpoint
is written. Once with compiled kernels at hand, and once with an empty directory for them. Another
version of psys (``--other``, a directory that holds its package) takes turns. Prints medians and
writes ``benchmarks/results/start.json``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import speed
from against_tf import RESULTS, psys_variant, with_threads
from clusters import FIRST_CHECKPOINT_SECS, Job, end_on_signals

TOPOLOGY = "chief+2workers+2ps"


def start_once(root: Path | None, kernels: Path) -> dict[str, Any]:
    """Start the job once, let it write its first checkpoint, and end it."""
    env = {"env.NUMBA_CACHE_DIR": kernels, **({"env.PYTHONPATH": root} if root else {})}
    variant = psys_variant("psys:" + ",".join(f"{key}={value}" for key, value in env.items()))
    busy = speed.busy_secs()
    with Job(with_threads(variant, TOPOLOGY), "A", TOPOLOGY) as job:
        first = job.wait_first_steps()
        wall, busy = time.monotonic() - job.started_secs, speed.busy_secs() - busy
        used = sum(job.cpu_secs().values())
        time.sleep(FIRST_CHECKPOINT_SECS)
        memory = job.memory_mib()
    return {
        "first_step_secs": first,
        "cpu_secs": used,
        "others_cores": max(busy - used, 0.0) / wall,
        "memory_mib": memory,
        "gflops": speed.probe_gflops(),
    }


def summarize(name: str, starts: list[dict[str, Any]]) -> None:
    def peak(role: str, one: dict[str, Any]) -> float:
        return max(v["peak"] for k, v in one["memory_mib"].items() if k.startswith(role))

    last = [max(one["first_step_secs"].values()) for one in starts]
    others = [one["others_cores"] for one in starts]
    print(
        f"{name:16}{statistics.median(last):7.2f} s ({min(last):.2f} to {max(last):.2f}), "
        f"CPU {statistics.median(one['cpu_secs'] for one in starts):.1f} s; peak MiB: "
        + ", ".join(
            f"{role} {statistics.median(peak(role, one) for one in starts):.0f}"
            for role in ("ps", "chief", "worker")
        )
        + f"; others took {statistics.median(others):.1f} cores"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--other", type=Path, help="another version of psys, to take turns with")
    options = parser.parse_args()
    end_on_signals()
    roots: dict[str, Path | None] = {"": None}
    if options.other:
        roots["other "] = options.other.resolve()
    found: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="psys-bench-kernels-") as folder:
        kept = {name: Path(folder, f"kept-{i}") for i, name in enumerate(roots)}
        for name, root in roots.items():
            start_once(root, kept[name])  # compiles them; makes the data
        for run in range(options.runs):
            for name, root in roots.items():
                found.setdefault(name + "warm", []).append(start_once(root, kept[name]))
                empty = Path(folder, "empty")
                found.setdefault(name + "cold", []).append(start_once(root, empty))
                shutil.rmtree(empty)
            print(f"run {run + 1}/{options.runs}", file=sys.stderr)
    for name, starts in found.items():
        summarize(name, starts)
    results = {"machine": speed.describe_machine(), "starts": found}
    (RESULTS / "start.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
