"""Learning rates that follow the global step, under the names tf.train gives them.

A schedule is its arguments only, a frozen dataclass; it travels to the ps as a dict, like the
optimizer it belongs to, and is evaluated there at the global step that each push carries: the
one the trainer had read when it computed the gradient. Nothing here counts steps.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral
from typing import Any, ClassVar

import numpy as np

from psys.arrays import GlobalStep
from psys.errors import ConfigError, ModelError
from psys.optimizers.arguments import checked_number

_KINDS: dict[str, type[LearningRateSchedule]] = {}


class LearningRateSchedule(ABC):
    """A learning rate for every global step.

    A subclass is a frozen dataclass whose fields are numbers, strings or lists of these; it sets
    ``kind`` and says in ``__call__`` what the rate is. It must be defined wherever the program
    runs, on every ps too: there it is found again by its kind.

    Attributes:
        kind: the name it is registered and saved under.

    Example:
        >>> @dataclass(frozen=True)
        ... class SlowStart(LearningRateSchedule):
        ...     kind = "SlowStart"
        ...     peak: float
        ...     steps: int
        ...
        ...     def __call__(self, step: int) -> float:
        ...         return self.peak * min(1.0, step / self.steps)
        >>> from_config(SlowStart(0.5, 10).to_config())(5)
        0.25
    """

    kind: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if not cls.kind:
            return
        known = _KINDS.get(cls.kind, cls)
        # A notebook cell that is run again defines its class again: that is the same one.
        if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ConfigError(
                f"Schedule kind {cls.kind!r} is {known.__module__}.{known.__qualname__} already; "
                f"{cls.__module__}.{cls.__qualname__} needs another."
            )
        _KINDS[cls.kind] = cls

    @abstractmethod
    def __call__(self, step: int) -> float:
        """Return the learning rate of the update that starts from global step ``step``."""

    def to_config(self) -> dict[str, Any]:
        """Return a JSON-able description; ``from_config`` reads it back.

        Raises:
            ConfigError: if the class is no dataclass, or has no kind.
        """
        if not dataclasses.is_dataclass(self) or not self.kind:
            raise ConfigError(
                f"{type(self).__name__}: a schedule must be a dataclass and have a kind."
            )
        fields = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        # Lists, as JSON gives them back: what was sent and what is compared are then equal.
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}
        return {"schedule": self.kind, **plain}

    def _check(self, name: str, **limits: float) -> None:
        """Make a field of this frozen dataclass a float within limits."""
        object.__setattr__(self, name, checked_number(self, name, getattr(self, name), **limits))

    def _check_flag(self, name: str) -> None:
        """Make a field of this frozen dataclass a bool, as JSON can hold it."""
        given = getattr(self, name)
        if not isinstance(given, (bool, np.bool_)):
            raise ConfigError(f"{self.kind}: {name} must be True or False, got {given!r}.")
        object.__setattr__(self, name, bool(given))


def knows(config: Mapping[str, Any]) -> bool:
    """Return whether this process has the schedule that ``to_config`` described."""
    kind = config.get("schedule")
    return isinstance(kind, str) and kind in _KINDS


def from_config(config: Mapping[str, Any]) -> LearningRateSchedule:
    """Return the schedule that ``to_config`` described.

    Raises:
        ModelError: if the kind is not one this process knows, or an argument is not its own.
        ConfigError: if an argument's value is refused.
    """
    given = dict(config)
    kind = given.pop("schedule", None)
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ModelError(
            f"Unknown learning rate schedule {kind!r}; known: {sorted(_KINDS)}. A schedule of "
            "one's own must be defined where every ps of the job can see it: in the script all "
            "of them run."
        )
    try:
        return _KINDS[kind](**given)
    except TypeError as error:
        raise ModelError(f"Learning rate schedule {kind!r}: {error}.") from error


def checked_learning_rate(owner: object, value: object) -> float | LearningRateSchedule:
    """Return a learning rate as a float, 0 or more, or as the schedule it is.

    Raises:
        ConfigError: if it is a function, not a finite number, or negative.
    """
    if isinstance(value, LearningRateSchedule):
        value.to_config()
        return value
    if callable(value):
        raise ConfigError(
            f"{type(owner).__name__}: learning_rate must be a number or a schedule, got "
            f"{value!r}. A function cannot be sent to the ps: use psys.train.exponential_decay "
            "or another decay function, or a subclass of psys.train.LearningRateSchedule."
        )
    return checked_number(owner, "learning_rate", value, at_least=0.0)


@dataclass(frozen=True)
class ExponentialDecay(LearningRateSchedule):
    """See ``exponential_decay``."""

    kind = "exponential_decay"
    learning_rate: float
    decay_steps: float
    decay_rate: float
    staircase: bool = False

    def __post_init__(self) -> None:
        self._check("learning_rate", at_least=0.0)
        self._check("decay_steps", above=0.0)
        self._check("decay_rate", above=0.0)
        self._check_flag("staircase")

    def __call__(self, step: int) -> float:
        """Return η · r^(s/D)."""
        return float(self.learning_rate * self.decay_rate ** _periods(self, step))


@dataclass(frozen=True)
class NaturalExpDecay(LearningRateSchedule):
    """See ``natural_exp_decay``."""

    kind = "natural_exp_decay"
    learning_rate: float
    decay_steps: float
    decay_rate: float
    staircase: bool = False

    def __post_init__(self) -> None:
        self._check("learning_rate", at_least=0.0)
        self._check("decay_steps", above=0.0)
        self._check("decay_rate")
        self._check_flag("staircase")

    def __call__(self, step: int) -> float:
        """Return η · exp(−r·s/D)."""
        return self.learning_rate * math.exp(-self.decay_rate * _periods(self, step))


@dataclass(frozen=True)
class InverseTimeDecay(LearningRateSchedule):
    """See ``inverse_time_decay``."""

    kind = "inverse_time_decay"
    learning_rate: float
    decay_steps: float
    decay_rate: float
    staircase: bool = False

    def __post_init__(self) -> None:
        self._check("learning_rate", at_least=0.0)
        self._check("decay_steps", above=0.0)
        self._check("decay_rate", at_least=0.0)
        self._check_flag("staircase")

    def __call__(self, step: int) -> float:
        """Return η / (1 + r·s/D)."""
        return self.learning_rate / (1.0 + self.decay_rate * _periods(self, step))


def _periods(decay: ExponentialDecay | NaturalExpDecay | InverseTimeDecay, step: int) -> float:
    """Return s/D, whole if the decay is a staircase."""
    return step // decay.decay_steps if decay.staircase else step / decay.decay_steps


@dataclass(frozen=True)
class PolynomialDecay(LearningRateSchedule):
    """See ``polynomial_decay``."""

    kind = "polynomial_decay"
    learning_rate: float
    decay_steps: float
    end_learning_rate: float = 0.0001
    power: float = 1.0
    cycle: bool = False

    def __post_init__(self) -> None:
        self._check("learning_rate", at_least=0.0)
        self._check("decay_steps", above=0.0)
        self._check("end_learning_rate", at_least=0.0)
        self._check("power", at_least=0.0)
        self._check_flag("cycle")

    def __call__(self, step: int) -> float:
        """Return (η − end) · (1 − s/D)^power + end."""
        length = self.decay_steps
        if self.cycle:
            length *= max(1, math.ceil(step / length))
        left = 1.0 - min(step, length) / length
        fallen = (self.learning_rate - self.end_learning_rate) * left**self.power
        return float(fallen + self.end_learning_rate)


@dataclass(frozen=True)
class PiecewiseConstant(LearningRateSchedule):
    """See ``piecewise_constant``."""

    kind = "piecewise_constant"
    boundaries: Sequence[float]
    values: Sequence[float]

    def __post_init__(self) -> None:
        for name in ("boundaries", "values"):
            given = getattr(self, name)
            if not isinstance(given, Sequence) or isinstance(given, str):
                raise ConfigError(f"piecewise_constant: {name} must be a list, got {given!r}.")
            checked = tuple(checked_number(self, f"{name}[{i}]", x) for i, x in enumerate(given))
            object.__setattr__(self, name, checked)
        if len(self.boundaries) != len(self.values) - 1:
            raise ConfigError(
                "piecewise_constant: the length of boundaries should be 1 less than the length of "
                f"values, got {len(self.boundaries)} and {len(self.values)}."
            )
        if any(later <= earlier for earlier, later in pairwise(self.boundaries)):
            raise ConfigError(f"piecewise_constant: boundaries must grow, got {self.boundaries}.")

    def __call__(self, step: int) -> float:
        """Return the value of the piece that ``step`` lies in; a boundary ends its piece."""
        return self.values[sum(step > boundary for boundary in self.boundaries)]


@dataclass(frozen=True)
class CosineDecay(LearningRateSchedule):
    """See ``cosine_decay``."""

    kind = "cosine_decay"
    learning_rate: float
    decay_steps: float
    alpha: float = 0.0

    def __post_init__(self) -> None:
        self._check("learning_rate", at_least=0.0)
        self._check("decay_steps", above=0.0)
        self._check("alpha", at_least=0.0)

    def __call__(self, step: int) -> float:
        """Return η · ((1 − α) · ½(1 + cos(π·s/D)) + α)."""
        cosine = _half_cosine(min(step, self.decay_steps) / self.decay_steps)
        return self.learning_rate * ((1.0 - self.alpha) * cosine + self.alpha)


@dataclass(frozen=True)
class CosineDecayRestarts(LearningRateSchedule):
    """See ``cosine_decay_restarts``."""

    kind = "cosine_decay_restarts"
    learning_rate: float
    first_decay_steps: float
    t_mul: float = 2.0
    m_mul: float = 1.0
    alpha: float = 0.0

    def __post_init__(self) -> None:
        self._check("learning_rate", at_least=0.0)
        self._check("first_decay_steps", above=0.0)
        self._check("t_mul", at_least=1.0)
        self._check("m_mul", at_least=0.0)
        self._check("alpha", at_least=0.0)

    def __call__(self, step: int) -> float:
        """Return ``cosine_decay`` within the period that ``step`` lies in."""
        restarts, within = self._period(step)
        cosine = self.m_mul**restarts * _half_cosine(within)
        return float(self.learning_rate * ((1.0 - self.alpha) * cosine + self.alpha))

    def _period(self, step: int) -> tuple[int, float]:
        """Return how many restarts there were, and the part of the period that is over."""
        if self.t_mul == 1.0:
            whole, rest = divmod(step, self.first_decay_steps)
            return int(whole), rest / self.first_decay_steps
        restarts, left, length = 0, float(step), self.first_decay_steps
        while left >= length:
            left -= length
            length *= self.t_mul
            restarts += 1
        return restarts, left / length


@dataclass(frozen=True)
class LinearCosineDecay(LearningRateSchedule):
    """See ``linear_cosine_decay``."""

    kind = "linear_cosine_decay"
    learning_rate: float
    decay_steps: float
    num_periods: float = 0.5
    alpha: float = 0.0
    beta: float = 0.001

    def __post_init__(self) -> None:
        self._check("learning_rate", at_least=0.0)
        self._check("decay_steps", above=0.0)
        for name in ("num_periods", "alpha", "beta"):
            self._check(name)

    def __call__(self, step: int) -> float:
        """Return η · ((α + (D − s)/D) · ½(1 + cos(2π·periods·s/D)) + β)."""
        return self._decayed(step, 0.0)

    def _decayed(self, step: int, noise: float) -> float:
        done = min(step, self.decay_steps) / self.decay_steps
        cosine = _half_cosine(2.0 * self.num_periods * done)
        return self.learning_rate * ((self.alpha + (1.0 - done) + noise) * cosine + self.beta)


@dataclass(frozen=True)
class NoisyLinearCosineDecay(LinearCosineDecay):
    """See ``noisy_linear_cosine_decay``."""

    kind = "noisy_linear_cosine_decay"
    initial_variance: float = 1.0
    variance_decay: float = 0.55

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("initial_variance", at_least=0.0)
        self._check("variance_decay")

    def __call__(self, step: int) -> float:
        """Return ``linear_cosine_decay`` with noise; a step's is the same on every ps."""
        variance = self.initial_variance / (1.0 + step) ** self.variance_decay
        drawn = np.random.Generator(np.random.SFC64(int(step))).standard_normal()
        return self._decayed(step, math.sqrt(variance) * float(drawn))


def _half_cosine(part: float) -> float:
    """Return ½(1 + cos(π·part)): from 1 to 0 while ``part`` goes from 0 to 1."""
    return 0.5 * (1.0 + math.cos(math.pi * part))


def at_step(schedule: LearningRateSchedule, global_step: Any) -> float | LearningRateSchedule:
    """Return the schedule, or its rate at ``global_step`` if that is a plain number.

    Raises:
        ConfigError: if ``global_step`` is no whole number of 0 or more.
    """
    if global_step is None or isinstance(global_step, GlobalStep):
        return schedule
    if isinstance(global_step, bool) or not isinstance(global_step, Integral) or global_step < 0:
        raise ConfigError(
            f"{schedule.kind}: global_step must be psys.train.get_global_step(), None (the same), "
            f"or a step number, got {global_step!r}."
        )
    return schedule(int(global_step))
