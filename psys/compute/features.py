"""The features of one batch, with room for what the input pipeline prepared ahead of time.

To a model_fn this is the dict that ``input_fn`` gave. It never changes a feature by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from psys.arrays import Array


class TableIds(NamedTuple):
    """The ids of one table among the rows of its stack.

    Attributes:
        ids: ``[n]`` sorted and unique, of the table itself.
        first: where they begin among the stack's.
        stop: one past where they end.
    """

    ids: Array
    first: int
    stop: int


class PlainTables(NamedTuple):
    """Tables of one stack of which every example has one row, as it is.

    Attributes:
        tables: by name.
        columns: of each table the categorical column, and
        ids: what this one made of the batch.
        inverses: ``[tables, batch]`` which of its table's rows each example has.
        edges: ``[tables, 2]`` where a table's rows begin and end among the stack's.
    """

    tables: tuple[str, ...]
    columns: Sequence[Any]
    ids: Sequence[Any]
    inverses: Array
    edges: Array

    def part(self, tables: tuple[str, ...]) -> PlainTables:
        """Return some of the tables."""
        if tables == self.tables:
            return self
        at = [self.tables.index(table) for table in tables]
        columns, ids = [self.columns[one] for one in at], [self.ids[one] for one in at]
        return PlainTables(tables, columns, ids, self.inverses[at], self.edges[at])


@dataclass(frozen=True, eq=False)
class StackedIds:
    """The rows of a stack that one batch looks up.

    Attributes:
        rows: ``[n]`` sorted and unique.
        tables: which of them are a table's, for each table that is looked up.
        plain: those of the tables of which every example has one row; None if there is none.
    """

    rows: Array
    tables: Mapping[str, TableIds]
    plain: PlainTables | None = None


class InputFeatures(dict[Any, Any]):
    """A dict of features that remembers the ids its categorical columns were turned into.

    Attributes:
        transformed: column -> its ``SparseIds``, made by the input pipeline one batch ahead.
            A feature that is assigned anew takes the columns that read it out of here.
        uniques: column -> (its ids, these sorted and unique, and the inverse), likewise; good
            for those very ids only.
        stacked: stack -> the rows of it that the batch looks up, likewise.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.transformed: dict[Any, Any] = {}
        self.uniques: dict[Any, tuple[Array, Array, Array]] = {}
        self.stacked: dict[str, StackedIds] = {}

    def __setitem__(self, key: Any, value: Any) -> None:
        self._forget(key)
        super().__setitem__(key, value)

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Assign every given feature, as ``dict.update`` does."""
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """Assign a feature unless it is there, as ``dict.setdefault`` does; return it."""
        if key not in self:
            self[key] = default
        return self[key]

    def copy(self) -> InputFeatures:
        """Return the same features, with what is known of them; each may be changed alone."""
        same = InputFeatures(self)
        same.transformed = dict(self.transformed)
        same.uniques, same.stacked = dict(self.uniques), dict(self.stacked)
        return same

    __copy__ = copy

    def __ior__(self, other: Any) -> InputFeatures:  # type: ignore[misc]
        self.update(other)
        return self

    def _forget(self, key: Any) -> None:
        if self.transformed:
            # A column that does not say what it reads may read anything.
            stale = [c for c in self.transformed if key in getattr(c, "keys", (key,))]
            for column in stale:
                del self.transformed[column]
