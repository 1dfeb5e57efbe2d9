"""psys beside TF 2.15.1's tf.estimator: the same data, models, topologies, minutes.

    python benchmarks/against_tf.py --tf-python benchmarks/.venv-tf/bin/python

For each workload and topology the jobs of all variants are started one after another (each
alone, which gives the time to the first step), then frozen. They take turns: one is thawed,
settles, is measured over a window, and is frozen again; a speed probe runs before and after each
window, while all are frozen. A ratio is formed within a round only, of windows at one speed;
``others`` is how many cores other processes took, ``rounds`` how many were at one speed throughout,
``first`` and ``last`` the seconds to the first step of the first and last trainer, ``tr. MiB`` the
resident memory of a trainer (``peak``: its peak), ``CPU ms`` that of all roles for one step.

Prints a table and writes ``benchmarks/results/against_tf.json``.
"""

from __future__ import annotations

import speed  # first: it asks numpy for one thread

# isort: split

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clusters import THREADS, Job, Variant, end_on_signals
from workloads import WORKLOADS

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
SETTLE_SECS = 0.7
ROUNDS_LIMIT = 3
"""So many times the rounds asked for are tried, to get enough at one speed."""
VARIANTS = ("psys:pipeline_depth=1", "psys-0:pipeline_depth=0")
GRPC_VARIANTS = (
    "psys-grpc:pipeline_depth=1,env.PSYS_SHM_DIR=none",
    "psys-bf16:pipeline_depth=1,env.PSYS_SHM_DIR=none,push_dtype=bfloat16",
)
"""B too, whose dense variables are 6 MB, as between hosts: without shared memory."""
CLUSTERS = ("chief+1ps", "chief+1worker+2ps", "chief+2workers+2ps")


def psys_variant(text: str) -> Variant:
    """Return the variant of ``name:key=value,env.KEY=value``: strategy arguments, environment."""
    name, _, settings = text.partition(":")
    strategy: dict[str, Any] = {}
    env = {"PYTHONPATH": str(HERE.parent)}
    for setting in filter(None, settings.split(",")):
        key, _, value = setting.partition("=")
        if key.startswith("env."):
            env[key[4:]] = value
        else:
            strategy[key] = int(value) if value.isdecimal() else value
    return Variant(name, sys.executable, "train_psys.py", {"strategy": strategy}, env)


def with_threads(variant: Variant, topology: str) -> Variant:
    """Give numpy's libraries one thread in each role of a cluster, as ``psys run`` does."""
    if topology == "local" or variant.script == "train_tf.py":
        return variant  # TF shares out its own threads
    env = {**dict.fromkeys(THREADS, "1"), **variant.env}
    return Variant(variant.name, variant.python, variant.script, variant.options, env)


def measure_window(job: Job, secs: float) -> dict[str, Any]:
    """Let a frozen job run for a while; return what it did."""
    before = speed.probe_gflops()
    job.thaw()
    try:
        time.sleep(SETTLE_SECS)
        counts, cpu, busy = job.counts(), job.cpu_secs(), speed.busy_secs()
        begun = time.monotonic()
        time.sleep(secs)
        counts_after, cpu_after, busy_after = job.counts(), job.cpu_secs(), speed.busy_secs()
        wall = time.monotonic() - begun
    finally:
        job.freeze()
    job.check()
    rates, steps = {}, 0
    for name, after in counts_after.items():
        took = after.steps - counts[name].steps
        steps += took
        rates[name] = took / max(after.last_secs - counts[name].last_secs, 1e-9)
    used = {name: cpu_after[name] - cpu[name] for name in cpu}
    return {
        "steps_per_sec": sum(rates.values()),
        "by_trainer": rates,
        "cpu_ms_per_step": {name: 1e3 * one / max(steps, 1) for name, one in used.items()},
        "others_cores": max(busy_after - busy - sum(used.values()), 0.0) / wall,
        "gflops": (before + speed.probe_gflops()) / 2,
        "at": time.time(),
    }


def measure_cell(
    variants: Sequence[Variant], workload: str, topology: str, rounds: int, secs: float
) -> dict[str, Any]:
    """Measure all variants of one workload and topology, taking turns."""
    result: dict[str, Any] = {
        "workload": workload,
        "topology": topology,
        "variants": {one.name: {"windows": []} for one in variants},
    }
    with ExitStack() as stack:
        jobs: dict[str, Job] = {}
        for variant in variants:
            alone = variant.script == "train_bound.py"
            job = stack.enter_context(
                Job(with_threads(variant, topology), workload, "local" if alone else topology)
            )
            found = result["variants"][variant.name]
            found["first_step_secs"] = job.wait_first_steps()
            job.wait_steady()
            job.freeze()
            jobs[variant.name] = job
        for number in range(ROUNDS_LIMIT * rounds):
            for name, job in jobs.items():
                window = {"round": number, **measure_window(job, secs)}
                result["variants"][name]["windows"].append(window)
            if same_speed_rounds(result) >= rounds:
                break
        for name, job in jobs.items():
            result["variants"][name]["memory_mib"] = job.memory_mib()
    return result


def same_speed(windows: Iterable[dict[str, Any]]) -> bool:
    """Return whether the probes of some windows differ by no more than SAME_SPEED."""
    probes = [one["gflops"] for one in windows]
    return max(probes) <= (1 + speed.SAME_SPEED) * min(probes)


def rounds_of(result: dict[str, Any]) -> list[dict[str, dict[str, Any]]]:
    """Return each round's windows by variant."""
    by_name = {name: found["windows"] for name, found in result["variants"].items()}
    together = zip(*by_name.values(), strict=True)
    return [dict(zip(by_name, windows, strict=True)) for windows in together]


def same_speed_rounds(result: dict[str, Any]) -> int:
    return sum(same_speed(one.values()) for one in rounds_of(result))


def summarize(result: dict[str, Any]) -> None:
    """Add medians and ratios: over whole rounds at one speed, else over pairs at one speed."""
    rounds = rounds_of(result)
    even = [one for one in rounds if same_speed(one.values())]
    result["rounds_at_one_speed"] = len(even)
    for name, found in result["variants"].items():
        windows = [one[name] for one in even or rounds]
        found["steps_per_sec"] = statistics.median(one["steps_per_sec"] for one in windows)
        found["cpu_ms_per_step"] = {
            role: statistics.median(one["cpu_ms_per_step"][role] for one in windows)
            for role in windows[0]["cpu_ms_per_step"]
        }
        found["gflops"] = statistics.median(one["gflops"] for one in windows)
        found["others_cores"] = statistics.median(one["others_cores"] for one in windows)
        found["ratio"], found["ratio_of_all_rounds"], found["pairs"] = {}, {}, {}
        for base in result["variants"]:
            pairs = [one for one in rounds if same_speed((one[name], one[base]))]
            found["pairs"][base] = len(pairs)
            found["ratio_of_all_rounds"][base] = statistics.median(
                one[name]["steps_per_sec"] / one[base]["steps_per_sec"] for one in rounds
            )
            if pairs:
                found["ratio"][base] = statistics.median(
                    one[name]["steps_per_sec"] / one[base]["steps_per_sec"] for one in pairs
                )


def print_cell(result: dict[str, Any]) -> None:
    tf_names = [name for name in result["variants"] if name.startswith("tf")]
    # Against the faster of TF's own estimators.
    base = max(tf_names, key=lambda n: result["variants"][n]["steps_per_sec"], default=None)
    for name, found in result["variants"].items():
        ratio = found["ratio"].get(base, float("nan")) if base else float("nan")
        cpu = found["cpu_ms_per_step"]
        ps = [one for role, one in found["memory_mib"].items() if role.startswith("ps")]
        trainers = [one for role, one in found["memory_mib"].items() if not role.startswith("ps")]
        first = found["first_step_secs"].values()
        print(
            f"{result['workload']} {result['topology']:19}{name:16}"
            f"{found['steps_per_sec']:8.1f}{f'{ratio:.2f}' if base else '-':>7}"
            f"{sum(cpu.values()):9.1f}"
            f"{sum(v for k, v in cpu.items() if k.startswith('ps')):7.1f}"
            f"{min(first):8.1f}{max(first):7.1f}"
            f"{max((one['now'] for one in ps), default=0):8.0f}"
            f"{max((one['peak'] for one in ps), default=0):7.0f}"
            f"{max(one['now'] for one in trainers):8.0f}"
            f"{max(one['peak'] for one in trainers):7.0f}"
            f"{found['gflops']:7.0f}{found['others_cores']:8.2f}{result['rounds_at_one_speed']:7}"
        )


LEGEND = (
    "ratio: to TF's steps/s. CPU ms: of all roles, a step. first, last: s from the start to the "
    "first\nand the last trainer's first step. MiB: resident. GF/s: the speed probe. others: cores "
    "that other\nprocesses used; windows with others > 0.1 say little. rounds: that ran at one "
    "speed."
)
HEADER = (
    f"{'':2}{'topology':19}{'variant':16}{'steps/s':>8}{'ratio':>7}{'CPU ms':>9}{'of ps':>7}"
    f"{'first':>8}{'last':>7}{'ps MiB':>8}{'peak':>7}{'tr. MiB':>8}{'peak':>7}{'GF/s':>7}"
    f"{'others':>8}{'rounds':>7}"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workloads", default="A,B,C")
    parser.add_argument("--topologies", default="local," + ",".join(CLUSTERS))
    parser.add_argument("--windows", type=int, default=3, help="rounds at one speed")
    parser.add_argument("--secs", type=float, default=5.0, help="of one window")
    parser.add_argument("--tf-python", help="the interpreter of TF's virtual environment")
    parser.add_argument("--tf-estimators", default="v1,v2", help="of TF 1.x's and TF 2's, which")
    parser.add_argument("--no-tf", action="store_true")
    parser.add_argument("--no-bound", action="store_true", help="leave out the bound with no ps")
    parser.add_argument(
        "--variant",
        action="append",
        metavar="NAME:KEY=VALUE,…",
        help="a way to run psys: arguments of ParameterServerStrategy, env.NAME=VALUE",
    )
    parser.add_argument("--quick", action="store_true", help="psys alone, in under two minutes")
    parser.add_argument("--output", type=Path, default=RESULTS / "against_tf.json")
    parser.add_argument("--reread", type=Path, help="print the table of a JSON file again")
    options = parser.parse_args()
    if options.reread:
        print(LEGEND)
        print(HEADER)
        for cell in json.loads(options.reread.read_text())["cells"]:
            summarize(cell)
            print_cell(cell)
        return
    if options.quick:
        options.no_tf, options.no_bound, options.windows, options.secs = True, True, 1, 2.0
        options.variant = options.variant or VARIANTS[:1]
        if options.output == parser.get_default("output"):
            options.output = RESULTS / "quick" / options.output.name  # not the figures kept
    end_on_signals()
    others: list[Variant] = []
    if not options.no_tf:
        if not options.tf_python:
            parser.error("--tf-python is needed (make bench-tf-venv), or --no-tf.")
        others = [
            Variant(f"tf-{kind}", options.tf_python, "train_tf.py", {"estimators": kind})
            for kind in options.tf_estimators.split(",")
        ]
    bound = Variant("no ps", sys.executable, "train_bound.py", {}, {"PYTHONPATH": str(HERE.parent)})
    results: dict[str, Any] = {
        "machine": speed.describe_machine(),
        "variants": {},
        "cells": [],
    }
    print(LEGEND)
    print(HEADER)
    for workload in options.workloads.split(","):
        assert workload in WORKLOADS, f"no workload {workload!r}"
        for topology in options.topologies.split(","):
            assert topology in f"no topology {topology!r}"
            texts = list(options.variant or VARIANTS)
            if not options.variant and workload == "B" and topology != "local":
                texts += GRPC_VARIANTS
            variants = [*map(psys_variant, texts), *others]
            if topology == "chief+1ps" and not options.no_bound:
                variants.append(bound)
            results["variants"].update({one.name: asdict(one) for one in variants})
            cell = measure_cell(
                variants,
                workload,
                topology,
                options.windows,
                options.secs,
            )
            summarize(cell)
            print_cell(cell)
            sys.stdout.flush()
            results["cells"].append(cell)
            options.output.parent.mkdir(parents=True, exist_ok=True)
            options.output.write_text(json.dumps(results, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
