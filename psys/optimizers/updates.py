"""Updates without a gradient: averages and counters, which a step changes beside its gradients.

They travel in the same push under the same id, so they too are applied exactly once, and are
cut together with everything else. To the shard they are optimizers whose "gradient" is what
the step measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from psys.arrays import Array
from psys.optimizers.arguments import checked_number
from psys.optimizers.optimizer import Optimizer


class MovingAverage(Optimizer):
    """Move a value towards what each step measures.

    Formula::

        v ← v + (1 − d)·(x − v)

    where x is what the step measured and d the decay.

    Args:
        decay: d, from 0 (the last value) to 1 (the first).

    Raises:
        ConfigError: if ``decay`` is not between 0 and 1.

    Example:
        >>> import numpy as np
        >>> value = np.array([8.0])
        >>> MovingAverage(0.75).apply_dense(value, {}, {}, np.array([16.0]))
        >>> value.tolist()
        [10.0]
    """

    kind: ClassVar[str] = "MovingAverage"
    arguments: ClassVar[tuple[str, ...]] = ("decay",)

    def __init__(self, decay: float) -> None:
        super().__init__(1.0, False, self.kind)
        self.decay = checked_number(self, "decay", decay, at_least=0.0, at_most=1.0)

    def update(
        self,
        value: Array,
        slots: Mapping[str, Array],
        scalars: Mapping[str, float],
        gradient: Array,
    ) -> None:
        """Change ``value`` in place."""
        value += (gradient - value) * value.dtype.type(1.0 - self.decay)


class Sum(Optimizer):
    """Add what each step measures: v ← v + x.

    Example:
        >>> import numpy as np
        >>> value = np.array([8])
        >>> Sum().apply_dense(value, {}, {}, np.array([2]))
        >>> value.tolist()
        [10]
    """

    kind: ClassVar[str] = "Sum"
    arguments: ClassVar[tuple[str, ...]] = ()
    averaged: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__(1.0, False, self.kind)

    def update(
        self,
        value: Array,
        slots: Mapping[str, Array],
        scalars: Mapping[str, float],
        gradient: Array,
    ) -> None:
        """Change ``value`` in place."""
        value += gradient
