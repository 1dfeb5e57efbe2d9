"""Columns of one layer put together: side by side, or added up, in one pass each way.

Rows go straight to where they stand in the result, those of all tables of a stack in one call.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from psys import kernels
from psys.arrays import Array
from psys.compute.embedding import Combination, Plan, add_combined, combine_forward
from psys.compute.stack_rows import StackRows
from psys.compute.store import current_store
from psys.compute.tracing import by_many


class _Part(NamedTuple):
    """Where something stands in the result: from ``column`` on.

    Rows ``[first, stop)`` of the source, as ``plan`` combines them; the source itself if there is
    no plan.
    """

    column: int
    plan: Plan | None
    first: int
    stop: int


class _Source(NamedTuple):
    """What is computed of one array: all its parts; the plain ones together, if there are any."""

    others: tuple[_Part, ...]
    inverses: Array | None
    places: Array | None


def side_by_side(parts: Sequence[Array | Combination]) -> Array:
    """Return arrays and combinations joined along axis 1, ``[batch, sum of widths]``.

    Args:
        parts: each ``[batch, width]`` once computed.
    """
    if len(parts) == 1 and not isinstance(parts[0], Combination):
        return parts[0]
    columns = [0]
    for one in parts:
        columns.append(columns[-1] + _width(one))
    return _place(parts, columns[:-1], columns[-1])


def added_up(parts: Sequence[Array | Combination]) -> Array:
    """Return the sum of arrays and combinations, ``[batch, width]``.

    Args:
        parts: each ``[batch, width]`` once computed.
    """
    if len(parts) == 1 and not isinstance(parts[0], Combination):
        return parts[0]
    return _place(parts, [0] * len(parts), _width(parts[0]))


def _place(parts: Sequence[Array | Combination], columns: Sequence[int], width: int) -> Array:
    sources, arrays = [], []
    for array, own in _by_array(parts, columns):
        sources.append(_source(own))
        arrays.append(array)
    return _placed((len(parts[0]), width), tuple(sources), *arrays)


def _by_array(
    parts: Sequence[Array | Combination], columns: Sequence[int]
) -> Iterator[tuple[Array, list[_Part]]]:
    """Yield each array that plays a part, with its parts; one array for several of a stack."""
    stacks: dict[int, list[tuple[int, Combination]]] = {}
    for one, column in zip(parts, columns, strict=True):
        if not isinstance(one, Combination):
            yield one, [_Part(column, None, 0, 0)]
        elif isinstance(one.rows.holder, StackRows):
            stacks.setdefault(id(one.rows.holder), []).append((column, one))
        else:
            yield one.rows.holder, [_Part(column, one.plan, one.rows.first, one.rows.stop)]
    for members in stacks.values():
        stack = members[0][1].rows.holder
        assert isinstance(stack, StackRows)
        tables = [one.rows.table for _, one in members]
        traced = current_store().trace_stack(stack.stack, tables)
        # Of one table alone come its own rows, not the stack's.
        start = members[0][1].rows.first if len(members) == 1 else 0
        yield (
            traced,
            [
                _Part(column, one.plan, one.rows.first - start, one.rows.stop - start)
                for column, one in members
            ],
        )


def _source(parts: Sequence[_Part]) -> _Source:
    plain = [one for one in parts if one.plan is not None and one.plan.plain]
    if not plain:
        return _Source(tuple(parts), None, None)
    inverses = [one.plan.inverse for one in plain if one.plan is not None]
    joined = inverses[0] if len(plain) == 1 else np.concatenate(inverses)
    return _Source(
        tuple(one for one in parts if one.plan is None or not one.plan.plain),
        np.ascontiguousarray(joined, np.int64).reshape(len(plain), -1),
        np.array([(one.first, one.stop, one.column) for one in plain], np.int64),
    )


def _width(part: Array | Combination) -> int:
    values = part.rows.values if isinstance(part, Combination) else part
    width: int = values.shape[1]
    return width


def _placed_forward(shape: tuple[int, int], sources: tuple[_Source, ...], *arrays: Array) -> Array:
    result = np.zeros(shape, np.result_type(*arrays))
    for source, array in zip(sources, arrays, strict=True):
        if source.inverses is not None and source.places is not None:
            kernels.gather_add(array, source.inverses, source.places, result)
        for one in source.others:
            part = (
                array
                if one.plan is None
                else combine_forward(array[one.first : one.stop], one.plan)
            )
            result[:, one.column : one.column + array.shape[1]] += part
    return result


def _placed_gradients(
    g: Array,
    argnums: tuple[int, ...],
    _shape: tuple[int, int],
    sources: tuple[_Source, ...],
    *arrays: Array,
) -> tuple[Array, ...]:
    first = 2  # the arguments before it are the shape and the sources
    return tuple(_gradient(g, sources[n - first], arrays[n - first]) for n in argnums)


def _gradient(g: Array, source: _Source, array: Array) -> Array:
    """Return the gradient of one array, of all that was computed of it."""
    width = array.shape[1]
    if source.inverses is None and source.others[0].plan is None:
        (one,) = source.others
        return g[:, one.column : one.column + width]
    sums = np.zeros(array.shape, g.dtype)
    if source.inverses is not None and source.places is not None:
        kernels.scatter_add(g, source.inverses, source.places, sums)
    for one in source.others:
        assert one.plan is not None
        part = g[:, one.column : one.column + width]
        add_combined(part, one.plan, sums[one.first : one.stop])
    return sums


_placed = by_many(_placed_forward, _placed_gradients)
