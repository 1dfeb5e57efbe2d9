"""MemoryShard: the slices on one ps, with their slots, version and fences.

A state machine: requests and orders go in, replies come out, a wait is a reply not yet
given. It opens no file or socket, starts no thread and reads no clock. One caller at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from psys import kernels
from psys.arrays import Array, Gradient
from psys.errors import GenerationChanged
from psys.ps.fence import NO_FENCE, Fence
from psys.ps.loading import put_in_place
from psys.ps.messages import (
    ASYNC,
    Consistency,
    ExchangeReply,
    ExchangeRequest,
    Fences,
    Outcome,
    Policy,
    ShardFacts,
    ShardFile,
    ShardOrders,
    ShardPhase,
    TaskName,
    UpdateOrder,
)
from psys.ps.shard import LoadedSlice
from psys.ps.shard_save import ShardSave
from psys.ps.slice_state import SliceState, apply_all, dense_values, refusal
from psys.ps.snapshot import Snapshot
from psys.ps.tally import PushTally
from psys.ps.updates import Accumulator, ahead_of, combine, gradients_of

Caller = Any
"""Whatever the host uses to find who waits for a reply."""


class Served(NamedTuple):
    """A request that was answered, maybe in a later call than it came by."""

    caller: Caller
    request: ExchangeRequest
    reply: ExchangeReply


class _Parked(NamedTuple):
    """A request that is not answered yet.

    ``outcome`` is what became of its push; None while a hold keeps it from being taken in.
    """

    caller: Caller
    request: ExchangeRequest
    outcome: Outcome | None
    staleness: int = 0


class MemoryShard:
    """One shard's state machine: EMPTY → LOADING → LOADED → LIVE, of one generation.

    Invariants: a push is applied at most once (fences), and if an update raises in the middle of
    one, nothing of that model is served or saved any more; while held, nothing beyond the cut is
    applied before the cut is taken; nothing of another generation is applied or served. Under
    sync, nothing is applied but by the lead's order, so that a cut lies between two updates.
    """

    def __init__(self, index: int) -> None:
        self.index = index
        self.phase = ShardPhase.EMPTY
        self.generation = ""
        self.version = 0
        self.slices: dict[str, SliceState] = {}
        """By the name under which they are exchanged: the variable's or the stack's."""
        self.fences: dict[TaskName, Fence] = {}
        self.dropped: dict[TaskName, Fence] = {}
        """The last push of each task that came too late for its update (sync)."""
        self.past_fences: dict[tuple[TaskName, int], int] = {}
        """The last sequence applied of each member that another process has replaced."""
        self.refused: dict[TaskName, int] = {}
        self.inputs: dict[TaskName, int] = {}
        """Batches each trainer's process has trained on: where its input stands."""
        self.examples = 0
        """Examples trained on in this generation."""
        self.policy: Policy = ASYNC
        self._sync = False
        self.applied: list[tuple[TaskName, int]] = []
        """Task and member number of each push applied; whoever counts them empties it."""
        self.tally = PushTally()
        self._kept = Accumulator()
        self.clocks: Fences | None = None
        """Where live trainers' steps are counted from, while some may have to wait (bounded)."""
        self._saving = ShardSave()
        self._damage = ""
        """How a push came to be applied in part: such a model is not served any more."""
        self._parked: list[_Parked] = []
        self._request_limit_bytes = 0
        self.chief = 0
        """The chief's member number, from the lead; 0 for no chief."""
        self.newest: tuple[int, str] = (0, "")
        """Step and id of the newest checkpoint whose manifest lies beside this shard's files."""

    # ------------------------------------------------------------ loading

    def load(self, generation: str, slices: list[LoadedSlice]) -> None:
        """Put all slices in place, emptying the list; LIVE only once the lead seals it.

        Raises:
            GenerationChanged: if the lead has not ordered this generation to be loaded.
            ModelError: see ``loading.put_in_place``.
        """
        if self.generation != generation or self.phase not in (
            ShardPhase.LOADING,
            ShardPhase.LOADED,
        ):
            raise GenerationChanged(
                f"ps:{self.index} is {self.phase.name} in generation {self.generation or 'none'}; "
                f"it was asked to load {generation}."
            )
        self.slices = put_in_place(slices)
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
            self.phase, self.policy = ShardPhase.LIVE, orders.policy
            self._sync = orders.policy.consistency is Consistency.SYNC
        for task, member in orders.refused.items():
            self.refused[task] = max(member, self.refused.get(task, 0))
        self.clocks = orders.clocks
        # Before the hold: all shards that are held have made the same updates.
        update = orders.update
        if update is not None and self.phase is ShardPhase.LIVE and update.number > self.version:
            self._make_update(update)
        if orders.save != self._saving.save:
            self._saving = ShardSave.begin(orders.save, self.fences, self.past_fences)
        if orders.cut is not None and self.phase is ShardPhase.LIVE:
            self._saving.cut, self._saving.cut_step = orders.cut, orders.cut_step
        return served + self._settle()

    def _begin_generation(self, generation: str) -> list[Served]:
        """Forget the model; whoever waits is told."""
        parked, self._parked = self._parked, []
        self.generation = generation
        self.phase = ShardPhase.LOADING if generation else ShardPhase.EMPTY
        self.slices, self.version, self._damage = {}, 0, ""
        self._request_limit_bytes = 0
        self.fences.clear()
        self.dropped.clear()
        self.policy, self._sync = ASYNC, False
        self._kept, self.clocks = Accumulator(), None
        self.applied.clear()
        self.tally = PushTally(generation)
        self.past_fences.clear()
        self.refused.clear()
        self.inputs.clear()
        self.examples = 0
        self._saving = ShardSave()
        return [
            Served(one.caller, one.request, self._reply(one.request, Outcome.GENERATION_CHANGED))
            for one in parked
        ]

    def _settle(self) -> list[Served]:
        """Answer whom nothing keeps waiting any more; take the cut once all it includes is in."""
        served: list[Served] = []
        progress = True
        while progress:
            before = (len(served), self.version)
            waiting, self._parked = self._parked, []
            for one in waiting:
                reply = self._look_again(one)
                if reply is not None:
                    served.append(Served(one.caller, one.request, reply))
            progress = (len(served), self.version) != before
            saving = self._saving
            if saving.holding and self._damage:
                saving.note_written(saving.save, None, self._damage)
            elif saving.holding and saving.cut is not None and self._cut_complete(saving.cut):
                saving.take_cut(
                    self.index, self.generation, self.slices.values(), self.inputs, self.examples
                )
                progress = True
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
        snapshot, self._saving.snapshot = self._saving.snapshot, None
        return snapshot

    def written(self, save: str, file: ShardFile | None, error: str) -> None:
        """Note that the shard file of ``save`` is on disk, or why not."""
        self._saving.note_written(save, file, error)

    def facts(self) -> ShardFacts:
        """Return what this shard tells the lead.

        Its fences as they were when it was held, and none otherwise: a ps reports whatever
        changes here, and that must not be every push.
        """
        saving = self._saving
        return ShardFacts(
            index=self.index,
            phase=self.phase,
            generation=self.generation,
            refused=dict(self.refused),
            held=saving.save,
            fences=saving.fences,
            past_fences=saving.past_fences,
            cut=saving.cut_taken,
            cut_inputs=saving.cut_inputs,
            cut_examples=saving.cut_examples,
            written=saving.written,
            file=saving.file,
            write_error=saving.write_error,
            newest_checkpoint=self.newest[1],
            newest_step=self.newest[0],
            updates=self.version if self._sync else 0,
            arrived=self._kept.arrived(),
        )

    # ------------------------------------------------------------ exchange

    def exchange(self, caller: Caller, request: ExchangeRequest) -> list[Served]:
        """Serve one request; an empty list means the reply comes later."""
        self.forget(caller)  # it has one request under way: an older one was given up
        reply = self._serve(caller, request)
        served = [] if reply is None else [Served(caller, request, reply)]
        # A step that was applied may be what others wait for.
        return served + self._settle() if self._saving.save or self.clocks is not None else served

    def waiting(self) -> list[tuple[Caller, ExchangeRequest]]:
        """Return who could be told to ask again: all who wait and whose push was taken in."""
        return [(one.caller, one.request) for one in self._parked if one.outcome is not None]

    def put_off(self, caller: Caller) -> Served:
        """Tell one of ``waiting`` to ask again."""
        (one,) = (one for one in self._parked if one.caller == caller)
        self._parked.remove(one)
        kept = one.outcome is Outcome.ACCUMULATED
        outcome = Outcome.ACCUMULATED if kept else Outcome.WAITING
        return Served(caller, one.request, self._reply(one.request, outcome))

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
            self._parked = [one for one in self._parked if one.caller != caller]

    def _must_wait(self, request: ExchangeRequest) -> bool:
        """Return whether a new push has to wait for the cut under way."""
        if (
            not self._saving.holding
            or request.push is None
            or request.generation != self.generation
        ):
            return False
        if self._sync or self._damage:
            return False  # what is kept is not in the cut, and updates are the lead's to order
        key = (request.member, request.sequence)
        if key <= self.fences.get(request.task, NO_FENCE):
            return False
        cut = self._saving.cut
        return cut is None or key > cut.get(request.task, (0, 0))

    def _serve(self, caller: Caller, request: ExchangeRequest) -> ExchangeReply | None:
        """Take in a push and answer; None if that has to wait."""
        if self._must_wait(request):
            self._parked.append(_Parked(caller, request, None))
            return None
        last = self._last(request.task)
        # Its last push that was applied or dropped; 0 before the first under this number.
        before = last.sequence if last.member == request.member else 0
        refused = self._objection(request, last.member, before)
        if refused is not None:
            return refused
        outcome, staleness = self._take_in(request, before)
        if self._damage:
            return self._reply(request, Outcome.REFUSED, self._damage)
        if self._withholds(request, outcome):
            self._parked.append(_Parked(caller, request, outcome, staleness))
            return None
        return self._answer(request, outcome, staleness)

    def _look_again(self, one: _Parked) -> ExchangeReply | None:
        """Answer a parked request if nothing keeps it any more; else park it again."""
        request, outcome = one.request, one.outcome
        if self._damage:
            return self._reply(request, Outcome.REFUSED, self._damage)
        if outcome is None:
            return self._serve(one.caller, request)
        if outcome is Outcome.ACCUMULATED:
            push = (request.member, request.sequence)
            if self.fences.get(request.task) == push:
                outcome = Outcome.APPLIED
            elif self.dropped.get(request.task) == push:
                outcome = Outcome.DROPPED
        if self._is_fenced(request, self._last(request.task).member):
            if outcome in (Outcome.NONE, Outcome.ACCUMULATED):
                return self._fenced(request)
            # Its step counts; that it was given up it hears when it asks again.
            return self._answer(request, outcome, one.staleness)
        if self._withholds(request, outcome):
            self._parked.append(one)
            return None
        return self._answer(request, outcome, one.staleness)

    def _withholds(self, request: ExchangeRequest, outcome: Outcome) -> bool:
        """Return whether the values a request asks for are not to be given yet."""
        if outcome is Outcome.ACCUMULATED or request.least_version > self.version:
            return True
        if self.clocks is None:
            return False
        wants = request.pull_dense or bool(request.pull_rows)
        return wants and bool(self.waits_for(request))

    def waits_for(self, request: ExchangeRequest) -> list[TaskName]:
        """Return whom the sender of a request is too far ahead of (bounded)."""
        if self.clocks is None:
            return []
        bound = self.policy.staleness
        return ahead_of(request.task, request.member, self.fences, self.clocks, bound)

    def _last(self, task: TaskName) -> Fence:
        """Return the last push of a task that was applied or dropped."""
        fence = self.fences.get(task, NO_FENCE)
        return max(fence, self.dropped[task]) if task in self.dropped else fence

    def _is_fenced(self, request: ExchangeRequest, latest: int) -> bool:
        """Return whether a member after the sender has pushed, or the sender was given up."""
        return request.member < latest or request.member <= self.refused.get(request.task, 0)

    def _fenced(self, request: ExchangeRequest) -> ExchangeReply:
        return self._reply(
            request,
            Outcome.FENCED,
            f"{request.task} number {request.member} was replaced or given up for lost.",
        )

    def _objection(
        self, request: ExchangeRequest, latest: int, before: int
    ) -> ExchangeReply | None:
        """Return the reply to a request that cannot be served, None if it can."""
        if self.phase is not ShardPhase.LIVE or request.generation != self.generation:
            return self._reply(request, Outcome.GENERATION_CHANGED)
        if self._is_fenced(request, latest):
            return self._fenced(request)
        if reason := self._damage or refusal(self.slices, request):
            return self._reply(request, Outcome.REFUSED, reason)
        if request.push is not None and request.sequence not in (before, before + 1):
            return self._reply(
                request, Outcome.GAP, f"{request.task} pushed {request.sequence} after {before}."
            )
        return None

    def _take_in(self, request: ExchangeRequest, before: int) -> tuple[Outcome, int]:
        """Apply a push, or keep it, or neither; return what became of it and its staleness."""
        if request.push is None:
            return Outcome.NONE, 0
        if request.sequence == before:
            known = self.dropped.get(request.task) == (request.member, request.sequence)
            return Outcome.DROPPED if known else Outcome.DUPLICATE, 0
        staleness = self.version - request.base_version
        if not self._sync:
            self._apply(request, request.push)
            return Outcome.APPLIED, staleness
        if staleness > 0:
            self._drop(request)
            return Outcome.DROPPED, staleness
        self._kept.keep(request)
        return Outcome.ACCUMULATED, 0

    def _answer(self, request: ExchangeRequest, outcome: Outcome, staleness: int) -> ExchangeReply:
        return ExchangeReply(
            generation=self.generation,
            sequence=request.sequence,
            outcome=outcome,
            version=self.version,
            staleness=staleness,
            dense=self._dense(request.known_version) if request.pull_dense else {},
            rows={
                name: kernels.take_rows(self.slices[name].value, rows)
                for name, rows in request.pull_rows.items()
            },
        )

    def _apply(self, request: ExchangeRequest, push: Mapping[str, Gradient]) -> None:
        """Apply a push as an update of its own."""
        what = f"ps:{self.index}: push {request.sequence} of {request.task}"
        step, version = request.global_step, self.version + 1
        self._damage = apply_all(self.slices, push, step, version, what)
        if not self._damage:
            self.tally.note_applied(self.version - request.base_version)
            self.version += 1
            self._note_applied(request)

    def _make_update(self, order: UpdateOrder) -> None:
        """Apply the average of the pushes that the lead chose; drop all others kept.

        Raises:
            ClusterError: if a push is not here that the lead chose.
        """
        chosen, late = self._kept.take(order.pushes)
        update: dict[str, Gradient] = {}
        for name, gradients in gradients_of(chosen).items():
            optimizer = self.slices[name].optimizer
            averaged = optimizer is not None and optimizer.averaged
            update[name] = combine(gradients, len(chosen), averaged)
        what = f"ps:{self.index}: update {order.number}"
        self.version += 1
        self._damage = apply_all(self.slices, update, order.global_step, self.version, what)
        for request in chosen:
            self.tally.note_applied(0)
            self._note_applied(request)
        for request in late:
            self._drop(request)

    def _drop(self, request: ExchangeRequest) -> None:
        """Note that a push came too late for its update."""
        fence = Fence(request.member, request.sequence)
        self.dropped[request.task] = max(fence, self.dropped.get(request.task, NO_FENCE))
        self.tally.note_dropped()

    def _note_applied(self, request: ExchangeRequest) -> None:
        """Note with a push whose it was and where its input stands."""
        before = self.fences.get(request.task, NO_FENCE)
        if before.member not in (0, request.member):
            self.past_fences[request.task, before.member] = before.sequence
        self.fences[request.task] = Fence(request.member, request.sequence)
        self.inputs[request.task] = request.input_batches
        self.examples += request.examples
        self.applied.append((request.task, request.member))

    def _dense(self, known: int | None) -> dict[str, Array]:
        # What is known of a version that is yet to come is of another shard's history.
        return dense_values(self.slices, known if (known or 0) <= self.version else None)

    def _reply(self, request: ExchangeRequest, outcome: Outcome, reason: str = "") -> ExchangeReply:
        return ExchangeReply(
            generation=self.generation if self.phase is ShardPhase.LIVE else "",
            sequence=request.sequence,
            outcome=outcome,
            reason=reason,
            version=self.version,
        )
