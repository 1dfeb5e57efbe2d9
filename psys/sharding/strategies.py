"""Placements one can choose instead of the default: each gives whole parts to shards.

A placement is asked once, for all parts, when a trainer has found its variables. Every trainer
asks its own, so the same parts must get the same answer everywhere. Nothing here touches a value.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from psys.arrays import VariableSpec
from psys.errors import ConfigError
from psys.sharding.partitioner import Partitioner, Slice, parts_of, row_bytes


@dataclass(frozen=True)
class Part:
    """Some rows of a variable, or all of them, that are to be given to a shard.

    Attributes:
        variable: its name.
        index: which part of the variable it is, from 0.
        rows: how many rows it has.
        nbytes: its size in bytes, without slots.
        sparse: whether it is of a table, which is pulled by row.
    """

    variable: str
    index: int
    rows: int
    nbytes: int
    sparse: bool


class Placement(ABC):
    """Which shard gets which part. Subclasses say how."""

    @abstractmethod
    def place(self, parts: Sequence[Part], num_shards: int) -> Sequence[int]:
        """Return the number of a shard for each part, 0 to ``num_shards`` - 1.

        Parts of one variable that come to one shard become one slice there.

        Args:
            parts: of all variables, in the order in which model_fn makes them.
            num_shards: the number of ps; 1 where there is none.
        """


@dataclass(frozen=True)
class RoundRobinStrategy(Placement):
    """The parts in turn to shard 0, 1, ..., as they are made: what tf.estimator does.

    psys has no variable of the global step, and slots are not counted, so the first variable is
    on shard 0. Source: tf.compat.v1.train.replica_device_setter's default.
    """

    def place(self, parts: Sequence[Part], num_shards: int) -> list[int]:
        """Return 0, 1, ..., ``num_shards`` - 1, 0, ..."""
        return [number % num_shards for number in range(len(parts))]


def byte_size_load_fn(part: Part) -> float:
    """Return the size of a part in bytes (tf.contrib.training.byte_size_load_fn)."""
    return part.nbytes


@dataclass(frozen=True)
class GreedyLoadBalancingStrategy(Placement):
    """Each part, as they are made, to the shard with the smallest load so far.

    Source: tf.contrib.training.GreedyLoadBalancingStrategy; slots are not counted here.

    Attributes:
        num_tasks: accepted for tf programs: there are as many shards as TF_CONFIG lists ps.
        load_fn: what a part adds to the load of its shard.
    """

    num_tasks: int | None = None
    load_fn: Callable[[Part], float] = byte_size_load_fn

    def place(self, parts: Sequence[Part], num_shards: int) -> list[int]:
        """Return the shard with the smallest load, the lowest of several."""
        loads = [0.0] * num_shards
        chosen = []
        for part in parts:
            shard = loads.index(min(loads))
            loads[shard] += self.load_fn(part)
            chosen.append(shard)
        return chosen


@dataclass(frozen=True)
class LargestFirst(Placement):
    """The largest parts first, dense ones and those of tables each spread evenly by themselves.

    What is done with the parts of a partitioner where no placement is chosen. How even that comes
    out is up to the parts.
    """

    def place(self, parts: Sequence[Part], num_shards: int) -> list[int]:
        """Return for each part the shard with the smallest load when its turn comes."""
        loads = [0] * num_shards
        chosen = [0] * len(parts)
        for sparse in (False, True):
            own_loads = [0] * num_shards
            own = [number for number, part in enumerate(parts) if part.sparse == sparse]
            for number in sorted(own, key=lambda number: -parts[number].nbytes):
                shard = min(range(num_shards), key=lambda one: (own_loads[one], loads[one], one))
                own_loads[shard] += parts[number].nbytes
                loads[shard] += parts[number].nbytes
                chosen[number] = shard
        return chosen


def place_parts(
    specs: Sequence[VariableSpec],
    num_shards: int,
    partitioner: Partitioner | None,
    placement: Placement | None,
) -> tuple[Slice, ...]:
    """Return the slices of all variables, ordered by variable name, then start.

    Args:
        specs: the variables, in the order in which model_fn makes them.
        num_shards: at least 1.
        partitioner: cuts them; None leaves them whole.
        placement: gives the parts to shards; None for ``LargestFirst``.

    Raises:
        ConfigError: if either gives an answer that cannot be followed.
    """
    parts = [
        Part(spec.name, index, rows, rows * row_bytes(spec), spec.sparse)
        for spec in specs
        for index, rows in enumerate(parts_of(spec, partitioner))
    ]
    shards = _asked(placement or LargestFirst(), parts, num_shards)
    rows_of: dict[str, dict[int, int]] = {}
    for part, shard in zip(parts, shards, strict=True):
        mine = rows_of.setdefault(part.variable, {})
        mine[shard] = mine.get(shard, 0) + part.rows
    slices = []
    for variable, by_shard in sorted(rows_of.items()):
        start = 0
        for shard, rows in by_shard.items():  # the shard of the first part has the first rows
            slices.append(Slice(variable, start, start + rows, shard))
            start += rows
    return tuple(slices)


def _asked(placement: Placement, parts: Sequence[Part], num_shards: int) -> list[int]:
    """Return the placement's answer, checked."""
    answer = list(placement.place(parts, num_shards))
    if len(answer) != len(parts):
        raise ConfigError(
            f"placement {placement!r} must return a shard for each of {len(parts)} parts, "
            f"got {len(answer)}."
        )
    for part, shard in zip(parts, answer, strict=True):
        whole = isinstance(shard, (int, np.integer)) and not isinstance(shard, bool)
        if not whole or not 0 <= shard < num_shards:
            raise ConfigError(
                f"placement {placement!r} must return shards of 0 to {num_shards - 1}, got "
                f"{shard!r} for part {part.index} of {part.variable!r}."
            )
    return [int(shard) for shard in answer]
