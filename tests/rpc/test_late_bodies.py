"""Nobody waits for ever for room that a client holds whose bytes do not come."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
import numpy as np
import pytest

from psys.arrays import VariableSpec
from psys.checkpoint.storage import MemoryStorage
from psys.errors import ShardTimeout, ShardUnavailable
from psys.host import NodeHost
from psys.initializers import Constant
from psys.optimizers import GradientDescentOptimizer
from psys.ps.messages import ExchangeRequest, Outcome, ShardFile, ShardOrders, ShardPhase
from psys.ps.shard import LoadedSlice
from psys.rpc import codec, in_flight
from psys.rpc.in_flight import InFlight
from psys.rpc.remote_shard import RemoteShard
from psys.rpc.server import Server

from .conftest import free_address

G = "aaaaaaaaaaaa"
MIB = 1 << 20
ROWS = 2 * MIB // 4
SGD = GradientDescentOptimizer(1.0).to_config()
SPEC = VariableSpec("weight", (ROWS,), "float32", Constant(), SGD)
ONES = np.ones(ROWS, np.float32)


def until(condition: Callable[[], object]) -> None:
    moment = threading.Event()
    while not condition():
        moment.wait(0.005)


def push(task: str) -> ExchangeRequest:
    return ExchangeRequest(G, task, 1, 1, 0, {"weight": ONES}, False, {}, False)


def test_who_went_away_leaves_the_queue_when_woken() -> None:
    gate, there = InFlight(MIB), [True]
    with gate.enter(MIB), ThreadPoolExecutor(1) as pool:
        waits = pool.submit(gate.enter, MIB, lambda: there[0])
        until(lambda: gate._queue)
        there[0] = False
        gate.wake()
        with pytest.raises(ShardUnavailable, match="went away"):
            waits.result(10)
    assert not gate._queue


def test_who_waits_too_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_flight, "WAIT_LIMIT_SECS", 0.05)
    gate = InFlight(MIB)
    with gate.enter(MIB), pytest.raises(ShardTimeout, match="1,048,576 bytes found no room"):
        gate.enter(MIB)
    gate.enter(MIB).release()


def test_what_arrived_in_time_is_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_flight, "BODY_LIMIT_SECS", -100.0)
    monkeypatch.setattr(in_flight, "WAIT_LIMIT_SECS", 0.05)
    gate, given_up = InFlight(MIB), []
    with gate.enter(MIB, give_up=lambda: given_up.append(1)) as entry:
        entry.arrived()
        with pytest.raises(ShardTimeout):
            gate.enter(MIB)
    assert not given_up


@dataclass
class Ps:
    address: str
    gate: InFlight


@pytest.fixture
def ps(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ps]:
    """A ps that takes in one push at a time."""
    gates: list[InFlight] = []

    def make_gate(limit_bytes: int) -> InFlight:
        gates.append(InFlight(limit_bytes))
        return gates[0]

    monkeypatch.setattr("psys.rpc.server.InFlight", make_gate)
    monkeypatch.setenv("PSYS_SHM_DIR", "none")
    address = free_address()
    host = NodeHost(0, lambda snapshot: ShardFile("file", 1, "hash"))
    server = Server(host, MemoryStorage(), address, 4, None, in_flight_limit_bytes=2 * MIB)
    host.obey(ShardOrders(G, ShardPhase.LOADING))
    host.load(G, [LoadedSlice(SPEC, 0, ROWS)])
    host.obey(ShardOrders(G, ShardPhase.LIVE))
    yield Ps(address, gates[0])
    server.stop(0.0)
    host.close()


class Announcer:
    """A client that announces a push and sends no byte of it."""

    def __init__(self, address: str, task: str) -> None:
        self.outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.outbox.put(next(iter(codec.encode_request(push(task)))))
        self.channel = grpc.insecure_channel(address)
        call = self.channel.stream_stream(codec.EXCHANGE, None, None)
        self.call = call(iter(self.outbox.get, None))

    def close(self) -> None:
        self.call.cancel()
        self.outbox.put(None)
        self.channel.close()


def test_a_push_whose_bytes_do_not_come_is_given_up_when_another_waits(
    ps: Ps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_flight, "BODY_LIMIT_SECS", 0.2)
    stalled = Announcer(ps.address, "worker:1")
    until(lambda: ps.gate._bytes)
    shard = RemoteShard(0, ps.address)
    try:
        shard.begin_exchange(push("worker:0"))
        assert shard.finish_exchange().outcome is Outcome.APPLIED
        with pytest.raises(grpc.RpcError) as raised:
            next(stalled.call)
        assert raised.value.code() is grpc.StatusCode.CANCELLED  # which a trainer tries again
    finally:
        shard.close()
        stalled.close()


def test_streams_that_broke_while_they_waited_keep_no_thread(ps: Ps) -> None:
    first = Announcer(ps.address, "worker:1")
    until(lambda: ps.gate._bytes)
    waiting = [Announcer(ps.address, "worker:2") for _ in range(5)]
    until(lambda: len(ps.gate._queue) == 5)
    for one in waiting:
        one.close()
    until(lambda: not ps.gate._queue)  # though nobody made room
    first.close()


def test_the_first_answer_of_another_generation_offers_shared_memory_too(
    job: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.go_live([SPEC])  # type: ignore[attr-defined]
    shard = RemoteShard(0, job.address)  # type: ignore[attr-defined]
    try:
        shard.begin_exchange(push("chief"))
        assert shard.finish_exchange().outcome is Outcome.GENERATION_CHANGED
        assert shard._memory._offer is not None
    finally:
        shard.close()
