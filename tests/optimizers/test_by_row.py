"""Which optimizers work by row, so that tables may be updated as one, and which run kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

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


def _own(self: Any, value: Any, *_: Any) -> None:
    value -= 100


class _Written(GradientDescentOptimizer):
    kind = "WrittenInByRowTest"
    update = _own  # type: ignore[assignment]


class _Inherited(_Written):
    kind = "InheritedInByRowTest"


class _Attached(GradientDescentOptimizer):
    kind = "AttachedInByRowTest"


class _Below(_Attached):
    kind = "BelowInByRowTest"


_Attached.update = _own  # type: ignore[method-assign, assignment]


@pytest.mark.parametrize("kind", [_Written, _Inherited, _Attached, _Below])
def test_an_update_of_ones_own_is_what_runs_however_it_came_to_its_class(kind: Any) -> None:
    value = np.ones((3, 2), np.float32)
    kind(0.5).apply_dense(value, {}, {}, np.ones_like(value))
    assert (value == -99).all()
    kind(0.5).apply_sparse(value, {}, {}, np.array([1]), np.ones((1, 2), np.float32))
    assert value.tolist() == [[-99, -99], [-199, -199], [-99, -99]]
    assert not kind(0.5).by_row
