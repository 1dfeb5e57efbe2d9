"""How a shard makes updates of gradients: at once, or averaged over several trainers.

Async and bounded apply a gradient as it comes; ``ahead_of`` says for whom bounded withholds
values. Sync keeps gradients (``Accumulator``) until the lead says which of them make the next
update (``combine``). The three are all there are; nothing here is meant to be extended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from psys.arrays import Array, Gradient, IndexedSlices
from psys.errors import ClusterError
from psys.ps.messages import ExchangeRequest, Fences, TaskName


def task_order(task: TaskName) -> tuple[bool, str, int]:
    """Return where a trainer stands when gradients are summed: the chief, then by index.

    Example: ``worker:10`` comes after ``worker:9``, and both after ``chief``.
    """
    kind, _, index = task.partition(":")
    return kind != "chief", kind, int(index or 0)


def combine(gradients: Sequence[Gradient], size: int, averaged: bool) -> Gradient:
    """Return the sum of one variable's gradients in the order given, divided by ``size``.

    What one process gets that computes them one after another: a row that only some of the
    trainers touched is divided by the number of all. (TF divides by those that touched it.)

    Args:
        gradients: at least one; those without the variable are left out.
        size: how many trainers make the update.
        averaged: False for what counts up, which is summed only.
    """
    if all(isinstance(one, IndexedSlices) for one in gradients):
        slices = [one for one in gradients if isinstance(one, IndexedSlices)]
        rows = IndexedSlices(
            np.concatenate([one.indices for one in slices]),
            np.concatenate([one.values for one in slices]),
        ).summed()
        return IndexedSlices(rows.indices, _divided(rows.values, size if averaged else 1))
    total: Array | None = None
    for gradient in gradients:
        if not isinstance(gradient, IndexedSlices):
            total = gradient.copy() if total is None else np.add(total, gradient, out=total)
    assert total is not None
    for gradient in gradients:
        if isinstance(gradient, IndexedSlices):
            np.add.at(total, gradient.indices, gradient.values)
    return _divided(total, size if averaged else 1)


def _divided(total: Array, size: int) -> Array:
    if size > 1:
        np.divide(total, size, out=total, casting="unsafe")  # "unsafe" for integers alone
    return total


class Accumulator:
    """The pushes a shard keeps for the next update (sync).

    A push stays when its trainer is gone: the lead may have chosen it already, and then it
    must be in the update on every shard.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[TaskName, int], ExchangeRequest] = {}

    def keep(self, request: ExchangeRequest) -> None:
        """Keep a push, unless that is done; its gradients are copied."""
        key = (request.task, request.member)
        if key not in self._kept:
            push = {name: _copy(gradient) for name, gradient in (request.push or {}).items()}
            self._kept[key] = replace(request, push=push, pull_rows={})

    def arrived(self) -> Fences:
        """Return the push kept of the latest member of each task."""
        if not self._kept:  # nearly always: it is asked after every push
            return {}
        return {
            task: (member, request.sequence)
            for (task, member), request in sorted(self._kept.items())
        }

    def take(self, pushes: Fences) -> tuple[list[ExchangeRequest], list[ExchangeRequest]]:
        """Return the pushes chosen, in task order, and those left out; none is kept.

        Raises:
            ClusterError: if one was chosen that is not here; nothing is taken.
        """
        wanted = {(task, *pushes[task]) for task in pushes}
        held = {(task, member, one.sequence) for (task, member), one in self._kept.items()}
        if missing := sorted(wanted - held):
            raise ClusterError(f"The lead chose pushes that this ps does not hold: {missing}.")
        kept = sorted(self._kept.values(), key=lambda one: (task_order(one.task), one.member))
        self._kept.clear()
        chosen: list[ExchangeRequest] = []
        late: list[ExchangeRequest] = []
        for one in kept:
            is_chosen = (one.task, one.member, one.sequence) in wanted
            (chosen if is_chosen else late).append(one)
        return chosen, late


def _copy(gradient: Gradient) -> Gradient:
    if isinstance(gradient, IndexedSlices):
        return IndexedSlices(gradient.indices.copy(), gradient.values.copy())
    return gradient.copy()


def gradients_of(pushes: Sequence[ExchangeRequest]) -> Mapping[str, list[Gradient]]:
    """Return the gradients of each variable or stack, in the order of the pushes."""
    found: dict[str, list[Gradient]] = {}
    for one in pushes:
        for name, gradient in (one.push or {}).items():
            found.setdefault(name, []).append(gradient)
    return found


def ahead_of(
    task: TaskName, member: int, fences: Fences, clocks: Fences, staleness: int
) -> list[TaskName]:
    """Return the trainers that ``task`` has to wait for (bounded).

    A clock is where its trainer started plus the pushes applied here: (member 7, start 20) with
    fence (7, 3) has done 23 steps. A trainer that has pushed and whose start is not known yet
    waits for the lead to tell it, under the name ''.

    Source: Ho et al., "More Effective Distributed ML via a Stale Synchronous Parallel Parameter
    Server", 2013.
    """

    def clock(one: TaskName) -> int:
        number, start = clocks[one]
        fence = fences.get(one, (0, 0))
        return start + (fence[1] if fence[0] == number else 0)

    if clocks.get(task, (0, 0))[0] != member:
        fence = fences.get(task, (0, 0))
        return [""] if fence[0] == member else []
    limit = clock(task) - staleness
    return sorted(one for one in clocks if clock(one) < limit)
