"""Proximal optimizers: after each step the penalties' own minimum is taken exactly (FOBOS)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from psys.optimizers.arguments import checked_number
from psys.optimizers.compiled import CompiledOptimizer
from psys.optimizers.schedules import LearningRateSchedule


class ProximalGradientDescentOptimizer(CompiledOptimizer):
    """Step against the gradient, then shrink towards 0.

    Formula::

        p ← v − η·g
        v ← sign(p)·max(|p| − η·λ₁, 0) / (1 + η·λ₂)

    where v is the variable, g the gradient, η the learning rate, λ₁ and λ₂ the strengths. Rows
    without a gradient stay as they are.

    Args:
        learning_rate: η, 0 or more, or a schedule.
        l1_regularization_strength: λ₁, 0 or more.
        l2_regularization_strength: λ₂, 0 or more.
        use_locking: accepted for tf programs, changes nothing.
        name: accepted for tf programs, changes nothing.

    Raises:
        ConfigError: if an argument is not a number within its limits.

    Example:
        >>> import numpy as np
        >>> value = np.array([1.0, 0.25])
        >>> ProximalGradientDescentOptimizer(0.5, l1_regularization_strength=1.0).apply_dense(
        ...     value, {}, {}, np.array([-1.0, 0.0])
        ... )
        >>> value.tolist()
        [1.0, 0.0]

    References:
        Duchi and Singer, "Efficient Learning using Forward-Backward Splitting", 2009.

    Known limit: one step size for every element, as in gradient descent.
    """

    kind: ClassVar[str] = "ProximalGradientDescent"
    kernel = "proximal_gradient_descent"
    arguments: ClassVar[tuple[str, ...]] = (
        "learning_rate",
        "l1_regularization_strength",
        "l2_regularization_strength",
    )

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule,
        l1_regularization_strength: float = 0.0,
        l2_regularization_strength: float = 0.0,
        use_locking: bool = False,
        name: str = "ProximalGradientDescent",
    ) -> None:
        super().__init__(learning_rate, use_locking, name)
        self.l1_regularization_strength = checked_number(
            self, "l1_regularization_strength", l1_regularization_strength, at_least=0.0
        )
        self.l2_regularization_strength = checked_number(
            self, "l2_regularization_strength", l2_regularization_strength, at_least=0.0
        )

    def numbers(
        self, rate: float, scalars: Mapping[str, float], global_step: int
    ) -> Sequence[float]:
        """Return the learning rate, η·λ₁ and 1 + η·λ₂, in which a rate below 0 counts as 0."""
        eta = max(rate, 0.0)
        return (
            rate,
            eta * self.l1_regularization_strength,
            1.0 + eta * self.l2_regularization_strength,
        )


class ProximalAdagradOptimizer(CompiledOptimizer):
    """Adagrad's step, then shrink towards 0.

    Formula::

        a ← a + g²
        h ← η / √a
        p ← v − h·g
        v ← sign(p)·max(|p| − h·λ₁, 0) / (1 + h·λ₂)

    where v is the variable, g the gradient, η the learning rate, λ₁ and λ₂ the strengths and a
    the slot ``accumulator``. Rows without a gradient stay as they are.

    Args:
        learning_rate: η, 0 or more, or a schedule; where a schedule gives less than 0, nothing
            changes.
        initial_accumulator_value: the first value of a, more than 0.
        l1_regularization_strength: λ₁, 0 or more.
        l2_regularization_strength: λ₂, 0 or more.
        use_locking: accepted for tf programs, changes nothing.
        name: accepted for tf programs, changes nothing.

    Raises:
        ConfigError: if an argument is not a number within its limits.

    Example:
        >>> import numpy as np
        >>> value, slots = np.array([1.0]), {"accumulator": np.array([7.0])}
        >>> optimizer = ProximalAdagradOptimizer(2.0, l1_regularization_strength=0.5)
        >>> optimizer.apply_dense(value, slots, {}, np.array([3.0]))
        >>> value.tolist(), slots["accumulator"].tolist()
        ([-0.25], [16.0])

    References:
        Duchi and Singer, "Efficient Learning using Forward-Backward Splitting", 2009; Duchi,
        Hazan and Singer, "Adaptive Subgradient Methods", 2011.

    Known limit: the accumulator only grows, so the step size goes to 0 in long trainings.
    """

    kind: ClassVar[str] = "ProximalAdagrad"
    kernel = "proximal_adagrad"
    arguments: ClassVar[tuple[str, ...]] = (
        "learning_rate",
        "initial_accumulator_value",
        "l1_regularization_strength",
        "l2_regularization_strength",
    )

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule,
        initial_accumulator_value: float = 0.1,
        l1_regularization_strength: float = 0.0,
        l2_regularization_strength: float = 0.0,
        use_locking: bool = False,
        name: str = "ProximalAdagrad",
    ) -> None:
        super().__init__(learning_rate, use_locking, name)
        self.initial_accumulator_value = checked_number(
            self, "initial_accumulator_value", initial_accumulator_value, above=0.0
        )
        self.l1_regularization_strength = checked_number(
            self, "l1_regularization_strength", l1_regularization_strength, at_least=0.0
        )
        self.l2_regularization_strength = checked_number(
            self, "l2_regularization_strength", l2_regularization_strength, at_least=0.0
        )

    @property
    def slots(self) -> Mapping[str, float]:
        """``accumulator``, the sum of squares, from ``initial_accumulator_value``."""
        return {"accumulator": self.initial_accumulator_value}

    def numbers(
        self, rate: float, scalars: Mapping[str, float], global_step: int
    ) -> Sequence[float] | None:
        """Return the learning rate, λ₁, λ₂ and 1; None where η is negative."""
        if rate < 0.0:
            return None
        return rate, self.l1_regularization_strength, self.l2_regularization_strength, 1.0
