"""The plan as people read it."""

from __future__ import annotations

from psys.arrays import PlannedSlice
from psys.sharding import describe


def test_of_very_many_variables_the_largest_are_shown_and_the_others_counted() -> None:
    plan = [PlannedSlice(f"v{n:04d}", 0, n, n % 2, 4 * n) for n in range(1, 1001)]
    lines = list(describe(plan, ["ps:0", "ps:1"], 40))
    assert [line.split()[0] for line in lines[1:41]] == [f"v{n:04d}" for n in range(961, 1001)]
    rest = 4 * sum(range(1, 961))
    assert lines[41:] == [
        f"and 960 smaller, {rest:,} bytes together",
        "",
        "TASK  SLICES  BYTES      OF THE MEAN",
        "ps:0  500     1,002,000  100 %",
        "ps:1  500     1,000,000  100 %",
    ]
    assert len(list(describe(plan, ["ps:0", "ps:1"]))) == 1 + 1000 + 1 + 3


def test_a_variable_in_slices_counts_once_with_all_its_bytes() -> None:
    plan = [
        PlannedSlice("a", 0, 9, 0, 36),
        PlannedSlice("t", 0, 5, 0, 20),
        PlannedSlice("t", 5, 10, 1, 20),
    ]
    assert list(describe(plan, ["ps:0", "ps:1"], 1))[1:3] == [
        "t         40     0-5 on ps:0, 5-10 on ps:1",
        "and 1 smaller, 36 bytes together",
    ]


def test_a_ps_without_a_slice_is_shown_too() -> None:
    lines = list(describe([PlannedSlice("w", 0, 1, 0, 4)], ["ps:0", "ps:1"]))
    assert lines[-1].split() == ["ps:1", "0", "0", "0", "%"]


def test_variables_without_a_byte_have_no_share() -> None:
    lines = list(describe([PlannedSlice("w", 0, 0, 0, 0)], ["chief"]))
    assert lines[-1].split() == ["chief", "1", "0", "-"]
