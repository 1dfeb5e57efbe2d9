"""Move rows between a slice and the small blocks an optimizer computes on.

An update reads and writes every number several times; in blocks that fit the cache those
passes cost little, and temporaries stay small however large the slice is. Nothing here
knows an update rule.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from psys.arrays import Array
from psys.errors import ModelError

BLOCK_ELEMENTS = 1 << 16
"""How many numbers of one array a block holds: 256 KiB of float32."""


def row_blocks(array: Array) -> Iterator[slice]:
    """Yield the row ranges that cut ``array`` ``[rows, ...]`` into blocks."""
    row_elements = array[:1].size
    step = max(1, BLOCK_ELEMENTS // max(1, row_elements))
    for start in range(0, len(array), step):
        yield slice(start, min(start + step, len(array)))


def check_same_shape(value: Array, gradient: Array) -> None:
    """Refuse a gradient that numpy would broadcast over the value.

    Raises:
        ModelError: if the shapes differ.
    """
    if value.shape != gradient.shape:
        raise ModelError(
            f"A gradient must have the shape of its slice, {value.shape}, got {gradient.shape}."
        )


def check_rows(value: Array, indices: Array, rows: Array) -> None:
    """Refuse gradient rows that do not fit ``value`` ``[n, ...]``.

    Raises:
        ModelError: if an index lies outside ``[0, n)``, ``indices`` are not sorted and unique, or
            the rows have another shape.
    """
    if rows.shape != (len(indices), *value.shape[1:]):
        raise ModelError(
            f"Gradient rows must have the shape {(len(indices), *value.shape[1:])}, "
            f"got {rows.shape}."
        )
    if len(indices) and not (indices[0] >= 0 and indices[-1] < len(value)):
        raise ModelError(
            f"Row indices must lie in [0, {len(value)}), got {indices[0]} to {indices[-1]}."
        )
    if not bool((indices[1:] > indices[:-1]).all()):
        raise ModelError(f"Row indices must be sorted and unique, got {indices}.")


def is_run(indices: Array) -> bool:
    """Return whether sorted, unique ``indices`` ``[n]``, n > 0, leave out no row between."""
    return bool(indices[-1] - indices[0] == len(indices) - 1)


def gather(array: Array, indices: Array) -> Array:
    """Return a copy ``[n, ...]`` of the rows ``indices`` ``[n]``, which lie in range.

    >>> gather(np.array([[1, 2], [3, 4], [5, 6]]), np.array([0, 2])).tolist()
    [[1, 2], [5, 6]]
    """
    rows = np.empty((len(indices), *array.shape[1:]), array.dtype)
    # The default mode copies through a buffer so that a bad index leaves `out` untouched.
    return np.take(array, indices, axis=0, out=rows, mode="clip")


def scatter(array: Array, indices: Array, rows: Array) -> None:
    """Write ``rows`` ``[n, ...]`` to the rows ``indices`` ``[n]`` of ``array``, in place.

    >>> table = np.zeros((3, 2), int)
    >>> scatter(table, np.array([0, 2]), np.array([[1, 2], [5, 6]]))
    >>> table.tolist()
    [[1, 2], [0, 0], [5, 6]]
    """
    row_bytes = array[:1].nbytes
    if array.flags.c_contiguous and rows.flags.c_contiguous and row_bytes > array.itemsize:
        # One opaque item a row: numpy then copies whole rows, 1.7 times as fast.
        opaque = np.dtype((np.void, row_bytes))
        array.reshape(len(array), -1).view(opaque)[indices, 0] = rows.reshape(len(rows), -1).view(
            opaque
        )[:, 0]
    else:
        array[indices] = rows
