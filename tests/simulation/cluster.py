"""A whole virtual cluster, its plan drawn from a seed, and the failures that befall it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from simulation.chief import Chief
from simulation.evaluator import Evaluator
from simulation.invariants import Disk, Invariants, Violation, check
from simulation.network import Clock, Process, Stream, Weather
from simulation.ps import LeadServer, Ps, Server
from simulation.tasks import Task
from simulation.trainers import Worker

from psys.errors import ModelError
from psys.ps.endings import Limits
from psys.ps.job import Job
from psys.ps.messages import ASYNC, Consistency, Policy
from psys.ps.node import Node

LIMITS = Limits(start_timeout_secs=40.0, recover_secs=25.0, linger_secs=20.0)
BOUND_SECS = 400.0
"""A job that has not ended by then never will."""

Runner = LeadServer | Task


@dataclass(frozen=True)
class Plan:
    """What is run, and what goes wrong.

    Attributes:
        num_ps: how many ps.
        workers: how many workers besides the chief.
        evaluator: whether one is listed.
        max_steps: the global step to end at, 0 for none.
        input_steps: batches each trainer has; 0 for no end.
        save_every: steps between checkpoints.
        failures: how many things happen to processes.
        storm_secs: within how long.
        lasting: whether a killed process may stay away.
        weather: of the network, until the storm is over.
        policy: when gradients become updates.
    """

    num_ps: int
    workers: int
    evaluator: bool
    max_steps: int
    input_steps: int
    save_every: int
    failures: int
    storm_secs: float
    lasting: bool
    weather: Weather
    policy: Policy = ASYNC


def plan_of(seed: int) -> Plan:
    """Draw a plan."""
    draw = random.Random(f"plan {seed}")
    finite = draw.random() < 0.25
    rough = draw.random() < 0.7
    return Plan(
        num_ps=draw.choice((1, 2, 2, 3)),
        workers=draw.choice((0, 1, 2, 2, 3)),
        evaluator=draw.random() < 0.4,
        max_steps=0 if finite else draw.randint(5, 70),
        input_steps=draw.randint(1, 20) if finite else 0,
        save_every=draw.randint(1, 12),
        failures=draw.choice((0, 1, 2, 3, 4, 6)),
        storm_secs=draw.choice((2.0, 4.0, 8.0)),
        lasting=draw.random() < 0.15,
        weather=Weather(
            delay_secs=draw.choice((0.004, 0.03, 0.2)),
            break_chance=draw.choice((0.002, 0.01, 0.03)) if rough else 0.0,
            lose_chance=0.02 if rough else 0.0,
            repeat_chance=0.05 if rough else 0.0,
            half_open_chance=0.3 if rough else 0.0,
        ),
        policy=draw.choice(
            (
                ASYNC,
                Policy(Consistency.BOUNDED, staleness=draw.choice((0, 1, 3))),
                Policy(Consistency.SYNC, replicas=draw.choice((0, 0, 1, 2, 3))),
            )
        ),
    )


@dataclass(frozen=True)
class Options:
    """What a test may change.

    Attributes:
        node: makes a ps's Node; a broken one shows that the invariants notice.
        write_secs: how long writing a shard file takes at most.
    """

    node: Callable[[int, Callable[[], str], Job | None], Node] = Node
    write_secs: float = 0.5


class Cluster:
    """All processes of one job."""

    def __init__(self, seed: int, plan: Plan, options: Options) -> None:
        self.seed, self.plan, self.options = seed, plan, options
        self.clock = Clock(seed)
        self.weather = plan.weather
        self.limits = LIMITS
        self.disk = Disk()
        self.invariants = Invariants(self.disk, plan)
        self.evaluated: set[str] = set()
        """Checkpoint ids in the evaluator's ledger on disk."""
        self._ids = 0
        ps = tuple(f"ps:{index}" for index in range(plan.num_ps))
        trainers = ("chief", *(f"worker:{index}" for index in range(plan.workers)))
        self.job = Job(ps, trainers, plan.evaluator, limits=LIMITS)
        self.names = (*ps, *trainers, *(("evaluator",) if plan.evaluator else ()))
        self.now_running: dict[str, Runner] = {}
        self.all: list[Runner] = []
        self.lasting_loss = False
        self._to_start = len(self.names)

    def new_id(self) -> str:
        """Return an id as the processes make them, but the same for the same seed."""
        self._ids += 1
        return f"id{self._ids}"

    def job_of_a_new_lead(self) -> Job:
        """Return what a lead that starts now reads from configuration and disk."""
        disk = self.disk
        return replace(
            self.job, ended=None if disk.verdict is None else (disk.verdict_run, disk.verdict)
        )

    # ------------------------------------------------------------ who is where

    @property
    def lead(self) -> LeadServer:
        """The process at the lead's address, dead or alive."""
        lead = self.now_running["ps:0"]
        assert isinstance(lead, LeadServer)
        return lead

    def server(self, index: int) -> Server:
        """Return the process at a ps's address, dead or alive."""
        if index == 0:
            return self.lead
        ps = self.now_running[f"ps:{index}"]
        assert isinstance(ps, Ps)
        return ps.server

    def start(self, name: str) -> None:
        """Start a process in a task's place."""
        self._to_start -= 1
        kind, _, index = name.partition(":")
        if kind == "ps" and self.now_running[name].alive:
            return  # the address is in use
        runner: Runner
        if kind == "ps":
            runner = Ps(self, int(index)) if int(index) else LeadServer(self)
        elif kind == "chief":
            before = self.now_running.get(name)
            self.invariants.two_chiefs |= before is not None and before.alive
            runner = Chief(self, name)
        else:
            runner = Worker(self, name) if kind == "worker" else Evaluator(self, name)
        self.clock.log(name, "starts")
        self.now_running[name] = runner
        self.all.append(runner)
        runner.begin()

    # ------------------------------------------------------------ running

    def run(self) -> None:
        """Run the job to its end.

        Raises:
            Violation: with seed and trace, if a sentence of the protocol was broken.
        """
        try:
            self._begin()
            self.clock.run(100.0 + BOUND_SECS, self._over)
            exits = {f"{one.name}#{i}": one.exit for i, one in enumerate(self.all)}
            self.invariants.ended(exits, self.plan.evaluator, self.evaluated)
            verdict = self.disk.verdict
            check(
                self.lasting_loss or (verdict is not None and verdict.finished),
                "the job goes on when what was lost comes back",
                verdict,
            )
        except Exception as failure:
            self.clock.log("FAILURE", repr(failure))
            trace = "\n".join(self.clock.trace)
            raise Violation(f"seed {self.seed}: {failure}\n{self.plan}\n{trace}") from failure

    def _begin(self) -> None:
        draw = self.clock.random
        # Addresses exist before anyone is there: what is not started refuses connections.
        for name in self.names:
            if name.startswith("ps"):
                index = int(name[3:])
                absent: Runner = Ps(self, index) if index else LeadServer(self)
                absent.end("not started")
                self.now_running[name] = absent
        self.clock.trace.clear()
        for name in self.names:
            self.clock.after(2.0 * draw.random(), lambda name=name: self.start(name))  # type: ignore[misc]
        for _ in range(self.plan.failures):
            self.clock.after(0.5 + self.plan.storm_secs * draw.random(), self._befall)
        self.clock.after(self.plan.storm_secs + 5.0, self._calm)

    def _calm(self) -> None:
        self.weather = Weather(delay_secs=self.plan.weather.delay_secs)

    def _over(self) -> bool:
        return not self._to_start and not any(one.alive for one in self.all)

    # ------------------------------------------------------------ failures

    def _befall(self) -> None:
        """Let something happen to somebody."""
        draw = self.clock.random
        name = draw.choice(self.names)
        victim = self.now_running.get(name)
        if victim is None or not victim.alive or self.disk.verdict is not None:
            return
        what = draw.choice(("kill", "kill", "kill", "lose", "pause", "sever", "term", "twin"))
        if self.plan.lasting and isinstance(victim, Task) and draw.random() < 0.2:
            what, victim.failure = "crash", ModelError("a bug of the user's")
        if what == "pause":
            victim.pause(draw.choice((0.3, 2.0, 5.0, 14.0)))
        elif what == "sever":
            for stream in list(self._streams(victim)):
                stream.break_off()
        elif what == "twin" and not name.startswith("ps") and name != "evaluator":
            victim.pause(draw.choice((5.0, 14.0)))
            self._start_again(name, 0.5)
        elif what == "crash":
            self.clock.log(name, "meets an exception")
            self.lasting_loss = True
        elif what == "term":
            self.clock.log(name, "is asked to end")
            victim.sigterm()
            self._to_start += 1
            self._start_when_gone(name, victim)
        else:
            self.clock.log(name, "is killed" if what == "kill" else "is lost with its host")
            victim.end("killed", 0.01 if what == "kill" else 6.0)
            if self.plan.lasting and draw.random() < 0.5:
                self.lasting_loss = True
            else:
                self._start_again(name, draw.choice((0.05, 0.5, 2.0, 5.0)))

    @staticmethod
    def _streams(victim: Process) -> list[Stream]:
        server = victim.server if isinstance(victim, Ps) else victim
        return [*victim.streams, *(server.streams if server is not victim else ())]

    def supervise(self, fenced: Task) -> None:
        """Start a process again that gave way to another, if that other is gone too."""
        if self.now_running[fenced.name] is fenced:
            self._start_again(fenced.name, 1.0)

    def _start_again(self, name: str, delay_secs: float) -> None:
        self._to_start += 1
        self.clock.after(delay_secs, lambda: self.start(name))

    def _start_when_gone(self, name: str, victim: Runner) -> None:
        """Start a process again once it left by itself, unless the job is over."""
        if victim.alive and self.disk.verdict is None:
            self.clock.after(0.5, lambda: self._start_when_gone(name, victim))
        elif self.disk.verdict is None and self.now_running[name] is victim:
            self.start(name)
        else:
            self._to_start -= 1


def simulate(seed: int, options: Options | None = None, plan: Plan | None = None) -> Cluster:
    """Run one seed; return the cluster as it ended.

    Raises:
        Violation: if a sentence of the protocol was broken.
    """
    cluster = Cluster(seed, plan or plan_of(seed), options or Options())
    cluster.run()
    return cluster
