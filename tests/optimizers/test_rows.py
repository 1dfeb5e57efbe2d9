from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from psys.optimizers.rows import gather, row_blocks, scatter

FRAME = np.zeros((9, 6), np.float32)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(5, np.float32),
        np.zeros((5, 1), np.float32),
        np.zeros((5, 3)),
        np.zeros((5, 2, 3), np.float32),
        np.zeros((5, 0), np.float32),
        np.zeros((3, 5), np.float32).T,
        FRAME[1:6, 2:5],
        FRAME[:1, :3],
    ],
    ids=lambda array: f"{array.shape} {array.strides}",
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_what_is_scattered_is_gathered_again(array: Any, order: Any) -> None:
    indices = np.array([0, 2, 3] if len(array) > 1 else [0])
    shape = (len(indices), *array.shape[1:])
    rows = np.arange(1, 1 + np.prod(shape), dtype=array.dtype).reshape(shape).copy(order)
    expected = np.zeros_like(array)
    for index, row in zip(indices, rows, strict=True):
        expected[index] = row
    scatter(array, indices, rows)
    np.testing.assert_array_equal(array, expected)
    np.testing.assert_array_equal(gather(array, indices), rows)
    array[:] = 0
    assert not FRAME.any()


@pytest.mark.parametrize("shape", [(0,), (1,), (100,), (100, 0), (100, 7), (3, 1 << 17)])
def test_blocks_cover_every_row_once(shape: tuple[int, ...]) -> None:
    array = np.zeros(shape, np.int8)
    covered = [row for block in row_blocks(array) for row in range(block.start, block.stop)]
    assert covered == list(range(len(array)))
