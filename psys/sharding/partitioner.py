"""How a variable is cut: into slices of whole rows, at most one for each shard.

Says how large a piece may be and where it starts; which shard gets it is placement's
choice. Nothing here touches a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from psys.arrays import DTYPES, VariableSpec
from psys.errors import ModelError


@dataclass(frozen=True)
class Slice:
    """Rows ``[start, stop)`` of a variable, held by one shard.

    Attributes:
        variable: its name.
        start: first row; 0 <= start <= stop.
        stop: one past the last row; equal to start only where the variable has no rows.
        shard: the number of the shard that holds them.
    """

    variable: str
    start: int
    stop: int
    shard: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.stop:
            raise ModelError(
                f"Slice of {self.variable!r}: rows must be 0 <= start <= stop, "
                f"got [{self.start}, {self.stop})."
            )
        if self.shard < 0:
            raise ModelError(f"Slice of {self.variable!r}: no shard {self.shard}.")

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return self.stop - self.start


def row_bytes(spec: VariableSpec) -> int:
    """Return the size of one row of the variable's value in bytes."""
    elements = 1
    for size in spec.row_shape:
        elements *= size
    return elements * DTYPES[spec.dtype].itemsize


def rows_that_fit(spec: VariableSpec, rows_left: int, room_bytes: float, piece_bytes: int) -> int:
    """Return how many of the rows left one shard takes: as many as fit, and no crumbs.

    At least one row, so that cutting ends. No piece, neither this one nor what it leaves,
    is smaller than ``piece_bytes``, even where the shard then takes more than it has room
    for.

    Args:
        spec: the variable.
        rows_left: rows of it without a shard, at least 1.
        room_bytes: what the shard has room for; may be negative.
        piece_bytes: the smallest piece worth cutting.

    Example, rows of 4 bytes:
        >>> from psys.initializers import Constant
        >>> spec = VariableSpec("bias", (100,), "float32", Constant())
        >>> rows_that_fit(spec, 100, room_bytes=122, piece_bytes=40)  # 30.5 rows: cut down
        30
        >>> rows_that_fit(spec, 100, room_bytes=372, piece_bytes=40)  # would leave 7 rows
        100
        >>> rows_that_fit(spec, 100, room_bytes=12, piece_bytes=40)  # 3 rows are too few
        10
    """
    size = row_bytes(spec)
    if size == 0:
        return rows_left
    fewest = max(1, -(-piece_bytes // size))
    taken = max(fewest, int(room_bytes // size))
    return rows_left if rows_left - taken < fewest else taken


def cut(spec: VariableSpec, rows_of: Mapping[int, int]) -> tuple[Slice, ...]:
    """Return the slices of a variable, lowest shard first.

    Args:
        spec: the variable.
        rows_of: shard → how many rows it gets; their sum is ``spec.rows``.

    Example:
        >>> from psys.initializers import Constant
        >>> spec = VariableSpec("bias", (10,), "float32", Constant())
        >>> [(s.start, s.stop, s.shard) for s in cut(spec, {2: 3, 0: 7})]
        [(0, 7, 0), (7, 10, 2)]
    """
    slices = []
    start = 0
    for shard, rows in sorted(rows_of.items()):
        slices.append(Slice(spec.name, start, start + rows, shard))
        start += rows
    return tuple(slices)
