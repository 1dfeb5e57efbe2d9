"""Canned linear models from fixed weights, against numbers that tf.estimator printed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from canned_model import (
    AGE,
    HEIGHT,
    XS,
    Model,
    X,
    assert_close,
    assert_results,
    linear,
    trained,
)

from psys import feature_column as fc
from psys.estimator.canned.arguments import classifier_head
from psys.estimator.canned.binary_class_head import BinaryClassHead
from psys.estimator.canned.multi_class_head import MultiClassHead
from psys.estimator.canned.regression_head import RegressionHead


def test_linear_regressor_evaluates() -> None:
    one = {"age": [[1.0]]}
    model = Model(linear(RegressionHead(), AGE), one).load(
        age__weights=[[11.0]], bias_weights=[2.0]
    )
    assert_results(
        model.evaluate(one, [[10]]),
        loss=9,
        average_loss=9,
        prediction__mean=13,
        label__mean=10,
    )
    assert set(model.values) == {
        "linear/linear_model/age/weights",
        "linear/linear_model/bias_weights",
    }


@pytest.mark.parametrize(("reduction", "loss"), [("sum", 27), ("sum_over_batch_size", 13.5)])
def test_linear_regressor_weighs_examples(reduction: str, loss: float) -> None:
    head = RegressionHead(weight_column="w", loss_reduction=reduction)
    two = {"age": [[1.0], [1.0]], "w": [[1.0], [2.0]]}
    model = Model(linear(head, AGE), two).load(age__weights=[[11.0]], bias_weights=[2.0])
    assert_results(model.evaluate(two, [[10], [10]]), average_loss=9, loss=loss)


def test_linear_regressor_with_wide_columns_and_labels() -> None:
    features = {"age": [[2.0, 4.0, 5.0]]}
    column = fc.numeric_column("age", shape=3)
    model = Model(linear(RegressionHead(2), column), features)
    model.load(age__weights=[[1, 2], [3, 4], [5, 6]], bias_weights=[7, 8])
    assert model.evaluate(features, [[46, 58]])["loss"] == 0


def test_linear_regressor_with_two_columns() -> None:
    features = {"age": [[20.0], [40.0]], "height": [[4.0], [8.0]]}
    model = Model(linear(RegressionHead(), HEIGHT, AGE), features)
    model.load(age__weights=[[10.0]], height__weights=[[2.0]], bias_weights=[5.0])
    assert model.evaluate(features, [[213], [421]])["loss"] == 0


def test_linear_regressor_predicts() -> None:
    features: dict[str, Any] = {"x": [[2.0]]}
    model = Model(linear(RegressionHead(), X), features)
    model.load(x__weights=[[10.0]], bias_weights=[0.2])
    assert_close(model.predict(features)["predictions"], [[20.2]])
    features = {"x": [[1.0, 2, 3, 4], [5, 6, 7, 8]]}
    model = Model(linear(RegressionHead(3), fc.numeric_column("x", shape=4)), features)
    model.load(
        x__weights=[[1, 2, 3], [2, 3, 4], [3, 4, 5], [4, 5, 6]], bias_weights=[0.2, 0.4, 0.6]
    )
    assert_close(model.predict(features)["predictions"], [[30.2, 40.4, 50.6], [70.2, 96.4, 122.6]])


@pytest.mark.parametrize(
    ("combiner", "expected"),
    [("sum", [12, 13]), ("mean", [8.5, 9]), ("sqrtn", [9.94974, 10.65685])],
)
def test_linear_regressor_combines_categories(combiner: str, expected: list[float]) -> None:
    column = fc.categorical_column_with_vocabulary_list("language", ["a", "b", "c"])
    features = {"language": [["a", "c"], ["b", "c"]]}
    model = Model(linear(RegressionHead(), column, sparse_combiner=combiner), features)
    model.load(language__weights=[[2], [3], [5]], bias_weights=[5])
    assert_close(model.predict(features)["predictions"][:, 0], expected)


def test_linear_classifier_evaluates() -> None:
    features: dict[str, Any] = {"age": [[1.0]]}
    model = Model(linear(BinaryClassHead(), AGE), features)
    model.load(age__weights=[[-11.0]], bias_weights=[-30.0])
    assert_results(
        model.evaluate(features, [[1]]),
        loss=41,
        accuracy=0,
        precision=0,
        recall=0,
        prediction__mean=0,
        label__mean=1,
        accuracy_baseline=1,
        auc=0,
        auc_precision_recall=1,
    )


def test_linear_classifier_evaluates_a_batch() -> None:
    features = {"age": [[17.0], [18.0]], "w": [[1.0], [2.0]]}
    model = Model(linear(BinaryClassHead(), AGE), features)
    model.load(age__weights=[[2.0]], bias_weights=[-35.0])
    assert_results(
        model.evaluate(features, [[1], [0]]),
        3e-4,
        loss=1.3133,
        average_loss=1.3133,
        accuracy=0,
        prediction__mean=0.5,
        label__mean=0.5,
        accuracy_baseline=0.5,
        auc=0,
        auc_precision_recall=0.3068,
    )
    weighted = Model(linear(BinaryClassHead(weight_column="w"), AGE), features)
    weighted.load(age__weights=[[2.0]], bias_weights=[-35.0])
    assert_results(
        weighted.evaluate(features, [[1], [0]]),
        3e-4,
        loss=1.96995,
        average_loss=1.3133,
        auc_precision_recall=0.1891,
        label__mean=1 / 3,
        prediction__mean=0.5770,
    )


def test_linear_classifier_predicts() -> None:
    features = {"x": [[1.0]]}
    model = Model(linear(BinaryClassHead(), X), features)
    predictions = model.load(x__weights=[[-11.0]], bias_weights=[10.0]).predict(features)
    assert_close(predictions["logits"], [[-1]])
    assert_close(predictions["logistic"], [[0.26894]], 1e-4)
    assert_close(predictions["probabilities"], [[0.73106, 0.26894]], 1e-4)
    assert predictions["class_ids"].tolist() == [[0]]
    assert predictions["classes"].tolist() == [[b"0"]]
    assert predictions["all_classes"].tolist() == [[b"0", b"1"]]


@pytest.mark.parametrize(("classes", "loss"), [(2, 0.6931472), (4, 1.3862944)])
def test_linear_classifier_starts_from_zero(classes: int, loss: float) -> None:
    features = {"age": [[17.0]]}
    head = classifier_head(classes, None, None, "sum_over_batch_size")
    model = Model(linear(head, AGE), features, [[1]])
    assert model.train(features, [[1]]) == pytest.approx(loss, rel=1e-6)


def test_linear_classifier_first_losses() -> None:
    one, two = {"age": [[17.0]]}, {"age": [[17.0], [18.5]]}
    for labels, features, reduction, loss in (
        ([[1]], one, "sum", 1.3133),
        ([[0.8]], one, "sum", 1.1132617),
        ([[1], [0]], two, "sum", 3.4402),
        ([[1], [0]], two, "sum_over_batch_size", 1.7201),
    ):
        model = Model(linear(BinaryClassHead(loss_reduction=reduction), AGE), features, labels)
        model.load(age__weights=[[2.0]], bias_weights=[-35.0])
        assert model.train(features, labels) == pytest.approx(loss, rel=1e-4)
    model = Model(linear(MultiClassHead(4), AGE), one, [[1]])
    model.load(age__weights=[[0, 2, 4, 6]], bias_weights=[-35] * 4)
    assert model.train(one, [[1]]) == pytest.approx(68, rel=1e-4)


def test_linear_regressor_first_losses() -> None:
    one, two = {"age": [[17.0]]}, {"age": [[17.0], [15.0]]}
    assert Model(linear(RegressionHead(), AGE), one, [[5]]).train(one, [[5]]) == 25
    for reduction, loss in (("sum", 52004), ("sum_over_batch_size", 26002)):
        model = Model(linear(RegressionHead(loss_reduction=reduction), AGE), two, [[5], [3]])
        model.load(age__weights=[[10.0]], bias_weights=[5.0])
        assert model.train(two, [[5], [3]]) == loss


def test_linear_regressor_trace() -> None:
    steps = trained(linear(RegressionHead(loss_reduction="sum"), X), [3, 5, 7, 9], (1, 2, 3, 10))
    weights, biases = [], []
    accumulators, linears = [], []
    for model in steps:
        weights.append(float(model.value("x/weights")[0, 0]))
        biases.append(float(model.value("bias_weights")[0]))
        accumulators.append(float(model.slots["linear/linear_model/x/weights"]["accum"][0, 0]))
        linears.append(float(model.slots["linear/linear_model/x/weights"]["linear"][0, 0]))
    assert_close(weights, [0.19998521, 0.33184558, 0.4345333, 0.97460961])
    assert_close(biases, [0.19996096, 0.33164862, 0.43409979, 0.92854685])
    assert_close(accumulators, [676.1, 1195.9574, 1624.1018, 17115.615])
    assert_close(linears, [-26, -57.380444, -87.558777, -637.5246])
    everything = model.evaluate(XS, [3, 5, 7, 9])
    assert_results(
        everything,
        average_loss=8.2571335,
        prediction__mean=3.3650711,
        label__mean=6,
        loss=33.028534,
    )


def test_linear_regressor_trace_with_v2_reduction() -> None:
    *_, model = trained(linear(RegressionHead(), X), [3, 5, 7, 9], (1, 2, 10))
    assert_close(model.value("x/weights"), [[0.97894126]])
    assert_close(model.value("bias_weights"), [0.94160199])
    assert_results(model.evaluate(XS, [3, 5, 7, 9]), average_loss=8.1207561, loss=8.1207561)


def test_linear_classifier_trace() -> None:
    steps = trained(linear(BinaryClassHead(loss_reduction="sum"), X), [0, 1, 1, 0], (1, 2, 10))
    weights, biases = [], []
    for model in steps:
        weights.append(float(model.value("x/weights")[0, 0]))
        biases.append(float(model.value("bias_weights")[0]))
    assert_close(weights, [0.16903085, 0.25716004, 0.077627741])
    assert_close(biases, [0, -0.073966958, -0.33352336])
    assert_results(
        model.evaluate(XS, [0, 1, 1, 0]),
        average_loss=0.69651270,
        accuracy=0.5,
        auc=0.5,
        prediction__mean=0.46525797,
    )


def test_linear_multi_class_trace() -> None:
    *_, model = trained(
        linear(MultiClassHead(3, loss_reduction="sum"), X), [0, 1, 2, 1], (1, 2, 10)
    )
    assert_close(model.value("x/weights"), [[-0.45958531, 0.15971565, -0.017051809]])
    assert_close(model.value("bias_weights"), [0.3116661, -0.15956682, -0.15132658])
    assert_results(model.evaluate(XS, [0, 1, 2, 1]), average_loss=0.88574004)


def test_linear_hash_column_trace() -> None:
    column = fc.categorical_column_with_hash_bucket("x", 10)
    features = {"x": ["a", "b", "c", "d"]}
    function = linear(BinaryClassHead(loss_reduction="sum"), column)
    (model,) = trained(function, [0, 1, 1, 0], (4,), features)
    expected = np.zeros((10, 1))
    expected[[2, 5, 9], 0] = [0.47787505, -0.28987837, -0.29033148]
    assert_close(model.value("x/weights"), expected)
    assert_close(model.value("bias_weights"), [-0.059795368])
