"""Layers: a differentiable function and the variables it needs, made under its name.

A layer keeps nothing between two calls; its variables live in the current store.
"""

from __future__ import annotations

from collections.abc import Callable

from psys import nn
from psys.arrays import Array
from psys.compute import primitives
from psys.compute.backward import untraced
from psys.compute.variables import current_store, get_variable, variable_scope
from psys.errors import ModelError
from psys.initializers import Constant, Initializer

_ZEROS = Constant(0.0)


def dense(
    inputs: Array,
    units: int,
    activation: Callable[[Array], Array] | None = None,
    use_bias: bool = True,
    kernel_initializer: Initializer | None = None,
    bias_initializer: Initializer = _ZEROS,
    *,
    trainable: bool = True,
    name: str | None = None,
) -> Array:
    """Return ``activation(inputs @ kernel + bias)``, ``[batch, units]``.

    Its variables are ``<name>/kernel`` ``[inputs, units]`` and ``<name>/bias`` ``[units]``.

    Args:
        inputs: ``[batch, inputs]``; with more axes, the last one is the inputs.
        units: how many outputs.
        activation: a function of an array, or None for none.
        use_bias: whether there is a bias.
        kernel_initializer: Glorot uniform if None.
        bias_initializer: zeros unless given.
        trainable: whether gradients change its variables.
        name: "dense", "dense_1", ... if None. A name used twice shares its variables.

    Raises:
        ModelError: if ``units`` is less than one or ``inputs`` has no axis of inputs.
    """
    if units < 1:
        raise ModelError(f"layers.dense: units must be at least 1, got {units}.")
    shape = untraced(inputs).shape
    if len(shape) < 2:
        raise ModelError(f"layers.dense: inputs must be [batch, inputs], got shape {shape}.")
    *leading, width = shape
    with variable_scope(name or current_store().unique_name("dense")):
        kernel = get_variable(
            "kernel", (width, units), "float32", kernel_initializer, trainable=trainable
        )
        bias = None
        if use_bias:
            bias = get_variable("bias", (units,), "float32", bias_initializer, trainable=trainable)
    compute = primitives.dense
    if activation is nn.relu:
        compute, activation = primitives.dense_relu, None
    if len(leading) == 1:
        outputs = compute(inputs, kernel, bias)
    else:
        outputs = compute(inputs.reshape((-1, width)), kernel, bias).reshape((*leading, units))
    return outputs if activation is None else activation(outputs)


def dropout(inputs: Array, rate: float = 0.5, training: bool = False) -> Array:
    """Return ``inputs`` with a fraction ``rate`` zeroed and the rest scaled up, in training.

    Raises:
        ModelError: if ``rate`` is not in [0, 1).
    """
    return nn.dropout(inputs, rate) if training else inputs


def flatten(inputs: Array) -> Array:
    """Return ``inputs`` as ``[batch, everything else]``."""
    return inputs.reshape((inputs.shape[0], -1))
