"""Crossed columns: one id for each combination of the values of several features.

Combinations are formed by whole-array arithmetic, never row by row in Python. Hashes are
those of TF bit for bit, with its rule that what is fed as an array is hashed after
what is sparse (categorical columns and SparseFeatures).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from psys.arrays import Array
from psys.errors import ConfigError, ModelError
from psys.feature_column.categorical import HashedCategoricalColumn
from psys.feature_column.column import CategoricalColumn, checked_count, checked_key, hashed_once
from psys.feature_column.feature_values import categories
from psys.feature_column.sparse_ids import SparseIds, row_numbers
from psys.kernels import fingerprint64

Words = npt.NDArray[np.uint64]

DEFAULT_HASH_KEY = 0xDECAFCAFFE
_MULTIPLIER = np.uint64(0xC6A4A7935BD1E995)
_47 = np.uint64(47)


@dataclass(frozen=True, eq=False)
class _Component:
    """What one key contributes: ``words[i]`` (to be hashed) in row ``segments[i]``."""

    words: Words
    segments: Array
    batch: int
    dense: bool


@dataclass(frozen=True)
class CrossedColumn(CategoricalColumn):
    """Ids of combinations; see ``crossed_column``."""

    crossed_keys: tuple[str | CategoricalColumn, ...]
    hash_bucket_size: int
    hash_key: int

    __hash__ = hashed_once

    @cached_property
    def leaves(self) -> tuple[str | CategoricalColumn, ...]:
        """The keys in order, each nested cross replaced by its own."""
        found: list[str | CategoricalColumn] = []
        for key in self.crossed_keys:
            found += key.leaves if isinstance(key, CrossedColumn) else (key,)
        return tuple(found)

    @cached_property
    def _name(self) -> str:
        return "_X_".join(sorted(map(_leaf_name, self.leaves)))

    @property
    def name(self) -> str:
        """The names of the leaves, sorted, joined by ``_X_``: the order of keys does not show."""
        return self._name

    @cached_property
    def _keys(self) -> tuple[str, ...]:
        keys = [(leaf,) if isinstance(leaf, str) else leaf.keys for leaf in self.leaves]
        return tuple(sorted(set().union(*keys)))

    @property
    def keys(self) -> tuple[str, ...]:
        """Every raw feature that a leaf reads."""
        return self._keys

    @property
    def num_buckets(self) -> int:
        """The number of hash buckets."""
        return self.hash_bucket_size

    def unpruned_ids(self, features: Mapping[str, Any]) -> SparseIds:
        """Return the bucket of each combination of each row's values, the last key's fastest."""
        components = [self._component(features, leaf) for leaf in self.leaves]
        batch = components[0].batch
        for leaf, component in zip(self.leaves, components, strict=True):
            if component.batch != batch:
                raise ModelError(
                    f"Column {self.name!r}: {_leaf_name(self.leaves[0])!r} has {batch} rows, "
                    f"{_leaf_name(leaf)!r} has {component.batch}."
                )
        # False sorts before True, and sorting is stable: sparse ones first, in order of keys.
        components.sort(key=lambda component: component.dense)
        segments = row_numbers(batch)
        hashes = np.full(batch, self.hash_key, np.uint64)
        with np.errstate(over="ignore"):
            for component in components:
                hashes, segments = _cross(hashes, segments, component)
        ids = (hashes % np.uint64(self.hash_bucket_size)).astype(np.int64)
        return SparseIds(ids, segments, None, batch)

    def _component(self, features: Mapping[str, Any], leaf: str | CategoricalColumn) -> _Component:
        if isinstance(leaf, CategoricalColumn):
            ids = leaf.unpruned_ids(features)
            return _Component(ids.ids.view(np.uint64), ids.segments, ids.batch, dense=False)
        # With missing ones: TF hashes an empty string or a -1 of an array like any other.
        given = categories(features, leaf, self.name)
        if given.values.dtype.kind == "S":
            words = fingerprint64(given.values)
        else:
            words = given.values.view(np.uint64)
        return _Component(words, given.segments, given.batch, given.dense)


def _leaf_name(leaf: str | CategoricalColumn) -> str:
    return leaf if isinstance(leaf, str) else leaf.name


def _cross(hashes: Words, segments: Array, component: _Component) -> tuple[Words, Array]:
    """Return each hash combined with each of the component's values in the same row.

    Hashes ``[h, k]`` in rows ``[0, 1]``, values ``[a, b, c]`` in rows ``[0, 0, 1]`` give
    ``[ha, hb, kc]`` in rows ``[0, 0, 1]``.
    """
    words = component.words
    one_each = row_numbers(component.batch)
    if all(s is one_each or np.array_equal(s, one_each) for s in (segments, component.segments)):
        return _combine(hashes, words), segments
    counts = np.bincount(component.segments, minlength=component.batch)
    starts = np.cumsum(counts) - counts
    repeats = counts[segments]
    total = int(repeats.sum())
    place = np.arange(total) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    segments_out = np.repeat(segments, repeats)
    return _combine(np.repeat(hashes, repeats), words[starts[segments_out] + place]), segments_out


def _combine(hashes: Words, words: Words) -> Words:
    """Return TF's ``FingerprintCat64`` of each pair."""
    mixed = words * _MULTIPLIER
    mixed ^= mixed >> _47
    result = (hashes ^ _MULTIPLIER) ^ (mixed * _MULTIPLIER)
    result *= _MULTIPLIER
    result ^= result >> _47
    result *= _MULTIPLIER
    result ^= result >> _47
    return cast(Words, result)


def crossed_column(
    keys: Sequence[str | CategoricalColumn], hash_bucket_size: int, hash_key: int | None = None
) -> CrossedColumn:
    """Describe the combinations of values of several features, hashed into buckets.

    A row with values ``{a, b}`` and ``{c, d}`` gives the ids of ac, ad, bc and bd; a row where
    a sparse feature has no value gives none. An empty string or a −1 in an array is a value
    here. The order of keys changes the ids, but not the name.

    Args:
        keys: at least two: names of raw string or integer features, or categorical columns.
        hash_bucket_size: the number of ids.
        hash_key: the number the hash starts from; None is TF's 0xDECAFCAFFE.

    Raises:
        ConfigError: if there are fewer than two keys, one is neither a name nor a categorical
            column, one is a hashed column (give its key instead), or the size is less than 1.
    """
    if isinstance(keys, (str, bytes)) or not isinstance(keys, Sequence) or len(keys) < 2:
        raise ConfigError(f"keys must be a list of at least two, got {keys!r}.")
    for key in keys:
        if isinstance(key, HashedCategoricalColumn):
            raise ConfigError(
                "categorical_column_with_hash_bucket cannot be crossed, which would hash twice; "
                f"give its key {key.key!r} instead."
            )
        if not isinstance(key, CategoricalColumn):
            if not isinstance(key, str):
                raise ConfigError(f"keys must be strings or categorical columns, got {key!r}.")
            checked_key(key)
    size = checked_count(hash_bucket_size, "hash_bucket_size", "crossed_column")
    start = DEFAULT_HASH_KEY if hash_key is None else int(hash_key) % (1 << 64)
    return CrossedColumn(tuple(keys), size, start)
