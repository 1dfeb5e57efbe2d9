"""pipeline_depth=1: a step is computed while the one before is sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import psys as tf
from psys.checkpoint import open_checkpoint
from psys.distribute import ParameterServerStrategy
from psys.initializers import Constant
from psys.train.courier import Courier

RATE = 0.25


def square(features: Any, labels: Any, mode: str) -> Any:
    """Half the square of one weight: its gradient is the weight that it was computed with."""
    weight = tf.get_variable("w", (1,), initializer=Constant(8.0))
    loss = (weight * weight).sum() * np.float32(0.5) * np.float32(features["x"].mean())
    optimizer = tf.train.GradientDescentOptimizer(RATE)
    return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=optimizer.minimize(loss))


def inputs(count: int, spoilt: int | None = None) -> Any:
    def input_fn() -> Iterator[Any]:
        for number in range(count):
            yield {"x": np.full(1, np.nan if number == spoilt else 1.0, np.float32)}, np.zeros(1)

    return input_fn


def estimator(model_dir: Path, depth: int) -> Any:
    strategy = ParameterServerStrategy(pipeline_depth=depth)
    config = tf.estimator.RunConfig(model_dir=str(model_dir), train_distribute=strategy)
    return tf.estimator.Estimator(square, config=config)


def weight_after(model_dir: Path) -> float:
    return float(open_checkpoint(str(model_dir)).read("w")[0])


def expected(steps: int, depth: int) -> float:
    seen = [8.0]
    for step in range(steps):
        seen.append(seen[-1] - RATE * seen[max(step - depth, 0)])
    return seen[-1]


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_a_step_lacks_as_many_steps_as_the_pipeline_is_deep(
    tmp_path: Path, depth: int, steps: int
) -> None:
    estimator(tmp_path, depth).train(inputs(100), steps=steps)
    assert weight_after(tmp_path) == pytest.approx(expected(steps, depth), rel=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_a_finite_input_is_trained_on_exactly_once(tmp_path: Path, count: int) -> None:
    estimator(tmp_path, 1).train(inputs(count))
    assert open_checkpoint(str(tmp_path)).global_step == count
    assert weight_after(tmp_path) == pytest.approx(expected(count, 1), rel=1e-5)


class Recorder(tf.train.SessionRunHook):
    def __init__(self, stop_after: int = 0) -> None:
        self.seen: list[Any] = []
        self.stop_after = stop_after

    def before_run(self, run_context: Any) -> None:
        self.seen.append("before")

    def after_run(self, run_context: Any, run_values: Any) -> None:
        self.seen.append(run_values.global_step)
        if run_values.global_step == self.stop_after:
            run_context.request_stop()


def test_hooks_see_one_step_after_another(tmp_path: Path) -> None:
    hook = Recorder()
    estimator(tmp_path, 1).train(inputs(100), steps=3, hooks=[hook])
    assert hook.seen == ["before", 1, "before", 2, "before", 3]


def test_a_hook_that_stops_lets_no_further_step_be_sent(tmp_path: Path) -> None:
    hook = Recorder(stop_after=4)
    estimator(tmp_path, 1).train(inputs(100), steps=50, hooks=[hook])
    assert open_checkpoint(str(tmp_path)).global_step == 4


def test_a_step_that_is_not_granted_may_be_spoilt(tmp_path: Path) -> None:
    estimator(tmp_path, 1).train(inputs(100, spoilt=5), steps=5)
    assert weight_after(tmp_path) == pytest.approx(expected(5, 1), rel=1e-5)


def test_one_that_is_granted_may_not(tmp_path: Path) -> None:
    with pytest.raises(tf.train.NanLossDuringTrainingError, match="after global step"):
        estimator(tmp_path, 1).train(inputs(100, spoilt=5), steps=6)


def test_a_courier_runs_one_call_after_another_and_returns_what_it_raises() -> None:
    courier, release, order = Courier(), threading.Event(), []

    def first() -> Any:
        release.wait(10)
        order.append("first")

    def second() -> Any:
        order.append("second")
        raise KeyError("told")

    sent = [courier.send(first), courier.send(second)]
    release.set()
    with pytest.raises(KeyError, match="told"):
        sent[1].result(10)
    assert order == ["first", "second"]
    courier.close()
