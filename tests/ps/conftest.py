from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from psys.arrays import Array, Gradient, IndexedSlices, VariableSpec
from psys.initializers import Constant
from psys.ps.directives import directive_to
from psys.ps.job import Job
from psys.ps.memory_shard import MemoryShard
from psys.ps.messages import (
    ChiefFacts,
    Directive,
    ExchangeReply,
    ExchangeRequest,
    Fences,
    Policy,
    Report,
    ShardFacts,
    ShardFile,
    ShardOrders,
    ShardPhase,
    TaskPhase,
)
from psys.ps.node import Node
from psys.ps.shard import LoadedSlice

SGD = {"kind": "SGD", "learning_rate": 1.0}
DENSE = VariableSpec("dense", (2,), "float32", Constant(), SGD)
TABLE = VariableSpec("table", (4, 1), "float32", Constant(), SGD, sparse=True)
FIXED = VariableSpec("fixed", (1,), "float32", Constant(3.0))


def slices() -> list[LoadedSlice]:
    return [LoadedSlice(spec, 0, spec.rows) for spec in (DENSE, TABLE, FIXED)]


def ones() -> dict[str, Gradient]:
    """A push that adds one to all of ``dense`` and to row 2 of ``table``."""
    return {
        "dense": np.full(2, -1, np.float32),
        "table": IndexedSlices(np.array([2], np.int64), np.full((1, 1), -1, np.float32)),
    }


def make_request(
    sequence: int = 0,
    push: Mapping[str, Gradient] | None = None,
    *,
    task: str = "worker:0",
    member: int = 1,
    generation: str = "g",
    rows: Mapping[str, Array] | None = None,
    wants_grant: bool = False,
    base_version: int = 0,
) -> ExchangeRequest:
    return ExchangeRequest(
        generation, task, member, sequence, base_version, push, True, rows or {}, wants_grant
    )


class ShardBench:
    """A live shard with its orders, to be changed one at a time."""

    def __init__(self) -> None:
        self.shard = MemoryShard(0)
        self.orders = ShardOrders("g", ShardPhase.LOADING)
        self.shard.obey(self.orders)
        self.shard.load("g", slices())
        self.obey(phase=ShardPhase.LIVE)

    def obey(self, **changes: Any) -> list[ExchangeReply]:
        self.orders = ShardOrders(**{**self.orders.__dict__, **changes})
        return [served.reply for served in self.shard.obey(self.orders)]

    def begin(self, policy: Policy, loaded: Sequence[LoadedSlice] | None = None) -> None:
        """Load the model anew, to be trained under a policy."""
        self.obey(generation="", phase=ShardPhase.EMPTY)
        self.obey(generation="g", phase=ShardPhase.LOADING)
        self.shard.load("g", slices() if loaded is None else list(loaded))
        self.obey(phase=ShardPhase.LIVE, policy=policy)

    def offer(
        self, task: str, sequence: int, gradient: float = -1.0, **changes: Any
    ) -> list[ExchangeReply]:
        """Push one gradient of ``dense``; the task is the caller too."""
        push = {"dense": np.full(2, gradient, np.float32)}
        return self.exchange(make_request(sequence, push, task=task, **changes), task)

    def hold(self, save: str) -> None:
        assert self.obey(save=save, cut=None) == []

    def cut(self, cut: Fences, step: int = 0) -> list[ExchangeReply]:
        return self.obey(cut=cut, cut_step=step)

    def exchange(self, request: ExchangeRequest, caller: str = "c") -> list[ExchangeReply]:
        return [served.reply for served in self.shard.exchange(caller, request)]

    def push(self, sequence: int, caller: str = "c", **changes: Any) -> ExchangeReply:
        (reply,) = self.exchange(make_request(sequence, ones(), **changes), caller)
        return reply

    @staticmethod
    def ones() -> dict[str, Gradient]:
        return ones()

    @property
    def count(self) -> float:
        """How many pushes were applied."""
        return float(self.shard.slices["dense"].value[0])


class LeadBench:
    """The lead's node, with the other ps and all tasks played by the test."""

    def __init__(self, num_ps: int = 1, workers: int = 1, **job: Any) -> None:
        ids = itertools.count(1)
        self.job = Job(
            tuple(f"ps:{i}" for i in range(num_ps)),
            ("chief", *(f"worker:{i}" for i in range(workers))),
            **job,
        )
        self.node = Node(0, lambda: f"id{next(ids)}", self.job)
        assert self.node.lead is not None
        self.lead = self.node.lead
        self.now = 0.0
        self.chief = ChiefFacts()
        self._revisions = itertools.count(1)
        self._policy: Policy | None = None
        self._phases: dict[tuple[str, str], TaskPhase] = {}
        self._generations: dict[tuple[str, str], str] = {}
        self.told: dict[tuple[str, str], Directive] = {}
        self.replies: list[tuple[Any, ExchangeReply]] = []

    # ------------------------------------------------------------ time and reports

    def pass_time(self, secs: float, live: tuple[str, ...] = ()) -> None:
        """Let time pass in ticks; ``live`` tasks renew their leases."""
        until = self.now + secs
        while self.now < until - 1e-9:
            self.now += min(0.5, until - self.now)
            for task in live:
                self.say(task)
            self.tick()

    def tick(self) -> None:
        self._take(self.node.tick(self.now))

    def say(self, task: str, instance: str = "", **facts: Any) -> None:
        """Send a task's report; phase and generation stay until others are given."""
        key = (task, instance or task)
        phase = facts.pop("phase", self._phases.get(key, TaskPhase.JOINING))
        self._phases[key] = phase
        facts.setdefault("generation", self._generations.get(key, ""))
        self._generations[key] = facts["generation"]
        if task == "chief":
            facts.setdefault("chief", self.chief)
        if task in self.job.trainers:
            facts.setdefault("policy", self._policy)
        report = Report(task, key[1], next(self._revisions), phase=phase, **facts)
        self._take(self.node.hear(report, self.now))

    def say_chief(self, instance: str = "", **changes: Any) -> None:
        """Change what the chief says of itself."""
        self.chief = ChiefFacts(**{**self.chief.__dict__, **changes})
        self.say("chief", instance)

    def say_shard(self, index: int, phase: ShardPhase, instance: str = "", **facts: Any) -> None:
        facts.setdefault("generation", self.lead.generation)
        self.say(f"ps:{index}", instance, shard=ShardFacts(index, phase, **facts))

    def obeyed(self, index: int, **facts: Any) -> None:
        """Let another ps say that it is as ordered."""
        orders = self.lead.shard_orders()
        facts = {"refused": orders.refused, "held": orders.save, **facts}
        self.say_shard(index, orders.phase, **facts)

    def break_stream(self, task: str, instance: str = "") -> None:
        self._take(self.node.stream_broken((task, instance or task), self.now))

    def directive(self, task: str, instance: str = "") -> Directive:
        return directive_to(self.lead, (task, instance or task))

    def _take(self, replies: list[tuple[Any, ExchangeReply]]) -> None:
        self.replies += replies
        self.told |= self.node.take_directives()

    # ------------------------------------------------------------ a live model

    def go_live(self, max_steps: int = 0, step: int = 0, trainers: tuple[str, ...] = ()) -> None:
        """Bring the job to the point where steps are granted."""
        for index in range(1, len(self.job.ps)):
            self.say_shard(index, ShardPhase.EMPTY, generation="")
        self.say_chief(max_steps=max_steps)
        for task in trainers or self.job.trainers:
            self.say(task)
        self.load(step)
        for task in trainers or self.job.trainers:
            self.say(task, phase=TaskPhase.WORKING, generation=self.lead.generation)

    def load(self, step: int = 0) -> None:
        """Load the model the lead has ordered, everywhere."""
        generation = self.lead.generation
        for index in range(1, len(self.job.ps)):
            self.say_shard(index, ShardPhase.LOADING)
        self.load_shard(generation)
        for index in range(1, len(self.job.ps)):
            self.say_shard(index, ShardPhase.LOADED)
        self.say_chief(loaded=generation, loaded_step=step)
        for index in range(1, len(self.job.ps)):
            self.say_shard(index, ShardPhase.LIVE)
        assert self.lead.live

    def load_shard(self, generation: str) -> None:
        """Let the chief load the lead's own shard."""
        self._take(self.node.load(generation, slices(), self.now))

    # ------------------------------------------------------------ steps

    def go_live_under(self, policy: Policy, **options: Any) -> None:
        """Go live; every trainer says that it trains under ``policy``."""
        self._policy = policy
        self.go_live(**options)

    def number(self, task: str) -> int:
        return self.lead.roster.members[task].number

    def exchange(
        self, task: str, sequence: int, push: bool, wants_grant: bool = True, base: int = 0
    ) -> None:
        request = make_request(
            sequence,
            ones() if push else None,
            task=task,
            member=self.number(task),
            generation=self.lead.generation,
            wants_grant=wants_grant,
            base_version=base,
        )
        self._take(self.node.exchange(task, request, self.now))

    def pull(self, task: str, sequence: int = 0) -> ExchangeReply | None:
        """Ask for a grant; return the reply if it came at once."""
        self.exchange(task, sequence, push=False)
        return self.reply_to(task)

    def step(
        self, task: str, sequence: int, wants_grant: bool = True, base: int = 0
    ) -> ExchangeReply | None:
        self.exchange(task, sequence, push=True, wants_grant=wants_grant, base=base)
        return self.reply_to(task)

    def reply_to(self, task: str) -> ExchangeReply | None:
        mine = [reply for caller, reply in self.replies if caller == task]
        self.replies = [one for one in self.replies if one[0] != task]
        return mine[-1] if mine else None

    def write(self) -> None:
        """Write the cut that was taken on the lead's own shard."""
        snapshot = self.node.take_snapshot()
        assert snapshot is not None
        file = ShardFile("shard-0", 1, "hash")
        self._take(self.node.written(snapshot.save, file, "", self.now))


@pytest.fixture
def bench() -> ShardBench:
    return ShardBench()


@pytest.fixture
def request_of() -> Callable[..., ExchangeRequest]:
    return make_request


@pytest.fixture
def make_lead() -> Callable[..., LeadBench]:
    return LeadBench
