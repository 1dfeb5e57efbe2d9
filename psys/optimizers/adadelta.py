"""Adadelta: steps in the units of the variable, from two decaying averages of squares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from psys.optimizers.arguments import checked_number
from psys.optimizers.compiled import CompiledOptimizer
from psys.optimizers.schedules import LearningRateSchedule


class AdadeltaOptimizer(CompiledOptimizer):
    """Scale each step by the root of past steps over the root of past gradients.

    Formula::

        a ← ρ·a + (1 − ρ)·g²
        d ← g·√(u + ε) / √(a + ε)
        u ← ρ·u + (1 − ρ)·d²
        v ← v − η·d

    where v is the variable, g the gradient, η the learning rate, and a and u (from 0) the slots
    ``accum`` and ``accum_update``. Rows without a gradient stay as they are.

    Args:
        learning_rate: η, 0 or more, or a schedule; 1 is the paper's form.
        rho: ρ, from 0 to 1.
        epsilon: ε, more than 0: without it nothing would ever move.
        use_locking: accepted for tf programs, changes nothing.
        name: accepted for tf programs, changes nothing.

    Raises:
        ConfigError: if an argument is not a number within its limits.

    Example:
        >>> import numpy as np
        >>> value = np.array([1.0])
        >>> slots = {"accum": np.array([15.0]), "accum_update": np.array([3.0])}
        >>> AdadeltaOptimizer(1.0, rho=0.75, epsilon=1.0).apply_dense(
        ...     value, slots, {}, np.array([4.0])
        ... )
        >>> slots["accum"].tolist(), np.round(value, 4).tolist()
        ([15.25], [-0.9846])

    References:
        Zeiler, "ADADELTA: An Adaptive Learning Rate Method", 2012.

    Known limit: the first steps are as small as the root of ε, whatever the gradient.
    """

    kind: ClassVar[str] = "Adadelta"
    kernel = "adadelta"
    arguments: ClassVar[tuple[str, ...]] = ("learning_rate", "rho", "epsilon")

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        rho: float = 0.95,
        epsilon: float = 1e-08,
        use_locking: bool = False,
        name: str = "Adadelta",
    ) -> None:
        super().__init__(learning_rate, use_locking, name)
        self.rho = checked_number(self, "rho", rho, at_least=0.0, at_most=1.0)
        self.epsilon = checked_number(self, "epsilon", epsilon, above=0.0)

    @property
    def slots(self) -> Mapping[str, float]:
        """``accum`` and ``accum_update``, averages of squared gradients and steps, from 0."""
        return {"accum": 0.0, "accum_update": 0.0}

    def numbers(
        self, rate: float, scalars: Mapping[str, float], global_step: int
    ) -> Sequence[float]:
        """Return the learning rate, ρ, 1 − ρ and ε."""
        return rate, self.rho, 1.0 - self.rho, self.epsilon
