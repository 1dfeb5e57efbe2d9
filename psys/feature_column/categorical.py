"""Categorical columns over one feature: by hash, by vocabulary, or by the integer itself.

In an array, ``''`` and ``-1`` mean "no value" and give no id; a SparseFeature has no such
marks, as in TF.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from psys import kernels
from psys.arrays import Array
from psys.errors import ConfigError, ModelError
from psys.feature_column.byte_strings import decimal, encode_objects
from psys.feature_column.column import (
    CategoricalColumn,
    checked_category_dtype,
    checked_count,
    checked_key,
    hashed_once,
)
from psys.feature_column.feature_values import INT64, STRING, categories
from psys.feature_column.sparse_ids import SparseIds


def hash_buckets(values: Array, num_buckets: int) -> Array:
    """Return ``Fingerprint64 mod num_buckets`` of bytes, or of integers' decimal digits."""
    strings = values if values.dtype.kind == "S" else decimal(values)
    return kernels.hash_buckets(strings, num_buckets)[0]


@dataclass(frozen=True)
class HashedCategoricalColumn(CategoricalColumn):
    """Ids by hash; see ``categorical_column_with_hash_bucket``."""

    key: str
    hash_bucket_size: int
    dtype: str

    __hash__ = hashed_once

    @property
    def name(self) -> str:
        """The key."""
        return self.key

    @property
    def keys(self) -> tuple[str, ...]:
        """The key alone."""
        return (self.key,)

    @property
    def num_buckets(self) -> int:
        """The number of hash buckets."""
        return self.hash_bucket_size

    def unpruned_ids(self, features: Mapping[str, Any]) -> SparseIds:
        """Return the bucket of each value."""
        given = categories(features, self.key, self.name, self.dtype)
        if given.values.dtype.kind == "S":
            ids, empty = kernels.hash_buckets(given.values, self.hash_bucket_size)
            if not (empty and given.dense):
                return SparseIds(ids, given.segments, None, given.batch)
        given = given.present()
        ids = hash_buckets(given.values, self.hash_bucket_size)
        return SparseIds(ids, given.segments, None, given.batch)

    def _pruned_ids(self, features: Mapping[str, Any]) -> SparseIds:
        return self.unpruned_ids(features)  # no bucket is negative


@dataclass(frozen=True)
class VocabularyListCategoricalColumn(CategoricalColumn):
    """Ids by place in a list; see ``categorical_column_with_vocabulary_list``."""

    key: str
    vocabulary_list: tuple[Any, ...]
    dtype: str
    default_value: int
    num_oov_buckets: int

    # Hashing every word on every look into a cache would cost more than the lookup.
    def __hash__(self) -> int:
        return hash((self.key, len(self.vocabulary_list), self.default_value))

    @property
    def name(self) -> str:
        """The key."""
        return self.key

    @property
    def keys(self) -> tuple[str, ...]:
        """The key alone."""
        return (self.key,)

    @property
    def num_buckets(self) -> int:
        """The words, and the buckets for words not in the list."""
        return len(self.vocabulary_list) + self.num_oov_buckets

    @cached_property
    def _sorted_words(self) -> tuple[Array, Array]:
        """The words in sorted order, and the place of each in the list."""
        words = _as_array(self.vocabulary_list, self.dtype)
        order = np.argsort(words, kind="stable")
        return words[order], order

    def unpruned_ids(self, features: Mapping[str, Any]) -> SparseIds:
        """Return the place of each value; ``default_value`` or a bucket for other values."""
        given = categories(features, self.key, self.name, self.dtype).present()
        words, order = self._sorted_words
        # In the words' own width, so that the table is not converted for each batch; a longer
        # value is cut here, and found unequal below.
        narrow = given.values.astype(words.dtype, copy=False)
        at = np.minimum(np.searchsorted(words, narrow), len(words) - 1)
        known = words[at] == given.values
        ids = np.where(known, order[at], self.default_value)
        if self.num_oov_buckets and not known.all():
            buckets = hash_buckets(given.values[~known], self.num_oov_buckets)
            ids[~known] = buckets + len(self.vocabulary_list)
        return SparseIds(ids, given.segments, None, given.batch)


@dataclass(frozen=True)
class IdentityCategoricalColumn(CategoricalColumn):
    """Ids as they are; see ``categorical_column_with_identity``."""

    key: str
    number_buckets: int
    default_value: int | None

    __hash__ = hashed_once

    @property
    def name(self) -> str:
        """The key."""
        return self.key

    @property
    def keys(self) -> tuple[str, ...]:
        """The key alone."""
        return (self.key,)

    @property
    def num_buckets(self) -> int:
        """The number of ids."""
        return self.number_buckets

    def unpruned_ids(self, features: Mapping[str, Any]) -> SparseIds:
        """Return each value, or ``default_value`` for one that is out of range."""
        given = categories(features, self.key, self.name, INT64).present()
        ids = given.values
        outside = (ids < 0) | (ids >= self.number_buckets)
        if outside.any():
            if self.default_value is None:
                first = int(np.argmax(outside))
                raise ModelError(
                    f"Column {self.name!r} takes integers in [0, {self.number_buckets}), but "
                    f"feature {self.key!r} has {ids[first]} in row {given.segments[first]} of the "
                    "batch; give the column a default_value for such."
                )
            ids = np.where(outside, self.default_value, ids)
        return SparseIds(ids, given.segments, None, given.batch)


def categorical_column_with_hash_bucket(
    key: str, hash_bucket_size: int, dtype: Any = STRING
) -> HashedCategoricalColumn:
    """Describe a feature whose values become ids by ``Fingerprint64(value) mod size``.

    In an array ``""`` and -1 are no value: such a row has no id, as in TF's dense features.

    Args:
        key: the feature.
        hash_bucket_size: the number of ids.
        dtype: string or an integer dtype; an integer is hashed as its decimal digits.

    Raises:
        ConfigError: if the key is not a string, the size is less than 1, or the dtype is
            neither string nor integer.
    """
    key = checked_key(key)
    size = checked_count(hash_bucket_size, "hash_bucket_size", key)
    return HashedCategoricalColumn(key, size, checked_category_dtype(dtype, key))


def categorical_column_with_vocabulary_list(
    key: str,
    vocabulary_list: Iterable[Any],
    dtype: Any = None,
    default_value: int = -1,
    num_oov_buckets: int = 0,
) -> VocabularyListCategoricalColumn:
    """Describe a feature whose values become ids by their place in a list.

    Args:
        key: the feature.
        vocabulary_list: strings, or integers; all different.
        dtype: string or an integer dtype; None takes that of the list.
        default_value: the id of a value not in the list; −1 for none.
        num_oov_buckets: instead of one id, hash values not in the list into this many more.

    Raises:
        ConfigError: if the list is empty, has duplicates or mixed or other types, does not
            fit the dtype; or if default_value and num_oov_buckets are both given or out of range.
    """
    key = checked_key(key)
    if isinstance(vocabulary_list, (str, bytes)):
        raise ConfigError(f"Column {key!r}: vocabulary_list must be a list, got a string.")
    words = tuple(
        np.asarray(vocabulary_list).tolist() if _is_array(vocabulary_list) else vocabulary_list
    )
    if not words:
        raise ConfigError(f"Column {key!r}: vocabulary_list must not be empty.")
    found = _words_dtype(words, key)
    wanted = found if dtype is None else checked_category_dtype(dtype, key)
    if wanted != found:
        raise ConfigError(f"Column {key!r}: dtype is {wanted}, but vocabulary_list holds {found}.")
    if len(np.unique(_as_array(words, wanted))) != len(words):
        raise ConfigError(f"Column {key!r}: vocabulary_list has duplicates: {_duplicates(words)}.")
    if num_oov_buckets < 0:
        raise ConfigError(f"Column {key!r}: num_oov_buckets must be ≥ 0, got {num_oov_buckets}.")
    if num_oov_buckets and default_value != -1:
        raise ConfigError(
            f"Column {key!r}: give default_value ({default_value}) or num_oov_buckets "
            f"({num_oov_buckets}), not both."
        )
    if not -1 <= default_value < len(words):
        raise ConfigError(
            f"Column {key!r}: default_value must be -1 or in [0, {len(words)}), "
            f"got {default_value}."
        )
    return VocabularyListCategoricalColumn(key, words, wanted, default_value, num_oov_buckets)


def categorical_column_with_identity(
    key: str, num_buckets: int, default_value: int | None = None
) -> IdentityCategoricalColumn:
    """Describe an integer feature whose values are ids already.

    Args:
        key: the feature.
        num_buckets: ids are within ``[0, num_buckets)``.
        default_value: the id of a value that is not; None makes such a value an error (what
            TF 1 does; −1 in an array still means "no value").

    Raises:
        ConfigError: if the key is not a string, num_buckets is less than 1, or default_value
            is out of range.
    """
    key = checked_key(key)
    count = checked_count(num_buckets, "num_buckets", key)
    if default_value is not None and not 0 <= default_value < count:
        raise ConfigError(
            f"Column {key!r}: default_value must be in [0, {count}), got {default_value}."
        )
    return IdentityCategoricalColumn(key, count, default_value)


def _is_array(values: object) -> bool:
    return hasattr(values, "__array__")


def _words_dtype(words: tuple[Any, ...], key: str) -> str:
    kinds = set(map(type, words))
    if all(issubclass(kind, (str, bytes)) for kind in kinds):
        return STRING
    if all(issubclass(kind, (int, np.integer)) and kind is not bool for kind in kinds):
        return INT64
    raise ConfigError(
        f"Column {key!r}: vocabulary_list must hold strings only or integers only, "
        f"got {sorted(kind.__name__ for kind in kinds)}."
    )


def _as_array(words: tuple[Any, ...], dtype: str) -> npt.NDArray[Any]:
    return encode_objects(list(words)) if dtype == STRING else np.array(words, np.int64)


def _duplicates(words: tuple[Any, ...]) -> list[Any]:
    return sorted(word for word, count in Counter(words).items() if count > 1)
