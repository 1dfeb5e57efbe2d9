"""Recycler: memory for large requests, used again once nobody holds an array in it.

What many threads allocate and free, the system's allocator keeps for each of them; a ps serves
every trainer from a thread of its own, and would grow by the largest push of each.
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass

import numpy as np

from psys.arrays import Array

SMALL_BYTES = 1 << 20
"""Blocks up to this size come from the allocator."""


@dataclass
class _Block:
    memory: Array
    lent: weakref.ref[Array]

    @property
    def free(self) -> bool:
        return self.lent() is None


class Recycler:
    """Lends blocks, and keeps at most ``limit_bytes`` of them. Safe from any thread."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._blocks: list[_Block] = []
        self._lock = threading.Lock()

    def lend(self, size: int) -> Array:
        """Return ``[size]`` bytes, not cleared, that are the caller's while any view is held."""
        if size <= SMALL_BYTES:
            return np.empty(size, np.uint8)
        with self._lock:
            for block in self._blocks:
                if block.free and size <= len(block.memory) <= 2 * size:
                    break
            else:
                block = self._new_block(size)
            # Through a buffer, so that views have this array as their base, not the block.
            lent = np.frombuffer(block.memory.data, np.uint8, size)
            block.lent = weakref.ref(lent)
        return lent

    def _new_block(self, size: int) -> _Block:
        """Make a block; keep it, and of the free ones as many as there is room for."""
        memory = np.empty(size, np.uint8)
        block = _Block(memory, weakref.ref(memory))
        kept = [one for one in self._blocks if not one.free]
        room = self._limit_bytes - size - sum(len(one.memory) for one in kept)
        if room < 0:
            return block
        for one in self._blocks:
            if one.free and room >= len(one.memory):
                kept.append(one)
                room -= len(one.memory)
        self._blocks = [*kept, block]
        return block
