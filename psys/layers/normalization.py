"""Batch normalization: inputs with mean 0 and variance 1, by the batch's own statistics."""

from __future__ import annotations

import numpy as np

from psys.arrays import Array
from psys.compute.backward import untraced
from psys.compute.normalization import normalize
from psys.compute.updates import moving_average
from psys.compute.variables import current_store, get_variable, variable_scope
from psys.errors import ModelError
from psys.initializers import Constant, Initializer

_ZEROS, _ONES = Constant(0.0), Constant(1.0)


def batch_normalization(
    inputs: Array,
    axis: int = -1,
    momentum: float = 0.99,
    epsilon: float = 1e-3,
    center: bool = True,
    scale: bool = True,
    beta_initializer: Initializer = _ZEROS,
    gamma_initializer: Initializer = _ONES,
    moving_mean_initializer: Initializer = _ZEROS,
    moving_variance_initializer: Initializer = _ONES,
    training: bool = False,
    trainable: bool = True,
    name: str | None = None,
) -> Array:
    """Return ``gamma · (inputs − mean) / √(variance + epsilon) + beta``, of the inputs' shape.

    In training mean and variance are the batch's, and the step moves the averages
    ``moving_mean`` and ``moving_variance`` towards them; otherwise they are those averages. In
    tf.estimator programs the averages are updates to be run beside the train_op; here they
    travel with it by themselves.

    Args:
        inputs: ``[batch, ..., channels]`` float.
        axis: of the channels: the last.
        momentum: decay of the averages.
        epsilon: added to the variance.
        center: whether there is a ``beta`` ``[channels]``.
        scale: whether there is a ``gamma`` ``[channels]``.
        beta_initializer: zeros unless given.
        gamma_initializer: ones unless given.
        moving_mean_initializer: zeros unless given.
        moving_variance_initializer: ones unless given.
        training: whether this is a training step.
        trainable: whether gradients change gamma and beta.
        name: "batch_normalization", "batch_normalization_1", ... if None.

    Raises:
        ModelError: if ``axis`` is not the last one, or the inputs have no batch.

    References:
        Ioffe and Szegedy, "Batch Normalization", 2015.
    """
    if inputs.ndim < 2 or axis not in (-1, inputs.ndim - 1):
        raise ModelError(
            "layers.batch_normalization: inputs must be [batch, ..., channels] and axis the last, "
            f"got shape {inputs.shape} and axis {axis}."
        )
    shape = (inputs.shape[-1],)
    with variable_scope(name or current_store().unique_name("batch_normalization")):
        gamma = (
            get_variable("gamma", shape, "float32", gamma_initializer, trainable)
            if scale
            else np.ones(shape, np.float32)
        )
        beta = (
            get_variable("beta", shape, "float32", beta_initializer, trainable)
            if center
            else np.zeros(shape, np.float32)
        )
        if training:
            flat = np.asarray(untraced(inputs)).reshape(-1, shape[0])
            mean, variance = flat.mean(axis=0), flat.var(axis=0)
            moving_average("moving_mean", mean, momentum, moving_mean_initializer)
            moving_average("moving_variance", variance, momentum, moving_variance_initializer)
            return normalize(inputs, gamma, beta, epsilon)
        mean = get_variable("moving_mean", shape, "float32", moving_mean_initializer, False)
        variance = get_variable(
            "moving_variance", shape, "float32", moving_variance_initializer, False
        )
    spread = 1.0 / np.sqrt(variance + np.float32(epsilon))
    return (inputs - mean) * (spread * gamma) + beta
