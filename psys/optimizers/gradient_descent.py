"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from psys.optimizers.compiled import CompiledOptimizer
from psys.optimizers.schedules import LearningRateSchedule


class GradientDescentOptimizer(CompiledOptimizer):
    """Step against the gradient.

    Formula::

        v ← v − η·g

    where v is the variable, g the gradient and η the learning rate. No slots.

    Args:
        learning_rate: η, 0 or more, or a schedule.
        use_locking: accepted for tf programs, changes nothing.
        name: accepted for tf programs, changes nothing.

    Raises:
        ConfigError: if ``learning_rate`` is not a number of 0 or more.

    Example:
        >>> import numpy as np
        >>> value = np.array([1.0, 2.0])
        >>> GradientDescentOptimizer(0.5).apply_dense(value, {}, {}, np.array([2.0, -2.0]))
        >>> value.tolist()
        [0.0, 3.0]

    References:
        Robbins and Monro, "A Stochastic Approximation Method", 1951.

    Known limit: one learning rate for all elements, so rows of a table that are seldom seen
    learn slowly; Adagrad and Ftrl are made for those.
    """

    kind: ClassVar[str] = "SGD"
    kernel = "gradient_descent"

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule,
        use_locking: bool = False,
        name: str = "GradientDescent",
    ) -> None:
        super().__init__(learning_rate, use_locking, name)

    def numbers(
        self, rate: float, scalars: Mapping[str, float], global_step: int
    ) -> Sequence[float]:
        """Return the learning rate."""
        return (rate,)
