"""An Estimator that fits a line, and hooks that write down what they are told."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import psys as tf
from psys.estimator import Estimator, EstimatorSpec, RunConfig
from psys.train.session import Session

X = np.array([[1.0], [2.0], [3.0], [4.0]], np.float32)
Y = np.array([3.0, 5.0, 7.0, 9.0], np.float32)


def input_fn() -> Iterator[Any]:
    while True:
        yield {"x": X}, Y


def model_fn(features: Any, labels: Any, mode: str, params: Any) -> Any:
    predictions = tf.layers.dense(features["x"], 1, name="line")[:, 0]
    if mode == tf.estimator.ModeKeys.PREDICT:
        return EstimatorSpec(mode, predictions={"y": predictions})
    loss = tf.losses.mean_squared_error(labels, predictions)
    optimizer = tf.train.GradientDescentOptimizer(params.get("rate", 0.01))
    return EstimatorSpec(
        mode,
        loss=loss,
        train_op=optimizer.minimize(loss, global_step=tf.train.get_global_step()),
        training_hooks=params.get("training_hooks"),
        training_chief_hooks=params.get("chief_hooks"),
    )


def make(model_dir: Path, steps: int | None = None, **params: Any) -> Any:
    """A new Estimator; hooks given as params are not copied, as the real ones would be."""
    hooks = {key: params.pop(key) for key in ("training_hooks", "chief_hooks") if key in params}
    config = RunConfig(model_dir=str(model_dir), tf_random_seed=7, save_checkpoints_steps=steps)
    return Estimator(
        functools.partial(_with_hooks, hooks=hooks), config=config, params=params or None
    )


def _with_hooks(features: Any, labels: Any, mode: str, params: Any, hooks: Any) -> Any:
    return model_fn(features, labels, mode, {**params, **hooks})


def step_of(estimator: Any) -> int:
    return int(estimator.get_variable_value("global_step"))


class Trace(tf.train.SessionRunHook):
    """Writes down what it is told."""

    def __init__(self, name: str, trace: list[str], stop_at: int | None = None) -> None:
        self._name, self._trace, self._stop_at = name, trace, stop_at

    def begin(self) -> None:
        self._trace.append(f"{self._name}.begin")

    def after_create_session(self, session: Session | None, coord: None = None) -> None:
        self._trace.append(f"{self._name}.after_create_session")

    def before_run(self, run_context: Any) -> None:
        self._trace.append(f"{self._name}.before_run")

    def after_run(self, run_context: Any, run_values: Any) -> None:
        self._trace.append(f"{self._name}.after_run {run_values.global_step}")
        if run_values.global_step == self._stop_at:
            run_context.request_stop()

    def end(self, session: Session | None) -> None:
        self._trace.append(f"{self._name}.end")


class TraceListener(tf.train.CheckpointSaverListener):
    """Writes down what it is told."""

    def __init__(self, trace: list[str], stop_at: int | None = None) -> None:
        self._trace, self._stop_at = trace, stop_at

    def begin(self) -> None:
        self._trace.append("listener.begin")

    def before_save(self, session: Session | None, global_step_value: int) -> None:
        self._trace.append(f"before_save {global_step_value}")

    def after_save(self, session: Session | None, global_step_value: int) -> bool | None:
        self._trace.append(f"after_save {global_step_value}")
        return global_step_value == self._stop_at

    def end(self, session: Session | None, global_step_value: int) -> None:
        self._trace.append(f"listener.end {global_step_value}")
