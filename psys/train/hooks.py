"""The hook and listener interfaces: what may look at, and stop, a training or evaluation loop.

As tf.estimator means them, with one difference: a step is a Python call, so hooks ask for
values by name ("loss", "global_step") instead of by graph tensor. No hook is implemented here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from psys.compute.backward import untraced
from psys.errors import ModelError

if TYPE_CHECKING:
    from psys.train.session import Session


@dataclass(frozen=True)
class SessionRunArgs:
    """What a hook wants to see after the step: a name, or a list or dict of names.

    The names are "loss", "global_step", and those of the model's predictions.
    """

    fetches: Any


@dataclass(frozen=True)
class SessionRunValues:
    """What the step produced.

    Attributes:
        results: in the form of the hook's ``SessionRunArgs.fetches``; None without one.
        loss: the step's loss, None in prediction.
        global_step: the global step once the step was applied.
        examples: the number of examples in the batch.
        staleness: updates made since the parameters were pulled that the step was computed with.
        dropped: whether the step came too late for its update (synchronous training): nothing of
            it was applied.
    """

    results: Any
    loss: float | None
    global_step: int
    examples: int
    staleness: int = 0
    dropped: bool = False


@dataclass
class SessionRunContext:
    """What a hook may touch around a step."""

    session: Session | None
    stop_requested: bool = False
    stop_reason: str = field(default="a hook asked to stop")

    def request_stop(self, reason: str = "a hook asked to stop") -> None:
        """Ask the loop to end after this step."""
        if not self.stop_requested:
            self.stop_requested = True
            self.stop_reason = reason


class SessionRunHook:
    """Looks at a loop step by step; every method may be overridden, none must be."""

    def begin(self) -> None:
        """Run once, after model_fn ran first and before the first step."""

    def after_create_session(self, session: Session | None, coord: None = None) -> None:
        """Run whenever the model became ready: at start, and again after a roll-back."""

    def before_run(self, run_context: SessionRunContext) -> SessionRunArgs | None:
        """Run before each step; may return what it wants to see after it."""

    def after_run(self, run_context: SessionRunContext, run_values: SessionRunValues) -> None:
        """Run after each step."""

    def end(self, session: Session | None) -> None:
        """Run when the loop ended without an exception."""


class CheckpointSaverListener:
    """Is told before and after a checkpoint is saved; every method may be overridden."""

    def begin(self) -> None:
        """Run once, before the first save."""

    def before_save(self, session: Session | None, global_step_value: int) -> None:
        """Run before a save begins."""

    def after_save(self, session: Session | None, global_step_value: int) -> bool | None:
        """Run once the checkpoint is committed; True asks the training to stop."""

    def end(self, session: Session | None, global_step_value: int) -> None:
        """Run when training ended."""


def with_results(
    values: SessionRunValues, arguments: SessionRunArgs | None, predictions: Any
) -> SessionRunValues:
    """Return ``values`` with what a hook asked for, in the form it asked.

    Raises:
        ModelError: if it asked for something a step does not have.
    """
    if arguments is None or arguments.fetches is None:
        return values
    known = {"loss": values.loss, "global_step": values.global_step}
    if isinstance(predictions, Mapping):
        known = {**predictions, **known}

    def fetch(wanted: Any) -> Any:
        if isinstance(wanted, Mapping):
            return {key: fetch(one) for key, one in wanted.items()}
        if isinstance(wanted, (list, tuple)):
            return [fetch(one) for one in wanted]
        if not isinstance(wanted, str) or wanted not in known:
            raise ModelError(
                f"A hook asked for {wanted!r}. SessionRunArgs takes names, and a step has "
                f"{sorted(known)}."
            )
        value = known[wanted]
        return value if isinstance(value, (int, float, type(None))) else np.asarray(untraced(value))

    return replace(values, results=fetch(arguments.fetches))
