"""tf.train's decay functions: each returns a schedule, or one rate for a given step number.

``global_step`` is ``psys.train.get_global_step()`` inside a model_fn, or None anywhere: both
mean the global step of each update to come. With a plain number the result is the rate at that
step. ``name`` is accepted for tf programs and changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psys.optimizers.schedules import (
    CosineDecay,
    CosineDecayRestarts,
    ExponentialDecay,
    InverseTimeDecay,
    LearningRateSchedule,
    LinearCosineDecay,
    NaturalExpDecay,
    NoisyLinearCosineDecay,
    PiecewiseConstant,
    PolynomialDecay,
    at_step,
)

Rate = float | LearningRateSchedule


def exponential_decay(
    learning_rate: float,
    global_step: Any,
    decay_steps: float,
    decay_rate: float,
    staircase: bool = False,
    name: str | None = None,
) -> Rate:
    """Return ``learning_rate * decay_rate ** (step / decay_steps)``.

    Args:
        learning_rate: the rate at step 0.
        global_step: ``get_global_step()``, None, or a step number.
        decay_steps: in how many steps the rate is multiplied by ``decay_rate``.
        decay_rate: more than 0.
        staircase: whether it falls only every ``decay_steps`` steps.
        name: ignored.

    Raises:
        ConfigError: if an argument is not a number within its limits.

    Example:
        >>> exponential_decay(0.5, 20, decay_steps=10, decay_rate=0.5)
        0.125
    """
    return at_step(ExponentialDecay(learning_rate, decay_steps, decay_rate, staircase), global_step)


def natural_exp_decay(
    learning_rate: float,
    global_step: Any,
    decay_steps: float,
    decay_rate: float,
    staircase: bool = False,
    name: str | None = None,
) -> Rate:
    """Return ``learning_rate * exp(-decay_rate * step / decay_steps)``; see ``exponential_decay``.

    Raises:
        ConfigError: if an argument is not a number within its limits.
    """
    return at_step(NaturalExpDecay(learning_rate, decay_steps, decay_rate, staircase), global_step)


def inverse_time_decay(
    learning_rate: float,
    global_step: Any,
    decay_steps: float,
    decay_rate: float,
    staircase: bool = False,
    name: str | None = None,
) -> Rate:
    """Return ``learning_rate / (1 + decay_rate * step / decay_steps)``; see ``exponential_decay``.

    Raises:
        ConfigError: if an argument is not a number within its limits.
    """
    return at_step(InverseTimeDecay(learning_rate, decay_steps, decay_rate, staircase), global_step)


def polynomial_decay(
    learning_rate: float,
    global_step: Any,
    decay_steps: float,
    end_learning_rate: float = 0.0001,
    power: float = 1.0,
    cycle: bool = False,
    name: str | None = None,
) -> Rate:
    """Return a rate that falls from ``learning_rate`` to ``end_learning_rate``, then stays.

    Args:
        learning_rate: the rate at step 0.
        global_step: ``get_global_step()``, None, or a step number.
        decay_steps: when the end is reached.
        end_learning_rate: the rate from then on.
        power: of the part of the way that is left; 1 falls evenly.
        cycle: instead of staying, rise again to a way of 2, 3, ... times ``decay_steps``.
        name: ignored.

    Raises:
        ConfigError: if an argument is not a number within its limits.
    """
    return at_step(
        PolynomialDecay(learning_rate, decay_steps, end_learning_rate, power, cycle), global_step
    )


def piecewise_constant(
    x: Any, boundaries: Sequence[float], values: Sequence[float], name: str | None = None
) -> Rate:
    """Return ``values[0]`` up to and with step ``boundaries[0]``, then ``values[1]``, and so on.

    Args:
        x: ``get_global_step()``, None, or a step number.
        boundaries: growing step numbers.
        values: the rates, one more than there are boundaries.
        name: ignored.

    Raises:
        ConfigError: if the lengths do not fit, or boundaries do not grow.
    """
    return at_step(PiecewiseConstant(boundaries, values), x)


def cosine_decay(
    learning_rate: float,
    global_step: Any,
    decay_steps: float,
    alpha: float = 0.0,
    name: str | None = None,
) -> Rate:
    """Return a rate that falls along half a cosine to ``alpha * learning_rate``, then stays.

    Raises:
        ConfigError: if an argument is not a number within its limits.

    References:
        Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2016.
    """
    return at_step(CosineDecay(learning_rate, decay_steps, alpha), global_step)


def cosine_decay_restarts(
    learning_rate: float,
    global_step: Any,
    first_decay_steps: float,
    t_mul: float = 2.0,
    m_mul: float = 1.0,
    alpha: float = 0.0,
    name: str | None = None,
) -> Rate:
    """Return ``cosine_decay`` again and again, each period longer and lower than the last.

    Args:
        learning_rate: the rate at step 0.
        global_step: ``get_global_step()``, None, or a step number.
        first_decay_steps: the length of the first period.
        t_mul: what the length is multiplied by at each restart, 1 or more.
        m_mul: what the height is multiplied by at each restart.
        alpha: the rate's lowest part of ``learning_rate``.
        name: ignored.

    Raises:
        ConfigError: if an argument is not a number within its limits.

    References:
        Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2016.
    """
    return at_step(
        CosineDecayRestarts(learning_rate, first_decay_steps, t_mul, m_mul, alpha), global_step
    )


def linear_cosine_decay(
    learning_rate: float,
    global_step: Any,
    decay_steps: float,
    num_periods: float = 0.5,
    alpha: float = 0.0,
    beta: float = 0.001,
    name: str | None = None,
) -> Rate:
    """Return a rate that falls along a cosine under a falling line.

    Args:
        learning_rate: the rate at step 0 is about this.
        global_step: ``get_global_step()``, None, or a step number.
        decay_steps: when the end is reached.
        num_periods: how often the cosine goes round in that time.
        alpha: added to the line.
        beta: added to the product of line and cosine.
        name: ignored.

    Raises:
        ConfigError: if an argument is not a number within its limits.

    References:
        Bello et al., "Neural Optimizer Search with Reinforcement Learning", 2017.
    """
    return at_step(
        LinearCosineDecay(learning_rate, decay_steps, num_periods, alpha, beta), global_step
    )


def noisy_linear_cosine_decay(
    learning_rate: float,
    global_step: Any,
    decay_steps: float,
    initial_variance: float = 1.0,
    variance_decay: float = 0.55,
    num_periods: float = 0.5,
    alpha: float = 0.0,
    beta: float = 0.001,
    name: str | None = None,
) -> Rate:
    """Return ``linear_cosine_decay`` with noise on the line, which may make the rate negative.

    The noise of step s has the variance ``initial_variance / (1 + s) ** variance_decay``. It is
    drawn from the step's number, so that it is the same wherever the step is applied.

    Raises:
        ConfigError: if an argument is not a number within its limits.
    """
    schedule = NoisyLinearCosineDecay(
        learning_rate,
        decay_steps,
        num_periods,
        alpha,
        beta,
        initial_variance,
        variance_decay,
    )
    return at_step(schedule, global_step)
