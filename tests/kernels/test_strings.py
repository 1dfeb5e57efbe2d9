"""Fingerprint64 against FarmHash as published, one string at a time."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from psys.errors import ModelError
from psys.kernels import fingerprint64, hash_buckets, hash_columns

# Modules of tests are no package (importlib mode), but share what stands in their folder.
sys.path.insert(0, str(Path(__file__).parent))

from farmhash import one_by_one

# numpy's fixed-width bytes cannot end in NUL.
STRINGS = st.binary(max_size=300).map(lambda s: s.rstrip(b"\0"))


@settings(max_examples=60)
@given(st.lists(STRINGS, max_size=20))
@example([])
@example([b""])
@example([bytes(range(1, n)) for n in range(1, 200)])
def test_whole_arrays_hash_as_one_string_after_the_other(strings: list[bytes]) -> None:
    hashed = fingerprint64(np.array(strings, "S"))
    assert hashed.dtype == np.uint64
    assert hashed.tolist() == [one_by_one(s) for s in strings]


@pytest.mark.parametrize("width", [*range(1, 10), 15, 16, 17, 24, 40])
@settings(max_examples=25)
@given(data=st.data())
def test_every_length_in_every_width(width: int, data: st.DataObject) -> None:
    fitting = st.binary(max_size=width).map(lambda s: s.rstrip(b"\0"))
    strings = [*data.draw(st.lists(fitting, max_size=20)), b"", b"\xff" * width, b"\0\x80"[:width]]
    strings += [bytes(range(200, 200 + n)) for n in range(width + 1)]
    strings = [s.rstrip(b"\0") for s in strings]
    given = np.array(strings, f"S{width}")
    expected = [one_by_one(s) for s in strings]
    assert fingerprint64(given).tolist() == expected
    ids, empty = hash_buckets(given, 1000)
    assert ids.tolist() == [one % 1000 for one in expected]
    assert empty == strings.count(b"")


def test_any_shape_and_any_memory_layout() -> None:
    strings = np.array([[b"a", b"hello world", b""], [b"x" * 70, b"b", b"omar"]])
    expected = [[one_by_one(s) for s in row] for row in strings.tolist()]
    assert fingerprint64(strings).tolist() == expected
    assert fingerprint64(strings.T).tolist() == np.array(expected, np.uint64).T.tolist()
    assert fingerprint64(strings[:, ::2]).tolist() == [row[::2] for row in expected]


@settings(max_examples=60)
@given(st.lists(STRINGS, min_size=1, max_size=20), st.integers(1, 2**63 - 1))
def test_buckets_are_hashes_modulo_their_number(strings: list[bytes], buckets: int) -> None:
    array = np.array(strings, "S")
    hashes = [one_by_one(s) for s in strings]
    expected = [n % buckets for n in hashes]
    ids, empty = hash_buckets(array, buckets)
    assert (ids.dtype, ids.tolist(), empty) == (np.int64, expected, strings.count(b""))
    hashed = hash_columns(np.stack([array, array]), [buckets, 7])
    assert hashed.ids.tolist() == [expected, [n % 7 for n in hashes]]
    assert hashed.empty.tolist() == [empty, empty]
    for own, unique, places in zip(hashed.ids, hashed.unique, hashed.inverse, strict=True):
        found, inverse = np.unique(own, return_inverse=True)
        assert (unique.tolist(), places.tolist()) == (found.tolist(), inverse.tolist())


@pytest.mark.parametrize("buckets", [0, -1, 2**63])
def test_there_is_no_such_number_of_buckets(buckets: int) -> None:
    with pytest.raises(ModelError, match="1 to 2"):
        hash_buckets(np.array([b"a"]), buckets)
    with pytest.raises(ModelError, match="1 to 2"):
        hash_columns(np.array([[b"a"]]), [buckets])


def test_each_column_has_its_buckets() -> None:
    with pytest.raises(ModelError, match="2 columns, 1"):
        hash_columns(np.array([[b"a"], [b"b"]]), [5])
