"""The tally of pushes: how stale those of all trainers were, and how many were dropped."""

from __future__ import annotations

from dataclasses import dataclass

EXACT = 64
"""Staleness below this is counted value by value, from here on in powers of two."""


def bucket_of(staleness: int) -> int:
    """Return where a staleness is counted.

    Example: 0 → 0, 63 → 63, 64 to 127 → 64, 128 to 255 → 65.
    """
    return staleness if staleness < EXACT else EXACT + (staleness // EXACT).bit_length() - 1


def least_of(bucket: int) -> int:
    """Return the least staleness that is counted in a bucket."""
    return bucket if bucket < EXACT else EXACT << (bucket - EXACT)


@dataclass(frozen=True)
class PushCounts:
    """What became of the pushes of one generation so far, whoever sent them.

    Attributes:
        generation: theirs; '' for no counts at all.
        staleness: of applied pushes, how many in each bucket (``bucket_of``).
        dropped: how many came too late for their update (SYNC).
    """

    generation: str = ""
    staleness: tuple[int, ...] = ()
    dropped: int = 0

    def since(self, earlier: PushCounts) -> PushCounts:
        """Return what came after ``earlier``, which is of the same generation."""
        before = (*earlier.staleness, *([0] * (len(self.staleness) - len(earlier.staleness))))
        more = tuple(now - then for now, then in zip(self.staleness, before, strict=True))
        return PushCounts(self.generation, more, self.dropped - earlier.dropped)


NO_PUSHES = PushCounts()


class PushTally:
    """One shard's count of the pushes of the generation it holds.

    Attributes:
        told: the counts as they were when ``tell`` was called last. Those who are told of them
            need not be told with every push.
    """

    def __init__(self, generation: str = "") -> None:
        self._staleness: list[int] = []
        self._dropped = 0
        self.told = PushCounts(generation)

    def note_applied(self, staleness: int) -> None:
        """Count a push that was applied; a base version from the future is no staleness."""
        bucket = bucket_of(max(staleness, 0))
        missing = bucket + 1 - len(self._staleness)
        if missing > 0:
            self._staleness += [0] * missing
        self._staleness[bucket] += 1

    def note_dropped(self) -> None:
        """Count a push that was dropped."""
        self._dropped += 1

    def tell(self) -> None:
        """Let ``told`` be the counts as they are now."""
        self.told = PushCounts(self.told.generation, tuple(self._staleness), self._dropped)
