from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psys.errors import ConfigError, ModelError
from psys.feature_column import (
    SparseFeature,
    bucketized_column,
    categorical_column_with_hash_bucket,
    categorical_column_with_identity,
    categorical_column_with_vocabulary_list,
    crossed_column,
    numeric_column,
)

MASK = (1 << 64) - 1
K = 0xC6A4A7935BD1E995


def cat(a: int, b: int) -> int:
    """TF's FingerprintCat64 on Python integers."""

    def mix(x: int) -> int:
        return x ^ (x >> 47)

    result = a ^ K ^ (mix(b * K & MASK) * K & MASK)
    return mix(mix(result * K & MASK) * K & MASK)


def ragged(rows: list[list[int]]) -> SparseFeature:
    values = np.array([value for row in rows for value in row], np.int64)
    segments = [number for number, row in enumerate(rows) for _ in row]
    return SparseFeature(values, np.array(segments, np.int64), len(rows))


ROWS = st.lists(
    st.tuples(*[st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3)] * 3), max_size=5
)


@given(ROWS, st.integers(1, 10**9))
def test_ragged_rows_cross_as_row_by_row(rows: list[tuple[list[int], ...]], size: int) -> None:
    column = crossed_column(["a", "b", "c"], size)
    features = {key: ragged([row[i] for row in rows]) for i, key in enumerate("abc")}
    found = column.transform(features)
    expected = [
        (number, cat(cat(cat(0xDECAFCAFFE, a), b), c) % size)
        for number, row in enumerate(rows)
        for a, b, c in itertools.product(*([v & MASK for v in values] for values in row))
    ]
    assert list(zip(found.segments.tolist(), found.ids.tolist(), strict=True)) == expected
    assert found.batch == len(rows)


@given(st.integers(), st.integers())
def test_a_hash_key_counts_modulo_two_to_the_64(hash_key: int, multiple: int) -> None:
    column = crossed_column(["a", "b"], 997, hash_key + (multiple << 64))
    found = column.transform({"a": np.array([1]), "b": np.array([2])})
    assert found.ids.tolist() == [cat(cat(hash_key & MASK, 1), 2) % 997]


def test_a_nested_cross_is_a_cross_of_its_leaves() -> None:
    features = {key: np.array([f"{key}{i}" for i in range(4)]) for key in "abcd"}
    nested = crossed_column(["d", crossed_column(["b", "a"], 7), "c"], 1000)
    flat = crossed_column(["d", "b", "a", "c"], 1000)
    assert nested.name == flat.name == "a_X_b_X_c_X_d"
    assert nested.transform(features).ids.tolist() == flat.transform(features).ids.tolist()


def test_an_unknown_word_of_a_vocabulary_is_crossed_as_minus_one() -> None:
    words = categorical_column_with_vocabulary_list("w", ["a"])
    column = crossed_column([words, "b"], 1000)
    found = column.transform({"w": np.array(["zz"]), "b": np.array([5])})
    assert found.ids.tolist() == [cat(cat(0xDECAFCAFFE, MASK), 5) % 1000]


def test_several_values_in_one_row_alone() -> None:
    # Both sides have rows [0, 0]: equal, and yet four pairs.
    column = crossed_column(["a", "b"], 10**9)
    found = column.transform({"a": ragged([[1, 2]]), "b": ragged([[3, 4]])})
    assert len(found.ids) == 4


def test_keys_are_all_raw_features() -> None:
    price = bucketized_column(numeric_column("price"), [0])
    column = crossed_column([price, "z", crossed_column(["z", "b"], 5)], 10)
    assert column.keys == ("b", "price", "z")
    assert column.name == "b_X_price_bucketized_X_z_X_z"
    assert column.num_buckets == 10


@pytest.mark.parametrize(
    ("keys", "size", "message"),
    [
        (["a"], 10, "must be a list of at least two"),
        ("ab", 10, "must be a list of at least two, got 'ab'"),
        (["a", categorical_column_with_hash_bucket("h", 5)], 10, "give its key 'h' instead"),
        (["a", 5], 10, "must be strings or categorical columns, got 5"),
        (["a", numeric_column("n")], 10, "must be strings or categorical columns"),
        (["a", ""], 10, "non-empty string"),
        (["a", "b"], 0, "hash_bucket_size must be at least 1, got 0"),
    ],
)
def test_arguments_of_a_cross(keys: Any, size: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        crossed_column(keys, size)


def test_one_bucket_is_enough() -> None:
    column = crossed_column(["a", "b"], 1)
    assert column.transform({"a": np.array([1]), "b": np.array([2])}).ids.tolist() == [0]


def test_components_of_different_batches_are_an_error() -> None:
    column = crossed_column([categorical_column_with_identity("a", 9), "b"], 10)
    with pytest.raises(ModelError, match="'a' has 1 rows, 'b' has 2"):
        column.transform({"a": np.array([1]), "b": np.array([2, 3])})


def test_floats_cannot_be_crossed() -> None:
    with pytest.raises(ModelError, match="Column 'a_X_b' takes strings or integers"):
        crossed_column(["a", "b"], 10).transform({"a": np.array([1.5]), "b": np.array([2])})
