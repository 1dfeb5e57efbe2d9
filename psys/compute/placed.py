"""Columns of one layer put together: side by side, or added up, in one pass each way.

Rows go straight to where they stand in the result, those of all tables of a stack in one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from autograd.tracer import isbox

from psys import kernels
from psys.arrays import Array
from psys.compute.embedding import Combination, Plan, add_combined, combine_forward
from psys.compute.features import PlainTables
from psys.compute.layer_parts import LayerParts
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


class _Result(NamedTuple):
    """The result, but for what is differentiated.

    Attributes:
        shape: ``[batch, width]``.
        add: whether what stands there is added up.
        given: arrays side by side with others that no gradient goes back through, and the column
            each stands from.
    """

    shape: tuple[int, int]
    add: bool
    given: tuple[tuple[int, Array], ...]

    def put(self, result: Array, column: int, part: Array) -> None:
        """Write a part ``[batch, width]``, or add it to what is there."""
        place = result[:, column : column + part.shape[1]]
        np.add(place, part, out=place) if self.add else np.copyto(place, part)


def side_by_side(parts: LayerParts) -> Array:
    """Return what the columns of a layer give joined along axis 1, ``[batch, sum of widths]``."""
    alone = _alone(parts)
    if alone is not None:
        return alone
    starts = [0, *accumulate(parts.widths)]
    return _place(parts, starts[:-1], starts[-1], add=False)


def added_up(parts: LayerParts) -> Array:
    """Return the sum of what the columns of a layer give, ``[batch, width]``."""
    alone = _alone(parts)
    if alone is not None:
        return alone
    return _place(parts, [0] * len(parts.widths), parts.widths[0], add=True)


def _alone(parts: LayerParts) -> Array | None:
    """Return the array that is all a layer has, if it is one."""
    if len(parts.widths) > 1:
        return None
    only = parts.single[0][1]
    return None if isinstance(only, Combination) else only


def _place(parts: LayerParts, starts: Sequence[int], width: int, *, add: bool) -> Array:
    """Return the parts placed in ``[batch, width]``, each from its start on.

    What is added up is so in one order, whether it was looked up together or one by one; what is
    not fills the result without gap or overlap.
    """
    sources, arrays, given = [], [], []
    stacks: dict[str, list[tuple[int, Combination]]] = {}
    for at, one in parts.single:
        if isinstance(one, Combination) and isinstance(one.rows.holder, StackRows):
            stacks.setdefault(one.rows.holder.stack, []).append((at, one))
        elif isinstance(one, Combination):
            own = [_Part(starts[at], one.plan, one.rows.first, one.rows.stop)]
            sources.append(_source(own))
            arrays.append(one.rows.holder)
        elif not add and not isbox(one):  # else the order of a sum would depend on what is traced
            given.append((starts[at], one))
        else:
            sources.append(_source([_Part(starts[at], None, 0, 0)]))
            arrays.append(one)
    together = {one.rows.stack: (places, one.plain) for places, one in parts.together}
    first = {stack: members[0][0] for stack, members in stacks.items()}
    for stack, (places, _) in together.items():
        first[stack] = min(int(places[0]), first.get(stack, len(starts)))
    for stack in sorted(first, key=first.__getitem__):
        array, source = _of_stack(stack, stacks.get(stack, ()), together.get(stack), starts)
        sources.append(source)
        arrays.append(array)
    wanted = _Result((parts.batch, width), add, tuple(given))
    return _placed(wanted, tuple(sources), *arrays)


def _of_stack(
    stack: str,
    members: Sequence[tuple[int, Combination]],
    together: tuple[Array, PlainTables] | None,
    starts: Sequence[int],
) -> tuple[Array, _Source]:
    """Return the rows of a stack, traced, and what is computed of them.

    Args:
        stack: its name.
        members: number of a column, and what it gives.
        together: numbers of columns, and what these give; None for none.
        starts: where each column begins in the layer.
    """
    tables = [one.rows.table for _, one in members]
    tables += () if together is None else together[1].tables
    traced = current_store().trace_stack(stack, tables)
    # Of one table alone come its own rows, not the stack's.
    begin = members[0][1].rows.first if len(tables) == 1 else 0
    source = _source(
        [
            _Part(starts[at], one.plan, one.rows.first - begin, one.rows.stop - begin)
            for at, one in members
        ]
    )
    if together is not None:
        places, plain = together
        columns = np.array(starts, np.int64)[places]
        source = source._replace(
            inverses=plain.inverses, places=np.column_stack([plain.edges, columns])
        )
    return traced, source


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


def _placed_forward(wanted: _Result, sources: tuple[_Source, ...], *arrays: Array) -> Array:
    make = np.zeros if wanted.add else np.empty
    dtype = np.result_type(*(array for _, array in wanted.given), *arrays)
    result: Array = make(wanted.shape, dtype)
    for column, array in wanted.given:
        wanted.put(result, column, array)
    for source, array in zip(sources, arrays, strict=True):
        if source.inverses is not None and source.places is not None:
            kernels.place_rows(array, source.inverses, source.places, result, add=wanted.add)
        for one in source.others:
            part = array
            if one.plan is not None:
                part = combine_forward(array[one.first : one.stop], one.plan)
            wanted.put(result, one.column, part)
    return result


def _placed_gradients(
    g: Array,
    argnums: tuple[int, ...],
    _wanted: _Result,
    sources: tuple[_Source, ...],
    *arrays: Array,
) -> tuple[Array, ...]:
    first = 2  # the arguments before it are what is wanted and the sources
    return tuple(_gradient(g, sources[n - first], arrays[n - first]) for n in argnums)


def _gradient(g: Array, source: _Source, array: Array) -> Array:
    """Return the gradient of one array, of all that was computed of it."""
    width = array.shape[1]
    if source.inverses is None and source.others[0].plan is None:
        (one,) = source.others
        return g[:, one.column : one.column + width]
    sums = np.zeros(array.shape, g.dtype)
    if source.inverses is not None and source.places is not None:
        kernels.sum_placed(g, source.inverses, source.places, sums)
    for one in source.others:
        assert one.plan is not None
        part = g[:, one.column : one.column + width]
        add_combined(part, one.plan, sums[one.first : one.stop])
    return sums


_placed = by_many(_placed_forward, _placed_gradients)
