from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from psys import losses
from psys.compute.backward import backward, new_root, untraced
from psys.errors import ModelError
from psys.losses import Reduction

LOGITS = np.array([[1.0, -2.0], [0.5, 3.0]], np.float32)
LABELS = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        (Reduction.SUM, 1 * 2 + 2 * 0 + 3 * 4),
        (Reduction.SUM_OVER_BATCH_SIZE, 14 / 3),
        (Reduction.SUM_BY_NONZERO_WEIGHTS, 14 / 2),
        (Reduction.MEAN, 14 / 6),
    ],
)
def test_reductions(reduction: str, expected: float) -> None:
    loss = losses.compute_weighted_loss(
        np.array([1, 2, 3], np.float32), np.array([2, 0, 4]), reduction
    )
    assert loss.dtype == np.float32
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_no_reduction_keeps_the_losses() -> None:
    loss = losses.compute_weighted_loss(np.array([1, 2], np.float32), 3.0, Reduction.NONE)
    np.testing.assert_array_equal(loss, [3, 6])


def test_all_zero_weights_give_zero() -> None:
    assert losses.compute_weighted_loss(np.array([1, 2], np.float32), 0.0) == 0


def test_bad_weights_and_reductions_are_refused() -> None:
    with pytest.raises(ModelError, match=r"weights of shape \(3,\).*\(2,\)"):
        losses.compute_weighted_loss(np.ones(2, np.float32), np.ones(3))
    with pytest.raises(ModelError, match="reduction must be one of"):
        losses.compute_weighted_loss(np.ones(2, np.float32), 1.0, "average")


def test_mean_squared_error() -> None:
    loss = losses.mean_squared_error(np.array([1, 2]), np.array([3, 5], np.float32))
    np.testing.assert_allclose(loss, (4 + 9) / 2)
    with pytest.raises(ModelError, match=r"labels of shape \(2,\).*predictions.*\(2, 1\)"):
        losses.mean_squared_error(np.ones(2), np.ones((2, 1), np.float32))


def test_absolute_difference_and_huber() -> None:
    predictions = np.array([0.5, 3.0], np.float32)
    np.testing.assert_allclose(losses.absolute_difference(np.zeros(2), predictions), 1.75)
    np.testing.assert_allclose(
        losses.huber_loss(np.zeros(2), predictions), (0.125 + 2.5) / 2, rtol=1e-6
    )


def test_log_loss_is_the_cross_entropy_of_probabilities() -> None:
    probabilities = 1 / (1 + np.exp(-LOGITS))
    np.testing.assert_allclose(
        losses.log_loss(LABELS, probabilities),
        losses.sigmoid_cross_entropy(LABELS, LOGITS),
        rtol=1e-5,
    )


def test_hinge() -> None:
    # 1 - 1, 1 - 2 -> 0, 1 + 0.5, 1 - 3 -> 0
    np.testing.assert_allclose(losses.hinge_loss(LABELS, LOGITS), 1.5 / 4)


def test_softmax_of_one_hot_labels_is_that_of_class_numbers() -> None:
    one_hot = losses.softmax_cross_entropy(LABELS, LOGITS)
    np.testing.assert_allclose(one_hot, (np.log1p(np.exp(-3)) + np.log1p(np.exp(-2.5))) / 2)
    for labels in (np.array([0, 1]), np.array([[0], [1]])):
        sparse = losses.sparse_softmax_cross_entropy(labels, LOGITS)
        np.testing.assert_allclose(sparse, one_hot, rtol=1e-6)


def test_label_smoothing() -> None:
    smooth = losses.sigmoid_cross_entropy(LABELS, LOGITS, label_smoothing=0.2)
    by_hand = losses.sigmoid_cross_entropy(LABELS * 0.8 + 0.1, LOGITS)
    np.testing.assert_allclose(smooth, by_hand)
    smooth = losses.softmax_cross_entropy(LABELS, LOGITS, label_smoothing=0.2)
    by_hand = losses.softmax_cross_entropy(LABELS * 0.8 + 0.1, LOGITS)
    np.testing.assert_allclose(smooth, by_hand)


def test_class_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ModelError, match=r"in \[0, 2\), given 0 to 2"):
        losses.sparse_softmax_cross_entropy(np.array([0, 2]), LOGITS)
    with pytest.raises(ModelError, match="integers of shape"):
        losses.sparse_softmax_cross_entropy(np.array([0.0, 1.0]), LOGITS)


CASES: dict[str, Callable[[Any], Any]] = {
    "mean_squared_error": lambda x: losses.mean_squared_error(LABELS, x, 0.5),
    "absolute_difference": lambda x: losses.absolute_difference(LABELS, x),
    "huber": lambda x: losses.huber_loss(LABELS, x),
    "hinge": lambda x: losses.hinge_loss(LABELS, x),
    "log_loss": lambda x: losses.log_loss(LABELS, x * 0 + 0.3),
    "sigmoid": lambda x: losses.sigmoid_cross_entropy(LABELS, x, label_smoothing=0.1),
    "softmax": lambda x: losses.softmax_cross_entropy(LABELS, x, np.array([1, 2])),
    "sparse": lambda x: losses.sparse_softmax_cross_entropy(np.array([0, 1]), x),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_stay_float32(name: str) -> None:
    box, root = new_root(LOGITS)
    loss = CASES[name](box)
    gradient = backward(loss, np.ones_like(untraced(loss)), {root})[root]
    assert (untraced(loss).dtype, gradient.dtype) == (np.float32, np.float32)
