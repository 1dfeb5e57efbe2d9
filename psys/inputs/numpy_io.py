"""An input_fn over numpy arrays, under the rules of ``tf.estimator.inputs.numpy_input_fn``.

Each call of the input_fn starts anew at the first row. It runs no thread: reading ahead is
the input pipeline's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np

from psys.arrays import Array
from psys.errors import ConfigError
from psys.inputs.row_batches import Arrays, batches

InputFn: TypeAlias = Callable[[], Iterator[Any]]


def numpy_input_fn(
    x: Array | Mapping[str, Array],
    y: Array | Mapping[str, Array] | None = None,
    batch_size: int = 128,
    num_epochs: int | None = 1,
    shuffle: bool | None = None,
    queue_capacity: int | None = 1000,  # noqa: ARG001 - there is no queue
    num_threads: int = 1,  # noqa: ARG001 - nor a thread
    *,
    seed: int | None = None,
) -> InputFn:
    """Return an input_fn that yields batches of ``x``, or of ``(x, y)`` if there is a ``y``.

    Batches run across the ends of epochs; the last one may be short. A batch has the
    structure of ``x`` and ``y``: a dict (keys sorted), or one array.

    Args:
        x: features: arrays ``[rows, ...]`` by name, or one array.
        y: labels: likewise, or None.
        batch_size: rows in a batch.
        num_epochs: how often each row comes; None for ever, 0 for no batch at all.
        shuffle: must be given: whether to permute the rows anew in each epoch.
        queue_capacity: accepted for TF's sake; every row can come at any place of its epoch.
        num_threads: accepted for TF's sake.
        seed: makes the order the same in every call; None makes each another.

    Raises:
        ConfigError: at once if shuffle is not True or False, or batch_size or num_epochs is
            out of range. When the input_fn is called: if x or y is empty, their first
            dimensions differ, or a key is in both.
        TypeError: when the input_fn is called, if x is neither a dict nor an array.
    """
    check_batching(batch_size, num_epochs, shuffle)

    def input_fn() -> Iterator[Any]:
        features, labels = _features(x), _labels(y)
        _check_together(features, labels)
        generator = np.random.default_rng(seed) if shuffle else None
        return batches(features, labels, batch_size, num_epochs, generator)

    return input_fn


def check_batching(batch_size: int, num_epochs: int | None, shuffle: bool | None) -> None:
    """Raise a ConfigError unless these arguments of an input_fn are usable."""
    if not isinstance(shuffle, bool):
        raise ConfigError(
            "shuffle must be provided and explicitly set as boolean "
            f"(it is recommended to set it as True for training), got {shuffle!r}."
        )
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size!r}.")
    if num_epochs is not None and num_epochs < 0:
        raise ConfigError(f"num_epochs must be at least 0 or None, got {num_epochs!r}.")


def _features(x: object) -> Arrays:
    if isinstance(x, Mapping):
        if not x:
            raise ConfigError("x cannot be an empty dict.")
        return _by_name(x, "x")
    if isinstance(x, np.ndarray):
        return _array(x, "x")
    raise TypeError(f"x must be a dict or array, got {type(x).__name__}.")


def _labels(y: object) -> Arrays | None:
    if y is None:
        return None
    if isinstance(y, Mapping):
        if not y:
            raise ConfigError("y cannot be empty dict, use None instead.")
        return _by_name(y, "y")
    return _array(y, "y")


def _by_name(arrays: Mapping[str, Any], which: str) -> dict[str, Array]:
    return {key: _array(arrays[key], f"{which}[{key!r}]") for key in sorted(arrays)}


def _array(value: object, which: str) -> Array:
    array = np.asarray(value)
    if array.ndim == 0:
        raise ConfigError(f"{which} must be an array of rows, got the scalar {value!r}.")
    if len(array) == 0:
        raise ConfigError(f"{which} cannot be an empty array: it has no rows.")
    return array


def _check_together(features: Arrays, labels: Arrays | None) -> None:
    """Raise a ConfigError if keys clash or the numbers of rows differ."""
    if isinstance(features, dict) and isinstance(labels, dict):
        both = sorted(features.keys() & labels.keys())
        if both:
            raise ConfigError(f"{len(both)} duplicate keys are found in both x and y: {both}.")
    rows: dict[str, int] = {}
    for which, arrays in (("x", features), ("y", labels)):
        if isinstance(arrays, dict):
            rows |= {f"{which}[{key!r}]": len(array) for key, array in arrays.items()}
        elif arrays is not None:
            rows[which] = len(arrays)
    if len(set(rows.values())) > 1:
        raise ConfigError(f"Length of tensors in x and y is mismatched; rows in each: {rows}.")
