from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from psys.arrays import Array, IndexedSlices
from psys.compute.variables import BuildStore, InputFeatures, ReadStore, TrainStore
from psys.errors import ConfigError
from psys.feature_column import (
    categorical_column_with_hash_bucket,
    categorical_column_with_identity,
    embedding_column,
    indicator_column,
    numeric_column,
)
from psys.initializers import Constant, TruncatedNormal

TABLE = np.array([[0, 0], [3, 4], [6, 8], [1, 1]], np.float32)
ITEM = categorical_column_with_identity("item", 4)


def training(column: Any, features: dict[str, Any]) -> tuple[Array, Any]:
    """Return the column's output in a training step over TABLE, and the gradient of its sum."""
    batch = InputFeatures(features)
    build = BuildStore(seed=1)
    with build:
        column.dense(batch)
    train = TrainStore(build.specs, {}, {}, lambda _name, ids: TABLE[ids])
    with train:
        output = column.dense(batch)
        loss = output.sum()
    return output._value, train.gradients(loss)["embedding_weights"]


def test_the_table_is_recorded_for_prefetching() -> None:
    column = embedding_column(ITEM, 2)
    store = BuildStore(seed=1)
    with store:
        column.dense(InputFeatures(item=np.array([1, 2])))
    spec = store.specs["embedding_weights"]
    assert spec.shape == (4, 2)
    assert spec.sparse
    assert spec.initializer == TruncatedNormal(0.0, 1 / 2**0.5)
    assert store.trainable == {"embedding_weights"}
    (prefetch,) = store.prefetches
    assert (prefetch.table, prefetch.column) == ("embedding_weights", ITEM)


def test_arguments_reach_the_table() -> None:
    store = BuildStore(seed=1)
    with store:
        column = embedding_column(ITEM, 3, initializer=Constant(7.0), trainable=False)
        assert column.dense({"item": np.array([1])}).tolist() == [[7, 7, 7]]
        embedding_column(categorical_column_with_identity("b", 4), 3).dense(
            {"b": np.array([1])}, trainable=False
        )
    assert store.trainable == set()


def test_gradients_are_of_the_rows_that_were_looked_up() -> None:
    column = embedding_column(ITEM, 2, combiner="mean")
    output, gradient = training(column, {"item": np.array([[1, 2], [3, -1], [3, 3]])})
    np.testing.assert_allclose(output, [[4.5, 6.0], [1.0, 1.0], [1.0, 1.0]])
    assert isinstance(gradient, IndexedSlices)
    assert gradient.indices.tolist() == [1, 2, 3]
    np.testing.assert_allclose(gradient.values, [[0.5, 0.5], [0.5, 0.5], [2.0, 2.0]])
    assert gradient.values.dtype == np.float32


def test_max_norm_clips_long_rows_and_their_gradient() -> None:
    # Row r over the norm m becomes m r / |r|; its derivative is m (1 - r rᵀ / |r|²) / |r|.
    column = embedding_column(ITEM, 2, combiner="sum", max_norm=5.0)
    output, gradient = training(column, {"item": np.array([0, 1, 2, 3])})
    np.testing.assert_allclose(output, [[0, 0], [3, 4], [3, 4], [1, 1]], rtol=1e-6)
    row = TABLE[2]
    jacobian = 5 / 10 * (np.eye(2) - np.outer(row, row) / 100)
    assert np.isfinite(gradient.values).all()
    assert gradient.values.dtype == np.float32
    np.testing.assert_allclose(gradient.values[[0, 3]], np.ones((2, 2)))
    np.testing.assert_allclose(gradient.values[2], jacobian.sum(axis=0), rtol=1e-5)


def test_a_batch_without_any_id_gives_zeros() -> None:
    column = embedding_column(categorical_column_with_hash_bucket("word", 4), 2)
    with ReadStore(lambda _name: TABLE, lambda _name, ids: TABLE[ids]):
        assert column.dense({"word": np.array(["", ""])}).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"categorical_column": numeric_column("x")}, "takes a categorical column"),
        ({"dimension": 0}, "dimension must be at least 1, got 0"),
        ({"combiner": "max"}, "combiner must be in .*, got 'max'"),
        ({"initializer": "zeros"}, "must be a psys.initializers.Initializer, got 'zeros'"),
        ({"ckpt_to_load_from": "a"}, "both ckpt_to_load_from and tensor_name_in_ckpt, or neither"),
        ({"ckpt_to_load_from": "a", "tensor_name_in_ckpt": "b"}, "not supported yet"),
        ({"max_norm": 0.0}, "max_norm must be positive, got 0.0"),
    ],
)
def test_arguments_of_an_embedding(arguments: dict[str, Any], message: str) -> None:
    given = {"categorical_column": ITEM, "dimension": 2, **arguments}
    with pytest.raises(ConfigError, match=message):
        embedding_column(**given)


def test_an_indicator_takes_a_categorical_column() -> None:
    with pytest.raises(ConfigError, match="takes a categorical column"):
        indicator_column(numeric_column("x"))  # type: ignore[arg-type]


def test_an_indicator_is_float32_and_has_a_row_for_each_example() -> None:
    dense = indicator_column(ITEM).dense({"item": np.array([-1, 3])})
    assert dense.dtype == np.float32
    assert dense.tolist() == [[0, 0, 0, 0], [0, 0, 0, 1]]
