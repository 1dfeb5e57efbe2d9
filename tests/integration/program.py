"""The program that the integration tests run in every role.

Its model is made so that any lost, repeated or torn step shows in the final checkpoint: every
gradient is −1, so an Adagrad accumulator counts how often its row was trained on, in each of three
tables that travel as one. Each trainer
prints ``STEP <global step>`` for each of its steps, and holds where it is told to.
"""

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

import psys as tf

ROWS, BATCH, WIDTH = 512, 4, 2


EXPORTERS = {
    "final": tf.estimator.FinalExporter("final"),
    "latest": tf.estimator.LatestExporter("latest"),
    "unusable": tf.estimator.FinalExporter("unusable", lambda: [].pop()),
}


PLACEMENTS = {
    "": None,
    "round_robin": tf.distribute.RoundRobinStrategy(),
    "greedy": tf.distribute.GreedyLoadBalancingStrategy(2, tf.distribute.byte_size_load_fn),
}


class OwnDescent(tf.train.Optimizer):
    """An optimizer that only processes that run this program know."""

    kind = "OwnDescent"

    def __init__(self, learning_rate: Any) -> None:
        super().__init__(learning_rate, use_locking=False, name=self.kind)

    def update(self, value: Any, slots: Any, scalars: Any, gradient: Any) -> None:
        value -= self.learning_rate * gradient


@dataclasses.dataclass(frozen=True)
class OwnSchedule(tf.train.LearningRateSchedule):
    """A schedule that only processes that run this program know."""

    kind = "OwnSchedule"

    def __call__(self, step: int) -> float:
        return 0.1


OPTIMIZERS = {
    "Adagrad": lambda: tf.train.AdagradOptimizer(0.1),
    "OwnDescent": lambda: OwnDescent(0.1),
    "OwnSchedule": lambda: tf.train.GradientDescentOptimizer(OwnSchedule()),
}


def main() -> None:
    options = parse()
    config = tf.estimator.RunConfig(
        model_dir=options.model_dir,
        tf_random_seed=1,
        save_checkpoints_steps=options.save_steps,
        keep_checkpoint_max=options.keep_max,
        recover_secs=options.recover_secs,
        start_timeout_secs=options.start_timeout_secs,
        linger_secs=options.linger_secs,
        evaluator_expected=True if options.expect_evaluator else None,
        train_distribute=tf.distribute.ParameterServerStrategy(
            pipeline_depth=options.pipeline_depth,
            push_dtype=options.push_dtype or None,
            variable_partitioner=tf.fixed_size_partitioner(options.parts)
            if options.parts
            else None,
            placement=PLACEMENTS[options.placement],
        ),
    )
    say(f"PID {os.getpid()}")
    tf.estimator.train_and_evaluate(
        make_estimator(options, config),
        tf.estimator.TrainSpec(
            lambda input_context: train_batches(options, input_context),
            max_steps=options.max_steps or None,
            hooks=[StepPrinter(options)],
            saving_listeners=[SaveHolder(options.hold_save)] if options.hold_save else [],
        ),
        tf.estimator.EvalSpec(
            lambda: eval_batches(options),
            steps=None,
            start_delay_secs=options.start_delay_secs,
            throttle_secs=0,
            exporters=[EXPORTERS[name] for name in options.exporters.split(",")],
        ),
    )
    say("DONE")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model_dir", required=True)
    parser.add_argument("--max_steps", type=int, default=0)
    parser.add_argument("--batches", type=int, default=0, help="of each trainer; 0: no end")
    parser.add_argument("--save_steps", type=int, default=25)
    parser.add_argument("--pipeline_depth", type=int, default=0)
    parser.add_argument("--push_dtype", default="")
    parser.add_argument("--parts", type=int, default=0, help="of each variable; 0: as it comes")
    parser.add_argument("--placement", default="", choices=sorted(PLACEMENTS))
    parser.add_argument("--keep_max", type=int, default=0)
    parser.add_argument("--recover_secs", type=float, default=60)
    parser.add_argument("--start_timeout_secs", type=float, default=60)
    parser.add_argument("--start_delay_secs", type=int, default=0)
    parser.add_argument("--linger_secs", type=float, default=20)
    parser.add_argument("--expect_evaluator", action="store_true")
    parser.add_argument("--hold", action="append", default=[], help="BATCH:FILE to wait for")
    parser.add_argument("--hold_save", default="", help="STEP:FILE to wait for before that save")
    parser.add_argument("--hold_eval", default="", help="a file to wait for before evaluating")
    parser.add_argument("--hold_model", default="", help="a file to wait for before building")
    parser.add_argument("--exporters", default="final")
    parser.add_argument("--fail", default="", help="where to raise an exception")
    parser.add_argument("--optimizer", default="Adagrad", choices=sorted(OPTIMIZERS))
    parser.add_argument("--model", default="counting", choices=("counting", "other", "canned"))
    return parser.parse_args()


def make_estimator(options: argparse.Namespace, config: Any) -> Any:
    if options.model == "canned":
        return tf.estimator.DNNClassifier(
            hidden_units=[4],
            feature_columns=[tf.feature_column.numeric_column("x", shape=(3,))],
            n_classes=3,
            config=config,
        )
    return tf.estimator.Estimator(
        counting_model, config=config, params={"fail": options.fail, "options": options}
    )


def counting_model(features: Any, labels: Any, mode: str, params: Any) -> Any:
    options = params["options"]
    if mode == tf.estimator.ModeKeys.TRAIN and options.hold_model:
        wait_for_file(options.hold_model, "model")
    if options.fail == "model_fn":
        raise ValueError("the model is broken")
    weights = tf.get_variable("weights", (8, 3 if options.model == "counting" else 4))
    # Three tables of one width, which are one stack, and get gradients for the same rows.
    number = tf.feature_column.numeric_column("id")
    columns = [
        tf.feature_column.embedding_column(one, WIDTH, combiner="sum")
        for one in (
            tf.feature_column.categorical_column_with_identity("id", ROWS),
            tf.feature_column.bucketized_column(number, list(range(1, ROWS))),
        )
    ]
    rows = tf.feature_column.input_layer(features, columns)
    with tf.variable_scope("more"):
        more = tf.feature_column.input_layer(features, columns[:1])
    frozen = tf.get_variable(
        "frozen", (64, 96), initializer=tf.initializers.Constant(0.5), trainable=False
    )
    if not (np.asarray(frozen) == 0.5).all():  # it travels once, and must last
        raise RuntimeError(f"what is never changed has changed: {frozen}")
    tf.counter("steps_applied")
    loss = -(weights.sum() + rows.sum() + more.sum())
    if options.fail == "nan_loss":
        loss = loss * np.float32("nan")
    if mode == tf.estimator.ModeKeys.TRAIN:
        optimizer = OPTIMIZERS[options.optimizer]()
        return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=optimizer.minimize(loss))
    return tf.estimator.EstimatorSpec(
        mode,
        loss=loss,
        predictions={"sum": rows},
        eval_metric_ops={"weight": tf.metrics.mean(np.asarray(weights))},
    )


def train_batches(options: argparse.Namespace, context: Any) -> Iterator[tuple[Any, Any]]:
    if options.fail == "input_fn":
        raise RuntimeError("the input is broken")
    if options.fail == "missing_file":
        open("/nowhere/train.csv").close()
    holds = dict(hold.split(":", 1) for hold in options.hold)
    number = 0
    while not options.batches or number < options.batches:
        if str(number) in holds:
            wait_for_file(holds[str(number)], f"batch {number}")
        # Trainers take different rows as long as their input is finite and fits.
        first = (context.input_pipeline_id * options.batches + number) * BATCH
        yield one_batch(options, (first + np.arange(BATCH)) % ROWS)
        number += 1


def eval_batches(options: argparse.Namespace) -> Iterator[tuple[Any, Any]]:
    if options.hold_eval:
        wait_for_file(options.hold_eval, "evaluation")
    if options.fail == "eval_input_fn":
        raise RuntimeError("the evaluation input is broken")
    for start in range(0, 32, BATCH):
        yield one_batch(options, np.arange(start, start + BATCH))


def one_batch(options: argparse.Namespace, ids: Any) -> tuple[Any, Any]:
    if options.model != "canned":
        return {"id": ids}, None
    features = {"y" if options.fail == "features" else "x": np.ones((len(ids), 3), np.float32)}
    return features, np.full(len(ids), 3 if options.fail == "labels" else 1)


def say(line: str) -> None:
    # In one write: print's two would let a log line of another thread come between.
    sys.stdout.write(line + "\n")


def wait_for_file(path: str, what: str) -> None:
    say(f"HOLDING {what}")
    while not os.path.exists(path):
        time.sleep(0.02)


class StepPrinter(tf.train.SessionRunHook):
    def __init__(self, options: argparse.Namespace) -> None:
        self._fail = options.fail

    def after_run(self, run_context: Any, run_values: Any) -> None:
        say(f"STEP {run_values.global_step}")
        if self._fail == "hook" and run_values.global_step >= 5:
            raise RuntimeError("the hook is broken")
        if self._fail == "stop" and run_values.global_step >= 5:
            run_context.request_stop("seen enough")


class SaveHolder(tf.train.CheckpointSaverListener):
    def __init__(self, hold: str) -> None:
        self._step, self._file = hold.split(":", 1)

    def before_save(self, session: Any, global_step_value: int) -> None:
        if str(global_step_value) == self._step:
            wait_for_file(self._file, f"save {self._step}")


if __name__ == "__main__":
    main()
