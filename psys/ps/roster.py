"""The roster: which tasks take part, under which number, and who is alive.

The lead admits a process under a member number larger than any before, keeps its last
report, and gives it up for lost once its lease is over. A broken stream shortens the lease;
a second process of the same name waits until the first is lost or has left.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from psys.ps.messages import Report, TaskName, TaskPhase

LEASE_SECS = 10.0
RENEWAL_SECS = 3.0
BROKEN_STREAM_LEASE_SECS = 1.5
"""What is left of a lease when the stream breaks: time to open another one."""

Instance = tuple[TaskName, str]
"""One process: its task and its random id."""

_ENDED = (TaskPhase.INPUT_ENDED, TaskPhase.LEFT, TaskPhase.FAILED)


@dataclass
class Member:
    """An admitted process.

    Attributes:
        instance: which process it is.
        number: its member number.
        report: the last it said.
        lease_until_secs: when it counts as lost unless it is heard of.
        lost_since_secs: when it was given up; None while it is live.
    """

    instance: Instance
    number: int
    report: Report
    lease_until_secs: float
    lost_since_secs: float | None = None

    @property
    def task(self) -> TaskName:
        """The member's task name."""
        return self.instance[0]

    @property
    def live(self) -> bool:
        """Whether the member is attending."""
        return self.lost_since_secs is None and self.report.phase is not TaskPhase.LEFT

    @property
    def trains(self) -> bool:
        """Whether the member may hold a grant."""
        return self.live and self.report.phase not in _ENDED

    def works_in(self, generation: str) -> bool:
        """Return whether the member has joined a generation, and said so."""
        return self.report.phase is TaskPhase.WORKING and self.report.generation == generation


@dataclass
class Twin:
    """A process that waits for the place of a live one of the same name."""

    report: Report
    lease_until_secs: float


class Roster:
    """Members by task, and the processes that wait for a place.

    Invariant: member numbers only grow, so a shard can order two processes of one task.
    """

    def __init__(self) -> None:
        self.members: dict[TaskName, Member] = {}
        self.twins: dict[Instance, Twin] = {}
        self.replaced: set[Instance] = set()
        """Processes that had a place once; another has it now."""
        self.seen: set[TaskName] = set()
        self._last_number = 0
        self._last_now: float | None = None

    def next_number(self) -> int:
        """Return a number larger than any given before."""
        self._last_number += 1
        return self._last_number

    def hear(self, report: Report, now: float) -> Member | None:
        """Note a report; return the member, or None for a process that has no place (yet)."""
        instance = (report.task, report.instance)
        member = self.members.get(report.task)
        if member is not None and member.instance == instance:
            if report.revision < member.report.revision:
                return member
            if member.lost_since_secs is not None:
                # A lost lease is not a death: the process comes back under a new number,
                # because shards may have been told to refuse the old one.
                member.lost_since_secs = None
                member.number = self.next_number()
            member.report = report
            member.lease_until_secs = now + LEASE_SECS
            return member
        if member is not None and 0 < report.member < member.number:
            self.replaced.add(instance)  # a lead before this one gave it the place
        if instance in self.replaced:
            return None
        if self._is_taken(report.task):
            self.twins[instance] = Twin(report, now + LEASE_SECS)
            return None
        return self._admit(report, now)

    def _is_taken(self, task: TaskName) -> bool:
        member = self.members.get(task)
        return member is not None and member.live and not member.report.heard_verdict

    def _admit(self, report: Report, now: float) -> Member:
        instance = (report.task, report.instance)
        if report.task in self.members:
            self.replaced.add(self.members[report.task].instance)
        self._last_number = max(self._last_number, report.member)
        member = Member(instance, self.next_number(), report, now + LEASE_SECS)
        self.members[report.task] = member
        self.seen.add(report.task)
        self.twins.pop(instance, None)
        return member

    def admit_twins(self, now: float) -> None:
        """Give places that became free to those who wait for them, the latest comer first."""
        for instance, twin in reversed(list(self.twins.items())):
            if twin.lease_until_secs <= now:
                del self.twins[instance]
            elif not self._is_taken(instance[0]):
                self._admit(twin.report, now)

    def stream_broken(self, instance: Instance, now: float) -> None:
        """Shorten the lease of a process whose stream broke."""
        until = now + BROKEN_STREAM_LEASE_SECS
        member = self.members.get(instance[0])
        if member is not None and member.instance == instance:
            member.lease_until_secs = min(member.lease_until_secs, until)
        self.twins.pop(instance, None)

    def proved_alive(self, task: TaskName, number: int, now: float) -> None:
        """Note that a member took a step just now, whatever became of its control stream."""
        member = self.members.get(task)
        if member is not None and member.number == number:
            until = now + BROKEN_STREAM_LEASE_SECS
            member.lease_until_secs = max(member.lease_until_secs, until)

    def note_clock(self, now: float) -> bool:
        """Return whether the clock jumped, because the lead was stopped or starved.

        Nobody could be heard meanwhile, so every lease is extended by a full one.
        """
        last, self._last_now = self._last_now, now
        if last is None or now - last <= LEASE_SECS / 3:
            return False
        leases: list[Member | Twin] = [*self.members.values(), *self.twins.values()]
        for one in leases:
            one.lease_until_secs = max(one.lease_until_secs, now + LEASE_SECS)
        return True

    def expire(self, now: float) -> list[Member]:
        """Give up those whose lease is over; return them."""
        lost = [
            member
            for member in self.members.values()
            if member.live and member.lease_until_secs <= now
        ]
        for member in lost:
            member.lost_since_secs = now
        return lost

    def get(self, task: TaskName) -> Member | None:
        """Return the live member of a task."""
        member = self.members.get(task)
        return member if member is not None and member.live else None

    def training(self, tasks: Iterable[TaskName], generation: str) -> dict[TaskName, int]:
        """Return the number of each trainer of ``tasks`` that takes part in ``generation``.

        For '' also of those that are only about to.
        """
        return {
            task: member.number
            for task in tasks
            if (member := self.members.get(task)) is not None
            and member.trains
            and (not generation or member.works_in(generation))
        }

    def live(self) -> list[Member]:
        """Return all live members."""
        return [member for member in self.members.values() if member.live]
