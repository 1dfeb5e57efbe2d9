"""What all tasks of the virtual cluster share: attending to the lead, and ending.

The virtual twin of ``psys.attendance`` and ``psys.roles.role``: reports go up whole, directives
come down whole, waits end with the same exceptions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from simulation.network import Process, Stream, Thread, Wait

from psys.errors import ClusterError, ConfigError, Fenced, JobFailed, PsysError
from psys.ps.messages import Directive, Report, Standing, TaskPhase
from psys.ps.roster import RENEWAL_SECS

if TYPE_CHECKING:
    from simulation.cluster import Cluster

REOPEN_SECS = 0.2
LATECOMER_SECS = 10.0
FAREWELL_SECS = 5.0
LOOK_SECS = 0.5

T = TypeVar("T")
Steps = Generator[Wait, bool, T]
"""A thread's part that returns a value."""


class JobOver(Exception):
    """The job finished before this task came."""


class Task(Process, ABC):
    """A process that attends to the lead."""

    def __init__(self, cluster: Cluster, task: str, **facts: Any) -> None:
        super().__init__(cluster.clock, task)
        self.cluster = cluster
        self.report = Report(task, cluster.new_id(), 0, **facts)
        self.directive = Directive(revision=-1)
        self.on_directive: Callable[[], None] = lambda: None
        self.reachable = False
        self.failure: PsysError | None = None
        """What goes wrong in this task's own program."""
        self._since_secs = cluster.clock.now
        self._stream: Stream | None = None

    # ------------------------------------------------------------ the link

    def begin(self) -> None:
        """Attend, and run ``main``."""
        self._open()
        self.after(RENEWAL_SECS, self._renew)
        self.spawn(self._run())

    def update(self, **changes: Any) -> None:
        """Change the report and send it."""
        report = replace(self.report, **changes)
        if report != self.report:
            self.report = replace(report, revision=report.revision + 1)
            self._send()

    def _send(self) -> None:
        if self._stream is not None:
            self._stream.send_up(self.report)

    def _renew(self) -> None:
        self.report = replace(self.report, revision=self.report.revision + 1)
        self._send()
        self.after(RENEWAL_SECS, self._renew)

    def _open(self) -> None:
        lead = self.cluster.lead
        self._stream = Stream(
            self.cluster.weather, self, lead, self._receive, self._broken, whole_state=True
        )
        lead.accept_control(self._stream)
        self._send()

    def _broken(self) -> None:
        self._stream = None
        if self.reachable:
            self.reachable, self._since_secs = False, self.clock.now
        self.after(REOPEN_SECS, self._open)

    def _receive(self, directive: Directive) -> None:
        self.reachable = True
        known = self.directive
        if directive.lead == known.lead and directive.revision <= known.revision:
            return
        self.directive = directive
        self.cluster.invariants.heard(self.name, directive)
        self._take_over(directive)
        self.on_directive()

    def _take_over(self, directive: Directive) -> None:
        job_id = self.report.job_id
        if directive.job_id and directive.standing is Standing.ADMITTED:
            self.keep_run(directive.job_id)
            job_id = directive.job_id
        member = directive.member or self.report.member
        report = replace(self.report, member=member, job_id=job_id)
        if report != self.report:
            self.report = replace(report, revision=report.revision + 1)

    def keep_run(self, job_id: str) -> None:
        """Put the run on disk before saying that it is known: the chief does."""

    # ------------------------------------------------------------ waiting

    def wait_for(
        self,
        condition: Callable[[Directive], bool],
        at_most_secs: float = float("inf"),
        despite_verdict: bool = False,
    ) -> Steps[Directive]:
        """Wait until a directive fulfils ``condition``; raises as ``Attendance.wait_for``."""
        begun = self.clock.now
        while True:
            directive = self.directive
            if directive.revision >= 0 and condition(directive):
                return directive
            self.check(despite_verdict)
            if self.clock.now - begun >= at_most_secs:
                raise ClusterError(f"waited {at_most_secs:.0f} s in vain")
            yield Wait(lambda seen=directive: self.directive is not seen, LOOK_SECS)  # type: ignore[misc]

    def check(self, despite_verdict: bool = False) -> None:
        """Raise if there is no point in going on."""
        directive, limits = self.directive, self.cluster.limits
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        if directive.revision >= 0:
            verdict = directive.verdict
            if verdict is not None and not verdict.finished and not despite_verdict:
                raise JobFailed(verdict.reason)
            if directive.standing is Standing.REJECTED:
                raise ConfigError(directive.waiting_for)
            if directive.standing is Standing.REPLACED:
                raise Fenced(f"another process is {self.name}")
        if self.reachable:
            return
        silent = self.clock.now - self._since_secs
        if directive.revision >= 0:
            if silent >= limits.recover_secs:
                raise ClusterError("the lead was out of reach for too long")
            return
        verdict = self.cluster.disk.verdict
        if silent >= LATECOMER_SECS and verdict is not None and verdict.finished:
            raise JobOver
        if silent >= limits.start_timeout_secs:
            raise ClusterError("the lead was never reached")

    # ------------------------------------------------------------ life

    @abstractmethod
    def main(self) -> Thread:
        """Be this task until the job has ended, or until it left."""

    @abstractmethod
    def sigterm(self) -> None:
        """Be asked to end."""

    def await_verdict(self) -> Steps[None]:
        """Wait until the job ended; raise JobFailed unless it FINISHED."""
        yield from self.wait_for(lambda one: one.verdict is not None)
        self.check()

    def _run(self) -> Thread:
        try:
            yield from self.main()
            how = "finished"
        except JobFailed as failure:
            how = f"failed: {failure}"
        except JobOver:
            self.end("latecomer")
            return
        except Fenced:
            self.end("fenced")
            self.cluster.supervise(self)
            return
        except PsysError as error:
            how = f"error: {error}"
            self.update(phase=TaskPhase.FAILED, reason=str(error))
            try:
                yield from self.wait_for(
                    lambda one: one.verdict is not None, FAREWELL_SECS, despite_verdict=True
                )
            except (PsysError, JobOver):
                self.end(how)
                return
        if self.alive:
            self.update(heard_verdict=True)
            # As RemoteLink.close: what is left to be told is told first.
            yield Wait(at_most_secs=0.2)
            self.end(how)
