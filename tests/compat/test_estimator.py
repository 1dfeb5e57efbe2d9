"""Estimator against the pages of tf.estimator.Estimator: constructor and train.

Every training here is a real one, on this machine.
"""

from __future__ import annotations

import functools
import json
import logging
from pathlib import Path
from typing import Any

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
from psys.compute.build_store import BuildStore
from psys.errors import CheckpointNotFound, ConfigError, ModelError
from psys.estimator import Estimator, RunConfig

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
