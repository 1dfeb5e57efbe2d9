"""The values every layer passes around: variables, slices of rows, gradients.

Pure data over numpy. Nothing here reads a file, opens a socket or starts a thread.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from psys import kernels
from psys.errors import ModelError
from psys.initializers import Initializer

Array = npt.NDArray[Any]


class GlobalStep(int):
    """The global step a run of a model_fn started from, as ``get_global_step()`` returns it.

    An int, but decay functions know it from a number somebody computed: given this, they follow
    the global step. What is calculated with it is a plain int.
    """


DTYPES: Mapping[str, np.dtype[Any]] = {
    name: np.dtype(name) for name in ("float32", "float64", "int32", "int64")
}
"""The dtypes a variable may have, by the name used in checkpoints and on the wire."""

_SUMMED = (DTYPES["float32"], DTYPES["float64"])
"""The dtypes whose squares BLAS sums, as fast as memory gives them."""


@dataclass(frozen=True)
class VariableSpec:
    """What a variable is, before it has a value.

    Attributes:
        name: unique in the model, e.g. ``dnn/hiddenlayer_0/kernel``.
        shape: ``(rows, ...)``; ``()`` for a scalar, which counts as one row.
        dtype: a key of ``DTYPES``.
        initializer: how its first value is made, on the shard that holds it.
        optimizer: the configuration (``Optimizer.to_config()``) that applies its
            gradients, or None for a variable that is not trained by gradients.
        sparse: True for a table that is pulled by row and pushed as IndexedSlices.
        stack: of a table, the name under which its rows are pulled and pushed, together with
            those of other tables of the same row shape, dtype and optimizer; '' for its own.
            See ``psys.stacks``.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    initializer: Initializer
    optimizer: Mapping[str, Any] | None = None
    sparse: bool = False
    stack: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            raise ModelError("A variable needs a name, got ''.")
        if self.name == "__metadata__":
            raise ModelError("No variable can be named '__metadata__': shard files use that name.")
        if self.stack and not self.sparse:
            raise ModelError(f"Variable {self.name!r} is no table, and cannot be in a stack.")
        if self.dtype not in DTYPES:
            raise ModelError(
                f"Variable {self.name!r}: expected a dtype of {sorted(DTYPES)}, got {self.dtype!r}."
            )
        if any(size < 0 for size in self.shape):
            raise ModelError(f"Variable {self.name!r}: negative size in shape {self.shape}.")

    @property
    def rows(self) -> int:
        """The number of rows, the unit a variable is cut by; 1 for a scalar."""
        return self.shape[0] if self.shape else 1

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of one row."""
        return self.shape[1:]

    @property
    def nbytes(self) -> int:
        """The size of the value in bytes, without slots."""
        return int(np.prod(self.shape, dtype=np.int64)) * DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class PlannedSlice:
    """Rows ``[start, stop)`` of a variable and the shard that holds them, for people to see.

    Attributes:
        variable: its name.
        start: first row.
        stop: one past the last row.
        shard: the number of the shard.
        nbytes: the size of the values in bytes, without slots.
    """

    variable: str
    start: int
    stop: int
    shard: int
    nbytes: int


Plan = Sequence[PlannedSlice]
"""Every slice of a model, by variable name, then start."""


@dataclass(frozen=True)
class IndexedSlices:
    """A gradient for some rows of a table.

    Attributes:
        indices: ``[n]`` row numbers, int64 whatever integers were given; duplicates count as
            their sum.
        values: ``[n, ...]`` one gradient row for each index.
    """

    indices: Array
    values: Array

    def __post_init__(self) -> None:
        if self.indices.dtype.kind not in "iu":
            raise ModelError(f"IndexedSlices: indices must be integers, got {self.indices.dtype}.")
        if self.indices.dtype != np.int64:
            # In a narrow dtype a row of a stack would be that of another table.
            object.__setattr__(self, "indices", self.indices.astype(np.int64))
        if self.indices.ndim != 1 or self.values.shape[:1] != self.indices.shape:
            raise ModelError(
                "IndexedSlices: indices must be [n] and values [n, ...], got "
                f"{self.indices.shape} and {self.values.shape}."
            )

    @property
    def nbytes(self) -> int:
        """The size of the values in bytes."""
        return self.values.nbytes

    def summed(self) -> IndexedSlices:
        """Return the same gradient with sorted, unique indices (duplicates summed)."""
        if bool((self.indices[1:] > self.indices[:-1]).all()):
            return self
        return IndexedSlices(*kernels.sum_duplicates(self.indices, self.values))


Gradient = Array | IndexedSlices
"""A dense array of the variable's shape, or the gradient of some of its rows."""


def all_finite(*arrays: Array) -> bool:
    """Return whether no element of any of them is NaN or infinite."""
    with np.errstate(all="ignore"):
        for one in arrays:
            # If the sum is not finite, it may be that large numbers overflowed.
            if not _sum_is_finite(one) and not np.isfinite(one).all():
                return False
    return True


def squares_are_finite(array: Array) -> bool:
    """Return whether the sum of the squares is known to be finite: then every element is.

    No square is negative, so that no NaN and no infinity can vanish from their sum. A float32 is
    then also below 2e19 in magnitude. False for an array that BLAS cannot read as it lies.
    """
    with np.errstate(all="ignore"):
        return _sum_is_finite(array)


def _sum_is_finite(array: Array) -> bool:
    if array.dtype not in _SUMMED or not array.flags.c_contiguous:
        return False
    flat = array.reshape(-1)
    return math.isfinite(flat.dot(flat))


def values_of(gradient: Gradient) -> Array:
    """Return the values of a gradient: a dense one itself, else its rows ``[n, ...]``."""
    return gradient.values if isinstance(gradient, IndexedSlices) else gradient
