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

from psys.arrays import VariableSpec
from psys.errors import Fenced, GenerationChanged, ModelError
from psys.host import NodeHost
from psys.initializers import Constant
from psys.ps.messages import Outcome, ShardPhase
from psys.ps.shard import LoadedSlice, Shard


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
