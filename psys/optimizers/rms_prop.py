"""RMSProp: steps scaled by a decaying average of squared gradients, with momentum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from psys.optimizers.arguments import checked_number
from psys.optimizers.compiled import CompiledOptimizer
from psys.optimizers.schedules import LearningRateSchedule


class RMSPropOptimizer(CompiledOptimizer):
    """Divide each step by the root of an average of squared gradients.

    Formula::

        s ← s + (1 − ρ)·(g² − s)
        m ← m + (1 − ρ)·(g − m)              if centered
        a ← μ·a + η·g / √(s − m² + ε)        without m² if not centered
        v ← v − a

    where v is the variable, g the gradient, η the learning rate, s (from 1), a and m (from 0)
    the slots ``rms``, ``momentum`` and ``mg``. Rows without a gradient stay as they are.

    Args:
        learning_rate: η, 0 or more, or a schedule.
        decay: ρ, from 0 to 1.
        momentum: μ.
        epsilon: ε, 0 or more; inside the root.
        use_locking: accepted for tf programs, changes nothing.
        centered: divide by the estimated variance of the gradient instead of its square. Where
            rounding makes that negative it counts as 0; TF computes NaN there.
        name: accepted for tf programs, changes nothing.

    Raises:
        ConfigError: if an argument is not a number within its limits.

    Example:
        >>> import numpy as np
        >>> value, slots = np.array([1.0]), {"rms": np.array([79.0]), "momentum": np.zeros(1)}
        >>> RMSPropOptimizer(2.0, decay=0.5, epsilon=0.0).apply_dense(
        ...     value, slots, {}, np.array([7.0])
        ... )
        >>> slots["rms"].tolist(), value.tolist()
        ([64.0], [-0.75])

    References:
        Tieleman and Hinton, "Lecture 6.5: RMSProp", COURSERA: Neural Networks for Machine
        Learning, 2012; centered: Graves, "Generating Sequences With Recurrent Neural Networks",
        2013.

    Known limit: averages of rows that seldom have a gradient hardly move.
    """

    kind: ClassVar[str] = "RMSProp"
    arguments: ClassVar[tuple[str, ...]] = (
        "learning_rate",
        "decay",
        "momentum",
        "epsilon",
        "centered",
    )

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule,
        decay: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-10,
        use_locking: bool = False,
        centered: bool = False,
        name: str = "RMSProp",
    ) -> None:
        super().__init__(learning_rate, use_locking, name)
        self.decay = checked_number(self, "decay", decay, at_least=0.0, at_most=1.0)
        self.momentum = checked_number(self, "momentum", momentum)
        self.epsilon = checked_number(self, "epsilon", epsilon, at_least=0.0)
        self.centered = bool(centered)

    @property
    def slots(self) -> Mapping[str, float]:
        """``rms`` from 1; ``mg``, if centered, and ``momentum`` from 0."""
        mean = {"mg": 0.0} if self.centered else {}
        return {"rms": 1.0, **mean, "momentum": 0.0}

    @property
    def kernel(self) -> str:
        """``rms_prop`` or ``centered_rms_prop``."""
        return "centered_rms_prop" if self.centered else "rms_prop"

    def numbers(
        self, rate: float, scalars: Mapping[str, float], global_step: int
    ) -> Sequence[float]:
        """Return the learning rate, 1 − ρ, the momentum and ε."""
        return rate, 1.0 - self.decay, self.momentum, self.epsilon
