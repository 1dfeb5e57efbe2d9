"""Virtual trainers: the chief and the workers, as honest as the real ones.

The virtual twin of ``psys.parameters``, ``psys.train`` and ``psys.roles.{chief,worker}``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from simulation.invariants import Push
from simulation.model import LOGS, gradients, log_rows
from simulation.network import Stream, Thread, Wait
from simulation.tasks import Steps, Task

from psys.errors import ClusterError, Fenced, GenerationChanged, ModelError
from psys.ps.dense_cache import DenseCache
from psys.ps.messages import (
    Consistency,
    ExchangeReply,
    ExchangeRequest,
    Grant,
    JobPhase,
    Outcome,
    Standing,
    TaskPhase,
)

if TYPE_CHECKING:
    from simulation.cluster import Cluster

REPLY_LIMIT_SECS = 30.0
NEW_NUMBER_LIMIT_SECS = 30.0
STOPPED_LOOK_SECS = 0.25


class Connection:
    """A trainer's stream to one ps, opened again after it broke."""

    def __init__(self, trainer: Trainer, index: int) -> None:
        self._trainer, self._index = trainer, index
        self._stream: Stream | None = None
        self.reply: ExchangeReply | None = None
        self.broken = False

    def send(self, request: ExchangeRequest) -> None:
        """Send one request; ``reply`` or ``broken`` follows."""
        self.reply, self.broken = None, False
        if self._stream is None:
            trainer, server = self._trainer, self._trainer.cluster.server(self._index)
            stream = Stream(
                trainer.cluster.weather, trainer, server, self._take, lambda: self._lose(stream)
            )
            self._stream = stream
            server.accept_exchange(stream)
        self._stream.send_up(request)

    def give_up(self) -> None:
        """Drop the stream."""
        if self._stream is not None:
            stream, self._stream = self._stream, None
            stream.break_off()
        self.broken = True

    def _take(self, reply: ExchangeReply) -> None:
        self.reply = reply

    def _lose(self, stream: Stream) -> None:
        if self._stream is stream:
            self._stream, self.broken = None, True


def _all_answered(connections: list[Connection]) -> Callable[[], bool]:
    return lambda: all(one.reply is not None or one.broken for one in connections)


class Trainer(Task):
    """Takes steps until no more are granted, its input ends, or it is asked to leave."""

    def __init__(self, cluster: Cluster, task: str, **facts: Any) -> None:
        super().__init__(cluster, task, policy=cluster.plan.policy, **facts)
        self.left = cluster.plan.input_steps or 10**9
        """Batches left; the input starts again with the process."""
        self.leaving = False
        self.step_seen = 0
        self._connections = [Connection(self, index) for index in range(cluster.plan.num_ps)]
        self._place = ("", 0)
        self._caches: list[DenseCache] = []
        self._sequence = 0
        self._version = 0
        self._sync = cluster.plan.policy.consistency is Consistency.SYNC
        self._row: int | None = None
        """The row of the log of the last push that was applied."""
        self._pace_secs = self.clock.random.choice((0.01, 0.1, 0.6))

    @property
    def number(self) -> int:
        """The member number it trains under."""
        return self._place[1]

    # ------------------------------------------------------------ exchanges

    def _join(self) -> Steps[bool]:
        old = self._place
        directive = yield from self.wait_for(
            lambda one: (
                one.verdict is not None
                or (bool(one.generation and one.member) and (one.generation, one.member) != old)
            )
        )
        if directive.verdict is not None:
            return False
        self._place = (directive.generation, directive.member)
        self._caches = [DenseCache() for _ in self._connections]
        self._sequence, self._version, self._row = 0, 0, None
        self.update(generation=directive.generation, phase=TaskPhase.WORKING)
        return True

    def _exchange(self, push: bool, wants_grant: bool) -> Steps[Grant]:
        generation, member = self._place
        sequence = self._sequence + push
        row = self._row
        if push:
            push_made = Push(generation, self.name, member, sequence, self._version)
            row = self.cluster.invariants.new_push(push_made)
        rows = {} if row is None else {LOGS: log_rows(row)}
        base = self._version
        request = ExchangeRequest(
            generation, self.name, member, sequence, base, None, True, rows, wants_grant
        )
        if push:
            assert row is not None
            request = replace(request, push=gradients(row))
        try:
            replies = yield from self._call(request)
            self._raise_for(replies)
            outcomes = {reply.outcome for reply in replies}
            while self._sync and len({reply.version for reply in replies}) > 1:
                replies = yield from self._pull_again(request, replies)
                self._raise_for(replies)
        except Fenced:
            yield from self._confirm_fenced()
            raise GenerationChanged from None
        self._sequence, self._version = sequence, replies[0].version
        for index, (cache, reply) in enumerate(zip(self._caches, replies, strict=True)):
            values = cache.take(reply)
            self.cluster.invariants.sees(generation, index, reply.version, values)
        dropped = self.cluster.invariants.told(row if push else None, outcomes)
        for reply in replies:
            own = None if row is None else float(reply.rows[LOGS][0, 0])
            assert row is None or own == float(reply.rows[LOGS][1, 0])
            self.cluster.invariants.served(reply.generation, generation, own, dropped)
        self._row = None if dropped else row
        self.step_seen = replies[0].global_step
        return replies[0].grant

    def _pull_again(
        self, request: ExchangeRequest, replies: list[ExchangeReply]
    ) -> Steps[list[ExchangeReply]]:
        """Pull from those shards that are an update behind the others."""
        newest = max(reply.version for reply in replies)
        behind = {i for i, reply in enumerate(replies) if reply.version < newest}
        again = replace(request, push=None, least_version=newest)
        found = yield from self._call(again, behind)
        return [found.pop(0) if i in behind else reply for i, reply in enumerate(replies)]

    def _call(
        self, request: ExchangeRequest, only: Collection[int] | None = None
    ) -> Steps[list[ExchangeReply]]:
        replies: dict[int, ExchangeReply] = {}
        wanted = set(range(len(self._connections)) if only is None else only)
        taken_in: set[int] = set()
        known = {index: cache.version for index, cache in enumerate(self._caches)}
        begun = None
        while True:
            open_ones = [self._connections[i] for i in sorted(wanted - replies.keys())]
            for index in sorted(wanted - replies.keys()):
                wants_grant = request.wants_grant and not index
                mine = replace(request, wants_grant=wants_grant, known_version=known[index])
                if index in taken_in and request.push is not None:
                    mine = replace(mine, push={})
                self._connections[index].send(mine)
            if not (yield Wait(_all_answered(open_ones), REPLY_LIMIT_SECS)):
                for connection in open_ones:
                    if connection.reply is None:
                        connection.give_up()
            put_off = False
            for index in sorted(wanted - replies.keys()):
                reply = self._connections[index].reply
                if reply is not None and reply.outcome in (Outcome.ACCUMULATED, Outcome.WAITING):
                    taken_in.add(index)
                    put_off = True
                elif reply is not None:
                    replies[index] = reply
                else:
                    known[index] = None
            if len(replies) == len(wanted):
                return [replies[index] for index in sorted(replies)]
            self.check()
            directive = self.directive
            if directive.verdict is not None or directive.generation != request.generation:
                raise GenerationChanged
            if put_off:
                begun = None
                continue
            begun = begun or self.clock.now
            if self.clock.now - begun > self.cluster.limits.recover_secs:
                raise ClusterError("a ps stayed out of reach")
            yield Wait(at_most_secs=self.clock.random.uniform(0.02, 0.3))

    @staticmethod
    def _raise_for(replies: list[ExchangeReply]) -> None:
        outcomes = {reply.outcome for reply in replies}
        if Outcome.FENCED in outcomes:
            raise Fenced
        for reply in replies:
            if reply.outcome is Outcome.GENERATION_CHANGED:
                raise GenerationChanged
            if reply.outcome in (Outcome.GAP, Outcome.REFUSED):
                raise ModelError(reply.reason)

    def _confirm_fenced(self) -> Steps[None]:
        old = self._place
        directive = yield from self.wait_for(
            lambda one: (
                one.standing is not Standing.ADMITTED
                or (one.generation, one.member) != old
                or one.verdict is not None
            ),
            NEW_NUMBER_LIMIT_SECS,
        )
        if directive.standing is not Standing.ADMITTED:
            raise Fenced

    # ------------------------------------------------------------ the loop

    def train(self) -> Steps[str]:
        """Train; return "stopped", "input ended", "leaving" or "over"."""
        grant: Grant | None = None
        while True:
            try:
                if grant is None:
                    now = (self.directive.generation, self.directive.member)
                    if now != self._place and not (yield from self._join()):
                        return "over"
                    grant = yield from self._exchange(False, True)
                    self.session_created()
                elif self.leaving:
                    return "leaving"
                elif grant is Grant.STOP:
                    return "stopped"
                elif grant is not Grant.GO:
                    grant = yield from self._exchange(False, True)
                else:
                    yield Wait(at_most_secs=self._pace_secs * self.clock.random.random())
                    more = self.left > 1
                    grant = yield from self._exchange(True, more)
                    self.left -= 1
                    self.after_step()
                    if not more:
                        return "input ended"
            except GenerationChanged:
                grant = None
                if self.directive.generation == self._place[0]:
                    self.clock.log(self.name, "joins again")
                    if not (yield from self._join()):
                        return "over"

    def session_created(self) -> None:
        """Be told that the trainer has a place and values."""

    def after_step(self) -> None:
        """Be told of a step taken."""

    def _stopped(self) -> Steps[bool]:
        """Wait until more is granted (a new chief, a roll-back); False when the job ended."""
        yield Wait(at_most_secs=STOPPED_LOOK_SECS)
        directive = yield from self.wait_for(
            lambda one: one.verdict is not None or one.job is JobPhase.RUNNING or self.leaving
        )
        return directive.verdict is None

    def sigterm(self) -> None:
        """Leave after the step under way."""
        self.leaving = True


class Worker(Trainer):
    """Trains, and hears how the job ended."""

    def main(self) -> Thread:
        yield from self.wait_for(lambda one: one.member > 0)
        while self.directive.verdict is None:
            why = yield from self.train()
            if self.leaving:
                self.update(phase=TaskPhase.LEFT, reason="SIGTERM")
                yield Wait(at_most_secs=0.2)
                self.end("left")
                return
            if why != "stopped":
                self.update(phase=TaskPhase.INPUT_ENDED)
                break
            yield from self._stopped()
        yield from self.await_verdict()
