"""Endings: the waits that may turn into a verdict, and the verdict itself.

A wait has a name, a beginning and a limit; a wait over its limit ends the job as FAILED with
its own sentence. The verdict is written once: the second writer is told the first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from psys.ps.messages import TaskName, TaskPhase, Verdict
from psys.ps.roster import Roster


@dataclass(frozen=True)
class Limits:
    """How long the lead waits, in seconds.

    Attributes:
        start_timeout_secs: for a task never seen.
        recover_secs: for a task that was lost.
        linger_secs: for tasks that have not heard the verdict.
    """

    start_timeout_secs: float = 300.0
    recover_secs: float = 60.0
    linger_secs: float = 60.0


class Waits:
    """What is waited for just now, and since when."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._current: dict[str, tuple[float, float]] = {}
        self._patient_until_secs = float("-inf")

    def begin_pass(self) -> None:
        """Start looking again; a wait not named in this pass is over."""
        self._current = {}

    def be_patient(self, until_secs: float) -> None:
        """Let no wait be over before: whoever is waited for may have come back unheard."""
        self._patient_until_secs = until_secs

    def note(self, what: str, limit_secs: float, now: float) -> bool:
        """Note that ``what`` is waited for; return whether that has gone on for too long."""
        since = self._since.get(what, now)
        self._current[what] = (since, limit_secs)
        return now >= max(since + limit_secs, self._patient_until_secs)

    def end_pass(self) -> None:
        """Forget the waits that are over."""
        self._since = {what: since for what, (since, _) in self._current.items()}

    def describe(self) -> str:
        """Return what is waited for, in one line; '' for nothing."""
        return "; ".join(
            what if math.isinf(limit) else f"{what} (at most {limit:.0f} s)"
            for what, (_, limit) in self._current.items()
        )


def overdue(
    tasks: Iterable[TaskName], roster: Roster, waits: Waits, limits: Limits, now: float
) -> str:
    """Note a wait for each of ``tasks`` that is not live; return why the job fails, or ''."""
    for task in tasks:
        if roster.get(task) is not None:
            continue
        if task in roster.seen:
            if waits.note(f"{task} to come back", limits.recover_secs, now):
                return f"{task} was lost and did not come back within {limits.recover_secs:.0f} s"
        elif waits.note(f"{task} to start", limits.start_timeout_secs, now):
            return f"{task} did not start within {limits.start_timeout_secs:.0f} s"
    return ""


def inputs_ended(
    trainers: Iterable[TaskName], roster: Roster, waits: Waits, limits: Limits, now: float
) -> tuple[bool, str]:
    """Return whether every listed trainer's input ended, and why the job fails, or ''.

    While any trainer works there is nothing to decide. Then one never seen, or lost, is
    waited for: its data is never left out in silence.
    """
    trainers = list(trainers)
    if any(member.trains for task in trainers if (member := roster.members.get(task))):
        return False, ""
    missing = [
        task
        for task in trainers
        if (member := roster.members.get(task)) is None
        or member.report.phase not in (TaskPhase.INPUT_ENDED, TaskPhase.LEFT)
    ]
    if not missing:
        return True, ""
    reason = overdue(missing, roster, waits, limits, now)
    return False, f"{reason}; its input was not trained on" if reason else ""


class Ending:
    """The verdict, and who has heard it."""

    def __init__(self) -> None:
        self.verdict: Verdict | None = None
        self._since = 0.0

    def conclude(self, verdict: Verdict, now: float) -> Verdict:
        """Set the verdict unless there is one; return the one that stands."""
        if self.verdict is None:
            self.verdict, self._since = verdict, now
        return self.verdict

    def unheard(self, listed: Iterable[TaskName], roster: Roster) -> list[TaskName]:
        """Return the listed or live tasks that have not acknowledged the verdict."""
        waiting = []
        for task in sorted({*listed, *roster.members}):
            member = roster.members.get(task)
            if member is None or not (
                member.report.heard_verdict
                or member.report.phase in (TaskPhase.FAILED, TaskPhase.LEFT)
            ):
                waiting.append(task)
        return waiting

    def may_leave(
        self, listed: Iterable[TaskName], roster: Roster, limits: Limits, now: float
    ) -> bool:
        """Return whether the lead may end: all have heard, or it lingered long enough."""
        if self.verdict is None:
            return False
        return not self.unheard(listed, roster) or now - self._since >= limits.linger_secs
