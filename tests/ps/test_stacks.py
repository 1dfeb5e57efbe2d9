"""Tables of a stack are exchanged as one, and are else what each would be by itself."""

from __future__ import annotations

import dataclasses
import weakref
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psys.arrays import Array, Gradient, IndexedSlices, VariableSpec
from psys.errors import ModelError
from psys.initializers import Constant, Initializer, RandomUniform
from psys.optimizers import (
    AdagradOptimizer,
    AdamOptimizer,
    FtrlOptimizer,
    LazyAdamOptimizer,
    MovingAverage,
    Optimizer,
)
from psys.ps.loading import put_in_place
from psys.ps.memory_shard import MemoryShard
from psys.ps.messages import (
    Consistency,
    ExchangeReply,
    ExchangeRequest,
    Outcome,
    Policy,
    ShardOrders,
    ShardPhase,
    UpdateOrder,
)
from psys.ps.shard import LoadedSlice
from psys.ps.snapshot import Snapshot
from psys.stacks import stacks_of

ADAGRAD = AdagradOptimizer(0.5)
FTRL = FtrlOptimizer(0.5, l1_regularization_strength=0.01)
WIDTH = 3
HERE = {"a": (4, 9), "b": (0, 7), "empty": (2, 2), "z": (10, 11)}
"""Which rows of each table are on the shard; each has 11."""
STACK = "a and others"
SLOT = "accumulator"


def table(name: str, optimizer: Optimizer | None = ADAGRAD, stack: str = STACK) -> VariableSpec:
    config = None if optimizer is None else optimizer.to_config()
    spec = VariableSpec(name, (11, WIDTH), "float32", RandomUniform(), config, sparse=True)
    return replace(spec, stack=stack)


def sent(optimizer: Optimizer = ADAGRAD, stack: str = STACK) -> list[LoadedSlice]:
    """All tables and a dense variable, not in order."""
    bias = VariableSpec("b_ias", (2,), "float32", Constant(1.0), optimizer.to_config())
    tables = [
        LoadedSlice(table(name, optimizer, stack), *here, seed=7) for name, here in HERE.items()
    ]
    return [tables[1], LoadedSlice(bias, 0, 2), tables[3], tables[0], tables[2]]


STARTS: dict[str, int] = {}
for _name, (_start, _stop) in HERE.items():
    STARTS[_name] = sum(stop - start for other, (start, stop) in HERE.items() if other < _name)
ROWS = 13
"""How many rows the stack has here."""


class Bench:
    """A live shard whose tables are a stack, or are not."""

    def __init__(self, slices: list[LoadedSlice], sync: bool = False) -> None:
        self.stacked = any(one.spec.stack for one in slices)
        self.shard = MemoryShard(0)
        policy = Policy(Consistency.SYNC if sync else Consistency.ASYNC)
        self.orders = ShardOrders("g", ShardPhase.LOADING, policy=policy)
        self.shard.obey(self.orders)
        self.shard.load("g", slices)
        self.sequence = 0
        self.saves = 0
        self.obey(phase=ShardPhase.LIVE)

    def obey(self, **changes: Any) -> None:
        self.orders = replace(self.orders, **changes)
        self.shard.obey(self.orders)

    def request(
        self,
        push: dict[str, tuple[list[int], Array]] | None,
        pull: dict[str, list[int]] | None = None,
        task: str = "chief",
        sequence: int | None = None,
    ) -> ExchangeRequest:
        """Ask by table and its own rows, whether or not they travel as a stack."""
        gradients: dict[str, Gradient] = {}
        rows: dict[str, Array] = {}
        if self.stacked:
            parts = sorted((push or {}).items())
            gradients[STACK] = IndexedSlices(
                np.concatenate(
                    [np.empty(0, np.int64)]
                    + [np.array(numbers, np.int64) + STARTS[name] for name, (numbers, _) in parts]
                ),
                np.concatenate([np.empty((0, WIDTH), np.float32)] + [one for _, (_, one) in parts]),
            )
            wanted = [r + STARTS[name] for name, one in sorted((pull or {}).items()) for r in one]
            rows[STACK] = np.array(wanted, np.int64)
        else:
            for name, (numbers, values) in (push or {}).items():
                gradients[name] = IndexedSlices(np.array(numbers, np.int64), values)
            rows = {name: np.array(one, np.int64) for name, one in (pull or {}).items()}
        number = self.sequence if sequence is None else sequence
        version = self.shard.version
        pushed = None if push is None else gradients
        return ExchangeRequest("g", task, 1, number, version, pushed, True, rows, False)

    def exchange(self, request: ExchangeRequest) -> ExchangeReply:
        served = self.shard.exchange(request.task, request)
        return served[0].reply

    def push(self, push: dict[str, tuple[list[int], Array]]) -> None:
        self.sequence += 1
        assert self.exchange(self.request(push)).outcome is Outcome.APPLIED

    def pull(self, rows: dict[str, list[int]]) -> dict[str, Array]:
        reply = self.exchange(self.request(None, rows))
        if not self.stacked:
            return dict(reply.rows)
        counts = np.cumsum([len(rows[name]) for name in sorted(rows)])
        return dict(zip(sorted(rows), np.split(reply.rows[STACK], counts[:-1]), strict=True))

    def cut(self) -> Snapshot:
        self.saves += 1
        cut = {"chief": (1, self.sequence)} if self.sequence else {}
        self.obey(save=f"save {self.saves}", cut=None)
        self.obey(cut=cut, cut_step=self.sequence)
        snapshot = self.shard.take_snapshot()
        assert snapshot is not None
        return replace(snapshot, save="s")


def saved(snapshot: Snapshot) -> Any:
    """What a shard file would have."""
    tensors = {
        key: (one.shape, one.dtype.name, [block.tobytes() for block in one.blocks()])
        for key, one in snapshot.tensors().items()
    }
    slices = [(part.spec.name, part.start, part.stop) for part, _ in snapshot.parts()]
    return {key: (*one[:2], b"".join(one[2])) for key, one in tensors.items()}, slices


def ones(count: int) -> Array:
    return np.ones((count, WIDTH), np.float32)


def both(optimizer: Optimizer = ADAGRAD) -> tuple[Bench, Bench]:
    return Bench(sent(optimizer)), Bench(sent(optimizer, stack=""))


def local_rows(name: str) -> int:
    return HERE[name][1] - HERE[name][0]


GRADIENTS = st.lists(st.sampled_from(["a", "b", "z"]), unique=True, max_size=3).flatmap(
    lambda names: st.fixed_dictionaries(
        {name: st.lists(st.integers(0, local_rows(name) - 1), max_size=6) for name in names}
    )
)
ACTIONS = st.lists(st.one_of(st.just("cut"), st.just("read"), GRADIENTS), max_size=12)


# ---------------------------------------------------------------- equal to the same tables alone


@pytest.mark.parametrize("optimizer", [ADAGRAD, FTRL], ids=lambda one: one.kind)
@given(actions=ACTIONS, seed=st.integers(0, 9))
def test_any_pushes_and_cuts_leave_what_they_leave_of_tables_alone(
    optimizer: Optimizer, actions: list[Any], seed: int
) -> None:
    stacked, alone = both(optimizer)
    assert stacked.shard.slices.keys() == {STACK, "b_ias"}
    everything = {name: list(range(local_rows(name))) for name in HERE}
    draw = np.random.default_rng(seed)
    cuts = [(stacked.cut(), saved(alone.cut()))]
    for action in actions:
        if action == "cut":
            cuts.append((stacked.cut(), saved(alone.cut())))
        elif action == "read":
            assert saved(cuts[-1][0]) == cuts[-1][1]
        else:
            push = {
                name: (rows, draw.standard_normal((len(rows), WIDTH)).astype(np.float32))
                for name, rows in action.items()
            }
            stacked.push(push)
            alone.push(push)
        found, expected = stacked.pull(everything), alone.pull(everything)
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values, strict=True)
    for cut, expected_file in [*cuts, (stacked.cut(), saved(alone.cut()))]:
        assert saved(cut) == expected_file


def test_what_was_cut_is_saved_by_variable_whatever_is_pushed_since() -> None:
    stacked, alone = both()
    for one in (stacked, alone):
        one.push({"a": ([0, 3], ones(2)), "b": ([6], ones(1)), "z": ([0], ones(1))})
    cut, expected = stacked.cut(), saved(alone.cut())
    stacked.push({"a": ([3, 4], ones(2)), "b": ([0], ones(1))})
    assert [part.spec.name for part, _ in cut.parts()] == ["a", "b", "b_ias", "empty", "z"]
    assert len(cut.slices) == 2  # one of the stack: copy-on-write looks once a push
    assert saved(cut) == expected
    assert saved(stacked.cut()) != expected


def test_in_sync_an_update_of_a_stack_is_that_of_its_tables() -> None:
    values = {}
    for stack in (STACK, ""):
        bench = Bench(sent(stack=stack), sync=True)
        for number, task in enumerate(("chief", "worker:0")):
            gradient = {"a": ([number, 4], ones(2)), "z": ([0], ones(1) * number)}
            request = bench.request(gradient, task=task, sequence=1)
            assert bench.shard.exchange(task, request) == []
        bench.obey(update=UpdateOrder(1, 0, {"chief": (1, 1), "worker:0": (1, 1)}))
        assert bench.shard.version == 1
        bench.sequence = 1
        values[stack] = bench.pull({"a": [0, 1, 2, 3, 4], "z": [0]})
    for name in ("a", "z"):
        np.testing.assert_array_equal(values[STACK][name], values[""][name])


# ---------------------------------------------------------------- what is put in place


def test_the_rows_of_a_stack_are_those_here_in_order_of_the_names() -> None:
    state = put_in_place(sent())[STACK]
    assert [(one.spec.name, one.start, one.stop, one.at) for one in state.parts] == [
        ("a", 4, 9, 0),
        ("b", 0, 7, 5),
        ("empty", 2, 2, 12),
        ("z", 10, 11, 12),
    ]
    assert all(one.spec.shape == (11, WIDTH) for one in state.parts)
    assert (state.spec.name, state.spec.shape, state.value.shape) == (STACK, (13, 3), (13, 3))
    here = [replace(table(name), shape=(local_rows(name), WIDTH)) for name in HERE]
    assert stacks_of(here)[STACK].starts.tolist() == [*(one.at for one in state.parts), ROWS]


def given_slice(name: str, first: float, stack: str = STACK) -> LoadedSlice:
    start, stop = HERE[name]
    value = np.full((stop - start, WIDTH), first, np.float32)
    slots = {SLOT: value + 0.5}
    return LoadedSlice(table(name, stack=stack), start, stop, value=value, slots=slots)


def test_values_and_slots_are_as_given_and_what_is_not_given_is_made() -> None:
    made = put_in_place([LoadedSlice(table("z", stack=""), *HERE["z"])])["z"]
    made_here = LoadedSlice(table("z"), *HERE["z"])
    only_value = replace(given_slice("empty", 3.0), slots={})
    state = put_in_place([given_slice("b", 2.0), made_here, given_slice("a", 1.0), only_value])[
        STACK
    ]
    np.testing.assert_array_equal(state.value[:, 0], [*[1] * 5, *[2] * 7, made.value[0, 0]])
    slot = [*[1.5] * 5, *[2.5] * 7, made.slots[SLOT][0, 0]]
    np.testing.assert_array_equal(state.slots[SLOT][:, 0], slot)
    assert state.slots.keys() == {SLOT}
    assert state.scalars == {}


def test_a_stack_of_one_slice_uses_its_arrays_as_they_are() -> None:
    one = given_slice("a", 1.0)
    state = put_in_place([one])[STACK]
    assert state.value is one.value
    assert state.slots[SLOT] is one.slots[SLOT]
    assert (state.spec.name, state.spec.shape, state.spec.stack) == (STACK, (5, WIDTH), "")


def test_the_states_are_in_the_order_of_what_was_sent() -> None:
    assert list(put_in_place(sent())) == [STACK, "b_ias"]
    assert list(put_in_place(sent(stack=""))) == ["b", "b_ias", "z", "a", "empty"]


@dataclass(frozen=True)
class Watching(Initializer):
    """Zeros; notes which of the arrays that it watches are still there when it runs."""

    kind: ClassVar[str] = "watching in test"
    watched: dict[str, Any] = dataclasses.field(default_factory=dict)
    left: list[str] = dataclasses.field(default_factory=list)

    def rows(
        self, name: str, shape: tuple[int, ...], dtype: str, start: int, stop: int, seed: int
    ) -> Any:
        self.left.extend(one for one, array in self.watched.items() if array() is not None)
        return np.zeros((stop - start, *shape[1:]), dtype)


def test_what_was_sent_is_freed_as_soon_as_it_is_copied() -> None:
    watching = Watching()
    first = replace(table("a"), initializer=watching)
    slices = [LoadedSlice(first, 0, 5), *(given_slice(name, 1.0) for name in ("b", "z"))]
    slices.append(given_slice("empty", 1.0))
    watching.watched.update(
        {one.spec.name: weakref.ref(one.value) for one in slices if one.value is not None}
    )
    assert all(array() is not None for array in watching.watched.values())
    shard = MemoryShard(0)
    shard.obey(ShardOrders("g", ShardPhase.LOADING))
    shard.load("g", slices)
    assert watching.left == []  # the last of its stack: all others were copied before
    assert slices == []
    assert [array() for array in watching.watched.values()] == [None] * 3
    assert shard.slices[STACK].value[5:].any()


# ---------------------------------------------------------------- refusals


class OfOnesOwn(AdagradOptimizer):
    kind = "OfOnesOwnInStackTest"

    def update(self, value: Any, slots: Any, scalars: Any, gradient: Any) -> None:
        value -= gradient


@pytest.mark.parametrize(
    "optimizer",
    [None, AdamOptimizer(), LazyAdamOptimizer(), OfOnesOwn(0.1), MovingAverage(0.5)],
    ids=lambda one: "none" if one is None else one.kind,
)
def test_a_table_that_is_not_updated_row_by_row_is_in_no_stack(optimizer: Any) -> None:
    slices = [LoadedSlice(table(name, optimizer), *HERE[name]) for name in "ab"]
    before = list(slices)
    with pytest.raises(ModelError, match=f"'a' cannot be in stack '{STACK}': its optimizer"):
        put_in_place(slices)
    assert slices == before
    assert put_in_place([LoadedSlice(table("a", optimizer, stack=""), *HERE["a"])])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (LoadedSlice(table("b", FTRL), 0, 7), "'a' and 'b' cannot be one stack"),
        (
            LoadedSlice(replace(table("b"), shape=(11, 4)), 0, 7),
            "'a' and 'b' cannot be one stack",
        ),
        (LoadedSlice(replace(table("b"), dtype="float64"), 0, 7), "cannot be one stack"),
        (LoadedSlice(table(STACK, stack=""), 0, 7), "name of a variable and of a stack"),
        (LoadedSlice(table("a", stack=""), 0, 7), "two slices of 'a'"),
        (LoadedSlice(table("a"), 0, 7), "two slices of 'a'"),
        (LoadedSlice(table("b"), 5, 12), "outside its 11 rows"),
        (LoadedSlice(table("b"), 0, 7, value=ones(6)), "value of 'b'"),
        (LoadedSlice(table("b"), 0, 7, slots={SLOT: ones(8)}), f"{SLOT} of 'b'"),
    ],
)
def test_a_load_that_does_not_fit_is_refused_before_anything_is_taken(
    other: LoadedSlice, message: str
) -> None:
    shard = MemoryShard(0)
    shard.obey(ShardOrders("g", ShardPhase.LOADING))
    slices = [given_slice("a", 1.0), other]
    with pytest.raises(ModelError, match=message):
        shard.load("g", slices)
    assert len(slices) == 2
    assert (shard.slices, shard.phase) == ({}, ShardPhase.LOADING)


def refused(push: Gradient) -> str:
    bench = Bench(sent())
    request = ExchangeRequest("g", "chief", 1, 1, 0, {STACK: push}, False, {}, False)
    reply = bench.exchange(request)
    assert (reply.outcome, bench.shard.version) == (Outcome.REFUSED, 0)
    return reply.reason


@pytest.mark.parametrize(("row", "name"), [(4, "a"), (5, "b"), (11, "b"), (12, "z")])
def test_a_gradient_that_is_not_finite_is_refused_under_its_tables_name(
    row: int, name: str
) -> None:
    values = ones(2)
    values[1, 2] = np.nan
    gradient = IndexedSlices(np.array([0, row], np.int64), values)
    assert refused(gradient) == f"Gradient of {name!r} is not finite."
    whole = ones(ROWS)
    whole[row, 0] = np.inf
    assert refused(whole) == f"Gradient of {name!r} is not finite."


def test_rows_beyond_a_stack_are_refused_under_its_name() -> None:
    reason = refused(IndexedSlices(np.array([ROWS], np.int64), ones(1)))
    assert reason.startswith(f"Rows of {STACK!r}: expected 0 ≤ row < {ROWS}")


def test_a_table_of_a_stack_has_no_other_name_here() -> None:
    bench = Bench(sent())
    bench.stacked = False
    reply = bench.exchange(bench.request(None, {"a": [0]}))
    assert (reply.outcome, reply.reason) == (Outcome.REFUSED, "This ps holds no slice of a.")


def test_the_largest_push_of_a_stack_is_within_the_limit_of_a_request() -> None:
    stacked, alone = both()
    held = 4 * ROWS * WIDTH + 4 * 2 + 16 * (ROWS + 2)
    assert stacked.shard.request_limit_bytes() == held + 64 * 2 + 4096
    assert alone.shard.request_limit_bytes() == held + 64 * 5 + 4096


def test_a_stack_is_never_pulled_whole() -> None:
    bench = Bench(sent())
    assert bench.exchange(bench.request(None)).dense.keys() == {"b_ias"}
