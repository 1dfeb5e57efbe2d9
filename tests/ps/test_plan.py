"""What the lead knows of the plan: that of the live model, told with its load and in no report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from psys.arrays import PlannedSlice
from psys.errors import ModelError
from psys.ps.messages import Policy, ShardPhase, Standing
from psys.ps.shard import LoadedSlice

if TYPE_CHECKING:
    from .conftest import LeadBench

Make = Callable[..., Any]

FAR = tuple(PlannedSlice(f"v{number:03d}", 0, 9, 1, 36) for number in range(1000))


def loaded(bench: LeadBench) -> tuple[list[LoadedSlice], tuple[PlannedSlice, ...]]:
    """Load the lead's shard; return its slices, and a plan that has them and others elsewhere."""
    bench.say_shard(1, ShardPhase.EMPTY, generation="")
    bench.say_chief()
    bench.say_shard(1, ShardPhase.LOADING)
    bench.load_shard(bench.lead.generation)
    states = bench.node.shard.slices.values()
    near = [PlannedSlice(s.spec.name, 0, s.spec.rows, 0, s.value.nbytes) for s in states]
    return [LoadedSlice(s.spec, 0, s.spec.rows) for s in states], (*near, *FAR)


def test_the_lead_keeps_the_plan_and_tells_nobody(make_lead: Make) -> None:
    bench: LeadBench = make_lead(num_ps=2)
    slices, plan = loaded(bench)
    before = bench.node.shard.facts(), bench.lead.shard_orders()
    bench.node.load(bench.lead.generation, list(slices), bench.now, plan)
    assert bench.lead.plan == plan
    assert (bench.node.shard.facts(), bench.lead.shard_orders()) == before


def test_a_plan_that_is_not_what_was_loaded_is_refused_before_anything_changes(
    make_lead: Make,
) -> None:
    bench: LeadBench = make_lead(num_ps=2)
    slices, plan = loaded(bench)
    bench.node.load(bench.lead.generation, list(slices), bench.now, plan)
    states = bench.node.shard.slices
    for other, message in (
        ((replace(plan[0], stop=plan[0].stop + 1), *plan[1:]), "other slices than the plan has"),
        (plan[1:], "other slices than the plan has here"),
        ((*plan, PlannedSlice("w", 0, 1, 2, 4)), "for more shards than 2"),
    ):
        with pytest.raises(ModelError, match=message):
            bench.node.load(bench.lead.generation, list(slices), bench.now, other)
        assert bench.node.shard.slices is states
        assert bench.lead.plan == plan


def test_a_new_chief_that_spreads_the_model_otherwise_begins_a_new_generation(
    make_lead: Make,
) -> None:
    bench: LeadBench = make_lead(workers=0)
    model: dict[str, Any] = {"policy": Policy(), "model_digest": "m", "plan_digest": "p"}
    bench.say("chief", **model)
    bench.load_shard(bench.lead.generation)
    bench.say("chief", **model, chief=replace(bench.chief, loaded=bench.lead.generation))
    before = bench.lead.generation
    bench.break_stream("chief")
    assert bench.lead.live
    # It has not built its model yet: nothing is known that could be otherwise.
    bench.say("chief", policy=None)
    assert bench.lead.live
    bench.say("chief", **{**model, "plan_digest": "q"})
    assert not bench.lead.live
    assert bench.lead.generation != before


def test_workers_are_looked_at_again_when_the_plan_of_a_new_chief_is_known(make_lead: Make) -> None:
    bench: LeadBench = make_lead()
    bench.say("chief", policy=Policy(), model_digest="m", plan_digest="p")
    bench.say("worker:0", policy=Policy(), model_digest="m", plan_digest="p")
    assert bench.directive("worker:0").standing is Standing.ADMITTED
    bench.say("chief", policy=Policy(), model_digest="m", plan_digest="q")
    told = bench.directive("worker:0")
    assert told.standing is Standing.REJECTED
    assert "looks for variables on other ps than the chief puts them on" in told.waiting_for
