"""Where the time of one step goes: ``python benchmarks/profile_step.py [--workloads A,B,C]``.

Runs a cluster as ``against_tf.py`` does, with timers around the parts of a step in every role
(``probes.py``), and prints for the chief and each ps, a step: wall time, the CPU time of the
thread that did it, and what of the process's CPU no part accounts for (gRPC's own threads, the
interpreter between parts). The timers cost something themselves: the rate with and without them
is printed. Prints tables and writes ``benchmarks/results/profile.json``.
"""

from __future__ import annotations

import speed  # first: it asks numpy for one thread

# isort: split

import argparse
import json
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from against_tf import RESULTS, psys_variant, with_threads
from clusters import Job, Variant, end_on_signals
from workloads import WORKLOADS


def run_profiled(variant: Variant, workload: str, topology: str, secs: float) -> dict[str, Any]:
    """Return each role's parts over a window, by role."""
    with tempfile.TemporaryDirectory(prefix="psys-profile-") as folder:
        extra = {"profile": folder}
        with Job(with_threads(variant, topology), workload, topology, extra) as job:
            job.wait_steady()
            before = speed.probe_gflops()
            tell(job, signal.SIGUSR1)
            counts = job.counts()
            time.sleep(secs)
            after = job.counts()
            tell(job, signal.SIGUSR2)
            roles = {
                role.name: read_when_there(Path(folder) / f"{role.name}.json") for role in job.roles
            }
        steps = {name: after[name].steps - counts[name].steps for name in after}
        return {"roles": roles, "steps": steps, "secs": secs, "gflops": before}


def rate_without(variant: Variant, workload: str, topology: str, secs: float) -> float:
    with Job(with_threads(variant, topology), workload, topology) as job:
        job.wait_steady()
        counts = job.counts()
        time.sleep(secs)
        after = job.counts()
    return sum(after[name].steps - counts[name].steps for name in after) / secs


def tell(job: Job, number: signal.Signals) -> None:
    for role in job.roles:
        os.kill(role.process.pid, number)


def read_when_there(path: Path) -> Any:
    until = time.monotonic() + 30
    while not path.exists():
        if time.monotonic() > until:
            raise RuntimeError(f"no figures in {path}")
        time.sleep(0.02)
    return json.loads(path.read_text())


def print_role(name: str, figures: dict[str, Any], steps: int) -> None:
    print(f"  {f'{name}: ms a step ({steps} steps)':44}{'wall':>7}{'CPU':>8}{'calls':>8}")
    parts = sorted(figures["parts"].items(), key=lambda item: -item[1]["wall_secs"])
    cpu_secs = 0.0
    for part, one in parts:
        cpu_secs += one["cpu_secs"]
        wall_ms, cpu_ms = 1e3 * one["wall_secs"] / steps, 1e3 * one["cpu_secs"] / steps
        print(f"    {part:42}{wall_ms:7.2f} {cpu_ms:7.2f}{one['calls'] / steps:8.1f}")
    rest_ms = 1e3 * (figures["process_cpu_secs"] - cpu_secs) / steps
    print(f"    {'CPU in no part (gRPC threads and the like)':42}{'':7} {rest_ms:7.2f}")
    wall_ms, cpu_ms = 1e3 * figures["secs"] / steps, 1e3 * figures["process_cpu_secs"] / steps
    print(f"    {'the process, all together':42}{wall_ms:7.2f} {cpu_ms:7.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workloads", default="A,B,C")
    parser.add_argument("--topologies", default="chief+1ps")
    parser.add_argument("--secs", type=float, default=6.0)
    parser.add_argument("--variant", default="psys", metavar="NAME:KEY=VALUE,…")
    parser.add_argument("--output", type=Path, default=RESULTS / "profile.json")
    options = parser.parse_args()
    end_on_signals()
    variant = psys_variant(options.variant)
    results: dict[str, Any] = {"machine": speed.describe_machine(), "profiles": []}
    for workload in options.workloads.split(","):
        assert workload in WORKLOADS, f"no workload {workload!r}"
        for topology in options.topologies.split(","):
            assert topology in f"no topology {topology!r}"
            plain = rate_without(variant, workload, topology, options.secs)
            found = run_profiled(variant, workload, topology, options.secs)
            total = sum(found["steps"].values())
            print(
                f"{workload} {topology}: {plain:.1f} steps/s, {total / options.secs:.1f} with "
                f"timers, {found['gflops']:.0f} GF/s"
            )
            for name, figures in found["roles"].items():
                # A ps serves every trainer's step; a trainer only its own.
                print_role(name, figures, max(found["steps"].get(name, total), 1))
                for missing in figures["missing"]:
                    print(f"    not in this version: {missing}")
            results["profiles"].append(
                {"workload": workload, "topology": topology, "steps_per_sec": plain, **found}
            )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
