"""What a batch will look up, found before its step: ids made unique, those of a stack together.

It runs in the input pipeline's thread, one batch ahead of the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from psys.arrays import Array
from psys.compute.build_store import Prefetch
from psys.compute.features import InputFeatures, PlainTables, StackedIds, TableIds
from psys.compute.layer_parts import LayerPlan
from psys.compute.store import check_ids, unique_ids
from psys.feature_column.ahead import hash_together
from psys.feature_column.sparse_ids import SparseIds
from psys.stacks import TableStack


class _Plain(NamedTuple):
    """A lookup that gives each example one row.

    Attributes:
        column: the categorical column.
        ids: what it made of the batch.
        inverse: ``[batch]`` the place of each example's id among the table's.
    """

    column: Any
    ids: SparseIds
    inverse: Array


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

    def find(self, features: InputFeatures) -> dict[str, Array]:
        """Return the rows a batch looks up, ``[n]`` sorted and unique, by table or stack.

        What is found on the way is noted in ``features``, for the model to use.

        Raises:
            ModelError: if a column cannot read its features, or gives an id that is no row.
        """
        found: dict[str, list[Array]] = {}
        plain: dict[str, _Plain] = {}
        hash_together(features, self._columns)
        for prefetch in self.prefetches:
            sparse = prefetch.column.transform(features)
            known = features.uniques.get(prefetch.column)
            if known is None:
                known = features.uniques[prefetch.column] = (sparse.ids, *unique_ids(sparse.ids))
            if sparse.one_each and sparse.weights is None and prefetch.table not in found:
                plain[prefetch.table] = _Plain(prefetch.column, sparse, known[2])
            else:
                plain.pop(prefetch.table, None)
            found.setdefault(prefetch.table, []).append(known[1])
        tables = {
            table: ids[0] if len(ids) == 1 else np.unique(np.concatenate(ids))
            for table, ids in found.items()
        }
        rows: dict[str, Array] = {}
        for name, stack in self.stacks.items():
            if here := [table for table in stack.tables if table in tables]:
                stacked = _stacked(stack, here, [tables.pop(table) for table in here], plain)
                features.stacked[name] = stacked
                rows[name] = stacked.rows
        return {**tables, **rows}


def _stacked(
    stack: TableStack, tables: Sequence[str], ids: Sequence[Array], plain: Mapping[str, _Plain]
) -> StackedIds:
    """Return the ids of some tables as rows of their stack.

    Args:
        stack: of the tables.
        tables: those that are looked up, in order.
        ids: of each, sorted and unique.
        plain: by table, those of which each example has exactly one row.

    Raises:
        ModelError: if one is no row of its table: it would be one of another.
    """
    counts = [len(one) for one in ids]
    ranges = [stack.rows_of(table) for table in tables]
    for table, (start, stop), own in zip(tables, ranges, ids, strict=True):
        check_ids(table, stop - start, own)
    rows = np.concatenate(ids) + np.repeat([start for start, _ in ranges], counts)
    edges = [0, *accumulate(counts)]
    parts = zip(tables, ids, edges[:-1], edges[1:], strict=True)
    found = {name: TableIds(own, first, stop) for name, own, first, stop in parts}
    names = tuple(table for table in tables if table in plain)
    chosen = [plain[name] for name in names]
    if len({len(one.inverse) for one in chosen}) != 1:
        return StackedIds(rows, found)  # none, or features of several sizes: the layer will say so
    return StackedIds(
        rows,
        found,
        PlainTables(
            names,
            [one.column for one in chosen],
            [one.ids for one in chosen],
            np.concatenate([one.inverse for one in chosen]).reshape(len(names), -1),
            np.array([(found[name].first, found[name].stop) for name in names], np.int64),
        ),
    )
