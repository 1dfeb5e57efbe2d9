"""SliceState: one slice of a variable, with its optimizer and what that keeps about it.

Or the slices of several tables, of their stack: its rows are theirs, in order of their names. It
refuses gradients that do not fit, and applies those that do. It knows no trainer.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from weakref import ref

import numpy as np

from psys import kernels
from psys.arrays import Array, Gradient, IndexedSlices, VariableSpec, all_finite, values_of
from psys.errors import ModelError
from psys.optimizers import optimizer as optimizers
from psys.ps.messages import ExchangeRequest
from psys.ps.shard import LoadedSlice
from psys.ps.snapshot import VALUE, Part, SliceCut


@dataclass
class SliceState:
    """One slice, or stack of them, and what its optimizer keeps about it.

    Attributes:
        spec: the whole variable; of a stack, as a table that is whole here.
        parts: the rows here of the variable; of a stack, of each of its tables, by name.
        value: ``[rows here, ...]``, and each of ``slots`` likewise.
        optimizer: what applies gradients; None if there are none.
        slots: what it keeps about each element.
        scalars: what it keeps once a slice.
    """

    spec: VariableSpec
    parts: tuple[Part, ...]
    value: Array
    optimizer: optimizers.Optimizer | None
    slots: dict[str, Array]
    scalars: dict[str, float]
    changed: int = 0
    """The shard's version when the value last changed; what was loaded is of version 0."""
    _cuts: list[ref[SliceCut]] = field(default_factory=list, repr=False)
    """Those that are still to be read, or being read; others are let go by the next."""
    _lent: ref[Array] | None = field(default=None, repr=False)
    """The value as somebody may still be reading it."""

    def lend(self) -> Array:
        """Return the value as it is now, whatever later pushes change; only to be read.

        It is not copied: a push that comes while an array in it is held copies it first.
        """
        lent = None if self._lent is None else self._lent()
        if lent is None:
            # Through a buffer, so that views have this array as their base, not the value.
            lent = np.asarray(self.value.data.toreadonly())
            self._lent = ref(lent)
        return lent

    def cut(self) -> SliceCut:
        """Return the slice as it is now, whatever later pushes change."""
        arrays = {VALUE: self.value, **self.slots}
        made = SliceCut(self.parts, arrays, self.scalars)
        self._cuts = [one for one in self._cuts if one() is not None]
        self._cuts.append(ref(made))
        return made

    def refusal(self, gradient: Gradient, global_step: int) -> str:
        """Return why the gradient of ``global_step`` cannot be applied here, '' if it can.

        Whether it is finite is looked at for all of a push at once; see ``refusal``.
        """
        name = self.spec.name
        if self.optimizer is None:
            return f"Variable {name!r} is not trained by gradients."
        values = values_of(gradient)
        if values.dtype != self.value.dtype:
            return f"Gradient of {name!r}: expected {self.value.dtype}, got {values.dtype}."
        if isinstance(gradient, IndexedSlices):
            if values.shape[1:] != self.value.shape[1:]:
                return (
                    f"Gradient of {name!r}: expected rows of {self.value.shape[1:]}, "
                    f"got {values.shape[1:]}."
                )
            if refused := self.refuse_rows(gradient.indices):
                return refused
        elif values.shape != self.value.shape:
            return f"Gradient of {name!r}: expected {self.value.shape}, got {values.shape}."
        try:
            self.optimizer.rate(global_step)
        except Exception as error:
            # A schedule of the user's may raise anything, and here nothing is changed yet.
            return f"No learning rate for {name!r}: {describe(error)}"
        return ""

    def not_finite(self, gradient: Gradient) -> str:
        """Return the variable of which the first row is that is not finite."""
        values = values_of(gradient)
        row = int(np.argmin(np.isfinite(values).reshape(len(values), -1).all(axis=1)))
        if isinstance(gradient, IndexedSlices):
            row = int(gradient.indices[row])
        return next(one.spec.name for one in reversed(self.parts) if one.at <= row)

    def refuse_rows(self, rows: Array) -> str:
        """Return why these local rows cannot be read or changed, '' if they can."""
        if not rows.size:
            return ""
        low, high = int(rows.min()), int(rows.max())
        if low >= 0 and high < len(self.value):
            return ""
        return (
            f"Rows of {self.spec.name!r}: expected 0 ≤ row < {len(self.value)} within the "
            f"slice, got {low} to {high}."
        )

    def apply(self, gradient: Gradient, global_step: int) -> None:
        """Let the optimizer change value and slots in place.

        Args:
            gradient: of the slice.
            global_step: the step it was computed at, for schedules.
        """
        assert self.optimizer is not None  # refusal() said so before
        if self._lent is not None:
            if self._lent() is not None:
                self.value = self.value.copy()
            self._lent = None
        if isinstance(gradient, IndexedSlices):
            summed = gradient.summed()
            if self._cuts:
                self._keep(None if self.optimizer.moves_all_rows else summed.indices)
            self.optimizer.apply_sparse(
                self.value,
                self.slots,
                self.scalars,
                summed.indices,
                summed.values,
                global_step=global_step,
            )
        else:
            if self._cuts:
                self._keep(None)
            self.optimizer.apply_dense(
                self.value, self.slots, self.scalars, gradient, global_step=global_step
            )

    def _keep(self, rows: Array | None) -> None:
        """Let cuts copy what is about to be changed: these rows, or all."""
        held = [cut for one in self._cuts if (cut := one()) is not None]
        for cut in held:
            cut.keep(rows)
        self._cuts = [ref(cut) for cut in held]


def refusal(slices: Mapping[str, SliceState], request: ExchangeRequest) -> str:
    """Return why a request as a whole does not fit the slices of a shard, '' if it does."""
    push: Mapping[str, Gradient] = request.push or {}
    unknown = sorted({*push, *request.pull_rows} - slices.keys())
    if unknown:
        return f"This ps holds no slice of {', '.join(unknown)}."
    for name, gradient in push.items():
        if refused := slices[name].refusal(gradient, request.global_step):
            return refused
    if not all_finite(*map(values_of, push.values())):
        name, gradient = next(
            (name, one) for name, one in push.items() if not all_finite(values_of(one))
        )
        return f"Gradient of {slices[name].not_finite(gradient)!r} is not finite."
    for name, rows in request.pull_rows.items():
        if refused := slices[name].refuse_rows(rows):
            return refused
        # With repeats a small request would have a reply of any size.
        if len(rows) > len(slices[name].value):
            return f"{len(rows):,} rows of {name!r} are wanted; it has {len(slices[name].value):,}."
    return ""


def dense_values(slices: Mapping[str, SliceState], known: int | None) -> dict[str, Array]:
    """Return the dense slices that changed since version ``known``, None for all; see ``lend``."""
    since = -1 if known is None else known
    return {
        name: state.lend()
        for name, state in slices.items()
        if state.changed > since and not state.spec.sparse
    }


def apply_all(
    slices: Mapping[str, SliceState],
    push: Mapping[str, Gradient],
    global_step: int,
    version: int,
    what: str,
) -> str:
    """Apply gradients to their slices; return how that failed in the middle, '' if it did not.

    Args:
        slices: of the shard.
        push: gradients that were not refused, by variable or stack.
        global_step: the step they were computed at.
        version: of the shard, that this makes.
        what: whose they are, for the message.
    """
    try:
        for name, gradient in push.items():
            slices[name].changed = version
            slices[name].apply(gradient, global_step)
    except Exception as error:
        return (
            f"{what} was applied in part and failed: {describe(error)} The values are no model "
            "any more; correct the optimizer and go on from the last checkpoint."
        )
    return ""


def describe(error: Exception) -> str:
    """Return what an exception of the user's own code says, and where it was raised."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({where.filename}, line {where.lineno})."


def prepare(slices: Sequence[LoadedSlice]) -> None:
    """Let the optimizers of slices that are about to be loaded get ready; may take seconds."""
    wanted = {
        (repr(sorted(one.spec.optimizer.items())), one.spec.dtype): one.spec
        for one in slices
        if one.spec.optimizer is not None
    }
    for dtype in {one.spec.dtype for one in slices if one.spec.sparse}:
        kernels.prepare_rows(dtype)  # whatever applies it, a numpy update of the user's too
    for spec in wanted.values():
        optimizers.from_config(spec.optimizer or {}).prepare(spec.dtype)


def prepare_without_script(slices: Sequence[LoadedSlice]) -> None:
    """Prepare as ``prepare`` does, on a ps that runs no program: refuse what one would define.

    Raises:
        ModelError: if an optimizer or a schedule is not psys's own.
    """
    for one in slices:
        if one.spec.optimizer is None:
            continue
        if unknown := optimizers.unknown_in(one.spec.optimizer):
            raise ModelError(
                f"The {unknown} of variable {one.spec.name!r} is not one of psys's own, and this "
                "ps was started by `psys ps`, without the program that defines it. Start every ps "
                "with the program itself, under the same TF_CONFIG, or use one of psys's own."
            )
    prepare(slices)
