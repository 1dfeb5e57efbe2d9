"""The first run of a model_fn: it finds out which variables there are.

Values are initial ones and nothing is traced: this run's loss is not trained on. A table is
never made whole; its first rows stand in for the ones looked up, so shapes and magnitudes are
right and the numbers are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from psys.arrays import Array, Gradient, VariableSpec
from psys.compute.features import InputFeatures
from psys.compute.store import VariableStore, check_ids, unique_ids
from psys.errors import ModelError
from psys.initializers import Initializer


@dataclass(frozen=True)
class Prefetch:
    """A lookup that the input pipeline can prepare one batch ahead.

    Attributes:
        table: the variable's name.
        column: the categorical column whose ``transform(features).ids`` are looked up in it.
    """

    table: str
    column: Any


class BuildStore(VariableStore):
    """Records the variables of a model and hands out initial values.

    Attributes:
        specs: name -> spec, in the order of first use; ``optimizer`` is filled in later.
        trainable: the names that gradients may change.
        prefetches: the lookups whose ids follow from the batch's own features.
    """

    def __init__(self, seed: int, *, global_step: int = 0) -> None:
        super().__init__(global_step=global_step, seed=seed)
        self.specs: dict[str, VariableSpec] = {}
        self.trainable: set[str] = set()
        self.prefetches: list[Prefetch] = []

    def get_variable(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: str,
        initializer: Initializer,
        trainable: bool,
    ) -> Array:
        """Return the initial value of the dense variable ``name``."""
        spec = self._record(name, shape, dtype, initializer, trainable, sparse=False)
        value = spec.initializer.rows(name, shape, spec.dtype, 0, spec.rows, self.seed)
        return value.reshape(shape)

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
        """Return as many rows as there are unique ids: the table's first ones."""
        spec = self._record(name, shape, "float32", initializer, trainable, sparse=True)
        if column is not None and isinstance(features, InputFeatures):
            prefetch = Prefetch(name, column)
            if prefetch not in self.prefetches:
                self.prefetches.append(prefetch)
        unique, inverse = unique_ids(ids)
        check_ids(name, shape[0], unique)
        rows = spec.initializer.rows(name, shape, "float32", 0, len(unique), self.seed)
        return rows, inverse

    def note_update(self, name: str, value: Array, rule: Mapping[str, Any]) -> None:
        """Record how the ps takes in what a step measures.

        Raises:
            ModelError: if gradients change the variable, or it has another rule.
        """
        spec = self.specs[name]
        if name in self.trainable or spec.optimizer not in (None, rule):
            other = "gradients" if name in self.trainable else dict(spec.optimizer or {})
            raise ModelError(f"Variable {name!r} is changed by {other}, and by {dict(rule)} too.")
        self.specs[name] = replace(spec, optimizer=rule)

    def gradients(self, loss: Any) -> Mapping[str, Gradient | None]:
        """Return zeros for each trainable variable: this run's loss is not trained on."""
        found = super().gradients(loss)
        return {name: one for name, one in found.items() if name in self.trainable}

    def _record(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: str,
        initializer: Initializer,
        trainable: bool,
        *,
        sparse: bool,
    ) -> VariableSpec:
        if not self.check_use(name, shape, sparse):
            self.specs[name] = VariableSpec(name, shape, dtype, initializer, sparse=sparse)
            if trainable:
                self.trainable.add(name)
        return self.specs[name]
