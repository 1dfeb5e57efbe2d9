"""A fence: what a shard remembers of the last push of a task."""

from __future__ import annotations

from typing import NamedTuple


class Fence(NamedTuple):
    """The last push of a task that was applied; later ones compare as greater."""

    member: int
    sequence: int


NO_FENCE = Fence(0, 0)
