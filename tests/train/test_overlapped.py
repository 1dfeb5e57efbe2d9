"""pipeline_depth=1: a step is computed while the one before is sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest

import psys as tf
from psys.checkpoint import open_checkpoint
from psys.compute.variables import current_store, lookup, untraced
from psys.distribute import ParameterServerStrategy
from psys.errors import ModelError
from psys.initializers import Constant
from psys.train import overlapped
from psys.train.courier import Courier
from psys.train.input_pipeline import InputPipeline
from psys.train.trainer import Trainer

RATE = 0.25


class Square:
    """Half the square of one weight: its gradient is the weight that it was computed with."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def __call__(self, features: Any, labels: Any, mode: str) -> Any:
        weight = tf.get_variable("w", (1,), initializer=Constant(8.0))
        self.seen.append(float(untraced(weight)[0]))
        loss = (weight * weight).sum() * np.float32(0.5) * np.float32(features["x"].mean())
        optimizer = tf.train.GradientDescentOptimizer(RATE)
        return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=optimizer.minimize(loss))

    def weights(self, steps: int) -> list[float]:
        """What the weight was after each step, from what each was computed with."""
        found = [8.0]
        for seen in self.seen[1 : steps + 1]:  # the first run only finds the variables
            found.append(found[-1] - RATE * seen)
        return found


def inputs(count: int, spoilt: int | None = None) -> Any:
    def input_fn() -> Iterator[Any]:
        for number in range(count):
            yield {"x": np.full(1, np.nan if number == spoilt else 1.0, np.float32)}, np.zeros(1)

    return input_fn


def estimator(model_dir: Path, depth: int, model: Square | None = None) -> Any:
    strategy = ParameterServerStrategy(pipeline_depth=depth)
    config = tf.estimator.RunConfig(model_dir=str(model_dir), train_distribute=strategy)
    return tf.estimator.Estimator(model or Square(), config=config)


def weight_after(model_dir: Path) -> float:
    return float(open_checkpoint(str(model_dir)).read("w")[0])


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 100])
def test_a_step_lacks_at_most_the_one_before(tmp_path: Path, steps: int) -> None:
    model = Square()
    estimator(tmp_path, 1, model).train(inputs(1000), steps=steps)
    after = model.weights(steps)
    # What is left of the weight in the end is rounding.
    assert weight_after(tmp_path) == pytest.approx(after[-1], rel=1e-5, abs=1e-6)
    lacks = []
    for step, seen in enumerate(model.seen[1 : steps + 1]):
        fresh, stale = after[step], after[max(step - 1, 0)]
        assert seen in (
            pytest.approx(fresh, rel=1e-4, abs=1e-6),
            pytest.approx(stale, rel=1e-4, abs=1e-6),
        )
        lacks.append(seen != pytest.approx(fresh, rel=1e-4, abs=1e-6))
    assert steps < 100 or any(lacks[:20])  # later the weight hardly changes


@pytest.mark.parametrize("steps", [1, 10])
def test_without_a_pipeline_it_lacks_none(tmp_path: Path, steps: int) -> None:
    model = Square()
    estimator(tmp_path, 0, model).train(inputs(100), steps=steps)
    after = model.weights(steps)
    assert model.seen[1:] == pytest.approx(after[:-1], rel=1e-5)
    assert weight_after(tmp_path) == pytest.approx(after[-1], rel=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_a_finite_input_is_trained_on_exactly_once(tmp_path: Path, count: int) -> None:
    model = Square()
    estimator(tmp_path, 1, model).train(inputs(count))
    assert open_checkpoint(str(tmp_path)).global_step == count
    assert len(model.seen) == count + 1
    assert weight_after(tmp_path) == pytest.approx(model.weights(count)[-1], rel=1e-5)


def test_a_granted_step_does_not_wait_for_a_late_input(tmp_path: Path) -> None:
    stepped = threading.Event()

    def input_fn() -> Iterator[Any]:
        yield {"x": np.ones(1, np.float32)}, np.zeros(1)
        assert stepped.wait(20)  # the second batch comes only after the first step
        yield {"x": np.ones(1, np.float32)}, np.zeros(1)

    class Told(tf.train.SessionRunHook):
        def after_run(self, run_context: Any, run_values: Any) -> None:
            stepped.set()

    estimator(tmp_path, 1).train(input_fn, hooks=[Told()])
    assert open_checkpoint(str(tmp_path)).global_step == 2


@pytest.mark.parametrize("depth", [0, 1])
def test_the_input_reads_on_after_each_step_is_sent_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, depth: int
) -> None:
    pipelines: list[InputPipeline] = []
    taken_and_not_read_on: list[int] = []
    begin, start = Trainer.begin_step, InputPipeline.__init__

    def noted_start(pipeline: InputPipeline, *arguments: Any) -> None:
        start(pipeline, *arguments)
        pipelines.append(pipeline)

    def noted(trainer: Trainer, *arguments: Any, **options: Any) -> Any:
        taken_and_not_read_on.append(pipelines[-1]._left)
        return begin(trainer, *arguments, **options)

    monkeypatch.setattr(InputPipeline, "__init__", noted_start)
    monkeypatch.setattr(Trainer, "begin_step", noted)
    estimator(tmp_path, depth).train(inputs(1000), steps=60)
    assert len(taken_and_not_read_on) == 60
    # Before the first step two are taken; later none, if the input is late, or one.
    assert set(taken_and_not_read_on[2:]) in ({1}, {0, 1})


def test_dropout_is_drawn_anew_for_every_step(tmp_path: Path) -> None:
    draws: list[float] = []

    def model_fn(features: Any, labels: Any, mode: str) -> Any:
        draws.append(float(current_store().generator.random()))
        return Square()(features, labels, mode)

    strategy = ParameterServerStrategy(pipeline_depth=1)
    config = tf.estimator.RunConfig(model_dir=str(tmp_path), train_distribute=strategy)
    tf.estimator.Estimator(model_fn, config=config).train(inputs(100), steps=20)
    assert len(set(draws[1:])) == len(draws) - 1


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
    assert open_checkpoint(str(tmp_path)).global_step == 5


def test_one_that_is_granted_may_not(tmp_path: Path) -> None:
    with pytest.raises(tf.train.NanLossDuringTrainingError, match="after global step"):
        estimator(tmp_path, 1).train(inputs(100, spoilt=5), steps=6)


@pytest.mark.parametrize("large", [False, True])
def test_a_gradient_that_cannot_be_sent_ends_training_and_nothing_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    if large:
        monkeypatch.setattr(overlapped, "LARGE_STEP_BYTES", 0)

    def model_fn(features: Any, labels: Any, mode: str) -> Any:
        weight = tf.get_variable("weight", (1,), initializer=Constant(1.0))
        # At 0 the loss is finite, and its gradient is not.
        loss = anp.sqrt(weight * features["x"].astype(np.float32)).sum()
        optimizer = tf.train.GradientDescentOptimizer(1.0)
        return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=optimizer.minimize(loss))

    def input_fn() -> Iterator[Any]:
        yield {"x": np.ones(1)}, None
        while True:
            yield {"x": np.zeros(1)}, None

    config = tf.estimator.RunConfig(
        model_dir=str(tmp_path), train_distribute=ParameterServerStrategy(pipeline_depth=1)
    )
    refused = pytest.raises(ModelError, match="The gradient of 'weight' is not finite")
    with refused, np.errstate(divide="ignore"):
        tf.estimator.Estimator(model_fn, config=config).train(input_fn, steps=9)


def test_a_courier_runs_one_call_after_another_and_returns_what_it_raises() -> None:
    courier, release, order = Courier(), threading.Event(), []

    def first() -> Any:
        release.wait(10)
        order.append("first")

    def second() -> Any:
        order.append("second")
        raise KeyError("told")

    sent = [courier.take(first), courier.take(second)]
    release.set()
    with pytest.raises(KeyError, match="told"):
        sent[1].result(10)
    assert order == ["first", "second"]
    courier.close()


@pytest.mark.parametrize("large", [False, True])
def test_rows_that_were_not_foreseen_are_fetched_beside_a_push(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    if large:  # then another thread sends a step
        monkeypatch.setattr(overlapped, "LARGE_STEP_BYTES", 0)

    def model_fn(features: Any, labels: Any, mode: str) -> Any:
        ids = features["x"].astype(np.int64)
        rows, _ = lookup("table", (8, 4), ids, Constant(0.0))
        loss = -rows.sum()
        optimizer = tf.train.GradientDescentOptimizer(1.0)
        return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=optimizer.minimize(loss))

    def input_fn() -> Iterator[Any]:
        for number in range(504):
            yield {"x": (np.arange(4) + number) % 8}, None

    strategy = ParameterServerStrategy(pipeline_depth=1)
    config = tf.estimator.RunConfig(model_dir=str(tmp_path), train_distribute=strategy)
    tf.estimator.Estimator(model_fn, config=config).train(input_fn)
    reader = open_checkpoint(str(tmp_path))
    assert reader.global_step == 504
    assert reader.read("table").tolist() == [[252.0] * 4] * 8


@pytest.mark.parametrize("depth", [0, 1])
def test_staleness_tells_how_old_the_values_were(tmp_path: Path, depth: int) -> None:
    seen: list[int] = []

    class Staleness(tf.train.SessionRunHook):
        def after_run(self, run_context: Any, run_values: Any) -> None:
            seen.append(run_values.staleness)

    model = Square()
    estimator(tmp_path, depth, model).train(inputs(1000), steps=30, hooks=[Staleness()])
    after = model.weights(30)
    for step, (weight, stale) in enumerate(zip(model.seen[1:31], seen, strict=True)):
        assert weight == pytest.approx(after[step - stale], rel=1e-4, abs=1e-6)
    assert set(seen[:10]) == {0} if depth == 0 else 1 in seen
