"""Estimator against the pages of tf.estimator.Estimator: constructor, train, hooks, listeners.

Every training here is a real one, on this machine.
"""

from __future__ import annotations

import functools
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import psys as tf
from psys.compute.build_store import BuildStore
from psys.errors import CheckpointNotFound, ConfigError, ModelError
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


# ---------------------------------------------------------------- the constructor


def test_what_the_constructor_refuses(tmp_path: Path) -> None:
    def no_features(labels: Any) -> Any: ...
    def no_params(features: Any, labels: Any, mode: str) -> Any: ...
    def unexpected(features: Any, labels: Any, mode: str, depth: int = 1) -> Any: ...

    for arguments, message in (
        ({"model_fn": None}, "model_fn must be provided"),
        ({"model_fn": no_features}, "must include features argument"),
        ({"model_fn": no_params, "params": {"a": 1}}, "does not include params argument"),
        ({"model_fn": unexpected}, r"not expected args: \['depth'\]"),
        ({"model_fn": model_fn, "config": {"model_dir": "a"}}, "must be an instance of"),
        ({"model_fn": model_fn, "warm_start_from": "/a"}, "warm_start_from is not available"),
    ):
        with pytest.raises(ConfigError, match=message):
            Estimator(model_dir=str(tmp_path), **arguments)


def test_model_dir_is_the_constructors_or_the_configs() -> None:
    config = RunConfig(model_dir="/a")
    assert Estimator(model_fn, model_dir="/b").model_dir == "/b"
    assert Estimator(model_fn, model_dir="/b", config=RunConfig()).config.model_dir == "/b"
    assert Estimator(model_fn, config=config).model_dir == "/a"
    assert Estimator(model_fn, model_dir=Path("/a"), config=config).model_dir == "/a"
    for other in ("/b", ""):
        with pytest.raises(ValueError, match="different values"):
            Estimator(model_fn, model_dir=other, config=config)


@pytest.mark.parametrize("model_dir", [None, ""])
def test_without_a_model_dir_it_is_a_temporary_one(
    model_dir: str | None,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    estimator = Estimator(model_fn, model_dir=model_dir)
    assert Path(estimator.model_dir).parent == tmp_path
    assert f"Using temporary folder as model directory: {estimator.model_dir}" in caplog.text


def test_params_and_config_are_copies(tmp_path: Path) -> None:
    params = {"rate": 0.5, "units": [1, 2]}
    estimator = Estimator(model_fn, model_dir=str(tmp_path), params=params)
    params["units"].append(3)  # type: ignore[attr-defined]
    estimator.params["units"].append(4)
    estimator.params["rate"] = 2.0
    assert estimator.params == {"rate": 0.5, "units": [1, 2]}
    assert estimator.config is not estimator.config


def test_a_model_fn_may_take_its_params_apart(tmp_path: Path) -> None:
    def popping(features: Any, labels: Any, mode: str, params: Any) -> Any:
        assert params.pop("once") == 1
        return model_fn(features, labels, mode, params)

    Estimator(popping, model_dir=str(tmp_path), params={"once": 1}).train(input_fn, steps=3)


def test_params_without_any_are_an_empty_dict(tmp_path: Path) -> None:
    assert Estimator(model_fn, model_dir=str(tmp_path)).params == {}


def test_a_partial_or_an_object_may_be_the_model_fn(tmp_path: Path) -> None:
    def first_bound(rate: float, features: Any, labels: Any, mode: str) -> Any:
        return model_fn(features, labels, mode, {"rate": rate})

    class Model:
        def __call__(self, features: Any, labels: Any, mode: str) -> Any:
            return model_fn(features, labels, mode, {})

    for given in (functools.partial(first_bound, rate=0.1), Model()):
        Estimator(given, model_dir=str(tmp_path)).train(input_fn, steps=1)
    assert step_of(Estimator(model_fn, model_dir=str(tmp_path))) == 2


def test_the_model_fn_property_has_params_bound(tmp_path: Path) -> None:
    estimator = Estimator(model_fn, model_dir=str(tmp_path), params={"rate": 0.5})
    with BuildStore(seed=1):
        spec = estimator.model_fn({"x": X}, Y, "train", estimator.config)
    assert spec.train_op is not None
    assert spec.train_op.minimizations[0].optimizer.to_config()["learning_rate"] == 0.5


def test_a_subclass_cannot_override_members() -> None:
    class Overriding(Estimator):
        def train(self, *_: Any, **__: Any) -> Any: ...

    class Adding(Estimator):
        def train_twice(self) -> None: ...

    with pytest.raises(ValueError, match=r"cannot override members .* overrides \['train'\]"):
        Overriding(model_fn, model_dir="/a")
    assert Adding(model_fn, model_dir="/a").model_dir == "/a"


# ---------------------------------------------------------------- calling model_fn


def test_labels_need_a_model_fn_that_takes_them(tmp_path: Path) -> None:
    def unlabelled(features: Any, mode: str) -> Any: ...

    with pytest.raises(ValueError, match="does not take labels, but input_fn returns labels"):
        Estimator(unlabelled, model_dir=str(tmp_path)).train(input_fn, steps=1)


def test_model_fn_returns_an_estimator_spec(tmp_path: Path) -> None:
    def wrong(features: Any) -> Any:
        return "spec"

    with pytest.raises(ValueError, match="should return an EstimatorSpec, got 'spec'"):
        Estimator(wrong, model_dir=str(tmp_path)).train(lambda: iter([{"x": X}]), steps=1)


def test_model_fn_is_given_what_it_names(tmp_path: Path) -> None:
    seen: list[Any] = []

    def recording(features: Any, labels: Any, mode: str, config: Any) -> Any:
        seen.append((mode, config.model_dir, tf.train.get_global_step()))
        return model_fn(features, labels, mode, {})

    estimator = Estimator(recording, model_dir=str(tmp_path))
    estimator.train(input_fn, steps=2)
    estimator.evaluate(input_fn, steps=1)
    next(iter(estimator.predict(input_fn)))
    # The first call only finds the variables.
    expected = [("train", 0), ("train", 0), ("train", 1), ("eval", 2), ("infer", 2)]
    assert seen == [(mode, str(tmp_path), step) for mode, step in expected]


# ---------------------------------------------------------------- how far it trains


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 10, "max_steps": 10}, "Can not provide both"),
        ({"steps": 0}, "Must specify steps > 0"),
        ({"steps": -1}, "Must specify steps > 0"),
        ({"max_steps": 0}, "Must specify max_steps > 0"),
        ({"max_steps": -1}, "Must specify max_steps > 0"),
    ],
)
def test_steps_and_max_steps_are_checked(
    tmp_path: Path, arguments: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(tmp_path).train(input_fn, **arguments)


def test_steps_are_more_steps(tmp_path: Path) -> None:
    estimator = make(tmp_path)
    assert estimator.train(input_fn, steps=1) is estimator
    assert step_of(estimator.train(input_fn, steps=1)) == 2
    assert step_of(make(tmp_path).train(input_fn, steps=10)) == 12


def test_max_steps_is_where_it_ends(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trace: list[str] = []
    estimator = make(tmp_path).train(input_fn, max_steps=3)
    assert step_of(estimator) == 3
    with caplog.at_level(logging.INFO, "psys"):
        estimator.train(
            input_fn,
            max_steps=3,
            hooks=[Trace("hook", trace)],
            saving_listeners=[TraceListener(trace)],
        )
    assert trace == []
    assert "Nothing to do: the checkpoint at step 3 is at or beyond max_steps 3." in caplog.text
    assert step_of(estimator.train(input_fn, max_steps=5)) == 5


def test_without_either_the_input_decides(tmp_path: Path) -> None:
    estimator = make(tmp_path).train(lambda: iter([({"x": X}, Y)] * 4))
    assert step_of(estimator) == 4


def test_an_empty_input_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="gave no batch"):
        make(tmp_path).train(lambda: iter(()), steps=1)
    with pytest.raises(ModelError, match="gave no batch"):
        make(tmp_path).evaluate(lambda: iter(()))
    assert list(make(tmp_path / "other").train(input_fn, steps=1).predict(lambda: iter(()))) == []


def test_a_tuple_of_three_is_refused(tmp_path: Path) -> None:
    for verb in ("train", "evaluate"):
        with pytest.raises(ValueError, match="as a len 2 tuple, got 3 elements"):
            getattr(make(tmp_path), verb)(lambda: ({"x": X}, Y, Y), steps=1)
    with pytest.raises(ValueError, match="as a len 2 tuple, got 3 elements"):
        next(make(tmp_path).predict(lambda: ({"x": X}, Y, Y)))


def test_the_loss_of_the_last_step_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "psys"):
        make(tmp_path).train(input_fn, steps=2)
    assert "Loss for final step: " in caplog.text


def test_in_a_cluster_train_and_evaluate_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = {"chief": ["a:1"], "ps": ["b:1"]}
    text = json.dumps({"cluster": cluster, "task": {"type": "ps", "index": 0}})
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match="use train_and_evaluate"):
        make(tmp_path).train(input_fn, steps=1)


def test_before_training_there_are_no_variables(tmp_path: Path) -> None:
    estimator = make(tmp_path)
    assert estimator.latest_checkpoint() is None
    for call in (estimator.get_variable_names, lambda: estimator.get_variable_value("a")):
        with pytest.raises(ValueError, match="Could not find trained model in"):
            call()
    with pytest.raises(CheckpointNotFound, match="Couldn't find trained model at"):
        estimator.export_saved_model(str(tmp_path / "export"))


def test_variables_are_those_of_the_newest_checkpoint(tmp_path: Path) -> None:
    estimator = make(tmp_path).train(input_fn, steps=1)
    assert estimator.get_variable_names() == ["global_step", "line/bias", "line/kernel"]
    assert estimator.get_variable_value("line/kernel").shape == (1, 1)
    assert estimator.latest_checkpoint() == tf.train.latest_checkpoint(str(tmp_path))
    with pytest.raises(ModelError, match="no variable 'line/kernle'"):
        estimator.get_variable_value("line/kernle")


# ---------------------------------------------------------------- hooks and listeners


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
