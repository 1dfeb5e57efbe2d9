"""``tf.train.get_global_step`` where programs call it: in model_fns, hooks and listeners."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import psys as tf

Told = list[tuple[str, int]]


def model_fn(features: Any, labels: Any, mode: str) -> Any:
    loss = ((features["x"] @ tf.get_variable("w", (1, 1)) - labels) ** 2).mean()
    optimizer = tf.train.GradientDescentOptimizer(0.01)
    return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=optimizer.minimize(loss))


def input_fn() -> Any:
    return tf.estimator.inputs.numpy_input_fn(
        {"x": np.ones((8, 1), np.float32)},
        np.ones((8, 1), np.float32),
        batch_size=4,
        num_epochs=None,
        shuffle=False,
    )()


class Hook(tf.train.SessionRunHook):
    def __init__(self, told: Told) -> None:
        self._told = told

    def _tell(self, where: str) -> None:
        self._told.append((where, tf.train.get_global_step()))

    def begin(self) -> None:
        self._tell("begin")

    def after_create_session(self, session: Any, coord: Any = None) -> None:
        self._tell("created")

    def before_run(self, run_context: Any) -> None:
        self._tell("before")

    def after_run(self, run_context: Any, run_values: Any) -> None:
        self._tell("after")
        assert run_values.global_step == tf.train.get_global_step()

    def end(self, session: Any) -> None:
        self._tell("end")


class Listener(tf.train.CheckpointSaverListener):
    def __init__(self, told: Told) -> None:
        self._told = told

    def after_save(self, session: Any, global_step_value: int) -> None:
        self._told.append(("saved", tf.train.get_global_step()))


def test_hooks_and_listeners_are_told_the_newest_step(tmp_path: Path) -> None:
    told: Told = []
    estimator = tf.estimator.Estimator(model_fn, str(tmp_path))
    estimator.train(input_fn, steps=3)
    estimator.train(input_fn, [Hook(told)], steps=2, saving_listeners=[Listener(told)])
    assert told == [
        ("begin", 0),  # which step is known once the model is restored
        ("saved", 3),
        ("created", 3),
        ("before", 3),
        ("after", 4),
        ("before", 4),
        ("after", 5),
        ("saved", 5),
        ("end", 5),
    ]


def test_hooks_of_an_evaluation_are_told_the_checkpoints_step(tmp_path: Path) -> None:
    told: Told = []
    estimator = tf.estimator.Estimator(model_fn, str(tmp_path))
    estimator.train(input_fn, steps=3)
    estimator.evaluate(input_fn, steps=1, hooks=[Hook(told)])
    assert {step for _, step in told} == {3}
    assert [where for where, _ in told] == ["begin", "created", "before", "after", "end"]


def test_elsewhere_there_is_no_global_step(tmp_path: Path) -> None:
    estimator = tf.estimator.Estimator(model_fn, str(tmp_path))
    estimator.train(input_fn, [Hook([])], steps=1)
    with pytest.raises(
        ValueError, match=r"The global step is not known here: .* inside a model_fn and"
    ):
        tf.train.get_global_step()
