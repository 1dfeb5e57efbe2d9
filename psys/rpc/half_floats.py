"""Gradients as 16-bit floats, for the way from trainer to ps only.

float16 keeps 11 significant bits of a number and ends at 65,504; bfloat16 keeps 8 and has
float32's range. Both round to the nearest, ties to even. What travels is an array of bits, whose
dtype names the format: numpy has no bfloat16. This module is the seam for faster conversions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

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
        ModelError: if a value is beyond float16's range; the message names ``name``.
    """
    values = np.ascontiguousarray(values).reshape(values.shape)
    if bits == BFLOAT16:
        return _bfloat16_bits(values).view(BFLOAT16)
    try:
        with np.errstate(over="raise"):
            return values.astype("<f2").view(FLOAT16)
    except FloatingPointError:
        raise ModelError(
            f"The gradient of {name!r} holds a value beyond float16's range of 65,504; "
            "use push_dtype='bfloat16', or clip it."
        ) from None


def widen(values: Array) -> Array:
    """Return 16-bit floats as float32; any other array as it is."""
    if values.dtype == FLOAT16:
        return values.view("<f2").astype(np.float32)
    if values.dtype == BFLOAT16:
        wide = values.view("<u2").astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    return values


def _bfloat16_bits(values: Array) -> Array:
    bits = values.view(np.uint32)
    # Adding half of the last place that stays, less one where it is even, rounds ties to even.
    rounded = bits >> 16
    rounded &= 1
    rounded += 0x7FFF
    rounded += bits
    rounded >>= 16
    result = rounded.astype("<u2")
    # The addition carries some NaNs over into zeros; a NaN stays one by its highest bit.
    nan = np.isnan(values)
    if nan.any():
        result[nan] = (bits[nan] >> 16) | 0x40
    return result
