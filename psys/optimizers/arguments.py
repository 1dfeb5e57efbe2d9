"""Check the numbers an optimizer is made with.

An optimizer travels to the ps as JSON, so every argument becomes a plain finite ``float``
here, where the message can still name the argument. Nothing here computes an update.
"""

from __future__ import annotations

import math
from numbers import Real

from psys.errors import ConfigError


def checked_number(
    owner: object,
    argument: str,
    value: object,
    *,
    above: float = -math.inf,
    at_least: float = -math.inf,
    at_most: float = math.inf,
    below: float = math.inf,
) -> float:
    """Return ``value`` as a float.

    Args:
        owner: the optimizer, or the name of the function, that the argument belongs to.
        argument: the argument's name.
        value: what was given.
        above: the number must be greater than this.
        at_least: the number must not be smaller than this.
        at_most: the number must not be greater than this.
        below: the number must be smaller than this.

    Raises:
        ConfigError: if it is not a finite number, or lies outside the limits.
    """
    where = f"{owner if isinstance(owner, str) else type(owner).__name__}: {argument}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ConfigError(f"{where} must be a number, got {value!r}.")
    result = float(value)
    if not math.isfinite(result):
        raise ConfigError(f"{where} must be finite, got {value!r}.")
    if not result > above:
        raise ConfigError(f"{where} must be greater than {above:g}, got {value!r}.")
    if not result >= at_least:
        raise ConfigError(f"{where} must be {at_least:g} or more, got {value!r}.")
    if not result <= at_most:
        raise ConfigError(f"{where} must be {at_most:g} or less, got {value!r}.")
    if not result < below:
        raise ConfigError(f"{where} must be less than {below:g}, got {value!r}.")
    return result
