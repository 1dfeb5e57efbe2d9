"""What every feature column is: a frozen, hashable description of how features are read.

A categorical column turns raw features into ids; a dense column turns them into numbers
``[batch, width]``. Transforming to ids is pure numpy and may run ahead of the model, in the
input pipeline. A column holds no variable; those it needs belong to the running model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from psys.errors import ConfigError, ModelError
from psys.feature_column.feature_values import INT64, STRING
from psys.feature_column.sparse_ids import SparseIds


class FeatureColumn(ABC):
    """Base of all columns."""

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: not the hash, for another process hashes strings otherwise."""
        return {name: value for name, value in self.__dict__.items() if name != "_hash"}

    @property
    @abstractmethod
    def name(self) -> str:
        """The column's name, unique in a layer; also the scope of its variables."""

    @property
    @abstractmethod
    def keys(self) -> tuple[str, ...]:
        """The raw features it reads."""


def hashed_once(column: Any) -> int:
    """Return the hash of a frozen dataclass, kept in it: every batch's caches are asked by it."""
    found: int | None = column.__dict__.get("_hash")
    if found is None:
        values = [getattr(column, one.name) for one in fields(column)]
        found = column.__dict__["_hash"] = hash((type(column), *values))
    return found


class CategoricalColumn(FeatureColumn):
    """A column that gives each row of a batch any number of category ids."""

    @property
    @abstractmethod
    def num_buckets(self) -> int:
        """Ids are within ``[0, num_buckets)``."""

    @abstractmethod
    def unpruned_ids(self, features: Mapping[str, Any]) -> SparseIds:
        """Return the ids with the negative ones, which stand for "not a category".

        Only a cross looks at these: it hashes them, as TF does.
        """

    def transform(self, features: Mapping[str, Any]) -> SparseIds:
        """Return the ids of a batch, without negative ones.

        If ``features`` has a dict ``transformed``, the answer is kept there under the column
        and taken from there the next time.

        Raises:
            ModelError: if a feature is missing, or of a dtype or shape the column cannot read.
        """
        cache: dict[FeatureColumn, SparseIds] | None = getattr(features, "transformed", None)
        if cache is None:
            return self._pruned_ids(features)
        ids = cache.get(self)
        if ids is None:
            ids = cache[self] = self._pruned_ids(features)
        return ids

    @property
    def keeps_ids(self) -> bool:
        """Whether ``transform`` does what it does here, and nothing of a class's own."""
        return type(self).transform is CategoricalColumn.transform

    def _pruned_ids(self, features: Mapping[str, Any]) -> SparseIds:
        ids = self.unpruned_ids(features)
        return ids.keep(ids.ids >= 0)


class DenseColumn(FeatureColumn):
    """A column that gives each row of a batch ``width`` numbers."""

    @property
    @abstractmethod
    def width(self) -> int:
        """The number of numbers in each row."""

    @abstractmethod
    def dense(self, features: Mapping[str, Any], *, trainable: bool = True) -> Any:
        """Return float32 ``[batch, width]``.

        Args:
            features: raw features by key.
            trainable: False freezes the variables that the column reads, if any.

        Raises:
            ModelError: if a feature is missing, or of a dtype or shape the column cannot read.
        """

    def part(self, features: Mapping[str, Any], *, trainable: bool = True) -> Any:
        """Return ``dense``, or the ``Combination`` it is, to be computed beside other columns."""
        return self.dense(features, trainable=trainable)


def sorted_columns(
    features: Mapping[str, Any], feature_columns: FeatureColumn | Iterable[FeatureColumn]
) -> list[FeatureColumn]:
    """Return the columns sorted by name, after checking both arguments of a layer.

    Raises:
        ModelError: if features is not a dictionary, or feature_columns is empty, a
            dictionary, holds something else than columns, or two of one name.
    """
    if not isinstance(features, Mapping):
        raise ModelError(
            f"features should be a dictionary of arrays by key, got {type(features).__name__}."
        )
    if isinstance(feature_columns, Mapping):
        raise ModelError("feature_columns should be a list of columns, got a dictionary.")
    given = [feature_columns] if isinstance(feature_columns, FeatureColumn) else feature_columns
    columns = list(given)
    if not columns:
        raise ModelError("feature_columns must not be empty.")
    by_name: dict[str, FeatureColumn] = {}
    for column in columns:
        if not isinstance(column, FeatureColumn):
            raise ModelError(f"feature_columns must hold feature columns only, got {column!r}.")
        if column.name in by_name:
            raise ModelError(
                f"Duplicate feature column name {column.name!r}: "
                f"a {type(by_name[column.name]).__name__} and a {type(column).__name__}."
            )
        by_name[column.name] = column
    return [by_name[name] for name in sorted(by_name)]


def same_batch(column: FeatureColumn, batch: int, other: FeatureColumn, expected: int) -> None:
    """Raise a ModelError if two columns of one layer do not agree on the batch size."""
    if batch != expected:
        raise ModelError(
            f"Columns {other.name!r} and {column.name!r} read batches of different sizes: "
            f"{expected} and {batch} rows."
        )


def checked_key(key: object) -> str:
    """Return the key if it is a non-empty string, else raise a ConfigError."""
    if not isinstance(key, str) or not key:
        raise ConfigError(f"A column's key must be a non-empty string, got {key!r}.")
    return key


def checked_count(value: object, argument: str, column: str) -> int:
    """Return the value if it is an integer of at least 1, else raise a ConfigError."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ConfigError(f"Column {column!r}: {argument} must be at least 1, got {value!r}.")
    return int(value)


def checked_category_dtype(dtype: object, column: str) -> str:
    """Return ``STRING`` or ``INT64`` for any name or class of a string or integer dtype.

    Raises:
        ConfigError: if it is neither.
    """
    if dtype in (STRING, str, bytes):
        return STRING
    try:
        kind = np.dtype(dtype).kind  # type: ignore[call-overload]
    except TypeError:
        kind = ""
    if kind in ("S", "U"):
        return STRING
    if kind in ("i", "u"):
        return INT64
    raise ConfigError(f"Column {column!r}: dtype must be string or integer, got {dtype!r}.")
