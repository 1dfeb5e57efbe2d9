"""Rows of a table combined by example: what embedding and linear columns compute.

Works on the unique rows of one batch, never on a table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from psys import kernels
from psys.arrays import Array
from psys.compute.backward import untraced
from psys.compute.stack_rows import TableRows
from psys.compute.tracing import by_first
from psys.errors import ModelError


class Plan(NamedTuple):
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


@dataclass(slots=True, eq=False)  # not frozen: a step makes dozens, and that doubles the cost
class Combination:
    """What a column makes of a table's rows, before it is computed.

    Attributes:
        rows: ``[n_unique, width]``.
        plan: how they become examples.
    """

    rows: TableRows
    plan: Plan

    def __len__(self) -> int:
        return self.plan.num_segments


def combination(
    rows: Array | TableRows,
    inverse: Array,
    segments: Array,
    weights: Array | None,
    num_segments: int,
    combiner: str = "mean",
    one_each: bool | None = None,
) -> Combination:
    """Return what ``segment_combine`` would compute of rows ``[n_unique, width]``.

    Args:
        rows: of one table, maybe traced, or still among those of a stack; and the others as for
            ``segment_combine``.
        inverse: likewise.
        segments: likewise.
        weights: likewise.
        num_segments: likewise.
        combiner: likewise.
        one_each: whether every example has exactly one id, in order; None to find out.
    """
    if combiner not in ("sum", "mean", "sqrtn"):
        raise ModelError(f"combiner must be 'sum', 'mean' or 'sqrtn', got {combiner!r}.")
    if not isinstance(rows, TableRows):
        rows = TableRows(rows, "", 0, len(rows))
    if one_each and weights is None:
        return Combination(rows, Plan(inverse, None, None, None, num_segments))
    plan = _plan(inverse, segments, weights, num_segments, combiner, rows.dtype, one_each)
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
    plan = combination(rows, inverse, segments, weights, num_segments, combiner).plan
    result = _combine(rows, plan)
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


def combine_forward(rows: Array, plan: Plan) -> Array:
    """Return what ``plan`` makes of rows ``[n_unique, width]``, ``[num_segments, width]``."""
    result = np.take(rows, plan.inverse, axis=0)
    if plan.weights is not None:
        result *= plan.weights
    if plan.segments is not None:
        result = kernels.add_rows(result, plan.segments, plan.num_segments)
    if plan.scale is not None:
        result *= plan.scale
    return result


def add_combined(g: Array, plan: Plan, sums: Array) -> None:
    """Add to ``sums`` ``[n_unique, width]`` the gradient of the rows that ``plan`` combined.

    Args:
        g: the gradient of what was computed, ``[num_segments, width]``.
        plan: how that was computed.
        sums: C-contiguous.
    """
    if plan.scale is not None:
        g = g * plan.scale
    if plan.segments is not None:
        g = np.take(g, plan.segments, axis=0)
    if plan.weights is not None:
        g = g * plan.weights
    kernels.add_rows(g, plan.inverse, len(sums), out=sums)


def _combine_gradient(g: Array, _answer: Array, rows: Array, plan: Plan) -> Array:
    sums = np.zeros(rows.shape, g.dtype)
    add_combined(g, plan, sums)
    return sums


_combine = by_first(combine_forward, _combine_gradient)
