"""Hooks and listeners against the pages of tf.estimator.Estimator.train and tf.train's hooks.

Every training here is a real one, on this machine.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from line_estimator import (
    Trace,
    TraceListener,
    X,
    Y,
    input_fn,
    make,
    model_fn,
    step_of,
)

import psys as tf
from psys.errors import ModelError
from psys.estimator import Estimator, RunConfig


def test_hooks_and_listeners_are_checked(tmp_path: Path) -> None:
    estimator = make(tmp_path)
    with pytest.raises(TypeError, match="SessionRunHook"):
        estimator.train(input_fn, steps=1, hooks=[object()])
    with pytest.raises(TypeError, match="CheckpointSaverListener"):
        estimator.train(input_fn, steps=1, saving_listeners=[object()])
    for verb in (estimator.evaluate, lambda *a, **k: next(estimator.predict(*a, **k))):
        with pytest.raises(TypeError, match="SessionRunHook"):
            verb(input_fn, hooks=[object()])


def test_listeners_without_checkpoints_are_refused(tmp_path: Path) -> None:
    config = RunConfig(save_checkpoints_secs=None, save_checkpoints_steps=None)
    estimator = Estimator(model_fn, model_dir=str(tmp_path), config=config)
    with pytest.raises(ValueError, match="There should be a CheckpointSaverHook"):
        estimator.train(input_fn, steps=1, saving_listeners=[TraceListener([])])
    # Without listeners the last model is saved all the same: it is what training is for.
    assert step_of(estimator.train(input_fn, steps=3)) == 3
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1


def test_hooks_run_in_the_order_of_tf(tmp_path: Path) -> None:
    trace: list[str] = []
    estimator = make(
        tmp_path,
        training_hooks=[Trace("spec", trace)],
        chief_hooks=[Trace("chief", trace)],
    )
    estimator.train(input_fn, steps=2, hooks=[Trace("user", trace)])
    rounds = [
        [f"{hook}.{method}" for hook in ("chief", "user", "spec")]
        for method in (
            "begin",
            "after_create_session",
            "before_run",
            "after_run 1",
            "before_run",
            "after_run 2",
            "end",
        )
    ]
    assert trace == [line for one in rounds for line in one]


def test_saves_come_where_tf_has_them(tmp_path: Path) -> None:
    trace: list[str] = []
    make(tmp_path, steps=10).train(
        input_fn,
        max_steps=35,
        hooks=[Trace("hook", trace)],
        saving_listeners=[TraceListener(trace)],
    )
    told = [line for line in trace if not line.startswith(("hook.before_run", "hook.after_run"))]
    saves = [f"{which}_save {step}" for step in (10, 20, 30, 35) for which in ("before", "after")]
    assert told == [
        "listener.begin",
        "hook.begin",
        "before_save 0",
        "after_save 0",
        "hook.after_create_session",
        *saves,
        "listener.end 35",
        "hook.end",
    ]


def test_a_restored_model_counts_as_saved(tmp_path: Path) -> None:
    make(tmp_path, steps=2).train(input_fn, steps=2)
    trace: list[str] = []
    make(tmp_path, steps=2).train(input_fn, steps=2, saving_listeners=[TraceListener(trace)])
    assert trace == [
        "listener.begin",
        *["before_save 2", "after_save 2", "before_save 4", "after_save 4"],
        "listener.end 4",
    ]
    checkpoints = sorted(path.name[:16] for path in (tmp_path / "checkpoints").iterdir())
    assert checkpoints == ["model-0000000000", "model-0000000002", "model-0000000004"]


def test_a_hook_may_stop_training(tmp_path: Path) -> None:
    trace: list[str] = []
    estimator = make(tmp_path)
    estimator.train(input_fn, max_steps=100, hooks=[Trace("hook", trace, stop_at=4)])
    assert step_of(estimator) == 4
    assert trace[-2:] == ["hook.after_run 4", "hook.end"]


def test_a_listener_may_stop_training(tmp_path: Path) -> None:
    trace: list[str] = []
    estimator = make(tmp_path, steps=5)
    estimator.train(input_fn, max_steps=100, saving_listeners=[TraceListener(trace, stop_at=10)])
    assert step_of(estimator) == 10
    assert trace[-2:] == ["after_save 10", "listener.end 10"]


def test_what_a_listener_answers_to_the_first_save_is_ignored(tmp_path: Path) -> None:
    estimator = make(tmp_path, steps=5)
    estimator.train(input_fn, max_steps=6, saving_listeners=[TraceListener([], stop_at=0)])
    assert step_of(estimator) == 6


@pytest.mark.parametrize("method", ["begin", "after_create_session", "before_run", "after_run"])
def test_what_a_hook_raises_ends_training_and_no_hook(tmp_path: Path, method: str) -> None:
    trace: list[str] = []
    hook = Trace("hook", trace)

    def fail(*_: Any) -> Any:
        raise KeyError(method)

    setattr(hook, method, fail)
    with pytest.raises(KeyError, match=method):
        make(tmp_path).train(input_fn, max_steps=3, hooks=[hook])
    assert "hook.end" not in trace


def test_a_hook_gets_what_it_asked_for(tmp_path: Path) -> None:
    seen: list[Any] = []

    class Asking(tf.train.SessionRunHook):
        def __init__(self, fetches: Any) -> None:
            self._fetches = fetches

        def before_run(self, run_context: Any) -> tf.train.SessionRunArgs:
            return tf.train.SessionRunArgs(self._fetches)

        def after_run(self, run_context: Any, run_values: Any) -> None:
            loss = run_values.loss
            assert run_context.session.global_step == run_values.global_step
            seen.append((run_values.results, loss, run_values.global_step, run_values.examples))

    def predicting(features: Any, labels: Any, mode: str) -> Any:
        spec = model_fn(features, labels, mode, {})
        return spec._replace(predictions={"twice": spec.loss * 2})

    estimator = Estimator(predicting, model_dir=str(tmp_path))
    for fetches in ("loss", ["loss", "global_step"], {"a": "twice"}, None):
        estimator.train(input_fn, steps=1, hooks=[Asking(fetches)])
    (one, many, named, nothing) = seen
    assert one == (one[1], one[1], 1, 4)
    assert many[0] == [many[1], 2]
    assert named[0]["a"] == pytest.approx(2 * named[1])
    assert type(named[0]["a"]) is np.ndarray
    assert nothing[0] is None
    for wrong in ("lose", X):
        with pytest.raises(ModelError, match=r"a step has \['global_step', 'loss', 'twice'\]"):
            estimator.train(input_fn, steps=1, hooks=[Asking(wrong)])


def test_no_thread_goes_on_reading(tmp_path: Path) -> None:
    estimator = make(tmp_path).train(input_fn, steps=3)
    estimator.evaluate(input_fn, steps=1)
    next(iter(estimator.predict(input_fn)))
    with pytest.raises(ModelError, match="no steps to sum"):
        estimator.train(_failing, steps=5)
    assert "psys-input" not in {thread.name for thread in threading.enumerate()}


def _failing() -> Iterator[Any]:
    yield {"x": X}, Y
    raise ModelError("no steps to sum")


def test_a_spoilt_newest_checkpoint_counts_for_nothing(tmp_path: Path) -> None:
    """Train from the one before it, and save the step anew although it "is there"."""
    estimator = tf.estimator.LinearRegressor(
        [tf.feature_column.numeric_column("x")],
        config=tf.estimator.RunConfig(model_dir=str(tmp_path), keep_checkpoint_max=2),
    )
    x, y = np.arange(8, dtype=np.float32), np.arange(8, dtype=np.float32)
    input_fn = tf.estimator.inputs.numpy_input_fn({"x": x}, y, 4, num_epochs=None, shuffle=False)
    estimator.train(input_fn, steps=10)
    estimator.train(input_fn, steps=10)
    spoilt = estimator.latest_checkpoint()
    assert spoilt is not None
    shard = Path(spoilt) / "shard-00000-of-00001.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(bytes(content))
    estimator.train(input_fn, steps=10)
    newest = estimator.latest_checkpoint()
    assert newest is not None
    assert newest != spoilt
    assert estimator.evaluate(input_fn, steps=1)["global_step"] == 20
    assert Path(spoilt).is_dir()
