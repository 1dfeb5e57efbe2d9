"""Times a whole small job, local and on clusters: ``python benchmarks/cluster.py [--runs N]``.

For each topology, medians over the runs of: from the last role's start to the first training
step, steps a second in between, from the last step to the exit of every role, and each role's
peak resident memory. Topologies take turns, so that a drift of the machine's speed hits all.
Prints a table and writes ``benchmarks/results/cluster.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
TOPOLOGIES: dict[str, list[str] | None] = {
    "local": None,
    "chief + 1 ps": ["--ps", "1", "--workers", "0"],
    "chief + 1 worker + 2 ps": ["--ps", "2", "--workers", "1"],
    "chief + 2 workers + 2 ps": ["--ps", "2", "--workers", "2"],
    "chief + 1 worker + 2 ps + evaluator": ["--ps", "2", "--workers", "1", "--evaluator"],
}


def speed_probe() -> float:
    """Return GFLOP/s of one matrix product, on one core as far as numpy lets it."""
    a = np.ones((1024, 1024), np.float32)
    a @ a
    begun = time.perf_counter()
    a @ a
    return 2 * 1024**3 / (time.perf_counter() - begun) / 1e9


def run_once(options: list[str] | None, max_steps: int) -> dict[str, Any]:
    """Run the job once; return its figures."""
    with tempfile.TemporaryDirectory(prefix="psys-bench-") as directory:
        job = [str(HERE / "job.py"), "--model_dir", f"{directory}/model"]
        job += ["--max_steps", str(max_steps)]
        launcher = [] if options is None else ["-m", "psys", "run", *options]
        if options is not None:
            launcher += ["--log-dir", f"{directory}/logs"]
        begun = time.time()
        done = subprocess.run(
            [sys.executable, *launcher, *job], capture_output=True, text=True, check=False
        )
        ended = time.time()
        if done.returncode:
            sys.exit(f"The job failed:\n{done.stdout}\n{done.stderr}")
        roles = [read_marks(path) for path in Path(f"{directory}/model").glob("marks-*.jsonl")]
    trainers = [role for role in roles if role["steps"]]
    first = min(role["first_step"] for role in trainers)
    last = max(role["last_step"] for role in trainers)
    return {
        "wall_secs": ended - begun,
        "start_secs": first - max(role["started"] for role in roles),
        "steps_per_sec": (sum(role["steps"] for role in trainers) - 1) / (last - first),
        "end_secs": ended - last,
        "peak_mib": {role["task"]: role["peak_mib"] for role in roles},
        "speed_gflops": speed_probe(),
    }


def read_marks(path: Path) -> dict[str, Any]:
    """Return all that one process noted."""
    marks: dict[str, Any] = {}
    for line in path.read_text().splitlines():
        marks.update(json.loads(line))
    return marks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--max_steps", type=int, default=2000)
    options = parser.parse_args()
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in TOPOLOGIES}
    for run in range(options.runs):
        for name, arguments in TOPOLOGIES.items():
            results[name].append(run_once(arguments, options.max_steps))
            print(f"run {run + 1}/{options.runs}: {name}", file=sys.stderr)
    print(
        f"{'median of ' + str(options.runs):38}{'start→step 1':>13}{'steps/s':>9}"
        f"{'last→exit':>11}{'wall':>8}  peak MiB"
    )
    for name, runs in results.items():

        def median(key: str, runs: list[dict[str, Any]] = runs) -> float:
            return statistics.median(run[key] for run in runs)

        peaks = {
            task: statistics.median(run["peak_mib"][task] for run in runs)
            for task in runs[0]["peak_mib"]
        }
        said = ", ".join(f"{task} {peak:.0f}" for task, peak in sorted(peaks.items()))
        print(
            f"{name:38}{median('start_secs'):11.2f} s{median('steps_per_sec'):9.0f}"
            f"{median('end_secs'):9.2f} s{median('wall_secs'):6.1f} s  {said}"
        )
    (HERE / "results" / "cluster.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
