"""One role of a workload under TF 2.15.1's tf.estimator. Started by the benchmarks.

Features are fed the way that costs TF least: whole batches of two packed arrays, split into
columns inside ``map``; 39 separate columns in a dataset cost five times as much.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parent))

import tensorflow as tf
from steps import StepLog
from workloads import BATCHES, WORKLOADS, Workload, load_data

v1 = tf.compat.v1


class CountSteps(v1.train.SessionRunHook):
    """Counts this trainer's own steps."""

    def __init__(self, log: StepLog) -> None:
        self._log = log

    def after_run(self, run_context: Any, run_values: Any) -> None:
        self._log.note(0)


def make_estimator(workload: Workload, config: Any, estimators: str) -> Any:
    """Return the canned estimator: ``v1`` is TF 1.x's, ``v2`` is TF 2's."""
    column = tf.feature_column
    hashed = [
        column.categorical_column_with_hash_bucket(name, workload.buckets)
        for name in workload.string_names
    ]
    rate = workload.learning_rate
    if estimators == "v1":
        classes = v1.estimator
        optimizer = (
            v1.train.FtrlOptimizer(rate) if workload.is_linear else v1.train.AdagradOptimizer(rate)
        )
        more = {"loss_reduction": v1.losses.Reduction.SUM_OVER_BATCH_SIZE}  # v2's own choice
    else:
        classes, legacy, more = tf.estimator, tf.keras.optimizers.legacy, {}
        optimizer = legacy.Ftrl(rate) if workload.is_linear else legacy.Adagrad(rate)
    if workload.is_linear:
        return classes.LinearClassifier(hashed, optimizer=optimizer, config=config, **more)
    shape = (workload.number_width,)
    return classes.DNNClassifier(
        list(workload.hidden_units),
        [column.numeric_column(name, shape=shape) for name in workload.number_names]
        + [column.embedding_column(one, workload.dimension) for one in hashed],
        n_classes=workload.classes,
        optimizer=optimizer,
        config=config,
        **more,
    )


def input_fn_of(workload: Workload, data: Any, feeding: str) -> Any:
    size, width = workload.batch_size, workload.number_width
    names = [name for name in ("numbers", "strings", "labels") if name in data]

    def split(*parts: Any) -> Any:
        given = dict(zip(names, parts, strict=True))
        features = {}
        if workload.numbers == 1:
            features[workload.number_names[0]] = given["numbers"]
        elif workload.numbers:
            columns = tf.split(given["numbers"], workload.numbers, axis=1)
            features.update(zip(workload.number_names, columns, strict=True))
        if workload.strings:
            columns = tf.unstack(given["strings"], axis=1)
            features.update(zip(workload.string_names, columns, strict=True))
        return features, given["labels"]

    def batches() -> Any:
        at = 0
        while True:
            rows = slice(at % BATCHES * size, (at % BATCHES + 1) * size)
            yield tuple(data[name][rows] for name in names)
            at += 1

    def from_generator() -> Any:
        kinds = {"numbers": tf.float32, "strings": tf.string, "labels": tf.int64}
        shapes = {
            "numbers": (size, workload.numbers * width),
            "strings": (size, workload.strings),
            "labels": (size,),
        }
        return tf.data.Dataset.from_generator(
            batches,
            output_signature=tuple(tf.TensorSpec(shapes[name], kinds[name]) for name in names),
        )

    def from_slices() -> Any:
        packed = tuple(data[name].reshape(BATCHES, size, *data[name].shape[1:]) for name in names)
        return tf.data.Dataset.from_tensor_slices(packed).repeat()

    def input_fn() -> Any:
        if feeding == "rows":
            packed = tuple(data[name] for name in names)
            rows = tf.data.Dataset.from_tensor_slices(packed).shuffle(10_000).repeat()
            return rows.batch(size).map(split).prefetch(2)
        source = {"generator": from_generator, "slices": from_slices}[feeding]
        return source().map(split).prefetch(2)

    return input_fn


def main() -> None:
    options = json.loads(sys.argv[1])
    v1.logging.set_verbosity(v1.logging.ERROR)
    workload = WORKLOADS[options["workload"]]
    data = load_data(workload, Path(options["data"]))
    log = StepLog(Path(options["steps"]))
    config = tf.estimator.RunConfig(model_dir=options["model_dir"], save_checkpoints_secs=3600)
    estimator = make_estimator(workload, config, options["estimators"])
    inputs = input_fn_of(workload, data, options.get("feeding", "slices"))
    tf.estimator.train_and_evaluate(
        estimator,
        tf.estimator.TrainSpec(inputs, max_steps=options["max_steps"], hooks=[CountSteps(log)]),
        tf.estimator.EvalSpec(inputs, steps=1, start_delay_secs=3600),
    )


if __name__ == "__main__":
    main()
