"""Gradients as 16-bit floats, for the way from trainer to ps only.

float16 keeps 11 significant bits of a number and ends at 65,504; bfloat16 keeps 8 and has
float32's range. Both round to the nearest, ties to even. What travels is an array of bits, whose
dtype names the format: numpy has no bfloat16.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from psys import kernels
from psys.arrays import Array, squares_are_finite
from psys.errors import ConfigError, ModelError
from psys.rpc.recycler import Recycler

FLOAT16: np.dtype[Any] = np.dtype([("float16", "<u2")])
BFLOAT16: np.dtype[Any] = np.dtype([("bfloat16", "<u2")])

PUSH_DTYPES: Mapping[str, np.dtype[Any]] = {"float16": FLOAT16, "bfloat16": BFLOAT16}
"""The dtypes a gradient may travel as, by the name that ``push_dtype`` gives them."""


def check_push_dtype(name: str | None) -> np.dtype[Any] | None:
    """Return the dtype of the bits of a ``push_dtype``, None for none.

    Raises:
        ConfigError: if there is no such push_dtype.
    """
    if name is None:
        return None
    if name not in PUSH_DTYPES:
        raise ConfigError(f"push_dtype: expected None or one of {list(PUSH_DTYPES)}, got {name!r}.")
    return PUSH_DTYPES[name]


def narrow(
    values: Array, bits: np.dtype[Any], name: str, recycler: Recycler | None = None
) -> Array:
    """Return float32 values as 16-bit floats, of the dtype ``bits``.

    Args:
        values: to send.
        bits: ``FLOAT16`` or ``BFLOAT16``.
        name: of the variable.
        recycler: lends the memory; None for new memory.

    Raises:
        ModelError: if a number would become infinite; the message names ``name``.
    """
    values = np.ascontiguousarray(values).reshape(values.shape)
    if bits == BFLOAT16:
        halves = kernels.to_bfloat16(values, _room(values.shape, np.uint16, recycler))
        # Without its sign, this bfloat16 is infinite.
        if not squares_are_finite(values) and _is_beyond(halves << 1 == 0xFF00, values):
            raise ModelError(
                f"The gradient of {name!r} holds a value beyond bfloat16's range of 3.39e38; "
                "clip it."
            )
        return halves.view(BFLOAT16)
    halves = kernels.to_float16(values, _room(values.shape, np.float16, recycler))
    if _is_beyond(np.isinf(halves), values):
        raise ModelError(
            f"The gradient of {name!r} holds a value beyond float16's range of 65,504; "
            "use push_dtype='bfloat16', or clip it."
        )
    return halves.view(FLOAT16)


def _is_beyond(infinite: Array, values: Array) -> bool:
    """Return whether a finite value became infinite."""
    return bool(infinite.any()) and not np.isinf(values[infinite]).all()


def widen(values: Array, recycler: Recycler | None = None) -> Array:
    """Return 16-bit floats as float32; any other array as it is.

    Args:
        values: as they came.
        recycler: lends the memory; None for new memory.
    """
    if values.dtype == FLOAT16:
        room = _room(values.shape, np.float32, recycler)
        return kernels.from_float16(values.view(np.float16), room)
    if values.dtype == BFLOAT16:
        room = _room(values.shape, np.float32, recycler)
        return kernels.from_bfloat16(values.view(np.uint16), room)
    return values


def _room(shape: tuple[int, ...], dtype: Any, recycler: Recycler | None) -> Array | None:
    if recycler is None:
        return None
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room: Array = recycler.lend(size).view(dtype).reshape(shape)
    return room
