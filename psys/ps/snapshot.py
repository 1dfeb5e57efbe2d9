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

VALUE = ""
"""The name of a variable's value among its slots."""


class SliceCut:
    """One slice as it was when it was cut. Arrays are ``[stop - start, ...]``.

    Attributes:
        spec: the whole variable.
        start: first row.
        stop: one past the last row.
        scalars: what the optimizer keeps once a slice.
    """

    def __init__(
        self,
        spec: VariableSpec,
        start: int,
        stop: int,
        arrays: dict[str, Array],
        scalars: dict[str, float],
    ) -> None:
        """Cut a slice.

        Args:
            spec: the whole variable.
            start: first row.
            stop: one past the last row.
            arrays: the value (``VALUE``) and the slots by name, as they are used on.
            scalars: what the optimizer keeps once a slice.
        """
        self.spec, self.start, self.stop = spec, start, stop
        self.scalars = dict(scalars)
        self._shared = spec.sparse
        self._arrays = arrays if spec.sparse else {k: one.copy() for k, one in arrays.items()}
        self._is_kept = np.zeros(stop - start if spec.sparse else 0, np.bool_)
        self._kept: list[tuple[Array, dict[str, Array]]] = []
        """Sorted rows, and what they held at the cut; a row is in one of them at most."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all arrays."""
        return tuple(self._arrays)

    @property
    def shape(self) -> tuple[int, ...]:
        """``(rows, ...)`` of each array; a scalar variable is one row."""
        return self._arrays[VALUE].shape

    def keep(self, rows: Array | None) -> None:
        """Copy rows that are about to be changed.

        Args:
            rows: ``[n]`` sorted and unique; None for all.
        """
        if not self._shared:
            return
        changing = np.arange(len(self._is_kept)) if rows is None else rows
        fresh = changing[~self._is_kept[changing]]
        if len(fresh):
            self._is_kept[fresh] = True
            self._kept.append(
                (fresh, {name: one.take(fresh, axis=0) for name, one in self._arrays.items()})
            )

    def read(self, name: str, first: int, last: int) -> Array:
        """Return a copy of rows ``[first, last)`` of an array, as they were cut."""
        block = self._arrays[name][first:last].copy()
        for rows, held in self._kept:
            low, high = np.searchsorted(rows, (first, last))
            block[rows[low:high] - first] = held[name][low:high]
        return block


@dataclass(frozen=True)
class Tensor:
    """One array of a cut, read in blocks of rows."""

    of: SliceCut
    name: str
    guard: AbstractContextManager[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """``(rows, ...)``."""
        return self.of.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The variable's."""
        return np.dtype(self.of.spec.dtype)

    def blocks(self) -> Iterator[Array]:
        """Yield all rows in order, copied under the guard, one block at a time."""
        rows = self.shape[0]
        row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        at_once = max(BLOCK_BYTES // max(row_bytes, 1), 1)
        for first in range(0, rows, at_once):
            with self.guard:
                block = self.of.read(self.name, first, min(first + at_once, rows))
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
        slices: all of the shard.
        guard: entered for each block that is read; it keeps pushes out.
    """

    save: str
    generation: str
    index: int
    global_step: int
    cut: Fences
    slices: tuple[SliceCut, ...]
    guard: AbstractContextManager[Any] = field(default_factory=nullcontext)

    def tensors(self) -> dict[str, Tensor]:
        """Return value and slots of every slice by their keys in a shard file."""
        found: dict[str, Tensor] = {}
        for one in self.slices:
            kind = (one.spec.optimizer or {}).get("kind", "")
            for name in one.names:
                key = one.spec.name if name == VALUE else f"{one.spec.name}/{kind}/{name}"
                found[key] = Tensor(one, name, self.guard)
        return found
