"""The program of the tests of consistency: a model with a dense and a sparse part, on batches that
depend on nothing but trainer and number.

With ``--alone N`` one process does what N trainers do together: it computes their gradients one
after another, and averages them in task order, by plain numpy.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import psys as tf
from psys.arrays import IndexedSlices

ROWS, BATCH, WIDTH, INPUTS = 40, 6, 3, 5


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model_dir", required=True)
    parser.add_argument("--max_steps", type=int, required=True)
    parser.add_argument("--consistency", default="async")
    parser.add_argument("--replicas", type=int)
    parser.add_argument("--staleness", type=int)
    parser.add_argument("--wrap", type=int, default=0, help="SyncReplicasOptimizer of so many")
    parser.add_argument("--alone", type=int, default=0)
    parser.add_argument("--hold", default="", help="BATCH:FILE to wait for")
    options = parser.parse_args()
    strategy = tf.distribute.ParameterServerStrategy(
        options.consistency,
        staleness=options.staleness,
        replicas_to_aggregate=options.replicas,
    )
    config = tf.estimator.RunConfig(
        model_dir=options.model_dir,
        tf_random_seed=1,
        save_checkpoints_steps=7,
        save_summary_steps=5,
        linger_secs=1,
        train_distribute=strategy,
    )
    estimator = tf.estimator.Estimator(model_fn, config=config, params=options)
    if options.alone:
        estimator.train(lambda: together(options), max_steps=options.max_steps)
        return
    tf.estimator.train_and_evaluate(
        estimator,
        tf.estimator.TrainSpec(
            lambda input_context: batches(options, input_context.input_pipeline_id),
            max_steps=options.max_steps,
            hooks=[StepPrinter()],
        ),
        tf.estimator.EvalSpec(lambda: iter([batch(0, 0)]), steps=1),
    )


def batch(trainer: int, number: int) -> tuple[dict[str, Any], Any]:
    draw = np.random.default_rng([trainer, number])
    ids = draw.integers(0, ROWS, BATCH)
    inputs = draw.normal(size=(BATCH, INPUTS)).astype(np.float32)
    return {"id": ids, "x": inputs}, draw.normal(size=(BATCH, 1)).astype(np.float32)


def batches(options: argparse.Namespace, trainer: int) -> Iterator[Any]:
    number, (hold, _, path) = 0, options.hold.partition(":")
    while True:
        if str(number) == hold:
            sys.stdout.write(f"HOLDING batch {number}\n")
            while not Path(path).exists():
                time.sleep(0.02)
        yield batch(trainer, number)
        number += 1


def together(options: argparse.Namespace) -> Iterator[Any]:
    number = 0
    while True:
        parts = [batch(trainer, number) for trainer in range(options.alone)]
        features = {name: np.concatenate([one[0][name] for one in parts]) for name in ("id", "x")}
        yield features, np.concatenate([one[1] for one in parts])
        number += 1


def loss_of(features: Any, labels: Any) -> Any:
    column = tf.feature_column.categorical_column_with_identity("id", ROWS)
    embedded = tf.feature_column.input_layer(
        features, [tf.feature_column.embedding_column(column, WIDTH)]
    )
    kernel = tf.get_variable("kernel", (INPUTS, 4))
    out = tf.get_variable("out", (4 + WIDTH, 1))
    hidden = tf.nn.tanh(features["x"] @ kernel)
    predicted = hidden @ out[:4] + embedded @ out[4:]
    return tf.losses.mean_squared_error(labels, predicted)


def model_fn(features: Any, labels: Any, mode: str, params: Any) -> Any:
    if mode != tf.estimator.ModeKeys.TRAIN:
        return tf.estimator.EstimatorSpec(mode, loss=loss_of(features, labels))
    rate = tf.train.exponential_decay(0.5, tf.train.get_global_step(), 4, 0.9)
    optimizer: Any = tf.train.AdamOptimizer(rate)
    if params.alone:
        return alone(features, labels, mode, params.alone, optimizer)
    if params.wrap:
        optimizer = tf.train.SyncReplicasOptimizer(optimizer, params.wrap)
    loss = loss_of(features, labels)
    return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=optimizer.minimize(loss))


def alone(features: Any, labels: Any, mode: str, count: int, optimizer: Any) -> Any:
    losses, found = [], []
    for index in range(count):
        part = slice(index * BATCH, (index + 1) * BATCH)
        mine = {name: one[part] for name, one in features.items()}
        losses.append(loss_of(mine, labels[part]))
        found.append({name: one for one, name in optimizer.compute_gradients(losses[-1])})
    averaged = [(average([one[name] for one in found]), name) for name in found[0]]
    train_op = optimizer.apply_gradients(averaged)
    return tf.estimator.EstimatorSpec(mode, loss=losses[0], train_op=train_op)


def average(gradients: list[Any]) -> Any:
    if not isinstance(gradients[0], IndexedSlices):
        total = gradients[0].copy()
        for one in gradients[1:]:
            total += one
        return total / np.float32(len(gradients))
    rows: dict[int, Any] = {}
    for one in gradients:
        summed = one.summed()
        for row, values in zip(summed.indices.tolist(), summed.values, strict=True):
            rows[row] = rows[row] + values if row in rows else values
    if not rows:  # the first run, which finds the variables
        return gradients[0]
    indices = sorted(rows)
    values = np.stack([rows[row] for row in indices]) / np.float32(len(gradients))
    return IndexedSlices(np.array(indices, np.int64), values)


class StepPrinter(tf.train.SessionRunHook):
    def after_run(self, run_context: Any, run_values: Any) -> None:
        sys.stdout.write(
            f"{'DROPPED' if run_values.dropped else 'STEP'} {run_values.global_step}\n"
        )


if __name__ == "__main__":
    main()
