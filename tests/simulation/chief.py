"""A virtual chief: creates, trains, saves, and ends the job."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from simulation.invariants import Checkpoint
from simulation.model import slices
from simulation.network import Stream, Thread, Wait
from simulation.tasks import Steps
from simulation.trainers import STOPPED_LOOK_SECS, Trainer

from psys.errors import CheckpointError, ClusterError
from psys.ps.messages import (
    CheckpointEntry,
    ChiefFacts,
    JobPhase,
    SaveResult,
    TaskPhase,
    Verdict,
)

if TYPE_CHECKING:
    from simulation.cluster import Cluster


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
