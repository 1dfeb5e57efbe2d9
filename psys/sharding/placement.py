"""Which shard holds which rows: even in bytes, with as few cuts as that allows.

The variable that is hardest to fit goes first, the largest as a rule, to the shard with the
most room; where it does not fit it fills the shard up and goes on in the next. Dense
variables travel whole with every step, tables only by row, so each kind is spread evenly by
itself where it can be. Only value bytes count: slots are in proportion. Nothing here touches
a value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from psys.arrays import VariableSpec
from psys.sharding.partitioner import Slice, cut, row_bytes, rows_that_fit

TOLERANCE = 0.15
"""How far from the mean, as a fraction of it, the bytes on a shard may be."""

SMALLEST_PIECE_BYTES = 64 * 1024
"""A smaller piece costs a shard more to handle than it helps the balance."""


def place(specs: Sequence[VariableSpec], num_shards: int) -> tuple[Slice, ...]:
    """Return the slices of all variables, ordered by variable name, then start.

    Four plans are tried; the first with every shard within ``TOLERANCE`` of the mean is
    taken, else the one nearest to it: pieces of at least ``SMALLEST_PIECE_BYTES`` or a
    twentieth of the mean, first with dense variables and tables each spread by themselves,
    then together; then the same two with pieces down to one row. The last leaves no shard
    further from the mean than the largest row.

    Args:
        specs: the variables, in any order; names are unique.
        num_shards: at least 1.
    """
    mean_bytes = sum(spec.nbytes for spec in specs) / num_shards
    kinds = [
        [spec for spec in specs if not spec.sparse],
        [spec for spec in specs if spec.sparse],
    ]
    best: tuple[float, tuple[Slice, ...]] | None = None
    for pieces in (SMALLEST_PIECE_BYTES, 1):
        for groups in (kinds, [specs]):
            loads = [0] * num_shards
            slices: list[Slice] = []
            for group in groups:
                slices += _place_group(group, loads, pieces)
            distance = max(abs(load - mean_bytes) for load in loads)
            if best is None or distance < best[0]:
                best = distance, tuple(slices)
            if distance <= TOLERANCE * mean_bytes:
                return _in_order(slices)
    return _in_order(best[1] if best else ())


def _place_group(
    specs: Sequence[VariableSpec], loads: list[int], smallest_piece_bytes: int
) -> list[Slice]:
    """Place ``specs`` evenly by themselves; add their bytes to ``loads``."""
    mean_bytes = sum(spec.nbytes for spec in specs) / len(loads)
    piece_bytes = smallest_piece_bytes
    if piece_bytes > 1:
        piece_bytes = max(piece_bytes, int(mean_bytes / 20))
    room = [mean_bytes] * len(loads)
    slices: list[Slice] = []
    for spec in sorted(specs, key=lambda spec: _hardest_first(spec, piece_bytes)):
        rows_of: dict[int, int] = {}
        rows_left = spec.rows
        while rows_left or not rows_of:
            shard = min(range(len(loads)), key=lambda shard: (-room[shard], loads[shard], shard))
            rows = rows_that_fit(spec, rows_left, room[shard], piece_bytes)
            rows_of[shard] = rows_of.get(shard, 0) + rows
            rows_left -= rows
            room[shard] -= rows * row_bytes(spec)
            loads[shard] += rows * row_bytes(spec)
        slices += cut(spec, rows_of)
    return slices


def _hardest_first(spec: VariableSpec, piece_bytes: int) -> tuple[int, int, str]:
    """Order by what is least able to fill a gap: large smallest pieces, then large variables."""
    smallest_bytes = max(row_bytes(spec), min(spec.nbytes, piece_bytes))
    return -smallest_bytes, -spec.nbytes, spec.name


def _in_order(slices: Iterable[Slice]) -> tuple[Slice, ...]:
    return tuple(sorted(slices, key=lambda one: (one.variable, one.start)))
