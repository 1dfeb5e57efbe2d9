from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from psys.arrays import IndexedSlices
from psys.compute.variables import BuildStore, InputFeatures, ReadStore, TrainStore
from psys.errors import ConfigError
from psys.feature_column import (
    bucketized_column,
    categorical_column_with_identity,
    crossed_column,
    embedding_column,
    indicator_column,
    linear_model,
    numeric_column,
)
from psys.initializers import Constant

A = categorical_column_with_identity("a", 3)


def test_names_shapes_and_zeros() -> None:
    columns = [
        A,
        numeric_column("x", shape=2),
        bucketized_column(numeric_column("p"), [0, 1]),
        indicator_column(A),
        embedding_column(A, 4),
        crossed_column(["a", "b"], 50),
    ]
    features = {
        "a": np.array([0, 2]),
        "b": np.array([1, 1]),
        "p": np.array([0.5, 2]),
        "x": np.ones((2, 2)),
    }
    store = BuildStore(seed=1)
    with store:
        output = linear_model(InputFeatures(features), columns, units=3)
    assert output.tolist() == [[0, 0, 0], [0, 0, 0]]
    found = {name: (spec.shape, spec.sparse) for name, spec in store.specs.items()}
    assert found == {
        "linear_model/a/weights": ((3, 3), True),
        "linear_model/a_X_b/weights": ((50, 3), True),
        "linear_model/a_embedding/embedding_weights": ((3, 4), True),
        "linear_model/a_embedding/weights": ((4, 3), False),
        "linear_model/a_indicator/weights": ((3, 3), False),
        "linear_model/p_bucketized/weights": ((3, 3), True),
        "linear_model/x/weights": ((2, 3), False),
        "linear_model/bias_weights": ((3,), False),
    }
    zero = {n for n, spec in store.specs.items() if spec.initializer == Constant(0.0)}
    assert set(found) - zero == {"linear_model/a_embedding/embedding_weights"}
    assert store.trainable == set(found)


VARIABLES = {
    "linear_model/a/weights": np.array([[1], [10], [100]], np.float32),
    "linear_model/x/weights": np.array([[2], [3]], np.float32),
    "linear_model/bias_weights": np.array([0.5], np.float32),
}
FEATURES = {"a": np.array([[0, 1], [2, -1]]), "x": np.array([[1, 1], [0, 2]])}
COLUMNS = [numeric_column("x", shape=2), A]


@pytest.mark.parametrize(
    ("combiner", "expected"),
    [("sum", [16.5, 106.5]), ("mean", [11.0, 106.5]), ("sqrtn", [5.5 + 11 / 2**0.5, 106.5])],
)
def test_weights_times_features(combiner: str, expected: list[float]) -> None:
    with ReadStore(VARIABLES.__getitem__, lambda name, ids: VARIABLES[name][ids]):
        output = linear_model(FEATURES, COLUMNS, sparse_combiner=combiner)
    assert output.dtype == np.float32
    np.testing.assert_allclose(output[:, 0], expected, rtol=1e-6)


def test_gradients() -> None:
    batch = InputFeatures(FEATURES)
    build = BuildStore(seed=1)
    with build:
        linear_model(batch, COLUMNS)
    train = TrainStore(build.specs, VARIABLES, {}, lambda name, ids: VARIABLES[name][ids])
    with train:
        loss = (linear_model(batch, COLUMNS) * np.array([[1.0], [4.0]], np.float32)).sum()
    gradients = train.gradients(loss)
    table: Any = gradients["linear_model/a/weights"]
    assert isinstance(table, IndexedSlices)
    assert table.indices.tolist() == [0, 1, 2]
    assert table.values.tolist() == [[1], [1], [4]]
    dense: Any = gradients["linear_model/x/weights"]
    assert dense.tolist() == [[1], [9]]
    bias: Any = gradients["linear_model/bias_weights"]
    assert bias.tolist() == [5]
    assert {dense.dtype, bias.dtype, table.values.dtype} == {np.dtype("float32")}


def test_frozen_weights() -> None:
    store = BuildStore(seed=1)
    with store:
        linear_model(FEATURES, COLUMNS, trainable=False)
    assert store.trainable == set()


@pytest.mark.parametrize("units", [0, -1, 2.0])
def test_units_must_be_a_positive_integer(units: Any) -> None:
    with BuildStore(seed=1), pytest.raises(ConfigError, match="units must be at least 1"):
        linear_model(FEATURES, COLUMNS, units=units)
