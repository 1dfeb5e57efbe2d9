"""Raw features as columns want them: looked up by key, checked, in one of three dtypes.

A raw feature is an array ``[batch]`` or ``[batch, n]`` of any numeric, string or object
dtype, or a SparseFeature. Categories come out as ``S`` bytes or int64, numbers as float32.
Errors name the column and what was found. Nothing here knows what a column does with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from psys.arrays import Array
from psys.errors import ModelError
from psys.feature_column.byte_strings import encode, encode_objects, is_missing
from psys.feature_column.sparse_ids import SparseFeature, row_numbers

STRING = "string"
INT64 = "int64"

_MOST = np.iinfo(np.int64).max


@dataclass(frozen=True, eq=False)
class Categories:
    """The raw categories of one batch.

    Attributes:
        values: ``[nnz]`` ``S`` bytes or int64.
        segments: ``[nnz]`` int64, the row of each value, ascending.
        batch: the number of rows.
        dense: True if they came as an array, not as a SparseFeature.
    """

    values: Array
    segments: Array
    batch: int
    dense: bool

    def present(self) -> Categories:
        """Return these without the missing values of an array: ``''`` and ``-1``."""
        if not self.dense:
            return self
        missing: Any = b"" if self.values.dtype.kind == "S" else -1
        mask = self.values != missing
        if mask.all():
            return self
        return Categories(self.values[mask], self.segments[mask], self.batch, dense=True)


def feature(features: Mapping[str, Any], key: str, column: str) -> Array | SparseFeature:
    """Return the raw feature ``key``: a SparseFeature or an array.

    Raises:
        ModelError: if there is no such feature.
    """
    try:
        value = features[key]
    except KeyError:
        raise ModelError(
            f"Feature {key!r} is not in the features dictionary "
            f"(has: {', '.join(sorted(map(str, features)))}); column {column!r} needs it."
        ) from None
    if isinstance(value, SparseFeature):
        return value
    array = np.asarray(value)
    return array.astype(object) if array.dtype.kind == "T" else array


def numbers(features: Mapping[str, Any], key: str, column: str) -> Array:
    """Return the raw feature ``key`` as an array of numbers, as it came.

    Raises:
        ModelError: if it is sparse, or holds anything but numbers.
    """
    value = feature(features, key, column)
    if isinstance(value, SparseFeature):
        raise ModelError(
            f"Column {column!r} takes a dense feature, got a SparseFeature for {key!r}."
        )
    if value.dtype.kind in "biuf":
        return value
    found = str(value.dtype)
    if value.dtype.kind == "O":
        kinds = set(map(type, value.reshape(-1).tolist()))
        if all(issubclass(kind, (int, float, np.number)) for kind in kinds):
            return value.astype(np.float64)
        found = f"object ({', '.join(sorted(kind.__name__ for kind in kinds))})"
    raise ModelError(f"Column {column!r} takes numbers, but feature {key!r} has dtype {found}.")


def categories(
    features: Mapping[str, Any], key: str, column: str, dtype: str | None = None
) -> Categories:
    """Return the raw feature ``key`` as categories, missing values included.

    Args:
        features: raw features by key.
        key: which one.
        column: the column's name, for messages.
        dtype: ``STRING`` or ``INT64``; None takes either.

    Raises:
        ModelError: if it is of another dtype, or not ``[batch]`` or ``[batch, n]``.
    """
    value = feature(features, key, column)
    if isinstance(value, SparseFeature):
        given, segments, batch, dense = value.values, value.segments, value.batch, False
    else:
        if value.ndim not in (1, 2):
            raise ModelError(
                f"Column {column!r}: feature {key!r} must be [batch] or [batch, n], "
                f"got shape {value.shape}."
            )
        batch, dense = len(value), True
        segments = row_numbers(batch)
        if value.ndim == 2 and value.shape[1] != 1:
            segments = segments.repeat(value.shape[1])
        given = value.reshape(-1)
    return Categories(_as_categories(given, key, column, dtype), segments, batch, dense)


def _as_categories(given: Array, key: str, column: str, dtype: str | None) -> Array:
    kind, found = given.dtype.kind, str(given.dtype)
    values = given
    if kind == "O":
        values, found = _from_objects(given, dtype)
        kind = values.dtype.kind
    if kind in "SU" and dtype != INT64:
        return encode(values)
    if kind in "iu" and dtype != STRING:
        if values.dtype == np.uint64 and (values > _MOST).any():
            raise ModelError(
                f"Column {column!r}: feature {key!r} holds {values.max()}; integers must be at "
                f"most {_MOST}. Give larger ones as strings."
            )
        return values.astype(np.int64, copy=False)
    wanted = {STRING: "strings", INT64: "integers", None: "strings or integers"}[dtype]
    hint = "; its dtype argument says which" if kind in "SUiu" else ""
    raise ModelError(
        f"Column {column!r} takes {wanted}, but feature {key!r} has dtype {found}{hint}."
    )


def _from_objects(given: Array, dtype: str | None) -> tuple[Array, str]:
    """Return objects of one kind as bytes or int64, or unchanged; and what was found."""
    objects = given.tolist()
    kinds = set(map(type, objects))
    found = f"object ({', '.join(sorted(kind.__name__ for kind in kinds))})"
    if not all(issubclass(kind, (str, bytes)) for kind in kinds):
        missing = [is_missing(item) for item in objects]
        kinds = {type(item) for item, absent in zip(objects, missing, strict=True) if not absent}
        integers = all(issubclass(kind, (int, np.integer)) and kind is not bool for kind in kinds)
        if integers and (kinds or dtype == INT64):
            filled = [-1 if absent else item for item, absent in zip(objects, missing, strict=True)]
            return np.array(filled, np.int64), found
        if not all(issubclass(kind, (str, bytes)) for kind in kinds):
            return given, found
        objects = [b"" if absent else item for item, absent in zip(objects, missing, strict=True)]
    return encode_objects(objects), found
