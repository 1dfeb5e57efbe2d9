"""Heads against the numbers of tf.estimator's own head tests (V2 reduction unless said)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from psys import metrics
from psys.compute.backward import backward, new_root, untraced
from psys.errors import ConfigError, ModelError
from psys.estimator.canned.binary_class_head import BinaryClassHead
from psys.estimator.canned.head import Head
from psys.estimator.canned.multi_class_head import MultiClassHead
from psys.estimator.canned.regression_head import RegressionHead
from psys.estimator.model_fn import ModeKeys
from psys.feature_column import numeric_column
from psys.optimizers import GradientDescentOptimizer


def evaluate(
    head: Head, logits: Any, labels: Any, regularization: Any = None, **features: Any
) -> dict[str, float]:
    spec = head.create_estimator_spec(
        {name: np.array(value) for name, value in features.items()},
        ModeKeys.EVAL,
        np.array(logits, np.float32),
        np.array(labels),
        regularization_losses=regularization,
    )
    assert spec.loss.dtype == np.float32
    results = {name: metric.result() for name, metric in spec.eval_metric_ops.items()}
    return {"loss": float(spec.loss), **results}


def predict(head: Head, logits: Any) -> dict[str, Any]:
    spec = head.create_estimator_spec({}, ModeKeys.PREDICT, np.array(logits, np.float32))
    predictions: dict[str, Any] = spec.predictions
    return predictions


def assert_results(results: dict[str, float], expected: dict[str, float]) -> None:
    for name, value in expected.items():
        assert results[name] == pytest.approx(value, rel=2e-4, abs=1e-6), name


# --- binary -----------------------------------------------------------------------------------


def test_binary_metrics() -> None:
    results = evaluate(BinaryClassHead(), [[45], [-41]], [[1], [1]])
    assert_results(
        results,
        {
            "loss": 20.5,
            "average_loss": 20.5,
            "accuracy": 0.5,
            "precision": 1,
            "recall": 0.5,
            "prediction/mean": 0.5,
            "label/mean": 1,
            "accuracy_baseline": 1,
            "auc": 0,
            "auc_precision_recall": 1,
        },
    )
    assert len(results) == 10
    assert evaluate(BinaryClassHead(loss_reduction="sum"), [[45], [-41]], [[1], [1]])["loss"] == 41


def test_binary_weighted() -> None:
    results = evaluate(
        BinaryClassHead(weight_column="w"), [[45], [-41], [44]], [[1], [1], [0]], w=[1, 0.1, 1.5]
    )
    assert_results(
        results,
        {
            "loss": 23.3666667,
            "average_loss": 26.9615385,
            "accuracy": 0.3846154,
            "precision": 1 / 2.5,
            "recall": 1 / 1.1,
            "prediction/mean": 0.9615385,
            "label/mean": 0.4230769,
            "accuracy_baseline": 0.5769231,
            "auc": 0.45454565,
            "auc_precision_recall": 0.4010627,
        },
    )


def test_binary_thresholds() -> None:
    results = evaluate(BinaryClassHead(thresholds=[0.25, 0.5, 0.75]), [[-1], [1]], [[1], [1]])
    assert results["average_loss"] == pytest.approx(0.81326169, rel=1e-5)
    for threshold, expected in ((0.25, (1, 1, 1)), (0.5, (0.5, 1, 0.5)), (0.75, (0, 0, 0))):
        names = [
            f"{name}/positive_threshold_{threshold:g}"
            for name in ("accuracy", "precision", "recall")
        ]
        assert tuple(results[name] for name in names) == expected


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_binary_bad_thresholds(threshold: float) -> None:
    with pytest.raises(ConfigError, match=r"thresholds not in \(0, 1\)"):
        BinaryClassHead(thresholds=[threshold, 0.5])


def test_binary_labels_may_be_probabilities() -> None:
    results = evaluate(BinaryClassHead(), [[0.5], [-0.3]], [[0.8], [0.4]])
    assert results["loss"] == pytest.approx(0.6242161, rel=1e-5)
    with pytest.raises(ModelError, match=r"Labels must be <= n_classes - 1, given 1\.2"):
        evaluate(BinaryClassHead(), [[0.5], [-0.3]], [[1.2], [0.4]])
    with pytest.raises(ModelError, match="Labels must be >= 0, given -1"):
        evaluate(BinaryClassHead(), [[0.5], [-0.3]], [[-1], [0]])


def test_binary_labels_may_be_booleans() -> None:
    assert evaluate(BinaryClassHead(), [[45], [-41]], [True, True])["loss"] == 20.5


def test_binary_with_more_axes() -> None:
    results = evaluate(
        BinaryClassHead(weight_column="w"),
        [[[10], [-10]], [[12], [-12]]],
        [[[0], [0]], [[1], [1]]],
        w=[[1, 1.5], [2, 2.5]],
    )
    assert_results(
        results,
        {
            "loss": 10,
            "average_loss": 40 / 7,
            "accuracy": 3.5 / 7,
            "precision": 2 / 3,
            "recall": 2 / 4.5,
            "auc": 0.5222,
            "auc_precision_recall": 0.6582,
        },
    )


def test_regularization_losses_are_added_and_reported() -> None:
    penalty = [np.float32(1.5), np.float32(0.5)]
    results = evaluate(BinaryClassHead(), [[45], [-41]], [[1], [1]], penalty)
    assert_results(results, {"loss": 22.5, "regularization_loss": 2, "average_loss": 20.5})
    results = evaluate(RegressionHead(), [[45], [41]], [[43], [44]], penalty)
    assert_results(results, {"loss": 8.5, "regularization_loss": 2, "average_loss": 6.5})


def test_binary_predictions() -> None:
    predictions = predict(BinaryClassHead(), [[0.3], [-0.4], [0]])
    np.testing.assert_allclose(predictions["logistic"], [[0.574443], [0.401312], [0.5]], rtol=1e-5)
    np.testing.assert_allclose(
        predictions["probabilities"],
        [[0.425557, 0.574443], [0.598688, 0.401312], [0.5, 0.5]],
        rtol=1e-5,
    )
    np.testing.assert_array_equal(predictions["class_ids"], [[1], [0], [0]])
    np.testing.assert_array_equal(predictions["classes"], [[b"1"], [b"0"], [b"0"]])
    np.testing.assert_array_equal(predictions["all_class_ids"], [[0, 1]] * 3)
    np.testing.assert_array_equal(predictions["all_classes"], [[b"0", b"1"]] * 3)
    assert set(predictions) == {
        "logits",
        "logistic",
        "probabilities",
        "class_ids",
        "classes",
        "all_class_ids",
        "all_classes",
    }
    assert predictions["probabilities"].dtype == np.float32


def test_binary_vocabulary() -> None:
    head = BinaryClassHead(label_vocabulary=["aang", "iroh"])
    predictions = predict(head, [[1], [0]])
    np.testing.assert_array_equal(predictions["classes"], [[b"iroh"], [b"aang"]])
    for labels in (
        np.array([["iroh"], ["iroh"]]),
        np.array([b"iroh", b"iroh"]),
        np.array([["iroh"], [b"iroh"]], dtype=object),
    ):
        assert evaluate(head, [[45], [-41]], labels)["loss"] == 20.5


# --- multi-class ------------------------------------------------------------------------------


def test_multi_class_metrics() -> None:
    logits, labels = [[10, 0, 0], [0, 10, 0]], [[1], [1]]
    results = evaluate(MultiClassHead(3), logits, labels)
    assert_results(results, {"loss": 5, "average_loss": 5, "accuracy": 0.5})
    assert len(results) == 3
    summed = evaluate(MultiClassHead(3, loss_reduction="sum"), logits, labels)
    assert summed["loss"] == pytest.approx(10, rel=1e-4)


def test_multi_class_weighted() -> None:
    results = evaluate(
        MultiClassHead(3, weight_column="w"),
        [[10, 0, 0], [0, 10, 0], [0, 0, 10]],
        [[1], [2], [2]],
        w=[[1], [2], [3]],
    )
    assert_results(results, {"loss": 10, "average_loss": 5, "accuracy": 0.5})


def test_multi_class_with_more_axes() -> None:
    results = evaluate(
        MultiClassHead(3, weight_column="w"),
        [[[10, 0, 0], [12, 0, 0]], [[0, 10, 0], [0, 15, 0]]],
        [[[0], [1]], [[1], [2]]],
        w=[[1, 1.5], [2, 2.5]],
    )
    assert_results(results, {"loss": 13.875, "average_loss": 55.5 / 7, "accuracy": 3 / 7})


def test_multi_class_predictions() -> None:
    predictions = predict(MultiClassHead(3), [[1, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(
        predictions["probabilities"][0], [0.576117, 0.2119416, 0.2119416], rtol=1e-5
    )
    np.testing.assert_array_equal(predictions["class_ids"], [[0], [2]])
    np.testing.assert_array_equal(predictions["classes"], [[b"0"], [b"2"]])
    np.testing.assert_array_equal(predictions["all_class_ids"], [[0, 1, 2]] * 2)
    assert "logistic" not in predictions
    assert predictions["class_ids"].dtype == np.int64


def test_multi_class_vocabulary() -> None:
    head = MultiClassHead(3, label_vocabulary=["b", "ä", "c"])
    np.testing.assert_array_equal(
        predict(head, [[0, 1, 0], [1, 0, 0]])["classes"], [["ä".encode()], [b"b"]]
    )
    results = evaluate(head, [[10, 0, 0], [0, 10, 0]], np.array(["ä", "ä"]))
    assert_results(results, {"loss": 5})
    with pytest.raises(ModelError, match=r"Label b'z' is not in label_vocabulary: \["):
        evaluate(head, [[10, 0, 0]], np.array(["z"]))
    with pytest.raises(ModelError, match="Labels dtype should be string since there is a vocab"):
        evaluate(head, [[10, 0, 0]], np.array([1]))
    with pytest.raises(ConfigError, match="Length of label_vocabulary must be n_classes"):
        MultiClassHead(3, label_vocabulary=["a", "b"])
    with pytest.raises(ConfigError, match="should be a list"):
        BinaryClassHead(label_vocabulary="ab")


def test_multi_class_bad_labels() -> None:
    head, logits = MultiClassHead(3), [[10, 0, 0], [0, 10, 0]]
    with pytest.raises(ModelError, match="Labels must be <= 3 - 1, given 3"):
        evaluate(head, logits, [[1], [3]])
    with pytest.raises(ModelError, match="Labels must be >= 0, given -1"):
        evaluate(head, logits, [[1], [-1]])
    with pytest.raises(ModelError, match=r"Labels dtype should be integer\. Instead got float"):
        evaluate(head, logits, [[1.0], [1.0]])
    with pytest.raises(ModelError, match=r"Labels dtype should be integer\. Instead got strings"):
        evaluate(head, logits, np.array([["a"], ["b"]]))


def test_multi_class_needs_more_than_two_classes() -> None:
    with pytest.raises(ConfigError, match="n_classes cannot be None"):
        MultiClassHead(None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="n_classes must be > 2, given 2"):
        MultiClassHead(2)


# --- regression -------------------------------------------------------------------------------


def test_regression_metrics() -> None:
    results = evaluate(RegressionHead(), [[45], [41]], [[43], [44]])
    assert_results(
        results,
        {"loss": 6.5, "average_loss": 6.5, "label/mean": 43.5, "prediction/mean": 43},
    )
    assert len(results) == 4
    head = RegressionHead(loss_reduction="weighted_sum")  # tf.losses.Reduction.SUM
    assert evaluate(head, [[45], [41]], [[43], [44]])["loss"] == 13


WEIGHTED = {"loss": 33.8666667, "average_loss": 39.0769231}


def test_regression_weighted() -> None:
    logits, labels = [[45], [41], [44]], [[35], [42], [45]]
    head = RegressionHead(weight_column="w")
    assert_results(evaluate(head, logits, labels, w=[[1], [0.1], [1.5]]), WEIGHTED)
    assert_results(evaluate(head, logits, labels, w=[1, 0.1, 1.5]), WEIGHTED)
    column = numeric_column("w", normalizer_fn=lambda x: x + 1)
    head = RegressionHead(weight_column=column)
    assert_results(evaluate(head, logits, labels, w=[[0], [-0.9], [0.5]]), WEIGHTED)
    head = RegressionHead(3, weight_column="w")
    row = evaluate(head, [[45, 41, 44]], [[35, 42, 45]], w=[[1, 0.1, 1.5]])
    assert_results(row, WEIGHTED)


def test_regression_predictions() -> None:
    predictions = predict(RegressionHead(2), [[1, 2]])
    assert list(predictions) == ["predictions"]
    np.testing.assert_array_equal(predictions["predictions"], [[1, 2]])


# --- every head -------------------------------------------------------------------------------

HEADS: list[tuple[Head, Any]] = [
    (BinaryClassHead(weight_column="w"), [[1], [0]]),
    (MultiClassHead(3, weight_column="w"), [[1], [2]]),
    (RegressionHead(2, weight_column="w"), [[1.0, 2.0], [3.0, 4.0]]),
]


@pytest.mark.parametrize(("head", "labels"), HEADS)
def test_training_gives_a_traced_float32_loss(head: Head, labels: Any) -> None:
    optimizer = GradientDescentOptimizer(0.1)
    logits, root = new_root(np.ones((2, head.logits_dimension), np.float32))
    spec = head.create_estimator_spec(
        {"w": np.array([1, 2])},
        ModeKeys.TRAIN,
        logits,
        np.array(labels),
        train_op_fn=optimizer.minimize,
    )
    assert spec.train_op is not None
    assert spec.train_op.minimizations[0].loss is spec.loss
    gradient = backward(spec.loss, np.ones((), np.float32), {root})[root]
    assert (untraced(spec.loss).dtype, gradient.dtype) == (np.float32, np.float32)
    assert gradient.shape == (2, head.logits_dimension)


@pytest.mark.parametrize(("head", "labels"), HEADS)
def test_what_does_not_fit_is_refused(head: Head, labels: Any) -> None:
    logits = np.ones((2, head.logits_dimension), np.float32)
    weights = {"w": np.ones(2)}
    with pytest.raises(ModelError, match=r"You must provide a labels Tensor\. Given: None\."):
        head.create_estimator_spec(weights, ModeKeys.EVAL, logits)
    with pytest.raises(ModelError, match=r"labels shape must be \(2, .\), given \(1, .\)"):
        head.create_estimator_spec(weights, ModeKeys.EVAL, logits, np.array(labels)[:1])
    with pytest.raises(ModelError, match="logits shape must be"):
        head.create_estimator_spec(weights, ModeKeys.EVAL, np.ones((2, 7), np.float32), labels)
    with pytest.raises(ModelError, match=r"weights shape must be .* given \(3,\)"):
        head.create_estimator_spec({"w": np.ones(3)}, ModeKeys.EVAL, logits, np.array(labels))
    with pytest.raises(ModelError, match="'w' is not among the features: \\['x'\\]"):
        head.create_estimator_spec({"x": np.ones(2)}, ModeKeys.EVAL, logits, np.array(labels))
    with pytest.raises(ModelError, match="train_op_fn cannot be None"):
        head.create_estimator_spec(weights, ModeKeys.TRAIN, logits, np.array(labels))


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ConfigError, match="loss_reduction must be one of"):
        RegressionHead(loss_reduction="mean")
    with pytest.raises(ConfigError, match="label_dimension must be >= 1, given 0"):
        RegressionHead(0)
    with pytest.raises(ConfigError, match="weight_column must be"):
        RegressionHead(weight_column=3)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="Labels dtype should be a number"):
        evaluate(RegressionHead(), [[1]], np.array(["a"]))


@pytest.mark.parametrize(("head", "labels"), HEADS)
def test_batches_merge(head: Head, labels: Any) -> None:
    def found(logits: Any, given: Any, w: Any) -> dict[str, metrics.Metric]:
        spec = head.create_estimator_spec(
            {"w": w}, ModeKeys.EVAL, np.array(logits, np.float32), np.array(given)
        )
        return dict(spec.eval_metric_ops)

    logits = np.arange(2 * head.logits_dimension).reshape(2, -1) / 7
    whole = found(logits, labels, np.array([1, 2]))
    first = found(logits[:1], labels[:1], np.array([1]))
    second = found(logits[1:], labels[1:], np.array([2]))
    for name, metric in whole.items():
        assert first[name].merge(second[name]).result() == pytest.approx(metric.result()), name
