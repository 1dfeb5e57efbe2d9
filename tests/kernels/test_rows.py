"""Unique ids, sums of rows and 16-bit numbers against plain numpy."""

from __future__ import annotations

import doctest
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from psys import kernels
from psys.arrays import IndexedSlices
from psys.errors import ModelError

# Modules of tests are no package (importlib mode), but share what stands in their folder.
sys.path.insert(0, str(Path(__file__).parent))

import twins

INT64 = np.iinfo(np.int64)
IDS = st.one_of(
    st.lists(st.integers(0, 20), max_size=60),
    st.lists(st.integers(INT64.min, INT64.max), max_size=60),
)


@given(IDS)
@example([INT64.max, INT64.min, 0, -1, INT64.max])
def test_unique(ids: list[int]) -> None:
    given = np.array(ids, np.int64)
    found, inverse = kernels.unique(given)
    expected, places = np.unique(given, return_inverse=True)
    assert found.tolist() == expected.tolist()
    assert inverse.tolist() == places.reshape(-1).tolist()
    assert (found.dtype, inverse.dtype) == (np.int64, np.int64)
    assert given.tolist() == ids


@pytest.mark.parametrize("highest", [1, 5_000, 1 << 30, 1 << 62])
@pytest.mark.parametrize("count", [1023, 1024, 30_000])
def test_unique_of_many(count: int, highest: int) -> None:
    ids = np.random.default_rng(highest % 97).integers(-highest, highest, count)
    found, inverse = kernels.unique(ids)
    np.testing.assert_array_equal(found, np.unique(ids))
    np.testing.assert_array_equal(found[inverse], ids)


@given(
    ids=st.lists(st.integers(-3, 8), max_size=40),
    row_shape=st.sampled_from([(), (1,), (5,), (2, 3)]),
    dtype=st.sampled_from(["float32", "float64", "int64"]),
)
def test_sums_of_duplicates_in_the_order_they_come(
    ids: list[int], row_shape: tuple[int, ...], dtype: str
) -> None:
    values = np.random.default_rng(1).standard_normal((len(ids), *row_shape)) * 100
    given, values = np.array(ids, np.int64), values.astype(dtype)
    values.flags.writeable = False
    found, sums = kernels.sum_duplicates(given, values)
    expected, inverse = np.unique(given, return_inverse=True)
    totals = np.zeros((len(expected), *row_shape), dtype)
    np.add.at(totals, inverse.reshape(-1), values)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(sums, totals)
    assert sums.dtype == dtype
    slices = IndexedSlices(given, values).summed()
    np.testing.assert_array_equal(slices.values, totals)


@given(
    index=st.lists(st.integers(0, 99), max_size=90),
    row_shape=st.sampled_from([(), (0,), (1,), (16,), (17,), (3, 50), (300,)]),
    dtype=st.sampled_from(["float32", "float64", "int32"]),
)
def test_take_rows(index: list[int], row_shape: tuple[int, ...], dtype: str) -> None:
    table = (np.random.default_rng(1).standard_normal((100, *row_shape)) * 100).astype(dtype)
    table.flags.writeable = False
    rows = kernels.take_rows(table, np.array(index, np.int64))
    np.testing.assert_array_equal(rows, table[np.array(index, np.int64)])
    assert rows.dtype == dtype


@pytest.mark.parametrize("index", [[0, 3], [0, -1]])
def test_take_rows_reads_nowhere_else(index: list[int]) -> None:
    with pytest.raises(ModelError, match=r"must lie in \[0, 3\), got -?\d at 1"):
        kernels.take_rows(np.ones((3, 2)), np.array(index))


def test_take_rows_of_a_table_that_would_have_to_be_copied() -> None:
    with pytest.raises(ModelError, match="must be C-contiguous"):
        kernels.take_rows(np.ones((2, 3)).T, np.array([0]))


@given(
    index=st.lists(st.integers(0, 5), max_size=40),
    row_shape=st.sampled_from([(), (1,), (5,), (2, 3)]),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_add_rows(index: list[int], row_shape: tuple[int, ...], dtype: str) -> None:
    values = np.random.default_rng(1).standard_normal((len(index), *row_shape)).astype(dtype)
    expected = np.zeros((6, *row_shape), dtype)
    np.add.at(expected, np.array(index, np.int64), values)
    sums = kernels.add_rows(values, np.array(index, np.int64), 6)
    np.testing.assert_array_equal(sums, expected)
    assert sums.dtype == dtype


@pytest.mark.parametrize("index", [[0, 3], [0, -1]])
def test_add_rows_writes_nowhere_else(index: list[int]) -> None:
    with pytest.raises(ModelError, match=r"must lie in \[0, 3\), got -?\d at 1"):
        kernels.add_rows(np.ones((2, 2)), np.array(index), 3)


def test_as_many_rows_as_ids() -> None:
    for wrong in (
        lambda: kernels.add_rows(np.ones((2, 2)), np.array([0]), 3),
        lambda: kernels.sum_duplicates(np.array([0]), np.ones((2, 2))),
    ):
        with pytest.raises(ModelError, match="2 rows have"):
            wrong()


def write_rows(*arguments: Any) -> None:
    kernels.place_rows(*arguments, add=False)


def add_rows(*arguments: Any) -> None:
    kernels.place_rows(*arguments, add=True)


@st.composite
def placements(draw: st.DrawFn) -> tuple[Any, Any, Any, Any]:
    """Rows, a wider array, and parts that may overlap in both: rows, wide, index, parts."""
    generator = np.random.default_rng(draw(st.integers(0, 1000)))
    count, width, batch = draw(st.integers(1, 9)), draw(st.integers(0, 3)), draw(st.integers(0, 7))
    columns = width + draw(st.integers(0, 5))
    index, parts = [], []
    for _ in range(draw(st.integers(0, 4))):
        first = draw(st.integers(0, count - 1))
        stop = draw(st.integers(first + 1, count))
        parts.append([first, stop, draw(st.integers(0, columns - width))])
        index.append(generator.integers(0, stop - first, batch))
    dtype = draw(st.sampled_from(["float32", "float64"]))
    return (
        generator.standard_normal((count, width)).astype(dtype),
        generator.standard_normal((batch, columns)).astype(dtype),
        np.array(index, np.int64).reshape(len(parts), batch),
        np.array(parts, np.int64).reshape(len(parts), 3),
    )


@given(placements())
def test_rows_are_added_to_where_they_stand_and_back(placed: tuple[Any, Any, Any, Any]) -> None:
    rows, wide, index, parts = placed
    cases: tuple[Any, ...] = (
        ("place_rows", rows, wide, {"add": True}),
        ("place_rows", rows, wide, {"add": False}),
        ("sum_placed", wide, rows, {}),
    )
    for name, source, target, how in cases:
        expected, found = target.copy(), target.copy()
        for one in (source, index, parts):
            one.flags.writeable = False  # as what was pulled is
        getattr(twins, name)(source, index, parts, expected, **how)
        getattr(kernels, name)(source, index, parts, found, **how)
        np.testing.assert_array_equal(found, expected)


def test_rows_of_another_layout_or_dtype_are_placed_as_well() -> None:
    rows = np.arange(24.0).reshape(4, 6)[::2, ::3]
    index, parts = np.array([[1, 0, 1]]), np.array([[0, 2, 1]])
    out = np.zeros((3, 3), np.float32)
    kernels.place_rows(rows, index, parts, out, add=True)
    assert out.tolist() == [[0, 12, 15], [0, 0, 3], [0, 12, 15]]
    sums = np.zeros((2, 2), np.float32)
    kernels.sum_placed(np.asfortranarray(out, np.float64), index, parts, sums)
    assert sums.tolist() == [[0, 3], [24, 30]]


@pytest.mark.parametrize("place", [write_rows, add_rows, kernels.sum_placed])
@pytest.mark.parametrize(
    ("index", "message"),
    [
        ([[0, 1], [0, 2]], r"must lie in \[0, 2\), got 2 at 1"),
        ([[0, 1], [-1, 0]], r"must lie in \[0, 2\), got -1 at 0"),
        ([[3, 0], [0, 1]], r"must lie in \[0, 3\), got 3 at 0"),
        ([[0, 1 << 62], [0, 1]], r"must lie in \[0, 3\), got 4611686018427387904 at 1"),
    ],
)
def test_a_part_reaches_no_row_of_another(place: Any, index: Any, message: str) -> None:
    rows, wide = np.ones((5, 2)), np.ones((2, 4))
    source, target = (wide, rows) if place is kernels.sum_placed else (rows, wide)
    parts = np.array([[0, 3, 0], [3, 5, 2]])
    with pytest.raises(ModelError, match=message):
        place(source, np.array(index, np.int64), parts, target)
    if place is kernels.sum_placed:  # row 2, of the first part, is what -1 of the second would be
        assert (target[2] == 1).all()


@pytest.mark.parametrize("place", [write_rows, add_rows, kernels.sum_placed])
@pytest.mark.parametrize(
    ("parts", "index"),
    [
        ([[0, 3, 0]], [[0, 0], [0, 0]]),
        ([[0, 3, 0]], [[0, 0, 0]]),
        ([[0, 3]], [[0, 0]]),
        ([[0, 3, 3]], [[0, 0]]),
        ([[0, 3, -1]], [[0, 0]]),
        ([[-1, 3, 0]], [[0, 0]]),
        ([[0, 6, 0]], [[0, 0]]),
        ([[4, 3, 0]], [[0, 0]]),
    ],
)
def test_parts_that_do_not_fit_are_refused(place: Any, parts: Any, index: Any) -> None:
    rows, wide = np.ones((5, 2)), np.ones((2, 4))
    source, target = (wide, rows) if place is kernels.sum_placed else (rows, wide)
    with pytest.raises(ModelError, match="do not fit"):
        place(source, np.array(index), np.array(parts), target)
    assert (target == 1).all()


ALL_HALVES = np.arange(1 << 16, dtype=np.uint16)


def floats() -> Any:
    """Return float32 numbers of all magnitudes, and those between two float16 or bfloat16."""
    generator = np.random.default_rng(5)
    bits = generator.integers(0, 1 << 32, 200_000, dtype=np.uint32)
    halves = ALL_HALVES.view(np.float16).astype(np.float32)
    upper = (ALL_HALVES.astype(np.uint32) << 16) | np.uint32(0x8000)
    ordered = np.sort(halves[np.isfinite(halves)])
    with np.errstate(over="ignore"):
        between = (ordered[1:] + ordered[:-1]) / 2
    return np.concatenate([bits.view(np.float32), halves, upper.view(np.float32), between])


class TestSixteenBits:
    def test_float16_is_numpy_s(self) -> None:
        numbers = floats()
        with np.errstate(over="ignore", invalid="ignore"):
            expected = numbers.astype(np.float16)
        given = kernels.to_float16(numbers)
        assert given.dtype == np.float16
        np.testing.assert_array_equal(given, expected)
        np.testing.assert_array_equal(np.signbit(given), np.signbit(expected))

    def test_float16_back_is_exact(self) -> None:
        halves = ALL_HALVES.view(np.float16)
        np.testing.assert_array_equal(kernels.from_float16(halves), halves.astype(np.float32))

    def test_bfloat16_is_the_nearest_a_tie_the_even(self) -> None:
        numbers = floats()
        given = kernels.from_bfloat16(kernels.to_bfloat16(numbers))
        broken = np.isnan(numbers)
        assert np.isnan(given[broken]).all()
        bits = numbers[~broken].view(np.uint32).astype(np.int64)
        lower, rest = bits >> 16, bits & 0xFFFF
        up = (rest > 0x8000) | ((rest == 0x8000) & (lower % 2 == 1))
        expected = ((lower + up) << 16).astype(np.uint32).view(np.float32)
        np.testing.assert_array_equal(given[~broken], expected)

    def test_bfloat16_back_and_forth_is_the_same(self) -> None:
        numbers = kernels.from_bfloat16(ALL_HALVES)
        again = kernels.to_bfloat16(numbers)
        finite = ~np.isnan(numbers)
        np.testing.assert_array_equal(again[finite], ALL_HALVES[finite])

    @pytest.mark.parametrize("shape", [(), (0,), (3,), (4, 5), (2, 3, 4)])
    def test_any_shape_and_into_an_array(self, shape: tuple[int, ...]) -> None:
        numbers = np.ones(shape, np.float32)
        out = np.empty(shape, np.float16)
        assert kernels.to_float16(numbers, out) is out
        assert (out == 1).all()
        back = np.empty(shape, np.float32)
        kernels.from_float16(out, back)
        np.testing.assert_array_equal(back, numbers)
        np.testing.assert_array_equal(kernels.from_bfloat16(kernels.to_bfloat16(numbers)), numbers)

    def test_a_wrong_array_is_refused(self) -> None:
        numbers = np.ones(4, np.float32)
        with pytest.raises(ModelError, match="Expected float32 numbers, got float64"):
            kernels.to_float16(np.ones(4))
        for out in (np.empty(3, np.float16), np.empty(4, np.uint16), np.empty(8, np.float16)[::2]):
            with pytest.raises(ModelError, match="to write to"):
                kernels.to_float16(numbers, out)


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        (np.array([0.5, 1.5]), "must be integers, got float64"),
        (np.array([True, False]), "must be integers, got bool"),
        (np.array([1, 2**63 + 1], np.uint64), r"below 2\*\*63, got 9223372036854775809"),
    ],
    ids=["fractions", "bools", "beyond int64"],
)
def test_ids_that_are_no_int64_are_refused(ids: Any, reason: str) -> None:
    for use in (
        lambda: kernels.unique(ids),
        lambda: kernels.sum_duplicates(ids, np.ones((2, 3))),
        lambda: kernels.add_rows(np.ones((2, 3)), ids, 2),
    ):
        with pytest.raises(ModelError, match=reason):
            use()
    assert kernels.unique(np.array([3, 1], np.uint64))[0].tolist() == [1, 3]
    assert kernels.unique(np.array([]))[0].tolist() == []


def test_examples_in_the_docstrings() -> None:
    result = doctest.testmod(kernels)
    assert result.attempted
    assert not result.failed
