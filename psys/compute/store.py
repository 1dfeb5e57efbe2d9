"""What one run of a model_fn sees as its variables: the interface, and which one is current.

A store names variables by the scopes they are asked for in, checks that a name keeps its
shape, and hands out values. Where the values come from is its subclasses' business; a store
never talks to a shard itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from psys import kernels, running
from psys.arrays import Array, Gradient, IndexedSlices
from psys.compute.layer_parts import LayerPlan
from psys.compute.stack_rows import StackPart, TableRows
from psys.errors import ModelError
from psys.initializers import Initializer

StoreT = TypeVar("StoreT", bound="VariableStore")


class Scope:
    """A prefix of names, inside a ``with`` block. A class: a step enters dozens of them."""

    def __init__(self, scopes: list[str], prefix: str) -> None:
        self._scopes = scopes
        self._prefix = prefix

    def __enter__(self) -> None:
        self._scopes.append(self._prefix)

    def __exit__(self, *_: object) -> None:
        self._scopes.pop()


class VariableStore(ABC):
    """The variables of one run of a model_fn; ``with store:`` makes it this thread's current one.

    Attributes:
        global_step: the global step this run starts from.
        seed: what ``generator`` is drawn from, together with the global step.
        layers: what each layer of columns, by its scope, looked up in the step before.
    """

    def __init__(self, *, global_step: int = 0, seed: int = 0, ahead: int = 0) -> None:
        self.global_step = global_step
        self._ahead = ahead
        self.seed = seed
        self._scopes: list[str] = []
        self._layer_names: Counter[str] = Counter()
        self._used: dict[str, tuple[tuple[int, ...], bool]] = {}
        self._generator: np.random.Generator | None = None
        self.layers: dict[str, LayerPlan | None] = {}

    @abstractmethod
    def get_variable(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: str,
        initializer: Initializer,
        trainable: bool,
    ) -> Array:
        """Return the value of the dense variable ``name`` (a full name)."""

    @abstractmethod
    def lookup(
        self,
        name: str,
        shape: tuple[int, ...],
        ids: Array,
        initializer: Initializer,
        trainable: bool,
        column: Any,
        features: Any,
    ) -> tuple[Array, Array]:
        """Return ``(rows [n_unique, ...], inverse [nnz])`` of the table ``name`` (a full name)."""

    def lookup_part(
        self,
        name: str,
        shape: tuple[int, ...],
        ids: Array,
        initializer: Initializer,
        trainable: bool,
        column: Any,
        features: Any,
    ) -> tuple[TableRows, Array]:
        """Return what ``lookup`` does, the rows among those of the table's stack, if so pulled."""
        rows, inverse = self.lookup(name, shape, ids, initializer, trainable, column, features)
        return TableRows(rows, name, 0, len(rows)), inverse

    def lookup_stack(
        self,
        stack: str,
        tables: tuple[str, ...],
        features: Any,
    ) -> StackPart | None:
        """Return what ``lookup_part`` gives for tables of one stack, if all was foreseen.

        Only training pulls rows by stack.
        """
        return None

    def trace_stack(self, stack: str, tables: Sequence[str]) -> Array:
        """Return the rows of a stack, traced, for what is computed of these tables together.

        Of one table alone only its own rows.

        Args:
            stack: among whose rows ``lookup_part`` said the tables' are.
            tables: one or several.
        """
        raise ModelError(f"This run has no rows of {stack!r} ({', '.join(tables)}).")

    def note_update(  # noqa: B027 - most runs only read
        self, name: str, value: Array, rule: Mapping[str, Any]
    ) -> None:
        """Note what this step measured for ``name`` (a full name); only training sends it.

        Args:
            name: a dense variable that gradients do not change.
            value: of the variable's shape and dtype.
            rule: the configuration of how the ps takes it in.
        """

    def gradients(self, loss: Any) -> Mapping[str, Gradient | None]:
        """Return a gradient for each variable in use: zeros, where nothing is differentiated."""
        return {
            name: IndexedSlices(np.empty(0, np.int64), np.empty((0, *shape[1:]), np.float32))
            if sparse
            else np.zeros(shape, np.float32)
            for name, (shape, sparse) in self._used.items()
        }

    @property
    def generator(self) -> np.random.Generator:
        """The random numbers of this run: the same seed and step draw the same ones."""
        if self._generator is None:
            key = [self.seed & 0xFFFFFFFF, self.global_step & 0xFFFFFFFF]
            key += [self._ahead] if self._ahead else []
            self._generator = np.random.Generator(np.random.SFC64(key))
        return self._generator

    def full_name(self, name: str) -> str:
        """Return ``name`` under the scopes that are open."""
        return "/".join([*self._scopes, name])

    def unique_name(self, base: str) -> str:
        """Return ``base``, ``base_1``, ... : the next one not yet given in this scope."""
        key = self.full_name(base)
        number = self._layer_names[key]
        self._layer_names[key] += 1
        return f"{base}_{number}" if number else base

    def scope(self, prefix: str) -> Scope:
        """Put ``prefix/`` before the names asked for inside a ``with`` block."""
        return Scope(self._scopes, prefix)

    def check_use(self, name: str, shape: tuple[int, ...], sparse: bool) -> bool:
        """Record that ``name`` is used with ``shape``; return whether it was before.

        Raises:
            ModelError: if it was used with another shape, or as a table before and whole now.
        """
        before = self._used.get(name)
        if before is None:
            self._used[name] = (shape, sparse)
            return False
        if before[0] != shape:
            raise ModelError(
                f"Variable {name!r} was first asked for with shape {before[0]}, now with {shape}."
            )
        if before[1] != sparse:
            raise ModelError(
                f"Variable {name!r} is asked for both as a whole (get_variable) and by row "
                "(lookup); use one of them."
            )
        return True

    def use_tables(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Record that tables of these shapes are used, by name: ``check_use`` of each.

        Raises:
            ModelError: as ``check_use``.
        """
        if self._used.keys().isdisjoint(shapes):
            self._used.update({name: (shape, True) for name, shape in shapes.items()})
            return
        for name, shape in shapes.items():
            self.check_use(name, shape, sparse=True)

    def __enter__(self: StoreT) -> StoreT:
        running.enter(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        running.leave()


def current_store() -> VariableStore:
    """Return this thread's current store.

    Raises:
        ModelError: outside a run of a model_fn.
    """
    store: VariableStore = running.current()
    return store


def check_ids(name: str, rows: int, unique: Array) -> None:
    """Raise a ModelError if one of the sorted ``unique`` ids is no row of a table."""
    if len(unique) and not (unique[0] >= 0 and unique[-1] < rows):
        wrong = unique[0] if unique[0] < 0 else unique[-1]
        raise ModelError(f"Table {name!r} has rows 0 to {rows - 1}; got the id {wrong}.")


def unique_ids(ids: Array) -> tuple[Array, Array]:
    """Return ``(sorted unique ids, inverse)``, both ``[n]`` int64."""
    return kernels.unique(ids)
