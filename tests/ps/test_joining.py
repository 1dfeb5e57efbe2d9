from __future__ import annotations

import itertools
from typing import Any

import pytest

from psys.ps.job import EndedRun
from psys.ps.joining import objection, settle
from psys.ps.messages import (
    ChiefFacts,
    Consistency,
    Policy,
    Report,
    Standing,
    TaskPhase,
    Verdict,
)

FINISHED = Verdict(True, global_step=9)
LISTED = ("chief", "worker:0", "ps:0", "evaluator")


def report(task: str = "worker:0", **changes: Any) -> Report:
    return Report(task, "instance", 1, **changes)


def chief(job_id: str = "", proposed: str = "") -> Report:
    return report("chief", job_id=job_id, chief=ChiefFacts(proposed_job=proposed))


def objects(one: Report, **changes: Any) -> str:
    known: dict[str, Any] = {
        "job_id": "today",
        "cluster_digest": "",
        "listed": LISTED,
        "chief": report("chief", model_digest="m", plan_digest="p", policy=Policy()),
    }
    return objection(one, **{**known, **changes})


def test_who_belongs_to_the_job_is_not_objected_to() -> None:
    same = report(job_id="today", model_digest="m", plan_digest="p", policy=Policy())
    for one in (report(), same, report("evaluator"), chief()):
        assert objects(one) == ""


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"protocol_version": 99}, "protocol version 99, the lead 1: install the same psys"),
        ({"cluster_digest": "x"}, "another list of ps than the lead"),
        ({"job_id": "yesterday"}, "belongs to run yesterday of a job, the lead to run today"),
        ({"task": "worker:7"}, "worker:7 is not listed"),
        ({"model_digest": "n"}, "builds other variables than the chief"),
        ({"plan_digest": "q"}, "looks for variables on other ps than the chief puts them on"),
        ({"policy": Policy(Consistency.SYNC)}, "give every task the same ParameterServerStrategy"),
    ],
)
def test_each_difference_is_one_sentence(changes: dict[str, Any], sentence: str) -> None:
    assert sentence in objects(Report(**{**report().__dict__, **changes}))


@pytest.mark.parametrize("known", [None, report("chief")])
def test_before_the_chief_has_built_its_model_no_trainer_is_another(known: Report | None) -> None:
    one = report(model_digest="n", plan_digest="q", policy=Policy(Consistency.SYNC))
    assert objects(one, chief=known) == ""


def test_while_the_run_is_not_settled_nobody_is_of_another() -> None:
    assert objects(report(job_id="yesterday"), job_id="") == ""


@pytest.mark.parametrize(
    ("reports", "ended", "run"),
    [
        ([chief()], None, "new"),
        ([], None, "new"),
        ([chief("its own", "proposed"), report(job_id="other")], None, "its own"),
        ([chief("", "proposed"), report(job_id="other")], None, "proposed"),
        ([chief(), report(job_id="other")], None, "other"),
        ([report(job_id="other")], None, "other"),
        ([chief("", "ended"), report(job_id="other")], ("ended", FINISHED), "other"),
        ([chief(), report(job_id="ended")], ("ended", FINISHED), "new"),
        ([chief("ended")], ("ended", FINISHED), "ended"),
    ],
)
def test_a_restarted_lead_finds_out_which_run_goes_on(
    reports: list[Report], ended: EndedRun | None, run: str
) -> None:
    assert settle(reports, ended, lambda: "new") == run


# ---------------------------------------------------------------- by the lead


def test_the_run_is_told_to_others_once_the_chief_keeps_it(make_lead: Any) -> None:
    bench = make_lead(workers=1)
    bench.say("worker:0")
    assert bench.directive("worker:0").job_id == ""  # no chief yet: nothing is settled
    bench.say_chief()
    run = bench.lead.job_id
    assert run
    assert bench.directive("chief").job_id == run
    assert bench.directive("worker:0").job_id == ""
    bench.say("chief", job_id=run)
    assert bench.directive("worker:0").job_id == run


def test_a_given_run_is_told_to_all_from_the_start(make_lead: Any) -> None:
    bench = make_lead(job_id="given")
    bench.say("worker:0", job_id="given")
    assert bench.directive("worker:0").job_id == "given"
    bench.say("worker:0", "left over", job_id="yesterday")
    told = bench.directive("worker:0", "left over")
    assert told.standing is Standing.REJECTED
    assert "run yesterday" in told.waiting_for


def test_what_is_left_over_is_rejected_once_the_run_is_settled(make_lead: Any) -> None:
    bench = make_lead(workers=1)
    bench.say("worker:0", job_id="yesterday")
    assert bench.directive("worker:0").standing is Standing.ADMITTED
    bench.say("chief", job_id="today")
    assert bench.lead.job_id == "today"
    assert bench.directive("worker:0").standing is Standing.REJECTED
    assert bench.lead.roster.get("worker:0") is None


def test_a_lead_restarted_after_the_verdict_stays_with_it(make_lead: Any) -> None:
    ended = ("run", FINISHED)
    bench = make_lead(ended=ended)
    bench.say("worker:0", job_id="run")
    assert bench.directive("worker:0").verdict == FINISHED
    assert bench.lead.ending.verdict is None  # the next run may be about to start
    bench.say("chief", job_id="run")
    assert bench.lead.ending.verdict == FINISHED
    bench.say("chief", job_id="run", phase=TaskPhase.FAILED, reason="later")
    assert bench.lead.ending.verdict == FINISHED


def test_an_ended_run_is_not_the_next_one(make_lead: Any) -> None:
    bench = make_lead(ended=("run", FINISHED))
    bench.say_chief(proposed_job="run")
    assert bench.lead.job_id not in ("", "run")
    assert bench.lead.ending.verdict is None


def test_a_verdict_names_its_run_also_before_there_is_a_model(make_lead: Any) -> None:
    bench = make_lead()
    bench.say("worker:0", job_id="run")
    bench.lead.fail("nobody came", bench.now)
    assert bench.lead.job_id == "run"


def test_a_conclusion_is_of_the_run_its_chief_takes_part_in(make_lead: Any) -> None:
    bench = make_lead(num_ps=2)
    bench.chief = ChiefFacts(conclusion=FINISHED)
    bench.say("chief", job_id="run")  # ps:1 has not come back to the new lead yet
    assert (bench.lead.ending.verdict, bench.lead.job_id) == (FINISHED, "run")


def test_ids_are_made_only_where_none_is_known(make_lead: Any) -> None:
    made = itertools.count()
    assert settle([chief("one")], None, lambda: str(next(made))) == "one"
    assert next(made) == 0
