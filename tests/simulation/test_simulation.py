"""A whole cluster on a virtual clock and network, hundreds of times, each time otherwise.

A failure prints its seed and what happened. Look at it again with, from ``tests/``:
``python -c "from simulation.cluster import simulate; simulate(SEED)"``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from simulation.cluster import Options, plan_of, simulate
from simulation.invariants import Violation

from psys.ps.grants import Grants
from psys.ps.job import Job
from psys.ps.memory_shard import NO_FENCE, MemoryShard, Served
from psys.ps.messages import ExchangeReply, ExchangeRequest, Fences, Grant
from psys.ps.node import Node
from psys.ps.roster import Roster

CHUNK = 75


@pytest.mark.parametrize("chunk", range(8))
def test_the_protocol_holds_whatever_fails(chunk: int) -> None:
    for seed in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        simulate(seed)


@pytest.mark.chaos
@pytest.mark.parametrize("chunk", range(100))
def test_the_protocol_holds_whatever_fails_many_times(chunk: int) -> None:
    for seed in range(10_000 + chunk * CHUNK, 10_000 + (chunk + 1) * CHUNK):
        simulate(seed)


def test_a_seed_tells_the_same_story_twice() -> None:
    first, second = simulate(7), simulate(7)
    assert first.clock.trace == second.clock.trace
    assert first.clock.now == second.clock.now


def test_without_failures_every_job_finishes() -> None:
    for seed in range(20):
        cluster = simulate(seed, plan=replace(plan_of(seed), failures=0))
        assert {one.exit for one in cluster.all} == {"finished"}


# What follows breaks the core on purpose: a simulation that cannot fail proves nothing.


class ForgetfulShard(MemoryShard):
    """Forgets that it has applied a push."""

    def _serve(self, request: ExchangeRequest) -> ExchangeReply:
        fence = self.fences.get(request.task)
        if fence is not None and request.push is not None and request.sequence == fence.sequence:
            self.fences[request.task] = fence._replace(sequence=fence.sequence - 1)
        return super()._serve(request)


class UnheldShard(MemoryShard):
    """Lets pushes go on while it is held."""

    def _must_wait(self, request: ExchangeRequest) -> bool:
        return False


class DeafShard(MemoryShard):
    """Takes pushes of any generation, as if they were the next."""

    def _serve(self, request: ExchangeRequest) -> ExchangeReply:
        if request.push is not None and request.generation != self.generation:
            fence = self.fences.get(request.task, NO_FENCE)
            member = max(request.member, fence.member)
            sequence = fence.sequence + 1 if member == fence.member else 1
            request = replace(request, generation=self.generation, member=member, sequence=sequence)
        return super()._serve(request)


class ImpatientShard(MemoryShard):
    """Cuts as soon as it is told to, without what it has yet to let in."""

    def _cut_complete(self, cut: Fences) -> bool:
        return True


class LenientShard(MemoryShard):
    """Serves whom the lead gave up for lost."""

    def exchange(self, caller: object, request: ExchangeRequest) -> list[Served]:
        self.refused.clear()
        return super().exchange(caller, request)


class GenerousGrants(Grants):
    """Grants whatever is asked for."""

    def ask(self, task: str, member: int) -> Grant:
        self.out[task] = member
        return Grant.GO


class StubbornGrants(Grants):
    """Keeps to why a chief before wanted to stop."""

    def resume(self) -> None:
        pass


class GreedyGrants(Grants):
    """Takes nothing back."""

    def give_back(self, task: str, member: int) -> None:
        pass


class ForgetfulRoster(Roster):
    """Gives every process of a task the same number."""

    def next_number(self) -> int:
        return 1


Break = Callable[[Node], None]


def with_shard(kind: type[MemoryShard]) -> Break:
    def break_it(node: Node) -> None:
        node.shard.__class__ = kind

    return break_it


def with_grants(kind: type[Grants]) -> Break:
    def break_it(node: Node) -> None:
        if node.lead is not None:
            node.lead.grants = kind()

    return break_it


def with_roster(node: Node) -> None:
    if node.lead is not None:
        node.lead.roster = ForgetfulRoster()


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        pytest.param(with_shard(ForgetfulShard), "applies once", id="no duplicate"),
        pytest.param(with_shard(UnheldShard), "lets in what is ≤ V", id="no hold"),
        pytest.param(with_shard(ImpatientShard), "consistent cut", id="no wait for the cut"),
        pytest.param(with_shard(DeafShard), "of another", id="no generation"),
        pytest.param(with_shard(LenientShard), "beyond max_steps", id="no refusal"),
        pytest.param(with_grants(GenerousGrants), "beyond max_steps", id="no limit"),
        pytest.param(with_grants(StubbornGrants), "exactly max_steps", id="old stop reason"),
        pytest.param(with_grants(GreedyGrants), "every role hears", id="lost grants"),
        pytest.param(with_roster, "one process", id="no member numbers"),
    ],
)
def test_a_broken_core_is_found_out(break_it: Break, sentence: str) -> None:
    def broken(index: int, new_id: Callable[[], str], job: Job | None) -> Node:
        node = Node(index, new_id, job)
        break_it(node)
        return node

    def found() -> str:
        for seed in range(200):
            try:
                simulate(seed, Options(node=broken))
            except Violation as violation:
                if sentence in str(violation).partition("\n")[0]:
                    return str(violation)
        return ""

    message = found()
    assert "seed " in message
    assert "starts" in message  # the trace is there to be read
