"""Adagrad: a learning rate for every element, shrinking with the gradients it has seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from psys.optimizers.arguments import checked_number
from psys.optimizers.compiled import CompiledOptimizer
from psys.optimizers.schedules import LearningRateSchedule


class AdagradOptimizer(CompiledOptimizer):
    """Divide each step by the root of the sum of squared gradients so far.

    Formula::

        a ← a + g²
        v ← v − η·g / √a

    where v is the variable, g the gradient, η the learning rate and a the slot
    ``accumulator``. There is no epsilon: the positive first value of a does its work. Rows
    without a gradient stay as they are.

    Args:
        learning_rate: η, 0 or more, or a schedule.
        initial_accumulator_value: the first value of a, more than 0.
        use_locking: accepted for tf programs, changes nothing.
        name: accepted for tf programs, changes nothing.

    Raises:
        ConfigError: if ``learning_rate`` is neither a number of 0 or more nor a schedule, or
            ``initial_accumulator_value`` is not positive.

    Example:
        >>> import numpy as np
        >>> value, slots = np.array([1.0]), {"accumulator": np.array([7.0])}
        >>> AdagradOptimizer(2.0).apply_dense(value, slots, {}, np.array([3.0]))
        >>> value.tolist(), slots["accumulator"].tolist()
        ([-0.5], [16.0])

    References:
        Duchi, Hazan and Singer, "Adaptive Subgradient Methods for Online Learning and
        Stochastic Optimization", 2011.

    Known limit: the accumulator only grows, so the step size goes to 0 in long trainings.
    """

    kind: ClassVar[str] = "Adagrad"
    kernel = "adagrad"
    arguments: ClassVar[tuple[str, ...]] = ("learning_rate", "initial_accumulator_value")

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule,
        initial_accumulator_value: float = 0.1,
        use_locking: bool = False,
        name: str = "Adagrad",
    ) -> None:
        super().__init__(learning_rate, use_locking, name)
        self.initial_accumulator_value = checked_number(
            self, "initial_accumulator_value", initial_accumulator_value, above=0.0
        )

    @property
    def slots(self) -> Mapping[str, float]:
        """``accumulator``, the sum of squares, from ``initial_accumulator_value``."""
        return {"accumulator": self.initial_accumulator_value}

    def numbers(
        self, rate: float, scalars: Mapping[str, float], global_step: int
    ) -> Sequence[float]:
        """Return the learning rate."""
        return (rate,)
