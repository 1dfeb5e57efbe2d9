from __future__ import annotations

from psys.ps.endings import Ending, Limits, Waits, inputs_ended, overdue
from psys.ps.messages import Report, TaskPhase, Verdict
from psys.ps.roster import Roster

LIMITS = Limits(start_timeout_secs=100.0, recover_secs=30.0, linger_secs=20.0)
TRAINERS = ("chief", "worker:0")


def roster_of(**phases: TaskPhase) -> Roster:
    roster = Roster()
    for revision, (name, phase) in enumerate(phases.items()):
        roster.hear(Report(name.replace("_", ":"), name, revision, phase=phase), 0.0)
    return roster


def lose(roster: Roster, task: str) -> None:
    roster.members[task].lease_until_secs = 0.0
    assert [one.task for one in roster.expire(1.0)] == [task]


def test_a_wait_is_over_its_limit_only_if_it_was_named_in_every_pass() -> None:
    waits = Waits()
    for now in (0.0, 9.0):
        waits.begin_pass()
        assert not waits.note("ps:1", 10.0, now)
        waits.end_pass()
    waits.begin_pass()
    waits.end_pass()
    waits.begin_pass()
    assert not waits.note("ps:1", 10.0, 12.0)  # it had come back in between
    waits.end_pass()
    waits.begin_pass()
    assert waits.note("ps:1", 10.0, 22.0)


def test_waits_are_described_with_their_limits() -> None:
    waits = Waits()
    assert waits.describe() == ""
    waits.begin_pass()
    waits.note("the chief", 30.0, 0.0)
    waits.note("ps:1", 60.0, 0.0)
    waits.end_pass()
    assert waits.describe() == "the chief (at most 30 s); ps:1 (at most 60 s)"
    waits.begin_pass()
    waits.end_pass()
    assert waits.describe() == ""


def test_no_wait_is_over_while_patience_lasts() -> None:
    waits = Waits()
    waits.begin_pass()
    waits.note("ps:1", 10.0, 0.0)
    waits.end_pass()
    waits.be_patient(70.0)
    waits.begin_pass()
    assert not waits.note("ps:1", 10.0, 60.0)
    waits.end_pass()
    waits.begin_pass()
    assert waits.note("ps:1", 10.0, 70.0)


def overdue_after(secs: float, roster: Roster) -> str:
    waits = Waits()
    for now in (1.0, 1.0 + secs):
        waits.begin_pass()
        reason = overdue(TRAINERS, roster, waits, LIMITS, now)
        waits.end_pass()
    return reason


def test_a_task_that_was_lost_is_waited_for_recover_secs() -> None:
    roster = roster_of(chief=TaskPhase.WORKING, worker_0=TaskPhase.WORKING)
    lose(roster, "chief")
    assert overdue_after(29.0, roster) == ""
    assert overdue_after(30.0, roster) == "chief was lost and did not come back within 30 s"


def test_a_task_never_seen_is_waited_for_start_timeout_secs() -> None:
    roster = roster_of(chief=TaskPhase.WORKING)
    assert overdue_after(99.0, roster) == ""
    assert overdue_after(100.0, roster) == "worker:0 did not start within 100 s"


def test_input_has_ended_when_every_listed_trainer_ended_or_left() -> None:
    roster = roster_of(chief=TaskPhase.INPUT_ENDED, worker_0=TaskPhase.LEFT)
    assert inputs_ended(TRAINERS, roster, Waits(), LIMITS, 0.0) == (True, "")


def test_while_one_trains_nothing_has_ended_and_nobody_is_waited_for() -> None:
    roster, waits = roster_of(chief=TaskPhase.WORKING), Waits()
    assert inputs_ended(TRAINERS, roster, waits, LIMITS, 10**6) == (False, "")
    assert waits.describe() == ""


def test_the_input_of_a_lost_trainer_is_never_left_out_in_silence() -> None:
    roster, waits = roster_of(chief=TaskPhase.INPUT_ENDED, worker_0=TaskPhase.WORKING), Waits()
    lose(roster, "worker:0")
    waits.begin_pass()
    assert inputs_ended(TRAINERS, roster, waits, LIMITS, 1.0) == (False, "")
    waits.end_pass()
    waits.begin_pass()
    ended, reason = inputs_ended(TRAINERS, roster, waits, LIMITS, 1.0 + LIMITS.recover_secs)
    assert not ended
    assert reason == (
        "worker:0 was lost and did not come back within 30 s; its input was not trained on"
    )


def test_a_trainer_that_is_lost_after_its_input_ended_is_not_waited_for() -> None:
    roster = roster_of(chief=TaskPhase.INPUT_ENDED, worker_0=TaskPhase.INPUT_ENDED)
    lose(roster, "worker:0")
    assert inputs_ended(TRAINERS, roster, Waits(), LIMITS, 1.0) == (True, "")


def test_the_second_verdict_is_told_the_first() -> None:
    ending = Ending()
    first = ending.conclude(Verdict(False, "first"), 1.0)
    assert ending.conclude(Verdict(True), 2.0) is first
    assert ending.verdict is first


def test_the_lead_stays_for_listed_tasks_until_they_heard_or_it_lingered_enough() -> None:
    ending, roster = Ending(), roster_of(chief=TaskPhase.WORKING)
    assert not ending.may_leave(TRAINERS, roster, LIMITS, 10**6)
    ending.conclude(Verdict(True), 5.0)
    assert ending.unheard(TRAINERS, roster) == ["chief", "worker:0"]
    roster.hear(Report("chief", "chief", 9, heard_verdict=True), 5.0)
    assert ending.unheard(TRAINERS, roster) == ["worker:0"]
    assert not ending.may_leave(TRAINERS, roster, LIMITS, 24.9)
    assert ending.may_leave(TRAINERS, roster, LIMITS, 25.0)
    roster.hear(Report("worker:0", "x", 0, heard_verdict=True), 6.0)
    assert ending.may_leave(TRAINERS, roster, LIMITS, 6.0)


def test_the_lead_does_not_stay_for_those_that_left_or_failed() -> None:
    ending = Ending()
    ending.conclude(Verdict(False, "x"), 0.0)
    roster = roster_of(chief=TaskPhase.FAILED, worker_0=TaskPhase.LEFT)
    assert ending.unheard(TRAINERS, roster) == []


def test_the_lead_stays_for_an_unlisted_evaluator_that_is_there() -> None:
    ending = Ending()
    ending.conclude(Verdict(True), 0.0)
    roster = roster_of(chief=TaskPhase.LEFT, worker_0=TaskPhase.LEFT, evaluator=TaskPhase.WORKING)
    assert ending.unheard(TRAINERS, roster) == ["evaluator"]
