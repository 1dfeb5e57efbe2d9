"""Hashed columns of one batch, all at once, for the input pipeline.

Each column alone costs a dozen calls, between which another thread may take the interpreter; here
hashing all of them and finding their unique ids is one call. What a column gives does not change: a
batch that these do not fit is left to ``CategoricalColumn.transform``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from psys import kernels
from psys.arrays import Array
from psys.compute.features import InputFeatures, Uniques
from psys.feature_column.categorical import HashedCategoricalColumn
from psys.feature_column.feature_values import INT64
from psys.feature_column.sparse_ids import SparseIds, row_numbers


class HashedTogether:
    """What one call made of several columns.

    Attributes:
        columns: in the order of
        hashed: their ids.
    """

    def __init__(
        self, columns: Sequence[HashedCategoricalColumn], hashed: kernels.HashedColumns
    ) -> None:
        self.columns, self.hashed = columns, hashed

    @cached_property
    def whole(self) -> bool:
        """Whether every example has an id of every column: an empty string is no value."""
        return not self.hashed.empty.any()

    def by_column(self) -> tuple[Mapping[Any, SparseIds], Mapping[Any, Uniques]]:
        """Return what ``InputFeatures`` notes by column."""
        return self._by_column

    @cached_property
    def _by_column(self) -> tuple[Mapping[Any, SparseIds], Mapping[Any, Uniques]]:
        ids, empty, unique, inverses = self.hashed
        batch = ids.shape[1]
        rows = row_numbers(batch)
        transformed: dict[Any, SparseIds] = {}
        uniques: dict[Any, Uniques] = {}
        found = zip(self.columns, ids, empty.tolist(), unique, inverses, strict=True)
        for column, own, none, different, inverse in found:
            if not none:
                transformed[column] = SparseIds(own, rows, None, batch)
                uniques[column] = own, different, inverse
        return transformed, uniques


def hash_together(features: InputFeatures, columns: Iterable[Any]) -> list[HashedTogether]:
    """Note in ``features`` the ids, and the unique ids, of columns that hash a string a row.

    Args:
        features: of one batch.
        columns: any, each once; those that are already noted, or anything else, are passed over.

    Returns:
        What was made of columns that were hashed together.
    """
    made = []
    for group in _groups(features, columns):
        strings = np.concatenate([one for _, one in group]).reshape(len(group), -1)
        buckets = [column.hash_bucket_size for column, _ in group]
        together = HashedTogether(
            [column for column, _ in group], kernels.hash_columns(strings, buckets)
        )
        features.note(together.by_column)
        made.append(together)
    return made


def _groups(
    features: InputFeatures, columns: Iterable[Any]
) -> list[list[tuple[HashedCategoricalColumn, Array]]]:
    """Return columns with their strings ``[batch]``, those of one shape and dtype together."""
    groups: dict[Any, list[tuple[HashedCategoricalColumn, Array]]] = {}
    known = features.transformed if features.knows_ids else {}
    for column in columns:
        if not isinstance(column, HashedCategoricalColumn) or (known and column in known):
            continue
        value = features.get(column.key)
        if not isinstance(value, np.ndarray) or value.dtype.kind != "S" or column.dtype == INT64:
            continue
        if value.ndim == 2 and value.shape[1] == 1:
            value = value.reshape(-1)
        if value.ndim == 1:
            groups.setdefault((len(value), value.dtype), []).append((column, value))
    return [group for group in groups.values() if len(group) > 1]
