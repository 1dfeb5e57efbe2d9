"""Placements one can choose: tf's numbers, and that any mix keeps every row exactly once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import psys as tf
from psys.arrays import VariableSpec
from psys.distribute import (
    GreedyLoadBalancingStrategy,
    ParameterServerStrategy,
    Part,
    Placement,
    RoundRobinStrategy,
    byte_size_load_fn,
)
from psys.errors import ConfigError
from psys.initializers import Constant
from psys.sharding import ShardMap, plan, planned_slices
from psys.sharding.partitioner import parts_of, row_bytes


def spec(name: str, *shape: int, sparse: bool = False) -> VariableSpec:
    return VariableSpec(name, shape, "float32", Constant(), sparse=sparse)


def where(shard_map: ShardMap) -> dict[str, list[int]]:
    """Return the shards of each variable, by row."""
    found: dict[str, list[int]] = {}
    for one in shard_map.slices:
        found.setdefault(one.variable, []).append(one.shard)
    return found


class Scattered(Placement):
    """A placement of one's own: some shard for each part, the same each time."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def place(self, parts: Sequence[Part], num_shards: int) -> Any:
        return np.random.default_rng(self.seed).integers(0, num_shards, len(parts))


class Answers(Placement):
    def __init__(self, answer: Sequence[Any]) -> None:
        self.answer = answer

    def place(self, parts: Sequence[Part], num_shards: int) -> Sequence[Any]:
        return self.answer


# ---------------------------------------------------------------- any mix


def one_way(*, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Sequence[int]:
    """Cut by a rule of one's own, into more parts than there are shards."""
    return (min(shape[0], 11), *(1 for _ in shape[1:]))


PARTITIONERS = st.one_of(
    st.none(),
    st.just(one_way),
    st.builds(tf.fixed_size_partitioner, st.integers(1, 12)),
    st.builds(tf.variable_axis_size_partitioner, st.integers(1, 4000)),
    st.builds(
        tf.min_max_variable_partitioner,
        max_partitions=st.integers(1, 9),
        min_slice_size=st.integers(1, 4000),
    ),
)
PLACEMENTS = st.one_of(
    st.none(),
    st.just(RoundRobinStrategy()),
    st.just(GreedyLoadBalancingStrategy()),
    st.builds(Scattered, st.integers(0, 99)),
)


@st.composite
def models(draw: st.DrawFn) -> list[VariableSpec]:
    shapes = st.one_of(
        st.just(()),
        st.tuples(st.integers(0, 300)),
        st.tuples(st.integers(0, 300), st.integers(0, 20)),
    )
    return [
        spec(f"v{number}", *shape, sparse=bool(shape) and draw(st.booleans()))
        for number, shape in enumerate(draw(st.lists(shapes, max_size=8)))
    ]


@given(
    specs=models(),
    num_shards=st.integers(1, 7),
    other=st.integers(1, 7),
    partitioner=PARTITIONERS,
    placement=PLACEMENTS,
)
@settings(max_examples=300)
def test_any_mix_keeps_every_row_once_and_moves_to_any_other_number_of_shards(
    specs: list[VariableSpec], num_shards: int, other: int, partitioner: Any, placement: Any
) -> None:
    shard_map = plan(specs, num_shards, partitioner, placement)
    # That slices join without gap or overlap, one on a shard, ShardMap checks when it is made.
    assert set(where(shard_map)) == {one.name for one in specs}
    after = plan(specs, other, partitioner, placement)
    for one in specs:
        assert shard_map.of(one.name)[-1].stop == one.rows
        whole = np.random.default_rng(0).standard_normal(one.shape)
        held = shard_map.split_dense(one.name, whole)
        held = after.split_dense(one.name, shard_map.join(one.name, held, one.shape))
        np.testing.assert_array_equal(after.join(one.name, held, one.shape), whole)
    planned = planned_slices(shard_map, {one.name: one for one in specs})
    assert sum(one.nbytes for one in planned) == sum(one.nbytes for one in specs)
    assert plan(specs, num_shards, partitioner, placement).digest == shard_map.digest


@given(specs=models(), num_shards=st.integers(1, 7))
def test_with_neither_the_plan_is_the_even_one(specs: list[VariableSpec], num_shards: int) -> None:
    strategy = ParameterServerStrategy()
    chosen = plan(specs, num_shards, strategy.variable_partitioner, strategy.placement)
    assert chosen == plan(specs, num_shards)


@given(specs=models(), num_shards=st.integers(2, 7))
def test_parts_of_a_partitioner_are_even_as_far_as_the_largest_allows(
    specs: list[VariableSpec], num_shards: int
) -> None:
    shard_map = plan(specs, num_shards, one_way)
    planned = planned_slices(shard_map, {one.name: one for one in specs})
    loads = [sum(s.nbytes for s in planned if s.shard == n) for n in range(num_shards)]
    largest = max((row_bytes(one) * parts_of(one, one_way)[0] for one in specs), default=0)
    # Dense parts and tables are each spread evenly by themselves.
    assert max(loads) - min(loads) <= 2 * largest


# ---------------------------------------------------------------- tf's numbers


def test_whole_variables_in_turn_in_the_order_they_are_made() -> None:
    specs = [spec("z", 10, 4), spec("a", 7), spec("m", 3, 3)]
    assert where(plan(specs, 2, None, RoundRobinStrategy())) == {"z": [0], "a": [1], "m": [0]}


def test_parts_in_turn() -> None:
    # tf's run of three ps, less its global_step, which has the first turn there.
    specs = [spec("a", 10, 4), spec("b", 7), spec("c", 3, 3)]
    shard_map = plan(specs, 3, tf.fixed_size_partitioner(2), RoundRobinStrategy())
    assert where(shard_map) == {"a": [0, 1], "b": [2, 0], "c": [1, 2]}
    assert [(one.start, one.stop) for one in shard_map.of("b")] == [(0, 4), (4, 7)]


def test_greedy_takes_the_smallest_load_in_the_order_they_are_made() -> None:
    specs = [spec("u", 2, 2), spec("v", 2, 1), spec("w", 2, 2), spec("x", 1, 3)]
    for placement in (
        GreedyLoadBalancingStrategy(),
        GreedyLoadBalancingStrategy(2, byte_size_load_fn),
    ):
        shard_map = plan(specs, 2, None, placement)
        assert where(shard_map) == {"u": [0], "v": [1], "w": [1], "x": [0]}


def test_a_load_of_ones_own() -> None:
    specs = [spec("u", 9), spec("v", 2), spec("w", 2)]
    placement = GreedyLoadBalancingStrategy(load_fn=lambda part: 1.0)
    assert where(plan(specs, 2, None, placement)) == {"u": [0], "v": [1], "w": [0]}


def test_parts_that_meet_on_one_shard_are_one_slice() -> None:
    shard_map = plan([spec("w", 10)], 2, tf.fixed_size_partitioner(5), Answers([1, 0, 1, 0, 1]))
    assert [(one.start, one.stop, one.shard) for one in shard_map.slices] == [(0, 6, 1), (6, 10, 0)]


def test_a_placement_is_asked_with_what_the_parts_are() -> None:
    asked: list[Sequence[Part]] = []

    class Asked(Placement):
        def place(self, parts: Sequence[Part], num_shards: int) -> Sequence[int]:
            asked.append(parts)
            return [0] * len(parts)

    specs = [spec("table", 5, 2, sparse=True), spec("bias", 1)]
    plan(specs, 3, tf.fixed_size_partitioner(2), Asked())
    assert asked == [
        [
            Part("table", 0, 3, 24, True),
            Part("table", 1, 2, 16, True),
            Part("bias", 0, 1, 4, False),
        ]
    ]


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([0], "must return a shard for each of 2 parts, got 1"),
        ([0, 2], "shards of 0 to 1, got 2 for part 0 of 'b'"),
        ([0, -1], "shards of 0 to 1, got -1 for part 0 of 'b'"),
        ([0.0, 1], "shards of 0 to 1, got 0.0 for part 0 of 'a'"),
        ([True, 1], "shards of 0 to 1, got True for part 0 of 'a'"),
    ],
)
def test_an_answer_that_cannot_be_followed(answer: list[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan([spec("a", 3), spec("b", 3)], 2, None, Answers(answer))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variable_partitioner": 2}, "a function of shape and dtype, as .* or None, got 2"),
        ({"placement": "round_robin"}, r"such as RoundRobinStrategy\(\), or None, got 'round_r"),
        ({"placement": RoundRobinStrategy}, "must be a psys.distribute.Placement"),
    ],
)
def test_what_is_neither_is_refused_by_the_strategy(options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ParameterServerStrategy(**options)
