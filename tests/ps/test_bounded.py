"""Bounded staleness: who waits for whom, and that nobody waits for those who are gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from psys.ps.messages import Consistency, Outcome, Policy, TaskPhase
from psys.ps.node import WAIT_ANSWER_SECS

if TYPE_CHECKING:
    from .conftest import LeadBench, ShardBench

Make = Callable[..., Any]

BOUND = Policy(Consistency.BOUNDED, staleness=1)


@pytest.fixture
def shard(bench: ShardBench) -> ShardBench:
    bench.begin(BOUND)
    bench.obey(clocks={"chief": (1, 0), "worker:0": (1, 0)})
    return bench


def test_a_push_is_applied_at_once_and_its_values_wait_for_the_slowest(shard: ShardBench) -> None:
    assert len(shard.offer("chief", 1)) == 1
    assert shard.offer("chief", 2) == []
    assert shard.count == 2.0
    replies = shard.offer("worker:0", 1)
    assert [(one.outcome, one.version) for one in replies] == [(Outcome.APPLIED, 3)] * 2
    # Its own staleness is that of its arrival; the values are as fresh as can be.
    assert replies[1].dense["dense"].tolist() == [3.0, 3.0]


def test_who_is_gone_is_not_waited_for(shard: ShardBench) -> None:
    shard.offer("chief", 1)
    assert shard.offer("chief", 2) == []
    (reply,) = shard.obey(clocks={"chief": (1, 0)})
    assert reply.outcome is Outcome.APPLIED


def test_a_joiner_counts_from_where_the_lead_says(shard: ShardBench) -> None:
    for sequence in range(1, 4):
        shard.offer("chief", sequence)
        shard.offer("worker:0", sequence)
    shard.obey(clocks={"chief": (1, 0), "worker:0": (1, 0), "worker:1": (5, 3)})
    assert len(shard.offer("chief", 4)) == 1
    assert shard.offer("chief", 5) == []


def test_a_pull_of_nothing_does_not_wait(shard: ShardBench, request_of: Make) -> None:
    shard.offer("chief", 1)
    last = replace(request_of(2, {}, task="chief"), pull_dense=False)
    assert len(shard.exchange(last, "chief")) == 1


def test_a_lost_trainer_that_waits_is_told(shard: ShardBench) -> None:
    shard.offer("chief", 1)
    shard.offer("chief", 2)
    (reply,) = shard.obey(refused={"chief": 1})
    assert reply.outcome is Outcome.APPLIED  # its step counts
    (reply,) = shard.offer("chief", 3)
    assert reply.outcome is Outcome.FENCED


def test_a_save_goes_on_while_trainers_wait(shard: ShardBench) -> None:
    shard.offer("chief", 1)
    assert shard.offer("chief", 2) == []
    shard.hold("save")
    assert shard.offer("worker:0", 1) == []  # held: beyond the cut
    shard.cut({"chief": (1, 2)}, step=2)
    assert shard.shard.take_snapshot() is not None
    assert shard.count == 3.0


def test_the_lead_tells_who_is_live_and_nobody_waits_once_it_stops(make_lead: Make) -> None:
    bench: LeadBench = make_lead()
    bench.go_live_under(BOUND, max_steps=4)
    chief, worker = bench.number("chief"), bench.number("worker:0")
    assert bench.lead.shard_orders().clocks == {"chief": (chief, 0), "worker:0": (worker, 0)}
    bench.pull("worker:0")
    assert bench.step("chief", 1) is not None
    assert bench.step("chief", 2) is None
    assert bench.lead.grants.global_step == 2  # counted when it is applied
    bench.say_chief(stop_reason="a hook asked to stop")
    assert bench.lead.shard_orders().clocks is None
    assert bench.reply_to("chief") is not None


def test_a_trainer_counts_once_it_has_joined_and_no_longer_than_it_trains(make_lead: Make) -> None:
    bench: LeadBench = make_lead()
    bench.go_live_under(BOUND)
    bench.say("worker:0", phase=TaskPhase.JOINING, generation="")
    assert set(bench.lead.shard_orders().clocks or ()) == {"chief"}
    for sequence in range(1, 4):
        assert bench.step("chief", sequence) is not None
    bench.say("worker:0", phase=TaskPhase.WORKING, generation=bench.lead.generation)
    assert (bench.lead.shard_orders().clocks or {})["worker:0"][1] == 3
    bench.step("chief", 4)
    assert bench.step("chief", 5) is None
    bench.say("worker:0", phase=TaskPhase.INPUT_ENDED)
    assert bench.reply_to("chief") is not None


def test_who_waits_long_is_told_for_whom_and_its_push_counts_once(make_lead: Make) -> None:
    bench: LeadBench = make_lead()
    bench.go_live_under(BOUND)
    bench.step("chief", 1)
    bench.step("chief", 2)
    bench.pass_time(WAIT_ANSWER_SECS + 1.0, live=("chief", "worker:0"))
    reply = bench.reply_to("chief")
    assert reply is not None
    assert (reply.outcome, reply.waiting_for, dict(reply.dense)) == (
        Outcome.WAITING,
        "worker:0",
        {},
    )
    assert bench.step("chief", 2) is None
    assert bench.step("worker:0", 1) is not None
    again = bench.reply_to("chief")
    assert again is not None
    assert (again.outcome, again.global_step) == (Outcome.DUPLICATE, 3)
