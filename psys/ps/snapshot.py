"""Snapshot: a cut of one shard that is read, block by block, while training goes on.

Taking one copies dense variables, which the next push changes whole, and no table: a table's rows
are copied as pushes are about to change them (copy-on-write), those that were never changed when
they are read. So a cut takes milliseconds, and what it costs in memory is what is trained on
while it is written. Nothing here waits or locks: who reads does so under ``guard``, which is what
keeps pushes out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from psys.arrays import Array, VariableSpec
from psys.ps.messages import Fences

BLOCK_BYTES = 1 << 20
"""So much is copied at once while pushes wait."""

FIRST_PIECE_ROWS = 1024
"""So many rows that were changed are kept room for at first."""

VALUE = ""
"""The name of a variable's value among its slots."""


class KeptRows:
    """Rows in the order they came, in pieces, each twice as large as the one before.

    However many pushes brought them, reading looks at a few pieces, and none is ever moved.
    """

    def __init__(self, like: Array) -> None:
        """Keep none yet, of the shape and dtype that rows of ``like`` have."""
        self._row_shape, self._dtype = like.shape[1:], like.dtype
        self._pieces: list[Array] = []
        self._starts: list[int] = []
        self.count = 0
        """How many there are."""

    def add(self, rows: Array) -> None:
        """Keep rows ``[n, ...]``: the next numbers are theirs."""
        while len(rows):
            room = self._room()
            taken = min(room, len(rows))
            at = self.count - self._starts[-1]
            self._pieces[-1][at : at + taken] = rows[:taken]
            self.count += taken
            rows = rows[taken:]

    def _room(self) -> int:
        """Return how many more rows the last piece takes, at least one."""
        if self._pieces:
            room = self._starts[-1] + len(self._pieces[-1]) - self.count
            if room:
                return room
        size = 2 * len(self._pieces[-1]) if self._pieces else FIRST_PIECE_ROWS
        self._pieces.append(np.empty((size, *self._row_shape), self._dtype))
        self._starts.append(self.count)
        return size

    def copy_to(self, out: Array, places: Array, numbers: Array) -> None:
        """Write the rows of these numbers ``[n]`` to these places ``[n]`` of ``out``."""
        for start, piece in zip(self._starts, self._pieces, strict=True):
            here = (numbers >= start) & (numbers < start + len(piece))
            out[places[here]] = piece[numbers[here] - start]


@dataclass(frozen=True)
class Part:
    """Rows ``[start, stop)`` of a variable, and where they lie in a shard's memory.

    Attributes:
        spec: the whole variable.
        start: first row.
        stop: one past the last row.
        at: where in the arrays the first lies: 0, but behind other tables in a stack.
    """

    spec: VariableSpec
    start: int
    stop: int
    at: int = 0

    @property
    def rows(self) -> int:
        """How many there are."""
        return self.stop - self.start


class SliceCut:
    """A slice, or a stack of them, as it was when it was cut. Arrays are ``[rows, ...]``.

    Attributes:
        parts: whose rows they are, without gap or overlap.
        scalars: what the optimizer keeps once a slice.
    """

    def __init__(
        self, parts: tuple[Part, ...], arrays: dict[str, Array], scalars: dict[str, float]
    ) -> None:
        """Cut a slice.

        Args:
            parts: whose rows they are: of one variable, or of several tables.
            arrays: the value (``VALUE``) and the slots by name, as they are used on.
            scalars: what the optimizer keeps once a slice.
        """
        self.parts, self.scalars = parts, dict(scalars)
        self._shared = parts[0].spec.sparse
        self._arrays = arrays if self._shared else {k: one.copy() for k, one in arrays.items()}
        rows = len(arrays[VALUE]) if self._shared else 0
        # Zeros take no memory before they are written.
        self._place = np.zeros(rows, np.int32 if rows < np.iinfo(np.int32).max else np.int64)
        """Of each row among the kept ones, from 1; 0 for one that has not been changed since."""
        self._kept = {name: KeptRows(one) for name, one in self._arrays.items()}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all arrays."""
        return tuple(self._arrays)

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of one row; a scalar variable is one row of shape ``()``."""
        return self._arrays[VALUE].shape[1:]

    def keep(self, rows: Array | None) -> None:
        """Copy rows that are about to be changed.

        Args:
            rows: ``[n]`` sorted and unique; None for all.
        """
        if not self._shared:
            return
        changing = np.arange(len(self._place)) if rows is None else rows
        fresh = changing[self._place[changing] == 0]
        if len(fresh):
            held = self._kept[VALUE].count + 1
            self._place[fresh] = np.arange(held, held + len(fresh))
            for name, one in self._arrays.items():
                self._kept[name].add(one.take(fresh, axis=0))

    def read(self, name: str, first: int, last: int) -> Array:
        """Return a copy of rows ``[first, last)`` of an array, as they were cut."""
        block = self._arrays[name][first:last].copy()
        if self._shared:
            place = self._place[first:last]
            changed = np.flatnonzero(place)
            self._kept[name].copy_to(block, changed, place[changed] - 1)
        return block


@dataclass(frozen=True)
class Tensor:
    """One array of a variable in a cut, read in blocks of rows."""

    of: SliceCut
    part: Part
    name: str
    guard: AbstractContextManager[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """``(rows, ...)``."""
        return (self.part.rows, *self.of.row_shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The variable's."""
        return np.dtype(self.part.spec.dtype)

    def blocks(self) -> Iterator[Array]:
        """Yield all rows in order, copied under the guard, one block at a time."""
        row_bytes = math.prod(self.of.row_shape) * self.dtype.itemsize
        at_once = max(BLOCK_BYTES // max(row_bytes, 1), 1)
        end = self.part.at + self.part.rows
        for first in range(self.part.at, end, at_once):
            with self.guard:
                block = self.of.read(self.name, first, min(first + at_once, end))
            yield block


@dataclass(frozen=True)
class Snapshot:
    """A cut of one shard, to be written.

    Attributes:
        save: the save's id.
        generation: of the model.
        index: of the shard.
        global_step: of the cut.
        cut: the last push of each task that is in it.
        slices: all of the shard, each stack as one.
        guard: entered for each block that is read; it keeps pushes out.
    """

    save: str
    generation: str
    index: int
    global_step: int
    cut: Fences
    slices: tuple[SliceCut, ...]
    guard: AbstractContextManager[Any] = field(default_factory=nullcontext)

    def parts(self) -> list[tuple[Part, SliceCut]]:
        """Return every variable's rows and the cut they are in, by the variable's name."""
        found = [(part, one) for one in self.slices for part in one.parts]
        return sorted(found, key=lambda pair: pair[0].spec.name)

    def tensors(self) -> dict[str, Tensor]:
        """Return value and slots of every variable by their keys in a shard file."""
        found: dict[str, Tensor] = {}
        for part, one in self.parts():
            variable, kind = part.spec.name, (part.spec.optimizer or {}).get("kind", "")
            for name in one.names:
                key = variable if name == VALUE else f"{variable}/{kind}/{name}"
                found[key] = Tensor(one, part, name, self.guard)
        return found
