"""Membership: how a task is connected: the one place that picks memory or gRPC.

Locally the lead and the one shard live in this process. In a cluster the shards are the ps,
or, where no ps is listed, the one shard the chief hosts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from psys.attendance import Attendance, LeadLink
from psys.checkpoint.manifest import load_all
from psys.checkpoint.storage import FileStorage
from psys.host import NodeHost, new_id
from psys.local import LocalLink, LocalShard
from psys.ps.endings import Limits
from psys.ps.job import Job
from psys.ps.messages import ChiefFacts, EvaluatorFacts, Report, ShardFacts, Verdict
from psys.ps.shard import Shard
from psys.ps.slice_state import prepare, prepare_without_script
from psys.rpc.remote_cluster import RemoteLink
from psys.rpc.remote_shard import RemoteShard
from psys.rpc.server import Server
from psys.train.shard_files import shard_writer
from psys.train.verdict import keep_verdict, read_ended

LOCAL = "chief"
"""The name of the one task where there is no cluster."""


@dataclass(frozen=True)
class Settings:
    """What a task knows of its job before it connects.

    Attributes:
        task: its name.
        model_dir: where its files go.
        job: what the lead must know; also in tasks that do not host it.
        shard_addresses: of the ps in order, or of the chief that hosts the one shard; empty
            where there is no cluster.
        token: the job's token.
        verdict_file: where a launcher wants the verdict.
        without_script: whether this is a ps that does not run the program (``psys ps``).
    """

    task: str
    model_dir: str
    job: Job
    shard_addresses: tuple[str, ...] = ()
    token: str | None = None
    verdict_file: str | None = None
    without_script: bool = False

    @property
    def limits(self) -> Limits:
        """How long to wait for others."""
        return self.job.limits

    @property
    def hosts(self) -> int | None:
        """The index of the shard this task hosts; None for none."""
        if self.task in self.job.ps:
            return self.job.ps.index(self.task)
        return 0 if not self.job.ps and self.task == LOCAL else None

    def keep(self, verdict: Verdict, job_id: str) -> None:
        """Put the verdict of a run of the job on disk."""
        keep_verdict(self.model_dir, verdict, job_id, self.verdict_file)


def local_settings(model_dir: str) -> Settings:
    """Return the settings of training on one machine."""
    return Settings(LOCAL, model_dir, Job(ps=(), trainers=(LOCAL,)))


class Membership:
    """One task's connections. ``close`` ends them all."""

    def __init__(self, settings: Settings, serve: bool = True) -> None:
        """Host what this task hosts, and prepare to attend.

        Args:
            settings: of the task.
            serve: False hosts nothing: for a ps that can only say why it fails.

        Raises:
            ConfigError: if this task's address cannot be bound.
        """
        self.settings = settings
        self.host: NodeHost | None = None
        self._server: Server | None = None
        self.attendance: Attendance | None = None
        if serve and settings.hosts is not None:
            self._host(settings.hosts)
        if settings.task != "ps:0" or not settings.job.ps:
            self.attendance = self._attend()

    @property
    def is_chief(self) -> bool:
        """Whether this task creates, saves, and ends."""
        return self.settings.task == LOCAL

    def shards(self, push_dtype: str | None = None) -> list[Shard]:
        """Return new connections to every shard, for one thread.

        Args:
            push_dtype: what gradients travel as between processes; None: as they are.
        """
        if self.host is not None and self.is_chief:
            return [LocalShard(self.host)]
        return [
            RemoteShard(index, address, self.settings.token, push_dtype)
            for index, address in enumerate(self.settings.shard_addresses)
        ]

    def close(self) -> None:
        """End all connections; what is left to be told to the lead is told."""
        if self.attendance is not None:
            self.attendance.close()
        if self._server is not None:
            self._server.stop()
        if self.host is not None:
            self.host.close()

    def _host(self, index: int) -> None:
        settings = self.settings
        count = settings.job.num_shards
        self.host = NodeHost(
            index,
            shard_writer(settings.model_dir, count),
            replace(settings.job, ended=read_ended(settings.model_dir)) if index == 0 else None,
            settings.keep if index == 0 and settings.shard_addresses else None,
            prepare_without_script if settings.without_script else prepare,
        )
        for manifest in load_all(FileStorage(settings.model_dir))[-1:]:
            self.host.note_newest(manifest.global_step, manifest.checkpoint_id)
        if settings.shard_addresses:
            tasks = len(settings.job.listed) + 2
            storage = FileStorage(settings.model_dir)
            address = settings.shard_addresses[index]
            self._server = Server(self.host, storage, address, tasks, settings.token)

    def _attend(self) -> Attendance:
        settings = self.settings
        link: LeadLink
        if self.host is not None and self.host.has_lead:
            link = LocalLink(self.host)
        else:
            link = RemoteLink(settings.shard_addresses[0], settings.token)
        shard = settings.hosts if settings.job.ps and self.host is not None else None
        report = Report(
            task=settings.task,
            instance=new_id(),
            revision=0,
            cluster_digest=settings.job.cluster_digest,
            job_id=settings.job.job_id,
            shard=None if shard is None else ShardFacts(shard),
            chief=ChiefFacts() if settings.task == LOCAL else None,
            evaluator=EvaluatorFacts() if settings.task == "evaluator" else None,
        )
        limits = settings.limits
        return Attendance(report, link, limits.start_timeout_secs, limits.recover_secs)
