"""The values every layer passes around: what counts as finite."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from psys.arrays import all_finite


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "int64"])
@given(data=st.data())
def test_finite_is_what_numpy_calls_finite(dtype: str, data: Any) -> None:
    shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9)
    array = data.draw(hnp.arrays(dtype, shapes))
    assert all_finite(array) == bool(np.isfinite(array).all())


@pytest.mark.parametrize("filled", [1.0, "max", "tiny"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_one_broken_number_anywhere_is_found(filled: float | str, dtype: str) -> None:
    number = getattr(np.finfo(dtype), filled) if isinstance(filled, str) else filled
    array = np.full((30, 77), number, dtype)
    with np.errstate(all="raise"):  # whatever squares overflow or vanish, nobody hears of it
        assert all_finite(array)
        assert all_finite(array[:, ::2])
        assert all_finite(array.T)
        for broken in (np.nan, np.inf, -np.inf):
            for at in (0, 7, 1155, array.size - 1):
                one = array.copy()
                one.reshape(-1)[at] = broken
                assert not all_finite(one)
                assert not all_finite(one.T)


@pytest.mark.parametrize("array", [np.empty(0, np.float32), np.empty((0, 3)), np.float32(1)])
def test_an_empty_array_and_a_scalar_are_finite(array: Any) -> None:
    assert all_finite(np.asarray(array))


def test_looking_compiles_nothing() -> None:
    program = (
        "import sys, numpy as np; from psys.arrays import all_finite; "
        "assert all_finite(np.ones(3)); sys.exit('numba' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
