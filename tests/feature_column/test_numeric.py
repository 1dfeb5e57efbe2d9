from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psys.errors import ConfigError, ModelError
from psys.feature_column import SparseFeature, bucketized_column, numeric_column


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int8, np.uint32, bool, object])
def test_numbers_of_any_dtype_become_float32(dtype: Any) -> None:
    dense = numeric_column("x").dense({"x": np.array([0, 1], dtype)})
    assert dense.dtype == np.float32
    assert dense.tolist() == [[0], [1]]


def test_a_row_may_have_a_shape() -> None:
    column = numeric_column("x", shape=(2, 3))
    assert column.width == 6
    dense = column.dense({"x": np.arange(12).reshape(2, 2, 3)})
    assert dense.tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]


@pytest.mark.parametrize(
    ("shape", "given_shape"), [((1,), (4, 2)), ((2,), (4,)), ((2,), (4, 3)), ((1,), ())]
)
def test_another_shape_is_an_error(shape: tuple[int, ...], given_shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match=r"Column 'x': feature 'x' must be \[batch, .*got shape"):
        numeric_column("x", shape).dense({"x": np.zeros(given_shape)})


def test_the_normalizer_sees_what_was_fed() -> None:
    column = numeric_column("x", normalizer_fn=lambda x: x / np.int64(4))
    assert column.dense({"x": np.array([1, 2])}).tolist() == [[0.25], [0.5]]


def test_strings_are_an_error() -> None:
    with pytest.raises(ModelError, match="Column 'x' takes numbers, but feature 'x' has dtype <U1"):
        numeric_column("x").dense({"x": np.array(["1"])})


def test_a_sparse_feature_is_an_error() -> None:
    with pytest.raises(ModelError, match="Column 'x' takes a dense feature"):
        numeric_column("x").dense({"x": SparseFeature(np.array([1.0]), np.array([0]), 1)})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"key": 5}, "key must be a non-empty string, got 5"),
        ({"key": "x", "shape": (2, 0)}, "every size in shape must be at least 1, got 0"),
        ({"key": "x", "shape": (1.5,)}, "every size in shape must be at least 1, got 1.5"),
        ({"key": "x", "dtype": "U"}, "dtype must be integer or float"),
        ({"key": "x", "normalizer_fn": 3}, "normalizer_fn must be callable, got 3"),
        ({"key": "x", "shape": 2, "default_value": [1.0]}, "must be one number or 2 of them"),
    ],
)
def test_arguments_of_a_numeric_column(arguments: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        numeric_column(**arguments)


@pytest.mark.parametrize(
    ("boundaries", "message"),
    [
        ([], "strictly increasing and not empty"),
        ([1, 1], "strictly increasing"),
        ([2, 1], "strictly increasing"),
        ([0, float("nan")], "strictly increasing"),
        (5, "must be a list of numbers, got 5"),
    ],
)
def test_boundaries(boundaries: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        bucketized_column(numeric_column("x"), boundaries)


def test_the_source_of_buckets() -> None:
    with pytest.raises(ConfigError, match="must have one dimension"):
        bucketized_column(numeric_column("x", shape=(2, 2)), [0])
    with pytest.raises(ConfigError, match="must be a numeric_column"):
        bucketized_column("x", [0])  # type: ignore[arg-type]


def test_boundaries_are_float32_like_the_numbers() -> None:
    column = bucketized_column(numeric_column("x"), [0.1, 0.7])
    assert column.transform({"x": np.array([0.1, 0.7])}).ids.tolist() == [1, 2]


@given(
    st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=6, unique=True).map(sorted),
    st.lists(st.tuples(*[st.floats(-12, 12, width=32)] * 3), min_size=1, max_size=5),
)
def test_one_hot_and_ids_count_boundaries_passed(
    boundaries: list[float], rows: list[tuple[float, ...]]
) -> None:
    column = bucketized_column(numeric_column("x", shape=3), boundaries)
    per_element = len(boundaries) + 1
    expected = [
        [sum(b <= x for b in boundaries) + per_element * i for i, x in enumerate(row)]
        for row in rows
    ]
    features = {"x": np.array(rows)}
    ids = column.transform(features)
    assert ids.ids.reshape(-1, 3).tolist() == expected
    assert ids.segments.tolist() == [row for row in range(len(rows)) for _ in range(3)]
    dense = column.dense(features)
    assert dense.shape == (len(rows), column.width)
    assert [np.flatnonzero(row).tolist() for row in dense] == expected


def test_columns_are_values() -> None:
    one, other = (bucketized_column(numeric_column("x"), [0, 1]) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    assert one != bucketized_column(numeric_column("x"), [0, 2])
