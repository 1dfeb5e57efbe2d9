"""One role of a workload under psys, through its ordinary API. Started by the benchmarks.

``python train_psys.py '{"workload": "A", "role": "chief-0", ...}'`` with TF_CONFIG set.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from steps import StepLog
from workloads import BATCHES, WORKLOADS, Workload, columns_of, load_data

import psys as tf


class CountSteps(tf.train.SessionRunHook):
    """Counts this trainer's own steps."""

    def __init__(self, log: StepLog) -> None:
        self._log = log

    def after_run(self, run_context: Any, run_values: Any) -> None:
        self._log.note(run_values.global_step)


def make_estimator(workload: Workload, config: Any) -> Any:
    column = tf.feature_column
    hashed = [
        column.categorical_column_with_hash_bucket(name, workload.buckets)
        for name in workload.string_names
    ]
    if workload.is_linear:
        return tf.estimator.LinearClassifier(
            hashed, optimizer=tf.train.FtrlOptimizer(workload.learning_rate), config=config
        )
    shape = (workload.number_width,)
    return tf.estimator.DNNClassifier(
        list(workload.hidden_units),
        [column.numeric_column(name, shape=shape) for name in workload.number_names]
        + [column.embedding_column(one, workload.dimension) for one in hashed],
        n_classes=workload.classes,
        optimizer=tf.train.AdagradOptimizer(workload.learning_rate),
        config=config,
    )


def input_fn_of(workload: Workload, data: Any) -> Any:
    def input_fn(input_context: Any) -> Iterator[Any]:
        size = workload.batch_size
        at = input_context.input_pipeline_id * BATCHES // max(input_context.num_input_pipelines, 1)
        while True:
            rows = slice(at % BATCHES * size, (at % BATCHES + 1) * size)
            yield columns_of(workload, data, rows), data["labels"][rows]
            at += 1

    return input_fn


def make_config(options: dict[str, Any]) -> Any:
    more: dict[str, Any] = {}
    if options["strategy"]:
        if importlib.util.find_spec("psys.distribute") is None:
            sys.exit("This version of psys has no psys.distribute.")
        from psys.distribute import ParameterServerStrategy

        more["train_distribute"] = ParameterServerStrategy(**options["strategy"])
    return tf.estimator.RunConfig(
        model_dir=options["model_dir"], save_checkpoints_secs=3600, **more
    )


def main() -> None:
    options = json.loads(sys.argv[1])
    workload = WORKLOADS[options["workload"]]
    data = load_data(workload, Path(options["data"]))
    log = StepLog(Path(options["steps"]))
    if options.get("profile"):
        import probes

        probes.install(Path(options["profile"]))
    estimator = make_estimator(workload, make_config(options))
    inputs = input_fn_of(workload, data)
    tf.estimator.train_and_evaluate(
        estimator,
        tf.estimator.TrainSpec(inputs, max_steps=options["max_steps"], hooks=[CountSteps(log)]),
        tf.estimator.EvalSpec(inputs, steps=1, start_delay_secs=3600),
    )


if __name__ == "__main__":
    main()
