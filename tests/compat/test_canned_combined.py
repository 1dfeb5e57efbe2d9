"""Canned wide-and-deep models against tf.estimator's numbers, and every constructor's errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from canned_model import (
    AGE,
    WEIGHTS,
    Model,
    ModelFn,
    X,
    arrays,
    assert_close,
    deep,
    linear,
    model_fn,
)

from psys.compute.variables import (
    BuildStore,
)
from psys.errors import ConfigError, ModelError
from psys.estimator.canned.binary_class_head import BinaryClassHead
from psys.estimator.canned.dnn import DNNClassifier, DNNRegressor
from psys.estimator.canned.dnn_linear_combined import (
    DNNLinearCombinedClassifier,
    DNNLinearCombinedRegressor,
    combined_model_fn,
)
from psys.estimator.canned.linear import (
    LinearClassifier,
    LinearRegressor,
    default_learning_rate,
)
from psys.estimator.canned.regression_head import RegressionHead
from psys.estimator.model_fn import ModeKeys
from psys.optimizers import AdagradOptimizer, FtrlOptimizer, GradientDescentOptimizer


def combined(head: Any, **arguments: Any) -> ModelFn:
    settings = {
        "linear_feature_columns": [AGE],
        "dnn_feature_columns": [AGE],
        "dnn_hidden_units": [2, 2],
    }
    return model_fn(combined_model_fn, head=head, **{**settings, **arguments})


def test_combined_logits_are_the_sum() -> None:
    features = {"age": [[10.0]]}
    model = Model(combined(RegressionHead(), dnn_hidden_units=[1]), features)
    model.load(
        age__weights=[[1.0]],
        bias_weights=[2.0],
        hiddenlayer_0__kernel=[[3.0]],
        hiddenlayer_0__bias=[4.0],
        logits__kernel=[[5.0]],
        logits__bias=[6.0],
    )
    assert_close(model.predict(features)["predictions"], [[188]])


def test_combined_trace() -> None:
    """With the rates that this trace was made with: TF 2's defaults."""
    features = {"age": [[10.0]]}
    function = combined(
        RegressionHead(),
        dnn_optimizer=AdagradOptimizer(0.001),
        linear_optimizer=FtrlOptimizer(0.005),
    )
    model = Model(function, features, [[1]])
    model.load(**WEIGHTS, age__weights=[[0.5]], bias_weights=[0.25])
    model.train(features, [[1]])
    assert_close(model.value("logits/kernel"), [[-1.0009996], [1]])
    assert_close(model.value("age/weights"), [[0.49135709]])
    assert_close(model.value("bias_weights"), [0.2268455])
    for _ in range(4):
        model.train(features, [[1]])
    assert_close(model.value("age/weights"), [[0.4807182]])
    assert_close(model.value("bias_weights"), [0.21621719])
    assert_close(model.value("logits/kernel"), [[-1.0031518], [1]])


def test_combined_parts_have_optimizers_and_rates_of_their_own() -> None:
    features = {"age": [[10.0]], "x": [[1.0]]}
    with BuildStore(seed=0):
        spec = combined(BinaryClassHead(), linear_feature_columns=[AGE, X])(
            arrays(features), np.array([[1]]), ModeKeys.TRAIN
        )
    assert spec.train_op is not None
    dnn, linear_part = spec.train_op.minimizations
    assert (dnn.var_list, linear_part.var_list) == (("dnn/",), ("linear/",))
    assert dnn.loss is linear_part.loss
    assert (dnn.optimizer.kind, dnn.optimizer.learning_rate) == ("Adagrad", 0.05)
    assert (linear_part.optimizer.kind, linear_part.optimizer.learning_rate) == ("Ftrl", 0.2)


def test_combined_may_have_one_part_alone() -> None:
    features = {"age": [[10.0]]}
    for absent, prefix in (("linear_feature_columns", "dnn/"), ("dnn_feature_columns", "linear/")):
        model = Model(combined(BinaryClassHead(), **{absent: []}), features, [[1]])
        assert all(name.startswith(prefix) for name in model.values)
        assert model.train(features, [[1]]) > 0


def test_the_linear_rate_falls_with_the_number_of_columns() -> None:
    assert default_learning_rate(1) == 0.2
    assert default_learning_rate(100) == pytest.approx(0.1)


def test_optimizers_in_every_form() -> None:
    features = {"age": [[10.0]]}
    forms: list[tuple[Any, str, float]] = [
        ("Adagrad", "Adagrad", 0.05),
        ("SGD", "SGD", 0.05),
        (GradientDescentOptimizer(0.7), "SGD", 0.7),
        (lambda: GradientDescentOptimizer(0.3), "SGD", 0.3),
    ]
    for given, kind, rate in forms:
        with BuildStore(seed=0):
            spec = deep(RegressionHead(), AGE, optimizer=given)(
                arrays(features), np.array([[1]]), ModeKeys.TRAIN
            )
        assert spec.train_op is not None
        (minimization,) = spec.train_op.minimizations
        assert (minimization.optimizer.kind, minimization.optimizer.learning_rate) == (kind, rate)


BAD: list[tuple[Callable[..., Any], dict[str, Any], str]] = [
    (DNNClassifier, {"optimizer": "Adamax"}, "Unsupported optimizer name"),
    (DNNClassifier, {"optimizer": 3}, "not an Optimizer instance"),
    (DNNClassifier, {"batch_norm": True}, "batch_norm is not supported yet"),
    (DNNClassifier, {"dropout": 1.0}, r"dropout must be in \[0, 1\), given 1"),
    (DNNClassifier, {"hidden_units": [10, 0]}, "hidden_units must be positive integers"),
    (DNNClassifier, {"feature_columns": []}, "feature_columns must not be empty"),
    (DNNClassifier, {"feature_columns": {"age": AGE}}, "given a dictionary"),
    (DNNClassifier, {"feature_columns": ["age"]}, "must hold feature columns only, given 'age'"),
    (DNNClassifier, {"n_classes": 1}, "n_classes must be an integer of 2 or more, given 1"),
    (DNNClassifier, {"loss_reduction": "max"}, "loss_reduction must be one of"),
    (DNNRegressor, {"label_dimension": 0}, "label_dimension must be >= 1"),
    (LinearClassifier, {"sparse_combiner": "max"}, "sparse_combiner must be 'sum'"),
    (LinearRegressor, {"optimizer": "Adamax"}, "Unsupported optimizer name"),
    (
        DNNLinearCombinedClassifier,
        {},
        "Either linear_feature_columns or dnn_feature_columns must be defined",
    ),
    (
        DNNLinearCombinedRegressor,
        {"dnn_feature_columns": [AGE]},
        "dnn_hidden_units must be defined when dnn_feature_columns is specified",
    ),
    (
        DNNLinearCombinedRegressor,
        {"linear_feature_columns": [AGE], "linear_optimizer": "Adamax"},
        "Unsupported optimizer name",
    ),
]


@pytest.mark.parametrize(("make", "arguments", "message"), BAD)
def test_constructors_refuse_what_they_cannot_use(
    make: Callable[..., Any], arguments: dict[str, Any], message: str
) -> None:
    defaults: dict[str, Any] = {}
    if make in (DNNClassifier, DNNRegressor):
        defaults = {"hidden_units": [2], "feature_columns": [AGE]}
    elif make in (LinearClassifier, LinearRegressor):
        defaults = {"feature_columns": [AGE]}
    with pytest.raises(ConfigError, match=message):
        make(**{**defaults, **arguments})


@pytest.mark.parametrize("function", [linear(RegressionHead(), AGE), deep(RegressionHead(), AGE)])
def test_features_must_be_a_dict(function: ModelFn) -> None:
    with (
        BuildStore(seed=0),
        pytest.raises(ModelError, match="features should be a dictionary of `Tensor`s"),
    ):
        function(np.ones((1, 1)), np.ones((1, 1)), ModeKeys.TRAIN)
