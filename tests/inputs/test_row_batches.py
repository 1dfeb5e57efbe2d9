from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from psys.inputs import numpy_input_fn
from psys.inputs.row_batches import batches, row_numbers

SIZES = {
    "rows": st.integers(1, 20),
    "batch_size": st.integers(1, 50),
    "num_epochs": st.integers(0, 6),
}


@given(**SIZES)
def test_in_order_batches_cut_the_repeated_rows(
    rows: int, batch_size: int, num_epochs: int
) -> None:
    stream = list(range(rows)) * num_epochs
    expected = [stream[i : i + batch_size] for i in range(0, len(stream), batch_size)]
    found = row_numbers(rows, batch_size, num_epochs, None)
    assert [batch.tolist() for batch in found] == expected


@given(**SIZES, seed=st.integers(0, 1000))
def test_shuffled_batches_have_each_row_once_an_epoch(
    rows: int, batch_size: int, num_epochs: int, seed: int
) -> None:
    found = list(row_numbers(rows, batch_size, num_epochs, np.random.default_rng(seed)))
    stream = np.concatenate([np.empty(0, np.int64), *found])
    assert len(stream) == rows * num_epochs
    for epoch in stream.reshape(num_epochs, rows):
        assert sorted(epoch.tolist()) == list(range(rows))
    assert all(len(batch) == batch_size for batch in found[:-1])
    assert all(0 < len(batch) <= batch_size for batch in found)


def test_endless_batches_go_on_over_many_epochs() -> None:
    for generator in (None, np.random.default_rng(1)):
        found = itertools.islice(row_numbers(3, 4, None, generator), 300)
        stream = np.concatenate(list(found))
        assert np.bincount(stream).tolist() == [400, 400, 400]


def test_each_epoch_is_another_permutation() -> None:
    first, second = row_numbers(100, 100, 2, np.random.default_rng(1))
    assert first.tolist() != second.tolist()


def test_a_batch_is_a_copy() -> None:
    x = np.arange(4.0)
    for batch in batches(x, None, 2, 1, None):
        batch += 100
    assert x.tolist() == [0, 1, 2, 3]


def test_a_seed_makes_every_call_the_same() -> None:
    x = np.arange(50)
    seeded = numpy_input_fn(x, batch_size=50, shuffle=True, seed=7)
    other = numpy_input_fn(x, batch_size=50, shuffle=True, seed=8)
    first, again, another = (next(make()).tolist() for make in (seeded, seeded, other))
    assert first == again
    assert first != another
