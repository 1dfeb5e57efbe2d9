from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from psys.ps.messages import Grant, JobPhase, Outcome, ShardPhase, TaskPhase
from psys.ps.node import WAIT_ANSWER_SECS, Node
from psys.ps.tally import PushCounts

if TYPE_CHECKING:
    from .conftest import LeadBench

Make = Callable[..., Any]


def test_a_node_without_the_lead_grants_nothing(request_of: Callable[..., Any]) -> None:
    node = Node(1, lambda: "id")
    ((caller, reply),) = node.exchange("c", request_of(wants_grant=True), 0.0)
    assert (caller, reply.outcome) == ("c", Outcome.GENERATION_CHANGED)
    assert reply.grant is Grant.NONE
    assert node.take_directives() == {}


def test_a_reply_tells_step_and_grant(make_lead: Make) -> None:
    bench: LeadBench = make_lead()
    bench.go_live(step=5)
    reply = bench.step("worker:0", 1)
    assert reply is not None
    assert (reply.outcome, reply.global_step, reply.grant) == (Outcome.APPLIED, 6, Grant.GO)
    reply = bench.step("worker:0", 2, wants_grant=False)
    assert reply is not None
    assert (reply.global_step, reply.grant) == (7, Grant.NONE)


def test_a_duplicate_counts_no_step_and_still_gets_the_grant(make_lead: Make) -> None:
    bench: LeadBench = make_lead()
    bench.go_live(max_steps=5)
    bench.step("worker:0", 1)
    reply = bench.step("worker:0", 1)
    assert reply is not None
    assert (reply.outcome, reply.global_step, reply.grant) == (Outcome.DUPLICATE, 1, Grant.GO)


def test_who_waits_for_a_grant_hears_after_a_while_for_whom(make_lead: Make) -> None:
    bench: LeadBench = make_lead()
    bench.go_live(max_steps=1)
    bench.pull("worker:0")
    assert bench.pull("chief") is None
    bench.pass_time(WAIT_ANSWER_SECS - 0.5, live=("chief", "worker:0"))
    assert bench.reply_to("chief") is None
    bench.pass_time(0.5, live=("chief", "worker:0"))
    reply = bench.reply_to("chief")
    assert reply is not None
    assert (reply.grant, reply.waiting_for) == (Grant.WAIT, "worker:0")


def test_a_grant_that_becomes_free_goes_to_who_waits(make_lead: Make) -> None:
    bench: LeadBench = make_lead()
    bench.go_live(max_steps=2)
    bench.pull("worker:0")
    bench.pull("chief")
    bench.step("worker:0", 1)
    assert bench.reply_to("worker:0") is None
    assert bench.lead.grants.out == {"chief": bench.number("chief")}
    bench.say("chief", phase=TaskPhase.INPUT_ENDED)
    assert bench.reply_to("worker:0").grant is Grant.GO  # type: ignore[union-attr]


def test_who_waits_is_told_when_the_generation_ends(make_lead: Make) -> None:
    bench: LeadBench = make_lead(num_ps=2)
    bench.go_live(max_steps=1)
    bench.pull("worker:0")
    assert bench.pull("chief") is None
    bench.say_shard(1, ShardPhase.EMPTY, generation="")
    reply = bench.reply_to("chief")
    assert reply is not None
    assert reply.outcome is Outcome.GENERATION_CHANGED
    assert (dict(reply.dense), reply.grant) == ({}, Grant.NONE)


def test_who_waits_and_is_given_up_for_lost_is_fenced(make_lead: Make) -> None:
    bench: LeadBench = make_lead()
    bench.go_live(max_steps=1)
    bench.pull("chief")
    assert bench.pull("worker:0") is None
    bench.break_stream("worker:0")
    bench.pass_time(2.0, live=("chief",))
    assert bench.reply_to("worker:0").outcome is Outcome.FENCED  # type: ignore[union-attr]


def test_a_caller_that_is_gone_gets_no_reply_and_no_grant(make_lead: Make) -> None:
    bench: LeadBench = make_lead()
    bench.go_live(max_steps=1)
    bench.pull("chief")
    bench.pull("worker:0")
    bench.node.forget("worker:0")
    bench.say("chief", phase=TaskPhase.INPUT_ENDED)
    assert bench.reply_to("worker:0") is None
    assert bench.lead.grants.out == {}


def test_a_parked_push_is_counted_and_granted_when_the_hold_ends(make_lead: Make) -> None:
    bench: LeadBench = make_lead(num_ps=2)
    bench.go_live()
    bench.say_chief(save_request=1)
    assert bench.step("worker:0", 1) is None
    assert bench.lead.grants.global_step == 0
    bench.obeyed(1)
    reply = bench.reply_to("worker:0")
    assert reply is not None
    assert (reply.outcome, reply.grant, reply.global_step) == (Outcome.APPLIED, Grant.GO, 1)


def test_directives_are_told_when_they_change_and_steps_alone_are_no_change(
    make_lead: Make,
) -> None:
    bench: LeadBench = make_lead()
    bench.go_live()
    bench.told.clear()
    for sequence in range(1, 4):
        bench.step("worker:0", sequence)
    assert bench.told == {}
    bench.pass_time(1.0, live=("chief", "worker:0"))
    # Steps are no news, but what became of the pushes the chief hears from time to time.
    assert {task for task, _ in bench.told} == {"chief"}
    bench.told.clear()
    bench.pass_time(1.0, live=("chief", "worker:0"))
    assert bench.told == {}
    bench.say_chief(stop_reason="early stopping")
    assert {task for task, _ in bench.told} == {"chief", "worker:0"}
    assert bench.told["chief", "chief"].job is JobPhase.STOPPING
    assert bench.told["chief", "chief"].global_step == 3


def test_the_chief_hears_what_became_of_all_pushes(make_lead: Make) -> None:
    bench: LeadBench = make_lead()
    bench.go_live(max_steps=5)

    def told() -> PushCounts:
        orders = bench.told["chief", "chief"].chief
        assert orders is not None
        return orders.pushes

    generation = bench.told["chief", "chief"].generation
    assert told() == PushCounts(generation)
    bench.step("worker:0", 1)
    bench.step("worker:0", 2)
    assert told() == PushCounts(generation)
    bench.pass_time(0.25, live=("chief", "worker:0"))
    assert sum(told().staleness) == 2
    for sequence in (3, 4, 5):
        bench.step("worker:0", sequence)
    # With the last step at once: the chief then writes for the last time.
    assert bench.told["chief", "chief"].job is JobPhase.DRAINED
    assert sum(told().staleness) == 5


def test_revisions_grow_and_a_new_stream_is_told_everything_again(make_lead: Make) -> None:
    bench: LeadBench = make_lead()
    bench.go_live()
    first = bench.told["chief", "chief"]
    bench.told.clear()
    bench.node.tell_again(("chief", "chief"))
    bench.say("chief")
    again = bench.told["chief", "chief"]
    assert again.revision > first.revision
    assert (again.generation, again.member) == (first.generation, first.member)


def test_the_last_step_tells_everyone_at_once(make_lead: Make) -> None:
    bench: LeadBench = make_lead()
    bench.go_live(max_steps=1)
    bench.told.clear()
    bench.step("worker:0", 1)
    assert bench.told["chief", "chief"].job is JobPhase.DRAINED
    assert bench.told["chief", "chief"].global_step == 1
