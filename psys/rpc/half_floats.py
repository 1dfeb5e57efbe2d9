"""Gradients as 16-bit floats, for the way from trainer to ps only.

float16 keeps 11 significant bits of a number and ends at 65,504; bfloat16 keeps 8 and has
float32's range. Both round to the nearest, ties to even. What travels is an array of bits, whose
dtype names the format: numpy has no bfloat16.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from psys import kernels
from psys.arrays import Array
from psys.errors import ConfigError, ModelError

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


def narrow(values: Array, bits: np.dtype[Any], name: str) -> Array:
    """Return float32 values as 16-bit floats, of the dtype ``bits``.

    Raises:
        ModelError: if a number would become infinite; the message names ``name``.
    """
    values = np.ascontiguousarray(values).reshape(values.shape)
    if bits == BFLOAT16:
        halves = kernels.to_bfloat16(values)
        # Without its sign, a bfloat16 from here on is infinite or NaN.
        unsigned = halves << 1
        beyond = halves.size and unsigned.max() >= 0xFF00
        if beyond and _is_beyond(unsigned == 0xFF00, values):
            raise ModelError(
                f"The gradient of {name!r} holds a value beyond bfloat16's range of 3.39e38; "
                "clip it."
            )
        return halves.view(BFLOAT16)
    halves = kernels.to_float16(values)
    if _is_beyond(np.isinf(halves), values):
        raise ModelError(
            f"The gradient of {name!r} holds a value beyond float16's range of 65,504; "
            "use push_dtype='bfloat16', or clip it."
        )
    return halves.view(FLOAT16)


def _is_beyond(infinite: Array, values: Array) -> bool:
    """Return whether a finite value became infinite."""
    return bool(infinite.any()) and not np.isinf(values[infinite]).all()


def widen(values: Array) -> Array:
    """Return 16-bit floats as float32; any other array as it is."""
    if values.dtype == FLOAT16:
        return kernels.from_float16(values.view(np.float16))
    if values.dtype == BFLOAT16:
        return kernels.from_bfloat16(values.view(np.uint16))
    return values
