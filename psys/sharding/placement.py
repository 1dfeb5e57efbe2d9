"""Which shard holds which rows: even in bytes, with as few cuts as that allows.

The variable that is hardest to fit goes first, the largest as a rule, to the shard with the
most room; where it does not fit it fills the shard up and goes on in the next. Dense
variables travel whole with every step, tables only by row, so each kind is spread evenly by
itself where it can be. Tables fill one shard after another, by name: of a stack of tables each
shard then has one piece, which costs little to cut off and to join. Only value bytes count:
slots are in proportion. Nothing here touches a value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from psys.arrays import VariableSpec
from psys.sharding.partitioner import Slice, cut, row_bytes, rows_that_fit

TOLERANCE = 0.15
"""How far from the mean, as a fraction of it, the bytes on a shard may be."""

SMALLEST_PIECE_BYTES = 64 * 1024
"""A smaller piece costs a shard more to handle than it helps the balance."""


def place(specs: Sequence[VariableSpec], num_shards: int) -> tuple[Slice, ...]:
    """Return the slices of all variables, ordered by variable name, then start.

    Five plans are tried; the first with every shard within ``TOLERANCE`` of the mean is
    taken, else the one nearest to it: pieces of at least ``SMALLEST_PIECE_BYTES`` or a
    twentieth of the mean, first with tables in a row, then with dense variables and tables each
    spread by themselves, then together; then the last two with pieces down to one row. The last
    leaves no shard further from the mean than the largest row.

    Args:
        specs: the variables, in any order; names are unique.
        num_shards: at least 1.
    """
    mean_bytes = sum(spec.nbytes for spec in specs) / num_shards
    kinds = [
        [spec for spec in specs if not spec.sparse],
        [spec for spec in specs if spec.sparse],
    ]
    dense, tables = kinds
    plans = [
        [partial(_place_group, dense, SMALLEST_PIECE_BYTES), partial(_place_in_a_row, tables)],
        *(
            [partial(_place_group, group, pieces) for group in groups]
            for pieces in (SMALLEST_PIECE_BYTES, 1)
            for groups in (kinds, [specs])
        ),
    ]
    best: tuple[float, tuple[Slice, ...]] | None = None
    for steps in plans:
        loads = [0] * num_shards
        slices = [one for step in steps for one in step(loads)]
        distance = max(abs(load - mean_bytes) for load in loads)
        if best is None or distance < best[0]:
            best = distance, tuple(slices)
        if distance <= TOLERANCE * mean_bytes:
            break
    return _in_order(best[1] if best else ())


def _place_in_a_row(tables: Sequence[VariableSpec], loads: list[int]) -> list[Slice]:
    """Fill one shard after another with ``tables``; add their bytes to ``loads``."""
    mean_bytes = sum(spec.nbytes for spec in tables) / len(loads)
    piece_bytes = _piece_bytes(SMALLEST_PIECE_BYTES, mean_bytes)
    shard, placed_bytes = 0, 0
    slices: list[Slice] = []
    for spec in sorted(tables, key=lambda spec: (row_bytes(spec), spec.dtype, spec.name)):
        rows_of: dict[int, int] = {}
        rows_left = spec.rows
        while rows_left or not rows_of:
            # Up to where the shard should end, whatever those before it took.
            room_bytes = (shard + 1) * mean_bytes - placed_bytes
            smallest_bytes = min(piece_bytes, rows_left * row_bytes(spec))
            if room_bytes < smallest_bytes / 2 and shard < len(loads) - 1:
                shard += 1
                continue
            rows = rows_that_fit(spec, rows_left, room_bytes, piece_bytes)
            rows_of[shard] = rows_of.get(shard, 0) + rows
            rows_left -= rows
            placed_bytes += rows * row_bytes(spec)
            loads[shard] += rows * row_bytes(spec)
        slices += cut(spec, rows_of)
    return slices


def _piece_bytes(smallest_bytes: int, mean_bytes: float) -> int:
    return max(smallest_bytes, int(mean_bytes / 20))


def _place_group(
    specs: Sequence[VariableSpec], smallest_piece_bytes: int, loads: list[int]
) -> list[Slice]:
    """Place ``specs`` evenly by themselves; add their bytes to ``loads``."""
    mean_bytes = sum(spec.nbytes for spec in specs) / len(loads)
    piece_bytes = smallest_piece_bytes
    if piece_bytes > 1:
        piece_bytes = _piece_bytes(piece_bytes, mean_bytes)
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
