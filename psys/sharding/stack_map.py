"""StackMap: which shard has which rows of a stack of tables, and where.

A shard keeps its slices of a stack's tables one under another, in order of the tables' names.
Nothing here knows what a row is.
"""

from __future__ import annotations

from itertools import groupby, pairwise
from typing import NamedTuple

import numpy as np

from psys.arrays import Array
from psys.errors import ModelError
from psys.sharding.shard_map import Positions, ShardMap
from psys.stacks import TableStack


class _Run(NamedTuple):
    """Rows of a stack that one shard has in one piece: from ``start`` on, until the next run."""

    start: int
    shard: int
    offset: int
    """What to add to a row of the stack to get its number on the shard."""


class StackMap:
    """Where every row of one stack is."""

    def __init__(self, stack: TableStack, shard_map: ShardMap) -> None:
        """Find out.

        Raises:
            ModelError: if the map lacks one of the tables.
        """
        self._name, self._rows = stack.name, int(stack.starts[-1])
        filled = dict.fromkeys(range(shard_map.num_shards), 0)
        runs = []
        for table, first in zip(stack.tables, stack.starts.tolist(), strict=False):
            for one in shard_map.of(table):
                start = first + one.start
                runs.append(_Run(start, one.shard, filled[one.shard] - start))
                filled[one.shard] += one.rows
        # Tables that lie on one shard from end to end are one run.
        runs = [next(same) for _, same in groupby(runs, lambda run: (run.shard, run.offset))]
        self._shards = sorted({run.shard for run in runs})
        self._starts = np.array([run.start for run in runs], np.int64)
        self._run_shards = np.array([run.shard for run in runs], np.int64)
        self._offsets = np.array([run.offset for run in runs], np.int64)
        self._pieces = [(run.shard, run.offset) for run in runs]

    def split(self, rows: Array) -> dict[int, tuple[Positions, Array]]:
        """Return shard → which of ``rows`` it has; see ``ShardMap.split_rows``.

        Args:
            rows: ``[n]`` int64 rows of the stack, sorted and unique.

        Raises:
            ModelError: if they are not, or one lies outside the stack.
        """
        if len(rows) and not (
            rows[0] >= 0 and rows[-1] < self._rows and bool((rows[1:] > rows[:-1]).all())
        ):
            raise ModelError(
                f"Rows of {self._name!r} must be sorted and unique, and must lie in "
                f"[0, {self._rows}), got {rows}."
            )
        if len(self._starts) == 1:
            return {self._shards[0]: (slice(0, len(rows)), rows)}
        if len(self._starts) == len(self._shards):
            return self._in_pieces(rows)
        counts = np.diff(rows.searchsorted(self._starts), append=len(rows))
        local = rows + np.repeat(self._offsets, counts)
        if len(self._shards) == 1:
            return {self._shards[0]: (slice(0, len(rows)), local)}
        holders = np.repeat(self._run_shards, counts)
        found: dict[int, tuple[Positions, Array]] = {}
        for shard in self._shards:
            at = np.flatnonzero(holders == shard)
            found[shard] = at, local[at]
        return found

    def _in_pieces(self, rows: Array) -> dict[int, tuple[Positions, Array]]:
        """Do what ``split`` does where each shard has one piece of the stack."""
        edges = [*rows.searchsorted(self._starts).tolist(), len(rows)]
        return {
            shard: (slice(first, last), rows[first:last] + offset)
            for (shard, offset), (first, last) in zip(self._pieces, pairwise(edges), strict=True)
        }
