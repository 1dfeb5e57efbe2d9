"""Hashed columns of one batch, all at once, for the input pipeline.

Each column alone costs a dozen calls, between which another thread may take the interpreter; here
hashing all of them and finding their unique ids is one call. What a column gives does not change: a
batch that these do not fit is left to ``CategoricalColumn.transform``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from psys import kernels
from psys.arrays import Array
from psys.compute.features import InputFeatures
from psys.feature_column.categorical import HashedCategoricalColumn
from psys.feature_column.feature_values import INT64
from psys.feature_column.sparse_ids import SparseIds, row_numbers


def hash_together(features: InputFeatures, columns: Iterable[Any]) -> None:
    """Note in ``features`` the ids, and the unique ids, of columns that hash a string a row.

    Args:
        features: of one batch.
        columns: any, each once; those that are already noted, or anything else, are passed over.
    """
    for group in _groups(features, columns):
        strings = np.stack([one for _, one in group])
        buckets = [column.hash_bucket_size for column, _ in group]
        batch = strings.shape[1]
        rows = row_numbers(batch)
        for (column, _), one in zip(group, kernels.hash_columns(strings, buckets), strict=True):
            if not one.empty:  # an empty string is no value
                features.transformed[column] = SparseIds(one.ids, rows, None, batch)
                features.uniques[column] = one.ids, one.unique, one.inverse


def _groups(
    features: InputFeatures, columns: Iterable[Any]
) -> list[list[tuple[HashedCategoricalColumn, Array]]]:
    """Return columns with their strings ``[batch]``, those of one shape and dtype together."""
    groups: dict[Any, list[tuple[HashedCategoricalColumn, Array]]] = {}
    for column in columns:
        if not isinstance(column, HashedCategoricalColumn) or column in features.transformed:
            continue
        value = features.get(column.key)
        if not isinstance(value, np.ndarray) or value.dtype.kind != "S" or column.dtype == INT64:
            continue
        if value.ndim == 2 and value.shape[1] == 1:
            value = value.reshape(-1)
        if value.ndim == 1:
            groups.setdefault((len(value), value.dtype), []).append((column, value))
    return [group for group in groups.values() if len(group) > 1]
