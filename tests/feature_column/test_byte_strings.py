from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psys.feature_column.byte_strings import decimal, encode, encode_objects, is_missing

TEXT = st.text(st.characters(exclude_categories=["Cs"])).map(lambda s: s.rstrip("\0"))


@given(st.lists(TEXT, min_size=1))
def test_every_kind_of_string_becomes_the_same_utf8(strings: list[str]) -> None:
    expected = [s.encode() for s in strings]
    assert encode(np.array(strings, "U")).tolist() == expected
    assert encode(np.array(expected, "S")).tolist() == expected
    assert encode_objects(strings).tolist() == expected
    assert encode_objects(expected).tolist() == expected


def test_shape_layout_and_byte_order_do_not_matter() -> None:
    strings = np.array([["a", "bc"], ["def", ""]])
    assert encode(strings.T).tolist() == [[b"a", b"def"], [b"bc", b""]]
    assert encode(strings[:, 1]).tolist() == [b"bc", b""]
    assert encode(strings.astype(">U3")).tolist() == [[b"a", b"bc"], [b"def", b""]]
    assert encode(np.empty((0, 2), "U3")).shape == (0, 2)


def test_decimal_of_the_widest_integers() -> None:
    numbers = np.array([0, -1, 42, -(2**63), 2**63 - 1])
    assert decimal(numbers).tolist() == [str(n).encode() for n in numbers.tolist()]


@pytest.mark.parametrize(
    ("value", "missing"), [(None, True), (float("nan"), True), ("", False), (0.0, False)]
)
def test_missing_objects(value: object, missing: bool) -> None:
    assert is_missing(value) is missing
