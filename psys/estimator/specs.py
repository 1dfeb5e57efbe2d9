"""TrainSpec and EvalSpec: what `train_and_evaluate` trains and evaluates.

Both are immutable tuples that check their fields when built. They hold what the user gave and
run nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any, NamedTuple, TypeGuard, TypeVar

from psys.errors import ConfigError, ConfigTypeError
from psys.estimator.exporters import Exporter
from psys.train.hooks import CheckpointSaverListener, SessionRunHook

_Item = TypeVar("_Item")
_WANTED_EXPORTERS = (
    "`exporters` must be an Exporter, an iterable of Exporter, or `None`, given: {!r}"
)


class _TrainFields(NamedTuple):
    input_fn: Callable[..., Any]
    max_steps: int | None
    hooks: tuple[SessionRunHook, ...]
    saving_listeners: tuple[CheckpointSaverListener, ...]


class TrainSpec(_TrainFields):
    """What to train on, and until when.

    Args:
        input_fn: makes the batches of training.
        max_steps: global step at which training ends; None trains until the input ends.
        hooks: run on every trainer, the chief among them.
        saving_listeners: called by the chief around each checkpoint.

    Raises:
        ConfigTypeError: (a TypeError) a value has the wrong type.
        ConfigError: ``max_steps`` is not above 0.
    """

    __slots__ = ()

    def __new__(
        cls,
        input_fn: Callable[..., Any],
        max_steps: int | None = None,
        hooks: Iterable[SessionRunHook] | None = None,
        saving_listeners: Iterable[CheckpointSaverListener] | None = None,
    ) -> TrainSpec:
        """Check the fields and store the iterables as tuples."""
        return super().__new__(
            cls,
            _checked_input_fn(input_fn),
            _checked_steps("max_steps", max_steps),
            _instances("hooks", hooks, SessionRunHook),
            _instances("saving_listeners", saving_listeners, CheckpointSaverListener),
        )


class _EvalFields(NamedTuple):
    input_fn: Callable[..., Any]
    steps: int | None
    name: str | None
    hooks: tuple[SessionRunHook, ...]
    exporters: tuple[Exporter, ...]
    start_delay_secs: float
    throttle_secs: float


class EvalSpec(_EvalFields):
    """What to evaluate each checkpoint on, what to export from it, and how often.

    Args:
        input_fn: makes the batches of evaluation.
        steps: the number of batches; None evaluates until the input ends.
        name: sets the results of several evaluations apart: ``eval_<name>``.
        hooks: run during evaluation.
        exporters: one exporter or several, each with a name of its own.
        start_delay_secs: the evaluator's wait before its first evaluation.
        throttle_secs: the least time from one evaluation to the next.

    Raises:
        ConfigTypeError: (a TypeError) a value has the wrong type.
        ConfigError: ``steps`` is not above 0, a time is negative, or an exporter's name is not
            a string of its own.
    """

    __slots__ = ()

    def __new__(
        cls,
        input_fn: Callable[..., Any],
        steps: int | None = 100,
        name: str | None = None,
        hooks: Iterable[SessionRunHook] | None = None,
        exporters: Exporter | Iterable[Exporter] | None = None,
        start_delay_secs: float = 120,
        throttle_secs: float = 600,
    ) -> EvalSpec:
        """Check the fields and store the iterables as tuples."""
        if name is not None and not isinstance(name, str):
            raise ConfigTypeError(f"`name` must be string, given: {name!r}")
        return super().__new__(
            cls,
            _checked_input_fn(input_fn),
            _checked_steps("steps", steps),
            name,
            _instances("hooks", hooks, SessionRunHook),
            _checked_exporters(exporters),
            _checked_secs("start_delay_secs", start_delay_secs),
            _checked_secs("throttle_secs", throttle_secs),
        )


def _checked_input_fn(input_fn: Callable[..., Any]) -> Callable[..., Any]:
    if not callable(input_fn):
        raise ConfigTypeError(f"`input_fn` must be callable, given: {input_fn!r}")
    return input_fn


def _checked_steps(field: str, steps: int | None) -> int | None:
    if steps is None:
        return None
    if not isinstance(steps, Real):
        raise ConfigTypeError(f"`{field}` must be a number or None, given: {steps!r}")
    # Written as 1e6 it is a whole number all the same; the first step at or above it ends.
    if not 0 < steps < math.inf:
        raise ConfigError(f"Must specify {field} > 0, given: {steps!r}; None sets no limit")
    return math.ceil(steps)


def _checked_secs(field: str, secs: float) -> float:
    if not isinstance(secs, Real):
        raise ConfigTypeError(f"`{field}` must be a number of seconds, given: {secs!r}")
    if not secs >= 0:
        raise ConfigError(f"Must specify {field} >= 0, given: {secs!r}")
    return secs


def _instances(field: str, items: Iterable[_Item] | None, kind: type[_Item]) -> tuple[_Item, ...]:
    if items is not None and not isinstance(items, Iterable):
        raise ConfigTypeError(
            f"`{field}` must be an iterable of `{kind.__name__}`, given: {items!r}"
        )
    checked = tuple(items or ())
    for item in checked:
        if not isinstance(item, kind):
            raise ConfigTypeError(
                f"All {field} must be `{kind.__name__}` instances, given: {item!r}"
            )
    return checked


def _checked_exporters(exporters: Exporter | Iterable[Exporter] | None) -> tuple[Exporter, ...]:
    if not exporters:
        return ()
    checked: tuple[Exporter, ...]
    if _is_exporter(exporters):
        checked = (exporters,)
    elif isinstance(exporters, Iterable):
        checked = tuple(exporters)
    else:
        raise ConfigTypeError(_WANTED_EXPORTERS.format(exporters))
    names: set[str] = set()
    for exporter in checked:
        if not _is_exporter(exporter):
            raise ConfigTypeError(_WANTED_EXPORTERS.format(exporter))
        if not exporter.name:
            raise ConfigError(f"{exporter!r} cannot have a name that is `None` or empty.")
        if not isinstance(exporter.name, str):
            raise ConfigError(f"An exporter's name must be a string, given: {exporter.name!r}")
        if exporter.name in names:
            raise ConfigError(
                f"`exporters` must have unique names. Such a name cannot be repeated: "
                f"{exporter.name!r}"
            )
        names.add(exporter.name)
    return checked


def _is_exporter(value: object) -> TypeGuard[Exporter]:
    """Return whether the value is an Exporter, or has all that one needs."""
    duck = hasattr(value, "name") and callable(getattr(value, "export", None))
    return isinstance(value, Exporter) or duck


def checked_hooks(hooks: Iterable[SessionRunHook]) -> tuple[SessionRunHook, ...]:
    """Return hooks as a tuple; ConfigTypeError (a TypeError) if one is something else."""
    return _instances("hooks", hooks, SessionRunHook)


def checked_listeners(
    listeners: Iterable[CheckpointSaverListener],
) -> tuple[CheckpointSaverListener, ...]:
    """Return listeners as a tuple; ConfigTypeError (a TypeError) if one is something else."""
    return _instances("saving_listeners", listeners, CheckpointSaverListener)
