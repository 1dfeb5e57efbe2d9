"""Columns over numbers: taken as they are, or by the interval they fall into.

A number is float32 here whatever it was in the feature, and so are boundaries, as in TF.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from psys.arrays import Array
from psys.errors import ConfigError, ModelError
from psys.feature_column.column import (
    CategoricalColumn,
    DenseColumn,
    checked_count,
    checked_key,
    hashed_once,
)
from psys.feature_column.feature_values import numbers
from psys.feature_column.sparse_ids import SparseIds, row_numbers


@dataclass(frozen=True)
class NumericColumn(DenseColumn):
    """Numbers of a dense feature; see ``numeric_column``."""

    key: str
    shape: tuple[int, ...]
    default_value: float | tuple[float, ...] | None
    dtype: str
    normalizer_fn: Callable[[Array], Array] | None

    @property
    def name(self) -> str:
        """The key."""
        return self.key

    @property
    def keys(self) -> tuple[str, ...]:
        """The key alone."""
        return (self.key,)

    @property
    def width(self) -> int:
        """The number of elements of ``shape``."""
        return math.prod(self.shape)

    def dense(self, features: Mapping[str, Any], *, trainable: bool = True) -> Array:
        """Return the normalized numbers, float32 ``[batch, width]``."""
        array = numbers(features, self.key, self.name)
        if self.normalizer_fn is not None:
            array = np.asarray(self.normalizer_fn(array))
        per_row = math.prod(array.shape[1:])
        if array.ndim == 0 or per_row != self.width:
            raise ModelError(
                f"Column {self.name!r}: feature {self.key!r} must be [batch, "
                f"{', '.join(map(str, self.shape))}], got shape {array.shape}."
            )
        return array.reshape(len(array), self.width).astype(np.float32, copy=False)


@dataclass(frozen=True)
class BucketizedColumn(DenseColumn, CategoricalColumn):
    """The interval each number falls into; see ``bucketized_column``."""

    source_column: NumericColumn
    boundaries: tuple[float, ...]

    __hash__ = hashed_once

    @property
    def name(self) -> str:
        """``<source>_bucketized``."""
        return f"{self.source_column.name}_bucketized"

    @property
    def keys(self) -> tuple[str, ...]:
        """The source's key."""
        return self.source_column.keys

    @property
    def num_buckets(self) -> int:
        """Intervals, for each element of the source."""
        return (len(self.boundaries) + 1) * self.source_column.width

    @property
    def width(self) -> int:
        """As one-hot numbers, one for each bucket."""
        return self.num_buckets

    @cached_property
    def _limits(self) -> npt.NDArray[np.float32]:
        return np.array(self.boundaries, np.float32)

    def _buckets(self, features: Mapping[str, Any]) -> Array:
        """Return ids ``[batch, elements]``: ``interval + (boundaries + 1) * element``."""
        intervals = np.searchsorted(self._limits, self.source_column.dense(features), side="right")
        elements = self.source_column.width
        if elements == 1:
            return intervals
        return intervals + np.arange(elements) * (len(self.boundaries) + 1)

    def unpruned_ids(self, features: Mapping[str, Any]) -> SparseIds:
        """Return one id for each element of the source."""
        ids = self._buckets(features)
        batch, elements = ids.shape
        segments = row_numbers(batch)
        if elements != 1:
            segments = segments.repeat(elements)
        return SparseIds(ids.reshape(-1), segments, None, batch)

    def dense(self, features: Mapping[str, Any], *, trainable: bool = True) -> Array:
        """Return a one-hot for each element of the source, float32 ``[batch, width]``."""
        ids = self._buckets(features)
        result = np.zeros((len(ids), self.width), np.float32)
        np.put_along_axis(result, ids, 1.0, axis=1)
        return result


def numeric_column(
    key: str,
    shape: int | Sequence[int] = (1,),
    default_value: float | Sequence[float] | None = None,
    dtype: npt.DTypeLike = "float32",
    normalizer_fn: Callable[[Array], Array] | None = None,
) -> NumericColumn:
    """Describe numbers that a dense feature holds.

    Args:
        key: the feature, ``[batch]`` or ``[batch, *shape]``.
        shape: the shape of one row.
        default_value: what a parser of serialized examples puts for a missing value; one
            number, or one for each element. Arrays are not touched by it.
        dtype: what a parser reads; an array of any numeric dtype is taken.
        normalizer_fn: a function from the batch's array to one of the same shape, applied
            before the numbers become float32.

    Raises:
        ConfigError: if the key is not a string, a size is not a positive integer, the dtype
            is not numeric, or normalizer_fn cannot be called.
    """
    key = checked_key(key)
    sizes = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    sizes = tuple(checked_count(size, "every size in shape", key) for size in sizes)
    if np.dtype(dtype).kind not in "iuf":
        raise ConfigError(f"Column {key!r}: dtype must be integer or float, got {dtype!r}.")
    if normalizer_fn is not None and not callable(normalizer_fn):
        raise ConfigError(f"Column {key!r}: normalizer_fn must be callable, got {normalizer_fn!r}.")
    default: float | tuple[float, ...] | None = None
    if default_value is not None:
        flat = np.asarray(default_value, np.float64).reshape(-1).tolist()
        default = flat[0] if np.ndim(default_value) == 0 else tuple(flat)
        if isinstance(default, tuple) and len(default) != math.prod(sizes):
            raise ConfigError(
                f"Column {key!r}: default_value must be one number or {math.prod(sizes)} "
                f"of them (shape {sizes}), got {default_value!r}."
            )
    return NumericColumn(key, sizes, default, np.dtype(dtype).name, normalizer_fn)


def bucketized_column(
    source_column: NumericColumn, boundaries: Sequence[float]
) -> BucketizedColumn:
    """Describe the interval that each number of a numeric column falls into.

    With boundaries ``[0, 10]`` the buckets are (−∞, 0), [0, 10) and [10, ∞). The column is
    categorical (one id an element) and dense (one-hot) alike.

    Args:
        source_column: a ``numeric_column`` with a shape of one dimension.
        boundaries: strictly increasing numbers.

    Raises:
        ConfigError: if the source is another column or has more dimensions, or boundaries
            are empty or not strictly increasing.
    """
    if not isinstance(source_column, NumericColumn):
        raise ConfigError(f"source_column must be a numeric_column, got {source_column!r}.")
    if len(source_column.shape) != 1:
        raise ConfigError(
            f"source_column {source_column.name!r} must have one dimension, "
            f"got shape {source_column.shape}."
        )
    try:
        limits = tuple(float(boundary) for boundary in boundaries)
    except TypeError:
        raise ConfigError(f"boundaries must be a list of numbers, got {boundaries!r}.") from None
    if not limits or not all(low < high for low, high in pairwise(limits)):
        raise ConfigError(
            f"boundaries must be strictly increasing and not empty, got {boundaries}."
        )
    return BucketizedColumn(source_column, limits)
