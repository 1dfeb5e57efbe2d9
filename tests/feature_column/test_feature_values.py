from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from psys.errors import ModelError
from psys.feature_column import SparseFeature
from psys.feature_column.feature_values import INT64, STRING, categories, numbers


def test_a_missing_key_names_what_is_there_and_who_asks() -> None:
    features = {"b": np.arange(2), "a": np.arange(2)}
    with pytest.raises(
        ModelError, match=r"Feature 'x' is not in the features dictionary \(has: a, b\); column 'c'"
    ):
        numbers(features, "x", "c")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (np.array(["1"]), "<U1"),
        (np.array([b"1"]), r"\|S1"),
        (np.array([1, "1"], object), r"object \(int, str\)"),
        (np.array([1.0, None], object), r"object \(NoneType, float\)"),
        (np.array(["2020-01-01"], "M8[D]"), r"datetime64\[D\]"),
    ],
)
def test_numbers_take_no_other_dtype(value: Any, found: str) -> None:
    with pytest.raises(
        ModelError, match=f"Column 'c' takes numbers, but feature 'x' has dtype {found}"
    ):
        numbers({"x": value}, "x", "c")


def test_numbers_of_objects() -> None:
    assert numbers({"x": np.array([1, 2.5, True], object)}, "x", "c").tolist() == [1, 2.5, 1]


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (np.array([1.5]), None, "takes strings or integers, but feature 'x' has dtype float64"),
        (np.array([1]), STRING, "takes strings, .* int64; its dtype argument says which"),
        (np.array(["a"]), INT64, "takes integers, .* <U1; its dtype argument says which"),
        (np.array([True]), INT64, "takes integers, but feature 'x' has dtype bool"),
        (np.array([1, "a"], object), None, r"dtype object \(int, str\)"),
        (np.array([True], object), None, r"dtype object \(bool\)"),
        (np.zeros((2, 2, 2), int), INT64, r"must be \[batch\] or \[batch, n\], got shape"),
        (np.int64(3), INT64, r"must be \[batch\] or \[batch, n\], got shape \(\)"),
        (np.array([1, 2**63], np.uint64), None, r"holds 9223372036854775808; integers must be at"),
    ],
)
def test_categories_take_no_other_dtype_or_shape(value: Any, dtype: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        categories({"x": value}, "x", "c", dtype)


@pytest.mark.parametrize(
    "strings",
    [
        np.array(["a", "", "é"]),
        np.array([b"a", b"", "é".encode()]),
        np.array(["a", "", "é"], object),
        np.array(["a", None, "é"], object),
        np.array(["a", float("nan"), "é".encode()], object),
    ],
    ids=["U", "S", "str", "None", "mixed"],
)
def test_missing_strings(strings: Any) -> None:
    found = categories({"x": strings}, "x", "c", STRING)
    assert found.values.tolist() == [b"a", b"", "é".encode()]
    assert found.present().values.tolist() == [b"a", "é".encode()]
    assert found.present().segments.tolist() == [0, 2]
    assert found.present().batch == 3


@pytest.mark.parametrize(
    "integers",
    [
        np.array([3, -1, 4]),
        np.array([3, -1, 4], np.int8),
        np.array([3, -1, 4], object),
        np.array([3, None, np.int32(4)], object),
    ],
    ids=["int64", "int8", "object", "None"],
)
def test_missing_integers(integers: Any) -> None:
    found = categories({"x": integers}, "x", "c", INT64)
    assert found.values.dtype == np.int64
    assert found.present().values.tolist() == [3, 4]
    assert found.present().segments.tolist() == [0, 2]


def test_objects_that_are_all_missing_take_the_dtype_that_is_wanted() -> None:
    nothing = {"x": np.array([None, None], object)}
    assert categories(nothing, "x", "c", INT64).values.tolist() == [-1, -1]
    assert categories(nothing, "x", "c", STRING).values.tolist() == [b"", b""]


def test_columns_of_values_belong_to_their_row() -> None:
    found = categories({"x": np.array([["a", ""], ["b", "c"]])}, "x", "c").present()
    assert found.values.tolist() == [b"a", b"b", b"c"]
    assert found.segments.tolist() == [0, 1, 1]


def test_nothing_is_missing_in_a_sparse_feature() -> None:
    feature = SparseFeature(np.array([-1, 2]), np.array([1, 1]), 3)
    found = categories({"x": feature}, "x", "c").present()
    assert found.values.tolist() == [-1, 2]
    assert found.batch == 3


@pytest.mark.parametrize(
    ("values", "segments", "message"),
    [
        ([1, 2], [0], r"must both be \[nnz\], got \(2,\) and \(1,\)"),
        ([[1]], [[0]], r"must both be \[nnz\]"),
        ([1, 2], [1, 0], r"must ascend within \[0, 2\)"),
        ([1, 2], [0, 2], r"must ascend within \[0, 2\)"),
        ([1], [-1], r"must ascend within \[0, 2\)"),
    ],
)
def test_a_sparse_feature_that_does_not_fit_together(
    values: Any, segments: Any, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        SparseFeature(values, segments, 2)


def test_numpy_variable_width_strings() -> None:
    if not hasattr(np.dtypes, "StringDType"):
        pytest.skip("numpy 1 has no StringDType")
    strings = np.array(["a", "", "é"], np.dtypes.StringDType())
    assert categories({"x": strings}, "x", "c", STRING).values.tolist() == [b"a", b"", "é".encode()]
