"""Memory for large requests: used again, never while it is held."""

from __future__ import annotations

import numpy as np

from psys.rpc.recycler import SMALL_BYTES, Recycler

LARGE = 4 * SMALL_BYTES


def address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def test_memory_is_lent_again_once_no_view_of_it_is_held() -> None:
    recycler = Recycler(10 * LARGE)
    lent = recycler.lend(LARGE)
    lent[:] = 7
    first, view = address(lent), lent[8:16].view(np.float64).reshape(1, 1)
    del lent
    other = recycler.lend(LARGE)  # the view still holds the first
    assert address(other) != first
    assert view.tobytes() == bytes([7] * 8)
    del view
    assert address(recycler.lend(LARGE - 100)) == first


def test_much_too_large_a_block_is_not_taken_for_a_small_one() -> None:
    recycler = Recycler(10 * LARGE)
    first = address(recycler.lend(LARGE))
    assert len(recycler.lend(LARGE // 3)) == LARGE // 3
    assert address(recycler.lend(LARGE)) == first


def test_no_more_is_kept_than_the_limit() -> None:
    recycler = Recycler(2 * LARGE)
    held = [recycler.lend(LARGE) for _ in range(5)]
    assert len({address(one) for one in held}) == 5
    assert sum(len(block.memory) for block in recycler._blocks) <= 2 * LARGE
    del held
    assert len(recycler.lend(3 * LARGE)) == 3 * LARGE
    assert sum(len(block.memory) for block in recycler._blocks) <= 2 * LARGE
    recycler.lend(LARGE // 2)
    assert sum(len(block.memory) for block in recycler._blocks) <= 2 * LARGE
