"""The model that is trained, made so that its values tell which pushes were applied.

Table ``log`` has on every shard one row for each push ever made; applying a push adds one to its
row. Table ``echo`` gets the same, and is with it in the stack ``logs``: what one row of a stack
got, the other must have. Dense variable ``count`` is cut over the shards; every push adds one to
all of it. So is ``seldom``, to which only every third push adds one: in between replies leave it
out. All by SGD with learning rate 1, as any model's values change.
"""

from __future__ import annotations

import numpy as np

from psys.arrays import Array, IndexedSlices, VariableSpec
from psys.initializers import Constant
from psys.ps.memory_shard import MemoryShard
from psys.ps.shard import LoadedSlice
from psys.ps.snapshot import VALUE, Snapshot

ROWS = 1024
DENSE = ("count", "seldom")
LOGS = "logs"
"""The stack of ``echo`` and ``log``: on each shard, one behind the other."""
SGD = {"kind": "SGD", "learning_rate": 1.0}

Values = dict[str, Array]
"""One shard's values by variable."""


def specs(num_ps: int) -> dict[str, VariableSpec]:
    """Return the model's variables, one slice of each for every shard."""
    return {
        "count": VariableSpec("count", (2 * num_ps,), "float32", Constant(), SGD),
        "seldom": VariableSpec("seldom", (num_ps,), "float32", Constant(), SGD),
        **{
            name: VariableSpec(
                name, (ROWS * num_ps, 1), "float32", Constant(), SGD, sparse=True, stack=LOGS
            )
            for name in ("log", "echo")
        },
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
    push: dict[str, Array | IndexedSlices] = {
        "count": np.full(2, -1, np.float32),
        LOGS: IndexedSlices(log_rows(row), np.full((2, 1), -1, np.float32)),
    }
    if row % 3 == 0:
        push["seldom"] = np.full(1, -1, np.float32)
    return push


def log_rows(row: int) -> Array:
    """Return where a row of the log is in the stack, on any shard: in both tables."""
    return np.array([row, ROWS + row], np.int64)


def shard_values(shard: MemoryShard) -> Values:
    """Return copies of a shard's values."""
    return {
        part.spec.name: state.value[part.at : part.at + part.rows].copy()
        for state in shard.slices.values()
        for part in state.parts
    }


def log_of(shard: MemoryShard) -> Array:
    """Return a shard's log ``[ROWS]``, as both tables have it."""
    echo, log = np.split(shard.slices[LOGS].value[:, 0], 2)
    assert np.array_equal(echo, log), "what one row of a stack got, the other must have"
    return log


def snapshot_values(snapshot: Snapshot) -> Values:
    """Return the values of a cut."""
    return {
        part.spec.name: one.read(VALUE, part.at, part.at + part.rows)
        for part, one in snapshot.parts()
    }


def applied(values: Values) -> set[int]:
    """Return the rows of all pushes that are in these values."""
    assert np.array_equal(values["log"], values["echo"]), "the tables of a stack are cut as one"
    return set(np.flatnonzero(values["log"][:, 0]).tolist())
