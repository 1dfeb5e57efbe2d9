"""The optimizers that psys brings: their updates are compiled kernels, one pass over memory.

A subclass names its kernel and turns its arguments into the numbers the kernel takes. One that
writes an ``update`` of its own is run by that, in plain numpy, whatever it inherits from.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, MutableMapping, Sequence

from psys import kernels
from psys.arrays import Array
from psys.optimizers.optimizer import Optimizer
from psys.optimizers.rows import check_same_shape


class CompiledOptimizer(Optimizer):
    """An optimizer whose update is one of ``psys.kernels.updates``."""

    moves_all_rows = False

    @property
    @abstractmethod
    def kernel(self) -> str:
        """The name of its update; it takes the slots in the order of ``self.slots``."""

    @abstractmethod
    def numbers(
        self, rate: float, scalars: Mapping[str, float], global_step: int
    ) -> Sequence[float] | None:
        """Return the numbers the kernel takes, or None if nothing is to change.

        Args:
            rate: the learning rate of this update.
            scalars: the slice's scalars.
            global_step: what the trainer had read when it computed the gradient.
        """

    @property
    def by_row(self) -> bool:
        """True unless a class writes its own update, keeps scalars or moves all rows."""
        methods = ("update", "apply_dense", "apply_sparse")
        if any(getattr(type(self), one) is not getattr(CompiledOptimizer, one) for one in methods):
            return False
        return not (self.scalars or self.moves_all_rows)

    def prepare(self, dtype: str) -> None:
        """Compile now what updates of variables of ``dtype`` take."""
        if type(self).update is CompiledOptimizer.update and dtype in ("float32", "float64"):
            kernels.prepare_update(self.kernel, dtype)

    def update(
        self,
        value: Array,
        slots: Mapping[str, Array],
        scalars: Mapping[str, float],
        gradient: Array,
    ) -> None:
        """Change ``value`` and ``slots`` in place, as at global step 0."""
        numbers = self.numbers(self.rate(0), scalars, 0)
        if numbers is not None:
            held = [slots[name] for name in self.slots]
            kernels.update_dense(self.kernel, value, held, gradient, numbers)

    def apply_dense(
        self,
        value: Array,
        slots: Mapping[str, Array],
        scalars: MutableMapping[str, float],
        gradient: Array,
        *,
        global_step: int = 0,
    ) -> None:
        """Apply the gradient of every row of a slice, in place; see ``Optimizer``."""
        if type(self).update is not CompiledOptimizer.update:
            super().apply_dense(value, slots, scalars, gradient, global_step=global_step)
            return
        check_same_shape(value, gradient)
        numbers = self.numbers(self.rate(global_step), scalars, global_step)
        if numbers is not None:
            held = [slots[name] for name in self.slots]
            kernels.update_dense(self.kernel, value, held, gradient, numbers)
        self.advance(scalars)

    def apply_sparse(
        self,
        value: Array,
        slots: Mapping[str, Array],
        scalars: MutableMapping[str, float],
        indices: Array,
        rows: Array,
        *,
        global_step: int = 0,
    ) -> None:
        """Apply the gradient of some rows of a slice, in place; see ``Optimizer``."""
        if type(self).update is not CompiledOptimizer.update:
            super().apply_sparse(value, slots, scalars, indices, rows, global_step=global_step)
            return
        numbers = self.numbers(self.rate(global_step), scalars, global_step)
        if numbers is not None:
            held = [slots[name] for name in self.slots]
            kernels.update_rows(self.kernel, value, held, indices, rows, numbers)
        self.advance(scalars)
