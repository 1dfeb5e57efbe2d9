"""How a variable is cut: into slices of whole rows, at most one for each shard.

Says how large a piece may be and where it starts; which shard gets it is placement's
choice. A ``Partitioner`` of tf's kind may say it instead. Nothing here touches a value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from psys.arrays import DTYPES, VariableSpec
from psys.errors import ConfigError, ModelError


class Partitioner(Protocol):
    """Says into how many parts a variable is cut, as tf's partitioners do."""

    def __call__(self, *, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Sequence[int]:
        """Return the number of parts along each axis; all but the first must be 1.

        The same for the same arguments, on every trainer. It is not asked about a variable of
        fewer than two rows.

        Args:
            shape: of the variable, ``(rows, ...)``.
            dtype: of the variable.
        """


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


def parts_of(spec: VariableSpec, partitioner: Partitioner | None) -> tuple[int, ...]:
    """Return the rows of each part a variable is cut into; parts differ by one row at most.

    Without a partitioner it stays whole.

    Raises:
        ConfigError: if the partitioner's answer is no way to cut the variable by rows.

    Example, ten rows in three parts; the first is larger, as in tf:
        >>> from psys.initializers import Constant
        >>> spec = VariableSpec("kernel", (10, 2), "float32", Constant())
        >>> parts_of(spec, fixed_size_partitioner(3))
        (4, 3, 3)
    """
    if partitioner is None or spec.rows < 2:
        return (spec.rows,)
    answer = partitioner(shape=spec.shape, dtype=DTYPES[spec.dtype])
    counts = list(answer) if isinstance(answer, (list, tuple)) else []
    fits = len(counts) == len(spec.shape) and all(
        isinstance(count, (int, np.integer)) and not isinstance(count, bool) for count in counts
    )
    if not fits or not 1 <= counts[0] <= spec.rows or any(count != 1 for count in counts[1:]):
        raise ConfigError(
            f"variable_partitioner {partitioner!r} must return a number of parts for each axis of "
            f"{spec.name!r} {spec.shape}: 1 to {spec.rows} for the first, 1 for the others, as "
            f"variables are cut by rows; got {answer!r}."
        )
    rows, larger = divmod(spec.rows, int(counts[0]))
    return (rows + 1,) * larger + (rows,) * (int(counts[0]) - larger)


@dataclass(frozen=True)
class _FixedSize:
    """See ``fixed_size_partitioner``."""

    num_shards: int

    def __call__(self, *, shape: tuple[int, ...], dtype: np.dtype[Any]) -> list[int]:
        return _by_rows(shape, min(self.num_shards, shape[0]))


@dataclass(frozen=True)
class _VariableAxisSize:
    """See ``variable_axis_size_partitioner``."""

    max_shard_bytes: int
    max_shards: int | None

    def __call__(self, *, shape: tuple[int, ...], dtype: np.dtype[Any]) -> list[int]:
        bytes_a_row = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
        rows_a_shard = max(1, self.max_shard_bytes // max(bytes_a_row, 1))
        count = -(-shape[0] // rows_a_shard)
        return _by_rows(shape, count if self.max_shards is None else min(count, self.max_shards))


@dataclass(frozen=True)
class _MinMax:
    """See ``min_max_variable_partitioner``."""

    max_partitions: int
    min_slice_size: int

    def __call__(self, *, shape: tuple[int, ...], dtype: np.dtype[Any]) -> list[int]:
        total_bytes = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        count = min(shape[0], self.max_partitions, -(-total_bytes // self.min_slice_size))
        return _by_rows(shape, max(1, count))


def _by_rows(shape: tuple[int, ...], count: int) -> list[int]:
    return [count, *(1 for _ in shape[1:])]


def fixed_size_partitioner(num_shards: int, axis: int = 0) -> Partitioner:
    """Return a partitioner that cuts every variable into ``num_shards`` parts.

    Fewer where a variable has fewer rows. Source: tf.compat.v1.fixed_size_partitioner.

    Args:
        num_shards: how many parts, at least 1.
        axis: must be 0: variables are cut by rows.

    Raises:
        ConfigError: if an argument is not such a number.
    """
    _check_arguments("fixed_size_partitioner", axis, num_shards=num_shards)
    return _FixedSize(num_shards)


def variable_axis_size_partitioner(
    max_shard_bytes: int,
    axis: int = 0,
    bytes_per_string_element: int = 16,
    max_shards: int | None = None,
) -> Partitioner:
    """Return a partitioner whose parts are of ``max_shard_bytes`` at most, or of one row.

    Source: tf.compat.v1.variable_axis_size_partitioner.

    Args:
        max_shard_bytes: of a part, without slots.
        axis: must be 0: variables are cut by rows.
        bytes_per_string_element: accepted for tf programs; no variable holds strings.
        max_shards: no more parts than these, however large; None for no limit.

    Raises:
        ConfigError: if an argument is not such a number.
    """
    del bytes_per_string_element
    name = "variable_axis_size_partitioner"
    limit = 1 if max_shards is None else max_shards
    _check_arguments(name, axis, max_shard_bytes=max_shard_bytes, max_shards=limit)
    return _VariableAxisSize(max_shard_bytes, max_shards)


def min_max_variable_partitioner(
    max_partitions: int = 1,
    axis: int = 0,
    min_slice_size: int = 256 << 10,
    bytes_per_string_element: int = 16,
) -> Partitioner:
    """Return a partitioner that cuts large variables only, into parts not too small.

    Source: tf.compat.v1.min_max_variable_partitioner.

    Args:
        max_partitions: at most so many parts.
        axis: must be 0: variables are cut by rows.
        min_slice_size: so many bytes at least for each part but one.
        bytes_per_string_element: accepted for tf programs; no variable holds strings.

    Raises:
        ConfigError: if an argument is not such a number.
    """
    del bytes_per_string_element
    name = "min_max_variable_partitioner"
    _check_arguments(name, axis, max_partitions=max_partitions, min_slice_size=min_slice_size)
    return _MinMax(max_partitions, min_slice_size)


def _check_arguments(partitioner: str, axis: int, **counts: int) -> None:
    if axis != 0:
        raise ConfigError(f"{partitioner}: axis must be 0, as variables are cut by rows: {axis!r}.")
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(
                f"{partitioner}: {name} must be an integer of 1 or more, got {value!r}."
            )
