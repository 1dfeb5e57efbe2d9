"""One training step's view of the variables: pulled values, traced, so gradients follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from psys.arrays import Array, Gradient, IndexedSlices, VariableSpec
from psys.compute.backward import backward, is_traced, new_root, untraced
from psys.compute.features import InputFeatures
from psys.compute.store import VariableStore, check_ids, unique_ids
from psys.errors import ModelError
from psys.initializers import Initializer


class TrainStore(VariableStore):
    """Hands out traced values of one step and differentiates the loss by them."""

    def __init__(
        self,
        specs: Mapping[str, VariableSpec],
        values: Mapping[str, Array],
        rows: Mapping[str, tuple[Array, Array]],
        fetch: Callable[[str, Array], Array],
        *,
        global_step: int = 0,
        seed: int = 0,
        ahead: int = 0,
    ) -> None:
        """Take what was pulled for this step.

        Args:
            specs: every variable of the model, as the first run found them.
            values: name -> value of each dense variable.
            rows: table -> (sorted unique ids ``[n]``, their rows ``[n, ...]``), prefetched.
            fetch: table, sorted unique ids ``[n]`` -> their rows, for what was not prefetched.
            global_step: the global step of this run.
            seed: the job's seed.
            ahead: how many steps of this trainer lie between the global step and this run.
        """
        super().__init__(global_step=global_step, seed=seed, ahead=ahead)
        self._specs = specs
        self._values = values
        self._rows = rows
        self._fetch = fetch
        self._given: dict[str, Array] = {}
        self._roots: dict[Any, tuple[str, Array | None]] = {}
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
            value.flags.writeable = False
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
        value = untraced(loss)
        if np.size(value) != 1:
            raise ModelError(f"Loss must be scalar, given shape {np.shape(value)}.")
        found = backward(loss, np.ones_like(value), self._roots) if is_traced(loss) else {}
        if not found:
            raise ModelError(
                "No gradients provided for any variable: the loss depends on none of "
                f"{sorted({name for name, _ in self._roots.values()})}."
            )
        result: dict[str, Gradient | None] = {}
        for node, (name, ids) in self._roots.items():
            result.setdefault(name, None)
            if node in found:
                result[name] = self._gradient(name, ids, found[node], result.get(name))
        return result

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
        if name not in self._rows:
            return self._fetch(name, unique)
        known, rows = self._rows[name]
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
