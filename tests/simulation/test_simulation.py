"""A whole cluster on a virtual clock and network, hundreds of times, each time otherwise.

A failure prints its seed and what happened. Look at it again with, from ``tests/``:
``python -c "from simulation.cluster import simulate; simulate(SEED)"``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from simulation.cluster import Options, plan_of, simulate
from simulation.invariants import Violation

from psys.arrays import Array
from psys.ps.fence import NO_FENCE
from psys.ps.grants import Grants
from psys.ps.job import Job
from psys.ps.memory_shard import MemoryShard, Served
from psys.ps.messages import (
    ASYNC,
    Consistency,
    ExchangeReply,
    ExchangeRequest,
    Fences,
    Grant,
    Outcome,
    Policy,
    ShardFacts,
    UpdateOrder,
)
from psys.ps.node import Node
from psys.ps.roster import Roster
from psys.ps.rounds import Clocks, Rounds
from psys.ps.saving import Saving

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

    def _serve(self, caller: object, request: ExchangeRequest) -> ExchangeReply | None:
        fence = self.fences.get(request.task)
        if fence is not None and request.push is not None and request.sequence == fence.sequence:
            self.fences[request.task] = fence._replace(sequence=fence.sequence - 1)
        return super()._serve(caller, request)


class UnheldShard(MemoryShard):
    """Lets pushes go on while it is held."""

    def _must_wait(self, request: ExchangeRequest) -> bool:
        return False


class DeafShard(MemoryShard):
    """Takes pushes of any generation, as if they were the next."""

    def _serve(self, caller: object, request: ExchangeRequest) -> ExchangeReply | None:
        if request.push is not None and request.generation != self.generation:
            fence = self.fences.get(request.task, NO_FENCE)
            member = max(request.member, fence.member)
            sequence = fence.sequence + 1 if member == fence.member else 1
            request = replace(request, generation=self.generation, member=member, sequence=sequence)
        return super()._serve(caller, request)


class ImpatientShard(MemoryShard):
    """Cuts as soon as it is told to, without what it has yet to let in."""

    def _cut_complete(self, cut: Fences) -> bool:
        return True


class OpenShard(MemoryShard):
    """Lets trainers run ahead (bounded)."""

    def waits_for(self, request: ExchangeRequest) -> list[str]:
        return []


class AcceptingShard(MemoryShard):
    """Keeps what came late for the next update (sync)."""

    def _take_in(self, request: ExchangeRequest, before: int) -> tuple[Outcome, int]:
        return super()._take_in(replace(request, base_version=self.version), before)


class ThriftyShard(MemoryShard):
    """Keeps what was left out of an update for the next (sync)."""

    def _make_update(self, order: UpdateOrder) -> None:
        kept = dict(self._kept._kept)
        super()._make_update(order)
        for (task, member), request in kept.items():
            if order.pushes.get(task, (0, 0))[0] != member:
                self._kept._kept[task, member] = request


class SmallMindedShard(MemoryShard):
    """Applies only the first of the gradients that were chosen (sync)."""

    def _make_update(self, order: UpdateOrder) -> None:
        first = dict(sorted(order.pushes.items())[: 1 + self.index])
        super()._make_update(replace(order, pushes=first))


class DroppingShard(MemoryShard):
    """Forgets what it keeps of a trainer that is gone (sync)."""

    def forget(self, caller: object) -> None:
        for one in self._parked:
            if one.caller == caller:
                self._kept._kept.pop((one.request.task, one.request.member), None)
        super().forget(caller)


class ThievingShard(MemoryShard):
    """Leaves out of a reply what the update after the known version changed."""

    def _dense(self, known: int | None) -> dict[str, Array]:
        return super()._dense(None if known is None else known + 1)


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


class OwnWayRounds(Rounds):
    """Goes by what one shard holds (sync)."""

    def advance(
        self, facts: Mapping[int, ShardFacts], live: Mapping[str, int], replicas: int, step: int
    ) -> bool:
        return super().advance({0: facts[0]}, live, replicas, step)


class LoyalRounds(Rounds):
    """Waits for whoever was ever there (sync)."""

    def advance(
        self, facts: Mapping[int, ShardFacts], live: Mapping[str, int], replicas: int, step: int
    ) -> bool:
        self.seen = getattr(self, "seen", {}) | dict(live)
        return super().advance(facts, self.seen, replicas, step)


class StuckClocks(Clocks):
    """Counts with trainers that are gone (bounded)."""

    def advance(self, live: Mapping[str, int]) -> None:
        gone = {task: one[0] for task, one in self.started.items() if task not in live}
        super().advance({**gone, **live})


class CarelessSaving(Saving):
    """Never says that shards are being cut, so that updates go on (sync)."""

    @property
    def cutting(self) -> bool:
        return False


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


def with_rounds(kind: type[Rounds]) -> Break:
    def break_it(node: Node) -> None:
        if node.lead is not None:
            node.lead.pace.rounds = kind()

    return break_it


def with_clocks(node: Node) -> None:
    if node.lead is not None:
        node.lead.pace.clocks = StuckClocks()


def with_careless_saving(node: Node) -> None:
    if node.lead is not None:
        node.lead.saving.__class__ = CarelessSaving


def with_roster(node: Node) -> None:
    if node.lead is not None:
        node.lead.roster = ForgetfulRoster()


BOUNDED, SYNC = Policy(Consistency.BOUNDED, staleness=1), Policy(Consistency.SYNC, replicas=2)


@pytest.mark.parametrize(
    ("policy", "break_it", "sentence"),
    [
        pytest.param(ASYNC, with_shard(ForgetfulShard), "applies once", id="no duplicate"),
        pytest.param(ASYNC, with_shard(UnheldShard), "lets in what is ≤ V", id="no hold"),
        pytest.param(ASYNC, with_shard(ImpatientShard), "consistent cut", id="no wait for the cut"),
        pytest.param(ASYNC, with_shard(DeafShard), "of another", id="no generation"),
        pytest.param(ASYNC, with_shard(LenientShard), "beyond max_steps", id="no refusal"),
        pytest.param(ASYNC, with_shard(ThievingShard), "leaves out only", id="left out"),
        pytest.param(ASYNC, with_grants(GenerousGrants), "beyond max_steps", id="no limit"),
        pytest.param(ASYNC, with_grants(StubbornGrants), "exactly max_steps", id="old stop reason"),
        pytest.param(ASYNC, with_grants(GreedyGrants), "every role hears", id="lost grants"),
        pytest.param(ASYNC, with_roster, "one process", id="no member numbers"),
        pytest.param(BOUNDED, with_shard(OpenShard), "until the slowest", id="bounded: no gate"),
        pytest.param(BOUNDED, with_clocks, "every role hears", id="bounded: waits for the lost"),
        pytest.param(
            SYNC, with_shard(AcceptingShard), "of the values before", id="sync: late ones kept"
        ),
        pytest.param(
            SYNC, with_shard(ThriftyShard), "told to be dropped", id="sync: left out ones kept"
        ),
        pytest.param(SYNC, with_shard(SmallMindedShard), "the same set", id="sync: a smaller set"),
        pytest.param(SYNC, with_shard(DroppingShard), "does not hold", id="sync: not kept"),
        pytest.param(SYNC, with_rounds(OwnWayRounds), "does not hold", id="sync: one shard's word"),
        pytest.param(
            SYNC, with_rounds(LoyalRounds), "every role hears", id="sync: waits for the lost"
        ),
        pytest.param(
            SYNC, with_careless_saving, "lets in what is ≤ V", id="sync: updates in a cut"
        ),
    ],
)
def test_a_broken_core_is_found_out(policy: Policy, break_it: Break, sentence: str) -> None:
    def broken(index: int, new_id: Callable[[], str], job: Job | None) -> Node:
        node = Node(index, new_id, job)
        break_it(node)
        return node

    def found() -> str:
        for seed in range(200):
            try:
                simulate(seed, Options(node=broken), replace(plan_of(seed), policy=policy))
            except Violation as violation:
                if sentence in str(violation).partition("\n")[0]:
                    return str(violation)
        return ""

    message = found()
    assert "seed " in message
    assert "starts" in message  # the trace is there to be read
