"""Virtual trainers: the chief and the workers, as honest as the real ones.

The virtual twin of ``psys.parameters``, ``psys.train`` and ``psys.roles.{chief,worker}``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from simulation.invariants import Checkpoint, Push
from simulation.model import gradients, slices
from simulation.network import Stream, Thread, Wait
from simulation.tasks import Steps, Task

from psys.errors import CheckpointError, ClusterError, Fenced, GenerationChanged, ModelError
from psys.ps.messages import (
    CheckpointEntry,
    ChiefFacts,
    Consistency,
    ExchangeReply,
    ExchangeRequest,
    Grant,
    JobPhase,
    Outcome,
    SaveResult,
    Standing,
    TaskPhase,
    Verdict,
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
        rows = {} if row is None else {"log": np.array([row], np.int64)}
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
        dropped = self.cluster.invariants.told(row if push else None, outcomes)
        for reply in replies:
            own = None if row is None else float(reply.rows["log"][0, 0])
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
        begun = None
        while True:
            open_ones = [self._connections[i] for i in sorted(wanted - replies.keys())]
            for index in sorted(wanted - replies.keys()):
                mine = replace(request, wants_grant=request.wants_grant and not index)
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


class Chief(Trainer):
    """Creates, trains, saves, and ends the job."""

    def __init__(self, cluster: Cluster, task: str) -> None:
        disk = cluster.disk
        facts = ChiefFacts(
            max_steps=cluster.plan.max_steps,
            evaluator_expected=cluster.plan.evaluator,
            proposed_job="" if disk.run == disk.verdict_run else disk.run,
        )
        super().__init__(cluster, task, chief=facts)
        self._answered = 0
        self._error = ""
        self._loaded = ""
        self._last_save_step = 0
        self._follows_news = False
        self.on_directive = self._note_news

    # ------------------------------------------------------------ the control thread

    def _note_news(self) -> None:
        self._follows_news = True

    def keep_run(self, job_id: str) -> None:
        self.cluster.disk.run = job_id

    def _facts(self) -> ChiefFacts:
        assert self.report.chief is not None
        return self.report.chief

    def _tell(self, **changes: Any) -> None:
        self.update(chief=replace(self._facts(), **changes))

    def _control(self) -> Thread:
        while True:
            yield Wait(lambda: self._follows_news)
            self._follows_news = False
            orders = self.directive.chief
            if orders is None:
                continue
            saved = orders.saved
            if saved is not None and saved.request > self._answered:
                yield Wait(at_most_secs=0.05 * self.clock.random.random())
                self._error = saved.error
                if not saved.error:
                    self._commit(saved)
                self._answered = saved.request
            new = orders.initialize not in ("", self._loaded)
            if new and not (yield from self._initialize(orders.initialize)):
                yield Wait(at_most_secs=0.3)
                self._follows_news = True

    def _commit(self, saved: SaveResult) -> None:
        disk = self.cluster.disk
        # Create-if-absent, as on a real disk: a chief that comes late changes nothing.
        disk.manifests.setdefault(saved.checkpoint_id, Checkpoint(saved, self.report.job_id))
        self.clock.log(
            self.name,
            f"commits {saved.checkpoint_id} step {saved.global_step} of {saved.generation} "
            f"V {dict(saved.cut)} torn {saved.torn}",
        )
        self.cluster.invariants.committed(saved)
        self._tell(committed=self._entries())

    def _entries(self) -> tuple[CheckpointEntry, ...]:
        ordered = sorted(self.cluster.disk.manifests.values(), key=lambda one: one.order)
        return tuple(
            CheckpointEntry(
                one.result.checkpoint_id,
                one.result.global_step,
                one.result.checkpoint_id,
                one.final,
            )
            for one in ordered
        )

    def _initialize(self, generation: str) -> Steps[bool]:
        cluster = self.cluster
        newest = cluster.disk.newest()
        origin = None if newest is None else newest.result.checkpoint_id
        num_ps = cluster.plan.num_ps
        for shard in range(num_ps):
            values = None if origin is None else cluster.disk.values(origin, shard)
            answers: list[str] = []
            server = cluster.server(shard)
            stream = Stream(
                cluster.weather,
                self,
                server,
                answers.append,
                lambda answers=answers: answers.append("broken"),  # type: ignore[misc]
            )
            server.accept_load(stream)
            stream.send_up((generation, slices(num_ps, shard, values)))
            yield Wait(lambda answers=answers: bool(answers), 600.0)  # type: ignore[misc]
            done = answers == ["loaded"]
            stream.break_off()
            if not done:
                return False
        cluster.invariants.loaded[generation] = origin
        step = 0 if newest is None else newest.result.global_step
        self.clock.log(self.name, f"loaded {generation} from {origin} (step {step})")
        self._loaded = generation
        self._tell(loaded=generation, loaded_step=step)
        return True

    # ------------------------------------------------------------ the training thread

    def _newest(self) -> CheckpointEntry | None:
        committed = self._facts().committed
        return committed[-1] if committed else None

    def _request_save(self) -> int:
        number = self._facts().save_request + 1
        self._tell(save_request=number)
        return number

    def session_created(self) -> None:
        self._last_save_step = self.step_seen
        newest = self._newest()
        if newest is None or newest.global_step != self.step_seen:
            self._save_soon()

    def after_step(self) -> None:
        if self.step_seen - self._last_save_step >= self.cluster.plan.save_every:
            self._save_soon()

    def _save_soon(self) -> None:
        if self._error:
            raise CheckpointError(self._error)
        if self._answered >= self._facts().save_request:
            self._last_save_step = self.step_seen
            self._request_save()

    def main(self) -> Thread:
        yield from self.wait_for(lambda one: one.member > 0)
        self._tell(committed=self._entries())
        self.spawn(self._control())
        final = None
        while final is None and self.directive.verdict is None:
            why = yield from self.train()
            if self.leaving and not self._facts().stop_reason:
                self._tell(stop_reason="SIGTERM")
            if why in ("input ended", "leaving"):
                self.update(phase=TaskPhase.INPUT_ENDED)
            final = yield from self._finish(may_train=why == "stopped")
        if self.leaving:
            self.update(phase=TaskPhase.LEFT, reason="SIGTERM")
            yield Wait(at_most_secs=0.2)
            self.end("left")
            return
        if final is not None:
            yield from self._conclude(final)
        yield from self.await_verdict()

    def _finish(self, may_train: bool) -> Steps[CheckpointEntry | None]:
        """Save the final checkpoint; None if more steps are granted after all."""

        def goes_on() -> bool:
            if self.leaving and not self._facts().stop_reason:
                self._tell(stop_reason="SIGTERM")
            return may_train and self.directive.job is JobPhase.RUNNING

        yield Wait(at_most_secs=STOPPED_LOOK_SECS)
        while True:
            drained = yield from self.wait_for(
                lambda one: one.job in (JobPhase.DRAINED, JobPhase.ENDED) or goes_on()
            )
            if drained.verdict is not None or goes_on():
                return None
            newest = self._newest()
            if newest is None or newest.global_step != drained.global_step:
                number = self._request_save()
                yield from self.wait_for(
                    lambda one, number=number: (  # type: ignore[misc]
                        self._answered >= number or one.verdict is not None or goes_on()
                    )
                )
                if self._error:
                    raise CheckpointError(self._error)
            now, newest = self.directive, self._newest()
            if (
                newest is not None
                and newest.global_step == now.global_step
                and (now.job, now.generation) == (JobPhase.DRAINED, drained.generation)
            ):
                return newest

    def _conclude(self, final: CheckpointEntry) -> Steps[None]:
        cluster = self.cluster
        cluster.disk.manifests[final.checkpoint_id].final = True
        self._tell(committed=self._entries())
        orders = self.directive.chief
        expected = cluster.plan.evaluator or (orders is not None and orders.evaluator_seen)
        if expected:
            absent_since = self.clock.now
            while True:
                orders = self.directive.chief
                if orders is not None and orders.evaluator != "absent":
                    absent_since = self.clock.now
                if orders is not None and final.checkpoint_id in orders.completed:
                    break
                self.check()
                if self.clock.now - absent_since > cluster.limits.start_timeout_secs:
                    raise ClusterError("the final checkpoint was not evaluated")
                yield Wait(at_most_secs=0.25)
        verdict = Verdict(True, "", final.global_step, final.path, evaluated=expected)
        self._tell(conclusion=verdict)
