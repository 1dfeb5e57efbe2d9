"""What a batch will look up, found before its step: ids made unique, those of a stack together.

It runs in the input pipeline's thread, one batch ahead of the model.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from psys.arrays import Array
from psys.compute.build_store import Prefetch
from psys.compute.features import InputFeatures, PlainTables, StackedIds, keys_of
from psys.compute.layer_parts import LayerPlan
from psys.compute.store import check_ids, unique_ids
from psys.errors import ModelError
from psys.feature_column.ahead import hash_together
from psys.stacks import TableStack

logger = logging.getLogger("psys")


@dataclass(frozen=True)
class Lookups:
    """The lookups of a model that can be foreseen.

    Attributes:
        prefetches: each with its table and its column.
        stacks: of the model's tables, by name.
        layers: what each layer of columns, by its scope, looked up in the step before; the model
            fills it.
    """

    prefetches: tuple[Prefetch, ...] = ()
    stacks: Mapping[str, TableStack] = field(default_factory=dict)
    layers: dict[str, LayerPlan | None] = field(default_factory=dict, compare=False)

    @cached_property
    def _columns(self) -> tuple[Any, ...]:
        """The columns, each once: they are slow to compare."""
        return tuple(dict.fromkeys(prefetch.column for prefetch in self.prefetches))

    @cached_property
    def _keys(self) -> frozenset[Any] | None:
        """The keys of the features that any column reads; None if one may read all."""
        read: set[Any] = set()
        for keys in map(keys_of, self._columns):
            if keys is None:
                return None
            read.update(keys)
        return frozenset(read)

    @cached_property
    def _by_one(self) -> Mapping[str, int] | None:
        """The number of each table's column, where no table is looked up by two; else None."""
        numbers = {column: number for number, column in enumerate(self._columns)}
        found = {one.table: numbers[one.column] for one in self.prefetches}
        return found if len(found) == len(self.prefetches) else None

    def find(self, features: InputFeatures) -> dict[str, Array]:
        """Return the rows a batch looks up, ``[n]`` sorted and unique, by table or stack.

        What is found on the way is noted in ``features``, for the model to use. A column that
        cannot read its features is left out: model_fn may yet make them what it reads, and if not,
        the column says so there.

        Raises:
            ModelError: if a column gives an id that is no row.
        """
        made = hash_together(features, self._columns)
        if (
            self._by_one is not None
            and [len(one.columns) for one in made] == [len(self._columns)]
            and made[0].whole
        ):
            hashed = made[0].hashed
            tables = {table: hashed.unique[number] for table, number in self._by_one.items()}
            inverses = {table: hashed.inverse[number] for table, number in self._by_one.items()}
        else:
            tables, inverses = self._one_by_one(features)
        rows: dict[str, Array] = {}
        for name, stack in self.stacks.items():
            if here := tuple(table for table in stack.tables if table in tables):
                own = [tables.pop(table) for table in here]
                features.stacked[name] = stacked = _stacked(stack, here, own, inverses, self._keys)
                rows[name] = stacked.rows
        return {**tables, **rows}

    def _say_left_out(self, column: Any, error: Exception) -> None:
        """Say once for each column that its rows are asked for in the middle of a step."""
        if column not in self._left_out:
            self._left_out.add(column)
            logger.info(
                "Column %r is looked up when model_fn comes to it, which makes a step longer: %s",
                getattr(column, "name", column),
                error if isinstance(error, ModelError) else repr(error),
            )

    @cached_property
    def _left_out(self) -> set[Any]:
        return set()

    def _one_by_one(self, features: InputFeatures) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return what columns look up, each by itself.

        Returns:
            The ids by table, sorted and unique; and of tables of which each example has exactly
            one row ``[batch]`` the place of its id among them.
        """
        found: dict[str, list[Array]] = {}
        inverses: dict[str, Array] = {}
        left_out: set[str] = set()
        for prefetch in self.prefetches:
            try:
                sparse = prefetch.column.transform(features)
            except MemoryError:
                raise
            except Exception as error:  # a column of the user's may raise anything
                self._say_left_out(prefetch.column, error)
                left_out.add(prefetch.table)
                continue
            known = features.uniques.get(prefetch.column)
            if known is None:
                known = features.uniques[prefetch.column] = (sparse.ids, *unique_ids(sparse.ids))
            if sparse.one_each and sparse.weights is None and prefetch.table not in found:
                inverses[prefetch.table] = known[2]
            else:
                inverses.pop(prefetch.table, None)
            found.setdefault(prefetch.table, []).append(known[1])
        tables = {
            table: ids[0] if len(ids) == 1 else np.unique(np.concatenate(ids))
            for table, ids in found.items()
        }
        # What another column finds of such a table is not all that it gives an example.
        return tables, {name: one for name, one in inverses.items() if name not in left_out}


def _stacked(
    stack: TableStack,
    tables: tuple[str, ...],
    ids: Sequence[Array],
    inverses: Mapping[str, Array],
    keys: frozenset[Any] | None,
) -> StackedIds:
    """Return the ids of some tables as rows of their stack.

    Args:
        stack: of the tables.
        tables: those that are looked up, in order.
        ids: of each, sorted and unique.
        inverses: by table, of those of which each example has exactly one row.
        keys: of the features that their columns read; None for all.

    Raises:
        ModelError: if one is no row of its table: it would be one of another.
    """
    counts = [*map(len, ids)]
    starts, sizes = stack.ranges_of(tables)
    joined = np.concatenate(ids)
    # As numbers without a sign: one below zero is too large as well.
    if not (joined.view(np.uint64) < np.repeat(sizes.view(np.uint64), counts)).all():
        for table, size, own in zip(tables, sizes.tolist(), ids, strict=True):
            check_ids(table, size, own)
    stops = np.cumsum(counts)
    edges = np.column_stack([stops - counts, stops])
    rows = joined + np.repeat(starts, counts)
    at = [number for number, table in enumerate(tables) if table in inverses]
    chosen = [inverses[tables[number]] for number in at]
    if len({*map(len, chosen)}) != 1:
        # None, or features of several sizes: the layer will say so.
        return StackedIds(rows, tables, ids, edges)
    plain = PlainTables(
        tuple(tables[number] for number in at),
        keys,
        np.concatenate(chosen).reshape(len(at), -1),
        edges[at],
    )
    return StackedIds(rows, tables, ids, edges, plain)
