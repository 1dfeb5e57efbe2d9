"""Differentiable functions under the names that ``tf.nn`` gives them.

They hold no variables. float32 in, float32 out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from psys.arrays import Array
from psys.compute import primitives
from psys.compute.primitives import (
    elu,
    log_softmax,
    relu,
    sigmoid,
    softmax,
    softplus,
    tanh,
)
from psys.compute.variables import current_store, untraced
from psys.errors import ModelError
from psys.names import missing_in as _missing_in

__getattr__ = _missing_in(__name__)

__all__ = [
    "bias_add",
    "dropout",
    "elu",
    "l2_loss",
    "leaky_relu",
    "log_softmax",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "sigmoid_cross_entropy_with_logits",
    "softmax",
    "softmax_cross_entropy_with_logits",
    "softplus",
    "sparse_softmax_cross_entropy_with_logits",
    "tanh",
    "zero_fraction",
]

_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def relu6(x: Array) -> Array:
    """Return min(max(x, 0), 6)."""
    return relu(x) - relu(x - 6)


def leaky_relu(x: Array, alpha: float = 0.2) -> Array:
    """Return x where x > 0, else ``alpha * x``."""
    return relu(x) - alpha * relu(-x)


def selu(x: Array) -> Array:
    """Return the scaled exponential linear unit (Klambauer et al., 2017)."""
    return _SELU_SCALE * (relu(x) + _SELU_ALPHA * (elu(x) - relu(x)))


def bias_add(value: Array, bias: Array) -> Array:
    """Return ``value + bias`` with bias ``[units]`` along the last axis."""
    return value + bias


def dropout(x: Array, rate: float) -> Array:
    """Return x with elements zeroed with probability ``rate``, the others scaled to keep the sum.

    The choice follows the job's seed and the global step, so a step can be repeated.

    Raises:
        ModelError: if ``rate`` is not in [0, 1), or outside a model_fn.
    """
    if not 0 <= rate < 1:
        raise ModelError(f"dropout rate must be in [0, 1), got {rate}.")
    if rate == 0:
        return x
    plain = untraced(x)
    kept = current_store().generator.random(plain.shape, np.float32) >= rate
    scaled: Array = x * (kept * plain.dtype.type(1 / (1 - rate)))
    return scaled


def l2_loss(x: Array) -> Array:
    """Return the scalar ``sum(x²) / 2``."""
    return primitives.weighted_sum(x * x, None, 2.0)


def zero_fraction(value: Any) -> float:
    """Return the fraction of elements that are zero."""
    return float(np.mean(untraced(value) == 0))


def sigmoid_cross_entropy_with_logits(*, labels: Array, logits: Array) -> Array:
    """Return the sigmoid cross entropy of each element, of the shape of ``logits``."""
    _check_same_shape(labels, logits)
    return primitives.sigmoid_cross_entropy(labels, logits)


def softmax_cross_entropy_with_logits(*, labels: Array, logits: Array) -> Array:
    """Return ``[batch]`` cross entropies of ``[batch, classes]`` distributions and logits."""
    _check_same_shape(labels, logits)
    return primitives.softmax_cross_entropy(labels, logits)


def sparse_softmax_cross_entropy_with_logits(*, labels: Array, logits: Array) -> Array:
    """Return ``[batch]`` cross entropies of class numbers ``[batch]`` and logits."""
    if np.shape(untraced(labels)) != logits.shape[:-1]:
        raise ModelError(
            f"labels must have shape {logits.shape[:-1]} (logits without the last axis), given "
            f"{np.shape(untraced(labels))}."
        )
    return primitives.sparse_softmax_cross_entropy(labels, logits)


def _check_same_shape(labels: Any, logits: Any) -> None:
    given, expected = np.shape(untraced(labels)), np.shape(untraced(logits))
    if given != expected:
        raise ModelError(f"labels must have the shape of logits, {expected}, given {given}.")
