"""Node: what one ps process holds, without the process: a shard, and on ps 0 the lead.

Messages and the time go in; replies, directives and cuts to be written come out. All waiting
is here, as replies not yet given, so every interleaving of the protocol can be played in a
unit test and a whole cluster simulated on a virtual clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from psys.arrays import Plan
from psys.errors import ModelError
from psys.ps.directives import directive_to
from psys.ps.job import Job
from psys.ps.lead import Lead
from psys.ps.memory_shard import Caller, MemoryShard, Served
from psys.ps.messages import (
    Directive,
    ExchangeReply,
    ExchangeRequest,
    Grant,
    JobPhase,
    Outcome,
    Report,
    ShardFile,
    ShardOrders,
    TaskName,
)
from psys.ps.roster import Instance
from psys.ps.shard import LoadedSlice
from psys.ps.snapshot import Snapshot

WAIT_ANSWER_SECS = 5.0
"""A caller that waits for a grant hears for whom after this long, and asks again."""

_Replies = list[tuple[Caller, ExchangeReply]]

_SERVED = (Outcome.NONE, Outcome.APPLIED, Outcome.DUPLICATE, Outcome.DROPPED)


class _Wanting(NamedTuple):
    """A reply that waits for the lead's permission. The push is not kept."""

    generation: str
    task: TaskName
    member: int
    reply: ExchangeReply
    since_secs: float


class Node:
    """A shard and, where ``job`` is given, the lead. One caller at a time."""

    def __init__(self, index: int, new_id: Callable[[], str], job: Job | None = None) -> None:
        self.shard = MemoryShard(index)
        self.lead = None if job is None else Lead(job, self.shard.facts, new_id)
        self._directives: dict[Instance, Directive] = {}
        self._changed: dict[Instance, Directive] = {}
        self._revision = 0
        self._told_phase: JobPhase | None = None
        self._wanting: dict[Caller, _Wanting] = {}
        self._replies: _Replies = []
        self._withheld: dict[Caller, tuple[ExchangeRequest, float]] = {}
        """Whose values are withheld, and since when, as far as ``tick`` has seen."""

    # ------------------------------------------------------------ trainers

    def exchange(self, caller: Caller, request: ExchangeRequest, now: float) -> _Replies:
        """Serve a trainer; its reply may come from a later call."""
        self._wanting.pop(caller, None)
        self._take(self.shard.exchange(caller, request), now)
        lead = self.lead
        if lead is None or not lead.quiet or (lead.pace.sync and lead.advance_updates()):
            return self._settle(now)
        # The hot path: nothing but counts has changed, unless they end the job.
        self._answer_wanting(now)
        if lead.phase is not self._told_phase:
            return self._settle(now)
        return self._take_replies()

    def forget(self, caller: Caller) -> None:
        """Drop what a caller that is gone was waiting for."""
        self.shard.forget(caller)
        self._wanting.pop(caller, None)

    def _take(self, served: list[Served], now: float) -> None:
        """Count applied steps; set aside the replies that wait for a grant."""
        lead = self.lead
        if lead is not None:
            for task, member in self.shard.applied:
                lead.applied(task, member, now)
        self.shard.applied.clear()
        for caller, request, reply in served:
            if lead is None:
                self._replies.append((caller, reply))
                continue
            if request.wants_grant and reply.outcome in _SERVED:
                self._wanting[caller] = _Wanting(
                    request.generation, request.task, request.member, reply, now
                )
            else:
                step = lead.grants.global_step
                self._replies.append((caller, replace(reply, global_step=step)))

    def _answer_wanting(self, now: float) -> None:
        """Answer those who want a grant, as far as the lead can."""
        lead, shard = self.lead, self.shard
        assert lead is not None
        for caller, (generation, task, member, reply, since) in list(self._wanting.items()):
            step = lead.grants.global_step
            if generation != shard.generation or not lead.live:
                reply = replace(reply, outcome=Outcome.GENERATION_CHANGED, dense={}, rows={})
            elif member <= shard.refused.get(task, 0):
                if reply.outcome is Outcome.NONE:
                    reply = replace(reply, outcome=Outcome.FENCED, reason="given up for lost")
                else:  # its step counts; that it was given up it hears when it asks again
                    reply = replace(reply, grant=Grant.WAIT, global_step=step)
            else:
                grant = lead.ask(task, member)
                waiting_for = ""
                if grant is Grant.WAIT:
                    if now - since < WAIT_ANSWER_SECS:
                        continue
                    waiting_for = ", ".join(sorted(lead.grants.out)) or "the lead"
                reply = replace(reply, grant=grant, waiting_for=waiting_for, global_step=step)
            del self._wanting[caller]
            self._replies.append((caller, reply))

    def _take_replies(self) -> _Replies:
        replies, self._replies = self._replies, []
        return replies

    # ------------------------------------------------------------ the chief's load

    def load(
        self, generation: str, slices: list[LoadedSlice], now: float, plan: Plan = ()
    ) -> _Replies:
        """Put the shard's slices in place, emptying the list, and note what is on the others.

        Raises:
            ModelError: if the slices are not those that the plan has for this shard.
            PsysError: see ``MemoryShard.load``.
        """
        mine = {(s.variable, s.start, s.stop) for s in plan if s.shard == self.shard.index}
        if plan and mine != {(one.spec.name, one.start, one.stop) for one in slices}:
            raise ModelError(f"ps:{self.shard.index} was sent other slices than the plan has here.")
        if self.lead is not None and any(s.shard >= self.lead.job.num_shards for s in plan):
            raise ModelError(f"The plan is for more shards than {self.lead.job.num_shards}.")
        self.shard.load(generation, slices)
        if self.lead is not None:
            self.lead.plan = tuple(plan)
        return self._settle(now)

    # ------------------------------------------------------------ saving

    def take_snapshot(self) -> Snapshot | None:
        """Return a cut to be written, once; ``written`` must follow."""
        return self.shard.take_snapshot()

    def written(self, save: str, file: ShardFile | None, error: str, now: float) -> _Replies:
        """Note that a cut is on disk, or why not."""
        self.shard.written(save, file, error)
        return self._settle(now)

    # ------------------------------------------------------------ reports and orders

    def obey(self, orders: ShardOrders, now: float) -> _Replies:
        """Take orders that came from a lead elsewhere."""
        self._take(self.shard.obey(orders), now)
        return self._settle(now)

    def hear(self, report: Report, now: float) -> _Replies:
        """Take in a task's report (the lead's node only)."""
        assert self.lead is not None
        instance = (report.task, report.instance)
        self._directives.setdefault(instance, Directive(revision=-1))
        self.lead.hear(report, now)
        return self._settle(now)

    def tell_again(self, instance: Instance) -> None:
        """Forget what a process was told: its stream is new."""
        self._directives.pop(instance, None)

    def stream_broken(self, instance: Instance, now: float) -> _Replies:
        """Note that a task's control stream broke (the lead's node only)."""
        assert self.lead is not None
        self._directives.pop(instance, None)
        self._changed.pop(instance, None)
        self.lead.stream_broken(instance, now)
        return self._settle(now)

    def tick(self, now: float) -> _Replies:
        """Let time pass."""
        if self.lead is not None:
            self.shard.tally.tell()
            self.lead.tick(now)
        self._put_off(now)
        return self._settle(now)

    def fail(self, reason: str, now: float) -> _Replies:
        """Make FAILED the verdict of the lead that lives here, unless there is one."""
        assert self.lead is not None
        self.lead.fail(reason, now)
        self._note_directives()
        return self._settle(now)

    def _put_off(self, now: float) -> None:
        """Tell those whose values were withheld for long to ask again, and for whom they wait."""
        seen, self._withheld = self._withheld, {}
        for caller, request in self.shard.waiting():
            known, since = seen.get(caller, (None, now))
            if known is not request:
                since = now
            if now - since < WAIT_ANSWER_SECS:
                self._withheld[caller] = (request, since)
                continue
            whom = self.shard.waits_for(request)
            if self.lead is not None and self.lead.pace.sync:
                whom = list(self.lead.pace.rounds.awaited)
            served = self.shard.put_off(caller)
            told = replace(served.reply, waiting_for=", ".join(whom) or "the lead")
            self._take([served._replace(reply=told)], now)

    @property
    def look_again_at_secs(self) -> float | None:
        """When ``tick`` must come even if nothing else does; None if any time will do."""
        return None if self.lead is None else self.lead.saving.release_at_secs

    def take_directives(self) -> dict[Instance, Directive]:
        """Return the directives that changed since the last call."""
        changed, self._changed = self._changed, {}
        return changed

    def _settle(self, now: float) -> _Replies:
        """Let lead and own shard answer each other until nothing changes."""
        if self.lead is not None:
            before = None
            while (state := (self.lead.shard_orders(), self.shard.facts())) != before:
                before = state
                self._take(self.shard.obey(state[0]), now)
                self.lead.advance(now)
            self._answer_wanting(now)
            self._note_directives()
        return self._take_replies()

    def _note_directives(self) -> None:
        assert self.lead is not None
        self._told_phase = self.lead.phase
        if self.lead.phase is not JobPhase.RUNNING:
            self.shard.tally.tell()  # the last steps of all, together with the news of the end
        for instance, last in self._directives.items():
            directive = directive_to(self.lead, instance, self.shard.tally.told)
            # To others the step alone is no news: it is told along with whatever else changes.
            step = directive if self.lead.hears_of_steps(instance) else last
            same = replace(directive, revision=last.revision, global_step=step.global_step)
            if same != last:
                self._revision += 1
                directive = replace(directive, revision=self._revision)
                self._directives[instance] = directive
                self._changed[instance] = directive
