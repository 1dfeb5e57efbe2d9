"""Kernels: the loops that the time of a step goes into, compiled, without Python's lock.

Here are the functions the rest of psys calls; importing this package compiles nothing and does
not import numba, the first call of a function does. What each computes is checked against a
plain numpy twin in the tests. Memory safety is theirs: shapes, dtypes and row numbers are looked
at before a compiled loop runs. ``python -m psys.kernels`` compiles all of them ahead of time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from psys.errors import ModelError

if TYPE_CHECKING:
    from psys.arrays import Array

__all__ = ["update_dense", "update_rows"]

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def update_dense(
    name: str, value: Array, slots: Sequence[Array], gradient: Array, numbers: Sequence[float]
) -> None:
    """Change ``value`` and ``slots`` in place by a gradient of the same shape.

    Args:
        name: which update, a key of ``psys.kernels.updates.UPDATES``.
        value: of any shape.
        slots: arrays of that shape, in the order the update takes them.
        gradient: of that shape; only read.
        numbers: what the update says it needs.

    Raises:
        ModelError: if the value is neither float32 nor float64, or a shape differs.
    """
    first_row = np.zeros(1, np.int64)
    _update(name, [value, *slots], (1, value.size), gradient, (1, value.size), first_row, numbers)


def update_rows(
    name: str,
    value: Array,
    slots: Sequence[Array],
    indices: Array,
    rows: Array,
    numbers: Sequence[float],
) -> None:
    """Change ``value`` ``[n, ...]`` and ``slots`` in place by the gradient of some rows.

    Args:
        name: which update, a key of ``psys.kernels.updates.UPDATES``.
        value: ``[n, ...]``.
        slots: arrays of that shape, in the order the update takes them.
        indices: ``[m]`` int64, sorted, unique, each in ``[0, n)``.
        rows: ``[m, ...]``, their gradients; only read.
        numbers: what the update says it needs.

    Raises:
        ModelError: if the value is neither float32 nor float64, a shape differs, or an index
            is out of order or out of range.
    """
    width = int(np.prod(value.shape[1:], dtype=np.int64))
    indices = np.ascontiguousarray(indices, np.int64)
    if len(indices) and not (
        indices[0] >= 0 and indices[-1] < len(value) and bool((indices[1:] > indices[:-1]).all())
    ):
        raise ModelError(
            f"Rows to update must be sorted, unique and in [0, {len(value)}), got {indices}."
        )
    shape = (len(value), width)
    _update(name, [value, *slots], shape, rows, (len(indices), width), indices, numbers)


def _update(
    name: str,
    arrays: Sequence[Array],
    shape: tuple[int, int],
    gradient: Array,
    gradient_shape: tuple[int, int],
    indices: Array,
    numbers: Sequence[float],
) -> None:
    from psys.kernels.updates import UPDATES

    value = arrays[0]
    if value.dtype not in _FLOATS:
        raise ModelError(f"Only float32 and float64 variables are trained, got {value.dtype}.")
    if any(slot.shape != value.shape or slot.dtype != value.dtype for slot in arrays):
        raise ModelError(
            f"Slots must be {value.dtype} {value.shape} as their variable is, got "
            f"{[f'{slot.dtype} {slot.shape}' for slot in arrays[1:]]}."
        )
    if gradient.size != gradient_shape[0] * gradient_shape[1]:
        raise ModelError(
            f"A gradient of {gradient_shape[0]} rows of {gradient_shape[1]} was expected, got "
            f"{gradient.shape}."
        )
    if not value.size:
        return
    # A slice that is part of a larger array is updated in a copy, which no shard ever needs.
    tables = [array if array.flags.carray else array.copy("C") for array in arrays]
    UPDATES[name][value.dtype](
        *(table.reshape(shape) for table in tables),
        _to_read(gradient, value.dtype).reshape(gradient_shape),
        indices,
        np.array(numbers, value.dtype),
    )
    for array, table in zip(arrays, tables, strict=True):
        if table is not array:
            array[...] = table


def _to_read(array: Array, dtype: np.dtype[Any]) -> Array:
    """Return the array as compiled code reads it: contiguous, aligned, of the dtype."""
    return np.require(array, dtype, ("C_CONTIGUOUS", "ALIGNED"))
