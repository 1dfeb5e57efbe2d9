"""How throughput grows with workers and ps: a simulation of measured service times.

Measured here, on a small cluster: the CPU time of one step in a trainer and on a ps, what of the
trainer's is the input thread's, and the CPU time of the smallest exchange at both ends. The
simulation moves steps through trainers and ps by these times:

- a trainer computes, sends its step to every ps, prepares a later batch while it waits, and goes
  on when all have answered (pipeline_depth 0);
- a ps serves one request at a time, in order of arrival: the smallest exchange's time, plus its
  share (one over the number of ps) of what a step costs beyond that;
- sending to and hearing from each further ps costs the trainer the smallest exchange's time;
- with ``--nic-gbits`` bytes queue at each ps's network card, both ways.

Real runs of 1 to 4 trainers check it, with the simulated roles sharing this machine's cores in
equal parts; then each role gets a core of its own, for 1-256 workers and 1-64 ps.

Prints tables and writes ``benchmarks/results/scale.json``; ``--plot FILE`` draws them.
"""

from __future__ import annotations

import speed  # first: it asks numpy for one thread

# isort: split

import argparse
import heapq
import json
import os
import random
import statistics
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from against_tf import RESULTS, psys_variant, with_threads
from clusters import Job, Variant, end_on_signals
from exchange import measure_size
from profile_step import run_profiled
from workloads import WORKLOADS

WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PS = (1, 2, 4, 8, 16, 32, 64)
SPREAD = 0.2
"""Standard deviation of a service time's logarithm: steps are not all alike."""
SERVICES = 40_000
"""So many services at ps are simulated for each point."""
SMALL_BYTES = 4096


@dataclass(frozen=True)
class Services:
    """Seconds of CPU, and bytes, of one step of one trainer against one ps."""

    trainer_secs: float
    input_secs: float
    ps_secs: float
    trainer_exchange_secs: float
    ps_exchange_secs: float
    bytes_each_way: float

    def per_ps(self, ps: int) -> float:
        """Return a ps's time for one step when there are ``ps`` of them."""
        beyond = max(self.ps_secs - self.ps_exchange_secs, 0.0)
        return self.ps_exchange_secs + beyond / ps

    def per_trainer(self, ps: int) -> float:
        """Return a trainer's own time for one step, input thread left out."""
        return self.trainer_secs - self.input_secs + (ps - 1) * self.trainer_exchange_secs


# ---------------------------------------------------------------- measuring


def measure_services(variant: Variant, workload: str, secs: float) -> Services:
    """Run chief + 1 ps, and the smallest exchanges, and return what they cost."""
    cpu, rate, _ = measure_real(variant, workload, "chief+1ps", secs)
    profile = run_profiled(with_threads(variant, "chief+1ps"), workload, "chief+1ps", secs)
    chief = profile["roles"]["chief-0"]
    of_input = sum(
        one["cpu_secs"] for part, one in chief["parts"].items() if part.startswith("ids:")
    )
    small = measure_size(
        SMALL_BYTES,
        {"memcpy": ("memcpy", {}), "sockets": ("sockets", {}), "psys": ("psys", variant.env)},
        rounds=3,
        secs=0.5,
    )["psys"]
    print(f"{workload}: {rate:.1f} steps/s, CPU ms {cpu}", file=sys.stderr)
    return Services(
        trainer_secs=cpu["chief-0"] / 1e3,
        input_secs=of_input / chief["process_cpu_secs"] * cpu["chief-0"] / 1e3,
        ps_secs=cpu["ps-0"] / 1e3,
        trainer_exchange_secs=small["client_cpu_ms"] / 1e3,
        ps_exchange_secs=small["server_cpu_ms"] / 1e3,
        bytes_each_way=bytes_of(workload),
    )


def bytes_of(name: str) -> float:
    """Return about how many bytes a step moves each way."""
    one = WORKLOADS[name]
    sizes = [one.numbers * one.number_width + one.strings * one.dimension, *one.hidden_units]
    classes = 1 if one.classes == 2 else one.classes
    dense = 0 if one.is_linear else int(np.dot(sizes, [*one.hidden_units, classes]))
    unique_rows = 0.46 * one.batch_size * one.strings  # of this data
    width = 1 if one.is_linear else one.dimension
    return 4.0 * dense + unique_rows * (4.0 * width + 8.0)


def measure_real(
    variant: Variant, workload: str, topology: str, secs: float
) -> tuple[dict[str, float], float, float]:
    """Return CPU ms a global step of each role, global steps a second, cores others took."""
    with Job(with_threads(variant, topology), workload, topology) as job:
        job.wait_steady()
        counts, cpu, busy = job.counts(), job.cpu_secs(), speed.busy_secs()
        time.sleep(secs)
        after, cpu_after, busy_after = job.counts(), job.cpu_secs(), speed.busy_secs()
    took = {name: after[name].steps - counts[name].steps for name in after}
    steps = sum(took.values())
    rate = sum(took[n] / (after[n].last_secs - counts[n].last_secs) for n in after if took[n])
    used = {name: cpu_after[name] - cpu[name] for name in cpu}
    others = max(busy_after - busy - sum(used.values()), 0.0) / secs
    return {name: 1e3 * one / steps for name, one in used.items()}, rate, others


# ---------------------------------------------------------------- simulating


def simulate(
    services: Services, workers: int, ps: int, nic_gbits: float = 0.0, seed: int = 1
) -> dict[str, Any]:
    """Return steps a second, and how busy each kind of station is; every role has a core."""
    draw = random.Random(seed)
    wire_secs = services.bytes_each_way / ps / (nic_gbits * 1e9 / 8) if nic_gbits else 0.0
    compute, serve = services.per_trainer(ps), services.per_ps(ps)
    rounds = max(12, SERVICES // (workers * ps))
    free_in, free_cpu, free_out = ([0.0] * ps for _ in range(3))
    events = [(draw.random() * compute, worker) for worker in range(workers)]
    heapq.heapify(events)
    done, busy = [0] * workers, 0.0
    half_time, half_steps, steps, now = 0.0, 0, 0, 0.0
    while steps < rounds * workers:
        # In order of the moment a trainer sends: stations serve in order of arrival.
        now, worker = heapq.heappop(events)
        answered = now
        for index in range(ps):
            at = free_in[index] = max(free_in[index], now) + wire_secs
            took = serve * draw.lognormvariate(0.0, SPREAD)
            at = free_cpu[index] = max(free_cpu[index], at) + took
            busy += took
            at = free_out[index] = max(free_out[index], at) + wire_secs
            answered = max(answered, at)
        ready = max(answered, now + services.input_secs)
        heapq.heappush(events, (ready + compute * draw.lognormvariate(0.0, SPREAD), worker))
        steps += 1
        done[worker] += 1
        if steps == rounds * workers // 2:
            half_time, half_steps, busy = now, steps, 0.0
    rate = (steps - half_steps) / (now - half_time)
    use = {
        "trainer": rate / workers * (compute + services.input_secs),
        "ps": rate * serve,
        "ps network": rate * wire_secs,
    }
    return {"steps_per_sec": rate, "use": use, "bound": max(use, key=lambda name: use[name])}


def simulate_shared(services: Services, trainers: int, ps: int, cores: float) -> float:
    """Return steps a second when all roles share ``cores`` in equal parts.

    Each role is one thread of work at a time (a Python process), so n busy roles each run at
    ``min(1, cores / n)``.
    """
    draw = random.Random(1)
    compute, serve = services.per_trainer(ps), services.per_ps(ps)
    # What is left of each role's present work: (kind, trainer) -> CPU seconds.
    left: dict[tuple[str, int], float] = {}
    waiting: list[deque[int]] = [deque() for _ in range(ps)]
    unanswered = [0] * trainers

    def begin(trainer: int) -> None:
        left["compute", trainer] = compute * draw.lognormvariate(0.0, SPREAD)

    def serve_next(index: int) -> None:
        if waiting[index]:
            left["serve", index] = serve * draw.lognormvariate(0.0, SPREAD)

    for trainer in range(trainers):
        begin(trainer)
    now, steps, goal = 0.0, 0, 600 * trainers
    begun = 0.0
    while steps < goal:
        pace = min(1.0, cores / len(left))
        role = min(left, key=lambda one: left[one])
        passed = left.pop(role)
        now += passed / pace
        for other in left:
            left[other] -= passed
        kind, index = role
        if kind == "compute":
            unanswered[index] = ps + 1  # the answers, and the input thread's batch
            left["input", index] = max(services.input_secs, 1e-9)
            for one in range(ps):
                waiting[one].append(index)
                if len(waiting[one]) == 1:
                    serve_next(one)
            continue
        trainer = index
        if kind == "serve":
            trainer = waiting[index].popleft()
            serve_next(index)
        unanswered[trainer] -= 1
        if not unanswered[trainer]:
            steps += 1
            if steps == goal // 4:
                begun = now
            begin(trainer)
    return (goal - goal // 4) / (now - begun)


# ---------------------------------------------------------------- the tables


def check_against_real(
    services: Services, variant: Variant, workload: str, secs: float, most: int
) -> list[dict[str, Any]]:
    """Run 1 to ``most`` trainers with 1 and 2 ps for real; return rates beside simulated ones."""
    cores = os.cpu_count() or 1
    rows = []
    print(f"{workload}, {cores} cores:   trainers  ps  cores   real  simulated  ratio")
    for ps in (1, 2):
        for trainers in range(1, most + 1):
            more = f"+{trainers - 1}workers" if trainers > 1 else ""
            _, real, others = measure_real(variant, workload, f"chief{more}+{ps}ps", secs)
            # What other processes took was not there for these.
            left = max(cores - others, 0.5)
            simulated = simulate_shared(services, trainers, ps, left)
            row = {"trainers": trainers, "ps": ps, "cores": left, "real": real}
            rows.append({**row, "simulated": simulated})
            print(
                f"{trainers:22}{ps:4}{left:7.2f}{real:8.1f}{simulated:10.1f}{simulated / real:8.2f}"
            )
    return rows


def grid(services: Services, nic_gbits: float) -> list[dict[str, Any]]:
    return [
        {"workers": workers, "ps": ps, **simulate(services, workers, ps, nic_gbits)}
        for ps in PS
        for workers in WORKERS
    ]


def print_grid(workload: str, points: list[dict[str, Any]]) -> None:
    print(f"{workload}: simulated steps/s, a core for each role (c: the trainers' computing is")
    print("the bound, p: the ps's, n: their network)")
    print("workers " + "".join(f"{f'{ps} ps':>9}" for ps in PS))
    by_place = {(one["workers"], one["ps"]): one for one in points}
    letters = {"trainer": "c", "ps": "p", "ps network": "n"}
    for workers in WORKERS:
        cells = (by_place[workers, ps] for ps in PS)
        print(
            f"{workers:7} "
            + "".join(f"{one['steps_per_sec']:8.0f}{letters[one['bound']]}" for one in cells)
        )


def saturation(services: Services, ps: int) -> dict[str, float]:
    """Return the ceiling of ``ps`` servers, and how many workers reach nine tenths of it."""
    ceiling = 1.0 / services.per_ps(ps)
    return {
        "ps": ps,
        "ceiling_steps_per_sec": ceiling,
        "workers_at_knee": ceiling
        * (services.per_trainer(ps) + max(services.input_secs, services.per_ps(ps))),
    }


def plot(results: dict[str, Any], path: Path) -> None:
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        sys.exit("--plot needs matplotlib: pip install 'psys[bench]'")
    workloads = results["workloads"]
    figure, axes = plt.subplots(1, len(workloads), figsize=(5 * len(workloads), 4), squeeze=False)
    for axis, (name, one) in zip(axes[0], workloads.items(), strict=True):
        for ps in PS:
            points = [point for point in one["grid"] if point["ps"] == ps]
            axis.plot(
                [point["workers"] for point in points],
                [point["steps_per_sec"] for point in points],
                marker=".",
                label=f"{ps} ps",
            )
        axis.set(title=name, xlabel="workers", ylabel="steps/s", xscale="log", yscale="log")
        axis.grid(True, which="major", alpha=0.3)
        axis.legend(fontsize="small")
    figure.suptitle("Simulated from measured service times, a core for each role")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workloads", default="A,B,C")
    parser.add_argument("--secs", type=float, default=5.0, help="of each real run")
    parser.add_argument("--most", type=int, default=4, help="trainers in the real runs")
    parser.add_argument("--nic-gbits", type=float, default=10.0, help="of each ps; 0: no limit")
    parser.add_argument("--variant", default="psys", metavar="NAME:KEY=VALUE,…")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    parser.add_argument("--output", type=Path, default=RESULTS / "scale.json")
    options = parser.parse_args()
    end_on_signals()
    variant = psys_variant(options.variant)
    results: dict[str, Any] = {"machine": speed.describe_machine(), "workloads": {}}
    for workload in options.workloads.split(","):
        services = measure_services(variant, workload, options.secs)
        print(f"{workload}: " + ", ".join(f"{k} {v:.6g}" for k, v in asdict(services).items()))
        real = check_against_real(services, variant, workload, options.secs, options.most)
        errors = [abs(row["simulated"] / row["real"] - 1) for row in real]
        print(f"{workload}: median error {100 * statistics.median(errors):.0f} %")
        points = grid(services, options.nic_gbits)
        print_grid(workload, points)
        ceilings = [saturation(services, ps) for ps in PS]
        results["workloads"][workload] = {
            "services": asdict(services),
            "check": real,
            "grid": points,
            "ceilings": ceilings,
        }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=1) + "\n")
    if options.plot:
        plot(results, options.plot)


if __name__ == "__main__":
    main()
