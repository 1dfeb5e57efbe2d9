"""Metrics against numbers that TF printed (tf.keras.metrics.AUC, tf.compat.v1.metrics.auc)."""

from __future__ import annotations

import pytest

from psys import metrics

CASES = [
    # labels, predictions, weights, TF 1 ROC, TF 1 PR, TF 2 PR
    ([1, 0, 1, 0], [0.9, 0.1, 0.8, 0.3], None, 0.9999995, 0.9999995, 1),
    ([1, 0, 1, 0], [0.2, 0.8, 0.6, 0.4], None, 0.2500002, 0.3333336, 0.3657443),
    ([1, 1, 0, 0, 1], [0.95, 0.7, 0.6, 0.5, 0.2], None, 0.6666664, 0.8499998, 0.8512377),
    (
        [1, 1, 0, 0, 1],
        [0.95, 0.7, 0.6, 0.5, 0.2],
        [1, 2, 0.5, 1, 3],
        0.4999997,
        0.8666666,
        0.8722937,
    ),
    ([1, 0], [0.2689, 0.7311], None, 0, 0.25, 0.3068528),
    ([1, 0], [0.5, 0.5], None, 0.5, 0.75, 0.5),
]


@pytest.mark.parametrize(("labels", "predictions", "weights", "roc", "pr", "pr2"), CASES)
def test_auc(
    labels: list[float],
    predictions: list[float],
    weights: list[float] | None,
    roc: float,
    pr: float,
    pr2: float,
) -> None:
    def area(curve: str, method: str) -> float:
        return metrics.auc(
            labels, predictions, weights, curve=curve, summation_method=method
        ).result()

    assert area("ROC", "trapezoidal") == pytest.approx(roc, abs=2e-6)
    assert area("ROC", "interpolation") == pytest.approx(roc, abs=2e-6)
    assert area("PR", "trapezoidal") == pytest.approx(pr, abs=2e-6)
    assert area("PR", "interpolation") == pytest.approx(pr2, abs=2e-6)


def test_weighted_binary_counts() -> None:
    labels, predictions, weights = [1, 1, 0], [1, 0, 1], [1, 0.1, 1.5]
    assert metrics.accuracy(labels, predictions, weights).result() == pytest.approx(0.3846154)
    assert metrics.precision(labels, predictions, weights).result() == pytest.approx(1 / 2.5)
    assert metrics.recall(labels, predictions, weights).result() == pytest.approx(1 / 1.1)
    assert metrics.mean(labels, weights).result() == pytest.approx(0.4230769)
    assert metrics.accuracy_baseline(labels, weights).result() == pytest.approx(0.5769231)
