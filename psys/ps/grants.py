"""Grants: the lead's count of steps, taken and permitted.

A step is counted when the lead's shard applies its push. Steps counted plus grants out never
exceed max_steps, so a job ends at exactly that step. Stopping, for whatever reason, is
"grant no more"; drained is "no grant is out". In synchronous training all grants out are for
one step, the next update, which is counted when it is ordered.
"""

from __future__ import annotations

from psys.ps.messages import Grant, TaskName


class Grants:
    """Steps counted, and who may take the next.

    Invariant: ``max_steps == 0 or global_step + under_way <= max_steps``, once max_steps is
    known and unless the model was restored beyond it.
    """

    def __init__(self) -> None:
        self.global_step = 0
        self.max_steps = 0
        self.out: dict[TaskName, int] = {}
        """The member number of each task that may take one step."""
        self.stop_reason = ""
        self.together = False
        """Whether all grants are for one step (sync)."""

    def begin(self, global_step: int, together: bool = False) -> None:
        """Start a generation at ``global_step``: what was permitted before is void."""
        self.global_step, self.together = global_step, together
        self.out.clear()

    def stop(self, reason: str) -> None:
        """Grant no more; the first reason stays."""
        self.stop_reason = self.stop_reason or reason

    def resume(self) -> None:
        """Forget why there was to be no more: whoever asked for it is not in charge now."""
        self.stop_reason = ""

    @property
    def exhausted(self) -> bool:
        """Whether max_steps are counted."""
        return bool(self.max_steps) and self.global_step >= self.max_steps

    @property
    def stopping(self) -> bool:
        """Whether no more steps will be granted."""
        return bool(self.stop_reason) or self.exhausted

    @property
    def drained(self) -> bool:
        """Whether no step is under way and none will be."""
        return self.stopping and not self.out

    @property
    def under_way(self) -> int:
        """How many steps the grants out can make."""
        return bool(self.out) if self.together else len(self.out)

    def ask(self, task: TaskName, member: int) -> Grant:
        """Answer a task that wants to take a step; asking twice gives one grant."""
        if self.out.get(task) == member:
            return Grant.GO
        if self.stopping:
            return Grant.STOP
        room = self.max_steps - self.global_step - (0 if self.together else len(self.out))
        if self.max_steps and room <= 0:
            return Grant.WAIT
        self.out[task] = member
        return Grant.GO

    def applied(self, task: TaskName) -> None:
        """Count the step that a task was granted."""
        self.global_step += 1
        self.out.pop(task, None)

    def ordered(self) -> None:
        """Count the update that all grants out were for; who comes late will be dropped."""
        self.global_step += 1
        self.out.clear()

    def give_back(self, task: TaskName, member: int) -> None:
        """Take back the grant of a member that will not use it."""
        if self.out.get(task, member + 1) <= member:
            del self.out[task]
