"""The job that ``benchmarks/cluster.py`` times: every role notes when things happened.

A wide-and-deep model on data it makes. Each process appends JSON lines to
``<model_dir>/marks-<pid>.jsonl``: its start, its first and last training step, its end and its
peak resident memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time

STARTED = time.time()  # before the imports: they are part of a role's start

from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402

import psys as tf  # noqa: E402

EXAMPLES = 20_000
CATEGORIES = 1_000


class Marks(tf.train.SessionRunHook):
    """Notes the first and the last step of a trainer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._first: float | None = None
        self._last = 0.0
        self._steps = 0

    def after_run(self, run_context: Any, run_values: Any) -> None:
        self._last = time.time()
        self._steps += 1
        if self._first is None:
            self._first = self._last

    def write(self) -> None:
        mark(self._path, first_step=self._first, last_step=self._last, steps=self._steps)


def mark(path: Path, **what: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(what) + "\n")


def make_data() -> tuple[dict[str, Any], Any]:
    generator = np.random.default_rng(1)
    category = generator.zipf(1.3, EXAMPLES) % CATEGORIES
    numbers = generator.standard_normal((EXAMPLES, 8), np.float32)
    score = np.sin(category) + numbers[:, 0] * numbers[:, 1]
    features = {
        "category": np.char.add("c", category.astype(str)).astype(np.bytes_),
        "numbers": numbers,
    }
    return features, (score > 0).astype(np.int64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model_dir", type=Path, required=True)
    parser.add_argument("--max_steps", type=int, default=2000)
    parser.add_argument("--batch_size", type=int, default=128)
    options = parser.parse_args()
    marks_file = options.model_dir / f"marks-{os.getpid()}.jsonl"
    marks = Marks(marks_file)

    features, labels = make_data()
    column = tf.feature_column
    category = column.categorical_column_with_hash_bucket("category", CATEGORIES)
    estimator = tf.estimator.DNNLinearCombinedClassifier(
        linear_feature_columns=[category],
        dnn_feature_columns=[
            column.numeric_column("numbers", shape=(8,)),
            column.embedding_column(category, 16),
        ],
        dnn_hidden_units=[100, 50],
        config=tf.estimator.RunConfig(
            model_dir=str(options.model_dir), save_checkpoints_steps=options.max_steps // 2
        ),
    )
    task = estimator.config.task_type if estimator.config.cluster_spec else "local"
    if estimator.config.cluster_config.task.type == "evaluator":
        task = "evaluator"
    inputs = tf.estimator.inputs.numpy_input_fn
    try:
        tf.estimator.train_and_evaluate(
            estimator,
            tf.estimator.TrainSpec(
                inputs(features, labels, options.batch_size, num_epochs=None, shuffle=True),
                max_steps=options.max_steps,
                hooks=[marks],
            ),
            tf.estimator.EvalSpec(
                inputs(features, labels, 1024, shuffle=False),
                steps=None,
                start_delay_secs=0,
                throttle_secs=0,
            ),
        )
    finally:
        marks.write()
        peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        mark(marks_file, task=task, started=STARTED, ended=time.time(), peak_mib=peak_kib / 1024)


if __name__ == "__main__":
    main()
