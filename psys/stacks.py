"""TableStack: tables one under another, under one name, so that a step handles them as one.

A model of many categorical columns has a table for each; handled one by one, each costs some
microseconds in a dozen places on the way of a step. Tables of one row shape, dtype and optimizer
are therefore pulled, pushed and updated as one table, their stack, whose rows are theirs in order
of their names. To everything else, such as the user's program, the plan and checkpoints, they are
variables of their own. Nothing here holds a value.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise

import numpy as np

from psys.arrays import Array, VariableSpec
from psys.errors import ModelError


@dataclass(frozen=True, eq=False)
class TableStack:
    """Tables that travel as one.

    Attributes:
        spec: of the whole, ``[sum of rows, ...]``, under the stack's name.
        tables: their names, in order.
        starts: the first row of each in the stack; then, once more, the number of all rows.
    """

    spec: VariableSpec
    tables: tuple[str, ...]
    starts: Array

    @property
    def name(self) -> str:
        """The name under which rows are pulled and pushed."""
        return self.spec.name

    def rows_of(self, table: str) -> tuple[int, int]:
        """Return the first row of a table in the stack, and one past its last.

        Raises:
            ModelError: if it is not in the stack.
        """
        try:
            return self._ranges[table]
        except KeyError:
            raise ModelError(f"Table {table!r} is not in stack {self.name!r}.") from None

    def ranges_of(self, tables: tuple[str, ...]) -> tuple[Array, Array]:
        """Return where the rows of tables begin in the stack, and how many each has, ``[tables]``.

        Raises:
            ModelError: if one is not in the stack.
        """
        found = self._looked_up.get(tables)
        if found is None:
            ranges = np.array([self.rows_of(table) for table in tables], np.int64).reshape(-1, 2)
            found = self._looked_up[tables] = ranges[:, 0], ranges[:, 1] - ranges[:, 0]
        return found

    @cached_property
    def _looked_up(self) -> dict[tuple[str, ...], tuple[Array, Array]]:
        # A model looks up the same ones in every step.
        return {}

    @cached_property
    def _ranges(self) -> dict[str, tuple[int, int]]:
        return dict(zip(self.tables, pairwise(self.starts.tolist()), strict=True))

    def table_of(self, row: int) -> str:
        """Return whose row a row of the stack is."""
        return self.tables[int(np.searchsorted(self.starts, row, side="right")) - 1]


def stacks_of(specs: Iterable[VariableSpec]) -> dict[str, TableStack]:
    """Return the stacks that tables say they are in, by name.

    Raises:
        ModelError: if tables of one stack differ in row shape, dtype or optimizer, or a variable
            has the name of a stack.
    """
    ordered = sorted(specs, key=lambda one: one.name)
    members: dict[str, list[VariableSpec]] = {}
    for one in ordered:
        if one.stack:
            members.setdefault(one.stack, []).append(one)
    if taken := sorted(members.keys() & {one.name for one in ordered}):
        raise ModelError(f"{taken[0]!r} is the name of a variable and of a stack of tables.")
    return {name: _stack(name, tables) for name, tables in members.items()}


def _stack(name: str, tables: list[VariableSpec]) -> TableStack:
    first = tables[0]
    for one in tables[1:]:
        if (one.row_shape, one.dtype, one.optimizer) != (
            first.row_shape,
            first.dtype,
            first.optimizer,
        ):
            raise ModelError(
                f"Tables {first.name!r} and {one.name!r} cannot be one stack: their rows are "
                f"{first.row_shape} {first.dtype} and {one.row_shape} {one.dtype}, their "
                f"optimizers {first.optimizer} and {one.optimizer}."
            )
    starts = np.array([0, *accumulate(one.rows for one in tables)], np.int64)
    spec = replace(first, name=name, shape=(int(starts[-1]), *first.row_shape), stack="")
    return TableStack(spec, tuple(one.name for one in tables), starts)
