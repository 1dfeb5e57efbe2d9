"""Batches of rows out of arrays that lie in memory.

Batches run across the ends of epochs, and the last one may be short. Shuffling draws a whole
permutation for each epoch, so each row comes once an epoch, in uniformly random order. That is
better than what TF's queue does on purpose: a queue mixes only what it holds at a time.
Nothing here changes the arrays; a batch is a copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

from psys.arrays import Array

Arrays: TypeAlias = Array | dict[str, Array]
"""One array, or arrays by name."""


def row_numbers(
    rows: int, batch_size: int, num_epochs: int | None, generator: np.random.Generator | None
) -> Iterator[Array]:
    """Yield the row numbers of each batch: 3 rows by 2 for 2 epochs give [0 1] [2 0] [1 2].

    Args:
        rows: the number of rows, at least 1.
        batch_size: rows in a batch; if there are fewer rows, epochs share a batch.
        num_epochs: how often each row comes; None for ever.
        generator: shuffles each epoch; None keeps the order.
    """
    if generator is None:
        yield from _in_order(rows, batch_size, num_epochs)
    else:
        yield from _shuffled(rows, batch_size, num_epochs, generator)


def _in_order(rows: int, batch_size: int, num_epochs: int | None) -> Iterator[Array]:
    first = 0
    while num_epochs is None or first < rows * num_epochs:
        last = first + batch_size
        if num_epochs is not None:
            last = min(last, rows * num_epochs)
        yield np.arange(first, last) % rows
        # Modulo, so that endless input never outgrows int64.
        first = last if num_epochs is not None else last % rows


def _shuffled(
    rows: int, batch_size: int, num_epochs: int | None, generator: np.random.Generator
) -> Iterator[Array]:
    waiting: list[Array] = []
    count = epoch = 0
    while num_epochs is None or epoch < num_epochs:
        order = generator.permutation(rows)
        epoch += 1
        waiting.append(order)
        count += rows
        if count < batch_size:
            continue
        order = np.concatenate(waiting)
        whole = count - count % batch_size
        for first in range(0, whole, batch_size):
            yield order[first : first + batch_size]
        waiting, count = [order[whole:]], count - whole
    if count:
        yield np.concatenate(waiting)


def batches(
    features: Arrays,
    labels: Arrays | None,
    batch_size: int,
    num_epochs: int | None,
    generator: np.random.Generator | None,
) -> Iterator[Any]:
    """Yield features, or ``(features, labels)`` if there are labels, batch by batch.

    Args:
        features: one array, or arrays by name; all with the same number of rows, at least 1.
        labels: likewise, or None.
        batch_size: rows in a batch.
        num_epochs: how often each row comes; None for ever.
        generator: shuffles each epoch; None keeps the order.
    """
    any_array = next(iter(features.values())) if isinstance(features, dict) else features
    for rows in row_numbers(len(any_array), batch_size, num_epochs, generator):
        chosen = _take(features, rows)
        yield chosen if labels is None else (chosen, _take(labels, rows))


def _take(arrays: Arrays, rows: Array) -> Arrays:
    if isinstance(arrays, dict):
        return {key: np.take(array, rows, axis=0) for key, array in arrays.items()}
    return np.take(arrays, rows, axis=0)
