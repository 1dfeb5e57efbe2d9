"""An input_fn over a pandas DataFrame, under the rules of ``tf.estimator.inputs.pandas_input_fn``.

pandas is only imported when the function is called. The frames are never changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from psys.arrays import Array
from psys.errors import ConfigError
from psys.inputs.numpy_io import InputFn, check_batching
from psys.inputs.row_batches import Arrays, batches


def pandas_input_fn(
    x: Any,
    y: Any = None,
    batch_size: int = 128,
    num_epochs: int | None = 1,
    shuffle: bool | None = None,
    queue_capacity: int | None = 1000,  # noqa: ARG001 - there is no queue
    num_threads: int = 1,  # noqa: ARG001 - nor a thread
    target_column: str = "target",
    *,
    seed: int | None = None,
) -> InputFn:
    """Return an input_fn that yields ``features`` by column name, or ``(features, labels)``.

    The index is not a feature. Batches run across the ends of epochs; the last may be short.

    Args:
        x: a DataFrame of features.
        y: labels: a Series (an array in each batch) or a DataFrame (a dict by column; it may
            share column names with ``x``), with the index of ``x``; or None.
        batch_size: rows in a batch.
        num_epochs: how often each row comes; None for ever, 0 for no batch at all.
        shuffle: must be given: whether to permute the rows anew in each epoch.
        queue_capacity: accepted for TF's sake, None too.
        num_threads: accepted for TF's sake.
        target_column: a name for the labels that ``x`` must not have, for TF's sake.
        seed: makes the order the same in every call; None makes each another.

    Raises:
        TypeError: if pandas is not installed, x is not a DataFrame, y neither Series nor
            DataFrame, or target_column not a string.
        ConfigError: if shuffle is not True or False, x has no rows or columns, x has a column
            named target_column, or the indices of x and y differ.
    """
    pandas = _pandas()
    check_batching(batch_size, num_epochs, shuffle)
    if not isinstance(target_column, str):
        raise TypeError(f"target_column must be a string, got {type(target_column).__name__}.")
    if not isinstance(x, pandas.DataFrame):
        raise TypeError(f"x must be a pandas.DataFrame, got {type(x).__name__}.")
    if not isinstance(y, (pandas.DataFrame, pandas.Series, type(None))):
        raise TypeError(f"y must be a pandas.Series or DataFrame, got {type(y).__name__}.")
    if x.empty:
        raise ConfigError(f"x must have rows and columns, got a DataFrame of shape {x.shape}.")
    if y is not None:
        _check_labels(x, y, target_column)
    features = _columns(pandas, x)
    labels: Arrays | None = None
    if y is not None:
        labels = _columns(pandas, y) if isinstance(y, pandas.DataFrame) else _array(pandas, y)

    def input_fn() -> Iterator[Any]:
        generator = np.random.default_rng(seed) if shuffle else None
        return batches(features, labels, batch_size, num_epochs, generator)

    return input_fn


def _pandas() -> Any:
    try:
        import pandas
    except ImportError:
        raise TypeError(
            "pandas_input_fn should not be called without pandas installed (pip install pandas)."
        ) from None
    return pandas


def _check_labels(x: Any, y: Any, target_column: str) -> None:
    if target_column in x:
        raise ConfigError(
            f"Cannot use name {target_column!r} for the target column: x already has a column "
            f"of that name: {list(x.columns)}."
        )
    if not np.array_equal(x.index, y.index):
        raise ConfigError(f"Index for x and y are mismatched: {x.index} and {y.index}.")


def _columns(pandas: Any, frame: Any) -> dict[str, Array]:
    return {column: _array(pandas, frame[column]) for column in frame.columns}


def _array(pandas: Any, series: Any) -> Array:
    if pandas.api.types.is_integer_dtype(series.dtype) and series.hasnans:
        # Nullable integers: pandas would make them floats, and a categorical column could
        # not tell that they were ids.
        return np.asarray(series.to_numpy(object))
    return np.asarray(series.to_numpy())
