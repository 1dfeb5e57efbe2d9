"""Reverse-mode differentiation from one loss to many roots, on autograd's nodes.

``autograd.grad`` differentiates a function by one argument. Here the variables of a model turn
up one by one while it runs, so each is a root of its own and one pass backward serves them all.
"""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import Executor
from typing import Any

import numpy as np

# add_outgrads and toposort are the two pieces autograd's own backward_pass is made of.
from autograd.core import VJPNode, add_outgrads
from autograd.tracer import isbox, new_box
from autograd.util import toposort

from psys.arrays import Array
from psys.compute.deferred import Deferred, value_of
from psys.compute.tracing import TRACE, PartwiseVjp

_TAKEN_AS_IT_IS = (np.ndarray, Deferred)
"""What the first gradient that flows to a node mostly is; autograd has sparse ones of its own."""


def new_root(value: Array) -> tuple[Array, Any]:
    """Return ``(traced value, node)``: what is computed from it leads back to the node."""
    node = VJPNode.new_root()
    return new_box(value, TRACE, node), node


def is_traced(value: Any) -> bool:
    """Say whether ``value`` was computed from a root."""
    return bool(isbox(value) and value._trace == TRACE)


def untraced(value: Any) -> Any:
    """Return the plain value of something that may be traced."""
    while isbox(value):
        value = value._value
    return value


def backward(
    result: Any, gradient: Array, roots: Collection[Any], second: Executor | None = None
) -> dict[Any, Array]:
    """Return, for each root that ``result`` depends on, its gradient.

    Args:
        result: a traced value.
        gradient: the gradient of ``result``, of its shape.
        roots: nodes that ``new_root`` made.
        second: a thread that computes some of them meanwhile; None for none.
    """
    flowing: dict[Any, Any] = {result._node: (gradient, False)}
    found: dict[Any, Any] = {}
    for node in toposort(result._node):
        outgrad, _ = flowing.pop(node)
        if node in roots:
            found[node] = outgrad
            continue
        outgrad = value_of(outgrad)
        if second is not None and isinstance(node.vjp, PartwiseVjp):
            ingrads = node.vjp.begin(outgrad, second)
        else:
            ingrads = node.vjp(outgrad)
        for parent, ingrad in zip(node.parents, ingrads, strict=True):
            before = flowing.get(parent)
            if before is None and type(ingrad) in _TAKEN_AS_IT_IS:
                flowing[parent] = ingrad, False
            else:
                flowing[parent] = _added(before, ingrad)
    # The second thread takes them in their order: what it has not come to is computed here.
    for node in reversed(found):
        found[node] = value_of(found[node])
    return found


def _added(before: tuple[Any, bool] | None, ingrad: Any) -> tuple[Any, bool]:
    """Return what flows to a node, with whether it may be added to in place."""
    if before is not None:
        before = value_of(before[0]), before[1]
    added: tuple[Any, bool] = add_outgrads(before, value_of(ingrad))
    return added
