"""What became of the pushes of all trainers, and when the chief is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psys.ps.messages import Consistency, Outcome, Policy, UpdateOrder
from psys.ps.tally import EXACT, PushCounts, PushTally, bucket_of, least_of

if TYPE_CHECKING:
    from .conftest import ShardBench

SYNC = Policy(Consistency.SYNC)


@given(st.integers(0, 2**63))
def test_a_staleness_lies_between_its_bucket_and_the_next(staleness: int) -> None:
    bucket = bucket_of(staleness)
    assert least_of(bucket) <= staleness < least_of(bucket + 1)
    assert bucket < EXACT + 64  # so the counts are never more


@pytest.mark.parametrize("staleness", [0, 1, EXACT - 1])
def test_little_staleness_is_counted_value_by_value(staleness: int) -> None:
    assert least_of(bucket_of(staleness)) == staleness == bucket_of(staleness)


@given(st.lists(st.integers(-3, 300)), st.lists(st.integers(-3, 300)))
def test_what_came_since_is_what_was_counted_since(first: list[int], second: list[int]) -> None:
    tally, alone = PushTally("g"), PushTally("g")
    for staleness in first:
        tally.note_applied(staleness)
    tally.tell()
    before = tally.told
    for one in (tally, alone):
        for staleness in second:
            one.note_applied(staleness)
        one.note_dropped()
        one.tell()
    since = tally.told.since(before)
    assert sum(since.staleness) == len(second)
    assert [(i, n) for i, n in enumerate(since.staleness) if n] == [
        (i, n) for i, n in enumerate(alone.told.staleness) if n
    ]
    assert since.dropped == 1


def counts(bench: ShardBench) -> PushCounts:
    bench.shard.tally.tell()
    return bench.shard.tally.told


def test_every_trainers_pushes_are_counted_once(bench: ShardBench) -> None:
    bench.push(1, base_version=0)
    bench.push(1, task="chief", base_version=0)
    bench.push(2, base_version=0)
    assert bench.push(2, base_version=0).outcome is Outcome.DUPLICATE
    assert bench.push(9).outcome is Outcome.GAP
    assert counts(bench) == PushCounts("g", (1, 1, 1))


def test_a_base_version_from_the_future_is_no_staleness(bench: ShardBench) -> None:
    bench.push(1, base_version=5)
    assert counts(bench) == PushCounts("g", (1,))


def test_another_generation_is_counted_from_nothing(bench: ShardBench) -> None:
    bench.push(1)
    bench.obey(generation="h")
    assert counts(bench) == PushCounts("h")


def test_what_came_too_late_and_what_was_left_out_is_dropped(bench: ShardBench) -> None:
    bench.begin(SYNC)
    assert bench.offer("chief", 1) == []
    assert bench.offer("worker:0", 1) == []
    bench.obey(update=UpdateOrder(1, 0, {"chief": (1, 1)}))  # the worker's is left out
    late: Any = bench.offer("worker:1", 1)  # of the values before the update
    assert late[0].outcome is Outcome.DROPPED
    assert counts(bench) == PushCounts("g", (1,), 2)
