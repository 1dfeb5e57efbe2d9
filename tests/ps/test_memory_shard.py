from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from psys.arrays import Gradient, IndexedSlices, VariableSpec
from psys.errors import GenerationChanged, ModelError
from psys.initializers import Constant
from psys.ps.memory_shard import MemoryShard
from psys.ps.messages import ASYNC, Outcome, PastFence, ShardFile, ShardOrders, ShardPhase
from psys.ps.shard import LoadedSlice
from psys.ps.snapshot import VALUE

if TYPE_CHECKING:
    from .conftest import ShardBench

SGD = {"kind": "SGD", "learning_rate": 1.0}
ADAGRAD = {"kind": "Adagrad", "learning_rate": 1.0, "initial_accumulator_value": 0.5}


# ---------------------------------------------------------------- loading


def test_a_shard_is_live_only_when_loaded_and_sealed() -> None:
    shard = MemoryShard(0)
    spec = VariableSpec("v", (2,), "float32", Constant(1.0))
    assert shard.phase is ShardPhase.EMPTY
    shard.obey(ShardOrders("g", ShardPhase.LIVE))
    assert shard.phase is ShardPhase.LOADING  # nothing was loaded: not LIVE
    shard.load("g", [LoadedSlice(spec, 0, 2)])
    assert shard.phase is ShardPhase.LOADED
    shard.obey(ShardOrders("g", ShardPhase.LIVE))
    assert shard.phase is ShardPhase.LIVE
    assert shard.slices["v"].value.tolist() == [1.0, 1.0]


def test_a_load_of_another_generation_or_into_a_live_shard_is_refused(bench: ShardBench) -> None:
    with pytest.raises(GenerationChanged, match=r"ps:0 is LIVE in generation g; .* load h"):
        bench.shard.load("h", [])
    with pytest.raises(GenerationChanged):
        bench.shard.load("g", [])
    with pytest.raises(GenerationChanged, match="EMPTY in generation none"):
        MemoryShard(0).load("", [])


def test_a_load_may_be_repeated_until_it_is_sealed() -> None:
    shard = MemoryShard(0)
    shard.obey(ShardOrders("g", ShardPhase.LOADING))
    spec = VariableSpec("v", (2,), "float32", Constant(1.0))
    shard.load("g", [LoadedSlice(spec, 0, 2)])
    shard.load("g", [LoadedSlice(spec, 0, 2, value=np.full(2, 5, np.float32))])
    assert shard.slices["v"].value.tolist() == [5.0, 5.0]


def test_slots_not_given_start_at_the_optimizers_default() -> None:
    shard = MemoryShard(0)
    shard.obey(ShardOrders("g", ShardPhase.LOADING))
    spec = VariableSpec("v", (4,), "float32", Constant(1.0), ADAGRAD)
    shard.load("g", [LoadedSlice(spec, 2, 4)])
    (slot,) = shard.slices["v"].slots.values()
    assert slot.tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": 3, "stop": 5}, "outside its 4 rows"),
        ({"value": np.zeros(3, np.float32)}, r"expected \(2,\) float32, got \(3,\)"),
        ({"value": np.zeros(2, np.float64)}, "got .* float64"),
    ],
)
def test_a_slice_that_does_not_fit_its_spec_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    shard = MemoryShard(0)
    shard.obey(ShardOrders("g", ShardPhase.LOADING))
    spec = VariableSpec("v", (4,), "float32", Constant(1.0))
    with pytest.raises(ModelError, match=message):
        shard.load("g", [LoadedSlice(**{"spec": spec, "start": 0, "stop": 2, **changes})])
    assert shard.phase is ShardPhase.LOADING


# ---------------------------------------------------------------- one push


def test_one_exchange_applies_the_push_and_pulls(
    bench: ShardBench, request_of: Callable[..., Any]
) -> None:
    pull = {"table": np.array([0, 2], np.int64)}
    request = request_of(1, bench.ones(), rows=pull)
    (reply,) = bench.exchange(request)
    assert (reply.outcome, reply.version, reply.generation) == (Outcome.APPLIED, 1, "g")
    assert {name: value.tolist() for name, value in reply.dense.items()} == {
        "dense": [1.0, 1.0],
        "fixed": [3.0],
    }
    assert reply.rows["table"].tolist() == [[0.0], [1.0]]


def test_what_was_pulled_does_not_change_with_later_pushes(bench: ShardBench) -> None:
    before = bench.push(1).dense["dense"]
    part = bench.push(2).dense["dense"][1:]
    bench.push(3)
    assert (before.tolist(), part.tolist()) == ([1.0, 1.0], [2.0])
    assert bench.count == 3.0
    with pytest.raises(ValueError, match="read-only"):
        before += 1


def test_what_was_pulled_cannot_be_made_writable(bench: ShardBench) -> None:
    pulled = bench.push(1).dense["dense"]
    for one in (pulled, pulled[1:]):
        with pytest.raises(ValueError, match="WRITEABLE"):
            one.flags.writeable = True


def test_an_initial_value_may_lie_in_any_order(
    bench: ShardBench, request_of: Callable[..., Any]
) -> None:
    value = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(3, 2))
    spec = VariableSpec("dense", (3, 2), "float32", Constant(), SGD)
    bench.begin(ASYNC, [LoadedSlice(spec, 0, 3, value=value)])
    (reply,) = bench.exchange(request_of(1, {"dense": -np.ones((3, 2), np.float32)}))
    np.testing.assert_array_equal(reply.dense["dense"], np.arange(1, 7).reshape(3, 2))


def test_what_was_pulled_is_copied_for_a_push_only_while_somebody_reads_it(
    bench: ShardBench, request_of: Callable[..., Any]
) -> None:
    dense = bench.shard.slices["dense"]
    value = dense.value
    bench.push(1)
    bench.push(2)
    assert dense.value is value
    reply = bench.push(3)
    (other,) = bench.exchange(request_of(3, None, task="worker:1", member=2))
    assert np.shares_memory(reply.dense["dense"], value)
    assert np.shares_memory(other.dense["dense"], value)
    del reply
    bench.push(4)
    copied = dense.value
    assert copied is not value
    bench.push(5)
    assert dense.value is copied
    assert other.dense["dense"].tolist() == [3.0, 3.0]
    assert copied.tolist() == [5.0, 5.0]


def test_an_empty_push_counts_as_one(bench: ShardBench, request_of: Callable[..., Any]) -> None:
    (reply,) = bench.exchange(request_of(1, {}))
    assert (reply.outcome, reply.version, bench.count) == (Outcome.APPLIED, 1, 0.0)
    assert bench.push(2).outcome is Outcome.APPLIED


def test_staleness_is_the_version_at_arrival_less_the_base(bench: ShardBench) -> None:
    bench.push(1)
    bench.push(1, task="worker:1", member=2)
    assert bench.push(2, base_version=1).staleness == 1


def test_duplicate_rows_of_a_push_count_as_their_sum(
    bench: ShardBench, request_of: Callable[..., Any]
) -> None:
    rows = IndexedSlices(np.array([3, 1, 3], np.int64), np.full((3, 1), -1, np.float32))
    bench.exchange(request_of(1, {"table": rows}))
    assert bench.shard.slices["table"].value[:, 0].tolist() == [0.0, 1.0, 0.0, 2.0]


# ---------------------------------------------------------------- fences


def test_a_push_sent_again_applies_once_and_is_still_served(bench: ShardBench) -> None:
    bench.push(1)
    again = bench.push(1)
    assert (again.outcome, again.version, bench.count) == (Outcome.DUPLICATE, 1, 1.0)
    assert again.dense["dense"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("sequence", [0, 1, 4])
def test_a_gap_is_an_error_and_nothing_is_applied(bench: ShardBench, sequence: int) -> None:
    bench.push(1)
    bench.push(2)
    reply = bench.push(sequence)
    assert (reply.outcome, bench.count) == (Outcome.GAP, 2.0)
    assert reply.reason == f"worker:0 pushed {sequence} after 2."
    assert not reply.dense


def test_a_higher_number_begins_at_one_again(bench: ShardBench) -> None:
    bench.push(1)
    bench.push(2)
    assert bench.push(3, member=5).outcome is Outcome.GAP
    assert bench.push(1, member=5).outcome is Outcome.APPLIED


def test_a_lower_number_is_fenced_from_pushes_and_pulls(
    bench: ShardBench, request_of: Callable[..., Any]
) -> None:
    bench.push(1, member=5)
    assert bench.push(1, member=4).outcome is Outcome.FENCED
    (reply,) = bench.exchange(request_of(0, member=4))
    assert reply.outcome is Outcome.FENCED
    assert "worker:0 number 4 was replaced or given up" in reply.reason
    assert bench.count == 1.0


def test_a_number_the_lead_gave_up_is_fenced_and_refusals_only_grow(bench: ShardBench) -> None:
    bench.push(1, member=3)
    bench.obey(refused={"worker:0": 3})
    bench.obey(refused={"worker:0": 2})
    assert bench.push(2, member=3).outcome is Outcome.FENCED
    assert bench.push(1, member=4).outcome is Outcome.APPLIED
    assert bench.push(1, task="worker:1", member=2).outcome is Outcome.APPLIED


def test_another_generation_is_neither_applied_nor_read(
    bench: ShardBench, request_of: Callable[..., Any]
) -> None:
    for push in (None, bench.ones()):
        (reply,) = bench.exchange(request_of(1, push, generation="old"))
        assert reply.outcome is Outcome.GENERATION_CHANGED
        assert (reply.generation, dict(reply.dense)) == ("g", {})
    assert bench.count == 0.0


def test_a_new_generation_forgets_values_fences_and_refusals(bench: ShardBench) -> None:
    bench.push(1, member=3)
    bench.obey(refused={"worker:0": 3})
    bench.obey(generation="h", phase=ShardPhase.LOADING, refused={})
    facts = bench.shard.facts()
    assert (facts.phase, facts.generation, facts.refused) == (ShardPhase.LOADING, "h", {})
    assert (bench.shard.slices, bench.shard.version, bench.shard.fences) == ({}, 0, {})
    assert bench.push(2, member=3, generation="h").outcome is Outcome.GENERATION_CHANGED


def test_no_generation_means_empty(bench: ShardBench) -> None:
    bench.obey(generation="", phase=ShardPhase.EMPTY)
    assert bench.shard.phase is ShardPhase.EMPTY
    assert bench.push(1, generation="").outcome is Outcome.GENERATION_CHANGED


# ---------------------------------------------------------------- what does not fit


@pytest.mark.parametrize("wrong", ["dense", "second", "third"])
def test_each_gradient_of_a_push_must_be_finite(
    bench: ShardBench, request_of: Callable[..., Any], wrong: str
) -> None:
    names = ("dense", "second", "third")
    specs = [VariableSpec(name, (2,), "float32", Constant(), SGD) for name in names]
    bench.begin(ASYNC, [LoadedSlice(one, 0, one.rows) for one in specs])
    push: dict[str, Gradient] = {name: np.ones(2, np.float32) for name in names}
    push[wrong] = np.array([1, np.inf], np.float32)
    (reply,) = bench.exchange(request_of(1, push))
    assert (reply.outcome, reply.version) == (Outcome.REFUSED, 0)
    assert reply.reason == f"Gradient of {wrong!r} is not finite."
    assert all((state.value == 0).all() for state in bench.shard.slices.values())


def of_rows(*rows: int) -> IndexedSlices:
    return IndexedSlices(np.array(rows, np.int64), np.zeros((len(rows), 1), np.float32))


@pytest.mark.parametrize(
    ("push", "reason"),
    [
        ({"other": np.zeros(2, np.float32)}, "holds no slice of other"),
        ({"dense": np.zeros(3, np.float32)}, r"expected (2,), got (3,)"),
        ({"dense": np.zeros(2, np.float64)}, "expected float32, got float64"),
        ({"dense": np.array([1, np.nan], np.float32)}, "is not finite"),
        ({"dense": np.array([1, np.inf], np.float32)}, "is not finite"),
        ({"fixed": np.zeros(1, np.float32)}, "not trained by gradients"),
        ({"table": of_rows(4)}, "0 ≤ row < 4 within the slice, got 4 to 4"),
        ({"table": of_rows(0, -1)}, "got -1 to 0"),
        (
            {"table": IndexedSlices(np.array([0]), np.zeros((1, 2), np.float32))},
            "expected rows of (1,), got (2,)",
        ),
    ],
)
def test_a_push_that_does_not_fit_is_refused_as_a_whole(
    bench: ShardBench, request_of: Callable[..., Any], push: dict[str, Any], reason: str
) -> None:
    (reply,) = bench.exchange(request_of(1, {**bench.ones(), **push}))
    assert reply.outcome is Outcome.REFUSED
    assert reason in reply.reason
    assert bench.count == 0.0
    assert bench.push(1).outcome is Outcome.APPLIED  # the number was not used up


def test_rows_that_are_not_there_cannot_be_pulled(
    bench: ShardBench, request_of: Callable[..., Any]
) -> None:
    rows = {"table": np.array([7], np.int64)}
    (reply,) = bench.exchange(request_of(1, bench.ones(), rows=rows))
    assert (reply.outcome, bench.count) == (Outcome.REFUSED, 0.0)


def test_more_rows_than_there_are_cannot_be_pulled(
    bench: ShardBench, request_of: Callable[..., Any]
) -> None:
    """Named again and again, a few rows would make a reply of any size."""
    rows = {"table": np.array([0, 1, 2, 3, 2], np.int64)}
    (reply,) = bench.exchange(request_of(1, bench.ones(), rows=rows))
    assert (reply.outcome, bench.count) == (Outcome.REFUSED, 0.0)
    assert reply.reason == "5 rows of 'table' are wanted; it has 4."
    assert not reply.rows
    rows = {"table": np.array([2, 0, 2, 2], np.int64)}
    (reply,) = bench.exchange(request_of(1, bench.ones(), rows=rows))
    assert (reply.outcome, bench.count) == (Outcome.APPLIED, 1.0)
    assert reply.rows["table"].tolist() == [[1], [0], [1], [1]]


def test_the_largest_push_is_within_the_limit(bench: ShardBench) -> None:
    limit = bench.shard.request_limit_bytes()
    bench.obey(generation="h", phase=ShardPhase.LOADING)
    assert bench.shard.request_limit_bytes() < limit
    assert limit > 4 * (2 + 4 + 1) + 8 * 4


# ---------------------------------------------------------------- hold and cut


def test_while_held_new_pushes_wait_and_pulls_and_duplicates_do_not(
    bench: ShardBench, request_of: Callable[..., Any]
) -> None:
    bench.push(1)
    bench.hold("s")
    assert bench.exchange(request_of(2, bench.ones()), "waits") == []
    assert bench.exchange(request_of(1), "pulls")[0].outcome is Outcome.NONE
    assert bench.exchange(request_of(1, bench.ones()), "repeats")[0].outcome is Outcome.DUPLICATE
    assert bench.count == 1.0


def test_the_shard_tells_its_fences_as_they_were_when_it_was_held(bench: ShardBench) -> None:
    bench.push(1)
    assert bench.shard.facts().fences == {}  # not told with every push
    bench.hold("s")
    assert bench.shard.facts().fences == {"worker:0": (1, 1)}
    bench.cut({"worker:0": (1, 1)})
    bench.push(2)
    assert bench.shard.facts().fences == {"worker:0": (1, 1)}
    bench.obey(save="", cut=None)
    assert bench.shard.facts().fences == {}


def test_what_is_in_the_cut_is_let_in_then_the_cut_is_taken_then_the_rest_goes_on(
    bench: ShardBench, request_of: Callable[..., Any]
) -> None:
    bench.push(1)
    bench.hold("s")
    bench.exchange(request_of(2, bench.ones()), "in")
    bench.exchange(request_of(1, bench.ones(), task="worker:1", member=2), "out")
    replies = bench.cut({"worker:0": (1, 2)}, step=2)
    assert [reply.outcome for reply in replies] == [Outcome.APPLIED] * 2
    snapshot = bench.shard.take_snapshot()
    assert snapshot is not None
    assert (snapshot.save, snapshot.generation, snapshot.global_step) == ("s", "g", 2)
    assert dict(snapshot.cut) == {"worker:0": (1, 2)}
    values = {key: np.concatenate(list(one.blocks())) for key, one in snapshot.tensors().items()}
    assert values["dense"].tolist() == [2.0, 2.0]
    assert bench.count == 3.0
    assert bench.shard.take_snapshot() is None


def test_the_cut_waits_for_a_push_that_was_sent_and_has_not_come(
    bench: ShardBench, request_of: Callable[..., Any]
) -> None:
    bench.hold("s")
    assert bench.cut({"worker:0": (1, 1)}) == []
    assert bench.shard.take_snapshot() is None
    assert bench.exchange(request_of(1, bench.ones(), task="worker:1", member=2), "x") == []
    outcomes = [one.outcome for one in bench.exchange(request_of(1, bench.ones()), "c")]
    assert outcomes == [Outcome.APPLIED] * 2  # its own, then the one that had to wait
    snapshot = bench.shard.take_snapshot()
    assert snapshot is not None
    assert snapshot.slices[0].read(VALUE, 0, 2).tolist() == [1.0, 1.0]


def test_the_cut_does_not_wait_for_a_lost_trainer(bench: ShardBench) -> None:
    bench.hold("s")
    bench.obey(cut={"worker:0": (1, 1)}, refused={"worker:0": 1})
    assert bench.shard.facts().cut == "s"
    assert bench.push(1).outcome is Outcome.FENCED


def test_a_released_hold_lets_everything_go_on(
    bench: ShardBench, request_of: Callable[..., Any]
) -> None:
    bench.hold("s")
    bench.exchange(request_of(1, bench.ones()))
    (reply,) = bench.obey(save="")
    assert reply.outcome is Outcome.APPLIED
    assert bench.shard.take_snapshot() is None


def test_another_attempt_holds_anew(bench: ShardBench, request_of: Callable[..., Any]) -> None:
    bench.hold("s")
    bench.exchange(request_of(1, bench.ones()))
    bench.hold("t")
    facts = bench.shard.facts()
    assert (facts.held, facts.cut, bench.count) == ("t", "", 0.0)


def test_those_who_wait_are_told_when_the_generation_ends(
    bench: ShardBench, request_of: Callable[..., Any]
) -> None:
    bench.hold("s")
    bench.exchange(request_of(1, bench.ones()))
    (reply,) = bench.obey(generation="h", phase=ShardPhase.LOADING, save="")
    assert reply.outcome is Outcome.GENERATION_CHANGED


def test_a_caller_waits_with_its_last_request_only(
    bench: ShardBench, request_of: Callable[..., Any]
) -> None:
    bench.hold("s")
    bench.exchange(request_of(1, bench.ones()), "c")
    bench.exchange(request_of(1, bench.ones()), "c")
    bench.exchange(request_of(1, bench.ones(), task="worker:1", member=2), "gone")
    bench.shard.forget("gone")
    (reply,) = bench.obey(save="")
    assert (reply.outcome, bench.count) == (Outcome.APPLIED, 1.0)


def test_the_file_or_the_error_of_this_save_is_told_and_of_no_other(bench: ShardBench) -> None:
    file = ShardFile("f", 1, "h")
    bench.hold("s")
    bench.cut({})
    bench.shard.written("before", file, "")
    assert bench.shard.facts().written == ""
    bench.shard.written("s", file, "")
    assert (bench.shard.facts().written, bench.shard.facts().file) == ("s", file)
    bench.hold("t")
    facts = bench.shard.facts()
    assert (facts.written, facts.file, facts.write_error) == ("", None, "")
    bench.shard.written("t", None, "disk full")
    assert bench.shard.facts().write_error == "disk full"


# ---------------------------------------------------------------- what is cut with the fences


def test_a_push_says_where_its_input_stands_and_the_cut_has_it(
    bench: ShardBench, request_of: Callable[..., Any]
) -> None:
    for sequence in (1, 2):
        request = request_of(sequence, bench.ones())
        bench.exchange(replace(request, input_batches=sequence + 10, examples=32))
    bench.exchange(replace(request, input_batches=99, examples=99))  # a duplicate counts nothing
    bench.hold("save")
    bench.cut({"worker:0": (1, 2)})
    facts = bench.shard.facts()
    assert (facts.cut_inputs, facts.cut_examples) == ({"worker:0": 12}, 64)
    bench.push(3)
    assert bench.shard.facts().cut_examples == 64


def test_a_replaced_member_leaves_its_last_fence(bench: ShardBench) -> None:
    bench.push(1)
    bench.push(2)
    bench.push(1, member=4)
    assert bench.shard.facts().past_fences == ()
    bench.hold("save")
    assert bench.shard.facts().past_fences == (PastFence("worker:0", 1, 2),)
    bench.obey(generation="h", phase=ShardPhase.LOADING, save="", cut=None)
    assert bench.shard.past_fences == {}
