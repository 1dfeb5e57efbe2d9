"""The plan as people read it: what is on which ps, and how even that is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from psys.arrays import Plan, PlannedSlice, VariableSpec
from psys.sharding.partitioner import row_bytes
from psys.sharding.shard_map import ShardMap
from psys.table import format_table


def planned_slices(shard_map: ShardMap, specs: Mapping[str, VariableSpec]) -> Plan:
    """Return every slice of a shard map with its size, by variable name, then start."""
    return tuple(
        PlannedSlice(
            one.variable, one.start, one.stop, one.shard, one.rows * row_bytes(specs[one.variable])
        )
        for one in shard_map.slices
    )


def describe(
    plan: Plan, holders: Sequence[str], most_variables: int | None = None
) -> Iterator[str]:
    """Yield two tables: one line for each variable, one for each holder of a shard.

    Args:
        plan: ordered by variable.
        holders: who holds the shards, by number.
        most_variables: where there are more, only so many of the largest are shown, and the
            others are counted; None for all.

    Example:
        >>> rows = [PlannedSlice("table", 0, 60, 0, 2400), PlannedSlice("table", 60, 80, 1, 800)]
        >>> plan = [PlannedSlice("bias", 0, 200, 1, 800), *rows]
        >>> for line in describe(plan, ["ps:0", "ps:1"]):
        ...     print(line)
        VARIABLE  BYTES  ROWS
        bias      800    0-200 on ps:1
        table     3,200  0-60 on ps:0, 60-80 on ps:1
        <BLANKLINE>
        TASK  SLICES  BYTES  OF THE MEAN
        ps:0  1       2,400  120 %
        ps:1  2       1,600  80 %
    """
    variables = [(name, tuple(slices)) for name, slices in groupby(plan, lambda one: one.variable)]
    shown = variables
    if most_variables is not None and len(variables) > most_variables:
        by_size = sorted(variables, key=lambda one: -_nbytes(one[1]))
        largest = {name for name, _ in by_size[:most_variables]}
        shown = [one for one in variables if one[0] in largest]
    yield from format_table(
        [
            ("VARIABLE", "BYTES", "ROWS"),
            *((name, f"{_nbytes(slices):,}", _rows(slices, holders)) for name, slices in shown),
        ]
    )
    if len(shown) < len(variables):
        left_bytes = _nbytes(plan) - sum(_nbytes(slices) for _, slices in shown)
        count = len(variables) - len(shown)
        yield f"and {count} smaller, {left_bytes:,} bytes together"
    yield ""
    mean_bytes = _nbytes(plan) / len(holders)
    held = [[one for one in plan if one.shard == shard] for shard in range(len(holders))]
    yield from format_table(
        [
            ("TASK", "SLICES", "BYTES", "OF THE MEAN"),
            *(
                (holder, f"{len(slices)}", f"{_nbytes(slices):,}", _share(slices, mean_bytes))
                for holder, slices in zip(holders, held, strict=True)
            ),
        ]
    )


def _nbytes(slices: Plan) -> int:
    return sum(one.nbytes for one in slices)


def _rows(slices: Plan, holders: Sequence[str]) -> str:
    return ", ".join(f"{one.start}-{one.stop} on {holders[one.shard]}" for one in slices)


def _share(slices: Plan, mean_bytes: float) -> str:
    return f"{_nbytes(slices) / mean_bytes:.0%}".replace("%", " %") if mean_bytes else "-"
