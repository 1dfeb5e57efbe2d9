"""Rows of a table combined by example: what embedding and linear columns compute.

Works on the unique rows of one batch, never on a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from psys import kernels
from psys.arrays import Array
from psys.compute.backward import untraced
from psys.compute.tracing import by_first, by_many
from psys.errors import ModelError


@dataclass(frozen=True)
class Plan:
    """How rows become segments: ``out[s] = scale[s] * sum of weights[i] * rows[inverse[i]]``.

    Attributes:
        inverse: ``[nnz]`` the row each id stands for.
        segments: ``[nnz]`` the example each id belongs to; None if id i belongs to example i.
        weights: ``[nnz, 1]``, or None for ones.
        scale: ``[num_segments, 1]``, or None for ones.
        num_segments: the number of examples.
    """

    inverse: Array
    segments: Array | None
    weights: Array | None
    scale: Array | None
    num_segments: int

    @property
    def plain(self) -> bool:
        """Whether each example is one row as it is."""
        return self.segments is None and self.weights is None and self.scale is None


@dataclass(frozen=True)
class Combination:
    """What a column makes of a table's rows, before it is computed.

    Attributes:
        rows: ``[n_unique, width]``, maybe traced.
        plan: how they become examples.
    """

    rows: Array
    plan: Plan

    def __len__(self) -> int:
        return self.plan.num_segments


def combination(
    rows: Array,
    inverse: Array,
    segments: Array,
    weights: Array | None,
    num_segments: int,
    combiner: str = "mean",
    one_each: bool | None = None,
) -> Combination:
    """Return what ``segment_combine`` would compute of rows ``[n_unique, width]``.

    Args:
        rows: and the others as for ``segment_combine``.
        inverse: likewise.
        segments: likewise.
        weights: likewise.
        num_segments: likewise.
        combiner: likewise.
        one_each: whether every example has exactly one id, in order; None to find out.
    """
    if combiner not in ("sum", "mean", "sqrtn"):
        raise ModelError(f"combiner must be 'sum', 'mean' or 'sqrtn', got {combiner!r}.")
    dtype = untraced(rows).dtype
    plan = _plan(inverse, segments, weights, num_segments, combiner, dtype, one_each)
    return Combination(rows, plan)


def segment_combine(
    rows: Array,
    inverse: Array,
    segments: Array,
    weights: Array | None,
    num_segments: int,
    combiner: str = "mean",
) -> Array:
    """Return for each example the combination of its rows, ``[num_segments, ...]``.

    "sum" is ``Σ w v``, "mean" ``Σ w v / Σ w``, "sqrtn" ``Σ w v / sqrt(Σ w²)``. With rows
    ``[[1], [4]]``, inverse ``[0, 1, 1]`` and segments ``[0, 0, 2]``, "sum" over three segments
    is ``[[5], [0], [4]]``: an example without ids gets zeros. Weights that are not positive are
    left out, except of a sum (what tf.estimator's safe embedding lookup does).

    Args:
        rows: ``[n_unique, ...]`` from ``lookup``.
        inverse: ``[nnz]`` row number of each id.
        segments: ``[nnz]`` example number of each id.
        weights: ``[nnz]``, or None for ones.
        num_segments: the number of examples in the batch.
        combiner: "sum", "mean" or "sqrtn".

    Raises:
        ModelError: if the combiner is none of these.
    """
    shape = rows.shape[1:]
    if len(shape) != 1:
        rows = rows.reshape((rows.shape[0], -1))
    parts = combination(rows, inverse, segments, weights, num_segments, combiner)
    result = _combine(parts.rows, parts.plan)
    return result if len(shape) == 1 else result.reshape((num_segments, *shape))


def _plan(
    inverse: Array,
    segments: Array,
    weights: Array | None,
    num_segments: int,
    combiner: str,
    dtype: np.dtype[Any],
    one_each: bool | None,
) -> Plan:
    if one_each is None:
        one_each = len(segments) == num_segments and np.array_equal(
            segments, np.arange(num_segments)
        )
    if weights is not None:
        weights = np.asarray(untraced(weights), dtype)
        if combiner != "sum":
            weights = np.maximum(weights, 0)
    scale = None
    if combiner != "sum" and not (one_each and weights is None):
        # Of Σ w or Σ w²; bincount counts in float64, which costs nothing at this size.
        powers = weights if combiner == "mean" or weights is None else weights * weights
        total = np.bincount(segments, powers, num_segments)
        if combiner == "sqrtn":
            total = np.sqrt(total)
        scale = np.divide(1.0, total, out=np.zeros(num_segments), where=total > 0)
        scale = scale.astype(dtype)[:, None]
    return Plan(
        inverse,
        None if one_each else segments,
        None if weights is None else weights[:, None],
        scale,
        num_segments,
    )


def _combine_forward(rows: Array, plan: Plan) -> Array:
    result = np.take(rows, plan.inverse, axis=0)
    if plan.weights is not None:
        result *= plan.weights
    if plan.segments is not None:
        result = kernels.add_rows(result, plan.segments, plan.num_segments)
    if plan.scale is not None:
        result *= plan.scale
    return result


def _combine_gradient(g: Array, _answer: Array, rows: Array, plan: Plan) -> Array:
    if plan.scale is not None:
        g = g * plan.scale
    if plan.segments is not None:
        g = np.take(g, plan.segments, axis=0)
    if plan.weights is not None:
        g = g * plan.weights
    return kernels.add_rows(g, plan.inverse, len(rows))


_combine = by_first(_combine_forward, _combine_gradient)


def side_by_side(parts: Sequence[Array | Combination]) -> Array:
    """Return arrays and combinations joined along axis 1, ``[batch, sum of widths]``.

    One pass each way: rows go straight to where they stand in the result.

    Args:
        parts: each ``[batch, width]`` once computed.
    """
    if len(parts) == 1 and not isinstance(parts[0], Combination):
        return parts[0]
    return _side_by_side(*_layout_and_arrays(parts))


def added_up(parts: Sequence[Array | Combination]) -> Array:
    """Return the sum of arrays and combinations, ``[batch, width]``.

    Args:
        parts: each ``[batch, width]`` once computed.
    """
    if len(parts) == 1 and not isinstance(parts[0], Combination):
        return parts[0]
    return _added_up(*_layout_and_arrays(parts))


def _layout_and_arrays(parts: Sequence[Array | Combination]) -> tuple[Any, ...]:
    """Return the plans of the combinations, None for an array; then the arrays or rows."""
    layout = tuple(one.plan if isinstance(one, Combination) else None for one in parts)
    return layout, *(one.rows if isinstance(one, Combination) else one for one in parts)


def _added_up_forward(layout: tuple[Plan | None, ...], *arrays: Array) -> Array:
    result: Array | None = None
    for plan, array in zip(layout, arrays, strict=True):
        part = array if plan is None else _combine_forward(array, plan)
        if result is not None:
            result += part
        else:
            result = part.astype(np.result_type(*arrays), copy=plan is None)
    assert result is not None
    return result


def _added_up_gradients(
    g: Array, argnums: tuple[int, ...], layout: tuple[Plan | None, ...], *arrays: Array
) -> tuple[Array, ...]:
    numbers = [argnum - 1 for argnum in argnums]  # argument 0 is the layout
    return tuple(
        g if (plan := layout[n]) is None else _combine_gradient(g, g, arrays[n], plan)
        for n in numbers
    )


def _side_by_side_forward(layout: tuple[Plan | None, ...], *arrays: Array) -> Array:
    edges = _edges(arrays)
    first = layout[0]
    batch = len(arrays[0]) if first is None else first.num_segments
    result = np.empty((batch, edges[-1]), np.result_type(*arrays))
    for plan, array, start, stop in zip(layout, arrays, edges[:-1], edges[1:], strict=True):
        if plan is None:
            result[:, start:stop] = array
        elif plan.plain and array.dtype == result.dtype:
            kernels.put_rows(array, plan.inverse, result, start)
        else:
            result[:, start:stop] = _combine_forward(array, plan)
    return result


def _side_by_side_gradients(
    g: Array, argnums: tuple[int, ...], layout: tuple[Plan | None, ...], *arrays: Array
) -> tuple[Array, ...]:
    edges = _edges(arrays)
    found = []
    for argnum in argnums:
        number = argnum - 1  # argument 0 is the layout
        plan, array = layout[number], arrays[number]
        start, width = edges[number], array.shape[1]
        part = g[:, start : start + width]
        if plan is None:
            found.append(part)
        elif plan.plain:
            found.append(kernels.add_columns(g, start, width, plan.inverse, len(array)))
        else:
            found.append(_combine_gradient(np.ascontiguousarray(part), part, array, plan))
    return tuple(found)


def _edges(arrays: Sequence[Array]) -> list[int]:
    edges = [0]
    for array in arrays:
        edges.append(edges[-1] + array.shape[1])
    return edges


_added_up = by_many(_added_up_forward, _added_up_gradients)
_side_by_side = by_many(_side_by_side_forward, _side_by_side_gradients)
