"""Synchronous training: what a shard keeps, and what the lead makes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from psys.arrays import IndexedSlices, VariableSpec
from psys.errors import ClusterError
from psys.initializers import Constant
from psys.optimizers.schedules import PiecewiseConstant
from psys.optimizers.updates import MovingAverage, Sum
from psys.ps.memory_shard import MemoryShard
from psys.ps.messages import (
    Consistency,
    Grant,
    JobPhase,
    Outcome,
    Policy,
    ShardOrders,
    ShardPhase,
    Standing,
    TaskPhase,
    UpdateOrder,
)
from psys.ps.node import WAIT_ANSWER_SECS
from psys.ps.shard import LoadedSlice
from psys.ps.snapshot import VALUE

if TYPE_CHECKING:
    from .conftest import LeadBench, ShardBench

Make = Callable[..., Any]

SYNC = Policy(Consistency.SYNC)


@pytest.fixture
def shard(bench: ShardBench) -> ShardBench:
    bench.begin(SYNC)
    return bench


def update(number: int, *tasks: str, sequence: int = 1, step: int = 0) -> UpdateOrder:
    return UpdateOrder(number, step, dict.fromkeys(tasks, (1, sequence)))


# ---------------------------------------------------------------- the shard


def test_a_push_is_kept_until_its_update_is_ordered(shard: ShardBench) -> None:
    assert shard.offer("chief", 1) == []
    assert shard.offer("worker:0", 1, -2.0) == []
    assert shard.count == 0.0
    assert shard.shard.facts().arrived == {"chief": (1, 1), "worker:0": (1, 1)}
    replies = shard.obey(update=update(1, "chief", "worker:0"))
    told = [(one.outcome, one.version, one.staleness) for one in replies]
    assert told == [(Outcome.APPLIED, 1, 0)] * 2
    assert replies[0].dense["dense"].tolist() == [1.5, 1.5]
    assert (shard.shard.facts().updates, shard.shard.facts().arrived) == (1, {})
    assert shard.obey(update=update(1, "chief", "worker:0")) == []  # told again
    assert shard.count == 1.5


def test_what_was_left_out_and_what_comes_late_is_dropped_and_told_so(shard: ShardBench) -> None:
    shard.offer("chief", 1)
    shard.offer("worker:0", 1)
    replies = shard.obey(update=update(1, "chief"))
    assert [one.outcome for one in replies] == [Outcome.APPLIED, Outcome.DROPPED]
    (late,) = shard.offer("worker:1", 1)
    assert (late.outcome, late.staleness, late.version) == (Outcome.DROPPED, 1, 1)
    assert late.dense["dense"].tolist() == [1.0, 1.0]
    (again,) = shard.offer("worker:1", 1)
    assert again.outcome is Outcome.DROPPED  # not taken for one that was applied
    assert shard.offer("worker:1", 2, base_version=1) == []
    (gap,) = shard.offer("worker:0", 3, base_version=1)
    assert (gap.outcome, gap.reason) == (Outcome.GAP, "worker:0 pushed 3 after 1.")
    assert shard.count == 1.0


def test_a_kept_push_outlives_its_stream_and_is_taken_once(shard: ShardBench) -> None:
    shard.offer("chief", 1)
    shard.shard.forget("chief")
    assert shard.offer("chief", 1, -5.0) == []  # sent again: what was kept stays
    (reply,) = shard.obey(update=update(1, "chief"))
    assert (reply.outcome, shard.count) == (Outcome.APPLIED, 1.0)
    (again,) = shard.offer("chief", 1)
    assert again.outcome is Outcome.DUPLICATE


def test_a_gradient_may_be_chosen_though_its_trainer_was_lost_since(shard: ShardBench) -> None:
    shard.offer("chief", 1)
    (told,) = shard.obey(refused={"chief": 1}, update=update(1, "chief"))
    assert (told.outcome, shard.count) == (Outcome.APPLIED, 1.0)
    (next_one,) = shard.offer("chief", 2, base_version=1)
    assert next_one.outcome is Outcome.FENCED


def test_the_gradients_of_a_process_and_its_successor_are_kept_apart(shard: ShardBench) -> None:
    shard.offer("worker:0", 1, -3.0)
    shard.shard.forget("worker:0")
    shard.offer("worker:0", 1, -5.0, member=7)
    assert shard.shard.facts().arrived == {"worker:0": (7, 1)}
    (reply,) = shard.obey(update=update(1, "worker:0"))
    assert (reply.outcome, shard.count) == (Outcome.DROPPED, 3.0)


def test_an_order_for_what_is_not_kept_is_an_error(shard: ShardBench) -> None:
    with pytest.raises(ClusterError, match=r"does not hold: \[\('chief', 1, 1\)\]"):
        shard.obey(update=update(1, "chief"))


def test_a_shard_that_lost_its_values_makes_no_update() -> None:
    shard = MemoryShard(0)
    shard.obey(ShardOrders("g", ShardPhase.LIVE, policy=SYNC, update=update(3, "chief")))
    assert (shard.phase, shard.version) == (ShardPhase.LOADING, 0)


def test_a_pull_waits_for_the_version_that_others_have(shard: ShardBench, request_of: Make) -> None:
    shard.offer("chief", 1)
    assert shard.exchange(replace(request_of(), least_version=1), "joiner") == []
    replies = shard.obey(update=update(1, "chief"))
    assert [(one.outcome, one.version) for one in replies] == [
        (Outcome.APPLIED, 1),
        (Outcome.NONE, 1),
    ]


def test_a_cut_has_no_gradient_that_is_only_kept(shard: ShardBench) -> None:
    shard.offer("chief", 1)
    shard.obey(update=update(1, "chief"))
    shard.offer("worker:0", 1, base_version=1)
    shard.hold("save")
    assert shard.shard.facts().fences == {"chief": (1, 1)}
    assert shard.offer("chief", 2, base_version=1) == []
    assert shard.cut({"chief": (1, 1)}, step=1) == []
    snapshot = shard.shard.take_snapshot()
    assert snapshot is not None
    assert snapshot.slices[0].read(VALUE, 0, 2).tolist() == [1.0, 1.0]
    order = UpdateOrder(2, 1, {"chief": (1, 2), "worker:0": (1, 1)})
    assert len(shard.obey(save="", cut=None, update=order)) == 2


def test_inputs_and_examples_are_those_of_what_was_applied(
    shard: ShardBench, request_of: Make
) -> None:
    for task, batches in (("chief", 4), ("worker:0", 9)):
        pushed = replace(request_of(1, {}, task=task), input_batches=batches, examples=10)
        shard.exchange(pushed, task)
    shard.obey(update=update(1, "worker:0"))
    assert (shard.shard.inputs, shard.shard.examples) == ({"worker:0": 9}, 10)


def test_an_update_follows_its_own_global_step_averages_averages_and_sums_counts(
    bench: ShardBench, request_of: Make
) -> None:
    sgd = {"kind": "SGD", "learning_rate": PiecewiseConstant((5,), (1.0, 100.0)).to_config()}
    specs = (
        VariableSpec("v", (1,), "float32", Constant(), sgd),
        VariableSpec("average", (1,), "float32", Constant(), MovingAverage(0.5).to_config()),
        VariableSpec("seen", (1,), "int64", Constant(), Sum().to_config()),
        VariableSpec("table", (3, 1), "float32", Constant(), sgd, sparse=True),
    )
    bench.begin(SYNC, [LoadedSlice(spec, 0, spec.rows) for spec in specs])
    for task, number in (("chief", 1), ("worker:0", 3)):
        rows = np.arange(number, dtype=np.int64)
        push = {
            "v": np.full(1, -number, np.float32),
            "average": np.full(1, number, np.float32),
            "seen": np.full(1, number, np.int64),
            "table": IndexedSlices(rows, np.full((number, 1), -1, np.float32)),
        }
        # The step that a trainer read is not what counts: all of the set have one.
        bench.exchange(replace(request_of(1, push, task=task), global_step=number), task)
    bench.obey(update=update(1, "chief", "worker:0", step=6))
    values = {name: one.value.ravel().tolist() for name, one in bench.shard.slices.items()}
    assert values == {
        "v": [200.0],
        "average": [1.0],
        "seen": [4],
        "table": [100.0, 50.0, 50.0],
    }


# ---------------------------------------------------------------- the lead


def test_the_lead_counts_a_step_for_each_update_and_the_last_is_exact(make_lead: Make) -> None:
    bench: LeadBench = make_lead()
    bench.go_live_under(SYNC, max_steps=2)
    assert bench.pull("chief").grant is Grant.GO  # type: ignore[union-attr]
    assert bench.pull("worker:0").grant is Grant.GO  # type: ignore[union-attr]
    assert bench.step("chief", 1) is None
    reply = bench.step("worker:0", 1)
    assert reply is not None
    assert (reply.outcome, reply.global_step, reply.grant) == (Outcome.APPLIED, 1, Grant.GO)
    reply = bench.reply_to("chief")
    assert reply is not None
    assert (reply.outcome, reply.global_step, reply.grant) == (Outcome.APPLIED, 1, Grant.GO)
    bench.step("worker:0", 2, base=1)
    reply = bench.step("chief", 2, base=1)
    assert reply is not None
    assert (reply.global_step, reply.grant) == (2, Grant.STOP)
    assert bench.lead.phase is JobPhase.DRAINED
    assert bench.told["chief", "chief"].job is JobPhase.DRAINED


def test_a_backup_workers_gradient_is_dropped_and_it_goes_on(make_lead: Make) -> None:
    bench: LeadBench = make_lead(workers=2)
    bench.go_live_under(Policy(Consistency.SYNC, replicas=2), max_steps=1)
    for task in ("chief", "worker:0", "worker:1"):
        bench.pull(task)
    bench.step("chief", 1)
    bench.step("worker:1", 1)
    assert bench.reply_to("chief").outcome is Outcome.APPLIED  # type: ignore[union-attr]
    assert bench.lead.phase is JobPhase.DRAINED  # whoever is still at it changes nothing
    late = bench.step("worker:0", 1)
    assert late is not None
    assert (late.outcome, late.global_step, late.grant) == (Outcome.DROPPED, 1, Grant.STOP)


def test_a_trainer_that_leaves_or_is_lost_is_not_waited_for(make_lead: Make) -> None:
    bench: LeadBench = make_lead(workers=2)
    bench.go_live_under(SYNC)
    assert bench.step("chief", 1) is None
    bench.say("worker:1", phase=TaskPhase.LEFT)
    assert bench.reply_to("chief") is None
    bench.break_stream("worker:0")
    bench.pass_time(2.0, live=("chief",))
    assert bench.reply_to("chief").outcome is Outcome.APPLIED  # type: ignore[union-attr]


def test_the_first_update_waits_for_those_about_to_join_and_later_ones_do_not(
    make_lead: Make,
) -> None:
    bench: LeadBench = make_lead()
    bench.go_live_under(SYNC)
    bench.say("worker:0", phase=TaskPhase.JOINING, generation="")
    assert bench.step("chief", 1) is None
    bench.say("worker:0", phase=TaskPhase.WORKING, generation=bench.lead.generation)
    assert bench.step("worker:0", 1) is not None
    bench.say("worker:0", phase=TaskPhase.JOINING, generation="")
    assert bench.step("chief", 2, base=1) is not None


def test_who_waits_for_an_update_hears_after_a_while_for_whom(make_lead: Make) -> None:
    bench: LeadBench = make_lead()
    bench.go_live_under(SYNC)
    bench.step("chief", 1)
    bench.pass_time(WAIT_ANSWER_SECS, live=("chief", "worker:0"))
    assert bench.reply_to("chief") is None
    bench.pass_time(1.0, live=("chief", "worker:0"))
    reply = bench.reply_to("chief")
    assert reply is not None
    assert (reply.outcome, reply.waiting_for) == (Outcome.ACCUMULATED, "worker:0")
    assert not reply.dense
    assert bench.step("chief", 1) is None  # asked again
    bench.step("worker:0", 1)
    assert bench.reply_to("chief").outcome is Outcome.APPLIED  # type: ignore[union-attr]
    assert bench.node.shard.slices["dense"].value.tolist() == [1.0, 1.0]


def test_other_shards_must_hold_the_gradient_too_and_have_made_the_last_update(
    make_lead: Make,
) -> None:
    bench: LeadBench = make_lead(num_ps=2, workers=0)
    bench.go_live_under(SYNC)
    number = bench.number("chief")
    assert bench.step("chief", 1) is None
    bench.obeyed(1, arrived={"chief": (number, 1)})
    order = bench.lead.shard_orders().update
    assert order == UpdateOrder(1, 0, {"chief": (number, 1)})
    assert bench.reply_to("chief") is not None
    bench.step("chief", 2, base=1)
    bench.obeyed(1, arrived={"chief": (number, 2)})
    assert bench.lead.shard_orders().update == order
    bench.obeyed(1, arrived={"chief": (number, 2)}, updates=1)
    assert bench.lead.grants.global_step == 2


def test_no_update_is_ordered_while_shards_are_cut(make_lead: Make) -> None:
    bench: LeadBench = make_lead(num_ps=2, workers=0)
    bench.go_live_under(SYNC)
    bench.say_chief(save_request=1)
    save = bench.lead.shard_orders().save
    number = bench.number("chief")
    bench.step("chief", 1)
    bench.obeyed(1, arrived={"chief": (number, 1)}, held="")
    assert bench.lead.shard_orders().update is None
    bench.obeyed(1, arrived={"chief": (number, 1)})
    assert bench.lead.shard_orders().cut == {}
    assert bench.lead.shard_orders().update is None
    bench.obeyed(1, arrived={"chief": (number, 1)}, cut=save)
    assert bench.lead.shard_orders().update == UpdateOrder(1, 0, {"chief": (number, 1)})
    snapshot = bench.node.take_snapshot()
    assert snapshot is not None
    assert (snapshot.global_step, dict(snapshot.cut)) == (0, {})


def test_when_stopped_the_gradients_that_were_granted_make_a_last_update(make_lead: Make) -> None:
    bench: LeadBench = make_lead(workers=2)
    bench.go_live_under(SYNC)
    for task in ("chief", "worker:0"):
        bench.pull(task)
    bench.say_chief(stop_reason="a hook asked to stop")
    bench.step("chief", 1)
    assert bench.lead.phase is JobPhase.STOPPING
    reply = bench.step("worker:0", 1)
    assert reply is not None
    assert (reply.outcome, reply.grant) == (Outcome.APPLIED, Grant.STOP)
    assert (bench.lead.phase, bench.lead.grants.global_step) == (JobPhase.DRAINED, 1)


def test_a_worker_with_another_strategy_is_refused_by_one_sentence(make_lead: Make) -> None:
    bench: LeadBench = make_lead()
    bench.go_live_under(Policy(Consistency.SYNC, replicas=2))
    bench.say("worker:0", policy=Policy(Consistency.BOUNDED, staleness=3))
    told = bench.directive("worker:0")
    assert told.standing is Standing.REJECTED
    assert told.waiting_for == (
        'worker:0 trains with consistency="bounded", staleness=3, the chief with '
        'consistency="sync", replicas_to_aggregate=2: give every task the same '
        "ParameterServerStrategy, or the same SyncReplicasOptimizer."
    )


def test_a_new_chief_with_another_strategy_begins_a_new_generation(make_lead: Make) -> None:
    bench: LeadBench = make_lead(workers=0)
    bench.go_live_under(SYNC)
    before = bench.lead.generation
    bench.say("chief", policy=Policy(), model_digest="mine")
    assert not bench.lead.live
    assert bench.lead.generation != before
    bench.load_shard(bench.lead.generation)
    bench.say("chief", policy=Policy(), chief=replace(bench.chief, loaded=bench.lead.generation))
    assert bench.lead.live
    assert bench.lead.shard_orders().policy == Policy()
