from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from psys.ps.messages import Fences, PastFence, ShardFacts, ShardFile, ShardPhase
from psys.ps.saving import (
    ATTEMPTS,
    HOLD_LIMIT_SECS,
    LONGEST_HOLD_SECS,
    WRITE_LIMIT_SECS,
    Saving,
    torn_before,
    union_of,
)

FILES = (ShardFile("0", 1, "a"), ShardFile("1", 1, "b"))


class SavingBench:
    """Two shards that the test moves, and the save of them."""

    def __init__(self) -> None:
        ids = itertools.count(1)
        self.saving = Saving(lambda: f"save{next(ids)}")
        self.facts = {i: ShardFacts(i, ShardPhase.LIVE, "g") for i in range(2)}
        self.refused: dict[str, int] = {}
        self.now = 0.0

    def advance(self, request: int = 1, step: int = 10, after_secs: float = 0.0) -> None:
        self.now += after_secs
        self.saving.advance(request, self.facts, 2, self.refused, step, "g", self.now)

    @property
    def save(self) -> str:
        assert self.saving.attempt is not None
        return self.saving.attempt.save

    def hold(self, index: int, fences: Fences) -> None:
        self.facts[index] = ShardFacts(
            index, ShardPhase.LIVE, "g", refused=self.refused, held=self.save, fences=fences
        )

    def cut(self, index: int) -> None:
        self.facts[index] = replace(self.facts[index], cut=self.save)

    def write(self, index: int, error: str = "") -> None:
        file = None if error else FILES[index]
        self.facts[index] = replace(
            self.facts[index], written=self.save, file=file, write_error=error
        )

    def hold_both(self, first: Fences, second: Fences, step: int = 10) -> None:
        self.advance()
        self.hold(0, first)
        self.hold(1, second)
        self.advance(step=step)


@pytest.fixture
def bench() -> SavingBench:
    return SavingBench()


def test_the_union_takes_the_greatest_of_each_task() -> None:
    first = {"chief": (1, 7), "worker:0": (4, 1)}
    second = {"chief": (1, 8), "worker:0": (2, 9), "worker:1": (3, 3)}
    assert union_of([first, second]) == {
        "chief": (1, 8),
        "worker:0": (4, 1),
        "worker:1": (3, 3),
    }


def test_without_a_request_nothing_is_held(bench: SavingBench) -> None:
    bench.advance(request=0)
    assert bench.saving.attempt is None


def test_a_save_goes_from_hold_to_cut_to_files(bench: SavingBench) -> None:
    bench.hold_both({"chief": (1, 7)}, {"chief": (1, 8)}, step=10)
    attempt = bench.saving.attempt
    assert attempt is not None
    assert (attempt.cut, attempt.cut_step) == ({"chief": (1, 8)}, 11)
    for index in (0, 1):
        bench.cut(index)
    bench.advance(step=15)
    assert attempt.complete
    for index in (0, 1):
        bench.write(index)
    bench.advance(step=17)
    result = bench.saving.result
    assert result is not None
    assert (result.request, result.checkpoint_id, result.generation) == (1, "save1", "g")
    assert (result.global_step, result.cut, result.files) == (11, {"chief": (1, 8)}, FILES)
    assert (result.torn, result.error) == ((), "")
    assert bench.saving.attempt is None


def test_the_cut_waits_until_all_are_held(bench: SavingBench) -> None:
    bench.advance()
    bench.hold(0, {})
    bench.advance()
    assert bench.saving.attempt is not None
    assert bench.saving.attempt.cut is None


def test_steps_the_lead_has_applied_already_are_not_counted_twice(bench: SavingBench) -> None:
    bench.hold_both({"chief": (1, 8)}, {"chief": (1, 7)}, step=10)
    assert bench.saving.attempt is not None
    assert bench.saving.attempt.cut_step == 10


def test_a_lost_trainer_with_a_step_on_some_shards_only_is_torn(bench: SavingBench) -> None:
    bench.refused = {"worker:0": 2, "worker:1": 3, "worker:2": 4}
    bench.hold_both(
        {"worker:0": (2, 5), "worker:1": (3, 4), "worker:2": (4, 1)},
        {"worker:0": (2, 4), "worker:1": (3, 5), "worker:2": (4, 1)},
        step=10,
    )
    attempt = bench.saving.attempt
    assert attempt is not None
    assert attempt.torn == ("worker:0", "worker:1")
    assert attempt.cut_step == 10  # what the lead's shard will never get is not counted


def test_requests_meanwhile_become_one_save_after(bench: SavingBench) -> None:
    bench.hold_both({}, {})
    for index in (0, 1):
        bench.cut(index)
        bench.write(index)
    bench.advance(request=4)
    assert bench.saving.result is not None
    assert bench.saving.result.request == 1
    bench.advance(request=4)
    assert bench.saving.attempt is not None
    assert bench.saving.attempt.request == 4


def test_a_hold_that_takes_too_long_is_released_and_tried_again(bench: SavingBench) -> None:
    bench.advance()
    bench.hold(0, {})
    assert bench.saving.release_at_secs == HOLD_LIMIT_SECS
    bench.advance(after_secs=HOLD_LIMIT_SECS - 0.01)
    assert bench.save == "save1"
    bench.advance(after_secs=0.02)
    assert bench.save == "save2"


def test_a_cut_that_never_completes_is_tried_again_with_ever_more_time(bench: SavingBench) -> None:
    bench.hold_both({"chief": (1, 1)}, {})
    bench.cut(0)
    bench.advance(after_secs=HOLD_LIMIT_SECS + 0.01)
    assert bench.save == "save2"
    bench.advance(after_secs=HOLD_LIMIT_SECS + 0.01)
    assert bench.save == "save2"  # the second may take twice as long
    bench.advance(after_secs=HOLD_LIMIT_SECS)
    assert bench.save == "save3"


def test_the_next_save_begins_near_the_time_that_sufficed(bench: SavingBench) -> None:
    for attempt in range(3):
        bench.advance(after_secs=10 * attempt)
    bench.hold_both({}, {})
    for index in (0, 1):
        bench.cut(index)
        bench.write(index)
    assert bench.saving.attempt is not None
    assert bench.saving.attempt.number == 3
    bench.advance()
    assert bench.saving.release_at_secs is None
    bench.advance(request=2)
    assert bench.saving.release_at_secs == bench.now + 2 * HOLD_LIMIT_SECS


def test_no_hold_is_longer_than_the_longest(bench: SavingBench) -> None:
    bench.advance()
    assert bench.saving.attempt is not None
    bench.saving.attempt.number = 1000
    assert bench.saving.release_at_secs == LONGEST_HOLD_SECS


def test_after_many_attempts_the_chief_is_told_why(bench: SavingBench) -> None:
    for _ in range(ATTEMPTS + 1):
        bench.advance(after_secs=LONGEST_HOLD_SECS)
    result = bench.saving.result
    assert result is not None
    assert result.error == f"gave up after {ATTEMPTS} attempts: not every ps could be held in time"
    bench.advance()
    assert bench.saving.attempt is None  # not again for the same request


def test_a_trainer_lost_before_the_cuts_begins_the_save_anew(bench: SavingBench) -> None:
    bench.hold_both({"chief": (1, 1)}, {})
    bench.saving.trainer_lost(bench.now)
    assert bench.save == "save2"
    assert bench.saving.attempt is not None
    assert bench.saving.attempt.cut is None


def test_a_trainer_lost_while_files_are_written_changes_nothing(bench: SavingBench) -> None:
    bench.hold_both({}, {})
    for index in (0, 1):
        bench.cut(index)
    bench.advance()
    bench.saving.trainer_lost(bench.now)
    assert bench.save == "save1"


def test_failure_on_one_ps_fails_the_save(bench: SavingBench) -> None:
    bench.hold_both({}, {})
    for index in (0, 1):
        bench.cut(index)
    bench.write(0)
    bench.write(1, error="ps:1: disk full")
    bench.advance()
    result = bench.saving.result
    assert result is not None
    assert (result.error, result.files) == ("ps:1: disk full", ())


def test_a_file_that_is_never_written_fails_the_save(bench: SavingBench) -> None:
    bench.hold_both({}, {})
    for index in (0, 1):
        bench.cut(index)
    bench.write(0)
    bench.advance(after_secs=WRITE_LIMIT_SECS)
    assert bench.saving.result is None
    bench.advance(after_secs=1.0)
    assert bench.saving.result is not None
    assert "did not write its shard file" in bench.saving.result.error


def test_nobody_is_held_while_a_ps_is_away(bench: SavingBench) -> None:
    bench.advance()
    del bench.facts[1]
    bench.advance()
    assert bench.saving.attempt is None
    bench.facts[1] = ShardFacts(1, ShardPhase.LIVE, "g")
    bench.advance()
    assert bench.save == "save2"


def test_a_ps_that_is_away_while_it_writes_is_waited_for(bench: SavingBench) -> None:
    bench.hold_both({}, {})
    for index in (0, 1):
        bench.cut(index)
    bench.advance()
    away = bench.facts.pop(1)
    bench.advance(after_secs=5.0)
    bench.facts[1] = away
    for index in (0, 1):
        bench.write(index)
    bench.advance()
    assert bench.saving.result is not None
    assert bench.saving.result.error == ""


def test_without_a_chief_the_save_under_way_ends_and_no_other_begins(bench: SavingBench) -> None:
    bench.hold_both({}, {})
    for index in (0, 1):
        bench.cut(index)
        bench.write(index)
    bench.advance(request=0)
    assert bench.saving.result is not None
    bench.advance(request=0)
    assert bench.saving.attempt is None


def test_a_released_save_is_begun_anew_and_a_forgotten_one_is_not(bench: SavingBench) -> None:
    bench.advance(request=3)
    bench.saving.release()
    bench.advance(request=3)
    assert bench.save == "save2"
    bench.saving.forget()
    bench.advance(request=0)
    assert bench.saving.attempt is None


def test_a_step_torn_by_a_replaced_member_is_recorded_in_every_later_cut(
    bench: SavingBench,
) -> None:
    """worker:0's number 2 left step 5 on shard 0 only; its successor 7 has pushed since."""
    bench.hold_both({"worker:0": (7, 3)}, {"worker:0": (7, 3)})
    bench.facts[0] = replace(bench.facts[0], past_fences=(PastFence("worker:0", 2, 5),))
    bench.facts[1] = replace(bench.facts[1], past_fences=(PastFence("worker:0", 2, 4),))
    assert torn_before(list(bench.facts.values())) == {"worker:0"}


@pytest.mark.parametrize(
    ("second", "past", "torn"),
    [
        ((2, 5), (), set()),  # shard 1 has not heard of the successor yet: nothing is torn
        ((2, 4), (), {"worker:0"}),
        ((7, 1), (PastFence("worker:0", 2, 5),), set()),
        ((7, 1), (), {"worker:0"}),  # not one step of the first member reached shard 1
    ],
)
def test_a_replaced_member_is_compared_over_all_shards(
    bench: SavingBench, second: tuple[int, int], past: tuple[PastFence, ...], torn: set[str]
) -> None:
    bench.advance()
    bench.hold(0, {"worker:0": (7, 1)})
    bench.facts[0] = replace(bench.facts[0], past_fences=(PastFence("worker:0", 2, 5),))
    bench.hold(1, {"worker:0": second})
    bench.facts[1] = replace(bench.facts[1], past_fences=past)
    bench.advance()
    assert bench.saving.attempt is not None
    assert set(bench.saving.attempt.torn) == torn


def test_where_the_inputs_stand_comes_from_the_leads_shard(bench: SavingBench) -> None:
    bench.hold_both({}, {})
    for index in (0, 1):
        bench.cut(index)
        bench.write(index)
    bench.facts[0] = replace(bench.facts[0], cut_inputs={"chief": 4}, cut_examples=128)
    bench.advance()
    result = bench.saving.result
    assert result is not None
    assert (result.inputs, result.examples) == ({"chief": 4}, 128)
