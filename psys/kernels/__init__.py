"""Kernels: the loops that the time of a step goes into, compiled, without Python's lock.

Here are the functions the rest of psys calls; importing this package compiles nothing and does
not import numba, the first call of a function does. What each computes is checked against a
plain numpy twin in the tests. Memory safety is theirs: shapes, dtypes and row numbers are looked
at before a compiled loop runs. ``python -m psys.kernels`` compiles all of them ahead of time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from psys.errors import ModelError

# Functions import with `import ... as`: from a package, Python calls importlib's code every time.
if TYPE_CHECKING:
    from psys.arrays import Array

__all__ = [
    "add_rows",
    "fingerprint64",
    "from_bfloat16",
    "from_float16",
    "hash_buckets",
    "hash_columns",
    "place_rows",
    "prepare_rows",
    "prepare_update",
    "sum_duplicates",
    "sum_placed",
    "take_rows",
    "to_bfloat16",
    "to_float16",
    "unique",
    "update_dense",
    "update_rows",
]

_INT64 = np.dtype(np.int64)
_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_FIRST_ROW = np.zeros(1, np.int64)
_FIRST_ROW.flags.writeable = False


def prepare_rows(dtype: str) -> None:
    """Compile now what every push and pull of rows takes, so that none waits for it.

    Args:
        dtype: of the variable.
    """
    import psys.kernels.rows as rows

    rows.sum_duplicates.prepare(np.dtype(dtype))
    rows.take_rows.prepare(np.dtype(dtype))


def prepare_update(name: str, dtype: str) -> None:
    """Compile now an update, so that no push has to wait for it.

    Args:
        name: which update, a key of ``psys.kernels.updates.UPDATES``.
        dtype: of the variable.
    """
    import psys.kernels.updates as updates

    updates.UPDATES[name].prepare(np.dtype(dtype))


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
        ModelError: if the value is neither float32 nor float64, a shape differs, or there are
            too few numbers.
    """
    _update(name, [value, *slots], (1, value.size), gradient, value.shape, _FIRST_ROW, numbers)


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
        ModelError: if the value is neither float32 nor float64, a shape differs, an index is out
            of order or out of range, or there are too few numbers.
    """
    width = _width(value)
    indices = np.ascontiguousarray(indices, np.int64)
    if len(indices) and not (
        indices[0] >= 0 and indices[-1] < len(value) and bool((indices[1:] > indices[:-1]).all())
    ):
        raise ModelError(
            f"Row indices must be sorted and unique, and must lie in [0, {len(value)}), "
            f"got {indices}."
        )
    expected = (len(indices), *value.shape[1:])
    _update(name, [value, *slots], (len(value), width), rows, expected, indices, numbers)


def _update(
    name: str,
    arrays: Sequence[Array],
    shape: tuple[int, int],
    gradient: Array,
    gradient_shape: tuple[int, ...],
    indices: Array,
    numbers: Sequence[float],
) -> None:
    import psys.kernels.updates as updates

    value = arrays[0]
    dtype = value.dtype
    if dtype not in _FLOATS:
        raise ModelError(f"Only float32 and float64 variables are trained, got {dtype}.")
    for slot in arrays:
        if slot.shape != value.shape or slot.dtype != dtype:
            raise ModelError(
                f"Slots must be {dtype} {value.shape} as their variable is, got "
                f"{[f'{one.dtype} {one.shape}' for one in arrays[1:]]}."
            )
    if gradient.shape != gradient_shape:
        raise ModelError(f"A gradient must have the shape {gradient_shape}, got {gradient.shape}.")
    if len(numbers) < updates.NUMBERS[name]:
        raise ModelError(
            f"Update {name!r} takes {updates.NUMBERS[name]} numbers, got {len(numbers)}: {numbers}."
        )
    if not value.size:
        return
    # A slice that is part of a larger array is updated in a copy, which no shard ever needs.
    tables = [array if array.flags.carray else array.copy("C") for array in arrays]
    updates.UPDATES[name][dtype](
        *[table.reshape(shape) for table in tables],
        _to_read(gradient, dtype).reshape(len(indices), shape[1]),
        indices,
        np.array(numbers, dtype),
    )
    for array, table in zip(arrays, tables, strict=True):
        if table is not array:
            array[...] = table


def unique(ids: Array) -> tuple[Array, Array]:
    """Return ``(sorted unique ids, inverse)``, as ``np.unique`` does.

    >>> [one.tolist() for one in unique(np.array([7, 3, 7]))]
    [[3, 7], [1, 0, 1]]

    Args:
        ids: ``[n]`` integers.

    Raises:
        ModelError: if they are no integers, or beyond int64.
    """
    import psys.kernels.rows as rows

    found, inverse = np.empty(len(ids), np.int64), np.empty(len(ids), np.int64)
    count = rows.unique(_whole(ids), found, inverse)
    return found[:count], inverse


def sum_duplicates(ids: Array, values: Array) -> tuple[Array, Array]:
    """Return ``(sorted unique ids, the sum of each one's rows in the order they come)``.

    >>> [one.tolist() for one in sum_duplicates(np.array([7, 3, 7]), np.array([1.0, 2.0, 4.0]))]
    [[3, 7], [2.0, 5.0]]

    Args:
        ids: ``[n]`` integers.
        values: ``[n, ...]``, a row for each.

    Raises:
        ModelError: if there are not as many rows as ids, or these are no integers below 2**63.
    """
    import psys.kernels.rows as rows

    if ids.shape != values.shape[:1]:
        raise ModelError(f"sum_duplicates: {len(values)} rows have {ids.shape} ids.")
    shape = (len(ids), _width(values))
    found, sums = np.empty(len(ids), np.int64), np.empty(shape, values.dtype)
    given = _to_read(values, values.dtype).reshape(shape)
    count = rows.sum_duplicates[values.dtype](_whole(ids), given, found, sums)
    return found[:count], sums[:count].reshape((count, *values.shape[1:]))


def take_rows(values: Array, index: Array) -> Array:
    """Return the rows ``index`` of a large table, ``[n, ...]``, each fetched before its turn.

    Args:
        values: ``[rows, ...]``, C-contiguous: a table is not copied.
        index: ``[n]`` integers, each in ``[0, rows)``.

    Raises:
        ModelError: if an index is out of range, or the table is not contiguous.
    """
    import psys.kernels.rows as rows

    if not values.flags.c_contiguous:
        raise ModelError(f"take_rows: a table {values.shape} must be C-contiguous.")
    width = _width(values)
    out = np.empty((len(index), width), values.dtype)
    wrong = rows.take_rows[values.dtype](values.reshape(len(values), width), _whole(index), out)
    if wrong >= 0:
        raise ModelError(f"Rows must lie in [0, {len(values)}), got {index[wrong]} at {wrong}.")
    return out.reshape(len(index), *values.shape[1:])


def add_rows(values: Array, index: Array, count: int, out: Array | None = None) -> Array:
    """Return ``[count, ...]`` whose row r is the sum of the ``values[i]`` with ``index[i] == r``.

    >>> add_rows(np.array([1.0, 2.0, 4.0]), np.array([2, 0, 2]), 3).tolist()
    [2.0, 0.0, 5.0]

    Args:
        values: ``[n, ...]``.
        index: ``[n]`` integers, each in ``[0, count)``.
        count: the number of sums.
        out: ``[count, ...]``, C-contiguous, of the values' dtype; what to add to, and to return.
            None for zeros.

    Raises:
        ModelError: if an index is out of range, or there are not as many as values.
    """
    import psys.kernels.rows as rows

    if index.shape != values.shape[:1]:
        raise ModelError(f"add_rows: {len(values)} rows have {index.shape} numbers.")
    width = _width(values)
    whole = np.zeros((count, *values.shape[1:]), values.dtype) if out is None else out
    sums = whole.reshape(count, width)
    given = _to_read(values, values.dtype).reshape(len(values), width)
    wrong = rows.add_rows[values.dtype](given, _whole(index), sums)
    if wrong >= 0:
        raise ModelError(f"Rows must lie in [0, {count}), got {index[wrong]} at {wrong}.")
    return whole


def place_rows(rows: Array, index: Array, parts: Array, out: Array, *, add: bool) -> None:
    """Write rows to where they stand in a wider array, or add them to what stands there.

    Part p, ``[first, stop, column]``: ``out[i, column:] = rows[first:stop][index[p, i]]``.

    Args:
        rows: ``[m, width]``.
        index: ``[parts, n]`` int64, each in ``[0, stop - first)``.
        parts: ``[parts, 3]`` int64.
        out: ``[n, at least column + width]``, C-contiguous, of the rows' dtype.
        add: whether to add: parts may overlap, and what is there counts.

    Raises:
        ModelError: if an index is out of range, or a shape does not fit.
    """
    import psys.kernels.rows as kernels

    _check_shapes(out, rows, index, parts)
    wrong = kernels.place_rows[out.dtype](_to_read(rows, out.dtype), index, parts, out, add)
    _check_placed(wrong, out, rows, index, parts)


def sum_placed(values: Array, index: Array, parts: Array, sums: Array) -> None:
    """Add what stands in ``values`` to the rows that ``place_rows`` took from.

    Part p, ``[first, stop, column]``: ``sums[first:stop][index[p, i]] += values[i, column:]``.

    Args:
        values: ``[n, at least column + width]``.
        index: ``[parts, n]`` int64, each in ``[0, stop - first)``.
        parts: ``[parts, 3]`` int64.
        sums: ``[m, width]``, C-contiguous, of the values' dtype.

    Raises:
        ModelError: if an index is out of range, or a shape does not fit.
    """
    import psys.kernels.rows as kernels

    _check_shapes(values, sums, index, parts)
    wrong = kernels.sum_placed[sums.dtype](_to_read(values, sums.dtype), index, parts, sums)
    _check_placed(wrong, values, sums, index, parts)


def _check_shapes(wide: Array, rows: Array, index: Array, parts: Array) -> None:
    if index.shape != (len(parts), len(wide)) or parts.shape[1:] != (3,):
        raise ModelError(
            f"Parts {parts.shape} of rows {rows.shape} with numbers {index.shape} do not fit "
            f"{wide.shape}."
        )


def _check_placed(wrong: int, wide: Array, rows: Array, index: Array, parts: Array) -> None:
    if wrong < -1:
        raise ModelError(f"Parts {parts.tolist()} of rows {rows.shape} do not fit {wide.shape}.")
    if wrong >= 0:
        part, at = divmod(wrong, index.shape[1])
        count = parts[part, 1] - parts[part, 0]
        raise ModelError(f"Rows must lie in [0, {count}), got {index[part, at]} at {at}.")


def to_bfloat16(array: Array, out: Array | None = None) -> Array:
    """Return float32 numbers as bfloat16, in the bits of uint16, of the same shape.

    Args:
        array: float32, of any shape.
        out: uint16, C-contiguous and of that shape; where to write to.

    Raises:
        ModelError: if an array has another dtype or shape.
    """
    import psys.kernels.floats as floats

    return _convert(floats.to_bfloat16, array, np.float32, np.uint16, out)


def from_bfloat16(halves: Array, out: Array | None = None) -> Array:
    """Return what ``to_bfloat16`` made as float32; see there."""
    import psys.kernels.floats as floats

    return _convert(floats.from_bfloat16, halves, np.uint16, np.float32, out)


def to_float16(array: Array, out: Array | None = None) -> Array:
    """Return float32 numbers as float16, of the same shape.

    Args:
        array: float32, of any shape.
        out: float16, C-contiguous and of that shape; where to write to.

    Raises:
        ModelError: if an array has another dtype or shape.
    """
    import psys.kernels.floats as floats

    return _convert(floats.to_float16, array, np.float32, np.float16, out)


def from_float16(halves: Array, out: Array | None = None) -> Array:
    """Return float16 numbers as float32; see ``to_float16``."""
    import psys.kernels.floats as floats

    return _convert(floats.from_float16, halves, np.float16, np.float32, out)


def fingerprint64(strings: Array) -> Array:
    r"""Return the FarmHash Fingerprint64 of each string, uint64, in the shape of ``strings``.

    numpy drops trailing NUL bytes of such arrays, so ``b"a\0"`` hashes as ``b"a"``.

    Args:
        strings: byte strings of any shape, dtype ``S<width>``.
    """
    import psys.kernels.strings as kernels

    hashes = np.empty(strings.size, np.uint64)
    kernels.fingerprint64(_bytes_of(strings.reshape(-1)), strings.dtype.itemsize, hashes)
    return hashes.reshape(strings.shape)


def hash_buckets(strings: Array, buckets: int) -> tuple[Array, int]:
    """Return ``(fingerprint64 mod buckets, how many strings are empty)``; ids are int64.

    Args:
        strings: byte strings ``[n]``, dtype ``S<width>``.
        buckets: at least 1, below 2**63.

    Raises:
        ModelError: if there is no such number of buckets.
    """
    import psys.kernels.strings as kernels

    _check_buckets(buckets)
    ids = np.empty(len(strings), np.int64)
    width = strings.dtype.itemsize
    empty: int = kernels.hash_buckets(_bytes_of(strings), width, np.uint64(buckets), ids)
    return ids, empty


def hash_columns(strings: Array, buckets: Sequence[int]) -> HashedColumns:
    """Return ``hash_buckets`` of each row of strings ``[columns, n]``, and ``unique`` of its ids.

    Args:
        strings: dtype ``S<width>``.
        buckets: of each column.

    Raises:
        ModelError: as ``hash_buckets``, or if there is not one number of buckets a column.
    """
    import psys.kernels.strings as kernels

    if len(buckets) != len(strings):
        raise ModelError(
            f"hash_columns: {len(strings)} columns, {len(buckets)} numbers of buckets."
        )
    for one in (min(buckets, default=1), max(buckets, default=1)):
        _check_buckets(one)
    ids, found, inverse = (np.empty(strings.shape, np.int64) for _ in range(3))
    empty, counts = np.empty(len(strings), np.int64), np.empty(len(strings), np.int64)
    kernels.hash_columns(
        _bytes_of(strings.reshape(-1)),
        strings.dtype.itemsize,
        np.array(buckets, np.uint64),
        ids,
        empty,
        found,
        inverse,
        counts,
    )
    unique = [one[:n] for one, n in zip(found, counts.tolist(), strict=True)]
    return HashedColumns(ids, empty, unique, inverse)


class HashedColumns(NamedTuple):
    """What ``hash_columns`` made.

    Attributes:
        ids: ``[columns, n]`` the bucket of each string.
        empty: ``[columns]`` how many strings are empty.
        unique: of each column the sorted unique ids.
        inverse: ``[columns, n]`` the place of each id among them.
    """

    ids: Array
    empty: Array
    unique: Sequence[Array]
    inverse: Array


def _check_buckets(buckets: int) -> None:
    if not 1 <= buckets < 1 << 63:
        raise ModelError(f"Strings are hashed into 1 to 2**63 - 1 buckets, got {buckets}.")


def _bytes_of(strings: Array) -> Array:
    """Return the bytes of strings ``[n]``, one string after another."""
    return np.ascontiguousarray(strings).view(np.uint8)


def _convert(kernel: Any, given: Array, from_: Any, to: Any, out: Array | None) -> Array:
    """Run a kernel over the bits of ``given``, and return them in their new dtype."""
    if given.dtype != from_:
        raise ModelError(f"Expected {np.dtype(from_)} numbers, got {given.dtype}.")
    result = np.empty(given.shape, to) if out is None else out
    if result.dtype != to or result.shape != given.shape or not result.flags.carray:
        raise ModelError(
            f"Expected a C-contiguous array of {np.dtype(to)} {given.shape} to write to, got "
            f"{result.dtype} {result.shape}."
        )
    source = _to_read(given, given.dtype).reshape(-1)
    bits = f"u{source.dtype.itemsize}", f"u{result.dtype.itemsize}"
    kernel(source.view(bits[0]), result.reshape(-1).view(bits[1]))
    return result


def _width(values: Array) -> int:
    return math.prod(values.shape[1:])


def _whole(ids: Array) -> Array:
    """Return ids as compiled code reads them: int64, and the very numbers that were given.

    Raises:
        ModelError: if they are no integers, or beyond int64.
    """
    if ids.size and ids.dtype.kind not in "iu":
        raise ModelError(f"Ids and row numbers must be integers, got {ids.dtype}.")
    if ids.dtype == np.uint64 and ids.size and int(ids.max()) > np.iinfo(np.int64).max:
        raise ModelError(f"Ids must be below 2**63, got {ids.max()}.")
    return _to_read(ids, _INT64)


def _to_read(array: Array, dtype: np.dtype[Any]) -> Array:
    """Return the array as compiled code reads it: contiguous, aligned, of the dtype."""
    flags = array.flags
    if array.dtype == dtype and flags.c_contiguous and flags.aligned:
        return array
    return np.require(array, dtype, ("C_CONTIGUOUS", "ALIGNED"))
