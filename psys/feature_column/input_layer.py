"""The input of a network: dense columns side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from psys.compute.primitives import side_by_side
from psys.compute.store import current_store
from psys.errors import ModelError
from psys.feature_column.column import DenseColumn, FeatureColumn
from psys.feature_column.embedding import EmbeddingColumn
from psys.feature_column.layer import columns_of_layer
from psys.feature_column.numeric import NumericColumn


def input_layer(
    features: Mapping[str, Any],
    feature_columns: FeatureColumn | Iterable[FeatureColumn],
    *,
    trainable: bool = True,
) -> Any:
    """Return the columns' numbers side by side, sorted by name, ``[batch, sum of widths]``.

    Embedding tables are the variables ``input_layer/<column>/embedding_weights``.

    Args:
        features: raw features by key.
        feature_columns: dense columns, in any order; an iterable or one alone.
        trainable: False freezes the embedding tables.

    Raises:
        ModelError: if a column is not dense, two have one name, there is none, they read
            batches of different sizes, or a feature does not fit its column.
    """

    def give(column: FeatureColumn) -> Any:
        if not isinstance(column, DenseColumn):
            raise ModelError(
                f"input_layer takes dense columns, but {column.name!r} is a "
                f"{type(column).__name__}; wrap a categorical column in embedding_column or "
                "indicator_column."
            )
        return column.part(features, trainable=trainable)

    with current_store().scope("input_layer"):
        return side_by_side(
            columns_of_layer(
                features, feature_columns, give, _is_embedding, (trainable,), _key_of_numbers
            )
        )


def _key_of_numbers(column: FeatureColumn) -> str | None:
    plain = type(column) is NumericColumn and column.normalizer_fn is None
    return column.keys[0] if plain else None


def _is_embedding(column: FeatureColumn) -> bool:
    # What a subclass of somebody's does in its `part` is not known.
    return type(column) is EmbeddingColumn and column.categorical_column.keeps_ids
