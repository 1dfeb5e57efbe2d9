"""A small job with a real server: one ps with the lead, its chief, and a model that is live."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from psys.arrays import VariableSpec
from psys.attendance import Attendance
from psys.checkpoint.storage import MemoryStorage
from psys.host import NodeHost, new_id
from psys.initializers import Constant
from psys.local import LocalLink
from psys.optimizers import GradientDescentOptimizer
from psys.ps.job import Job
from psys.ps.messages import CheckpointEntry, ChiefFacts, Report, ShardFile
from psys.ps.shard import LoadedSlice
from psys.rpc.server import Server

SMALL_PS = str(Path(__file__).with_name("small_ps.py"))
SGD = GradientDescentOptimizer(1.0).to_config()
WEIGHT = VariableSpec("weight", (2, 3), "float32", Constant(1.0), SGD)
TABLE = VariableSpec("table", (100, 2), "float32", Constant(), SGD, sparse=True)


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@dataclass
class SmallJob:
    """A job whose chief is this test."""

    host: NodeHost
    storage: MemoryStorage
    address: str
    server: Server
    chief: Attendance
    generation: str = ""
    member: int = 0

    def go_live(self, specs: Sequence[VariableSpec] = (WEIGHT, TABLE)) -> None:
        """Load a model and wait until it lives."""
        self.chief.begin()
        ordered = self.chief.wait_for(
            lambda one: one.chief is not None and bool(one.chief.initialize), "orders", 20
        )
        assert ordered.chief is not None
        self.generation = ordered.chief.initialize
        self.host.load(self.generation, [LoadedSlice(one, 0, one.rows) for one in specs])
        self.update_chief(loaded=self.generation)
        live = self.chief.wait_for(lambda one: one.generation == self.generation, "life", 20)
        self.member = live.member

    def update_chief(self, **changes: object) -> None:
        facts = self.chief.report.chief
        assert facts is not None
        self.chief.update(chief=replace(facts, **changes))  # type: ignore[arg-type]

    def commit(self, *entries: CheckpointEntry) -> None:
        self.update_chief(committed=entries)


@pytest.fixture
def new_job() -> Iterator[Callable[..., SmallJob]]:
    with contextlib.ExitStack() as stack:

        def make(token: str | None = None, address: str = "") -> SmallJob:
            address = address or free_address()
            host = NodeHost(
                0,
                lambda snapshot: ShardFile("file", 1, "hash"),
                Job(("ps:0",), ("chief", "worker:0")),
            )
            stack.callback(host.close)
            storage = MemoryStorage()
            server = Server(host, storage, address, tasks=3, token=token)
            stack.callback(server.stop, 0.0)
            report = Report("chief", new_id(), 0, model_digest="model", chief=ChiefFacts())
            chief = Attendance(report, LocalLink(host), 20.0, 20.0)
            stack.callback(chief.close)
            return SmallJob(host, storage, address, server, chief)

        yield make


@dataclass
class SmallPs:
    """A ps in a process of its own."""

    address: str
    process: subprocess.Popen[str]

    def kill(self) -> None:
        """Kill it as ``kill -9`` does."""
        self.process.kill()
        self.process.wait()


@pytest.fixture
def small_ps() -> Iterator[Callable[..., SmallPs]]:
    """Start ``small_ps.py``; return when it serves."""
    started: list[SmallPs] = []

    def start(
        generation: str = "", address: str = "", rows: int = 3, **environment: str
    ) -> SmallPs:
        address = address or free_address()
        command = [sys.executable, SMALL_PS, address]
        command += [generation, str(rows)] if generation else []
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
        )
        started.append(SmallPs(address, process))
        assert process.stdout is not None
        assert process.stdout.readline() == "serving\n"
        return started[-1]

    yield start
    for one in started:
        one.kill()
        assert one.process.stdout is not None
        one.process.stdout.close()


@pytest.fixture
def job(new_job: Callable[..., SmallJob]) -> SmallJob:
    return new_job()
