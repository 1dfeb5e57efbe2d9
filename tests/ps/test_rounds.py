from __future__ import annotations

from psys.ps.messages import Fences, ShardFacts, UpdateOrder
from psys.ps.rounds import Clocks, Rounds

LIVE = {"chief": 1, "worker:0": 2, "worker:1": 3}


def facts(*arrived: Fences, updates: int = 0) -> dict[int, ShardFacts]:
    return {i: ShardFacts(i, updates=updates, arrived=one) for i, one in enumerate(arrived)}


def test_an_update_is_of_what_all_shards_hold() -> None:
    rounds = Rounds()
    some, more = {"chief": (1, 4)}, {"chief": (1, 4), "worker:0": (2, 6)}
    assert not rounds.advance(facts(more, some), LIVE, 2, 7)
    assert rounds.awaited == ("worker:0", "worker:1")
    assert rounds.advance(facts(more, more), LIVE, 2, 7)
    assert rounds.order == UpdateOrder(1, 7, more)


def test_the_next_waits_until_all_shards_have_made_the_last() -> None:
    rounds = Rounds()
    assert rounds.advance(facts({"chief": (1, 1)}), {"chief": 1}, 0, 0)
    late = {"chief": (1, 2)}
    assert not rounds.advance(facts(late, updates=0), {"chief": 1}, 0, 1)
    assert rounds.advance(facts(late, updates=1), {"chief": 1}, 0, 1)
    assert rounds.number == 2


def test_with_no_number_all_live_trainers_make_an_update() -> None:
    rounds = Rounds()
    arrived = {"chief": (1, 1), "worker:0": (2, 1)}
    assert not rounds.advance(facts(arrived), LIVE, 0, 0)
    assert rounds.advance(facts(arrived), {"chief": 1, "worker:0": 2}, 0, 0)


def test_with_more_asked_for_than_live_the_live_ones_do() -> None:
    assert Rounds().advance(facts({"chief": (1, 1)}), {"chief": 1}, 5, 0)


def test_whoever_is_there_at_the_time_is_in_it() -> None:
    rounds = Rounds()
    arrived = {"chief": (1, 1), "worker:0": (2, 1), "worker:1": (3, 1)}
    assert rounds.advance(facts(arrived), LIVE, 2, 0)
    assert rounds.order is not None
    assert rounds.order.pushes == arrived


def test_the_push_of_a_member_that_is_gone_counts_for_nothing() -> None:
    rounds = Rounds()
    assert not rounds.advance(facts({"worker:0": (9, 1)}), {"worker:0": 10}, 0, 0)
    assert not rounds.advance(facts({"worker:0": (9, 1)}), {}, 0, 0)


def test_shards_may_hold_pushes_of_two_processes_of_one_task() -> None:
    held = facts({"worker:0": (9, 1)}, {"worker:0": (10, 1)})
    assert not Rounds().advance(held, {"worker:0": 10}, 0, 0)


def test_a_joiner_starts_at_the_slowest() -> None:
    clocks = Clocks()
    clocks.advance({"chief": 1, "worker:0": 2})
    assert clocks.orders() == {"chief": (1, 0), "worker:0": (2, 0)}
    for _ in range(5):
        clocks.applied("chief", 1)
    clocks.applied("worker:0", 2)
    clocks.advance({"chief": 1, "worker:0": 2, "worker:1": 3})
    assert clocks.orders()["worker:1"] == (3, 1)
    clocks.advance({"chief": 1})
    clocks.advance({"chief": 1, "worker:1": 4})
    assert clocks.orders() == {"chief": (1, 0), "worker:1": (4, 5)}


def test_steps_taken_before_a_clock_started_are_not_counted_twice() -> None:
    clocks = Clocks()
    clocks.advance({"chief": 1})
    for _ in range(3):
        clocks.applied("chief", 1)
    clocks.applied("worker:0", 2)  # its report came later than its first push
    clocks.advance({"chief": 1, "worker:0": 2})
    assert clocks.orders()["worker:0"] == (2, 2)
