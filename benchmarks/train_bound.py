"""The bound: a workload's computing with no parameter server at all, in one process.

The same model_fn, feature columns, input pipeline and optimizers as under psys, with the
parameters in local arrays: no lead, no shard, no request, no hook. Started by the benchmarks.
"""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
from steps import StepLog
from train_psys import input_fn_of, make_estimator
from workloads import WORKLOADS, load_data

import psys as tf
from psys import kernels
from psys.arrays import DTYPES, IndexedSlices
from psys.compute.train_store import TrainStore
from psys.environment import numeric_threads
from psys.optimizers import optimizer as optimizers
from psys.rpc.freed_memory import keep_freed_memory
from psys.train.input_pipeline import InputContext, InputPipeline, batches
from psys.train.model import build, loss_and_gradients


class LocalVariable:
    """One variable with its optimizer, in this process."""

    def __init__(self, spec: Any, seed: int) -> None:
        self.spec = spec
        self.value = spec.initializer.rows(
            spec.name, spec.shape, spec.dtype, 0, spec.rows, seed
        ).reshape(spec.shape)
        self._optimizer = optimizers.from_config(spec.optimizer)
        self._slots = {
            name: np.full(spec.shape, initial, DTYPES[spec.dtype])
            for name, initial in self._optimizer.slots.items()
        }
        self._scalars = dict(self._optimizer.scalars)

    def apply(self, gradient: Any) -> None:
        state = (self.value, self._slots, self._scalars)
        if isinstance(gradient, IndexedSlices):
            summed = gradient.summed()
            self._optimizer.apply_sparse(*state, summed.indices, summed.values)
        else:
            self._optimizer.apply_dense(*state, gradient)


def main() -> None:
    options = json.loads(sys.argv[1])
    keep_freed_memory()  # as every trainer of a cluster does
    workload = WORKLOADS[options["workload"]]
    data = load_data(workload, Path(options["data"]))
    log = StepLog(Path(options["steps"]))
    estimator = make_estimator(workload, tf.estimator.RunConfig(model_dir=options["model_dir"]))

    def call_model(features: Any, labels: Any) -> Any:
        return estimator.call_model_fn(features, labels, tf.estimator.ModeKeys.TRAIN)

    inputs = input_fn_of(workload, data)
    pipeline = InputPipeline(lambda: batches(inputs(InputContext()), repeat=True))
    batch = pipeline.next()
    assert batch is not None
    model, _ = build(call_model, batch.features, batch.labels, seed=1)
    batch.prepare(model.lookups)
    pipeline.lookups = model.lookups
    stacks = model.lookups.stacks
    specs = [spec for spec in model.specs.values() if not spec.stack]
    specs += [stack.spec for stack in stacks.values()]
    variables = {spec.name: LocalVariable(spec, 1) for spec in specs}

    def fetch(table: str, ids: Any) -> Any:
        raise AssertionError(f"{len(ids)} rows of {table} were not foreseen.")

    # As a trainer that has the cores to itself.
    two = numeric_threads() == 1 and len(os.sched_getaffinity(0)) > 1
    second = ThreadPoolExecutor(1) if two else None
    step = 0
    while batch is not None:
        dense = {name: one.value for name, one in variables.items() if not one.spec.sparse}
        rows = {
            name: (ids, kernels.take_rows(variables[name].value, ids))
            for name, ids in batch.rows.items()
        }
        store = TrainStore(
            model.specs,
            dense,
            rows,
            fetch,
            stacks=stacks,
            global_step=step,
            seed=1,
            second=second,
            layers=model.lookups.layers,
        )
        _, gradients, _ = loss_and_gradients(model, call_model, batch.features, batch.labels, store)
        for name, gradient in gradients.items():
            variables[name].apply(gradient)
        step += 1
        log.note(step)
        batch = pipeline.next()


if __name__ == "__main__":
    main()
