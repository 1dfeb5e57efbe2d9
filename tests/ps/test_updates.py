from __future__ import annotations

import numpy as np
import pytest

from psys.arrays import Gradient, IndexedSlices
from psys.errors import ClusterError
from psys.ps.messages import ExchangeRequest
from psys.ps.updates import Accumulator, ahead_of, combine, gradients_of, task_order

RNG = np.random.default_rng(3)


def dense(count: int) -> list[np.ndarray]:
    return [RNG.normal(size=(5, 3)).astype(np.float32) for _ in range(count)]


def some_rows(*indices: int) -> IndexedSlices:
    values = RNG.normal(size=(len(indices), 3)).astype(np.float32)
    return IndexedSlices(np.array(indices, np.int64), values)


def push(task: str, member: int = 1, sequence: int = 1, **gradients: Gradient) -> ExchangeRequest:
    return ExchangeRequest("g", task, member, sequence, 0, gradients, True, {}, True)


def test_task_order_is_the_chief_then_workers_by_number() -> None:
    tasks = ["worker:10", "worker:9", "chief", "worker:0"]
    assert sorted(tasks, key=task_order) == ["chief", "worker:0", "worker:9", "worker:10"]


def test_dense_gradients_are_averaged_in_order_bit_for_bit() -> None:
    first, second, third = dense(3)
    combined = combine([first, second, third], 3, averaged=True)
    assert isinstance(combined, np.ndarray)
    assert combined.tobytes() == (((first + second) + third) / np.float32(3)).tobytes()
    assert combined.tobytes() != (((third + second) + first) / np.float32(3)).tobytes()


def test_a_row_that_only_some_touched_is_divided_by_the_number_of_all() -> None:
    first, second = some_rows(1, 4), some_rows(4)
    combined = combine([first, second], 3, averaged=True)
    assert isinstance(combined, IndexedSlices)
    assert combined.indices.tolist() == [1, 4]
    three = np.float32(3)
    np.testing.assert_array_equal(combined.values[0], first.values[0] / three)
    np.testing.assert_array_equal(combined.values[1], (first.values[1] + second.values[0]) / three)


def test_rows_and_a_dense_gradient_of_one_variable_add_up() -> None:
    (whole,), rows = dense(1), some_rows(2)
    combined = combine([rows, whole], 2, averaged=True)
    expected = whole.copy()
    expected[2] += rows.values[0]
    assert isinstance(combined, np.ndarray)
    np.testing.assert_array_equal(combined, expected / np.float32(2))


def test_what_counts_up_is_only_summed() -> None:
    combined = combine([np.array([2]), np.array([3])], 2, averaged=False)
    assert isinstance(combined, np.ndarray)
    assert combined.tolist() == [5]


def test_combining_changes_no_gradient() -> None:
    given = dense(2)
    before = [one.copy() for one in given]
    combine(given, 2, averaged=True)
    np.testing.assert_array_equal(given, before)


def test_what_is_kept_is_a_copy() -> None:
    (values,), kept = dense(1), Accumulator()
    kept.keep(push("chief", v=values))
    values[:] = 0
    (chosen,), _ = kept.take({"chief": (1, 1)})
    assert chosen.push is not None
    assert np.asarray(chosen.push["v"]).any()


def test_chosen_pushes_come_in_task_order_and_the_rest_is_left_out() -> None:
    kept = Accumulator()
    for task in ("worker:1", "worker:0", "chief"):
        kept.keep(push(task))
    kept.keep(push("worker:0", member=7))
    assert kept.arrived() == {"chief": (1, 1), "worker:0": (7, 1), "worker:1": (1, 1)}
    chosen, late = kept.take({"worker:0": (1, 1), "chief": (1, 1)})
    assert [one.task for one in chosen] == ["chief", "worker:0"]
    assert [(one.task, one.member) for one in late] == [("worker:0", 7), ("worker:1", 1)]
    assert kept.arrived() == {}


def test_a_push_sent_again_is_kept_once() -> None:
    (values,), kept = dense(1), Accumulator()
    kept.keep(push("chief", v=values))
    kept.keep(push("chief"))  # asked for again, without its gradients
    chosen, _ = kept.take({"chief": (1, 1)})
    assert list(gradients_of(chosen)) == ["v"]


def test_a_choice_of_what_is_not_here_is_an_error_and_takes_nothing() -> None:
    kept = Accumulator()
    kept.keep(push("chief", sequence=3))
    with pytest.raises(ClusterError, match=r"does not hold: \[\('chief', 1, 4\)\]"):
        kept.take({"chief": (1, 4)})
    assert kept.arrived() == {"chief": (1, 3)}


@pytest.mark.parametrize(
    ("staleness", "waits_for"), [(0, ["worker:0", "worker:1"]), (2, ["worker:1"]), (4, [])]
)
def test_a_trainer_waits_for_those_more_than_s_steps_behind(
    staleness: int, waits_for: list[str]
) -> None:
    fences = {"chief": (1, 10), "worker:0": (2, 8), "worker:1": (5, 1), "worker:2": (9, 1)}
    clocks = {"chief": (1, 0), "worker:0": (2, 0), "worker:1": (5, 5)}
    assert ahead_of("chief", 1, fences, clocks, staleness) == waits_for


def test_a_members_steps_are_not_its_successors() -> None:
    clocks = {"chief": (1, 0), "worker:0": (8, 10)}
    assert ahead_of("chief", 1, {"chief": (1, 10), "worker:0": (2, 3)}, clocks, 0) == []


def test_a_trainer_whose_clock_is_not_known_waits_once_it_has_pushed() -> None:
    clocks = {"chief": (1, 0)}
    assert ahead_of("worker:0", 4, {}, clocks, 3) == []
    assert ahead_of("worker:0", 4, {"worker:0": (3, 9)}, clocks, 3) == []
    assert ahead_of("worker:0", 4, {"worker:0": (4, 1)}, clocks, 3) == [""]
