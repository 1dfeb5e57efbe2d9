"""The differentiable operations of the hot path, each with one backward pass of its own.

Values and gradients keep their dtype: float32 in, float32 out, with no float64 temporary.
What is not here can be written with ``autograd.numpy``; these are only faster.
"""

from __future__ import annotations

from collections.abc import Sequence

from psys.arrays import Array
from psys.compute.activations import (
    elu,
    log_softmax,
    relu,
    relu_of,
    sigmoid,
    softmax,
    softplus,
    tanh,
    through_relu,
)
from psys.compute.cross_entropy import (
    sigmoid_cross_entropy,
    softmax_cross_entropy,
    sparse_softmax_cross_entropy,
    weighted_sum,
)
from psys.compute.embedding import Combination, combination, segment_combine
from psys.compute.placed import added_up, side_by_side
from psys.compute.tracing import by_many, by_parts

LEAST_PRODUCT = 1 << 22
"""Multiplications of a product that is worth handing to a second thread: some 30 µs."""

__all__ = [
    "Combination",
    "add_bias",
    "add_n",
    "added_up",
    "combination",
    "dense",
    "dense_relu",
    "elu",
    "log_softmax",
    "relu",
    "segment_combine",
    "side_by_side",
    "sigmoid",
    "sigmoid_cross_entropy",
    "softmax",
    "softmax_cross_entropy",
    "softplus",
    "sparse_softmax_cross_entropy",
    "tanh",
    "weighted_sum",
]


def dense(x: Array, kernel: Array, bias: Array | None = None) -> Array:
    """Return ``x @ kernel + bias``, ``[batch, units]``.

    Args:
        x: ``[batch, inputs]``.
        kernel: ``[inputs, units]``.
        bias: ``[units]``, or None for none.
    """
    return _dense(x, kernel, bias)


def dense_relu(x: Array, kernel: Array, bias: Array | None = None) -> Array:
    """Return ``relu(dense(x, kernel, bias))``, of which nothing is kept but the result."""
    return _dense_relu(x, kernel, bias)


def add_bias(x: Array, bias: Array) -> Array:
    """Return ``x + bias``, ``[batch, units]``.

    Args:
        x: ``[batch, units]``.
        bias: ``[units]``.
    """
    return _add_bias(x, bias)


def add_n(arrays: Sequence[Array]) -> Array:
    """Return the sum of arrays of one and the same shape."""
    return arrays[0] if len(arrays) == 1 else _add_n(*arrays)


def _dense_forward(x: Array, kernel: Array, bias: Array | None) -> Array:
    result: Array = x @ kernel
    if bias is not None:
        result += bias
    return result


def _dense_relu_forward(x: Array, kernel: Array, bias: Array | None) -> Array:
    result = _dense_forward(x, kernel, bias)
    return relu_of(result, result)


def _by_x(g: Array, _x: Array, kernel: Array, _bias: Array | None) -> Array:
    # The same numbers: of one unit there is nothing to be added up, which BLAS is slow at.
    return g * kernel.T if kernel.shape[1] == 1 else g @ kernel.T


def _by_kernel(g: Array, x: Array, _kernel: Array, _bias: Array | None) -> Array:
    return x.T @ g


def _by_bias(g: Array, *_args: Array | None) -> Array:
    result: Array = g.sum(axis=0)
    return result


def _may_wait(g: Array, x: Array, _kernel: Array, _bias: Array | None) -> int | None:
    """Return the kernel's number: nothing further back depends on its gradient."""
    return 1 if x.size * g.shape[1] >= LEAST_PRODUCT else None


def _add_bias_forward(x: Array, bias: Array) -> Array:
    result: Array = x + bias
    return result


def _add_bias_gradients(
    g: Array, argnums: tuple[int, ...], _x: Array, _bias: Array
) -> tuple[Array, ...]:
    return tuple(_by_bias(g) if argnum else g for argnum in argnums)


def _add_n_forward(*arrays: Array) -> Array:
    result: Array = arrays[0] + arrays[1]
    for array in arrays[2:]:
        result += array
    return result


def _add_n_gradients(g: Array, argnums: tuple[int, ...], *_arrays: Array) -> tuple[Array, ...]:
    return (g,) * len(argnums)


_dense = by_parts(_dense_forward, (_by_x, _by_kernel, _by_bias), _may_wait)
_dense_relu = by_parts(_dense_relu_forward, (_by_x, _by_kernel, _by_bias), _may_wait, through_relu)
_add_bias = by_many(_add_bias_forward, _add_bias_gradients)
_add_n = by_many(_add_n_forward, _add_n_gradients)
