"""Dense columns over categorical ones: a learned vector for each id, or counts of ids.

An embedding's table belongs to the running model; of it, a batch only ever sees its own rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import autograd.numpy as anp
import numpy as np

from psys.arrays import Array
from psys.compute.layer_parts import one_by_one
from psys.compute.primitives import Combination, combination, side_by_side
from psys.compute.stack_rows import TableRows
from psys.compute.variables import lookup, lookup_part
from psys.errors import ConfigError
from psys.feature_column.column import CategoricalColumn, DenseColumn, checked_count
from psys.initializers import Initializer, TruncatedNormal

COMBINERS = ("mean", "sqrtn", "sum")


@dataclass(frozen=True)
class EmbeddingColumn(DenseColumn):
    """A learned vector for each id; see ``embedding_column``."""

    categorical_column: CategoricalColumn
    dimension: int
    combiner: str
    initializer: Initializer
    max_norm: float | None
    trainable: bool

    @property
    def name(self) -> str:
        """``<categorical>_embedding``."""
        return f"{self.categorical_column.name}_embedding"

    @property
    def keys(self) -> tuple[str, ...]:
        """The raw features of the categorical column."""
        return self.categorical_column.keys

    @property
    def width(self) -> int:
        """The dimension."""
        return self.dimension

    def dense(self, features: Mapping[str, Any], *, trainable: bool = True) -> Any:
        """Return each row's combined vector, ``[batch, dimension]``; zeros if it has no id.

        The table is the variable ``embedding_weights`` in the current scope.
        """
        return side_by_side(one_by_one([self.part(features, trainable=trainable)]))

    def part(self, features: Mapping[str, Any], *, trainable: bool = True) -> Combination:
        """Return the rows of ``dense``, and how they become it."""
        ids = self.categorical_column.transform(features)
        arguments: dict[str, Any] = {
            "initializer": self.initializer,
            "trainable": trainable and self.trainable,
            "column": self.categorical_column,
            "features": features,
        }
        size = (self.categorical_column.num_buckets, self.dimension)
        rows: Array | TableRows
        if self.max_norm is None:
            rows, inverse = lookup_part("embedding_weights", size, ids.ids, **arguments)
        else:
            rows, inverse = lookup("embedding_weights", size, ids.ids, **arguments)
            rows = _clip_rows(rows, self.max_norm)
        return combination(
            rows,
            inverse,
            ids.segments,
            ids.weights,
            ids.batch,
            self.combiner,
            ids.one_each,
        )


def _clip_rows(rows: Any, max_norm: float) -> Any:
    """Return each row scaled down to an L2 norm of ``max_norm``, if it is longer."""
    limit = np.float32(max_norm)
    squares = anp.sum(rows * rows, axis=1, keepdims=True)
    # Never the root of zero, whose derivative is infinite.
    return rows * (limit / anp.sqrt(anp.maximum(squares, limit * limit)))


@dataclass(frozen=True)
class IndicatorColumn(DenseColumn):
    """How often each id occurs; see ``indicator_column``."""

    categorical_column: CategoricalColumn

    @property
    def name(self) -> str:
        """``<categorical>_indicator``."""
        return f"{self.categorical_column.name}_indicator"

    @property
    def keys(self) -> tuple[str, ...]:
        """The raw features of the categorical column."""
        return self.categorical_column.keys

    @property
    def width(self) -> int:
        """The number of ids."""
        return self.categorical_column.num_buckets

    def dense(self, features: Mapping[str, Any], *, trainable: bool = True) -> Array:
        """Return the count (or sum of weights) of each id, float32 ``[batch, num_buckets]``."""
        ids = self.categorical_column.transform(features)
        counts = np.zeros(ids.batch * self.width, np.float32)
        weights = np.float32(1.0) if ids.weights is None else ids.weights
        np.add.at(counts, ids.segments * self.width + ids.ids, weights)
        return counts.reshape(ids.batch, self.width)


def embedding_column(
    categorical_column: CategoricalColumn,
    dimension: int,
    combiner: str = "mean",
    initializer: Initializer | None = None,
    ckpt_to_load_from: str | None = None,
    tensor_name_in_ckpt: str | None = None,
    max_norm: float | None = None,
    trainable: bool = True,
    use_safe_embedding_lookup: bool = True,  # noqa: ARG001 - lookups here are always safe
) -> EmbeddingColumn:
    """Describe a learned vector for each id of a categorical column.

    Args:
        categorical_column: where ids come from.
        dimension: the size of a vector.
        combiner: how a row's vectors become one: "mean", "sum", or "sqrtn" (the sum divided by
            the root of the sum of squared weights).
        initializer: a ``psys.initializers.Initializer``; None is truncated normal with a
            standard deviation of ``1 / sqrt(dimension)``.
        ckpt_to_load_from: not supported yet; use warm start.
        tensor_name_in_ckpt: likewise.
        max_norm: vectors longer than this (L2) are scaled down to it before they are combined.
        trainable: whether gradients may change the table.
        use_safe_embedding_lookup: accepted for TF's sake: a row without ids always gives zeros.

    Raises:
        ConfigError: if an argument is none of the above.
    """
    if not isinstance(categorical_column, CategoricalColumn):
        raise ConfigError(
            f"embedding_column takes a categorical column, got {categorical_column!r}."
        )
    name = f"{categorical_column.name}_embedding"
    size = checked_count(dimension, "dimension", name)
    if combiner not in COMBINERS:
        raise ConfigError(f"Column {name!r}: combiner must be in {COMBINERS}, got {combiner!r}.")
    if initializer is not None and not isinstance(initializer, Initializer):
        raise ConfigError(
            f"Column {name!r}: initializer must be a psys.initializers.Initializer, "
            f"got {initializer!r}."
        )
    if (ckpt_to_load_from is None) != (tensor_name_in_ckpt is None):
        raise ConfigError(
            f"Column {name!r}: give both ckpt_to_load_from and tensor_name_in_ckpt, or neither."
        )
    if ckpt_to_load_from is not None:
        raise ConfigError(
            f"Column {name!r}: ckpt_to_load_from is not supported yet; give the Estimator a "
            "warm_start_from instead."
        )
    if max_norm is not None and not max_norm > 0:
        raise ConfigError(f"Column {name!r}: max_norm must be positive, got {max_norm!r}.")
    if initializer is None:
        initializer = TruncatedNormal(0.0, 1 / math.sqrt(size))
    return EmbeddingColumn(categorical_column, size, combiner, initializer, max_norm, trainable)


def indicator_column(categorical_column: CategoricalColumn) -> IndicatorColumn:
    """Describe the count of each id of a categorical column in each row ("multi-hot").

    Raises:
        ConfigError: if it is given anything but a categorical column.
    """
    if not isinstance(categorical_column, CategoricalColumn):
        raise ConfigError(
            f"indicator_column takes a categorical column, got {categorical_column!r}."
        )
    return IndicatorColumn(categorical_column)
