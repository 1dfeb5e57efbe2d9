"""The model that is trained, made so that its values tell which pushes were applied.

Table ``log`` has on every shard one row for each push ever made; applying a push adds one to its
row. Dense variable ``count`` is cut over the shards; every push adds one to all of it. So is
``seldom``, to which only every third push adds one: in between replies leave it out. All by SGD
with learning rate 1, as any model's values change.
"""

from __future__ import annotations

import numpy as np

from psys.arrays import Array, IndexedSlices, VariableSpec
from psys.initializers import Constant
from psys.ps.memory_shard import MemoryShard
from psys.ps.shard import LoadedSlice
from psys.ps.slice_state import SliceState
from psys.ps.snapshot import VALUE, Snapshot

ROWS = 1024
DENSE = ("count", "seldom")
SGD = {"kind": "SGD", "learning_rate": 1.0}

Values = dict[str, Array]
"""One shard's values by variable."""


def specs(num_ps: int) -> dict[str, VariableSpec]:
    """Return the model's variables, one slice of each for every shard."""
    return {
        "count": VariableSpec("count", (2 * num_ps,), "float32", Constant(), SGD),
        "seldom": VariableSpec("seldom", (num_ps,), "float32", Constant(), SGD),
        "log": VariableSpec("log", (ROWS * num_ps, 1), "float32", Constant(), SGD, sparse=True),
    }


def slices(num_ps: int, shard: int, values: Values | None) -> list[LoadedSlice]:
    """Return what the chief loads into a shard; the initializers' values for None."""
    loaded = []
    for spec in specs(num_ps).values():
        rows = spec.rows // num_ps
        value = None if values is None else values[spec.name].copy()
        loaded.append(LoadedSlice(spec, shard * rows, (shard + 1) * rows, value=value))
    return loaded


def gradients(row: int) -> dict[str, Array | IndexedSlices]:
    """Return one shard's part of the push that owns ``row`` of the log."""
    minus_one = np.full((1, 1), -1, np.float32)
    push: dict[str, Array | IndexedSlices] = {
        "count": np.full(2, -1, np.float32),
        "log": IndexedSlices(np.array([row], np.int64), minus_one),
    }
    if row % 3 == 0:
        push["seldom"] = np.full(1, -1, np.float32)
    return push


def values_of(states: tuple[SliceState, ...]) -> Values:
    """Return copies of the values of some slices."""
    return {state.spec.name: state.value.copy() for state in states}


def shard_values(shard: MemoryShard) -> Values:
    """Return copies of a shard's values."""
    return values_of(tuple(shard.slices.values()))


def snapshot_values(snapshot: Snapshot) -> Values:
    """Return the values of a cut."""
    return {
        part.spec.name: one.read(VALUE, part.at, part.at + part.rows)
        for part, one in snapshot.parts()
    }


def applied(values: Values) -> set[int]:
    """Return the rows of all pushes that are in these values."""
    return set(np.flatnonzero(values["log"][:, 0]).tolist())
