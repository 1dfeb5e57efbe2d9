"""A linear model over columns: weights times features, summed over columns, plus a bias."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from psys.compute.primitives import add_bias, added_up, combination, dense
from psys.compute.store import current_store
from psys.compute.variables import get_variable, lookup_part
from psys.errors import ModelError
from psys.feature_column.column import (
    CategoricalColumn,
    DenseColumn,
    FeatureColumn,
    checked_count,
)
from psys.feature_column.layer import columns_of_layer
from psys.initializers import Constant

_ZEROS = Constant(0.0)


def linear_model(
    features: Mapping[str, Any],
    feature_columns: FeatureColumn | Iterable[FeatureColumn],
    units: int = 1,
    sparse_combiner: str = "sum",
    *,
    trainable: bool = True,
) -> Any:
    """Return ``bias + Σ columns weights · x``, ``[batch, units]``; all weights start at zero.

    The variables are ``linear_model/<column>/weights`` (a table ``[num_buckets, units]`` of a
    categorical column, an array ``[width, units]`` of a dense one) and
    ``linear_model/bias_weights``.

    Args:
        features: raw features by key.
        feature_columns: categorical and dense columns, in any order; an iterable or one alone.
        units: the number of outputs.
        sparse_combiner: how the weights of one row's ids become one: "sum", "mean", "sqrtn".
        trainable: False freezes the weights.

    Raises:
        ModelError: if two columns have one name, there is none, they read batches of
            different sizes, or a feature does not fit its column.
        ConfigError: if units is less than 1.
    """
    units = checked_count(units, "units", "linear_model")

    def give(column: FeatureColumn) -> Any:
        return _weighted(features, column, units, sparse_combiner, trainable)

    with current_store().scope("linear_model"):
        options = units, sparse_combiner, trainable
        weighted = added_up(
            columns_of_layer(features, feature_columns, give, _is_categorical, options)
        )
        bias = get_variable("bias_weights", (units,), initializer=_ZEROS, trainable=trainable)
    return add_bias(weighted, bias)


def _is_categorical(column: FeatureColumn) -> bool:
    return isinstance(column, CategoricalColumn) and column.keeps_ids


def _weighted(
    features: Mapping[str, Any],
    column: FeatureColumn,
    units: int,
    sparse_combiner: str,
    trainable: bool,
) -> Any:
    """Return one column's part, an array ``[batch, units]`` or a ``Combination``."""
    if isinstance(column, CategoricalColumn):
        # First, since a bucketized column is both: one row of weights beats a one-hot product.
        ids = column.transform(features)
        rows, inverse = lookup_part(
            "weights",
            (column.num_buckets, units),
            ids.ids,
            initializer=_ZEROS,
            trainable=trainable,
            column=column,
            features=features,
        )
        return combination(
            rows, inverse, ids.segments, ids.weights, ids.batch, sparse_combiner, ids.one_each
        )
    if isinstance(column, DenseColumn):
        x = column.dense(features, trainable=trainable)
        weights = get_variable(
            "weights", (column.width, units), initializer=_ZEROS, trainable=trainable
        )
        return dense(x, weights)
    raise ModelError(f"linear_model takes categorical and dense columns, got {column.name!r}.")
