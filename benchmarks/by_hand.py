"""A trainer's computing beside the same step written by hand: ``python benchmarks/by_hand.py``.

By hand means numpy, and psys's two compiled loops for rows, for these two networks and nothing
else: products, element-wise work, rows placed and the gradients of rows summed, in memory that is
there; no columns, layers, variables or differentiation, and no loss. Beside it the products alone,
and psys's model_fn with its loss and gradients. One thread, no parameter server, no input; they
take turns. Medians, in milliseconds. Prints a table, writes ``benchmarks/results/by_hand.json``.
"""

from __future__ import annotations

import speed  # first: it asks numpy for one thread

# isort: split

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from clusters import DATA
from train_bound import LocalVariable
from train_psys import input_fn_of, make_estimator
from workloads import WORKLOADS, Workload, load_data

import psys as tf
from psys import kernels
from psys.compute.train_store import TrainStore
from psys.rpc.freed_memory import keep_freed_memory
from psys.train.input_pipeline import InputContext, batches
from psys.train.model import build, loss_and_gradients

RESULTS = Path(__file__).resolve().parent / "results"
UNIQUE_ROWS = 240
"""Of each of workload A's tables, in one batch: 6,250 of all."""


class ByHand:
    """One network's step, into memory that is there."""

    def __init__(self, workload: Workload) -> None:
        """Make parameters and a batch of the workload's shapes."""
        generator = np.random.default_rng(1)
        self.batch = workload.batch_size
        self.embedded = workload.strings * workload.dimension
        inputs = workload.numbers * workload.number_width + self.embedded
        outputs = workload.classes if workload.classes > 2 else 1
        self.sizes = (inputs, *workload.hidden_units, outputs)
        self.kernels = [
            generator.normal(0, 0.05, pair).astype(np.float32) for pair in pairwise(self.sizes)
        ]
        self.biases = [np.zeros(size, np.float32) for size in self.sizes[1:]]
        self.by_kernel = [np.empty_like(one) for one in self.kernels]
        self.layers = [np.empty((self.batch, size), np.float32) for size in self.sizes]
        self.by_layer = [np.zeros_like(one) for one in self.layers]
        self.layers[0][:] = generator.standard_normal(self.layers[0].shape)
        tables, width = workload.strings, workload.dimension
        self.rows = generator.normal(0, 0.1, (tables * UNIQUE_ROWS, width)).astype(np.float32)
        self.by_rows = np.empty_like(self.rows)
        self.index = generator.integers(0, UNIQUE_ROWS, (tables, self.batch))
        first = np.arange(tables) * UNIQUE_ROWS
        self.parts = np.stack([first, first + UNIQUE_ROWS, np.arange(tables) * width], axis=1)
        self.zeros = [np.zeros(size, np.float32) for size in self.sizes[1:]]
        self.labels = generator.integers(0, workload.classes, self.batch)

    def step(self) -> None:
        """Compute the gradient of the mean loss by every kernel and bias, and by the rows."""
        if self.embedded:
            kernels.place_rows(self.rows, self.index, self.parts, self.layers[0], add=False)
        last = len(self.kernels) - 1
        for number, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            layer = np.matmul(self.layers[number], kernel, out=self.layers[number + 1])
            layer += bias
            if number < last:
                np.maximum(layer, self.zeros[number], out=layer)
        self._by_logits()
        for number in range(last, -1, -1):
            gradient = self.by_layer[number + 1]
            if number < last:
                gradient *= self.layers[number + 1] > 0
            gradient.sum(axis=0)
            self._back(number)
        if self.embedded:
            self.by_rows[:] = 0
            kernels.sum_placed(self.by_layer[0], self.index, self.parts, self.by_rows)

    def products(self) -> None:
        """Only what BLAS does of a step."""
        for number, kernel in enumerate(self.kernels):
            np.matmul(self.layers[number], kernel, out=self.layers[number + 1])
        for number in range(len(self.kernels) - 1, -1, -1):
            self._back(number)

    def _back(self, number: int) -> None:
        gradient = self.by_layer[number + 1]
        np.matmul(self.layers[number].T, gradient, out=self.by_kernel[number])
        if not number and not self.embedded:
            return
        if gradient.shape[1] == 1:  # nothing is added up
            np.multiply(gradient, self.kernels[number].T, out=self.by_layer[number])
        else:
            np.matmul(gradient, self.kernels[number].T, out=self.by_layer[number])

    def _by_logits(self) -> None:
        logits = self.layers[-1]
        if logits.shape[1] == 1:
            gradient = 1 / (1 + np.exp(-logits)) - self.labels[:, None]
        else:
            gradient = np.exp(logits - logits.max(axis=1, keepdims=True))
            gradient /= gradient.sum(axis=1, keepdims=True)
            gradient[np.arange(self.batch), self.labels] -= 1
        np.divide(gradient, self.batch, out=self.by_layer[-1])


def by_psys(workload: Workload, folder: Path) -> Callable[[], None]:
    """Return psys's own step: model_fn, loss and gradients of one batch, its rows at hand."""
    data = load_data(workload, DATA)
    estimator = make_estimator(workload, tf.estimator.RunConfig(model_dir=str(folder)))

    def call_model(features: Any, labels: Any) -> Any:
        return estimator.call_model_fn(features, labels, tf.estimator.ModeKeys.TRAIN)

    batch = next(batches(input_fn_of(workload, data)(InputContext()), repeat=True))
    model, _ = build(call_model, batch.features, batch.labels, seed=1)
    batch.prepare(model.lookups)
    stacks = model.lookups.stacks
    specs = [spec for spec in model.specs.values() if not spec.stack]
    variables = {
        spec.name: LocalVariable(spec, 1) for spec in [*specs, *(s.spec for s in stacks.values())]
    }
    dense = {name: one.value for name, one in variables.items() if not one.spec.sparse}
    rows = {
        name: (ids, kernels.take_rows(variables[name].value, ids))
        for name, ids in batch.rows.items()
    }

    def fetch(table: str, ids: Any) -> Any:
        raise AssertionError(f"{len(ids)} rows of {table} were not foreseen.")

    def step() -> None:
        store = TrainStore(
            model.specs,
            dense,
            rows,
            fetch,
            stacks=stacks,
            global_step=1,
            seed=1,
            layers=model.lookups.layers,
        )
        loss_and_gradients(model, call_model, batch.features, batch.labels, store)

    return step


def times_ms(ways: dict[str, Callable[[], None]], secs: float) -> dict[str, float]:
    """Return the median time of each way; step by step they take turns."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    until = time.perf_counter() + secs
    while time.perf_counter() < until:
        for name, way in ways.items():
            begun = time.perf_counter()
            way()
            times[name].append(1e3 * (time.perf_counter() - begun))
    return {name: statistics.median(some[len(some) // 10 :]) for name, some in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--secs", type=float, default=8.0, help="for each workload")
    parser.add_argument("--out", type=Path, default=RESULTS / "by_hand.json")
    arguments = parser.parse_args()
    keep_freed_memory()  # as every trainer of a cluster does
    figures: dict[str, Any] = {}
    print(f"{'ms a step':>10} {'products':>10} {'by hand':>10} {'psys':>10} {'GFLOP/s':>10}")
    for name in ("A", "B"):
        workload = WORKLOADS[name]
        hand = ByHand(workload)
        with tempfile.TemporaryDirectory() as folder:
            ways = {
                "products": hand.products,
                "by hand": hand.step,
                "psys": by_psys(workload, Path(folder)),
            }
            found = times_ms(ways, arguments.secs)
        figures[name] = {**found, "gflops": speed.probe_gflops()}
        print(f"{name:>10} " + " ".join(f"{one:>10.2f}" for one in figures[name].values()))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
