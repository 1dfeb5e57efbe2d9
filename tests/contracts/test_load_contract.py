"""What every Shard promises of being loaded: in this process, over gRPC, by shared memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from live_shard import (
    ADAM,
    ADAPTED,
    CHIEF,
    KERNEL,
    SGD,
    SLICES,
    TABLE_ROWS,
    Connect,
    G,
    ask,
    exchange,
    go_live,
    ones,
    order,
    push,
    rows,
)

from psys.arrays import IndexedSlices, VariableSpec
from psys.errors import Fenced, GenerationChanged, ModelError
from psys.host import NodeHost
from psys.initializers import Constant
from psys.optimizers import AdagradOptimizer
from psys.ps.messages import Outcome, ShardPhase
from psys.ps.shard import LoadedSlice, Shard

ADAGRAD = AdagradOptimizer(0.5)


def test_load_runs_the_initializers_on_the_shard(shard: Shard) -> None:
    reply = exchange(shard, ask(pull_dense=True, pull_rows={"table": rows(0, 4)}))
    assert reply.outcome is Outcome.NONE
    assert {name: value.tolist() for name, value in reply.dense.items()} == {
        "kernel": [[1.0] * 3] * 4,
        "scalar": [2.0],
        "count": [7, 7],
        "precise": [0.5] * 3,
    }
    assert {name: value.dtype.name for name, value in reply.dense.items()} == {
        "kernel": "float32",
        "scalar": "float32",
        "count": "int64",
        "precise": "float64",
    }
    np.testing.assert_array_equal(reply.rows["table"], TABLE_ROWS[[0, 4]])


def test_load_takes_values_and_optimizer_state_as_given(host: NodeHost, connect: Connect) -> None:
    spec = VariableSpec("w", (6, 2), "float32", Constant(), ADAM)
    value = np.arange(6, dtype=np.float32).reshape(3, 2)
    slots = {"m": value + 10, "v": value + 20}
    scalars = {"beta1_power": 0.25, "beta2_power": 0.5}
    shard = connect(host)
    go_live(host, shard, [LoadedSlice(spec, 2, 5, 9, value.copy(), slots, scalars)])

    def look(node: Any) -> Any:
        state = node.shard.slices["w"]
        slots = {name: slot.tolist() for name, slot in state.slots.items()}
        (part,) = state.parts
        return part.start, part.stop, state.value.tolist(), slots, dict(state.scalars)

    assert host.read_lead(look) == (
        2,
        5,
        value.tolist(),
        {name: slot.tolist() for name, slot in slots.items()},
        scalars,
    )
    gradient = ones(3, 2)
    assert exchange(shard, push(1, {"w": gradient})).outcome is Outcome.APPLIED


def test_a_shard_without_slices_is_loaded_and_served(host: NodeHost, connect: Connect) -> None:
    shard = connect(host)
    go_live(host, shard, [])
    reply = exchange(shard, push(1, pull_dense=True))
    assert (reply.outcome, reply.version, dict(reply.dense)) == (Outcome.APPLIED, 1, {})


@pytest.mark.parametrize("ordered", [None, "bbbbbbbbbbbb"])
def test_only_the_generation_the_lead_ordered_is_loaded(
    host: NodeHost, connect: Connect, ordered: str | None
) -> None:
    if ordered is not None:
        order(host, ordered, phase=ShardPhase.LOADING)
    shard = connect(host)
    with pytest.raises(GenerationChanged, match=f"asked to load {G}"):
        shard.load(G, CHIEF, list(SLICES))


def test_a_live_shard_is_not_loaded_again(shard: Shard) -> None:
    with pytest.raises(GenerationChanged, match="LIVE"):
        shard.load(G, CHIEF, list(SLICES))


@pytest.mark.parametrize("number", [0, CHIEF - 1])
def test_only_the_chief_of_now_loads(host: NodeHost, connect: Connect, number: int) -> None:
    shard = connect(host)
    order(host, phase=ShardPhase.LOADING)
    with pytest.raises(Fenced, match=f"number {number} is not the chief's"):
        shard.load(G, number, list(SLICES))
    shard.load(G, CHIEF, list(SLICES))


@pytest.mark.parametrize(
    "bad",
    [
        LoadedSlice(KERNEL, 0, 4, value=ones(4, 2)),
        LoadedSlice(KERNEL, 0, 4, value=np.ones((4, 3))),
        LoadedSlice(KERNEL, 3, 5),
        LoadedSlice(KERNEL, 3, 2),
        LoadedSlice(ADAPTED, 0, 2, slots={"m": ones(2, 1)}),
    ],
    ids=["shape", "dtype", "beyond", "backwards", "slot"],
)
def test_a_slice_that_does_not_fit_its_variable_is_refused(
    host: NodeHost, connect: Connect, bad: LoadedSlice
) -> None:
    shard = connect(host)
    order(host, phase=ShardPhase.LOADING)
    with pytest.raises(ModelError):
        shard.load(G, CHIEF, [bad])
    shard.load(G, CHIEF, list(SLICES))
    order(host, phase=ShardPhase.LIVE)
    assert exchange(shard, ask()).outcome is Outcome.NONE


def stacked(name: str, start: int, stop: int, **changes: Any) -> LoadedSlice:
    optimizer = changes.pop("optimizer", ADAGRAD.to_config())
    spec = VariableSpec(name, (9, 2), "float32", Constant(3.0), optimizer, True, "both")
    return LoadedSlice(spec, start, stop, **changes)


def test_tables_of_a_stack_are_pulled_and_pushed_under_its_name(
    host: NodeHost, connect: Connect
) -> None:
    value = np.arange(8, dtype=np.float32).reshape(4, 2)
    (slot,) = ADAGRAD.slots
    given = stacked("a", 5, 9, value=value.copy(), slots={slot: value + 1})
    shard = connect(host)
    go_live(host, shard, [stacked("b", 0, 3), *SLICES, given])
    gradient = IndexedSlices(rows(1, 4), ones(2, 2))
    everything = rows(*range(7))
    reply = exchange(shard, push(1, {"both": gradient}, pull_rows={"both": everything}))
    assert reply.outcome is Outcome.APPLIED
    a, b = value.copy(), 3 * ones(3, 2)
    slots = {slot: (value + 1)[1:2].copy()}, {slot: ones(1, 2) * ADAGRAD.slots[slot]}
    for table, changed, held in ((a, 1, slots[0]), (b, 0, slots[1])):
        ADAGRAD.apply_sparse(table[changed : changed + 1], held, {}, rows(0), ones(1, 2))
    np.testing.assert_array_equal(reply.rows["both"], np.concatenate([a, b]))
    for name, row, reason in (("a", 0, "no slice of a."), ("both", 7, "Rows of 'both': expected")):
        refused = exchange(shard, ask(sequence=1, pull_rows={name: rows(row)}))
        assert refused.outcome is Outcome.REFUSED
        assert reason in refused.reason


@pytest.mark.parametrize(
    "bad",
    [
        [stacked("a", 0, 9, optimizer=ADAM)],
        [stacked("a", 0, 9), stacked("b", 0, 9, optimizer=SGD)],
        [stacked("a", 0, 9), LoadedSlice(VariableSpec("both", (1,), "float32", Constant()), 0, 1)],
    ],
    ids=["scalars", "optimizers", "name"],
)
def test_tables_that_cannot_be_a_stack_are_refused(
    host: NodeHost, connect: Connect, bad: list[LoadedSlice]
) -> None:
    shard = connect(host)
    order(host, phase=ShardPhase.LOADING)
    with pytest.raises(ModelError, match="stack"):
        shard.load(G, CHIEF, bad)
    assert not host.read_lead(lambda node: node.shard.slices)
