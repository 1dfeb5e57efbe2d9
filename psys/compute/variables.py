"""Variables, define-by-run: what layers, feature columns and users' model_fns call.

Each function acts on the current store (``with store:``), which an Estimator provides around
every call of a model_fn. Nothing here holds a value.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from psys import running
from psys.arrays import Array, GlobalStep
from psys.compute.backward import is_traced, untraced
from psys.compute.build_store import BuildStore, Prefetch
from psys.compute.features import InputFeatures
from psys.compute.read_store import ReadStore
from psys.compute.stack_rows import TableRows
from psys.compute.store import Scope, VariableStore, current_store
from psys.compute.train_store import TrainStore
from psys.errors import ModelError
from psys.initializers import GlorotUniform, Initializer

__all__ = [
    "BuildStore",
    "InputFeatures",
    "Prefetch",
    "ReadStore",
    "TrainStore",
    "VariableStore",
    "current_global_step",
    "current_store",
    "get_variable",
    "is_traced",
    "lookup",
    "lookup_part",
    "untraced",
    "variable_scope",
]

_GLOROT = GlorotUniform()
_hooks = threading.local()


def get_variable(
    name: str,
    shape: Sequence[int] = (),
    dtype: str | npt.DTypeLike = "float32",
    initializer: Initializer | None = None,
    trainable: bool = True,
) -> Array:
    """Return the variable ``name`` under the open scopes; asked again, the same one.

    Args:
        name: its name inside the open ``variable_scope``.
        shape: its shape, the same every time.
        dtype: float32, float64, int32 or int64.
        initializer: how its first value is made; Glorot uniform if None.
        trainable: whether gradients may change it; integers never are.

    Raises:
        ModelError: outside a model_fn, or if the name is known with another shape.
    """
    store = current_store()
    if not isinstance(dtype, str):
        dtype = np.dtype(dtype).name
    return store.get_variable(
        store.full_name(name),
        tuple(map(int, shape)),
        dtype,
        initializer or _GLOROT,
        trainable and dtype.startswith("float"),
    )


def lookup(
    name: str,
    shape: Sequence[int],
    ids: Array,
    initializer: Initializer | None = None,
    trainable: bool = True,
    column: Any = None,
    features: Any = None,
) -> tuple[Array, Array]:
    """Return ``(rows, inverse)``: each row of the table that ``ids`` name, once.

    Row ``inverse[i]`` of ``rows`` belongs to ``ids[i]``: ids ``[7, 3, 7]`` give the table's
    rows 3 and 7 and the inverse ``[1, 0, 1]``. The rest of the table is never seen.

    Args:
        name: the table's name inside the open ``variable_scope``.
        shape: the whole table's shape, ``(rows, ...)``.
        ids: ``[nnz]`` int64, each in ``[0, rows)``.
        initializer: how first values are made; Glorot uniform if None.
        trainable: whether gradients may change it.
        column: the categorical column the ids come from, and
        features: the features they were made from: with both, the input pipeline can pull the
            rows one batch ahead.

    Returns:
        rows ``[n_unique, ...]`` in the order of their ids, and inverse ``[nnz]`` int64.

    Raises:
        ModelError: outside a model_fn, if an id is out of range, or if the name is known with
            another shape.
    """
    store = current_store()
    full_name = store.full_name(name)
    size = tuple(map(int, shape))
    ids = np.asarray(ids)
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise ModelError(
            f"Table {full_name!r}: ids must be integers [nnz], got {ids.dtype} {ids.shape}."
        )
    return store.lookup(
        full_name,
        size,
        ids.astype(np.int64, copy=False),
        initializer or _GLOROT,
        trainable,
        column,
        features,
    )


def lookup_part(
    name: str,
    shape: tuple[int, ...],
    ids: Array,
    *,
    initializer: Initializer,
    trainable: bool,
    column: Any,
    features: Any,
) -> tuple[TableRows, Array]:
    """Return what ``lookup`` does, for a layer that hands it on to ``combination``.

    Several tables of one stack are then computed together, and differentiated together.

    Args:
        name: the table's name inside the open ``variable_scope``.
        shape: the whole table's shape.
        ids: ``[nnz]`` int64, of a column's ``SparseIds``.
        initializer: how first values are made.
        trainable: whether gradients may change it.
        column: the categorical column the ids come from.
        features: the features they were made from.

    Raises:
        ModelError: as ``lookup``.
    """
    store = current_store()
    return store.lookup_part(
        store.full_name(name), shape, ids, initializer, trainable, column, features
    )


def variable_scope(prefix: str) -> Scope:
    """Put ``prefix/`` before the name of every variable asked for inside the ``with`` block."""
    return current_store().scope(prefix)


@contextmanager
def global_step_in_hooks(step: Callable[[], int]) -> Iterator[None]:
    """Let ``get_global_step`` answer ``step()`` in this thread between the runs of model_fn."""
    before = getattr(_hooks, "step", None)
    _hooks.step = step
    try:
        yield
    finally:
        _hooks.step = before


def current_global_step() -> GlobalStep:
    """Return the global step: in a hook the newest, in a model_fn that from which it started.

    Raises:
        ModelError: outside both.
    """
    step: Callable[[], int] | None = getattr(_hooks, "step", None)
    if step is not None and not running.inside():
        return GlobalStep(step())
    if not running.inside():
        raise ModelError(
            "The global step is not known here: get_global_step() tells it inside a model_fn and "
            "in hooks. Outside, Estimator.get_variable_value('global_step') tells the latest "
            "checkpoint's."
        )
    return GlobalStep(current_store().global_step)
