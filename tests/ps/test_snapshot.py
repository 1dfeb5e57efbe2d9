"""A cut is what the slice was when it was taken, in whatever order it is read and trained on."""

from __future__ import annotations

import copy
import gc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psys.arrays import IndexedSlices, VariableSpec
from psys.initializers import RandomUniform
from psys.optimizers import AdagradOptimizer, AdamOptimizer, LazyAdamOptimizer, Optimizer
from psys.ps import snapshot
from psys.ps.loading import put_in_place
from psys.ps.shard import LoadedSlice
from psys.ps.slice_state import SliceState
from psys.ps.snapshot import VALUE, SliceCut, Snapshot

ROWS = 23
OPTIMIZERS: list[Optimizer] = [
    AdagradOptimizer(0.5),
    AdamOptimizer(0.5),  # moves every row
    LazyAdamOptimizer(0.5),
]
ACTIONS = st.lists(
    st.one_of(
        st.just("cut"),
        st.just("read"),
        st.just("dense"),
        st.lists(st.integers(0, ROWS - 1), max_size=9),
    ),
    max_size=12,
)


def state_of(optimizer: Optimizer, sparse: bool = True) -> SliceState:
    spec = VariableSpec(
        "table", (40, 3), "float32", RandomUniform(), optimizer.to_config(), sparse=sparse
    )
    return put_in_place([LoadedSlice(spec, 10, 10 + ROWS)])["table"]


def push(state: SliceState, rows: list[int]) -> None:
    gradient = IndexedSlices(np.array(rows, np.int64), np.ones((len(rows), 3), np.float32))
    state.apply(gradient, 0)


def everything(state: SliceState) -> dict[str, Any]:
    arrays = {VALUE: state.value, **state.slots}
    return copy.deepcopy({"scalars": state.scalars, **arrays})


def whole(cut: SliceCut) -> dict[str, Any]:
    tensors = Snapshot("s", "g", 0, 0, {}, (cut,)).tensors()
    arrays = {one.name: np.concatenate(list(one.blocks())) for one in tensors.values()}
    return {"scalars": cut.scalars, **arrays}


def same(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    return found.keys() == expected.keys() and all(
        np.array_equal(found[name], expected[name]) for name in expected
    )


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda one: one.kind)
@pytest.mark.parametrize("sparse", [True, False])
@given(actions=ACTIONS)
def test_a_cut_is_what_the_slice_was(
    optimizer: Optimizer, sparse: bool, actions: list[Any]
) -> None:
    state = state_of(optimizer, sparse)
    cuts = [(state.cut(), everything(state))]
    for action in [[3, 3, 5], *actions]:
        if action == "cut":
            cuts.append((state.cut(), everything(state)))
        elif action == "read":
            assert same(whole(cuts[-1][0]), cuts[-1][1])
        elif action == "dense":
            state.apply(np.ones((ROWS, 3), np.float32), 0)
        else:
            push(state, action)
    for cut, expected in cuts:
        assert same(whole(cut), expected)


def test_it_may_be_read_in_blocks_while_pushes_come_in_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshot, "BLOCK_BYTES", 4 * 3 * 4)
    state = state_of(OPTIMIZERS[0])
    cut, expected = state.cut(), everything(state)
    for tensor in Snapshot("s", "g", 0, 0, {}, (cut,)).tensors().values():
        read = []
        for number, block in enumerate(tensor.blocks()):
            assert len(block) == (4 if number < 5 else 3)
            push(state, [4 * number % ROWS, (4 * number + 3) % ROWS])
            read.append(block)
        assert np.array_equal(np.concatenate(read), expected[tensor.name])


def test_of_a_table_only_rows_that_change_are_copied() -> None:
    state = state_of(OPTIMIZERS[0])
    cut = state.cut()
    push(state, [7, 2])
    push(state, [2, 9])
    assert np.flatnonzero(cut._place).tolist() == [2, 7, 9]
    assert {name: kept.count for name, kept in cut._kept.items()} == dict.fromkeys(cut.names, 3)


def test_what_nobody_reads_any_more_costs_a_push_nothing() -> None:
    state = state_of(OPTIMIZERS[0])
    cut = state.cut()
    push(state, [7, 2])
    assert [one() for one in state._cuts] == [cut]
    del cut
    gc.collect()
    push(state, [7, 2])
    assert not state._cuts
    for _ in range(5):  # of a variable that nobody pushes to
        state.cut()
        gc.collect()
    assert len(state._cuts) <= 1


def test_blocks_are_read_under_the_guard() -> None:
    class Guard:
        inside = entered = 0

        def __enter__(self) -> None:
            self.inside, self.entered = 1, self.entered + 1

        def __exit__(self, *_: object) -> None:
            self.inside = 0

    guard = Guard()
    cut = state_of(OPTIMIZERS[0]).cut()
    for tensor in Snapshot("s", "g", 0, 0, {}, (cut,), guard).tensors().values():
        for _ in tensor.blocks():
            assert not guard.inside  # not while it is written
    assert guard.entered == 2


def test_however_many_pushes_changed_rows_reading_looks_at_few_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshot, "FIRST_PIECE_ROWS", 2)
    rows = 5_000
    spec = VariableSpec(
        "table", (rows, 2), "float32", RandomUniform(), OPTIMIZERS[0].to_config(), sparse=True
    )
    state = put_in_place([LoadedSlice(spec, 0, rows)])["table"]
    expected, cut = everything(state), state.cut()
    order = np.random.default_rng(1).permutation(rows)
    for changed in np.array_split(order, 1_000):
        values = np.ones((len(changed), 2), np.float32)
        state.apply(IndexedSlices(np.sort(changed), values), 0)
    found = whole(cut)
    for name in cut.names:
        np.testing.assert_array_equal(found[name], expected[name])
        assert cut._kept[name].count == rows
        assert len(cut._kept[name]._pieces) < 13


def test_an_optimizer_that_writes_its_own_sparse_update_may_move_any_row() -> None:
    class Decaying(Optimizer):
        kind = "DecayingInTest"
        arguments = ("learning_rate",)

        def __init__(self, learning_rate: float) -> None:
            super().__init__(learning_rate, use_locking=False, name="Decaying")

        def update(self, value: Any, slots: Any, scalars: Any, gradient: Any) -> None:
            value -= self.learning_rate * gradient

        def apply_sparse(self, value: Any, *_arguments: Any, global_step: int = 0) -> None:
            value *= 0.5

    state = state_of(Decaying(0.5))
    expected, cut = everything(state), state.cut()
    push(state, [3])
    np.testing.assert_array_equal(whole(cut)[VALUE], expected[VALUE])
