"""Feature columns, under the names of ``tf.feature_column``: how raw features enter a model.

A column describes; ``input_layer`` and ``linear_model`` compute, inside a model_fn.
"""

from psys.feature_column.categorical import (
    categorical_column_with_hash_bucket,
    categorical_column_with_identity,
    categorical_column_with_vocabulary_list,
)
from psys.feature_column.column import CategoricalColumn, DenseColumn, FeatureColumn
from psys.feature_column.crossed import crossed_column
from psys.feature_column.embedding import embedding_column, indicator_column
from psys.feature_column.input_layer import input_layer
from psys.feature_column.linear_model import linear_model
from psys.feature_column.numeric import bucketized_column, numeric_column
from psys.feature_column.sparse_ids import SparseFeature, SparseIds
from psys.names import missing_in as _missing_in

__getattr__ = _missing_in(__name__)

__all__ = [
    "CategoricalColumn",
    "DenseColumn",
    "FeatureColumn",
    "SparseFeature",
    "SparseIds",
    "bucketized_column",
    "categorical_column_with_hash_bucket",
    "categorical_column_with_identity",
    "categorical_column_with_vocabulary_list",
    "crossed_column",
    "embedding_column",
    "indicator_column",
    "input_layer",
    "linear_model",
    "numeric_column",
]
