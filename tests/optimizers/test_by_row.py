"""Which optimizers work by row, so that tables may be updated as one."""

from __future__ import annotations

from typing import Any

from psys.optimizers import GradientDescentOptimizer, MovingAverage, Sum


def test_only_a_class_that_says_so_or_runs_psys_kernels_is_by_row() -> None:
    class OwnSparseUpdate(GradientDescentOptimizer):
        kind = "OwnSparseUpdateInByRowTest"
        moves_all_rows = False

        def apply_sparse(self, *arguments: Any, **more: Any) -> None:
            super().apply_sparse(*arguments, **more)

    class OwnRate(GradientDescentOptimizer):
        kind = "OwnRateInByRowTest"

    for made, by_row in (
        (OwnSparseUpdate(0.5), False),
        (OwnRate(0.5), True),
        (MovingAverage(0.5), False),
        (Sum(), False),
    ):
        assert made.by_row == by_row
