"""Adam: steps scaled by decaying averages of the gradient and of its square."""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping
from typing import ClassVar

import numpy as np

from psys.arrays import Array
from psys.optimizers.arguments import checked_number
from psys.optimizers.optimizer import Optimizer
from psys.optimizers.rows import check_rows, row_blocks


class AdamOptimizer(Optimizer):
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
        learning_rate: η, 0 or more.
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
    names; for large tables Adagrad or Ftrl are cheaper by far.
    """

    kind: ClassVar[str] = "Adam"
    arguments: ClassVar[tuple[str, ...]] = ("learning_rate", "beta1", "beta2", "epsilon")

    def __init__(
        self,
        learning_rate: float = 0.001,
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

    def update(
        self,
        value: Array,
        slots: Mapping[str, Array],
        scalars: Mapping[str, float],
        gradient: Array,
    ) -> None:
        """Change ``value`` and both averages in place."""
        mean, square = slots["m"], slots["v"]
        self._decay(mean, square)
        scratch = gradient * (1.0 - self.beta1)
        mean += scratch
        np.multiply(gradient, gradient, out=scratch)
        scratch *= 1.0 - self.beta2
        square += scratch
        self._move(value, mean, square, scalars)

    def apply_sparse(
        self,
        value: Array,
        slots: Mapping[str, Array],
        scalars: MutableMapping[str, float],
        indices: Array,
        rows: Array,
    ) -> None:
        """Apply the gradient of some rows, in place; all rows decay and move."""
        check_rows(value, indices, rows)
        for block in row_blocks(value):
            mean, square = slots["m"][block], slots["v"][block]
            self._decay(mean, square)
            first, last = np.searchsorted(indices, (block.start, block.stop))
            if first < last:
                here, gradient = indices[first:last] - block.start, rows[first:last]
                mean[here] += gradient * (1.0 - self.beta1)
                square[here] += gradient * gradient * (1.0 - self.beta2)
            self._move(value[block], mean, square, scalars)
        self.advance(scalars)

    def advance(self, scalars: MutableMapping[str, float]) -> None:
        """Raise both powers of beta by one."""
        scalars["beta1_power"] *= self.beta1
        scalars["beta2_power"] *= self.beta2

    def _decay(self, mean: Array, square: Array) -> None:
        mean *= self.beta1
        square *= self.beta2

    def _move(self, value: Array, mean: Array, square: Array, scalars: Mapping[str, float]) -> None:
        """Change ``value`` in place by the averages."""
        rate = (
            self.learning_rate
            * math.sqrt(1.0 - scalars["beta2_power"])
            / (1.0 - scalars["beta1_power"])
        )
        step = np.sqrt(square)
        step += self.epsilon
        np.divide(mean, step, out=step)
        step *= rate
        value -= step
