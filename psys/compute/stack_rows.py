"""The rows of one table, alone or among those of the other tables of its stack.

What is computed of several tables of a stack is computed of all its rows at once, and so is the
gradient. Which tables take part in that is known only where they come together: it is there that
their rows become traced.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from psys.arrays import Array
from psys.compute.backward import untraced
from psys.compute.features import PlainTables


@dataclass(frozen=True, eq=False)
class StackRows:
    """The rows of a stack that were pulled for one batch.

    They know no store: a cycle of references would keep what was pulled in memory.

    Attributes:
        stack: its name.
        values: ``[n, width]``, only to be read.
    """

    stack: str
    values: Array


class TableRows(NamedTuple):
    """The rows of a table that one batch looks up.

    Attributes:
        holder: ``[n, width]``, maybe traced; or the rows of a whole stack.
        table: the table's name in its stack.
        first: where its rows begin in the holder.
        stop: one past where they end.
    """

    holder: Array | StackRows
    table: str
    first: int
    stop: int

    @property
    def values(self) -> Array:
        """All rows of the holder, untraced."""
        return self.holder.values if isinstance(self.holder, StackRows) else untraced(self.holder)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the rows."""
        return self.values.dtype


class StackPart(NamedTuple):
    """What several tables of a stack give a layer: of each table one row an example, as it is.

    Attributes:
        rows: of the whole stack.
        plain: where the tables' are among these, and which are whose.
    """

    rows: StackRows
    plain: PlainTables
