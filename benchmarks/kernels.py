"""Times each kernel beside its plain numpy twin: ``python benchmarks/kernels.py [--runs N]``.

A table of 1,000,000 rows of 16 float32 and the ids of one batch (13,312, Zipf-distributed or
uniform) stand for sparse work, 1,500,000 float32 for dense work. Kernel and twin take turns, so
that a drift of the machine's speed hits both; medians count. Prints a table and writes
``benchmarks/results/kernels.json``. Compilation is not timed: it happens before, or once a machine.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from psys import kernels
from psys.arrays import all_finite

HERE = Path(__file__).resolve().parent
ROWS, WIDTH, IDS, DENSE = 1_000_000, 16, 13_312, 1_500_000
Call = Callable[[], Any]


def load_oracle(name: str) -> Any:
    """Return a module of oracles that the tests compare the kernels with."""
    path = HERE.parent / "tests" / "kernels" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def median_ms(calls: list[Call], runs: int) -> list[float]:
    """Return the median of each call, which take turns."""
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    for _ in range(runs):
        for call, spent in zip(calls, times, strict=True):
            begun = time.perf_counter()
            call()
            spent.append(time.perf_counter() - begun)
    return [1e3 * statistics.median(spent) for spent in times]


def sparse_updates(twins: Any, name: str, ids: Any) -> tuple[Call, Call]:
    """Return kernel and twin of one sparse update, each on a table of its own."""
    rows = 50_000 if name == "adam" else ROWS  # which moves every row
    indices = np.unique(ids % rows)
    gradient = np.random.default_rng(2).standard_normal((len(indices), WIDTH)).astype(np.float32)
    _, slots, numbers = twins.TWINS[name]

    def tables() -> list[Any]:
        return [np.full((rows, WIDTH), 0.1, np.float32) for _ in range(1 + slots)]

    mine, theirs = tables(), tables()
    return (
        lambda: kernels.update_rows(name, mine[0], mine[1:], indices, gradient, numbers),
        lambda: twins.update_rows(name, theirs[0], theirs[1:], indices, gradient, numbers),
    )


def dense_updates(twins: Any, name: str) -> tuple[Call, Call]:
    """Return kernel and twin of one dense update."""
    update, slots, numbers = twins.TWINS[name]
    gradient = np.random.default_rng(3).standard_normal(DENSE).astype(np.float32)
    mine = [np.full(DENSE, 0.1, np.float32) for _ in range(1 + slots)]
    theirs = [one.copy() for one in mine]
    typed = np.array(numbers, np.float32)
    return (
        lambda: kernels.update_dense(name, mine[0], mine[1:], gradient, numbers),
        lambda: update(theirs[0], theirs[1:], gradient, typed),
    )


def at_once(pair: tuple[Call, Call], other: tuple[Call, Call]) -> tuple[Call, Call]:
    """Return kernel and twin run in two threads at once, on two tables."""

    def joined(first: Call, second: Call) -> Call:
        def run() -> None:
            thread = threading.Thread(target=second)
            thread.start()
            first()
            thread.join()

        return run

    return joined(pair[0], other[0]), joined(pair[1], other[1])


def both(kernel: Call, twin: Call) -> tuple[Call, Call]:
    return kernel, twin


def layers(twins: Any, ids: Any) -> dict[str, tuple[Call, Call]]:
    """Return what a layer does with the rows of 26 columns, there and back: kernel and twin."""
    generator = np.random.default_rng(4)
    columns = ids.reshape(26, -1)
    pairs = [np.unique(one, return_inverse=True) for one in columns]
    index = np.stack([inverse.reshape(-1) for _, inverse in pairs])
    stops = np.cumsum([len(found) for found, _ in pairs])
    firsts = np.concatenate([[0], stops[:-1]])
    parts = np.stack([firsts, stops, np.arange(26) * WIDTH], axis=1)
    rows = generator.standard_normal((int(stops[-1]), WIDTH)).astype(np.float32)
    wide = generator.standard_normal((columns.shape[1], 26 * WIDTH)).astype(np.float32)
    out, sums = np.zeros_like(wide), np.zeros_like(rows)
    return {
        "place_rows": (
            lambda: kernels.place_rows(rows, index, parts, out, add=False),
            lambda: twins.place_rows(rows, index, parts, out, add=False),
        ),
        "sum_placed": (
            lambda: kernels.sum_placed(wide, index, parts, sums),
            lambda: twins.sum_placed(wide, index, parts, sums),
        ),
    }


def hashes(farmhash: Any, ids: Any) -> dict[str, tuple[Call, Call]]:
    """Return hashing strings: kernel, and the oracle in plain Python."""
    found: dict[str, tuple[Call, Call]] = {}
    for width in (8, 20):
        strings = ids.astype(f"S{width}")
        listed = strings.tolist()
        found[f"fingerprint64, S{width} (beside Python)"] = (
            lambda strings=strings: kernels.fingerprint64(strings),
            lambda listed=listed: [farmhash.one_by_one(one) for one in listed],
        )
    return found


def cases(twins: Any, farmhash: Any) -> dict[str, Callable[[], tuple[Call, Call]]]:
    """Return what is timed: name → makes kernel and twin, with the arrays they work on."""
    generator = np.random.default_rng(1)
    zipf = generator.zipf(1.2, IDS).astype(np.int64) % ROWS
    uniform = generator.integers(0, ROWS, IDS)
    values = generator.standard_normal((IDS, WIDTH)).astype(np.float32)
    dense = generator.standard_normal(DENSE).astype(np.float32)
    halves, bhalves = dense.astype(np.float16), kernels.to_bfloat16(dense)
    inverse = np.unique(zipf, return_inverse=True)[1].reshape(-1)
    found: dict[str, Callable[[], tuple[Call, Call]]] = {}
    for ids, kind in ((zipf, "Zipf"), (uniform, "uniform")):
        found[f"unique, {kind}"] = partial(
            both, partial(kernels.unique, ids), partial(np.unique, ids, return_inverse=True)
        )
        found[f"sum_duplicates, {kind}"] = partial(
            both,
            partial(kernels.sum_duplicates, ids, values),
            partial(twins.sum_duplicates, ids, values),
        )
        table = np.full((ROWS, WIDTH), 0.1, np.float32)
        wanted = np.unique(ids)
        found[f"take_rows, {kind}"] = partial(
            both,
            partial(kernels.take_rows, table, wanted),
            partial(np.take, table, wanted, axis=0),
        )
        for name in twins.TWINS:
            found[f"{name}, sparse, {kind}"] = partial(sparse_updates, twins, name, ids)
    for name in twins.TWINS:
        if name != "lazy_adam":  # on a dense gradient the same as adam
            found[f"{name}, dense"] = partial(dense_updates, twins, name)
    found["adagrad, sparse, uniform, two threads"] = lambda: at_once(
        sparse_updates(twins, "adagrad", uniform), sparse_updates(twins, "adagrad", uniform)
    )
    pairs: dict[str, tuple[Call, Call]] = {
        "add_rows": (
            lambda: kernels.add_rows(values, inverse, IDS),
            lambda: twins.add_rows(values, inverse, IDS),
        ),
        "all_finite": (lambda: all_finite(dense), lambda: np.isfinite(dense).all()),
        "to_float16": (lambda: kernels.to_float16(dense), lambda: dense.astype(np.float16)),
        "from_float16": (
            lambda: kernels.from_float16(halves),
            lambda: halves.astype(np.float32),
        ),
        "to_bfloat16": (lambda: kernels.to_bfloat16(dense), lambda: twins.to_bfloat16(dense)),
        "from_bfloat16": (
            lambda: kernels.from_bfloat16(bhalves),
            lambda: (bhalves.astype(np.uint32) << 16).view(np.float32),
        ),
    }
    pairs |= layers(twins, zipf) | hashes(farmhash, zipf)
    return found | {name: partial(both, *pair) for name, pair in pairs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=21)
    parser.add_argument("--only", default="", help="time those whose name contains this")
    options = parser.parse_args()
    results: dict[str, dict[str, float]] = {}
    print(f"{'median of ' + str(options.runs):44}{'kernel':>10}{'numpy':>10}{'ratio':>7}")
    for name, make in cases(load_oracle("twins"), load_oracle("farmhash")).items():
        if options.only not in name:
            continue
        kernel, twin = median_ms(list(make()), options.runs)
        results[name] = {"kernel_ms": kernel, "numpy_ms": twin, "ratio": twin / kernel}
        print(f"{name:44}{kernel:7.3f} ms{twin:7.2f} ms{twin / kernel:7.1f}")
        sys.stdout.flush()
    if not options.only:
        (HERE / "results" / "kernels.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
