"""Node: what one ps process holds, without the process: a shard, and on ps 0 the lead.

Messages and the time go in; replies, directives and cuts to be written come out. All waiting
is here, as replies not yet given, so every interleaving of the protocol can be played in a
unit test and a whole cluster simulated on a virtual clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from psys.ps.lead import Job, Lead
from psys.ps.memory_shard import Caller, MemoryShard, Snapshot
from psys.ps.messages import (
    Directive,
    ExchangeReply,
    ExchangeRequest,
    Grant,
    Outcome,
    Report,
    ShardFile,
    ShardOrders,
)
from psys.ps.roster import Instance
from psys.ps.shard import LoadedSlice

WAIT_ANSWER_SECS = 5.0
"""A caller that waits for a grant hears for whom after this long, and asks again."""

_Replies = list[tuple[Caller, ExchangeReply]]


class Node:
    """A shard and, where ``job`` is given, the lead. One caller at a time."""

    def __init__(self, index: int, new_id: Callable[[], str], job: Job | None = None) -> None:
        self.shard = MemoryShard(index)
        self.lead = None if job is None else Lead(job, self.shard.facts, new_id)
        self._directives: dict[Instance, Directive] = {}
        self._changed: dict[Instance, Directive] = {}
        self._revision = 0
        self._wanting: dict[Caller, tuple[ExchangeRequest, ExchangeReply, float]] = {}
        self._replies: _Replies = []

    # ------------------------------------------------------------ trainers

    def exchange(self, caller: Caller, request: ExchangeRequest, now: float) -> _Replies:
        """Serve a trainer; its reply may come from a later call."""
        self._wanting.pop(caller, None)
        self._take(self.shard.exchange(caller, request), now)
        return self._settle(now)

    def forget(self, caller: Caller) -> None:
        """Drop what a caller that is gone was waiting for."""
        self.shard.forget(caller)
        self._wanting.pop(caller, None)

    def _take(self, replies: _Replies, now: float) -> None:
        """Count applied steps and add grants to the shard's replies."""
        for caller, reply in replies:
            request = self.shard.last_requests[caller]
            if self.lead is not None:
                if reply.outcome is Outcome.APPLIED:
                    self.lead.applied(request.task)
                reply = replace(reply, global_step=self.lead.grants.global_step)
                served = reply.outcome in (Outcome.NONE, Outcome.APPLIED, Outcome.DUPLICATE)
                if request.wants_grant and served:
                    self._wanting[caller] = (request, reply, now)
                    continue
            self._replies.append((caller, reply))

    def _answer_wanting(self, now: float) -> None:
        """Answer those who want a grant, as far as the lead can."""
        assert self.lead is not None
        for caller, (request, reply, since) in list(self._wanting.items()):
            shard = self.shard
            if request.generation != shard.generation or not self.lead.live:
                reply = replace(reply, outcome=Outcome.GENERATION_CHANGED, dense={}, rows={})
            elif request.member <= shard.refused.get(request.task, 0):
                reply = replace(reply, outcome=Outcome.FENCED, reason="given up for lost")
            else:
                grant = self.lead.ask(request.task, request.member)
                if grant is Grant.WAIT and now - since < WAIT_ANSWER_SECS:
                    continue
                others = sorted(self.lead.grants.out)
                waiting_for = ", ".join(others) or "the lead" if grant is Grant.WAIT else ""
                reply = replace(reply, grant=grant, waiting_for=waiting_for)
            del self._wanting[caller]
            reply = replace(reply, global_step=self.lead.grants.global_step)
            self._replies.append((caller, reply))

    # ------------------------------------------------------------ the chief's load

    def load(self, generation: str, slices: Sequence[LoadedSlice], now: float) -> _Replies:
        """Put the shard's slices in place; see ``MemoryShard.load`` for errors."""
        self.shard.load(generation, slices)
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
            self.lead.tick(now)
        return self._settle(now)

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
        replies, self._replies = self._replies, []
        return replies

    def _note_directives(self) -> None:
        assert self.lead is not None
        for instance, last in self._directives.items():
            directive = self.lead.directive(instance)
            # The step alone is no news: it is told along with whatever else changes.
            same = replace(directive, revision=last.revision, global_step=last.global_step)
            if same != last:
                self._revision += 1
                directive = replace(directive, revision=self._revision)
                self._directives[instance] = directive
                self._changed[instance] = directive
