from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psys.compute.variables import InputFeatures
from psys.errors import ConfigError, ModelError
from psys.feature_column import (
    SparseFeature,
    categorical_column_with_hash_bucket,
    categorical_column_with_identity,
    categorical_column_with_vocabulary_list,
)


@given(st.lists(st.text("abcé", max_size=4), unique=True, min_size=1), st.data())
def test_vocabulary_list_is_a_lookup_in_a_dict(words: list[str], data: st.DataObject) -> None:
    values = data.draw(st.lists(st.sampled_from([*words, "x", words[0] + "y"]), min_size=1))
    column = categorical_column_with_vocabulary_list("w", words)
    place = {word: number for number, word in enumerate(words) if word}
    found = column.transform({"w": np.array(values)})
    assert found.ids.tolist() == [place[value] for value in values if value in place]
    assert found.segments.tolist() == [row for row, value in enumerate(values) if value in place]


def test_a_value_longer_than_every_word_is_not_cut_to_one() -> None:
    column = categorical_column_with_vocabulary_list("w", ["ab", "c"])
    assert column.transform({"w": np.array(["abc", "ab", "c"])}).ids.tolist() == [0, 1]


@pytest.mark.parametrize(
    "vocabulary",
    [["b", "a"], ("b", b"a"), np.array(["b", "a"]), np.array(["b", "a"], object)],
    ids=["list", "mixed", "U", "object"],
)
def test_vocabularies_of_every_kind_of_string(vocabulary: Any) -> None:
    column = categorical_column_with_vocabulary_list("w", vocabulary)
    assert column.transform({"w": np.array([b"a", b"b"])}).ids.tolist() == [1, 0]


def test_vocabulary_of_integers() -> None:
    column = categorical_column_with_vocabulary_list("w", np.array([30, -20, 10], np.int32))
    found = column.transform({"w": np.array([[10, 30], [-20, 5]])})
    assert found.ids.tolist() == [2, 0, 1]
    assert found.segments.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"vocabulary_list": []}, "must not be empty"),
        ({"vocabulary_list": "abc"}, "must be a list, got a string"),
        ({"vocabulary_list": ["a", "b", "a"]}, r"has duplicates: \['a'\]"),
        ({"vocabulary_list": ["a", 1]}, r"strings only or integers only, got \['int', 'str'\]"),
        ({"vocabulary_list": [1.5]}, "strings only or integers only"),
        ({"vocabulary_list": ["a"], "dtype": int}, "dtype is int64, but vocabulary_list holds str"),
        ({"vocabulary_list": ["a"], "dtype": float}, "dtype must be string or integer"),
        ({"vocabulary_list": ["a"], "default_value": 0, "num_oov_buckets": 1}, "not both"),
        ({"vocabulary_list": ["a"], "num_oov_buckets": -1}, "must be ≥ 0, got -1"),
        ({"vocabulary_list": ["a"], "default_value": 1}, r"must be -1 or in \[0, 1\), got 1"),
    ],
)
def test_arguments_of_a_vocabulary(arguments: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        categorical_column_with_vocabulary_list("w", **arguments)


@pytest.mark.parametrize("dtype", ["string", str, bytes, np.str_, np.dtype("S5")])
def test_names_of_the_string_dtype(dtype: Any) -> None:
    column = categorical_column_with_hash_bucket("x", 10, dtype)
    assert column.transform({"x": np.array(["a"])}).ids.tolist() == [9]


@pytest.mark.parametrize("dtype", ["int64", int, np.int32, np.dtype("uint8")])
def test_names_of_the_integer_dtype(dtype: Any) -> None:
    column = categorical_column_with_hash_bucket("x", 10, dtype)
    assert column.transform({"x": np.array([42], np.int16)}).ids.tolist() == [6]


def test_a_hashed_column_takes_only_its_dtype() -> None:
    with pytest.raises(ModelError, match="Column 'x' takes strings, but feature 'x' has dtype int"):
        categorical_column_with_hash_bucket("x", 10).transform({"x": np.array([1])})
    with pytest.raises(ModelError, match="Column 'x' takes integers, but feature 'x' has dtype <U"):
        categorical_column_with_hash_bucket("x", 10, int).transform({"x": np.array(["1"])})


@pytest.mark.parametrize("size", [0, -1, 1.5, True, None])
def test_a_count_must_be_a_positive_integer(size: Any) -> None:
    with pytest.raises(ConfigError, match="hash_bucket_size must be at least 1"):
        categorical_column_with_hash_bucket("x", size)
    with pytest.raises(ConfigError, match="num_buckets must be at least 1"):
        categorical_column_with_identity("x", size)


def test_identity_drops_minus_one_of_an_array() -> None:
    found = categorical_column_with_identity("x", 3).transform({"x": np.array([2, -1, 0])})
    assert found.ids.tolist() == [2, 0]
    assert found.segments.tolist() == [0, 2]
    assert found.batch == 3


@pytest.mark.parametrize("value", [3, -2])
def test_identity_out_of_range_is_an_error_that_says_where(value: int) -> None:
    with pytest.raises(ModelError, match=rf"in \[0, 3\), but feature 'x' has {value} in row 1"):
        categorical_column_with_identity("x", 3).transform({"x": np.array([0, value])})


def test_identity_out_of_range_becomes_the_default() -> None:
    column = categorical_column_with_identity("x", 3, default_value=1)
    assert column.transform({"x": np.array([0, 7, -2, -1])}).ids.tolist() == [0, 1, 1]
    sparse = SparseFeature(np.array([-1]), np.array([0]), 1)
    assert column.transform({"x": sparse}).ids.tolist() == [1]


def test_the_default_of_identity_must_be_in_range() -> None:
    with pytest.raises(ConfigError, match=r"default_value must be in \[0, 3\), got 3"):
        categorical_column_with_identity("x", 3, default_value=3)


def test_transform_keeps_its_answer_in_the_features() -> None:
    features = InputFeatures({"x": np.array(["a"])})
    column = categorical_column_with_hash_bucket("x", 10)
    first = column.transform(features)
    assert features.transformed == {column: first}
    assert categorical_column_with_hash_bucket("x", 10).transform(features) is first
    features["x"] = np.array(["b"])
    assert column.transform(features).ids.tolist() == [2]


def test_a_batch_without_rows() -> None:
    columns = [
        categorical_column_with_hash_bucket("x", 10),
        categorical_column_with_vocabulary_list("x", ["a"], num_oov_buckets=1),
    ]
    for column in columns:
        found = column.transform({"x": np.array([], "U1")})
        assert found.ids.shape == found.segments.shape == (0,)
        assert found.batch == 0


def test_a_vocabulary_column_is_a_value() -> None:
    one, other = (categorical_column_with_vocabulary_list("x", ["a", "b"]) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    assert one != categorical_column_with_vocabulary_list("x", ["b", "a"])
