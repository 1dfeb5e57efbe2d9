from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from psys.compute.variables import BuildStore, InputFeatures, variable_scope
from psys.errors import ModelError
from psys.feature_column import (
    DenseColumn,
    bucketized_column,
    categorical_column_with_identity,
    embedding_column,
    indicator_column,
    input_layer,
    linear_model,
    numeric_column,
)
from psys.initializers import Constant

A = categorical_column_with_identity("a", 3)
FEATURES = {"a": np.array([0, 2]), "x": np.array([5.0, -5.0])}


def test_columns_side_by_side_and_the_names_of_their_variables() -> None:
    columns = [
        numeric_column("x"),
        bucketized_column(numeric_column("x"), [0]),
        indicator_column(A),
        embedding_column(A, 2, initializer=Constant(9.0)),
    ]
    store = BuildStore(seed=1)
    with store, variable_scope("dnn/input_from_feature_columns"):
        output = input_layer(InputFeatures(FEATURES), iter(columns))
    assert output.dtype == np.float32
    assert output.tolist() == [[9, 9, 1, 0, 0, 5, 0, 1], [9, 9, 0, 0, 1, -5, 1, 0]]
    name = "dnn/input_from_feature_columns/input_layer/a_embedding/embedding_weights"
    assert list(store.specs) == [name]
    assert store.trainable == {name}
    assert [prefetch.table for prefetch in store.prefetches] == [name]


def test_frozen_tables() -> None:
    store = BuildStore(seed=1)
    with store:
        input_layer(FEATURES, [embedding_column(A, 2)], trainable=False)
    assert store.trainable == set()
    assert list(store.specs) == ["input_layer/a_embedding/embedding_weights"]


def test_one_column_alone() -> None:
    with BuildStore(seed=1):
        assert input_layer(FEATURES, numeric_column("x")).tolist() == [[5], [-5]]


@pytest.mark.parametrize("layer", [input_layer, linear_model])
@pytest.mark.parametrize(
    ("features", "columns", "message"),
    [
        (FEATURES, [], "feature_columns must not be empty"),
        (FEATURES, {"x": numeric_column("x")}, "list of columns, got a dictionary"),
        (FEATURES, ["x"], "must hold feature columns only, got 'x'"),
        (FEATURES, [numeric_column("x"), numeric_column("x")], "Duplicate .* name 'x'"),
        (np.zeros(3), [numeric_column("x")], "should be a dictionary .* got ndarray"),
        ({"y": np.zeros(3)}, [numeric_column("x")], r"'x' is not in .* \(has: y\); column 'x'"),
        (
            {"x": np.zeros(3), "y": np.zeros(2)},
            [numeric_column("x"), numeric_column("y")],
            "'x' and 'y' read batches of different sizes: 3 and 2 rows",
        ),
    ],
)
def test_arguments_of_a_layer(layer: Any, features: Any, columns: Any, message: str) -> None:
    with BuildStore(seed=1), pytest.raises(ModelError, match=message):
        layer(features, columns)


def test_categorical_columns_must_be_wrapped() -> None:
    with (
        BuildStore(seed=1),
        pytest.raises(ModelError, match="wrap a categorical column in embedding_column or"),
    ):
        input_layer(FEATURES, [A])


def test_outside_a_model_fn_it_says_so() -> None:
    with pytest.raises(ModelError, match="inside a model_fn"):
        input_layer(FEATURES, [numeric_column("x")])


def test_the_width_is_what_dense_returns() -> None:
    columns: list[DenseColumn] = [
        numeric_column("x"),
        indicator_column(A),
        bucketized_column(numeric_column("x"), [0, 1]),
        embedding_column(A, 5),
    ]
    with BuildStore(seed=1):
        for column in columns:
            assert input_layer(FEATURES, [column]).shape == (2, column.width)
