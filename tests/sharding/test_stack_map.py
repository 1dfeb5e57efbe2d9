"""A stack's rows go where its tables' rows are, and lie there as a ps lays them out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psys.arrays import Array, VariableSpec
from psys.errors import ModelError
from psys.initializers import Constant
from psys.optimizers import GradientDescentOptimizer
from psys.ps.loading import put_in_place
from psys.ps.shard import LoadedSlice
from psys.sharding import ShardMap, Slice
from psys.sharding.stack_map import StackMap
from psys.stacks import TableStack, stacks_of

SGD = GradientDescentOptimizer(1.0).to_config()


def table(name: str, rows: int) -> VariableSpec:
    return VariableSpec(name, (rows, 1), "float32", Constant(), SGD, sparse=True, stack="s")


def stack_of(rows: dict[str, int]) -> TableStack:
    return stacks_of(table(name, count) for name, count in rows.items())["s"]


def numbers(stack: TableStack, name: str) -> Array:
    """Each row of a table holds its own number in the stack."""
    start, stop = stack.rows_of(name)
    return np.arange(start, stop, dtype=np.float32)[:, None]


def held(stack: TableStack, shard_map: ShardMap, shard: int) -> Array:
    """What a ps makes of its slices of the stack, sent in any order: numbers of its rows."""
    slices = [
        LoadedSlice(
            table(one.variable, numbers(stack, one.variable).shape[0]),
            one.start,
            one.stop,
            value=numbers(stack, one.variable)[one.start : one.stop].copy(),
        )
        for one in reversed(shard_map.on(shard))
    ]
    if not slices:
        return np.empty(0, np.float32)
    return put_in_place(slices)["s"].value[:, 0]


@st.composite
def layouts(draw: st.DrawFn) -> tuple[TableStack, ShardMap, Array]:
    """A stack of 1 to 5 tables, some empty, cut over 1 to 5 shards; and rows of it."""
    num_shards = draw(st.integers(1, 5))
    names = draw(st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=5))
    slices, rows = [], {}
    for name in sorted(set(names)):
        pieces = draw(st.lists(st.integers(1, 6), max_size=num_shards)) or [0]
        shards = draw(st.permutations(range(num_shards)))
        stops = np.cumsum(pieces).tolist()
        rows[name] = stops[-1]
        slices += [
            Slice(name, stop - piece, stop, shard)
            for piece, stop, shard in zip(pieces, stops, shards, strict=False)
        ]
    total = sum(rows.values())
    wanted = draw(st.sets(st.integers(0, total - 1))) if total else set()
    return stack_of(rows), ShardMap(num_shards, tuple(slices)), np.array(sorted(wanted), np.int64)


@given(layouts())
def test_rows_are_found_where_a_ps_holds_them(drawn: tuple[TableStack, ShardMap, Array]) -> None:
    stack, shard_map, rows = drawn
    found = StackMap(stack, shard_map).split(rows)
    assert set(found) == {one.shard for one in shard_map.slices}
    seen = []
    for shard, (at, local) in found.items():
        np.testing.assert_array_equal(held(stack, shard_map, shard)[local], rows[at])
        assert len(rows[at]) == len(local)
        seen += rows[at].tolist()
    assert sorted(seen) == rows.tolist()


@given(layouts())
def test_a_stack_is_split_as_each_of_its_tables_is(
    drawn: tuple[TableStack, ShardMap, Array],
) -> None:
    stack, shard_map, rows = drawn
    found = StackMap(stack, shard_map).split(rows)
    for name in stack.tables:
        start, stop = stack.rows_of(name)
        own = rows[(rows >= start) & (rows < stop)]
        for shard, (at, _) in shard_map.split_rows(name, own - start).items():
            here = rows[found[shard][0]]
            expected = own[at]
            assert here[(here >= start) & (here < stop)].tolist() == expected.tolist()


def test_tables_that_lie_on_one_shard_are_handed_on_as_they_are() -> None:
    stack = stack_of({"a": 3, "b": 2})
    one = StackMap(stack, ShardMap(2, (Slice("a", 0, 3, 1), Slice("b", 0, 2, 1))))
    rows = np.array([0, 4])
    ((shard, (at, local)),) = one.split(rows).items()
    assert (shard, at) == (1, slice(0, 2))
    assert local is rows


def test_one_piece_on_each_shard_is_a_slice_that_copies_nothing() -> None:
    pieces = (Slice("a", 0, 3, 1), Slice("b", 0, 1, 1), Slice("b", 1, 2, 0))
    one = StackMap(stack_of({"a": 3, "b": 2}), ShardMap(2, pieces))
    rows = np.array([0, 3, 4])
    found = {shard: (at, local.tolist()) for shard, (at, local) in one.split(rows).items()}
    assert found == {1: (slice(0, 2), [0, 3]), 0: (slice(2, 3), [0])}
    nothing = {shard: (at, local.tolist()) for shard, (at, local) in one.split(rows[:0]).items()}
    assert nothing == {1: (slice(0, 0), []), 0: (slice(0, 0), [])}


@pytest.mark.parametrize(
    "rows", [[-1], [0, 5], [5], [1, 0], [2, 2]], ids=lambda rows: " ".join(map(str, rows))
)
@pytest.mark.parametrize("cut", [False, True])
def test_rows_out_of_order_or_out_of_range_are_refused(rows: Any, cut: bool) -> None:
    pieces = [Slice("a", 0, 1, 1), Slice("a", 1, 3, 0)] if cut else [Slice("a", 0, 3, 0)]
    one = StackMap(stack_of({"a": 3, "b": 2}), ShardMap(2, (*pieces, Slice("b", 0, 2, 0))))
    message = r"Rows of 's' must be sorted and unique, and must lie in \[0, 5\), got"
    with pytest.raises(ModelError, match=message):
        one.split(np.array(rows))


def test_a_map_without_one_of_the_tables_is_refused() -> None:
    with pytest.raises(ModelError, match="no variable 'b'"):
        StackMap(stack_of({"a": 3, "b": 2}), ShardMap(1, (Slice("a", 0, 3, 0),)))


def test_whose_row_it_is() -> None:
    stack = stack_of({"a": 3, "empty": 0, "z": 2})
    assert [stack.table_of(row) for row in range(5)] == ["a", "a", "a", "z", "z"]
    assert [stack.rows_of(name) for name in stack.tables] == [(0, 3), (3, 3), (3, 5)]
    with pytest.raises(ModelError, match="'b' is not in stack 's'"):
        stack.rows_of("b")
