"""Normalizing a batch by its own mean and variance, as one primitive."""

from __future__ import annotations

import numpy as np

from psys.arrays import Array
from psys.compute.tracing import by_many


def normalize(x: Array, gamma: Array, beta: Array, epsilon: float) -> Array:
    """Return ``gamma · (x − mean) / √(variance + epsilon) + beta``, of the shape of ``x``.

    Mean and variance are those of each channel over all else in ``x``, and gradients flow
    through them.

    Args:
        x: ``[batch, ..., channels]``.
        gamma: ``[channels]``.
        beta: ``[channels]``.
        epsilon: added to the variance.

    References:
        Ioffe and Szegedy, "Batch Normalization", 2015, algorithm 1.
    """
    return _normalize(x, gamma, beta, epsilon)


def _statistics(x: Array, epsilon: float) -> tuple[Array, Array]:
    """Return x with mean 0 and variance 1, ``[n, channels]``, and 1/√(variance + epsilon)."""
    flat = x.reshape(-1, x.shape[-1])
    spread = 1.0 / np.sqrt(flat.var(axis=0) + x.dtype.type(epsilon))
    return (flat - flat.mean(axis=0)) * spread, spread


def _forward(x: Array, gamma: Array, beta: Array, epsilon: float) -> Array:
    normal, _ = _statistics(x, epsilon)
    return (normal * gamma + beta).reshape(x.shape)


def _gradients(
    g: Array, argnums: tuple[int, ...], x: Array, gamma: Array, _beta: Array, epsilon: float
) -> tuple[Array, ...]:
    normal, spread = _statistics(x, epsilon)
    g = g.reshape(normal.shape)
    by_beta, by_gamma = g.sum(axis=0), (g * normal).sum(axis=0)
    found = {1: by_gamma, 2: by_beta}
    if 0 in argnums:
        n = x.dtype.type(len(normal))
        by_x = (g - by_beta / n - normal * (by_gamma / n)) * (gamma * spread)
        found[0] = by_x.reshape(x.shape)
    return tuple(found[argnum] for argnum in argnums)


_normalize = by_many(_forward, _gradients)
