"""Ragged data of one batch: ids after a column's transformation, and raw sparse features.

Both say which row of the batch each value belongs to by a ``segments`` array, so that one
row may hold none, one or many values. For example the bags ``{2}``, ``{}``, ``{0, 1}`` are
``ids=[2, 0, 1]``, ``segments=[0, 2, 2]``, ``batch=3``. Nothing here changes a value.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from psys.arrays import Array
from psys.errors import ModelError


@lru_cache(maxsize=4)
def row_numbers(batch: int) -> Array:
    """Return ``0, 1, ..., batch - 1``, read-only: the segments where each row has one value."""
    numbers = np.arange(batch)
    numbers.flags.writeable = False
    return numbers


@dataclass(slots=True, eq=False)  # not frozen: a batch makes dozens, and that doubles the cost
class SparseIds:
    """The category ids of one batch; not to be changed.

    Attributes:
        ids: ``[nnz]`` int64, each within ``[0, num_buckets)`` of its column.
        segments: ``[nnz]`` int64, the row of the batch of each id, ascending; only to be read,
            for batches share it.
        weights: ``[nnz]`` float32, or None when every id counts once.
        batch: the number of rows, empty ones included.
        one_each: whether every row has exactly one id, in order.
    """

    ids: Array
    segments: Array
    weights: Array | None
    batch: int
    one_each: bool = field(init=False)

    def __post_init__(self) -> None:
        rows = row_numbers(self.batch)
        self.one_each = self.segments is rows or np.array_equal(self.segments, rows)

    def keep(self, mask: Array) -> SparseIds:
        """Return the ids where ``mask`` (``[nnz]`` bool) is true; itself if it is everywhere."""
        if mask.all():
            return self
        weights = None if self.weights is None else self.weights[mask]
        return SparseIds(self.ids[mask], self.segments[mask], weights, self.batch)


@dataclass(frozen=True, eq=False)
class SparseFeature:
    """A raw feature with any number of values in each row, given in place of an array.

    Unlike in an array, no value means "missing" here: a value that is there counts.

    Attributes:
        values: ``[nnz]`` strings or integers.
        segments: ``[nnz]`` the row of the batch of each value, ascending.
        batch: the number of rows, empty ones included.

    Raises:
        ModelError: if the two arrays do not pair up, or segments are not ascending rows.
    """

    values: Array
    segments: Array
    batch: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", np.asarray(self.values))
        object.__setattr__(self, "segments", np.asarray(self.segments, np.int64))
        if self.values.ndim != 1 or self.values.shape != self.segments.shape:
            raise ModelError(
                "SparseFeature: values and segments must both be [nnz], got "
                f"{self.values.shape} and {self.segments.shape}."
            )
        rows = self.segments
        if len(rows) and (rows[0] < 0 or rows[-1] >= self.batch or (np.diff(rows) < 0).any()):
            raise ModelError(
                f"SparseFeature: segments must ascend within [0, {self.batch}), got {rows}."
            )
