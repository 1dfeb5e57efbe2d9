"""Cross entropies, and the weighted sum a loss ends with, as primitives.

Labels and weights are data: no gradient flows into them.
"""

from __future__ import annotations

import numpy as np

from psys.arrays import Array
from psys.compute.activations import log_softmax_of, sigmoid_of, softmax_of
from psys.compute.backward import untraced
from psys.compute.tracing import by_first


def _sigmoid_forward(logits: Array, labels: Array) -> Array:
    # max(x, 0) - x z + log(1 + exp(-|x|)) is -z log p - (1 - z) log(1 - p) without overflow.
    result = np.asarray(np.exp(-np.abs(logits)))
    np.log1p(result, out=result)
    result += np.maximum(logits, 0)
    result -= logits * labels
    return result


def _sigmoid_gradient(g: Array, _answer: Array, logits: Array, labels: Array) -> Array:
    result = sigmoid_of(logits)
    result -= labels
    result *= g
    return result


def _sparse_softmax_forward(logits: Array, labels: Array) -> Array:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    chosen = np.take_along_axis(shifted, labels[..., None], axis=-1)[..., 0]
    result: Array = np.log(np.exp(shifted).sum(axis=-1)) - chosen
    return result


def _sparse_softmax_gradient(g: Array, _answer: Array, logits: Array, labels: Array) -> Array:
    result = softmax_of(logits)
    place = labels[..., None]
    chosen = np.take_along_axis(result, place, axis=-1)
    np.put_along_axis(result, place, chosen - 1, axis=-1)
    result *= g[..., None]
    return result


def _softmax_forward(logits: Array, labels: Array) -> Array:
    result: Array = -(labels * log_softmax_of(logits)).sum(axis=-1)
    return result


def _softmax_gradient(g: Array, _answer: Array, logits: Array, labels: Array) -> Array:
    total = labels.sum(axis=-1, keepdims=True)
    result: Array = g[..., None] * (softmax_of(logits) * total - labels)
    return result


def _weighted_sum_forward(values: Array, weights: Array | None, divisor: float) -> Array:
    total = values.sum() if weights is None else (values * weights).sum()
    return np.asarray(total / values.dtype.type(divisor))


def _weighted_sum_gradient(
    g: Array, _answer: Array, values: Array, weights: Array | None, divisor: float
) -> Array:
    scale = values.dtype.type(g / divisor)
    if weights is None:
        return np.full(values.shape, scale)
    return np.broadcast_to(weights * scale, values.shape)


_sigmoid_cross_entropy = by_first(_sigmoid_forward, _sigmoid_gradient)
_sparse_softmax_cross_entropy = by_first(_sparse_softmax_forward, _sparse_softmax_gradient)
_softmax_cross_entropy = by_first(_softmax_forward, _softmax_gradient)
_weighted_sum = by_first(_weighted_sum_forward, _weighted_sum_gradient)


def sigmoid_cross_entropy(labels: Array, logits: Array) -> Array:
    """Return ``-z log(p) - (1 - z) log(1 - p)`` with p = sigmoid(logits), element by element.

    Args:
        labels: z, between 0 and 1, of the shape of ``logits``.
        logits: any shape.
    """
    return _sigmoid_cross_entropy(logits, _like(labels, logits))


def sparse_softmax_cross_entropy(labels: Array, logits: Array) -> Array:
    """Return ``-log softmax(logits)[label]``, ``[batch, ...]``.

    Args:
        labels: ``[batch, ...]`` class numbers.
        logits: ``[batch, ..., classes]``.
    """
    return _sparse_softmax_cross_entropy(logits, np.asarray(untraced(labels)))


def softmax_cross_entropy(labels: Array, logits: Array) -> Array:
    """Return ``-sum(labels * log softmax(logits))`` over the last axis, ``[batch, ...]``.

    Args:
        labels: ``[batch, ..., classes]`` a distribution over the classes.
        logits: ``[batch, ..., classes]``.
    """
    return _softmax_cross_entropy(logits, _like(labels, logits))


def weighted_sum(values: Array, weights: Array | None = None, divisor: float = 1.0) -> Array:
    """Return the scalar ``sum(values * weights) / divisor``.

    Args:
        values: any shape.
        weights: data of a shape that broadcasts to that of ``values``; None for all ones.
        divisor: e.g. the number of elements, for a mean.
    """
    return _weighted_sum(values, None if weights is None else _like(weights, values), divisor)


def _like(data: Array, values: Array) -> Array:
    """Return ``data`` untraced and in the dtype of ``values``."""
    return np.asarray(untraced(data), untraced(values).dtype)
