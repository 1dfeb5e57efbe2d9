"""MemoryShard: the slices on one ps, with their slots, version and fences.

A state machine: requests and orders go in, replies come out, a wait is a reply not yet
given. It opens no file or socket, starts no thread and reads no clock. One caller at a time.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from psys import kernels
from psys.arrays import DTYPES, Array, Gradient, IndexedSlices, VariableSpec, all_finite
from psys.errors import GenerationChanged, ModelError
from psys.optimizers import optimizer as optimizers
from psys.ps.messages import (
    ExchangeReply,
    ExchangeRequest,
    Fences,
    Outcome,
    PastFence,
    ShardFacts,
    ShardFile,
    ShardOrders,
    ShardPhase,
    TaskName,
)
from psys.ps.shard import LoadedSlice

Caller = Any
"""Whatever the host uses to find who waits for a reply."""


@dataclass
class SliceState:
    """One slice and what its optimizer keeps about it. Arrays are ``[stop - start, ...]``."""

    spec: VariableSpec
    start: int
    stop: int
    value: Array
    optimizer: optimizers.Optimizer | None
    slots: dict[str, Array]
    scalars: dict[str, float]

    @classmethod
    def from_loaded(cls, loaded: LoadedSlice) -> SliceState:
        """Build the state, running the initializer for what was not given."""
        spec, rows = loaded.spec, loaded.stop - loaded.start
        shape = (rows, *spec.row_shape)
        if not 0 <= loaded.start <= loaded.stop <= spec.rows:
            raise ModelError(
                f"Slice [{loaded.start}, {loaded.stop}) of {spec.name!r} lies outside its "
                f"{spec.rows} rows."
            )
        value = loaded.value
        if value is None:
            value = spec.initializer.rows(
                spec.name, spec.shape, spec.dtype, loaded.start, loaded.stop, loaded.seed
            )
        optimizer = None if spec.optimizer is None else optimizers.from_config(spec.optimizer)
        slots: dict[str, Array] = {}
        scalars: dict[str, float] = {}
        if optimizer is not None:
            scalars = {k: loaded.scalars.get(k, v) for k, v in optimizer.scalars.items()}
            for name, initial in optimizer.slots.items():
                given = loaded.slots.get(name)
                slots[name] = np.full(shape, initial, spec.dtype) if given is None else given
        state = cls(spec, loaded.start, loaded.stop, value, optimizer, slots, scalars)
        for what, array in (("value", value), *slots.items()):
            if array.shape != shape or array.dtype != DTYPES[spec.dtype]:
                raise ModelError(
                    f"{what} of {spec.name!r}[{loaded.start}:{loaded.stop}]: expected {shape} "
                    f"{spec.dtype}, got {array.shape} {array.dtype}."
                )
        return state

    def copy(self) -> SliceState:
        """Return a copy that later pushes do not change."""
        return SliceState(
            self.spec,
            self.start,
            self.stop,
            self.value.copy(),
            self.optimizer,
            {name: slot.copy() for name, slot in self.slots.items()},
            dict(self.scalars),
        )

    def refusal(self, gradient: Gradient, global_step: int) -> str:
        """Return why the gradient of ``global_step`` cannot be applied here, '' if it can."""
        name = self.spec.name
        if self.optimizer is None:
            return f"Variable {name!r} is not trained by gradients."
        values = gradient.values if isinstance(gradient, IndexedSlices) else gradient
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
        if not all_finite(values):
            return f"Gradient of {name!r} is not finite."
        try:
            self.optimizer.rate(global_step)
        except Exception as error:
            # A schedule of the user's may raise anything, and here nothing is changed yet.
            return f"No learning rate for {name!r}: {_describe(error)}"
        return ""

    def refuse_rows(self, rows: Array) -> str:
        """Return why these local rows cannot be read or changed, '' if they can."""
        if rows.size and (int(rows.min()) < 0 or int(rows.max()) >= len(self.value)):
            return (
                f"Rows of {self.spec.name!r}: expected 0 ≤ row < {len(self.value)} within the "
                f"slice, got {int(rows.min())} to {int(rows.max())}."
            )
        return ""

    def apply(self, gradient: Gradient, global_step: int) -> None:
        """Let the optimizer change value and slots in place.

        Args:
            gradient: of the slice.
            global_step: the step it was computed at, for schedules.
        """
        assert self.optimizer is not None  # refusal() said so before
        if isinstance(gradient, IndexedSlices):
            summed = gradient.summed()
            self.optimizer.apply_sparse(
                self.value,
                self.slots,
                self.scalars,
                summed.indices,
                summed.values,
                global_step=global_step,
            )
        else:
            self.optimizer.apply_dense(
                self.value, self.slots, self.scalars, gradient, global_step=global_step
            )


def _describe(error: Exception) -> str:
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
    for spec in wanted.values():
        kernels.prepare_push(spec.dtype)  # whatever applies it, a numpy update of the user's too
        optimizers.from_config(spec.optimizer or {}).prepare(spec.dtype)


class Fence(NamedTuple):
    """The last push of a task that was applied here; later ones compare as greater."""

    member: int
    sequence: int


NO_FENCE = Fence(0, 0)


class Served(NamedTuple):
    """A request that was answered, maybe in a later call than it came by."""

    caller: Caller
    request: ExchangeRequest
    reply: ExchangeReply


@dataclass(frozen=True)
class Snapshot:
    """A cut of one shard, ready to be written."""

    save: str
    generation: str
    index: int
    global_step: int
    cut: Fences
    slices: tuple[SliceState, ...]


class MemoryShard:
    """One shard's state machine: EMPTY → LOADING → LOADED → LIVE, of one generation.

    Invariants: a push is applied at most once (fences), and if an update raises in the middle of
    one, nothing of that model is served or saved any more; while held, nothing beyond the cut is
    applied before the cut is taken; nothing of another generation is applied or served.
    """

    def __init__(self, index: int) -> None:
        self.index = index
        self.phase = ShardPhase.EMPTY
        self.generation = ""
        self.version = 0
        self.slices: dict[str, SliceState] = {}
        self.fences: dict[TaskName, Fence] = {}
        self.past_fences: dict[tuple[TaskName, int], int] = {}
        """The last sequence applied of each member that another process has replaced."""
        self.refused: dict[TaskName, int] = {}
        self.inputs: dict[TaskName, int] = {}
        """Batches each trainer's process has trained on: where its input stands."""
        self.examples = 0
        """Examples trained on in this generation."""
        self._save = ""
        self._held_fences: Fences = {}
        self._held_past: tuple[PastFence, ...] = ()
        self._cut: Fences | None = None
        self._cut_step = 0
        self._cut_taken = ""
        self._cut_inputs: dict[TaskName, int] = {}
        self._cut_examples = 0
        self._written = ""
        self._file: ShardFile | None = None
        self._write_error = ""
        self._damage = ""
        """How a push came to be applied in part; such a model is not served any more."""
        self._parked: list[tuple[Caller, ExchangeRequest]] = []
        self._request_limit_bytes = 0
        self.chief = 0
        """The chief's member number, from the lead; 0 for no chief."""
        self.newest: tuple[int, str] = (0, "")
        """Step and id of the newest checkpoint whose manifest lies beside this shard's files."""
        self.snapshot: Snapshot | None = None
        """A cut that was taken and not yet fetched by ``take_snapshot``."""

    # ------------------------------------------------------------ loading

    def load(self, generation: str, slices: Sequence[LoadedSlice]) -> None:
        """Put all slices in place; LIVE only once the lead seals it.

        Raises:
            GenerationChanged: if the lead has not ordered this generation to be loaded.
            ModelError: if a slice does not fit its spec.
        """
        if self.generation != generation or self.phase not in (
            ShardPhase.LOADING,
            ShardPhase.LOADED,
        ):
            raise GenerationChanged(
                f"ps:{self.index} is {self.phase.name} in generation {self.generation or 'none'}; "
                f"it was asked to load {generation}."
            )
        self.slices = {item.spec.name: SliceState.from_loaded(item) for item in slices}
        self._request_limit_bytes = 0
        self.phase = ShardPhase.LOADED

    # ------------------------------------------------------------ orders of the lead

    def obey(self, orders: ShardOrders) -> list[Served]:
        """Become what the lead says; return replies that were waiting for it."""
        served: list[Served] = []
        self.chief = orders.chief
        if orders.generation != self.generation:
            served += self._begin_generation(orders.generation)
        if orders.phase is ShardPhase.LIVE and self.phase is ShardPhase.LOADED:
            self.phase = ShardPhase.LIVE
        for task, member in orders.refused.items():
            self.refused[task] = max(member, self.refused.get(task, 0))
        if orders.save != self._save:
            self._save, self._cut = orders.save, None
            self._note_held()
            self._cut_taken = self._written = self._write_error = ""
            self._file, self.snapshot = None, None
        if orders.cut is not None and self.phase is ShardPhase.LIVE:
            self._cut, self._cut_step = orders.cut, orders.cut_step
        return served + self._settle()

    def _note_held(self) -> None:
        """Note the fences as they are when a hold begins; none where there is no save."""
        held = bool(self._save)
        self._held_fences = dict(self.fences) if held else {}
        past = self.past_fences if held else {}
        self._held_past = tuple(PastFence(*key, sequence) for key, sequence in past.items())

    def _begin_generation(self, generation: str) -> list[Served]:
        """Forget the model; whoever waits is told."""
        parked, self._parked = self._parked, []
        self.generation = generation
        self.phase = ShardPhase.LOADING if generation else ShardPhase.EMPTY
        self.slices, self.version, self._damage = {}, 0, ""
        self._request_limit_bytes = 0
        self.fences.clear()
        self.past_fences.clear()
        self.refused.clear()
        self.inputs.clear()
        self.examples = 0
        self._save = self._cut_taken = self._written = self._write_error = ""
        self._cut, self._file, self.snapshot = None, None, None
        self._note_held()
        return [
            Served(caller, request, self._reply(request, Outcome.GENERATION_CHANGED))
            for caller, request in parked
        ]

    @property
    def _holding(self) -> bool:
        return bool(self._save) and self._cut_taken != self._save

    def _settle(self) -> list[Served]:
        """Let in what may go on: the pushes the cut includes, then, after it, all others."""
        served: list[Served] = []
        waiting, self._parked = self._parked, []
        for caller, request in waiting:
            if self._must_wait(request):
                self._parked.append((caller, request))
            else:
                served.append(Served(caller, request, self._serve(request)))
        if self._damage and self._holding:
            self._written, self._write_error = self._save, self._damage
        elif self._holding and self._cut is not None and self._cut_complete(self._cut):
            self._cut_taken = self._save
            self._cut_inputs, self._cut_examples = dict(self.inputs), self.examples
            self.snapshot = Snapshot(
                self._save,
                self.generation,
                self.index,
                self._cut_step,
                dict(self._cut),
                tuple(state.copy() for state in self.slices.values()),
            )
            served += self._settle()
        return served

    def _cut_complete(self, cut: Fences) -> bool:
        """Return whether everything the cut includes has been applied here.

        A lost trainer's last step may never come: the lead had this shard refuse its number.
        """
        for task, (member, sequence) in cut.items():
            arrived = self.fences.get(task, NO_FENCE) >= (member, sequence)
            if not arrived and member > self.refused.get(task, 0):
                return False
        return True

    # ------------------------------------------------------------ writing the cut

    def take_snapshot(self) -> Snapshot | None:
        """Return the cut to be written, once."""
        snapshot, self.snapshot = self.snapshot, None
        return snapshot

    def written(self, save: str, file: ShardFile | None, error: str) -> None:
        """Note that the shard file of ``save`` is on disk, or why not."""
        if save == self._save:
            self._written = save
            self._file, self._write_error = file, error

    def facts(self) -> ShardFacts:
        """Return what this shard tells the lead.

        Its fences as they were when it was held, and none otherwise: a ps reports whatever
        changes here, and that must not be every push.
        """
        return ShardFacts(
            index=self.index,
            phase=self.phase,
            generation=self.generation,
            refused=dict(self.refused),
            held=self._save,
            fences=self._held_fences,
            past_fences=self._held_past,
            cut=self._cut_taken,
            cut_inputs=self._cut_inputs if self._cut_taken else {},
            cut_examples=self._cut_examples if self._cut_taken else 0,
            written=self._written,
            file=self._file,
            write_error=self._write_error,
            newest_checkpoint=self.newest[1],
            newest_step=self.newest[0],
        )

    # ------------------------------------------------------------ exchange

    def exchange(self, caller: Caller, request: ExchangeRequest) -> list[Served]:
        """Serve one request; an empty list means the reply comes later."""
        self.forget(caller)  # it has one request under way: an older one was given up
        if self._must_wait(request):
            self._parked.append((caller, request))
            return []
        served = [Served(caller, request, self._serve(request))]
        return served + self._settle() if self._save else served

    def request_limit_bytes(self) -> int:
        """Return the most bytes a well-formed request can have.

        A push holds each row once, with its number, and a pull names each row once; padding
        and an empty shard are covered by the constant.
        """
        if not self._request_limit_bytes:
            rows = sum(len(state.value) for state in self.slices.values())
            values = sum(state.value.nbytes for state in self.slices.values())
            self._request_limit_bytes = values + 16 * rows + 64 * len(self.slices) + 4096
        return self._request_limit_bytes

    def forget(self, caller: Caller) -> None:
        """Drop what a caller that is gone was waiting for."""
        if self._parked:
            self._parked = [item for item in self._parked if item[0] != caller]

    def _must_wait(self, request: ExchangeRequest) -> bool:
        """Return whether a new push has to wait for the cut under way."""
        if not self._holding or request.push is None or request.generation != self.generation:
            return False
        if self._damage:
            return False
        key = (request.member, request.sequence)
        if key <= self.fences.get(request.task, NO_FENCE):
            return False
        return self._cut is None or key > self._cut.get(request.task, (0, 0))

    def _serve(self, request: ExchangeRequest) -> ExchangeReply:
        if self.phase is not ShardPhase.LIVE or request.generation != self.generation:
            return self._reply(request, Outcome.GENERATION_CHANGED)
        fence = self.fences.get(request.task, NO_FENCE)
        if request.member < fence.member or request.member <= self.refused.get(request.task, 0):
            return self._reply(
                request,
                Outcome.FENCED,
                f"{request.task} number {request.member} was replaced or given up for lost.",
            )
        if reason := self._damage or self._refusal(request):
            return self._reply(request, Outcome.REFUSED, reason)
        outcome, staleness = Outcome.NONE, 0
        if request.push is not None:
            last = fence.sequence if fence.member == request.member else 0
            if request.sequence == last:
                outcome = Outcome.DUPLICATE
            elif request.sequence != last + 1:
                return self._reply(
                    request,
                    Outcome.GAP,
                    f"{request.task} pushed {request.sequence} after {last}.",
                )
            else:
                outcome, staleness = Outcome.APPLIED, self.version - request.base_version
                try:
                    self._apply(request, request.push)
                except Exception as error:
                    self._damage = (
                        f"ps:{self.index} applied push {request.sequence} of {request.task} in "
                        f"part and failed: {_describe(error)} Its values are no model any more; "
                        "correct the optimizer and go on from the last checkpoint."
                    )
                    return self._reply(request, Outcome.REFUSED, self._damage)
        return ExchangeReply(
            generation=self.generation,
            sequence=request.sequence,
            outcome=outcome,
            version=self.version,
            staleness=staleness,
            dense=self._dense() if request.pull_dense else {},
            rows={
                name: self.slices[name].value.take(rows, axis=0)
                for name, rows in request.pull_rows.items()
            },
        )

    def _apply(self, request: ExchangeRequest, push: Mapping[str, Gradient]) -> None:
        """Apply a push, and note with it whose it was and where its input stands."""
        for name, gradient in push.items():
            self.slices[name].apply(gradient, request.global_step)
        self.version += 1
        before = self.fences.get(request.task, NO_FENCE)
        if before.member not in (0, request.member):
            self.past_fences[request.task, before.member] = before.sequence
        self.fences[request.task] = Fence(request.member, request.sequence)
        self.inputs[request.task] = request.input_batches
        self.examples += request.examples

    def _dense(self) -> dict[str, Array]:
        return {
            name: state.value.copy() for name, state in self.slices.items() if not state.spec.sparse
        }

    def _refusal(self, request: ExchangeRequest) -> str:
        """Return why the request as a whole does not fit the model, '' if it does."""
        push: Mapping[str, Gradient] = request.push or {}
        unknown = sorted({*push, *request.pull_rows} - self.slices.keys())
        if unknown:
            return f"ps:{self.index} holds no slice of {', '.join(unknown)}."
        for name, gradient in push.items():
            if refused := self.slices[name].refusal(gradient, request.global_step):
                return refused
        for name, rows in request.pull_rows.items():
            if refused := self.slices[name].refuse_rows(rows):
                return refused
        return ""

    def _reply(self, request: ExchangeRequest, outcome: Outcome, reason: str = "") -> ExchangeReply:
        return ExchangeReply(
            generation=self.generation if self.phase is ShardPhase.LIVE else "",
            sequence=request.sequence,
            outcome=outcome,
            reason=reason,
            version=self.version,
        )
