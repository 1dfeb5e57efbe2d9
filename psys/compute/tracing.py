"""How a function of arrays becomes a primitive, which autograd records and goes back through.

Only positional arguments are traced, so every public primitive is a plain function around one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial, wraps
from typing import Any

from autograd.core import VJPNode
from autograd.extend import defvjp, defvjp_argnums, primitive
from autograd.tracer import box_types, new_box

from psys.arrays import Array
from psys.compute.deferred import Deferred

Forward = Callable[..., Array]

# Lower than any trace autograd opens itself (0, 1, ...), so that an autograd.grad inside a
# model_fn nests in ours; higher than -1, which autograd takes for "not traced".
TRACE = -0.5


def _recorded(forward: Forward, wrapped: Any) -> Forward:
    """Return what ``wrapped`` does, in fewer calls where all that is traced is of a step.

    Args:
        forward: computes it.
        wrapped: autograd's primitive of it. autograd's own way asks, call by call, for ufuncs and
            traces that a step of a model_fn seldom has; where it has them, that way is gone.
    """

    @wraps(forward)
    def recorded(*args: Any) -> Any:
        boxes = [(number, one) for number, one in enumerate(args) if type(one) in box_types]
        if not boxes:
            return forward(*args)
        values = list(args)
        for number, box in boxes:
            if box._trace != TRACE:
                return wrapped(*args)
            values[number] = box._value
        answer = forward(*values)
        numbers, nodes = zip(*[(number, box._node) for number, box in boxes], strict=True)
        return new_box(answer, TRACE, VJPNode(answer, wrapped, tuple(values), {}, numbers, nodes))

    return recorded


def by_first(forward: Forward, gradient: Callable[..., Array]) -> Forward:
    """Return ``forward`` as a primitive that is differentiated by its first argument only.

    Args:
        forward: ``forward(x, *data)``.
        gradient: ``gradient(g, answer, x, *data)`` returns the gradient by x, where g is the
            gradient by the answer. It must not change any of them in place.
    """
    wrapped = primitive(forward)
    defvjp(wrapped, lambda answer, *args: lambda g: gradient(g, answer, *args))
    return _recorded(forward, wrapped)


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
    return _recorded(forward, wrapped)


class PartwiseVjp:
    """A backward pass that is one function for each argument, of which one may wait."""

    __slots__ = ("_answer", "_argnums", "_args", "_may_wait", "_parts", "_through")

    def __init__(
        self,
        parts: Sequence[Callable[..., Array]],
        may_wait: Callable[..., int | None],
        through: Callable[[Array, Array], Array] | None,
        argnums: tuple[int, ...],
        answer: Any,
        args: tuple[Any, ...],
    ) -> None:
        """See ``by_parts``."""
        self._parts = parts
        self._may_wait = may_wait
        self._through = through
        self._argnums = argnums
        self._answer: Any = None if through is None else answer
        self._args = args

    def __call__(self, g: Array) -> tuple[Array, ...]:
        """Return one gradient for each of the arguments that are traced."""
        return self._all(self._gone_through(g))

    def begin(self, g: Array, second: Executor) -> tuple[Array | Deferred, ...]:
        """Return likewise; that of the argument that may wait begins in a second thread."""
        g = self._gone_through(g)
        waits = self._may_wait(g, *self._args)
        if waits not in self._argnums or self._argnums[0] == waits:
            return self._all(g)  # with nothing to do here meanwhile, it is begun here
        deferred = Deferred(second, partial(self._parts[waits], g, *self._args))
        return tuple(
            deferred if argnum == waits else self._parts[argnum](g, *self._args)
            for argnum in self._argnums
        )

    def _gone_through(self, g: Array) -> Array:
        return g if self._through is None else self._through(g, self._answer)

    def _all(self, g: Array) -> tuple[Array, ...]:
        return tuple(self._parts[argnum](g, *self._args) for argnum in self._argnums)


def by_parts(
    forward: Forward,
    parts: Sequence[Callable[..., Array]],
    may_wait: Callable[..., int | None],
    through: Callable[[Array, Array], Array] | None = None,
) -> Forward:
    """Return ``forward`` as a primitive whose gradients are computed one by one.

    Args:
        forward: ``forward(*args)``.
        parts: for each argument ``part(g, *args)``, its gradient.
        may_wait: ``may_wait(g, *args)`` returns the number of the argument whose gradient is worth
            a second thread's while, None for none.
        through: ``through(g, answer)`` returns the g that all parts are given; None for g itself.
    """

    def make(argnums: tuple[int, ...], answer: Any, args: tuple[Any, ...], _kwargs: Any) -> Any:
        return PartwiseVjp(parts, may_wait, through, argnums, answer, args)

    wrapped = primitive(forward)
    defvjp_argnums(wrapped, make)
    return _recorded(forward, wrapped)
