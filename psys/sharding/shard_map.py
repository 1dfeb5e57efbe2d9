"""Which shard holds which rows of each variable, and the split and join that follow it.

A shard map is plain data: written into checkpoints, sent to trainers, equal on all of them.
It cuts arrays into views and joins them; it never talks to a shard.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Any

import numpy as np

from psys.arrays import Array, VariableSpec
from psys.errors import ConfigError, ModelError
from psys.sharding.partitioner import Partitioner, Slice
from psys.sharding.placement import place
from psys.sharding.strategies import Placement, place_parts

__all__ = ["Positions", "ShardMap", "Slice", "plan"]

Positions = Array | slice
"""Which elements of an array, in order: their numbers, or from where to where."""


@dataclass(frozen=True)
class ShardMap:
    """Where every row of every variable is.

    Of each variable the slices cover rows 0 to its last without gap or overlap, at most one
    on each shard.

    Attributes:
        num_shards: how many shards there are; some may hold nothing.
        slices: ordered by variable name, then start.
    """

    num_shards: int
    slices: tuple[Slice, ...]
    _of: dict[str, tuple[Slice, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.num_shards < 1:
            raise ModelError(f"A shard map needs at least 1 shard, got {self.num_shards}.")
        if list(self.slices) != sorted(self.slices, key=lambda one: (one.variable, one.start)):
            raise ModelError("A shard map's slices must be ordered by variable name and start.")
        of = {
            name: tuple(slices) for name, slices in groupby(self.slices, lambda one: one.variable)
        }
        for slices in of.values():
            _check_cover(slices, self.num_shards)
        object.__setattr__(self, "_of", of)

    @property
    def digest(self) -> str:
        """A hash of it: equal on all trainers that spread a model in the same way."""
        return hashlib.sha256(json.dumps(self.to_config()).encode()).hexdigest()[:16]

    def of(self, variable: str) -> tuple[Slice, ...]:
        """Return the slices of one variable, by start.

        Raises:
            ModelError: if the map has no such variable.
        """
        try:
            return self._of[variable]
        except KeyError:
            raise ModelError(f"The shard map has no variable {variable!r}.") from None

    def on(self, shard: int) -> tuple[Slice, ...]:
        """Return the slices on one shard, by variable name; none is possible.

        Raises:
            ModelError: if there is no such shard.
        """
        if not 0 <= shard < self.num_shards:
            raise ModelError(f"No shard {shard}; there are {self.num_shards}, from 0.")
        return tuple(one for one in self.slices if one.shard == shard)

    def split_dense(self, variable: str, array: Array) -> dict[int, Array]:
        """Return shard → view of its rows of ``array``.

        Args:
            variable: its name.
            array: ``[rows, ...]`` a value or gradient of the whole variable; ``[]`` for a
                scalar, which becomes ``[1]``.

        Raises:
            ModelError: if the map has no such variable, or with another number of rows.

        Example, 5 rows of which shard 0 holds the first 3:
            >>> shard_map = ShardMap(2, (Slice("w", 0, 3, 0), Slice("w", 3, 5, 1)))
            >>> parts = shard_map.split_dense("w", np.array([10, 11, 12, 13, 14]))
            >>> {shard: part.tolist() for shard, part in parts.items()}
            {0: [10, 11, 12], 1: [13, 14]}
        """
        slices = self.of(variable)
        whole = array if array.ndim else array.reshape(1)
        if len(whole) != slices[-1].stop:
            raise ModelError(
                f"Variable {variable!r} has {slices[-1].stop} rows, got an array {array.shape}."
            )
        return {one.shard: whole[one.start : one.stop] for one in slices}

    def join(self, variable: str, parts: Mapping[int, Array], shape: tuple[int, ...]) -> Array:
        """Return the whole variable from its parts: undo ``split_dense``.

        Args:
            variable: its name.
            parts: shard → ``[rows of its slice, ...]``; shards without a slice may be there
                too and are not looked at.
            shape: the variable's shape.

        Returns:
            A new array; where one shard holds all, a view of its part.

        Raises:
            ModelError: if a part is missing or does not fit.

        Example, 5 rows of which shard 0 holds the first 3:
            >>> shard_map = ShardMap(2, (Slice("w", 0, 3, 0), Slice("w", 3, 5, 1)))
            >>> parts = {1: np.array([13, 14]), 0: np.array([10, 11, 12])}
            >>> shard_map.join("w", parts, (5,)).tolist()
            [10, 11, 12, 13, 14]
        """
        slices = self.of(variable)
        if slices[-1].stop != (shape[0] if shape else 1):
            raise ModelError(
                f"Variable {variable!r} has {slices[-1].stop} rows, not shape {shape}."
            )
        ordered = []
        for one in slices:
            if one.shard not in parts:
                raise ModelError(
                    f"Variable {variable!r}: the part of shard {one.shard} is missing."
                )
            part = parts[one.shard]
            if not part.ndim:
                part = part.reshape(1)
            if part.shape != (one.rows, *shape[1:]):
                raise ModelError(
                    f"Variable {variable!r}: the part of shard {one.shard} must be "
                    f"{(one.rows, *shape[1:])}, got {part.shape}."
                )
            ordered.append(part)
        whole = ordered[0] if len(ordered) == 1 else np.concatenate(ordered)
        return whole.reshape(shape)

    def split_rows(self, variable: str, ids: Array) -> dict[int, tuple[Positions, Array]]:
        """Return shard → which of ``ids`` it holds, for every shard with a slice.

        Args:
            variable: its name.
            ids: ``[n]`` int64 rows of the variable, in any order, repeats allowed; sorted
                ones are split fastest.

        Returns:
            Shard → ``(positions, local)``: ``ids[positions]`` are the shard's own, in their
            order and maybe none, and ``local`` their row numbers within its slice. Positions
            of sorted ids are a slice, so that indexing by them copies nothing.

        Raises:
            ModelError: if the map has no such variable, or an id lies outside its rows.

        Example, 5 rows of which shard 0 holds the first 3:
            >>> shard_map = ShardMap(2, (Slice("w", 0, 3, 0), Slice("w", 3, 5, 1)))
            >>> ids = np.array([4, 0, 2])
            >>> parts = shard_map.split_rows("w", ids)
            >>> {shard: (ids[at].tolist(), local.tolist()) for shard, (at, local) in parts.items()}
            {0: ([0, 2], [0, 2]), 1: ([4], [1])}
        """
        slices = self.of(variable)
        ids = np.asarray(ids, np.int64)
        ordered = bool((ids[1:] >= ids[:-1]).all())
        _check_range(variable, ids, slices[-1].stop, ordered)
        if len(slices) == 1:
            return {slices[0].shard: (slice(0, len(ids)), ids)}
        if ordered:
            edges = np.searchsorted(ids, [one.start for one in slices] + [slices[-1].stop])
            return {
                one.shard: (slice(first, last), ids[first:last] - one.start)
                for one, (first, last) in zip(slices, pairwise(edges.tolist()), strict=True)
            }
        result: dict[int, tuple[Positions, Array]] = {}
        for one in slices:
            positions = np.flatnonzero((ids >= one.start) & (ids < one.stop))
            result[one.shard] = positions, ids[positions] - one.start
        return result

    def to_config(self) -> dict[str, Any]:
        """Return a JSON-able description; ``from_config`` reads it back."""
        return {
            "num_shards": self.num_shards,
            "slices": [[one.variable, one.start, one.stop, one.shard] for one in self.slices],
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ShardMap:
        """Return the shard map that ``to_config`` described.

        Raises:
            ModelError: if it is not such a description, or slices overlap or leave a gap.
        """
        try:
            num_shards = int(config["num_shards"])
            slices = tuple(
                Slice(str(variable), int(start), int(stop), int(shard))
                for variable, start, stop, shard in config["slices"]
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"Not the description of a shard map: {error!r}.") from error
        return cls(num_shards, slices)


def plan(
    specs: Sequence[VariableSpec],
    num_shards: int,
    partitioner: Partitioner | None = None,
    placement: Placement | None = None,
) -> ShardMap:
    """Return a shard map for a model.

    With neither partitioner nor placement it is even in bytes, and the same for any order of
    ``specs``: every shard is within 15 % of the mean wherever the sizes of rows allow it.
    Variables are cut only where that needs it, small ones last; a shard may stay empty. With
    either, variables are cut as the partitioner says, or not at all, and how even it comes out is
    up to the two.

    Args:
        specs: all variables of the model, in the order in which model_fn makes them.
        num_shards: how many shards there are, at least 1; may exceed the rows.
        partitioner: says into how many parts a variable is cut.
        placement: says which shard gets which part.

    Raises:
        ConfigError: if ``num_shards`` is less than 1, or a partitioner or placement gives an
            answer that cannot be followed.
        ModelError: if two variables have one name.

    Example, 400 KB over two shards:
        >>> from psys.initializers import Constant
        >>> shapes = {"kernel": (300, 256), "table": (90, 256), "bias": (256,)}
        >>> specs = [VariableSpec(n, s, "float32", Constant()) for n, s in shapes.items()]
        >>> for one in plan(specs, 2).slices:
        ...     print(one.variable, one.start, one.stop, "on shard", one.shard)
        bias 0 256 on shard 0
        kernel 0 195 on shard 0
        kernel 195 300 on shard 1
        table 0 90 on shard 1
    """
    if num_shards < 1:
        raise ConfigError(f"A model needs at least 1 shard, got {num_shards}.")
    names = [spec.name for spec in specs]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ModelError(f"Variable names must be unique, got {', '.join(twice)} more than once.")
    if partitioner is None and placement is None:
        return ShardMap(num_shards, place(specs, num_shards))
    return ShardMap(num_shards, place_parts(specs, num_shards, partitioner, placement))


def _check_cover(slices: Sequence[Slice], num_shards: int) -> None:
    """Refuse slices of one variable that leave a gap, overlap, or share a shard."""
    name = slices[0].variable
    expected = 0
    for one in slices:
        if one.start != expected:
            raise ModelError(
                f"Variable {name!r}: the next slice must start at row {expected}, got {one.start}."
            )
        if one.rows == 0 and len(slices) > 1:
            raise ModelError(f"Variable {name!r}: an empty slice on shard {one.shard}.")
        if one.shard >= num_shards:
            raise ModelError(
                f"Variable {name!r}: a slice on shard {one.shard} of {num_shards}, from 0."
            )
        expected = one.stop
    if len({one.shard for one in slices}) < len(slices):
        raise ModelError(f"Variable {name!r}: two slices on one shard.")


def _check_range(variable: str, ids: Array, rows: int, ordered: bool) -> None:
    if not len(ids):
        return
    low, high = (ids[0], ids[-1]) if ordered else (ids.min(), ids.max())
    if low < 0 or high >= rows:
        raise ModelError(
            f"Ids of {variable!r} must lie in [0, {rows}), got {low if low < 0 else high}."
        )
