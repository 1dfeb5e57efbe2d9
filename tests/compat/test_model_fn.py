"""EstimatorSpec against what tf.estimator's model_fn_test asks of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from psys import metrics
from psys.compute.backward import new_root, untraced
from psys.errors import ModelError
from psys.estimator.model_fn import EstimatorSpec, ModeKeys
from psys.optimizers import GradientDescentOptimizer
from psys.train.hooks import SessionRunHook

LOSS = np.array(1.5, np.float32)
TRAIN_OP = GradientDescentOptimizer(0.1).minimize(LOSS)
PREDICTIONS = {"scores": np.array([1.0, 2.0])}


def test_mode_keys() -> None:
    assert (ModeKeys.TRAIN, ModeKeys.EVAL, ModeKeys.PREDICT) == ("train", "eval", "infer")


def test_what_each_mode_requires_is_enough() -> None:
    train = EstimatorSpec(ModeKeys.TRAIN, loss=LOSS, train_op=TRAIN_OP)
    assert (train.predictions, train.eval_metric_ops, train.export_outputs) == ({}, {}, None)
    evaluation = EstimatorSpec(ModeKeys.EVAL, loss=LOSS)
    assert (evaluation.predictions, evaluation.train_op) == ({}, None)
    predict = EstimatorSpec(ModeKeys.PREDICT, predictions=PREDICTIONS)
    assert predict.loss is None


def test_all_fields_are_kept() -> None:
    hook = SessionRunHook()
    spec = EstimatorSpec(
        ModeKeys.EVAL,
        PREDICTIONS,
        LOSS,
        TRAIN_OP,
        {"mean": metrics.mean([1, 2])},
        training_chief_hooks=[hook],
        training_hooks=[hook],
        evaluation_hooks=[hook],
        prediction_hooks=[hook],
    )
    assert spec.predictions is PREDICTIONS
    assert spec.train_op is TRAIN_OP
    assert spec.eval_metric_ops["mean"].result() == 1.5
    for field in ("training_chief_hooks", "training_hooks", "evaluation_hooks", "prediction_hooks"):
        assert getattr(spec, field) == (hook,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "train", "train_op": TRAIN_OP}, r"Missing loss\."),
        ({"mode": "eval"}, r"Missing loss\."),
        ({"mode": "train", "loss": LOSS}, r"Missing train_op\."),
        ({"mode": "infer"}, r"Missing predictions\."),
        ({"mode": "eval", "loss": np.ones(2)}, r"Loss must be scalar, given shape \(2,\)"),
        ({"mode": "predict", "predictions": PREDICTIONS}, "mode must be one of"),
    ],
)
def test_what_is_missing_or_unusable_is_a_value_error(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        EstimatorSpec(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "eval", "loss": 1.0}, "loss must be an array"),
        ({"mode": "train", "loss": LOSS, "train_op": "op"}, "train_op must be"),
        ({"mode": "infer", "predictions": {"a": "text"}}, "predictions must be arrays"),
        ({"mode": "eval", "loss": LOSS, "eval_metric_ops": [1]}, "must be a dict"),
        ({"mode": "eval", "loss": LOSS, "eval_metric_ops": {"m": LOSS}}, "must be a metric"),
        ({"mode": "eval", "loss": LOSS, "evaluation_hooks": [object()]}, "SessionRunHook"),
        ({"mode": "eval", "loss": LOSS, "scaffold": object()}, "scaffold must be None"),
        (
            {"mode": "infer", "predictions": PREDICTIONS, "export_outputs": [1]},
            "export_outputs must be a dict",
        ),
    ],
)
def test_a_wrong_type_is_a_type_error(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        EstimatorSpec(**arguments)


@pytest.mark.parametrize("make", [np.asarray, lambda value: new_root(value)[0]])
def test_a_loss_of_shape_one_is_reshaped(make: Callable[[Any], Any]) -> None:
    spec = EstimatorSpec(ModeKeys.EVAL, loss=make(np.array([1.5], np.float32)))
    assert untraced(spec.loss).shape == ()
    assert float(untraced(spec.loss)) == 1.5


def test_replace_checks_again_and_keeps_the_mode() -> None:
    spec = EstimatorSpec(ModeKeys.EVAL, loss=LOSS)
    assert spec._replace(predictions=PREDICTIONS).predictions is PREDICTIONS
    assert spec._replace(mode=ModeKeys.EVAL).mode == ModeKeys.EVAL
    with pytest.raises(ModelError, match="mode of EstimatorSpec cannot be changed"):
        spec._replace(mode=ModeKeys.TRAIN)
    with pytest.raises(ModelError, match=r"Missing loss\."):
        spec._replace(loss=None)
    with pytest.raises(ModelError, match="no field los"):
        spec._replace(los=LOSS)


def test_export_outputs_have_a_default() -> None:
    def exported(outputs: Any) -> Any:
        return EstimatorSpec(ModeKeys.PREDICT, PREDICTIONS, export_outputs=outputs).export_outputs

    assert exported(None) == {"serving_default": PREDICTIONS}
    assert exported({"one": 1}) == {"one": 1, "serving_default": 1}
    assert exported({"serving_default": 1, "b": 2}) == {"serving_default": 1, "b": 2}
    with pytest.raises(ModelError, match="must be named 'serving_default'"):
        exported({"a": 1, "b": 2})
