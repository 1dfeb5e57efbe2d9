"""What the lead knows of its job before anyone has joined."""

from __future__ import annotations

from dataclasses import dataclass, field

from psys.ps.endings import Limits
from psys.ps.messages import TaskName, Verdict

EndedRun = tuple[str, Verdict]
"""The id of a run of the job that has ended, and how."""


@dataclass(frozen=True)
class Job:
    """What the lead knows of the job from its configuration.

    Attributes:
        ps: the ps tasks in order; the lead's own shard is the first. Empty where the chief
            hosts the one shard.
        trainers: chief and workers listed.
        evaluator_listed: whether an evaluator is listed.
        cluster_digest: of the ps list.
        job_id: of this run, '' where the lead is to find out.
        ended: the run whose verdict lies on the lead's disk.
        limits: how long to wait.
    """

    ps: tuple[TaskName, ...]
    trainers: tuple[TaskName, ...]
    evaluator_listed: bool = False
    cluster_digest: str = ""
    job_id: str = ""
    ended: EndedRun | None = None
    limits: Limits = field(default_factory=Limits)

    @property
    def num_shards(self) -> int:
        """How many shards the model is spread over."""
        return max(len(self.ps), 1)

    @property
    def others(self) -> tuple[TaskName, ...]:
        """The ps other than the lead's own."""
        return self.ps[1:]

    @property
    def listed(self) -> tuple[TaskName, ...]:
        """Every task that must hear the verdict."""
        evaluator = ("evaluator",) if self.evaluator_listed else ()
        return (*self.trainers, *self.others, *evaluator)
