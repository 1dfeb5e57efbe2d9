"""The features of one batch, with room for what the input pipeline prepared ahead of time.

To a model_fn this is the dict that ``input_fn`` gave. It never changes a feature by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
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
        keys: of all features that their columns read; None if one of them may read any.
        inverses: ``[tables, batch]`` which of its table's rows each example has.
        edges: ``[tables, 2]`` where a table's rows begin and end among the stack's.
    """

    tables: tuple[str, ...]
    keys: frozenset[Any] | None
    inverses: Array
    edges: Array

    def part(self, tables: tuple[str, ...]) -> PlainTables:
        """Return some of the tables."""
        if tables == self.tables:
            return self
        at = [self.tables.index(table) for table in tables]
        return PlainTables(tables, self.keys, self.inverses[at], self.edges[at])


@dataclass(frozen=True, eq=False)
class StackedIds:
    """The rows of a stack that one batch looks up.

    Attributes:
        rows: ``[n]`` sorted and unique.
        names: of the tables that are looked up, and
        ids: of each, sorted and unique, of the table itself.
        edges: ``[tables, 2]`` where each table's rows begin and end among the stack's.
        plain: those of the tables of which every example has one row; None if there is none.
    """

    rows: Array
    names: Sequence[str]
    ids: Sequence[Array]
    edges: Array
    plain: PlainTables | None = None

    @cached_property
    def tables(self) -> Mapping[str, TableIds]:
        """The tables by name."""
        edges = self.edges.tolist()
        return {
            name: TableIds(own, first, stop)
            for name, own, (first, stop) in zip(self.names, self.ids, edges, strict=True)
        }


Uniques = tuple[Array, Array, Array]
"""The ids of a column, these sorted and unique, and the inverse."""


def keys_of(column: Any) -> tuple[Any, ...] | None:
    """Return the keys of the features that a column reads; None if it may read any.

    So it may, if it does not say which, in a tuple.
    """
    keys = getattr(column, "keys", None)
    return keys if isinstance(keys, tuple) else None


Noted = Callable[[], tuple[Mapping[Any, Any], Mapping[Any, Uniques]]]
"""Returns, the same ones each time, the ``SparseIds`` of some columns, and these made unique."""


class InputFeatures(dict[Any, Any]):
    """A dict of features that remembers the ids its categorical columns were turned into.

    Attributes:
        stacked: stack -> the rows of it that the batch looks up, made by the input pipeline.
        assigned: the keys of features that were assigned since the batch was made.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._transformed: dict[Any, Any] = {}
        self._uniques: dict[Any, Uniques] = {}
        self._noted: tuple[Noted, ...] = ()
        self.stacked: dict[str, StackedIds] = {}
        self.assigned: set[Any] = set()

    @property
    def transformed(self) -> dict[Any, Any]:
        """Column -> its ``SparseIds``, made by the input pipeline one batch ahead.

        A feature that is assigned anew takes the columns that read it out of here.
        """
        self._put_down()
        return self._transformed

    @property
    def uniques(self) -> dict[Any, Uniques]:
        """Column -> its ids, these made unique, likewise; good for those very ids only."""
        self._put_down()
        return self._uniques

    def note(self, noted: Noted) -> None:
        """Remember ids of many columns, which are put down by column when one is asked for.

        A step that looks up all its tables together asks for none.
        """
        self._noted += (noted,)

    @property
    def knows_ids(self) -> bool:
        """Whether the ids of any column are known."""
        return bool(self._noted or self._transformed)

    def _put_down(self) -> None:
        noted, self._noted = self._noted, ()
        for one in noted:
            transformed, uniques = one()
            self._transformed.update(transformed)
            self._uniques.update(uniques)

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
        same._transformed, same._uniques = dict(self._transformed), dict(self._uniques)
        same._noted, same.stacked = self._noted, dict(self.stacked)
        same.assigned = set(self.assigned)
        return same

    __copy__ = copy

    def __ior__(self, other: Any) -> InputFeatures:  # type: ignore[misc]
        self.update(other)
        return self

    def still_has(self, plain: PlainTables) -> bool:
        """Return whether no feature was assigned that a column of these tables reads."""
        if plain.keys is None:
            return not self.assigned
        return self.assigned.isdisjoint(plain.keys)

    def _forget(self, key: Any) -> None:
        self.assigned.add(key)
        transformed = self.transformed
        for column in [*transformed]:
            keys = keys_of(column)
            if keys is None or key in keys:
                del transformed[column]
