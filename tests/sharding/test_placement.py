"""How even a plan is, how few its cuts are, and that nothing but sizes and names decide it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psys.arrays import VariableSpec
from psys.errors import ModelError
from psys.initializers import Constant
from psys.sharding import ShardMap, Slice, plan
from psys.sharding.partitioner import row_bytes

KIB = 1024


def spec(name: str, *shape: int, sparse: bool = False, dtype: str = "float32") -> VariableSpec:
    return VariableSpec(name, shape, dtype, Constant(), sparse=sparse)


def loads(
    specs: Sequence[VariableSpec], shard_map: ShardMap, sparse: bool | None = None
) -> list[int]:
    """Return the bytes on each shard, of tables only or others only where ``sparse`` says so."""
    by_name = {one.name: one for one in specs if sparse is None or one.sparse == sparse}
    return [
        sum(one.rows * row_bytes(by_name[one.variable]) for one in held if one.variable in by_name)
        for held in map(shard_map.on, range(shard_map.num_shards))
    ]


def off_balance(bytes_on: Sequence[int]) -> float:
    """Return how far the worst shard is from the mean, as a fraction of it."""
    mean = sum(bytes_on) / len(bytes_on)
    return max(abs(load - mean) for load in bytes_on) / mean


@st.composite
def models(draw: st.DrawFn) -> list[VariableSpec]:
    shapes = draw(
        st.lists(
            st.one_of(
                st.just(()),
                st.tuples(st.integers(0, 3000)),
                st.tuples(st.integers(0, 3000), st.integers(0, 200)),
                st.tuples(st.integers(0, 5), st.integers(1, 50_000)),
            ),
            max_size=12,
        )
    )
    return [
        spec(
            f"v{number}",
            *shape,
            sparse=bool(shape) and draw(st.booleans()),
            dtype=draw(st.sampled_from(["float32", "float64", "int64"])),
        )
        for number, shape in enumerate(shapes)
    ]


class TestAnyModel:
    @given(specs=models(), num_shards=st.integers(1, 9))
    def test_every_row_is_on_one_shard(self, specs: list[VariableSpec], num_shards: int) -> None:
        shard_map = plan(specs, num_shards)
        assert shard_map.num_shards == num_shards
        assert {one.variable for one in shard_map.slices} == {one.name for one in specs}
        for one in specs:
            # That slices join without a gap, one on a shard, ShardMap checks when it is made.
            assert shard_map.of(one.name)[-1].stop == one.rows

    @given(specs=models(), num_shards=st.integers(1, 9))
    def test_within_15_percent_or_one_row_of_the_mean(
        self, specs: list[VariableSpec], num_shards: int
    ) -> None:
        bytes_on = loads(specs, plan(specs, num_shards))
        mean = sum(bytes_on) / num_shards
        largest_row = max((row_bytes(one) for one in specs if one.rows), default=0)
        assert sum(bytes_on) == sum(one.nbytes for one in specs)
        for load in bytes_on:
            assert abs(load - mean) <= max(0.15 * mean, largest_row)

    @settings(max_examples=50)
    @given(data=st.data(), specs=models(), num_shards=st.integers(1, 9))
    def test_order_does_not_matter(
        self, data: st.DataObject, specs: list[VariableSpec], num_shards: int
    ) -> None:
        shuffled = data.draw(st.permutations(specs))
        assert plan(shuffled, num_shards) == plan(specs, num_shards)


class TestModels:
    def test_one_shard_holds_all_uncut(self) -> None:
        specs = [spec("table", 1000, 16, sparse=True), spec("kernel", 300, 100), spec("bias", 100)]
        assert plan(specs, 1).slices == (
            Slice("bias", 0, 100, 0),
            Slice("kernel", 0, 300, 0),
            Slice("table", 0, 1000, 0),
        )

    def test_a_large_table_fills_every_shard(self) -> None:
        table = spec("table", 1_000_000, 16, sparse=True)
        assert [one.rows for one in plan([table], 4).slices] == [250_000] * 4

    def test_equal_tables_stay_whole(self) -> None:
        tables = [spec(f"t{number}", 100_000, 16, sparse=True) for number in range(26)]
        shard_map = plan(tables, 2)
        assert len(shard_map.slices) == 26
        assert off_balance(loads(tables, shard_map)) == 0

    def test_few_cuts_where_tables_do_not_come_out_even(self) -> None:
        tables = [spec(f"t{number}", 100_000, 16, sparse=True) for number in range(26)]
        shard_map = plan(tables, 4)
        assert off_balance(loads(tables, shard_map)) < 0.01
        assert len(shard_map.slices) <= 26 + 3

    @given(
        rows=st.lists(st.integers(1, 300_000), min_size=1, max_size=30),
        num_shards=st.integers(1, 6),
    )
    def test_a_shard_has_neighbours_of_a_stack(self, rows: list[int], num_shards: int) -> None:
        """Whatever the sizes, in order of names the shards come one after another."""
        tables = [spec(f"t{at:02}", count, 16, sparse=True) for at, count in enumerate(rows)]
        shard_map = plan([*reversed(tables)], num_shards)
        if sum(one.nbytes for one in tables) < num_shards * 40 * 64 * KIB:
            return  # so small that balance needs pieces of fewer bytes than are worth a cut
        shards = [one.shard for one in shard_map.slices]
        assert shards == sorted(shards)
        assert len(shard_map.slices) < len(tables) + num_shards
        assert off_balance(loads(tables, shard_map)) <= 0.15

    def test_tables_of_other_widths_are_neighbours_too(self) -> None:
        specs = [spec(f"{at}", 50_000, 4 + 4 * (at % 2), sparse=True) for at in range(8)]
        held = [{int(one.variable) % 2 for one in plan(specs, 3).on(shard)} for shard in range(3)]
        assert held == [{0}, {1}, {1}]

    def test_small_tables_are_not_all_on_one_shard(self) -> None:
        specs = [spec("kernel", 4000, 1000)]
        specs += [spec(f"t{number}", 1000, 1, sparse=True) for number in range(10)]
        assert loads(specs, plan(specs, 2), sparse=True) == [20_000, 20_000]

    def test_dense_variables_are_even_by_themselves_beside_large_tables(self) -> None:
        # Dense bytes travel with every step: on one shard they would be its bottleneck.
        specs = [
            spec("table", 1_000_001, 16, sparse=True),
            spec("small table", 40_000, 16, sparse=True),
            spec("k0", 784, 1024),
            spec("k1", 1024, 512),
            spec("k2", 512, 256),
            spec("b0", 1024),
            spec("b1", 512),
            spec("step", dtype="int64"),
        ]
        for num_shards in (2, 3, 4):
            shard_map = plan(specs, num_shards)
            assert off_balance(loads(specs, shard_map)) < 0.15
            assert off_balance(loads(specs, shard_map, sparse=False)) < 0.15
            assert off_balance(loads(specs, shard_map, sparse=True)) < 0.15

    def test_no_crumbs_of_large_models(self) -> None:
        specs = [spec(f"k{number}", 700 + number, 1024) for number in range(5)]
        specs += [spec(f"b{number}", 1024) for number in range(5)]
        shard_map = plan(specs, 3)
        sizes = {one.name: one for one in specs}
        cut = [one for one in shard_map.slices if one.rows < sizes[one.variable].rows]
        assert cut
        for one in cut:
            assert one.rows * row_bytes(sizes[one.variable]) >= 64 * KIB

    def test_small_variables_are_cut_only_where_balance_needs_it(self) -> None:
        even = [spec(f"b{number}", 256) for number in range(6)]
        assert len(plan(even, 3).slices) == 6
        alone = plan([spec("w", 10, 4)], 3)
        assert sorted(one.rows for one in alone.slices) == [3, 3, 4]

    def test_rows_too_large_to_be_even_alone_are_evened_out_by_finer_ones(self) -> None:
        specs = [spec("a", 1, 600_000), spec("b", 1, 600_000), spec("c", 80, 10_000)]
        bytes_on = loads(specs, plan(specs, 2))
        assert off_balance(bytes_on) < 0.01

    def test_a_dense_variable_evens_out_a_table_of_one_row(self) -> None:
        specs = [spec("t", 1, 600_000, sparse=True), spec("k", 1000, 1000)]
        assert off_balance(loads(specs, plan(specs, 2))) < 0.01

    def test_more_shards_than_rows(self) -> None:
        shard_map = plan([spec("w", 3, 2), spec("step")], 8)
        assert [one.rows for one in shard_map.of("w")] == [1, 1, 1]
        assert [one.rows for one in shard_map.of("step")] == [1]
        assert sum(not shard_map.on(shard) for shard in range(8)) == 4

    def test_no_variables(self) -> None:
        assert plan([], 3).slices == ()

    def test_names_must_be_unique(self) -> None:
        with pytest.raises(ModelError, match="got w more than once"):
            plan([spec("w", 3), spec("v", 3), spec("w", 4)], 2)
