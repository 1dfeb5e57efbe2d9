"""What the lead decides for all shards at once: the updates of sync, the clocks of bounded.

Which gradients make an update, and from where a trainer's steps are counted, would come out
otherwise on each shard. Nothing here knows a gradient.
"""

from __future__ import annotations

from collections.abc import Mapping

from psys.ps.messages import (
    ASYNC,
    Consistency,
    Fences,
    Policy,
    ShardFacts,
    TaskName,
    UpdateOrder,
)


class Rounds:
    """Sync: one update after another, each of pushes that all shards hold.

    The next update is ordered only when every shard has made the last; so one order is all that
    a shard must be told, and at any point between two updates all shards agree.
    """

    def __init__(self) -> None:
        self.order: UpdateOrder | None = None
        """The last update ordered in this generation."""
        self.awaited: tuple[TaskName, ...] = ()
        """Live trainers whose gradient is not on all shards yet."""

    @property
    def number(self) -> int:
        """How many updates were ordered in this generation."""
        return 0 if self.order is None else self.order.number

    def begin(self) -> None:
        """Start a generation."""
        self.order, self.awaited = None, ()

    def advance(
        self,
        facts: Mapping[int, ShardFacts],
        live: Mapping[TaskName, int],
        replicas: int,
        global_step: int,
    ) -> bool:
        """Order the next update if there is enough for it; return whether it was ordered.

        Args:
            facts: of all shards.
            live: the member number of each trainer that may take part.
            replicas: how many gradients make an update; all there are, for 0 or fewer live.
            global_step: the step the update starts from.
        """
        if any(one.updates != self.number for one in facts.values()):
            return False
        complete = {
            task: push
            for task, push in facts[0].arrived.items()
            if live.get(task) == push[0]
            and all(one.arrived.get(task) == push for one in facts.values())
        }
        self.awaited = tuple(sorted(live.keys() - complete.keys()))
        if not complete or len(complete) < min(replicas or len(live), len(live)):
            return False
        self.order = UpdateOrder(self.number + 1, global_step, complete)
        return True


class Clocks:
    """Bounded: where each trainer's steps are counted from.

    A joiner starts at the clock of the slowest, as the lead's shard has it, once and for all: if
    each shard counted from elsewhere, two trainers could wait for each other for ever.
    """

    def __init__(self) -> None:
        self.started: dict[TaskName, tuple[int, int]] = {}
        """Member number and first clock of each live trainer."""
        self._steps: dict[tuple[TaskName, int], int] = {}

    def begin(self) -> None:
        """Start a generation."""
        self.started.clear()
        self._steps.clear()

    def applied(self, task: TaskName, member: int) -> None:
        """Count a step that the lead's shard applied."""
        self._steps[task, member] = self._steps.get((task, member), 0) + 1

    def advance(self, live: Mapping[TaskName, int]) -> None:
        """Let those go who do not take part any more, and those begin who now do."""
        for task, (member, _) in list(self.started.items()):
            if live.get(task) != member:
                del self.started[task]
        slowest = min(
            (
                start + self._steps.get((task, member), 0)
                for task, (member, start) in self.started.items()
            ),
            default=0,
        )
        for task, member in live.items():
            if task not in self.started:
                done = self._steps.get((task, member), 0)
                self.started[task] = (member, max(slowest - done, 0))

    def orders(self) -> Fences:
        """Return what shards are told."""
        return dict(self.started)


class Pace:
    """What goes on between trainers in one generation, by the chief's policy."""

    def __init__(self) -> None:
        self.policy = ASYNC
        self.sync = False
        """Whether the lead orders updates, and counts steps by them."""
        self.bounded = False
        """Whether trainers wait for the slowest."""
        self.rounds = Rounds()
        self.clocks = Clocks()

    def begin(self, policy: Policy) -> None:
        """Start a generation under a policy."""
        self.policy = policy
        self.sync = policy.consistency is Consistency.SYNC
        self.bounded = policy.consistency is Consistency.BOUNDED
        self.rounds.begin()
        self.clocks.begin()
