"""The lead: the one commander of a job, living beside shard 0.

It decides everything that must be decided once: which generation lives, who takes part, how
many steps are counted and granted, when a checkpoint is cut, how the job ends. It hears whole
reports and answers with whole directives. It touches no parameter, file, socket or clock.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable

from psys.arrays import Plan
from psys.ps.endings import Ending, Waits, inputs_ended, overdue
from psys.ps.grants import Grants
from psys.ps.job import Job
from psys.ps.joining import objection, settle
from psys.ps.messages import (
    ASYNC,
    CheckpointEntry,
    Fences,
    Grant,
    JobPhase,
    Report,
    ShardFacts,
    ShardOrders,
    ShardPhase,
    TaskName,
    TaskPhase,
    Verdict,
)
from psys.ps.roster import LEASE_SECS, Instance, Member, Roster
from psys.ps.rounds import Pace
from psys.ps.saving import Saving


class _Model(enum.Enum):
    """How far the model is. PREPARING: shards empty themselves; INITIALIZING: the chief loads."""

    NONE = 0
    PREPARING = 1
    INITIALIZING = 2
    SEALING = 3
    LIVE = 4


class Lead:
    """The lead's state machine. ``hear``, ``tick`` and the exchange hooks go in, directives out."""

    def __init__(
        self, job: Job, own_shard: Callable[[], ShardFacts], new_id: Callable[[], str]
    ) -> None:
        """Start with no model and nobody seen.

        Args:
            job: what is listed.
            own_shard: the facts of shard 0, just now.
            new_id: makes random ids of 12 hex digits.
        """
        self.job = job
        self.lead_id = new_id()
        self.job_id = job.job_id
        """The run of the job, '' until it is settled."""
        self.run_kept = bool(job.job_id)
        """Whether the chief has it on disk, or every task was given it."""
        self.grants = Grants()
        self.pace = Pace()
        self.roster = Roster()
        self.saving = Saving(new_id)
        self.ending = Ending()
        self.waits = Waits()
        self.catalog: tuple[CheckpointEntry, ...] = ()
        self.completed: frozenset[str] = frozenset()
        self.generation = ""
        self._model = _Model.NONE
        self._own_shard = own_shard
        self._new_id = new_id
        self.rejected: dict[Instance, str] = {}
        """Why each process is refused that does not belong here."""
        self.claims: dict[Instance, str] = {}
        """The run each process says it takes part in."""
        self._refused: dict[TaskName, int] = {}
        self._chief_instance: Instance | None = None
        self._digests_checked = ("", "")
        self.plan: Plan = ()
        """What is on which shard, as the chief said when it last loaded the model."""
        self._plan_digest = ""
        self.lost_step = 0
        """The global step reached before the last roll-back."""

    # ------------------------------------------------------------ what comes in

    def hear(self, report: Report, now: float) -> None:
        """Take in a report and go as far as it allows."""
        self.claims[report.task, report.instance] = report.job_id
        if reason := self._objection(report):
            self._reject(report, reason, now)
        else:
            self.rejected.pop((report.task, report.instance), None)
            self.roster.hear(report, now)
        self.advance(now)

    def _reject(self, report: Report, reason: str, now: float) -> None:
        """Give a process that does not belong here no place, or take it back."""
        instance = (report.task, report.instance)
        self.rejected[instance] = reason
        member = self.roster.members.get(report.task)
        if member is not None and member.instance == instance:
            del self.roster.members[report.task]
            self.roster.seen.discard(report.task)
            self._give_up(member, now)

    def stream_broken(self, instance: Instance, now: float) -> None:
        """Note that a process's control stream broke."""
        self.rejected.pop(instance, None)
        self.claims.pop(instance, None)
        self.roster.stream_broken(instance, now)
        self.advance(now)

    def ask(self, task: TaskName, member: int) -> Grant:
        """Answer a trainer of the live generation that wants to take a step."""
        if self._model is not _Model.LIVE:
            return Grant.WAIT
        if self.ending.verdict is not None:
            return Grant.STOP
        current = self.roster.members.get(task)
        if current is None or current.number != member:
            return Grant.WAIT  # its report is on the way, or it is about to be fenced
        if not current.trains:
            return Grant.STOP  # a request of its past: it would never use the grant
        return self.grants.ask(task, member)

    def applied(self, task: TaskName, member: int, now: float) -> None:
        """Note a step that the lead's shard applied; in sync it was counted when ordered."""
        if not self.pace.sync:
            self.grants.applied(task)
        if self.pace.bounded:
            self.pace.clocks.applied(task, member)
        self.roster.proved_alive(task, member, now)

    @property
    def quiet(self) -> bool:
        """Whether an exchange can change nothing but steps counted and granted, and updates."""
        return (
            self._model is _Model.LIVE and not self.saving.cutting and self.ending.verdict is None
        )

    def _objection(self, report: Report) -> str:
        """Return why a process does not belong to this job, '' if it does."""
        return objection(
            report,
            job_id=self.job_id,
            cluster_digest=self.job.cluster_digest,
            listed=(*self.job.trainers, *self.job.ps, "evaluator"),
            chief=self.chief_report(),
        )

    def chief_report(self) -> Report | None:
        """Return what the chief, live or lost, has said last; None before it was seen."""
        chief = self.roster.members.get("chief")
        return chief.report if chief is not None else None

    # ------------------------------------------------------------ deciding

    def tick(self, now: float) -> None:
        """Let time pass: leases end, waits become overdue."""
        self.advance(now)

    def advance(self, now: float) -> None:
        """Go as far as what is known allows."""
        self.waits.begin_pass()
        if self.roster.note_clock(now):
            self.waits.be_patient(now + LEASE_SECS)
        for member in self.roster.expire(now):
            self._give_up(member, now)
        self.roster.admit_twins(now)
        self._return_grants()
        self._note_chief(now)
        self._recall_verdict(now)
        if self.ending.verdict is None:
            self._note_failures(now)
        if self.ending.verdict is None:
            self._advance_model(now)
            self._advance_stop(now)
            self._advance_save(now)
            self.advance_updates()
        if self.ending.verdict is not None:
            self.saving.release()  # nobody waits for a save of a job that has ended
        self.waits.end_pass()

    def _give_up(self, member: Member, now: float) -> None:
        """Let every shard refuse a trainer that is gone; its grant returns once they do."""
        if member.task in self.job.trainers:
            self._refused[member.task] = member.number
            self.saving.trainer_lost(now)

    def shard_facts(self) -> dict[int, ShardFacts]:
        """Return what is known of each shard whose ps is live."""
        facts = {0: self._own_shard()}
        for index, task in enumerate(self.job.ps):
            member = self.roster.get(task)
            if index and member is not None and member.report.shard is not None:
                facts[index] = member.report.shard
        return facts

    def _return_grants(self) -> None:
        """Take back what ended, left, or lost tasks held."""
        facts = self.shard_facts()
        for task, number in list(self.grants.out.items()):
            member = self.roster.members.get(task)
            if member is None or member.number != number or member.trains:
                continue
            if member.lost_since_secs is None:  # it ended or left; a lost one may yet push
                self.grants.give_back(task, number)
        for task, number in self._refused.items():
            # Only once no shard would take its push any more.
            if len(facts) == self.job.num_shards and all(
                one.refused.get(task, 0) >= number for one in facts.values()
            ):
                self.grants.give_back(task, number)

    def _note_chief(self, now: float) -> None:
        """Take over what the chief says, and notice that another process is chief now."""
        chief = self.roster.get("chief")
        if chief is None or chief.report.chief is None:
            return
        facts = chief.report.chief
        self.run_kept |= bool(self.job_id) and chief.report.job_id == self.job_id
        if chief.instance != self._chief_instance:
            self._chief_instance = chief.instance
            self.saving.forget()
            self.grants.resume()  # an earlier chief's reason to stop does not bind this one
            if self._model in (_Model.PREPARING, _Model.INITIALIZING, _Model.SEALING):
                self._end_generation()
        digests = (chief.report.model_digest, chief.report.plan_digest)
        if digests != self._digests_checked:
            self._digests_checked = digests
            self._object_again(now)
        self.grants.max_steps = facts.max_steps
        self.catalog = facts.committed
        evaluator = self.roster.members.get("evaluator")
        if evaluator is not None and evaluator.report.evaluator is not None:
            self.completed |= evaluator.report.evaluator.completed

    def _object_again(self, now: float) -> None:
        """Look at every member again, now that more is known of the job."""
        for member in list(self.roster.members.values()):
            if reason := self._objection(member.report):
                self._reject(member.report, reason, now)

    def _settle_run(self, now: float) -> None:
        """Find out which run of the job this is, before the first model or a verdict."""
        if self.job_id:
            return
        members = self.roster.members
        tasks = ("chief", *self.job.others, *self.job.trainers, "evaluator")
        reports = [members[task].report for task in tasks if task in members]
        reports += [twin.report for twin in self.roster.twins.values()]
        self.job_id = settle(reports, self.job.ended, self._new_id)
        self._object_again(now)
        self._recall_verdict(now)

    def _recall_verdict(self, now: float) -> None:
        """Stay with the verdict on disk, if a lead before this one gave it in this run."""
        ended = self.job.ended
        if ended is not None and self.job_id and ended[0] == self.job_id:
            self.ending.conclude(ended[1], now)

    def _note_failures(self, now: float) -> None:
        """Turn a member's failure, or the chief's conclusion, into the verdict."""
        for member in list(self.roster.members.values()):
            report = member.report
            if report.phase is TaskPhase.FAILED and (
                member.task != "evaluator" or self._evaluator_expected()
            ):
                self.fail(f"{member.task}: {report.reason}", now)
        chief = self.roster.get("chief")
        if chief is not None and chief.report.chief is not None:
            conclusion = chief.report.chief.conclusion
            if conclusion is not None:
                self._settle_run(now)
                self.ending.conclude(conclusion, now)

    def fail(self, reason: str, now: float) -> None:
        """Make FAILED the verdict, unless there is one."""
        self._settle_run(now)
        step = self.grants.global_step
        newest = self.catalog[-1].path if self.catalog else ""
        self.ending.conclude(
            Verdict(finished=False, reason=reason, global_step=step, checkpoint=newest), now
        )

    def _evaluator_expected(self) -> bool:
        chief = self.roster.members.get("chief")
        facts = chief.report.chief if chief is not None else None
        return (
            self.job.evaluator_listed
            or "evaluator" in self.roster.seen
            or (facts is not None and facts.evaluator_expected)
        )

    # ------------------------------------------------------------ the model

    def _advance_model(self, now: float) -> None:
        """Take the model from NONE to LIVE, or back when a shard lost it."""
        if reason := overdue(
            (*self.job.others, "chief"), self.roster, self.waits, self.job.limits, now
        ):
            self.fail(reason, now)
            return
        facts = self.shard_facts()
        if self._model is _Model.NONE:
            if self.roster.get("chief") is not None and len(facts) == self.job.num_shards:
                self._settle_run(now)
                if self.ending.verdict or len(self.shard_facts()) < self.job.num_shards:
                    return  # this run has ended, or a ps turned out to belong to another
                self.generation = self._new_id()
                self._model = _Model.PREPARING
            return
        # In PREPARING the shards are only on their way to the generation.
        if self._model is not _Model.PREPARING and any(
            one.generation != self.generation for one in facts.values()
        ):
            self._end_generation()
            self._advance_model(now)
            return
        if len(facts) < self.job.num_shards:
            return
        member = self.roster.get("chief")
        chief = member.report if member is not None else None
        sealed = (self.pace.policy, self._plan_digest)
        said = (chief.policy, chief.plan_digest) if chief is not None else (None, "")
        if self.live and said[0] is not None and said != sealed:
            self._end_generation()  # a chief that was restarted trains or spreads otherwise
            self._advance_model(now)
            return
        phases = {one.phase for one in facts.values() if one.generation == self.generation}
        arrived = all(one.generation == self.generation for one in facts.values())
        if self._model is _Model.PREPARING and arrived:
            self._model = _Model.INITIALIZING
        if self._model is _Model.INITIALIZING and phases == {ShardPhase.LOADED}:
            loaded = chief.chief if chief is not None else None
            if chief is not None and loaded is not None and loaded.loaded == self.generation:
                self._model, self._plan_digest = _Model.SEALING, chief.plan_digest
                self.pace.begin(chief.policy or ASYNC)
                self.grants.begin(loaded.loaded_step, self.pace.sync)
                self.saving.earlier_examples = loaded.loaded_examples
        if self._model is _Model.SEALING and phases == {ShardPhase.LIVE}:
            self._model = _Model.LIVE

    def _end_generation(self) -> None:
        """Give up the model in the shards: all go back to the last checkpoint together."""
        if self._model is _Model.LIVE:
            self.lost_step = self.grants.global_step
        self._model = _Model.NONE
        self.generation = ""
        self.grants.out.clear()
        self.pace.begin(ASYNC)
        self.saving.release()

    # ------------------------------------------------------------ stopping and saving

    def _advance_stop(self, now: float) -> None:
        """Stop granting when the chief says so, or when all input ended."""
        chief = self.roster.members.get("chief")
        facts = chief.report.chief if chief is not None else None
        if facts is not None and facts.stop_reason:
            self.grants.stop(facts.stop_reason)
        if self._model is _Model.INITIALIZING:
            self.waits.note("chief to load the model", math.inf, now)
        if self._model is _Model.LIVE and self.grants.stopping:
            for task in sorted(self.grants.out):
                self.waits.note(f"{task} to take its last step", math.inf, now)
        if self._model is not _Model.LIVE or self.grants.stopping:
            return
        ended, reason = inputs_ended(
            self.job.trainers, self.roster, self.waits, self.job.limits, now
        )
        if ended and self.lost_step >= self.grants.max_steps > self.grants.global_step:
            # The job had come to its end once; to call what is left of it so would be a lie.
            self.fail(
                f"the model went back from step {self.lost_step} to "
                f"{self.grants.global_step} and no trainer is left to go on",
                now,
            )
        elif ended:
            self.grants.stop("all input ended")
        elif reason:
            self.fail(reason, now)

    def _advance_save(self, now: float) -> None:
        if self._model is not _Model.LIVE:
            return
        chief = self.roster.get("chief")
        facts = chief.report.chief if chief is not None else None
        self.saving.advance(
            facts.save_request if facts is not None else 0,
            self.shard_facts(),
            self.job.num_shards,
            self._refused,
            self.grants.global_step,
            self.generation,
            now,
        )

    # ------------------------------------------------------------ who waits for whom

    def advance_updates(self) -> bool:
        """Order the next update, and start joiners' clocks; return whether one was ordered.

        None is ordered while a save cuts the shards: its cut lies between two updates.
        """
        if not self.live or not (self.pace.sync or self.pace.bounded):
            return False
        if self.pace.bounded:
            self.pace.clocks.advance(self._training())
            return False
        facts = self.shard_facts()
        if len(facts) < self.job.num_shards or self.saving.cutting or self.grants.exhausted:
            return False
        replicas, step = self.pace.policy.replicas, self.grants.global_step
        if not self.pace.rounds.advance(facts, self._training(), replicas, step):
            return False
        self.grants.ordered()
        return True

    def _training(self) -> dict[TaskName, int]:
        """Return the member number of each trainer that takes, or may take, a step.

        A generation's first update waits for all that are about to join it, so that trainers
        that start together are averaged from the first step; later ones do not wait for joiners.
        """
        first = self.pace.sync and not self.pace.rounds.number
        training = self.roster.training(self.job.trainers, "" if first else self.generation)
        if self.grants.stopping:
            return {task: number for task, number in training.items() if task in self.grants.out}
        return training

    # ------------------------------------------------------------ what goes out

    @property
    def live(self) -> bool:
        """Whether the model is ready to be trained."""
        return self._model is _Model.LIVE

    @property
    def initializing(self) -> bool:
        """Whether the chief is to load the model, or has just done so."""
        return self._model in (_Model.INITIALIZING, _Model.SEALING)

    @property
    def phase(self) -> JobPhase:
        """How far the job is."""
        if self.ending.verdict is not None:
            return JobPhase.ENDED
        if not self.live:
            return JobPhase.WAITING
        if self.grants.drained:
            return JobPhase.DRAINED
        return JobPhase.STOPPING if self.grants.stopping else JobPhase.RUNNING

    def shard_orders(self) -> ShardOrders:
        """Return what every shard shall be: the same for all."""
        if not self.generation:
            return ShardOrders()
        sealed = self._model in (_Model.SEALING, _Model.LIVE)
        attempt = self.saving.attempt
        chief = self.roster.get("chief")
        return ShardOrders(
            generation=self.generation,
            phase=ShardPhase.LIVE if sealed else ShardPhase.LOADING,
            refused=dict(self._refused),
            save=attempt.save if attempt is not None else "",
            cut=attempt.cut if attempt is not None else None,
            cut_step=attempt.cut_step if attempt is not None else 0,
            chief=chief.number if chief is not None else 0,
            policy=self.pace.policy,
            update=self.pace.rounds.order,
            clocks=self._clocks(),
        )

    def _clocks(self) -> Fences | None:
        gated = self.pace.bounded and self.live and not self.grants.stopping
        return self.pace.clocks.orders() if gated else None

    def hears_of_steps(self, instance: Instance) -> bool:
        """Return whether a process is told of steps as such: a chief that takes none itself."""
        chief = self.roster.get("chief")
        phase = chief.report.phase if chief is not None and chief.instance == instance else None
        return phase is TaskPhase.INPUT_ENDED

    def may_leave(self, now: float) -> bool:
        """Return whether the lead's process may end."""
        return self.ending.may_leave(self.job.listed, self.roster, self.job.limits, now)

    def unheard(self) -> list[TaskName]:
        """Return for whom the lead stays."""
        return self.ending.unheard(self.job.listed, self.roster)
