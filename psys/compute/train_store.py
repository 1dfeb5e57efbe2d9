"""One training step's view of the variables: pulled values, traced, so gradients follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from types import MappingProxyType
from typing import Any

import numpy as np

from psys.arrays import Array, Gradient, IndexedSlices, VariableSpec
from psys.compute.backward import backward, is_traced, new_root, untraced
from psys.compute.features import InputFeatures, TableIds
from psys.compute.layer_parts import LayerPlan
from psys.compute.stack_rows import StackPart, StackRows, TableRows
from psys.compute.store import VariableStore, check_ids, unique_ids
from psys.errors import ModelError
from psys.initializers import Initializer
from psys.stacks import TableStack

NO_STACKS: Mapping[str, TableStack] = MappingProxyType({})


class TrainStore(VariableStore):
    """Hands out traced values of one step and differentiates the loss by them."""

    def __init__(
        self,
        specs: Mapping[str, VariableSpec],
        values: Mapping[str, Array],
        rows: Mapping[str, tuple[Array, Array]],
        fetch: Callable[[str, Array], Array],
        *,
        stacks: Mapping[str, TableStack] = NO_STACKS,
        global_step: int = 0,
        seed: int = 0,
        ahead: int = 0,
        second: Executor | None = None,
        layers: dict[str, LayerPlan | None] | None = None,
    ) -> None:
        """Take what was pulled for this step.

        Args:
            specs: every variable of the model, as the first run found them.
            values: name -> value of each dense variable.
            rows: table or stack -> (sorted unique ids ``[n]``, their rows ``[n, ...]``), pulled.
            fetch: table, sorted unique ids ``[n]`` -> their rows, for what was not prefetched.
            stacks: that tables say they are in.
            global_step: the global step of this run.
            seed: the job's seed.
            ahead: how many steps of this trainer lie between the global step and this run.
            second: a thread that computes some of the gradients; None for none.
            layers: what layers of columns looked up in steps before, for this one to go on with.
        """
        super().__init__(global_step=global_step, seed=seed, ahead=ahead)
        self._specs = specs
        self._values = values
        self._rows = rows
        self._fetch = fetch
        self._stacks = stacks
        self._second = second
        if layers is not None:
            self.layers = layers
        self._given: dict[str, Array] = {}
        self._roots: dict[Any, tuple[str, Array | None]] = {}
        self._stack_rows: dict[str, StackRows] = {}
        self._stack_roots: dict[Any, tuple[str, frozenset[str]]] = {}
        self.updates: dict[str, Array] = {}
        """What the step measured for variables that no gradient changes, by name."""

    def get_variable(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: str,
        initializer: Initializer,
        trainable: bool,
    ) -> Array:
        """Return the value of the dense variable ``name``, only to be read; traced, or not."""
        if not self.check_use(name, shape, sparse=False):
            self._check_known(name, shape)
            # It may be handed out again: what one step wrote here, later ones would see.
            value = self._values[name].view()
            value.setflags(write=False)
            self._given[name] = self._trace(name, value, None, trainable)
        return self._given[name]

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
        """Return ``(rows [n_unique, ...], inverse [nnz])``, rows traced if trainable."""
        if not self.check_use(name, shape, sparse=True):
            self._check_known(name, shape)
        unique, inverse = _unique(ids, column, features)
        check_ids(name, shape[0], unique)
        rows = self._find(name, unique)
        return self._trace(name, rows, unique, trainable), inverse

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
        """Return ``(rows, inverse)``: the rows among those of the table's stack, if so pulled."""
        spec = self._specs.get(name)
        stack = spec.stack if trainable and spec is not None else ""
        found = self._foreseen(stack, name, ids, column, features) if stack else None
        if found is None:
            return super().lookup_part(name, shape, ids, initializer, trainable, column, features)
        if not self.check_use(name, shape, sparse=True):
            self._check_known(name, shape)
        table, inverse = found
        return TableRows(self._rows_of(stack), name, table.first, table.stop), inverse

    def _foreseen(
        self, stack: str, name: str, ids: Array, column: Any, features: Any
    ) -> tuple[TableIds, Array] | None:
        """Return what the input pipeline found of a lookup, if it was of these very ids."""
        if not isinstance(features, InputFeatures) or stack not in self._rows:
            return None
        stacked = features.stacked.get(stack)
        if stacked is None or stacked.rows is not self._rows[stack][0]:
            return None
        unique, table = features.uniques.get(column), stacked.tables.get(name)
        if unique is None or table is None:
            return None
        same = unique[0] is ids and unique[1] is table.ids
        return (table, unique[2]) if same else None

    def lookup_stack(self, stack: str, tables: tuple[str, ...], features: Any) -> StackPart | None:
        """Return what ``lookup_part`` gives for tables of one stack, if all was foreseen.

        Args:
            stack: its name.
            tables: each looked up, with the same arguments, in a step before.
            features: the features they are looked up for.
        """
        if not isinstance(features, InputFeatures):
            return None
        stacked = features.stacked.get(stack)
        if stacked is None or stack not in self._rows or stacked.rows is not self._rows[stack][0]:
            return None
        if stacked.plain is None or not set(tables) <= set(stacked.plain.tables):
            return None
        if not features.still_has(stacked.plain):
            return None
        self.use_tables({table: self._specs[table].shape for table in tables})
        return StackPart(self._rows_of(stack), stacked.plain.part(tables))

    def _rows_of(self, stack: str) -> StackRows:
        holder = self._stack_rows.get(stack)
        if holder is None:
            holder = self._stack_rows[stack] = StackRows(stack, self._rows[stack][1])
        return holder

    def trace_stack(self, stack: str, tables: Sequence[str]) -> Array:
        """Return the rows of a stack as a new root; of one table alone only its own."""
        values = self._rows[stack][1]
        if len(tables) == 1:
            first, stop, ids = self._part(stack, tables[0])
            return self._trace(tables[0], values[first:stop], ids, trainable=True)
        box, node = new_root(values)
        self._stack_roots[node] = (stack, frozenset(tables))
        return box

    def _part(self, stack: str, table: str) -> tuple[int, int, Array]:
        """Return where a table's rows are among those pulled of its stack, and their ids."""
        rows = self._rows[stack][0]
        start, stop = self._stacks[stack].rows_of(table)
        first, last = np.searchsorted(rows, (start, stop)).tolist()
        return first, last, rows[first:last] - start

    def note_update(self, name: str, value: Array, rule: Mapping[str, Any]) -> None:
        """Note what this step measured for ``name``; measured twice, it counts once.

        Raises:
            ModelError: if the first run of model_fn did not measure it, or by another rule.
        """
        if self._specs[name].optimizer != rule:
            raise ModelError(
                f"Variable {name!r} was taken in by {self._specs[name].optimizer} when model_fn "
                f"ran first, now by {dict(rule)}."
            )
        self.updates[name] = value

    def gradients(self, loss: Any) -> dict[str, Gradient | None]:
        """Return the gradient of ``loss`` by every trainable variable; None if it plays no part.

        The arrays are only to be read: two of them may be one and the same.

        Raises:
            ModelError: if ``loss`` is not a scalar, or depends on no trainable variable.
        """
        result, stacked = self._differentiate(loss)
        for stack, (gradient, tables) in stacked.items():
            for table in sorted(tables):
                first, stop, ids = self._part(stack, table)
                before = result.get(table)
                result[table] = self._gradient(table, ids, gradient[first:stop], before)
        return result

    def stacked_gradients(self, loss: Any) -> dict[str, Gradient | None]:
        """Return ``gradients``, those of tables that were computed together under their stack.

        Raises:
            ModelError: as ``gradients``.
        """
        result, stacked = self._differentiate(loss)
        for stack, (gradient, tables) in stacked.items():
            rows, whole = self._rows[stack][0], self._stacks[stack].tables
            if len(tables) < len(whole):
                # Of the others no gradient is known, which is not the same as zeros.
                parts = [slice(*self._part(stack, one)[:2]) for one in whole if one in tables]
                rows = np.concatenate([rows[part] for part in parts])
                gradient = np.concatenate([gradient[part] for part in parts])
            result[stack] = IndexedSlices(rows, gradient)
        return result

    def _differentiate(
        self, loss: Any
    ) -> tuple[dict[str, Gradient | None], dict[str, tuple[Array, frozenset[str]]]]:
        """Return gradients by variable, and those of stacks with the tables they are of."""
        value = untraced(loss)
        if np.size(value) != 1:
            raise ModelError(f"Loss must be scalar, given shape {np.shape(value)}.")
        roots = {**self._roots, **self._stack_roots}
        found: dict[Any, Array] = {}
        if is_traced(loss):
            found = backward(loss, np.ones_like(value), roots, self._second)
        if not found:
            names = {name for name, _ in self._roots.values()}.union(
                *(tables for _, tables in self._stack_roots.values())
            )
            raise ModelError(
                "No gradients provided for any variable: the loss depends on none of "
                f"{sorted(names)}."
            )
        result: dict[str, Gradient | None] = {}
        for node, (name, ids) in self._roots.items():
            result.setdefault(name, None)
            if node in found:
                result[name] = self._gradient(name, ids, found[node], result.get(name))
        stacked: dict[str, tuple[Array, frozenset[str]]] = {}
        for node, (stack, tables) in self._stack_roots.items():
            if node not in found:
                for table in tables:
                    result.setdefault(table, None)
                continue
            gradient = np.asarray(found[node], self._stacks[stack].spec.dtype)
            if stack in stacked:
                others, before = stacked[stack]
                gradient, tables = others + gradient, before | tables
            stacked[stack] = gradient, tables
        return result, stacked

    def _gradient(
        self, name: str, ids: Array | None, gradient: Array, before: Gradient | None
    ) -> Gradient:
        """Return ``gradient`` in the variable's dtype; a table's joined to the one ``before``."""
        spec = self._specs[name]
        gradient = np.asarray(gradient, spec.dtype)
        if ids is None:
            return gradient.reshape(spec.shape)
        if isinstance(before, IndexedSlices):
            ids = np.concatenate([before.indices, ids])
            gradient = np.concatenate([before.values, gradient])
        return IndexedSlices(ids, gradient)

    def _check_known(self, name: str, shape: tuple[int, ...]) -> None:
        spec = self._specs.get(name)
        if spec is None:
            raise ModelError(
                f"Variable {name!r} was not there when model_fn ran first; it must ask for the "
                f"same variables on every batch. Known: {sorted(self._specs)}."
            )
        if spec.shape != shape:
            raise ModelError(
                f"Variable {name!r} has shape {spec.shape}, model_fn now asks for {shape}."
            )

    def _trace(self, name: str, value: Array, ids: Array | None, trainable: bool) -> Array:
        if not trainable:
            return value
        box, node = new_root(value)
        self._roots[node] = (name, ids)
        return box

    def _find(self, name: str, unique: Array) -> Array:
        """Return the rows of sorted unique ids; only those not prefetched are fetched."""
        stack = self._specs[name].stack
        if stack in self._rows:
            first, stop, known = self._part(stack, name)
            rows = self._rows[stack][1][first:stop]
        elif name in self._rows:
            known, rows = self._rows[name]
        else:
            return self._fetch(name, unique)
        # The usual case: the prefetch was made from these very ids.
        if unique is known or np.array_equal(unique, known):
            return rows
        return self._complete(name, unique, known, rows)

    def _complete(self, name: str, unique: Array, known: Array, rows: Array) -> Array:
        """Return the rows of ``unique``: from ``rows`` where ``known``, else fetched."""
        if not len(known):
            return self._fetch(name, unique)
        place = np.minimum(np.searchsorted(known, unique), len(known) - 1)
        missing = known[place] != unique
        result: Array = rows[place]
        if missing.any():
            result[missing] = self._fetch(name, unique[missing])
        return result


def _unique(ids: Array, column: Any, features: Any) -> tuple[Array, Array]:
    """Return ``(sorted unique ids, inverse)``, as the input pipeline found them if it did."""
    if isinstance(features, InputFeatures) and column is not None:
        found = features.uniques.get(column)
        if found is not None and found[0] is ids:
            return found[1], found[2]
    return unique_ids(ids)
