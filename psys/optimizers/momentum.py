"""Gradient descent with momentum, Polyak's and Nesterov's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from psys.optimizers.arguments import checked_number
from psys.optimizers.compiled import CompiledOptimizer
from psys.optimizers.schedules import LearningRateSchedule


class MomentumOptimizer(CompiledOptimizer):
    """Step along a decaying sum of the gradients.

    Formula::

        a ← μ·a + g
        v ← v − η·a
        v ← v − η·g − η·μ·a     with Nesterov, instead of the line above

    where v is the variable, g the gradient, η the learning rate, μ the momentum and a the
    slot ``momentum`` (from 0). Rows without a gradient stay as they are: their a does not
    decay.

    Args:
        learning_rate: η, 0 or more, or a schedule.
        momentum: μ, usually 0.9.
        use_locking: accepted for tf programs, changes nothing.
        name: accepted for tf programs, changes nothing.
        use_nesterov: take the last line of the formula.

    Raises:
        ConfigError: if ``learning_rate`` is neither a number of 0 or more nor a schedule, or
            ``momentum`` is not a number.

    Example:
        >>> import numpy as np
        >>> value, slots = np.array([1.0]), {"momentum": np.array([0.0])}
        >>> optimizer = MomentumOptimizer(0.5, 0.5)
        >>> for _ in range(2):
        ...     optimizer.apply_dense(value, slots, {}, np.array([1.0]))
        >>> value.tolist(), slots["momentum"].tolist()
        ([-0.25], [1.5])

    References:
        Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.
        Nesterov's form as in Sutskever, Martens, Dahl and Hinton, "On the importance of
        initialization and momentum in deep learning", 2013.

    Known limit: with asynchronous workers, stale gradients act as momentum of their own;
    a smaller μ than on one machine is often needed.
    """

    kind: ClassVar[str] = "Momentum"
    arguments: ClassVar[tuple[str, ...]] = ("learning_rate", "momentum", "use_nesterov")

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule,
        momentum: float,
        use_locking: bool = False,
        name: str = "Momentum",
        use_nesterov: bool = False,
    ) -> None:
        super().__init__(learning_rate, use_locking, name)
        self.momentum = checked_number(self, "momentum", momentum)
        self.use_nesterov = bool(use_nesterov)

    @property
    def slots(self) -> Mapping[str, float]:
        """``momentum``, the velocity, from 0."""
        return {"momentum": 0.0}

    @property
    def kernel(self) -> str:
        """``momentum`` or ``nesterov``."""
        return "nesterov" if self.use_nesterov else "momentum"

    def numbers(
        self, rate: float, scalars: Mapping[str, float], global_step: int
    ) -> Sequence[float]:
        """Return the learning rate and the momentum."""
        return rate, self.momentum
