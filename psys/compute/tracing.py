"""How a function of arrays becomes a primitive, which autograd records and goes back through.

Only positional arguments are traced, so every public primitive is a plain function around one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any, cast

from autograd.extend import defvjp, defvjp_argnums, primitive

from psys.arrays import Array
from psys.compute.deferred import Deferred

Forward = Callable[..., Array]


def by_first(forward: Forward, gradient: Callable[..., Array]) -> Forward:
    """Return ``forward`` as a primitive that is differentiated by its first argument only.

    Args:
        forward: ``forward(x, *data)``.
        gradient: ``gradient(g, answer, x, *data)`` returns the gradient by x, where g is the
            gradient by the answer. It must not change any of them in place.
    """
    wrapped = primitive(forward)
    defvjp(wrapped, lambda answer, *args: lambda g: gradient(g, answer, *args))
    return cast(Forward, wrapped)


def by_many(forward: Forward, gradients: Callable[..., tuple[Array, ...]]) -> Forward:
    """Return ``forward`` as a primitive with one backward pass for all its arguments.

    Args:
        forward: ``forward(*args)``.
        gradients: ``gradients(g, argnums, *args)`` returns one gradient for each of the
            argument numbers that are traced.
    """

    def make(argnums: tuple[int, ...], _answer: Any, args: tuple[Any, ...], _kwargs: Any) -> Any:
        return lambda g: gradients(g, argnums, *args)

    wrapped = primitive(forward)
    defvjp_argnums(wrapped, make)
    return cast(Forward, wrapped)


class PartwiseVjp:
    """A backward pass that is one function for each argument, of which one may wait."""

    __slots__ = ("_argnums", "_args", "_may_wait", "_parts")

    def __init__(
        self,
        parts: Sequence[Callable[..., Array]],
        may_wait: Callable[..., int | None],
        argnums: tuple[int, ...],
        args: tuple[Any, ...],
    ) -> None:
        """See ``by_parts``."""
        self._parts = parts
        self._may_wait = may_wait
        self._argnums = argnums
        self._args = args

    def __call__(self, g: Array) -> tuple[Array, ...]:
        """Return one gradient for each of the arguments that are traced."""
        return tuple(self._parts[argnum](g, *self._args) for argnum in self._argnums)

    def begin(self, g: Array, second: Executor) -> tuple[Array | Deferred, ...]:
        """Return likewise; that of the argument that may wait begins in a second thread."""
        waits = self._may_wait(g, *self._args)
        if waits not in self._argnums or self._argnums[0] == waits:
            return self(g)  # with nothing to do here meanwhile, it is begun here
        deferred = Deferred(second, partial(self._parts[waits], g, *self._args))
        return tuple(
            deferred if argnum == waits else self._parts[argnum](g, *self._args)
            for argnum in self._argnums
        )


def by_parts(
    forward: Forward,
    parts: Sequence[Callable[..., Array]],
    may_wait: Callable[..., int | None],
) -> Forward:
    """Return ``forward`` as a primitive whose gradients are computed one by one.

    Args:
        forward: ``forward(*args)``.
        parts: for each argument ``part(g, *args)``, its gradient.
        may_wait: ``may_wait(g, *args)`` returns the number of the argument whose gradient is worth
            a second thread's while, None for none.
    """

    def make(argnums: tuple[int, ...], _answer: Any, args: tuple[Any, ...], _kwargs: Any) -> Any:
        return PartwiseVjp(parts, may_wait, argnums, args)

    wrapped = primitive(forward)
    defvjp_argnums(wrapped, make)
    return cast(Forward, wrapped)
