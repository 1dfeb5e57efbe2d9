"""Adagrad with dual averaging: the variable follows from all gradients so far, and is sparse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from psys.arrays import GlobalStep
from psys.errors import ConfigError
from psys.optimizers.arguments import checked_number
from psys.optimizers.compiled import CompiledOptimizer
from psys.optimizers.schedules import LearningRateSchedule


class AdagradDAOptimizer(CompiledOptimizer):
    """Set the variable from the sums of gradients and of their squares.

    Formula::

        G ← G + g
        S ← S + g²
        v ← −η·sign(G)·max(|G| − λ₁·T, 0) / (η·λ₂·T + √S)

    where v is the variable, g the gradient, T the global step plus 1, η the learning rate, λ₁ and
    λ₂ the strengths, and G (from 0) and S the slots ``gradient_accumulator`` and
    ``gradient_squared_accumulator``. Rows without a gradient stay as they are; for the others
    the penalty of all steps in between is in T.

    Args:
        learning_rate: η, 0 or more, or a schedule; where a schedule gives less than 0, nothing
            changes.
        global_step: ``get_global_step()`` or None, the same: T is that of each push.
        initial_gradient_squared_accumulator_value: the first value of S, more than 0.
        l1_regularization_strength: λ₁, 0 or more.
        l2_regularization_strength: λ₂, 0 or more.
        use_locking: accepted for tf programs, changes nothing.
        name: accepted for tf programs, changes nothing.

    Raises:
        ConfigError: if an argument is not a number within its limits, or ``global_step`` is
            something else.

    Example:
        >>> import numpy as np
        >>> value = np.array([9.0])
        >>> optimizer = AdagradDAOptimizer(2.0, l1_regularization_strength=0.5)
        >>> slots = {
        ...     "gradient_accumulator": np.zeros(1),
        ...     "gradient_squared_accumulator": np.array([7.0]),
        ... }
        >>> optimizer.apply_dense(value, slots, {}, np.array([3.0]), global_step=1)
        >>> value.tolist()
        [-1.0]

    References:
        Duchi, Hazan and Singer, "Adaptive Subgradient Methods for Online Learning and
        Stochastic Optimization", 2011, equation 30 with dual averaging.

    Known limit: the variable's initial value is forgotten by the first update of a row, so it is
    for linear models only: layers that start at 0 stay equal.
    """

    kind: ClassVar[str] = "AdagradDA"
    kernel = "adagrad_da"
    arguments: ClassVar[tuple[str, ...]] = (
        "learning_rate",
        "initial_gradient_squared_accumulator_value",
        "l1_regularization_strength",
        "l2_regularization_strength",
    )

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule,
        global_step: Any = None,
        initial_gradient_squared_accumulator_value: float = 0.1,
        l1_regularization_strength: float = 0.0,
        l2_regularization_strength: float = 0.0,
        use_locking: bool = False,
        name: str = "AdagradDA",
    ) -> None:
        super().__init__(learning_rate, use_locking, name)
        if global_step is not None and not isinstance(global_step, GlobalStep):
            raise ConfigError(
                "AdagradDAOptimizer: global_step must be psys.train.get_global_step(), or None "
                f"(the same), got {global_step!r}."
            )
        self.initial_gradient_squared_accumulator_value = checked_number(
            self,
            "initial_gradient_squared_accumulator_value",
            initial_gradient_squared_accumulator_value,
            above=0.0,
        )
        self.l1_regularization_strength = checked_number(
            self, "l1_regularization_strength", l1_regularization_strength, at_least=0.0
        )
        self.l2_regularization_strength = checked_number(
            self, "l2_regularization_strength", l2_regularization_strength, at_least=0.0
        )

    @property
    def slots(self) -> Mapping[str, float]:
        """``gradient_accumulator`` from 0 and ``gradient_squared_accumulator``."""
        return {
            "gradient_accumulator": 0.0,
            "gradient_squared_accumulator": self.initial_gradient_squared_accumulator_value,
        }

    def numbers(
        self, rate: float, scalars: Mapping[str, float], global_step: int
    ) -> Sequence[float] | None:
        """Return the learning rate, λ₁·T and η·λ₂·T; None where η is negative."""
        if rate < 0.0:
            return None
        steps = global_step + 1
        return (
            rate,
            self.l1_regularization_strength * steps,
            rate * self.l2_regularization_strength * steps,
        )
