from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from psys.ps.endings import Limits
from psys.ps.messages import (
    CheckpointEntry,
    EvaluatorFacts,
    Grant,
    JobPhase,
    ShardFile,
    ShardPhase,
    Standing,
    TaskPhase,
    Verdict,
)
from psys.ps.roster import LEASE_SECS

if TYPE_CHECKING:
    from .conftest import LeadBench

Make = Callable[..., Any]
LIMITS = Limits(start_timeout_secs=50.0, recover_secs=20.0, linger_secs=15.0)
FINISHED = Verdict(True, global_step=3, checkpoint="path")


# ---------------------------------------------------------------- the model


def test_the_model_becomes_live_only_when_all_shards_are(make_lead: Make) -> None:
    bench: LeadBench = make_lead(num_ps=2)
    lead = bench.lead
    bench.say_chief()
    assert lead.generation == ""  # ps:1 is not there
    bench.say_shard(1, ShardPhase.EMPTY)
    generation = lead.generation
    assert generation
    assert bench.directive("chief").chief.initialize == ""  # type: ignore[union-attr]
    bench.say_shard(1, ShardPhase.LOADING)
    assert bench.directive("chief").chief.initialize == generation  # type: ignore[union-attr]
    bench.load_shard(generation)
    bench.say_shard(1, ShardPhase.LOADED)
    assert lead.shard_orders().phase is ShardPhase.LOADING  # the chief has not said it is done
    bench.say_chief(loaded=generation, loaded_step=7)
    assert lead.shard_orders().phase is ShardPhase.LIVE
    assert not lead.live
    assert bench.directive("chief").generation == ""
    bench.say_shard(1, ShardPhase.LIVE)
    assert lead.live
    assert lead.grants.global_step == 7
    assert bench.directive("chief").generation == generation


def test_a_chief_that_loaded_another_generation_seals_nothing(make_lead: Make) -> None:
    bench: LeadBench = make_lead()
    bench.say_chief()
    bench.load_shard(bench.lead.generation)
    bench.say_chief(loaded="of before")
    assert bench.lead.shard_orders().phase is ShardPhase.LOADING


def test_a_ps_that_comes_back_empty_ends_the_generation_for_all(make_lead: Make) -> None:
    bench: LeadBench = make_lead(num_ps=2)
    bench.go_live()
    old = bench.lead.generation
    bench.step("worker:0", 1)
    bench.break_stream("ps:1")
    bench.pass_time(2.0, live=("chief", "worker:0"))
    assert bench.lead.live  # lost is not empty: it may come back as it was
    bench.say_shard(1, ShardPhase.EMPTY, instance="restarted", generation="")
    new = bench.lead.generation
    assert new not in ("", old)
    assert bench.node.shard.generation == new
    assert bench.node.shard.phase is ShardPhase.LOADING
    orders = bench.directive("chief").chief
    assert orders is not None
    assert orders.lost_step == 1


def test_a_ps_that_was_stopped_and_is_still_live_loses_nothing(make_lead: Make) -> None:
    bench: LeadBench = make_lead(num_ps=2, limits=LIMITS)
    bench.go_live()
    generation = bench.lead.generation
    bench.break_stream("ps:1")
    bench.pass_time(5.0, live=("chief", "worker:0"))
    assert "ps:1 to come back" in bench.directive("chief").waiting_for
    bench.say_shard(1, ShardPhase.LIVE)
    assert bench.lead.live
    assert bench.lead.generation == generation
    assert bench.directive("chief").waiting_for == ""


def test_a_ps_that_does_not_come_back_fails_the_job(make_lead: Make) -> None:
    bench: LeadBench = make_lead(num_ps=2, limits=LIMITS)
    bench.go_live()
    bench.break_stream("ps:1")
    bench.pass_time(25.0, live=("chief", "worker:0"))
    verdict = bench.lead.ending.verdict
    assert verdict is not None
    assert verdict.reason == "ps:1 was lost and did not come back within 20 s"


def test_a_ps_that_never_starts_fails_the_job_by_name(make_lead: Make) -> None:
    bench: LeadBench = make_lead(num_ps=2, limits=LIMITS)
    bench.pass_time(51.0, live=("chief",))
    verdict = bench.lead.ending.verdict
    assert verdict is not None
    assert verdict.reason == "ps:1 did not start within 50 s"


# ---------------------------------------------------------------- who belongs


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"protocol_version": 99}, "speaks protocol version 99"),
        ({"cluster_digest": "other"}, "another list of ps"),
        ({"model_digest": "other"}, "builds other variables than the chief"),
    ],
)
def test_a_process_of_another_program_is_rejected_with_one_sentence(
    make_lead: Make, facts: dict[str, Any], reason: str
) -> None:
    bench: LeadBench = make_lead()
    bench.say("chief", model_digest="mine")
    bench.say("worker:0", **facts)
    directive = bench.directive("worker:0")
    assert directive.standing is Standing.REJECTED
    assert reason in directive.waiting_for
    assert directive.member == 0


def test_a_task_that_is_not_listed_is_rejected_but_an_evaluator_may_come(make_lead: Make) -> None:
    bench: LeadBench = make_lead(workers=1)
    bench.say("worker:7")
    bench.say("evaluator")
    assert "worker:7 is not listed" in bench.directive("worker:7").waiting_for
    assert bench.directive("evaluator").standing is Standing.ADMITTED


def test_a_rejected_member_gives_its_grant_back(make_lead: Make) -> None:
    bench: LeadBench = make_lead()
    bench.go_live(max_steps=1)
    bench.pull("worker:0")
    assert bench.lead.grants.out
    bench.say("chief", model_digest="mine")
    bench.say("worker:0", model_digest="another")
    assert bench.lead.grants.out == {}
    reply = bench.pull("chief")
    assert reply is not None
    assert reply.grant is Grant.GO


def test_a_twin_is_told_to_wait_and_a_replaced_process_that_it_is(make_lead: Make) -> None:
    bench: LeadBench = make_lead()
    bench.say("worker:0", "first")
    bench.say("worker:0", "second")
    assert bench.directive("worker:0", "second").standing is Standing.WAITING
    assert "the other worker:0" in bench.directive("worker:0", "second").waiting_for
    bench.break_stream("worker:0", "first")
    bench.pass_time(2.0)
    assert bench.directive("worker:0", "second").standing is Standing.ADMITTED
    assert bench.directive("worker:0", "first").standing is Standing.REPLACED


# ---------------------------------------------------------------- grants


def test_the_last_step_is_exact_and_then_nobody_goes(make_lead: Make) -> None:
    bench: LeadBench = make_lead(workers=2)
    bench.go_live(max_steps=2)
    assert bench.pull("worker:0").grant is Grant.GO  # type: ignore[union-attr]
    assert bench.pull("worker:1").grant is Grant.GO  # type: ignore[union-attr]
    assert bench.pull("chief") is None  # it waits
    bench.step("worker:0", 1)
    assert bench.lead.phase is JobPhase.RUNNING
    reply = bench.step("worker:1", 1)
    assert reply is not None
    assert (reply.grant, reply.global_step) == (Grant.STOP, 2)
    waited = bench.reply_to("chief")
    assert waited is not None
    assert waited.grant is Grant.STOP
    assert bench.directive("chief").job is JobPhase.DRAINED
    assert bench.told["chief", "chief"].global_step == 2


def test_a_lost_trainers_grant_returns_once_every_shard_refuses_it(make_lead: Make) -> None:
    bench: LeadBench = make_lead(num_ps=2)
    bench.go_live(max_steps=1)
    bench.pull("worker:0")
    number = bench.number("worker:0")
    bench.break_stream("worker:0")
    bench.pass_time(2.0, live=("chief",))
    assert bench.lead.shard_orders().refused == {"worker:0": number}
    assert bench.lead.grants.out  # ps:1 has not said that it refuses it
    bench.obeyed(1)
    assert not bench.lead.grants.out
    assert bench.pull("chief").grant is Grant.GO  # type: ignore[union-attr]


def test_a_trainer_whose_input_ended_gives_its_grant_back(make_lead: Make) -> None:
    bench: LeadBench = make_lead()
    bench.go_live(max_steps=1)
    bench.pull("worker:0")
    assert bench.pull("chief") is None
    bench.say("worker:0", phase=TaskPhase.INPUT_ENDED)
    assert bench.reply_to("chief").grant is Grant.GO  # type: ignore[union-attr]


def test_an_old_request_of_one_that_ended_gets_no_grant(make_lead: Make) -> None:
    bench: LeadBench = make_lead()
    bench.go_live(max_steps=5)
    bench.say("worker:0", phase=TaskPhase.INPUT_ENDED)
    assert bench.pull("worker:0").grant is Grant.STOP  # type: ignore[union-attr]
    assert bench.lead.grants.out == {}


def test_a_trainer_that_takes_steps_is_not_lost_while_its_control_stream_is_away(
    make_lead: Make,
) -> None:
    bench: LeadBench = make_lead()
    bench.go_live()
    number = bench.number("worker:0")
    bench.break_stream("worker:0")
    for sequence in range(1, 6):
        bench.pass_time(1.0, live=("chief",))
        bench.step("worker:0", sequence)
    assert bench.number("worker:0") == number
    assert bench.lead.roster.get("worker:0") is not None
    bench.pass_time(2.0, live=("chief",))
    assert bench.lead.roster.get("worker:0") is None


# ---------------------------------------------------------------- the chief


def test_a_new_chief_takes_a_live_model_over_without_a_roll_back(make_lead: Make) -> None:
    bench: LeadBench = make_lead()
    bench.go_live(max_steps=9)
    generation = bench.lead.generation
    bench.break_stream("chief")
    bench.pass_time(2.0, live=("worker:0",))
    assert "chief to come back" in bench.directive("worker:0").waiting_for
    bench.say("chief", "second")
    assert (bench.lead.generation, bench.lead.live) == (generation, True)
    assert bench.directive("chief", "second").chief.initialize == ""  # type: ignore[union-attr]


def test_a_new_chief_rolls_back_what_the_old_one_was_loading(make_lead: Make) -> None:
    bench: LeadBench = make_lead()
    bench.say_chief()
    generation = bench.lead.generation
    bench.break_stream("chief")
    bench.pass_time(2.0)
    bench.say("chief", "second")
    assert bench.lead.generation not in ("", generation)


def test_why_a_chief_that_left_stopped_does_not_stop_the_next(make_lead: Make) -> None:
    bench: LeadBench = make_lead()
    bench.go_live(max_steps=9)
    bench.say_chief(stop_reason="SIGTERM")
    bench.say("chief", phase=TaskPhase.LEFT)
    assert bench.lead.phase is JobPhase.DRAINED
    assert bench.pull("worker:0").grant is Grant.STOP  # type: ignore[union-attr]
    bench.say_chief("second", stop_reason="")
    assert bench.lead.phase is JobPhase.RUNNING
    assert bench.pull("worker:0").grant is Grant.GO  # type: ignore[union-attr]


def test_a_chief_that_does_not_come_back_fails_the_job(make_lead: Make) -> None:
    bench: LeadBench = make_lead(limits=LIMITS)
    bench.go_live()
    bench.break_stream("chief")
    bench.pass_time(25.0, live=("worker:0",))
    verdict = bench.lead.ending.verdict
    assert verdict is not None
    assert "chief was lost" in verdict.reason


# ---------------------------------------------------------------- saving


def test_a_save_with_two_ps_goes_through_directives_and_reports(make_lead: Make) -> None:
    bench: LeadBench = make_lead(num_ps=2)
    bench.go_live()
    bench.step("worker:0", 1)
    number = bench.number("worker:0")
    bench.say_chief(save_request=1)
    save = bench.directive("ps:1").shard.save  # type: ignore[union-attr]
    assert save
    assert bench.directive("ps:1").shard.cut is None  # type: ignore[union-attr]
    assert bench.step("worker:0", 2) is None  # held
    bench.obeyed(1, fences={"worker:0": (number, 2)})
    orders = bench.directive("ps:1").shard
    assert orders is not None
    assert (orders.cut, orders.cut_step) == ({"worker:0": (number, 2)}, 2)
    assert bench.reply_to("worker:0") is not None  # in the cut: let in
    file = ShardFile("shard-1", 1, "hash")
    bench.obeyed(1, cut=save)
    bench.write()
    bench.obeyed(1, cut=save, written=save, file=file)
    saved = bench.directive("chief").chief.saved  # type: ignore[union-attr]
    assert saved is not None
    assert (saved.checkpoint_id, saved.global_step, saved.files[1]) == (save, 2, file)
    assert bench.directive("ps:1").shard.save == ""  # type: ignore[union-attr]


def test_a_hold_does_not_outlast_its_chief(make_lead: Make) -> None:
    bench: LeadBench = make_lead(num_ps=2, limits=LIMITS)
    bench.go_live()
    bench.say_chief(save_request=1)
    bench.break_stream("chief")
    assert bench.step("worker:0", 1) is None
    bench.pass_time(3.0, live=("worker:0",))
    save = bench.lead.shard_orders().save
    assert save
    bench.obeyed(1)
    bench.obeyed(1, cut=save)
    assert bench.reply_to("worker:0") is not None


def test_nobody_is_held_for_a_ps_that_is_lost(make_lead: Make) -> None:
    bench: LeadBench = make_lead(num_ps=2, limits=LIMITS)
    bench.go_live()
    bench.say_chief(save_request=1)
    assert bench.step("worker:0", 1) is None
    bench.break_stream("ps:1")
    bench.pass_time(2.0, live=("chief", "worker:0"))
    assert bench.reply_to("worker:0") is not None
    bench.say_shard(1, ShardPhase.LIVE)
    assert bench.lead.shard_orders().save  # the request stands


def test_an_unanswered_request_is_served_in_the_next_generation(make_lead: Make) -> None:
    bench: LeadBench = make_lead()
    bench.go_live()
    bench.say_chief(save_request=1)
    bench.write()
    assert bench.directive("chief").chief.saved.request == 1  # type: ignore[union-attr]
    bench.lead._end_generation()
    bench.say_chief(save_request=2)
    bench.load()
    bench.write()
    assert bench.directive("chief").chief.saved.request == 2  # type: ignore[union-attr]
    assert bench.lead.saving.attempt is None  # request 1 was not served again


# ---------------------------------------------------------------- endings


def test_all_input_ended_drains_the_job(make_lead: Make) -> None:
    bench: LeadBench = make_lead()
    bench.go_live()
    bench.say("chief", phase=TaskPhase.INPUT_ENDED)
    assert bench.lead.phase is JobPhase.RUNNING
    bench.say("worker:0", phase=TaskPhase.INPUT_ENDED)
    assert bench.lead.phase is JobPhase.DRAINED


def test_steps_lost_after_the_last_with_nobody_left_to_train_are_no_success(
    make_lead: Make,
) -> None:
    bench: LeadBench = make_lead(num_ps=2)
    bench.go_live(max_steps=1)
    bench.step("worker:0", 1)
    for task in ("chief", "worker:0"):
        bench.say(task, phase=TaskPhase.INPUT_ENDED)
    bench.say_shard(1, ShardPhase.EMPTY, generation="")
    bench.load(step=0)
    bench.tick()
    verdict = bench.lead.ending.verdict
    assert verdict is not None
    assert "went back from step 1 to 0 and no trainer is left" in verdict.reason


def test_an_exception_in_a_task_fails_the_job_with_its_reason(make_lead: Make) -> None:
    bench: LeadBench = make_lead()
    bench.go_live()
    entry = CheckpointEntry("id", 3, "path")
    bench.say_chief(committed=(entry,))
    bench.say("worker:0", phase=TaskPhase.FAILED, reason="ValueError: no")
    verdict = bench.lead.ending.verdict
    assert verdict is not None
    assert (verdict.finished, verdict.reason) == (False, "worker:0: ValueError: no")
    assert verdict.checkpoint == "path"
    assert bench.pull("chief").grant is Grant.STOP  # type: ignore[union-attr]


def test_the_verdict_is_written_once_and_all_hear_the_same(make_lead: Make) -> None:
    bench: LeadBench = make_lead()
    bench.go_live()
    bench.say_chief(conclusion=FINISHED)
    bench.say("worker:0", phase=TaskPhase.FAILED, reason="too late")
    bench.lead.fail("later still", bench.now)
    for task in ("chief", "worker:0"):
        assert bench.directive(task).verdict == FINISHED
        assert bench.directive(task).job is JobPhase.ENDED


def test_nobody_is_held_once_there_is_a_verdict(make_lead: Make) -> None:
    bench: LeadBench = make_lead(num_ps=2)
    bench.go_live()
    bench.say_chief(save_request=1)
    assert bench.step("worker:0", 1) is None
    bench.say("chief", phase=TaskPhase.FAILED, reason="x")
    assert bench.reply_to("worker:0") is not None


def test_what_the_evaluator_did_is_told_to_the_chief_and_kept(make_lead: Make) -> None:
    bench: LeadBench = make_lead()
    bench.go_live()
    assert bench.directive("chief").chief.evaluator == "absent"  # type: ignore[union-attr]
    facts = EvaluatorFacts(frozenset({"id"}), frozenset({"pin"}), "batch 3", "export")
    bench.say("evaluator", evaluator=facts)
    orders = bench.directive("chief").chief
    assert orders is not None
    assert (orders.completed, orders.pins, orders.export) == ({"id"}, {"pin"}, "export")
    assert (orders.evaluator, orders.evaluator_seen) == ("batch 3", True)
    bench.break_stream("evaluator")
    bench.pass_time(2.0, live=("chief", "worker:0"))
    orders = bench.directive("chief").chief
    assert orders is not None
    assert (orders.completed, orders.pins, orders.evaluator) == ({"id"}, set(), "absent")


def test_the_lead_leaves_when_all_have_heard_or_it_lingered(make_lead: Make) -> None:
    bench: LeadBench = make_lead(num_ps=2, limits=LIMITS)
    bench.go_live()
    assert not bench.lead.may_leave(bench.now)
    bench.say_chief(conclusion=FINISHED)
    bench.say("chief", heard_verdict=True)
    assert bench.lead.unheard() == ["ps:1", "worker:0"]
    assert not bench.lead.may_leave(bench.now + 14.0)
    assert bench.lead.may_leave(bench.now + 15.0)
    bench.say("worker:0", heard_verdict=True)
    bench.say("ps:1", heard_verdict=True)
    assert bench.lead.may_leave(bench.now)


# ---------------------------------------------------------------- time


def test_after_a_jump_of_the_clock_nobody_is_lost_and_nothing_ends(make_lead: Make) -> None:
    bench: LeadBench = make_lead(limits=LIMITS)
    bench.go_live()
    bench.pass_time(1.0, live=("worker:0",))
    bench.break_stream("chief")
    bench.pass_time(2.0, live=("worker:0",))
    bench.now += 60.0  # stopped, longer than recover_secs
    bench.tick()
    assert bench.lead.ending.verdict is None
    assert bench.lead.roster.get("worker:0") is not None
    bench.pass_time(LEASE_SECS - 1.0, live=("worker:0",))
    assert bench.lead.ending.verdict is None
    bench.say("chief")
    assert bench.directive("chief").waiting_for == ""
