"""Adam: steps scaled by decaying averages of the gradient and of its square."""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping, Sequence
from typing import ClassVar

from psys.optimizers.arguments import checked_number
from psys.optimizers.compiled import CompiledOptimizer
from psys.optimizers.schedules import LearningRateSchedule


class AdamOptimizer(CompiledOptimizer):
    """Step along an average of the gradients, divided by the root of that of their squares.

    Formula::

        m ← β₁·m + (1 − β₁)·g
        s ← β₂·s + (1 − β₂)·g²
        v ← v − η·√(1 − β₂ᵗ) / (1 − β₁ᵗ) · m / (√s + ε̂)

    where v is the variable, g the gradient of step t (from 1), η the learning rate, and m
    and s (from 0) the slots ``m`` and ``v``. The powers of β are kept once a slice
    (``beta1_power``, ``beta2_power``) and multiplied after each update of the slice.

    A sparse gradient is a dense one whose other rows are 0, as TF has it: m and s of every
    row decay and every row moves, also where the gradient has no row for the slice at all.

    Args:
        learning_rate: η, 0 or more, or a schedule.
        beta1: β₁, 0 or more and less than 1.
        beta2: β₂, 0 or more and less than 1.
        epsilon: ε̂ ("epsilon hat", section 2 of the paper), 0 or more.
        use_locking: accepted for tf programs, changes nothing.
        name: accepted for tf programs, changes nothing.

    Raises:
        ConfigError: if an argument is not a number within its limits. (TF takes a beta of 1
            or more, and computes NaN.)

    Example:
        >>> import numpy as np
        >>> optimizer = AdamOptimizer(0.5, beta1=0.5, beta2=0.75, epsilon=0.0)
        >>> value, scalars = np.array([1.0]), dict(optimizer.scalars)
        >>> slots = {"m": np.zeros(1), "v": np.zeros(1)}
        >>> optimizer.apply_dense(value, slots, scalars, np.array([4.0]))
        >>> value.tolist(), slots["m"].tolist(), slots["v"].tolist(), scalars["beta1_power"]
        ([0.5], [2.0], [4.0], 0.25)

    References:
        Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2014.

    Known limit: a push costs time in proportion to the whole slice, however few rows it
    names; for large tables ``LazyAdamOptimizer``, Adagrad or Ftrl are cheaper by far.
    """

    kind: ClassVar[str] = "Adam"
    kernel = "adam"
    arguments: ClassVar[tuple[str, ...]] = ("learning_rate", "beta1", "beta2", "epsilon")
    moves_all_rows: ClassVar[bool] = True

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-08,
        use_locking: bool = False,
        name: str = "Adam",
    ) -> None:
        super().__init__(learning_rate, use_locking, name)
        self.beta1 = checked_number(self, "beta1", beta1, at_least=0.0, below=1.0)
        self.beta2 = checked_number(self, "beta2", beta2, at_least=0.0, below=1.0)
        self.epsilon = checked_number(self, "epsilon", epsilon, at_least=0.0)

    @property
    def slots(self) -> Mapping[str, float]:
        """``m`` and ``v``, the averages of gradient and square, from 0."""
        return {"m": 0.0, "v": 0.0}

    @property
    def scalars(self) -> Mapping[str, float]:
        """``beta1_power`` and ``beta2_power`` of the step to come."""
        return {"beta1_power": self.beta1, "beta2_power": self.beta2}

    def numbers(
        self, rate: float, scalars: Mapping[str, float], global_step: int
    ) -> Sequence[float]:
        """Return η corrected for the averages' start at 0, β₁, 1 − β₁, β₂, 1 − β₂ and ε̂."""
        corrected = rate * math.sqrt(1.0 - scalars["beta2_power"]) / (1.0 - scalars["beta1_power"])
        return (
            corrected,
            self.beta1,
            1.0 - self.beta1,
            self.beta2,
            1.0 - self.beta2,
            self.epsilon,
        )

    def advance(self, scalars: MutableMapping[str, float]) -> None:
        """Raise both powers of beta by one."""
        scalars["beta1_power"] *= self.beta1
        scalars["beta2_power"] *= self.beta2


class LazyAdamOptimizer(AdamOptimizer):
    """Adam that leaves rows without a gradient as they are (``tf.contrib.opt``'s LazyAdam).

    Arguments, formula and slots are those of ``AdamOptimizer``. A sparse gradient changes its own
    rows of the variable and of both slots only, so a push costs time in proportion to the rows
    it names. The powers of β still count every update of the slice: a row that comes seldom
    moves by less than Adam would have moved it. Dense gradients make no difference.

    Example:
        >>> import numpy as np
        >>> optimizer = LazyAdamOptimizer(0.5, beta1=0.5, beta2=0.75, epsilon=0.0)
        >>> value, scalars = np.array([1.0, 1.0]), dict(optimizer.scalars)
        >>> slots = {"m": np.ones(2), "v": np.ones(2)}
        >>> optimizer.apply_sparse(value, slots, scalars, np.array([1]), np.array([3.0]))
        >>> value.tolist(), slots["m"].tolist(), slots["v"].tolist()
        ([1.0, 0.42264973081037416], [1.0, 2.0], [1.0, 3.0])
    """

    kind: ClassVar[str] = "LazyAdam"
    kernel = "lazy_adam"
    moves_all_rows: ClassVar[bool] = False
