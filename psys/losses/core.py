"""A loss for each example, and its reduction to the one number that is minimized.

Labels and weights are data; gradients flow into predictions and logits alone.
"""

from __future__ import annotations

from typing import Any

import autograd.numpy as anp
import numpy as np

from psys.arrays import Array
from psys.compute import primitives
from psys.compute.variables import untraced
from psys.errors import ModelError


class Reduction:
    """How losses become one number.

    Attributes:
        NONE: they do not: the weighted losses themselves.
        SUM: their weighted sum.
        SUM_OVER_BATCH_SIZE: the weighted sum divided by the number of elements.
        SUM_BY_NONZERO_WEIGHTS: the weighted sum divided by the number of nonzero weights, what
            tf.losses does unless told otherwise. Without weights it is the mean.
        MEAN: the weighted sum divided by the sum of the weights.
    """

    NONE = "none"
    SUM = "weighted_sum"
    SUM_OVER_BATCH_SIZE = "weighted_sum_over_batch_size"
    SUM_BY_NONZERO_WEIGHTS = "weighted_sum_by_nonzero_weights"
    MEAN = "weighted_mean"


def compute_weighted_loss(
    losses: Array,
    weights: Any = 1.0,
    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS,
) -> Array:
    """Return the weighted losses reduced to a scalar.

    Args:
        losses: any shape.
        weights: a scalar, or an array that broadcasts to ``losses``.
        reduction: a ``Reduction``.

    Raises:
        ModelError: if the weights do not broadcast or the reduction is unknown.
    """
    plain = untraced(losses)
    weights = np.asarray(untraced(weights), plain.dtype)
    try:
        every = np.broadcast_to(weights, plain.shape)
    except ValueError:
        raise ModelError(
            f"weights of shape {weights.shape} do not broadcast to losses of shape {plain.shape}."
        ) from None
    if reduction == Reduction.NONE:
        weighted: Array = losses * every
        return weighted
    divisors = {
        Reduction.SUM: 1.0,
        Reduction.SUM_OVER_BATCH_SIZE: every.size,
        Reduction.SUM_BY_NONZERO_WEIGHTS: np.count_nonzero(every),
        Reduction.MEAN: every.sum(),
    }
    if reduction not in divisors:
        raise ModelError(
            f"reduction must be one of {sorted([*divisors, Reduction.NONE])}, got {reduction!r}."
        )
    # A batch whose weights are all zero has the loss zero.
    divisor = float(divisors[reduction]) or 1.0
    return primitives.weighted_sum(losses, None if (weights == 1).all() else every, divisor)


def mean_squared_error(
    labels: Any,
    predictions: Array,
    weights: Any = 1.0,
    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS,
) -> Array:
    """Return the mean of ``(predictions - labels)²``; see ``compute_weighted_loss``."""
    difference = predictions - _labels(labels, predictions)
    return compute_weighted_loss(difference * difference, weights, reduction)


def absolute_difference(
    labels: Any,
    predictions: Array,
    weights: Any = 1.0,
    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS,
) -> Array:
    """Return the mean of ``|predictions - labels|``; see ``compute_weighted_loss``."""
    losses = anp.abs(predictions - _labels(labels, predictions))
    return compute_weighted_loss(losses, weights, reduction)


def huber_loss(
    labels: Any,
    predictions: Array,
    weights: Any = 1.0,
    delta: float = 1.0,
    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS,
) -> Array:
    """Return a loss that is quadratic up to ``delta`` and linear beyond (Huber, 1964)."""
    error = anp.abs(predictions - _labels(labels, predictions))
    linear = primitives.relu(error - delta)
    quadratic = error - linear
    losses = 0.5 * quadratic * quadratic + delta * linear
    return compute_weighted_loss(losses, weights, reduction)


def log_loss(
    labels: Any,
    predictions: Array,
    weights: Any = 1.0,
    epsilon: float = 1e-7,
    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS,
) -> Array:
    """Return ``-z log(p + ε) - (1 - z) log(1 - p + ε)`` of probabilities p and labels z."""
    z = _labels(labels, predictions)
    losses = -z * anp.log(predictions + epsilon) - (1 - z) * anp.log(1 - predictions + epsilon)
    return compute_weighted_loss(losses, weights, reduction)


def hinge_loss(
    labels: Any,
    logits: Array,
    weights: Any = 1.0,
    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS,
) -> Array:
    """Return ``max(0, 1 - (2 z - 1) logits)`` of labels z in {0, 1}."""
    losses = primitives.relu(1 - (2 * _labels(labels, logits) - 1) * logits)
    return compute_weighted_loss(losses, weights, reduction)


def sigmoid_cross_entropy(
    multi_class_labels: Any,
    logits: Array,
    weights: Any = 1.0,
    label_smoothing: float = 0,
    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS,
) -> Array:
    """Return the mean sigmoid cross entropy; see ``compute_weighted_loss``.

    Args:
        multi_class_labels: in [0, 1], of the shape of ``logits``.
        logits: ``[batch, classes]``.
        weights: as for ``compute_weighted_loss``.
        label_smoothing: moves the labels this fraction of the way to 1/2.
        reduction: a ``Reduction``.
    """
    labels = _labels(multi_class_labels, logits)
    if label_smoothing:
        labels = labels * (1 - label_smoothing) + 0.5 * label_smoothing
    losses = primitives.sigmoid_cross_entropy(labels, logits)
    return compute_weighted_loss(losses, weights, reduction)


def softmax_cross_entropy(
    onehot_labels: Any,
    logits: Array,
    weights: Any = 1.0,
    label_smoothing: float = 0,
    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS,
) -> Array:
    """Return the mean softmax cross entropy; see ``compute_weighted_loss``.

    Args:
        onehot_labels: ``[batch, classes]`` distributions.
        logits: ``[batch, classes]``.
        weights: a scalar or ``[batch]``.
        label_smoothing: moves the labels this fraction of the way to 1 / classes.
        reduction: a ``Reduction``.
    """
    labels = _labels(onehot_labels, logits)
    if label_smoothing:
        labels = labels * (1 - label_smoothing) + label_smoothing / logits.shape[-1]
    losses = primitives.softmax_cross_entropy(labels, logits)
    return compute_weighted_loss(losses, weights, reduction)


def sparse_softmax_cross_entropy(
    labels: Any,
    logits: Array,
    weights: Any = 1.0,
    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS,
) -> Array:
    """Return the mean softmax cross entropy of class numbers; see ``compute_weighted_loss``.

    Args:
        labels: ``[batch]`` or ``[batch, 1]`` integers in [0, classes).
        logits: ``[batch, classes]``.
        weights: a scalar, ``[batch]`` or ``[batch, 1]``.
        reduction: a ``Reduction``.

    Raises:
        ModelError: if a label is out of range, no integer, or the shapes do not fit.
    """
    labels = np.asarray(untraced(labels))
    if labels.ndim == logits.ndim and labels.shape[-1] == 1:
        labels = labels[..., 0]
    if labels.dtype.kind not in "iub" or labels.shape != logits.shape[:-1]:
        raise ModelError(
            f"labels must be integers of shape {logits.shape[:-1]}, given {labels.dtype} "
            f"{labels.shape}."
        )
    classes = logits.shape[-1]
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise ModelError(
            f"labels must be in [0, {classes}), given {labels.min()} to {labels.max()}."
        )
    weights = np.asarray(untraced(weights))
    if weights.ndim > labels.ndim and weights.shape[-1] == 1:
        weights = weights[..., 0]
    losses = primitives.sparse_softmax_cross_entropy(labels.astype(np.int64, copy=False), logits)
    return compute_weighted_loss(losses, weights, reduction)


def _labels(labels: Any, predictions: Array) -> Array:
    """Return the labels untraced, in the dtype of the predictions, which have their shape."""
    plain = untraced(predictions)
    result = np.asarray(untraced(labels), plain.dtype)
    if result.shape != plain.shape:
        raise ModelError(
            f"labels of shape {result.shape} do not fit predictions of shape {plain.shape}."
        )
    return result
