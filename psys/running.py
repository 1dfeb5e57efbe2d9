"""Which run of a model_fn a thread is in: a stack that ``with store:`` pushes to.

Layers that may not know stores still have to ask the current one for gradients. Nothing here
knows what a run does.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Protocol

from psys.arrays import Gradient
from psys.errors import ModelError


class Run(Protocol):
    """One run of a model_fn, as far as it can be asked for gradients."""

    def gradients(self, loss: Any) -> Mapping[str, Gradient | None]:
        """Return the gradient of ``loss`` by each variable; None where there is none."""


_active = threading.local()


def enter(run: Run) -> None:
    """Make ``run`` this thread's current one, until ``leave``."""
    if not hasattr(_active, "stack"):
        _active.stack = []
    _active.stack.append(run)


def leave() -> None:
    """Go back to the run before."""
    _active.stack.pop()


def inside() -> bool:
    """Return whether this thread is in a run of a model_fn."""
    return bool(getattr(_active, "stack", []))


def current() -> Any:
    """Return this thread's current run.

    Raises:
        ModelError: outside a run of a model_fn.
    """
    stack = getattr(_active, "stack", [])
    if not stack:
        raise ModelError(
            "There are no variables here: layers, feature columns, get_variable and gradients "
            "work inside a model_fn that an Estimator calls."
        )
    return stack[-1]
