"""Variables that a training step changes without a gradient: moving averages and counters.

What a step measures travels in its push, beside the gradients and under the same id, and is
applied on the ps; evaluation and prediction only read. Inside a model_fn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from psys.arrays import Array
from psys.compute.backward import untraced
from psys.compute.store import current_store
from psys.errors import ModelError
from psys.initializers import Constant, Initializer

_ZEROS = Constant(0.0)


def moving_average(
    name: str, value: Array, decay: float = 0.99, initializer: Initializer = _ZEROS
) -> Array:
    """Return the average ``name`` as it stands; in training the step moves it towards ``value``.

    The ps sets ``average += (1 − decay)·(value − average)`` for each step, of whichever trainer.

    Args:
        name: its name inside the open ``variable_scope``.
        value: what this batch gives, float; always of the same shape. No gradient flows
            through it.
        decay: from 0 to 1; the closer to 1, the slower.
        initializer: its first value; zeros unless given.

    Raises:
        ModelError: outside a model_fn, if the name is known with another shape, or if the
            decay is not between 0 and 1.
    """
    if not 0.0 <= decay <= 1.0:
        raise ModelError(f"moving_average {name!r}: decay must be from 0 to 1, got {decay}.")
    dtype = np.asarray(untraced(value)).dtype
    if dtype.kind != "f":
        raise ModelError(f"moving_average {name!r}: value must be float, got {dtype}.")
    return _update(name, value, initializer, {"kind": "MovingAverage", "decay": float(decay)})


def counter(name: str, increment: int = 1) -> int:
    """Return the counter ``name`` as it stands; in training the step adds ``increment``.

    Raises:
        ModelError: outside a model_fn, or if the name is known otherwise.
    """
    return int(_update(name, np.array(increment, np.int64), _ZEROS, {"kind": "Sum"}))


def _update(name: str, value: Any, initializer: Initializer, rule: Mapping[str, Any]) -> Array:
    value = np.asarray(untraced(value))
    store = current_store()
    full_name = store.full_name(name)
    current = store.get_variable(full_name, value.shape, value.dtype.name, initializer, False)
    store.note_update(full_name, value, rule)
    return current
