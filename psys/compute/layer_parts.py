"""What the columns of a layer give it, those of one stack of tables together.

A layer over dozens of columns looks up the same tables in every step. What one step finds out
column after column is kept as a plan, by which the next looks up all tables of a stack at once.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from operator import is_
from typing import Any, NamedTuple

import numpy as np

from psys.arrays import Array
from psys.compute.embedding import Combination
from psys.compute.stack_rows import StackPart, StackRows


class StackColumns(NamedTuple):
    """Columns of a layer that each give an example one row, of tables of one stack.

    Attributes:
        stack: its name.
        tables: of each column.
        places: ``[tables]`` the number of each column in the layer.
    """

    stack: str
    tables: tuple[str, ...]
    places: Array


class LayerPlan(NamedTuple):
    """What a layer looked up in a step.

    Attributes:
        given: the layer's columns, as it was called with them.
        options: all else that its variables depend on.
        columns: sorted.
        widths: of what each gives.
        stacks: the columns that are looked up together; two or more of each stack.
        rest: the numbers of all other columns.
    """

    given: Any
    options: tuple[Any, ...]
    columns: Sequence[Any]
    widths: tuple[int, ...]
    stacks: tuple[StackColumns, ...]
    rest: tuple[int, ...]

    def is_of(self, given: Any, options: tuple[Any, ...]) -> bool:
        """Return whether a layer is called with the very same columns, and equal options."""
        if not isinstance(given, tuple) or not isinstance(self.given, tuple):
            return given is self.given and options == self.options
        return (
            len(given) == len(self.given)
            and all(map(is_, given, self.given))
            and options == self.options
        )


class LayerParts(NamedTuple):
    """What the columns of a layer give.

    Attributes:
        batch: the number of examples.
        widths: of what each column gives, in the layer's order.
        single: number of a column, and what it gives.
        together: numbers of columns ``[tables]``, and what these give.
    """

    batch: int
    widths: Sequence[int]
    single: Sequence[tuple[int, Array | Combination]]
    together: Sequence[tuple[Array, StackPart]] = ()


def one_by_one(parts: Sequence[Array | Combination]) -> LayerParts:
    """Return parts ``[batch, width]``, in the layer's order, as what its columns give."""
    return LayerParts(len(parts[0]), [width_of(one) for one in parts], list(enumerate(parts)))


def width_of(part: Array | Combination) -> int:
    """Return the width of what a column gives."""
    values = part.rows.values if isinstance(part, Combination) else part
    return math.prod(values.shape[1:])


def plain_of(part: Array | Combination) -> str | None:
    """Return the stack of whose table a column gives each example one row, as it is; or None."""
    if not isinstance(part, Combination) or not part.plan.plain:
        return None
    holder = part.rows.holder
    return holder.stack if isinstance(holder, StackRows) else None


def plan_of(
    given: Any,
    options: tuple[Any, ...],
    columns: Sequence[Any],
    parts: LayerParts,
    allowed: Container[int],
) -> LayerPlan | None:
    """Return how to look up the same again; None if there is nothing to be had together.

    Args:
        given: the layer's columns, as it was called with them.
        options: all else that its variables depend on.
        columns: sorted.
        parts: what each of them gave, one by one.
        allowed: the numbers of those that may be looked up together.
    """
    by_stack: dict[str, list[tuple[int, str]]] = {}
    for at, one in parts.single:
        stack = plain_of(one)
        if stack is not None and isinstance(one, Combination) and at in allowed:
            by_stack.setdefault(stack, []).append((at, one.rows.table))
    stacks = tuple(
        StackColumns(stack, tuple(table for _, table in found), np.array([at for at, _ in found]))
        for stack, found in by_stack.items()
        if len(found) > 1
    )
    if not stacks:
        return None
    done = {at for one in stacks for at in one.places.tolist()}
    rest = tuple(at for at in range(len(columns)) if at not in done)
    return LayerPlan(given, options, columns, tuple(parts.widths), stacks, rest)
