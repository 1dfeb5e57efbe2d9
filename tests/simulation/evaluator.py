"""A virtual evaluator: evaluates the newest checkpoint, and the final one in any case."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from simulation.network import Stream, Thread, Wait
from simulation.ps import News
from simulation.tasks import REOPEN_SECS, Task

from psys.errors import ClusterError, JobFailed
from psys.ps.messages import CheckpointEntry, EvaluatorFacts, TaskPhase, Verdict

if TYPE_CHECKING:
    from simulation.cluster import Cluster


class Evaluator(Task):
    """Watches, evaluates, hears the verdict."""

    def __init__(self, cluster: Cluster, task: str) -> None:
        super().__init__(cluster, task, evaluator=EvaluatorFacts())
        self._entries: tuple[CheckpointEntry, ...] = ()
        self._verdict: Verdict | None = None
        self._news_at_secs = cluster.clock.now

    def _watch(self) -> None:
        lead = self.cluster.lead
        stream = Stream(
            self.cluster.weather,
            self,
            lead,
            self._take,
            lambda: self.after(REOPEN_SECS, self._watch),
        )
        lead.accept_watch(stream)
        stream.send_up("watch")

    def _take(self, news: News) -> None:
        self._entries, self._verdict = news
        self._news_at_secs = self.clock.now

    def _tell(self, **changes: Any) -> None:
        assert self.report.evaluator is not None
        self.update(evaluator=replace(self.report.evaluator, **changes))

    def _next(self) -> CheckpointEntry | None:
        """Return what is to be evaluated now: the final one, else the newest."""
        done, facts = self.cluster.evaluated, self.report.evaluator
        assert facts is not None
        final = [one for one in self._entries if one.final]
        if final:
            return final[-1] if final[-1].checkpoint_id not in facts.completed else None
        newest = self._entries[-1:]
        return newest[0] if newest and newest[0].checkpoint_id not in done else None

    def main(self) -> Thread:
        self.update(phase=TaskPhase.WORKING)
        self._watch()
        while True:
            yield Wait(lambda: self._next() is not None or self._verdict is not None, 0.5)
            entry = self._next()
            if entry is not None:
                yield from self._evaluate(entry)
                continue
            verdict = self._verdict or self.directive.verdict
            if verdict is not None:
                if not verdict.finished:
                    raise JobFailed(verdict.reason)
                return
            self.check()
            silent = self.clock.now - self._news_at_secs
            if not self.reachable and silent > self.cluster.limits.start_timeout_secs:
                raise ClusterError("no news")

    def _evaluate(self, entry: CheckpointEntry) -> Thread:
        facts = self.report.evaluator
        assert facts is not None
        self._tell(pins=frozenset({entry.checkpoint_id}), progress=f"step {entry.global_step}")
        if entry.checkpoint_id not in self.cluster.evaluated:
            yield Wait(at_most_secs=2.0 * self.clock.random.random())
        self.cluster.evaluated.add(entry.checkpoint_id)
        completed = facts.completed | ({entry.checkpoint_id} if entry.final else set())
        self._tell(pins=frozenset(), completed=completed)

    def sigterm(self) -> None:
        self.update(phase=TaskPhase.LEFT, reason="SIGTERM")
        self.after(0.1, lambda: self.end("left"))
