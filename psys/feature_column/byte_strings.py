"""Strings of any numpy kind as fixed-width UTF-8 bytes, the form that is hashed and looked up.

Accepts ``str`` and ``bytes`` arrays and arrays of Python objects (pandas columns), where
None, NaN and pandas.NA become the empty string. numpy's fixed-width bytes have no trailing
NUL bytes, so strings that end in NUL lose it. Nothing here knows about columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from psys.arrays import Array


def encode(strings: Array) -> Array:
    """Return a ``U`` or ``S`` array as UTF-8 bytes, dtype ``S<width>``, same shape."""
    if strings.dtype.kind == "S":
        return strings
    native = np.ascontiguousarray(strings, strings.dtype.newbyteorder("="))
    width = native.dtype.itemsize // 4
    points = native.reshape(-1).view(np.uint32)
    if points.size and points.max() < 128:
        # ASCII: dropping three of the four bytes of each character is its UTF-8.
        return points.astype(np.uint8).view(f"S{width}").reshape(strings.shape)
    return np.char.encode(native, "utf-8")


def encode_objects(strings: list[Any]) -> Array:
    """Return Python ``str`` and ``bytes`` objects as UTF-8 bytes, ``[len(strings)]``."""
    try:
        return np.array(strings, "S")
    except UnicodeEncodeError:
        return np.array([s.encode() if isinstance(s, str) else s for s in strings], "S")


def decimal(integers: Array) -> Array:
    """Return each integer as decimal digits in bytes, with a leading minus if negative."""
    return integers.astype("S20")


def is_missing(value: object) -> bool:
    """Say whether a Python object stands for a missing value: None, NaN or pandas.NA."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float) and value != value
