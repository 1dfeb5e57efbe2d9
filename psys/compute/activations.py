"""Activation functions as primitives; float32 in, float32 out."""

from __future__ import annotations

import numpy as np

from psys.arrays import Array
from psys.compute.tracing import by_first


def sigmoid_of(x: Array) -> Array:
    """Return the sigmoid of an untraced array, as a new one."""
    # tanh neither overflows nor needs a mask: sigmoid(x) = (tanh(x / 2) + 1) / 2.
    result = np.asarray(np.tanh(x * x.dtype.type(0.5)))
    result += 1
    result *= x.dtype.type(0.5)
    return result


def softmax_of(x: Array) -> Array:
    """Return the softmax of an untraced array over its last axis, as a new one."""
    result: Array = np.exp(x - x.max(axis=-1, keepdims=True))
    result /= result.sum(axis=-1, keepdims=True)
    return result


def log_softmax_of(x: Array) -> Array:
    """Return the logarithm of the softmax of an untraced array, as a new one."""
    shifted = x - x.max(axis=-1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def _elu_of(x: Array) -> Array:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def _softplus_of(x: Array) -> Array:
    result: Array = np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
    return result


def relu_of(x: Array, out: Array | None = None) -> Array:
    """Return max(x, 0) of what is untraced, as a new array or in ``out``."""
    x = x if hasattr(x, "shape") else np.asarray(x)
    # Beside a row of zeros numpy compares many numbers at once; beside a single zero it does not.
    result: Array = np.maximum(x, np.zeros(x.shape[-1:], np.result_type(x, 0)), out=out)
    return result


def through_relu(g: Array, answer: Array) -> Array:
    """Return the gradient by x of ``answer = relu(x)``, of that by the answer."""
    # Numbers of two dtypes numpy multiplies more slowly than it converts them.
    result: Array = g * (answer > 0).astype(g.dtype)
    return result


_relu = by_first(relu_of, lambda g, answer, _x: through_relu(g, answer))
_sigmoid = by_first(sigmoid_of, lambda g, answer, _x: g * (answer * (1 - answer)))
_tanh = by_first(np.tanh, lambda g, answer, _x: g * (1 - answer * answer))
_elu = by_first(_elu_of, lambda g, answer, x: np.where(x > 0, g, g * (answer + 1)))
_softplus = by_first(_softplus_of, lambda g, _answer, x: g * sigmoid_of(x))
_softmax = by_first(
    softmax_of,
    lambda g, answer, _x: answer * (g - (g * answer).sum(axis=-1, keepdims=True)),
)
_log_softmax = by_first(
    log_softmax_of,
    lambda g, answer, _x: g - np.exp(answer) * g.sum(axis=-1, keepdims=True),
)


def relu(x: Array) -> Array:
    """Return max(x, 0)."""
    return _relu(x)


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x))."""
    return _sigmoid(x)


def tanh(x: Array) -> Array:
    """Return the hyperbolic tangent."""
    return _tanh(x)


def elu(x: Array) -> Array:
    """Return x where x > 0, else exp(x) - 1 (Clevert et al., 2015)."""
    return _elu(x)


def softplus(x: Array) -> Array:
    """Return log(1 + exp(x))."""
    return _softplus(x)


def softmax(x: Array) -> Array:
    """Return exp(x) / sum(exp(x)) over the last axis."""
    return _softmax(x)


def log_softmax(x: Array) -> Array:
    """Return the logarithm of ``softmax(x)``."""
    return _log_softmax(x)
