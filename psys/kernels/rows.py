"""Loops over row numbers: sorting, making unique, gathering, summing.

Row numbers are int64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from psys.kernels.compiling import changes, inner, kernel, reads
from psys.kernels.memory import ask_for, later

if TYPE_CHECKING:
    from psys.arrays import Array

MOST_DIGIT_BITS = 11
"""A digit of a radix sort: what is counted of it stays in the nearest cache."""


@inner
def _ascending(ids: Array) -> Array:
    """Return the positions of ``ids`` in ascending order, equal ones as they come, ``[n]``.

    A radix sort from the lowest digit: as few passes as the spread of the ids allows, of digits
    that are no larger than that needs.
    """
    n = len(ids)
    order = np.empty(n, np.int64)
    lowest = ids[0] if n else 0
    ascending = True
    for i in range(n):
        order[i] = i
        lowest = min(lowest, ids[i])
        ascending &= i == 0 or ids[i - 1] <= ids[i]
    if ascending:
        return order
    keys = np.empty(n, np.uint64)
    spread = np.uint64(0)
    for i in range(n):
        # The difference of any two int64 fits, modulo 2**64.
        keys[i] = np.uint64(ids[i]) - np.uint64(lowest)
        spread |= keys[i]
    bits = 0
    while bits < 64 and spread >> np.uint64(bits) != 0:
        bits += 1
    passes = (bits + MOST_DIGIT_BITS - 1) // MOST_DIGIT_BITS
    digits = (bits + passes - 1) // passes
    values = 1 << digits
    mask = np.uint64(values - 1)  # a remainder would be a division
    next_keys, next_order = np.empty(n, np.uint64), np.empty(n, np.int64)
    starts = np.empty(values + 1, np.int64)
    shift = 0
    while shift < bits:
        for value in range(values + 1):
            starts[value] = 0
        for i in range(n):
            starts[((keys[i] >> np.uint64(shift)) & mask) + np.uint64(1)] += 1
        for value in range(values):
            starts[value + 1] += starts[value]
        for i in range(n):
            digit = (keys[i] >> np.uint64(shift)) & mask
            place = starts[digit]
            starts[digit] = place + 1
            next_keys[place] = keys[i]
            next_order[place] = order[i]
        keys, next_keys = next_keys, keys
        order, next_order = next_order, order
        shift += digits
    return order


@inner
def unique_into(ids: Array, found: Array, inverse: Array) -> int:
    """Do what ``unique`` does; also for kernels of other modules."""
    order = _ascending(ids)
    if not len(ids):
        return 0
    count, last = 0, ~ids[order[0]]
    for i in range(len(ids)):
        at = np.uintp(order[i])
        # No branch: which ids come twice is nothing a processor could guess.
        count += ids[at] != last
        last = ids[at]
        found[np.uintp(count - 1)] = last
        inverse[at] = count - 1
    return count


@kernel(reads(1, "int64"), changes(1, "int64"), changes(1, "int64"))
def unique(ids: Array, found: Array, inverse: Array) -> int:
    """Write the sorted unique ids, and for each id the place of its like among them.

    Returns how many unique ones there are.
    """
    return unique_into(ids, found, inverse)


@kernel(reads(1, "int64"), reads(2), changes(1, "int64"), changes(2))
def sum_duplicates(ids: Array, values: Array, found: Array, sums: Array) -> int:
    """Write the sorted unique ids, and for each the sum of its rows in the order they come.

    Returns how many unique ones there are.
    """
    order = _ascending(ids)
    count = 0
    for i in range(len(ids)):
        at = order[i]
        if count > 0 and ids[at] == found[count - 1]:
            for j in range(values.shape[1]):
                sums[count - 1, j] += values[at, j]
        else:
            found[count] = ids[at]
            for j in range(values.shape[1]):
                sums[count, j] = values[at, j]
            count += 1
    return count


@kernel(reads(2), reads(1, "int64"), changes(2))
def take_rows(values: Array, index: Array, out: Array) -> int:
    """Write row ``index[i]`` of ``values`` to row i of ``out``.

    Returns the first position at which the index is out of range, -1 if there is none.
    """
    for i in range(len(index)):
        row = index[i]
        if row < 0 or row >= len(values):
            return i
        ask_for(values, later(index, i))
        for j in range(values.shape[1]):
            out[i, j] = values[np.uintp(row), j]
    return -1


@kernel(reads(2), reads(1, "int64"), changes(2), short=True)
def add_rows(values: Array, index: Array, sums: Array) -> int:
    """Add row i of ``values`` to row ``index[i]`` of ``sums``.

    Returns the first position at which the index is out of range, -1 if there is none.
    """
    for i in range(len(index)):
        row = index[i]
        if row < 0 or row >= len(sums):
            return i
        for j in range(values.shape[1]):
            sums[row, j] += values[i, j]
    return -1


@inner
def _parts_fit(parts: Array, rows: int, width: int, columns: int) -> bool:
    """Return whether all parts lie within so many rows, and so many columns."""
    for p in range(len(parts)):
        if not (0 <= parts[p, 0] <= parts[p, 1] <= rows and 0 <= parts[p, 2] <= columns - width):
            return False
    return True


@kernel(reads(2), reads(2, "int64"), reads(2, "int64"), changes(2), reads(0, "bool"))
def place_rows(rows: Array, index: Array, parts: Array, out: Array, add: bool) -> int:
    """Write rows to where they stand in the rows of ``out``, or add them to what is there.

    Part p, ``[first, stop, column]``, places row ``first + index[p, i]`` of ``rows`` in row i of
    ``out``, from ``column`` on. Returns the place in ``index`` of the first number that is out of
    range, -1 if there is none; -2, with nothing written, if a part does not fit.
    """
    if not _parts_fit(parts, len(rows), rows.shape[1], out.shape[1]):
        return -2
    count = index.shape[1]
    for p in range(len(index)):
        first, numbers = parts[p, 0], index[p]
        size = parts[p, 1] - first
        column = np.uintp(parts[p, 2])  # not signed: a column that may count from the end is slow
        for i in range(count):
            row = numbers[i]
            if row < 0 or row >= size:
                return int(p * count + i)
            ask_for(rows, first + later(numbers, i))
            if add:
                for j in range(rows.shape[1]):
                    out[i, column + np.uintp(j)] += rows[np.uintp(first + row), j]
            else:
                for j in range(rows.shape[1]):
                    out[i, column + np.uintp(j)] = rows[np.uintp(first + row), j]
    return -1


@kernel(reads(2), reads(2, "int64"), reads(2, "int64"), changes(2))
def sum_placed(values: Array, index: Array, parts: Array, sums: Array) -> int:
    """Do the reverse of ``place_rows``: add what stands in ``values`` to the rows it came from.

    Returns as ``place_rows`` does.
    """
    if not _parts_fit(parts, len(sums), sums.shape[1], values.shape[1]):
        return -2
    count = index.shape[1]
    for p in range(len(index)):
        first = parts[p, 0]
        size = parts[p, 1] - first
        column = np.uintp(parts[p, 2])
        for i in range(count):
            row = index[p, i]
            if row < 0 or row >= size:
                return int(p * count + i)
            for j in range(sums.shape[1]):
                sums[np.uintp(first + row), j] += values[i, column + np.uintp(j)]
    return -1
