"""Gradients that a second thread computes while the first goes on back through the model.

The gradient of a layer's kernel is needed by nobody before the end, that of its input by the layer
before it at once: where a core is free, the two are made side by side. Each is the product it would
be in one thread, bit for bit. A library's own threads share one product instead; between products
they wait by spinning, and take the core from whoever else is on the host.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import copy_context
from typing import Any

from psys.arrays import Array


class Deferred:
    """A gradient that the second thread computes, unless it has not begun when it is needed."""

    def __init__(self, second: Executor, gradient: Callable[[], Array]) -> None:
        """Hand it over.

        Args:
            second: of one thread.
            gradient: returns it; it must not matter which thread calls it.
        """
        self._gradient = gradient
        # With what this thread has set for numpy's errors.
        self._future = second.submit(copy_context().run, self._compute)

    def value(self) -> Array:
        """Return the gradient, waiting for it if it is under way."""
        return self._compute() if self._future.cancel() else self._future.result()

    def _compute(self) -> Array:
        return self._gradient()


def value_of(gradient: Any) -> Any:
    """Return a gradient that may be deferred."""
    return gradient.value() if isinstance(gradient, Deferred) else gradient
