"""FTRL-Proximal: the linear part of wide models, sparse by its L1 penalty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from psys.optimizers.arguments import checked_number
from psys.optimizers.compiled import CompiledOptimizer
from psys.optimizers.schedules import LearningRateSchedule

LEAST_RATE = 1e-30
"""Of a smaller learning rate the inverse, times a value, is infinite in float32, and so NaN."""


class FtrlOptimizer(CompiledOptimizer):
    """Follow the regularized leader, with L1 and L2 penalties.

    Formula::

        N ← n + g²
        z ← z + g + 2·λₛ·v − (N⁻ᵖ − n⁻ᵖ) / η · v
        v ← (sign(z)·λ₁ − z) / (N⁻ᵖ / η + 2·λ₂ + β / η)     where |z| > λ₁, else 0
        n ← N

    where v is the variable, g the gradient, η the learning rate, p the learning rate power,
    λ₁, λ₂ and λₛ the L1, L2 and shrinkage strengths, and n and z (from 0) the slots
    ``accum`` and ``linear``. Rows without a gradient stay as they are.

    Args:
        learning_rate: η, 1e-30 or more, or a schedule; where a schedule gives less, nothing
            changes.
        learning_rate_power: p, 0 or less; 0 keeps the learning rate constant.
        initial_accumulator_value: the first value of n, 0 or more.
        l1_regularization_strength: λ₁, 0 or more.
        l2_regularization_strength: λ₂, 0 or more.
        use_locking: accepted for tf programs, changes nothing.
        name: accepted for tf programs, changes nothing.
        accum_name: accepted for tf programs, changes nothing.
        linear_name: accepted for tf programs, changes nothing.
        l2_shrinkage_regularization_strength: λₛ, 0 or more; unlike λ₂ it is added to the
            gradient, not to the problem solved.
        beta: β, 0 or more; None means 0.

    Raises:
        ConfigError: if an argument is not a number within its limits.

    Example:
        >>> import numpy as np
        >>> optimizer = FtrlOptimizer(0.5, l1_regularization_strength=1.0)
        >>> value = np.zeros(2)
        >>> slots = {"accum": np.array([7.0, 7.0]), "linear": np.zeros(2)}
        >>> optimizer.apply_dense(value, slots, {}, np.array([3.0, 0.5]))
        >>> value.tolist(), slots["linear"].tolist()
        ([-0.25, 0.0], [3.0, 0.5])

    References:
        McMahan et al., "Ad Click Prediction: a View from the Trenches", 2013, algorithm 1
        (its α is η, its λ₂ twice ours).

    Known limit: z starts at 0 whatever the variable starts at, so the first updates forget
    the initial value; a first gradient of exactly 0 sets the element to 0.
    """

    kind: ClassVar[str] = "Ftrl"
    arguments: ClassVar[tuple[str, ...]] = (
        "learning_rate",
        "learning_rate_power",
        "initial_accumulator_value",
        "l1_regularization_strength",
        "l2_regularization_strength",
        "l2_shrinkage_regularization_strength",
        "beta",
    )

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule,
        learning_rate_power: float = -0.5,
        initial_accumulator_value: float = 0.1,
        l1_regularization_strength: float = 0.0,
        l2_regularization_strength: float = 0.0,
        use_locking: bool = False,
        name: str = "Ftrl",
        accum_name: str | None = None,
        linear_name: str | None = None,
        l2_shrinkage_regularization_strength: float = 0.0,
        beta: float | None = None,
    ) -> None:
        super().__init__(learning_rate, use_locking, name)
        if not isinstance(self.learning_rate, LearningRateSchedule):
            checked_number(self, "learning_rate", self.learning_rate, at_least=LEAST_RATE)
        self.learning_rate_power = checked_number(
            self, "learning_rate_power", learning_rate_power, at_most=0.0
        )
        self.initial_accumulator_value = self._strength(
            "initial_accumulator_value", initial_accumulator_value
        )
        self.l1_regularization_strength = self._strength(
            "l1_regularization_strength", l1_regularization_strength
        )
        self.l2_regularization_strength = self._strength(
            "l2_regularization_strength", l2_regularization_strength
        )
        self.l2_shrinkage_regularization_strength = self._strength(
            "l2_shrinkage_regularization_strength", l2_shrinkage_regularization_strength
        )
        self.beta = self._strength("beta", 0.0 if beta is None else beta)

    def _strength(self, argument: str, value: float) -> float:
        return checked_number(self, argument, value, at_least=0.0)

    @property
    def slots(self) -> Mapping[str, float]:
        """``accum``, the sum of squares, and ``linear``, z of the formula."""
        return {"accum": self.initial_accumulator_value, "linear": 0.0}

    @property
    def kernel(self) -> str:
        """``ftrl``, or ``ftrl_of_any_power``."""
        return "ftrl" if self.learning_rate_power == -0.5 else "ftrl_of_any_power"

    def numbers(
        self, rate: float, scalars: Mapping[str, float], global_step: int
    ) -> Sequence[float] | None:
        """Return 1 / η, 2 λₛ, λ₁, 2 λ₂ + β / η and −p; None where η is too small."""
        if rate < LEAST_RATE:
            return None
        return (
            1.0 / rate,
            2.0 * self.l2_shrinkage_regularization_strength,
            self.l1_regularization_strength,
            2.0 * self.l2_regularization_strength + self.beta / rate,
            -self.learning_rate_power,
        )
