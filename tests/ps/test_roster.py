from __future__ import annotations

import pytest

from psys.ps.messages import Report, TaskPhase
from psys.ps.roster import BROKEN_STREAM_LEASE_SECS, LEASE_SECS, Member, Roster

A, B, C = ("chief", "a"), ("chief", "b"), ("chief", "c")


def say(
    roster: Roster, instance: tuple[str, str], now: float, revision: int = 1, **facts: object
) -> Member | None:
    return roster.hear(Report(*instance, revision, **facts), now)  # type: ignore[arg-type]


def number_of(roster: Roster, task: str) -> int:
    return roster.members[task].number


def test_numbers_only_grow_over_all_tasks() -> None:
    roster = Roster()
    numbers = []
    for task in ("chief", "worker:0", "worker:1"):
        member = say(roster, (task, "x"), 0.0)
        assert member is not None
        numbers.append(member.number)
    assert numbers == [1, 2, 3]


def test_numbers_go_on_from_what_tasks_remember_of_a_lead_before() -> None:
    roster = Roster()
    say(roster, A, 0.0, member=7)
    assert number_of(roster, "chief") == 8


def test_a_report_renews_the_lease_and_silence_ends_it() -> None:
    roster = Roster()
    say(roster, A, 0.0)
    say(roster, A, 5.0, revision=2)
    assert roster.expire(LEASE_SECS) == []
    (lost,) = roster.expire(5.0 + LEASE_SECS)
    assert (lost.task, lost.live, lost.trains) == ("chief", False, False)
    assert roster.get("chief") is None
    assert roster.expire(100.0) == []  # told once


def test_an_older_report_that_comes_late_changes_nothing() -> None:
    roster = Roster()
    say(roster, A, 0.0, revision=2, phase=TaskPhase.WORKING)
    say(roster, A, 5.0, revision=1)
    assert roster.members["chief"].report.phase is TaskPhase.WORKING
    assert roster.expire(LEASE_SECS) != []


def test_a_lost_lease_is_not_a_death_but_the_number_is_another() -> None:
    roster = Roster()
    say(roster, A, 0.0)
    roster.expire(LEASE_SECS)
    member = say(roster, A, LEASE_SECS + 1, revision=2)
    assert member is not None
    assert (member.live, member.number) == (True, 2)


def test_a_broken_stream_shortens_the_lease_until_the_next_report() -> None:
    roster = Roster()
    say(roster, A, 0.0)
    roster.stream_broken(A, 0.0)
    say(roster, A, 0.5, revision=1)  # the new stream tells the same report again
    assert roster.expire(BROKEN_STREAM_LEASE_SECS) == []
    roster.stream_broken(A, 2.0)
    assert roster.expire(2.0 + BROKEN_STREAM_LEASE_SECS) != []


def test_a_broken_stream_of_another_process_shortens_nothing() -> None:
    roster = Roster()
    say(roster, A, 0.0)
    roster.stream_broken(B, 0.0)
    assert roster.expire(BROKEN_STREAM_LEASE_SECS) == []


def test_a_step_proves_that_a_trainer_lives_for_as_long_as_a_broken_stream_may() -> None:
    roster = Roster()
    say(roster, A, 0.0)
    roster.stream_broken(A, 0.0)
    roster.proved_alive("chief", 1, 1.0)
    assert roster.expire(1.0 + BROKEN_STREAM_LEASE_SECS - 0.1) == []
    assert roster.expire(1.0 + BROKEN_STREAM_LEASE_SECS) != []


def test_a_step_under_an_older_number_proves_nothing() -> None:
    roster = Roster()
    say(roster, A, 0.0)
    roster.expire(LEASE_SECS)
    say(roster, A, LEASE_SECS, revision=2)
    roster.stream_broken(A, LEASE_SECS)
    roster.proved_alive("chief", 1, LEASE_SECS + 1)
    assert roster.expire(LEASE_SECS + BROKEN_STREAM_LEASE_SECS) != []


def test_a_twin_waits_until_the_live_one_is_lost() -> None:
    roster = Roster()
    say(roster, A, 0.0)
    assert say(roster, B, 9.0) is None
    roster.admit_twins(9.0)
    assert roster.members["chief"].instance == A
    roster.expire(LEASE_SECS)
    roster.admit_twins(LEASE_SECS)
    assert roster.members["chief"].instance == B
    assert number_of(roster, "chief") == 2


def test_a_twin_takes_the_place_of_one_that_left() -> None:
    roster = Roster()
    say(roster, A, 0.0)
    say(roster, A, 1.0, revision=2, phase=TaskPhase.LEFT)
    member = say(roster, B, 1.0)
    assert member is not None
    assert member.number == 2


def test_a_replaced_process_never_gets_the_place_back() -> None:
    roster = Roster()
    say(roster, A, 0.0)
    roster.expire(LEASE_SECS)
    say(roster, B, LEASE_SECS)
    assert say(roster, A, LEASE_SECS + 1, revision=9) is None
    roster.expire(3 * LEASE_SECS)
    roster.admit_twins(3 * LEASE_SECS)
    assert say(roster, A, 3 * LEASE_SECS, revision=10) is None
    assert A in roster.replaced


def test_what_a_dead_twin_said_does_not_push_a_living_one_out() -> None:
    roster = Roster()
    say(roster, A, 0.0)
    say(roster, B, 1.0)
    say(roster, C, 2.0)
    say(roster, B, 3.0)  # a report that was under way when B died
    assert {B, C} == set(roster.twins)
    roster.expire(LEASE_SECS)
    roster.admit_twins(LEASE_SECS)
    assert roster.members["chief"].instance == C  # the latest comer


def test_a_twin_that_is_silent_is_not_admitted() -> None:
    roster = Roster()
    say(roster, A, 0.0)
    say(roster, B, 1.0)
    say(roster, A, 9.0, revision=2)
    roster.expire(9.0 + LEASE_SECS)
    roster.admit_twins(9.0 + LEASE_SECS)
    assert roster.members["chief"].instance == A
    assert roster.twins == {}


def test_a_twin_whose_stream_broke_waits_no_more() -> None:
    roster = Roster()
    say(roster, A, 0.0)
    say(roster, B, 0.0)
    roster.stream_broken(B, 0.0)
    assert roster.twins == {}


@pytest.mark.parametrize(("pause_secs", "lost"), [(3.0, True), (30.0, False)])
def test_after_a_jump_of_the_clock_nobody_is_lost_for_a_full_lease(
    pause_secs: float, lost: bool
) -> None:
    roster = Roster()
    say(roster, A, 0.0)
    roster.note_clock(8.0)
    now = 8.0 + pause_secs
    assert roster.note_clock(now) is not lost
    assert bool(roster.expire(now)) is lost


def test_the_first_look_at_the_clock_is_no_jump() -> None:
    assert Roster().note_clock(1000.0) is False


def test_who_may_hold_a_grant() -> None:
    roster = Roster()
    say(roster, A, 0.0)
    assert roster.members["chief"].trains
    for revision, phase in enumerate((TaskPhase.INPUT_ENDED, TaskPhase.FAILED, TaskPhase.LEFT), 2):
        say(roster, A, 0.0, revision=revision, phase=phase)
        assert not roster.members["chief"].trains
    assert roster.live() == []
