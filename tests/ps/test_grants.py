from __future__ import annotations

from psys.ps.grants import Grants
from psys.ps.messages import Grant


def granting(max_steps: int, step: int = 0) -> Grants:
    grants = Grants()
    grants.max_steps = max_steps
    grants.begin(step)
    return grants


def test_steps_counted_and_granted_never_exceed_max_steps() -> None:
    grants = granting(max_steps=2, step=1)
    assert grants.ask("a", 1) is Grant.GO
    assert grants.ask("b", 2) is Grant.WAIT
    grants.applied("a")
    assert grants.ask("b", 2) is Grant.STOP
    assert grants.global_step == 2
    assert grants.drained


def test_asking_twice_gives_one_grant() -> None:
    grants = granting(max_steps=1)
    assert grants.ask("a", 1) is Grant.GO
    assert grants.ask("a", 1) is Grant.GO
    assert grants.out == {"a": 1}


def test_without_max_steps_all_go() -> None:
    grants = granting(max_steps=0, step=10**9)
    assert {grants.ask(task, 1) for task in "abc"} == {Grant.GO}


def test_stopping_leaves_the_steps_under_way_and_drains_with_the_last() -> None:
    grants = granting(max_steps=0)
    grants.ask("a", 1)
    grants.stop("early stopping")
    grants.stop("another reason")
    assert grants.stop_reason == "early stopping"
    assert grants.ask("b", 2) is Grant.STOP
    assert grants.ask("a", 1) is Grant.GO  # a reply that was lost
    assert not grants.drained
    grants.applied("a")
    assert grants.drained


def test_a_grant_is_given_back_by_its_holder_or_a_later_number_only() -> None:
    grants = granting(max_steps=0)
    grants.ask("a", 3)
    grants.give_back("a", 2)
    assert grants.out == {"a": 3}
    grants.give_back("a", 3)
    grants.give_back("a", 3)
    assert grants.out == {}


def test_a_model_restored_beyond_max_steps_takes_no_step() -> None:
    grants = granting(max_steps=5, step=8)
    assert grants.ask("a", 1) is Grant.STOP
    assert grants.drained


def test_a_new_generation_voids_what_was_granted() -> None:
    grants = granting(max_steps=0)
    grants.ask("a", 1)
    grants.begin(4)
    assert (grants.out, grants.global_step) == ({}, 4)


def test_resuming_forgets_the_reason_but_not_max_steps() -> None:
    grants = granting(max_steps=3, step=2)
    grants.stop("SIGTERM")
    grants.resume()
    assert grants.ask("a", 1) is Grant.GO
    grants.applied("a")
    grants.resume()
    assert grants.ask("a", 1) is Grant.STOP
