"""What the columns of a layer give it, those of one stack of tables together.

A layer over dozens of columns looks up the same tables in every step. What one step finds out
column after column is kept as a plan, by which the next looks up all tables of a stack at once.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping, Sequence
from operator import is_
from typing import Any, NamedTuple

import numpy as np

from psys.arrays import Array
from psys.compute.embedding import Combination
from psys.compute.features import InputFeatures
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


class NumberColumns(NamedTuple):
    """Columns of a layer that stand side by side and give features as they are, as float32.

    Attributes:
        places: their numbers in the layer.
        keys: of their features.
        widths: of each.
    """

    places: range
    keys: tuple[Any, ...]
    widths: tuple[int, ...]

    def read(self, features: Mapping[Any, Any]) -> Array | None:
        """Return their numbers, ``[batch, sum of widths]``, as ``NumericColumn.dense`` gives each.

        None if a feature is not there, or is no array of numbers that fits its column, or if the
        features are of a class of somebody's own: this is for the column to say, or to make
        something of.
        """
        if type(features) not in (InputFeatures, dict):
            return None
        parts: list[Array] = []
        for key, width in zip(self.keys, self.widths, strict=True):
            given = features.get(key)
            if type(given) is not np.ndarray or given.dtype.kind not in "biuf":
                return None
            if given.ndim == 1:
                given = given[:, None]
            if given.shape[1:] != (width,) or (parts and len(given) != len(parts[0])):
                return None
            parts.append(given)
        return np.concatenate(parts, axis=1, dtype=np.float32, casting="unsafe")


class LayerPlan(NamedTuple):
    """What a layer looked up in a step.

    Attributes:
        given: the layer's columns, as it was called with them.
        options: all else that its variables depend on.
        columns: sorted.
        widths: of what each gives.
        stacks: the columns that are looked up together; two or more of each stack.
        numbers: the columns of numbers that are read together; two or more at each place.
        rest: the numbers of all other columns.
    """

    given: Any
    options: tuple[Any, ...]
    columns: Sequence[Any]
    widths: tuple[int, ...]
    stacks: tuple[StackColumns, ...]
    numbers: tuple[NumberColumns, ...]
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
        single: number of a column, and what it gives; or of the first of several that stand side
            by side, and what these give.
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
    keys: Mapping[int, Any],
) -> LayerPlan | None:
    """Return how to look up the same again; None if there is nothing to be had together.

    Args:
        given: the layer's columns, as it was called with them.
        options: all else that its variables depend on.
        columns: sorted.
        parts: what each of them gave, one by one.
        allowed: the numbers of those that may be looked up together.
        keys: of those that give a feature's numbers as they are, its key.
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
    numbers = tuple(_side_by_side(keys, parts.widths))
    if not stacks and not numbers:
        return None
    done = {at for one in stacks for at in one.places.tolist()}
    done.update(at for one in numbers for at in one.places)
    rest = tuple(at for at in range(len(columns)) if at not in done)
    return LayerPlan(given, options, columns, tuple(parts.widths), stacks, numbers, rest)


def _side_by_side(keys: Mapping[int, Any], widths: Sequence[int]) -> Iterator[NumberColumns]:
    """Yield those columns of numbers that stand beside others."""
    at = 0
    while at < len(widths):
        stop = at
        while stop in keys:
            stop += 1
        if stop - at > 1:
            yield NumberColumns(
                range(at, stop), tuple(keys[n] for n in range(at, stop)), tuple(widths[at:stop])
            )
        at = stop + 1
