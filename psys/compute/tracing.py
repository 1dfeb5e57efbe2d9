"""How a function of arrays becomes a primitive, which autograd records and goes back through.

Only positional arguments are traced, so every public primitive is a plain function around one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from autograd.extend import defvjp, defvjp_argnums, primitive

from psys.arrays import Array

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
