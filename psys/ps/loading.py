"""What the chief sent is put in place: the memory of a shard when a generation begins.

A slice is used as it came. Tables of one stack are copied into one memory, one after another, and
each is freed at once: a restored model is never in memory twice, whatever it is cut into.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np

from psys.arrays import DTYPES, Array, VariableSpec
from psys.errors import ModelError
from psys.optimizers.optimizer import Optimizer, from_config
from psys.ps.shard import LoadedSlice
from psys.ps.slice_state import SliceState
from psys.ps.snapshot import VALUE, Part
from psys.stacks import stacks_of


def put_in_place(slices: list[LoadedSlice]) -> dict[str, SliceState]:
    """Return the state of every slice and every stack, by the name under which it is exchanged.

    Initializers run here for what was not given.

    Args:
        slices: all of the shard. The list is emptied: who keeps none of them else has what was
            copied in memory once, but for the largest slice.

    Raises:
        ModelError: if a slice does not fit its spec, comes twice, or cannot be in its stack; the
            list is then as it was.
    """
    _check_all(slices)
    stacks = stacks_of(replace(one.spec, shape=_shape(one)) for one in slices)
    together = _by_name(slices)
    slices.clear()
    # From here on each is in `together` alone; what came last is freed first, so that the memory
    # of a process shrinks from its end.
    made: dict[str, SliceState] = {}
    for name in reversed(list(together)):
        spec = stacks[name].spec if name in stacks else together[name][0].spec
        made[name] = _state(spec, together.pop(name))
    return dict(reversed(made.items()))


def _by_name(slices: Sequence[LoadedSlice]) -> dict[str, list[LoadedSlice]]:
    """Return the slices by the name under which they are exchanged."""
    found: dict[str, list[LoadedSlice]] = {}
    for one in slices:
        found.setdefault(one.spec.stack or one.spec.name, []).append(one)
    return found


def _shape(one: LoadedSlice) -> tuple[int, ...]:
    return (one.stop - one.start, *one.spec.row_shape)


def _check_all(slices: Sequence[LoadedSlice]) -> None:
    """Refuse what does not fit before anything is taken."""
    seen: set[str] = set()
    for one in slices:
        _check(one)
        if one.spec.name in seen:
            raise ModelError(f"A load has two slices of {one.spec.name!r}.")
        seen.add(one.spec.name)


def _check(one: LoadedSlice) -> None:
    """Refuse a slice that does not fit its spec, and one of a stack it cannot be in."""
    spec = one.spec
    if not 0 <= one.start <= one.stop <= spec.rows:
        raise ModelError(
            f"Slice [{one.start}, {one.stop}) of {spec.name!r} lies outside its {spec.rows} rows."
        )
    optimizer = _optimizer(spec)
    if spec.stack and (optimizer is None or not optimizer.by_row):
        raise ModelError(
            f"Table {spec.name!r} cannot be in stack {spec.stack!r}: its optimizer, {optimizer}, "
            "does not change each row by itself."
        )
    if one.value is not None:
        _check_array(one, "value", one.value)
    for name in () if optimizer is None else optimizer.slots:
        if name in one.slots:
            _check_array(one, name, one.slots[name])


def _check_array(one: LoadedSlice, what: str, array: Array) -> None:
    spec = one.spec
    if array.shape != _shape(one) or array.dtype != DTYPES[spec.dtype]:
        raise ModelError(
            f"{what} of {spec.name!r}[{one.start}:{one.stop}]: expected {_shape(one)} "
            f"{spec.dtype}, got {array.shape} {array.dtype}."
        )


def _optimizer(spec: VariableSpec) -> Optimizer | None:
    return None if spec.optimizer is None else from_config(spec.optimizer)


def _state(spec: VariableSpec, sent: list[LoadedSlice]) -> SliceState:
    """Return the state of what is exchanged under one name, emptying the list."""
    optimizer = _optimizer(spec)
    initial = {} if optimizer is None else optimizer.slots
    scalars = {} if optimizer is None else optimizer.scalars
    scalars = {name: sent[0].scalars.get(name, first) for name, first in scalars.items()}
    sent.sort(key=lambda one: one.spec.name)
    parts = _parts(sent)
    if len(sent) == 1:
        arrays = _arrays(sent.pop(), initial)
    else:
        # Memory that is not written is not taken yet.
        rows = (parts[-1].at + parts[-1].rows, *spec.row_shape)
        arrays = {name: np.empty(rows, spec.dtype) for name in (VALUE, *initial)}
        for part in reversed(parts):
            _copy(sent.pop(), arrays, part, initial)
    value = arrays.pop(VALUE)
    return SliceState(spec, parts, value, optimizer, arrays, scalars)


def _parts(sent: Sequence[LoadedSlice]) -> tuple[Part, ...]:
    places = accumulate((one.stop - one.start for one in sent), initial=0)
    return tuple(
        Part(one.spec, one.start, one.stop, at) for one, at in zip(sent, places, strict=False)
    )


def _arrays(one: LoadedSlice, initial: Mapping[str, float]) -> dict[str, Array]:
    """Return value and slots of a slice: those that were sent as they are, the others made."""
    arrays = {VALUE: _value(one)}
    for name, first in initial.items():
        given = one.slots.get(name)
        arrays[name] = np.full(_shape(one), first, one.spec.dtype) if given is None else given
    return arrays


def _copy(
    one: LoadedSlice, arrays: Mapping[str, Array], part: Part, initial: Mapping[str, float]
) -> None:
    """Copy value and slots of a slice to where its part lies in the arrays of its stack."""
    here = slice(part.at, part.at + part.rows)
    arrays[VALUE][here] = _value(one)
    for name, first in initial.items():
        arrays[name][here] = one.slots.get(name, first)


def _value(one: LoadedSlice) -> Array:
    """Return the value that was sent; without one, what the initializer gives."""
    made = one.value
    if made is None:
        spec, rows = one.spec, (one.start, one.stop)
        made = spec.initializer.rows(spec.name, spec.shape, spec.dtype, *rows, one.seed)
        _check_array(one, "value", made)
    return np.asarray(made, order="C")  # ascontiguousarray would give a scalar an axis
