"""Attendance: one task's standing with the lead, from the task's side.

Reports go up, directives come down, both as whole state. A thread of its own renews the
lease, so a training thread that waits for a ps never costs the task its place. Every wait
says what for and since when. It decides nothing about the job.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from psys.errors import ClusterError, ConfigError, Fenced, JobFailed
from psys.ps.messages import Directive, Report, Standing
from psys.ps.roster import RENEWAL_SECS

logger = logging.getLogger("psys")

SAY_AFTER_SECS = 3.0
SAY_EVERY_SECS = 10.0


class LeadLink(ABC):
    """The way to the lead: within the process, or over gRPC."""

    @abstractmethod
    def start(self, attendance: Attendance) -> None:
        """Begin to carry; directives go to ``attendance.receive``."""

    @abstractmethod
    def send(self, report: Report) -> None:
        """Carry a report, or keep only the newest until it can be carried."""

    @abstractmethod
    def close(self) -> None:
        """Stop carrying."""


class Attendance:
    """Reports for one process, and the newest directive it was given."""

    def __init__(
        self,
        report: Report,
        link: LeadLink,
        start_timeout_secs: float = 300.0,
        recover_secs: float = 60.0,
    ) -> None:
        """Prepare to attend; ``begin`` begins.

        Args:
            report: the first report; ``update`` changes it.
            link: the way to the lead.
            start_timeout_secs: how long the lead may be out of reach before it was ever heard.
            recover_secs: the same once it was heard.
        """
        self._report = report
        self._link = link
        self._start_timeout_secs = start_timeout_secs
        self._recover_secs = recover_secs
        self._directive = Directive(revision=-1)
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._unreachable_since: float | None = time.monotonic()
        self._unreachable_why = "not reached yet"
        self._heard = False
        self._failure: BaseException | None = None
        self._begun = False
        self._listeners: list[Callable[[Directive], None]] = []
        self._renewal = threading.Thread(target=self._renew, name="psys-lease", daemon=True)
        self.out_of_reach: Callable[[float], Any] | None = None
        """Called while waiting for a lead that cannot be reached, with the seconds so far."""
        self.keep_run: Callable[[str], Any] | None = None
        """Called with the id of the run before the lead is told that this task knows it."""

    # ------------------------------------------------------------ the task's side

    @property
    def report(self) -> Report:
        """The report as it stands."""
        return self._report

    @property
    def directive(self) -> Directive:
        """The newest directive; revision −1 before the first."""
        return self._directive

    def begin(self) -> None:
        """Begin to attend; a second call changes nothing."""
        if self._begun:
            return
        self._begun = True
        self._link.start(self)
        self._link.send(self._report)
        self._renewal.start()

    def listen(self, listener: Callable[[Directive], None]) -> None:
        """Call ``listener`` with each new directive, from the link's thread.

        An exception in it ends every wait of this process.
        """
        self._listeners.append(listener)

    def update(self, **changes: Any) -> None:
        """Change fields of the report and send it."""
        with self._changed:
            report = replace(self._report, **changes)
            if report == self._report:
                return
            self._report = replace(report, revision=self._report.revision + 1)
            report = self._report
        self._link.send(report)

    def wait_for(
        self,
        condition: Callable[[Directive], bool],
        what: str,
        timeout_secs: float | None = None,
        despite_verdict: bool = False,
        idle: bool = False,
    ) -> Directive:
        """Wait until a directive fulfils ``condition``; return it.

        Args:
            condition: looked at for each new directive.
            what: what is waited for, to be said aloud after a while.
            timeout_secs: how long at most; None where the lead itself limits the wait.
            despite_verdict: whether to go on waiting although the job has failed.
            idle: whether this is how the task spends its life: then it is said only while the
                lead waits for somebody, or cannot be reached.

        Raises:
            JobFailed: if the job's verdict is FAILED.
            ConfigError: if the lead says this process does not belong to the job.
            Fenced: if another process took this one's place.
            ClusterError: if the lead is out of reach for too long, or the time is over.
        """
        begun = time.monotonic()
        said = begun + SAY_AFTER_SECS - SAY_EVERY_SECS
        while True:
            with self._changed:
                directive = self._directive
                if self._failure is not None:
                    raise self._failure
                if directive.revision >= 0 and condition(directive):
                    return directive
                self._check(directive, despite_verdict)
                now = time.monotonic()
                if timeout_secs is not None and now - begun >= timeout_secs:
                    raise ClusterError(
                        f"Waited {timeout_secs:.0f} s for {what}, in vain. "
                        f"{self._state(directive, now)}"
                    )
                if now - said >= SAY_EVERY_SECS:
                    said = now
                    self._say(what, now - begun, timeout_secs, directive, now, idle)
                self._changed.wait(0.5)
            unreachable = self._unreachable_since
            if self.out_of_reach is not None and unreachable is not None:
                self.out_of_reach(time.monotonic() - unreachable)

    @property
    def unreachable_secs(self) -> float:
        """How long the lead has been out of reach; 0 if it is not."""
        since = self._unreachable_since
        return 0.0 if since is None else time.monotonic() - since

    def wait_unreachable(self, timeout_secs: float) -> None:
        """Wait until the lead is out of reach, at most ``timeout_secs``."""
        with self._changed:
            self._changed.wait_for(lambda: self._unreachable_since is not None, timeout_secs)

    def check(self) -> None:
        """Raise what ``wait_for`` would, without waiting."""
        with self._changed:
            self._check(self._directive, despite_verdict=False)

    def close(self) -> None:
        """Stop attending: the last report is sent, and every wait ends with ClusterError."""
        with self._changed:
            if self._closed.is_set():
                return
            self._closed.set()
            self._changed.notify_all()
        if self._begun:
            self._link.close()

    @property
    def failure(self) -> BaseException | None:
        """What ends every wait of this process; None if nothing does."""
        return self._failure

    def fail(self, error: BaseException) -> None:
        """Let every wait of this process end with ``error``, from whichever thread."""
        with self._changed:
            self._failure = self._failure or error
            self._changed.notify_all()

    # ------------------------------------------------------------ the link's side

    def receive(self, directive: Directive) -> None:
        """Take in a directive, unless a newer one of the same lead is known."""
        with self._changed:
            self._unreachable_since = None
            self._heard = True
            known = self._directive
            if directive.lead == known.lead and directive.revision <= known.revision:
                return
            self._directive = directive
            self._take_over(directive)
            self._changed.notify_all()
        for listener in self._listeners:
            listener(directive)

    def _take_over(self, directive: Directive) -> None:
        """Note what the lead has to be told again in every renewal: it may be a new one."""
        news: dict[str, Any] = {}
        if directive.member:
            news["member"] = directive.member
        if directive.job_id and directive.standing is Standing.ADMITTED:
            if self.keep_run is not None and directive.job_id != self._report.job_id:
                self.keep_run(directive.job_id)
            news["job_id"] = directive.job_id
        report = replace(self._report, **news)
        if report != self._report:
            self._report = replace(report, revision=report.revision + 1)

    def unreachable(self, why: str) -> None:
        """Note that the lead cannot be reached."""
        with self._changed:
            if self._unreachable_since is None:
                self._unreachable_since = time.monotonic()
            self._unreachable_why = why
            self._changed.notify_all()

    # ------------------------------------------------------------ inside

    def _renew(self) -> None:
        while not self._closed.wait(RENEWAL_SECS):
            with self._changed:
                self._report = replace(self._report, revision=self._report.revision + 1)
                report = self._report
            self._link.send(report)

    def _check(self, directive: Directive, despite_verdict: bool) -> None:
        if self._failure is not None:
            raise self._failure
        if self._closed.is_set():
            raise ClusterError(f"{self._report.task} has stopped attending.")
        if directive.revision >= 0:
            verdict = directive.verdict
            if verdict is not None and not verdict.finished and not despite_verdict:
                raise JobFailed(verdict.reason)
            if directive.standing is Standing.REJECTED:
                raise ConfigError(directive.waiting_for)
            if directive.standing is Standing.REPLACED:
                raise Fenced(f"Another process has taken the place of {self._report.task}.")
        since = self._unreachable_since
        if since is not None:
            limit = self._recover_secs if self._heard else self._start_timeout_secs
            if time.monotonic() - since >= limit:
                raise ClusterError(
                    f"The lead was out of reach for {limit:.0f} s ({self._unreachable_why})."
                )

    def _state(self, directive: Directive, now: float) -> str:
        since = self._unreachable_since
        if since is not None:
            return (
                f"The lead has been out of reach for {now - since:.0f} s ({self._unreachable_why})."
            )
        return f"The lead waits for {directive.waiting_for}." if directive.waiting_for else ""

    def _say(
        self,
        what: str,
        waited: float,
        limit: float | None,
        directive: Directive,
        now: float,
        idle: bool,
    ) -> None:
        state = self._state(directive, now)
        if waited < SAY_AFTER_SECS or (idle and not state):
            return
        until = "" if limit is None else f" (at most {limit:.0f} s)"
        line = f"Waiting for {what} since {waited:.0f} s{until}."
        logger.info("%s", f"{line} {state}" if state else line)
