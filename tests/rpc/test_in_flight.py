"""A ps under overload: senders wait, memory stays, nothing is dropped."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from psys.arrays import VariableSpec
from psys.checkpoint.storage import MemoryStorage
from psys.host import NodeHost
from psys.initializers import Constant
from psys.optimizers import GradientDescentOptimizer
from psys.ps.messages import ExchangeRequest, Outcome, ShardFile, ShardOrders, ShardPhase
from psys.ps.shard import LoadedSlice
from psys.rpc.in_flight import FREE_BYTES, InFlight
from psys.rpc.remote_shard import RemoteShard
from psys.rpc.server import Server

G = "aaaaaaaaaaaa"
MIB = 1 << 20
SLOW_PS = str(Path(__file__).with_name("slow_ps.py"))


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def until(condition: Callable[[], object]) -> None:
    moment = threading.Event()
    while not condition():
        moment.wait(0.005)


def waiting(gate: InFlight) -> int:
    return len(gate._queue)


def test_what_does_not_fit_waits_first_come_first_served() -> None:
    gate = InFlight(10 * MIB)
    order: list[int] = []
    first = gate.enter(8 * MIB)

    def enter(number: int, size: int) -> None:
        with gate.enter(size):
            order.append(number)

    with ThreadPoolExecutor(3) as pool:
        tasks = []
        for number, size in ((1, 9 * MIB), (2, MIB), (3, 4 * MIB)):
            tasks.append(pool.submit(enter, number, size))
            until(lambda: waiting(gate) == len(tasks))
        assert order == []  # not even the second, which would fit: the first would starve
        first.release()
        for one in tasks:
            one.result(10)
    assert order[0] == 1
    assert sorted(order) == [1, 2, 3]


def test_one_larger_than_the_limit_passes_alone() -> None:
    gate = InFlight(MIB)
    first = gate.enter(100 * MIB)
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(gate.enter, 100 * MIB)
        until(lambda: waiting(gate))
        first.release()
        second.result(10).release()


def test_small_ones_never_wait() -> None:
    gate = InFlight(MIB)
    with gate.enter(MIB), gate.enter(FREE_BYTES), gate.enter(0):
        pass


def test_a_release_counts_once() -> None:
    gate = InFlight(MIB)
    with gate.enter(MIB) as entry:
        entry.release()
        entry.release()
    assert gate._bytes == 0


# ---------------------------------------------------------------- with a server

SGD = GradientDescentOptimizer(1.0).to_config()
ROWS = 2 * MIB // 4
SPEC = VariableSpec("weight", (ROWS,), "float32", Constant(), SGD)


def push(task: str, sequence: int, values: Any) -> ExchangeRequest:
    return ExchangeRequest(G, task, 1, sequence, 0, {"weight": values}, False, {}, False)


def test_pushes_that_a_hold_keeps_waiting_do_not_keep_others_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A cut lets in the pushes it includes; were they kept out by those held, it never came."""
    monkeypatch.setenv("PSYS_SHM_DIR", "none")
    address = free_address()
    host = NodeHost(0, lambda snapshot: ShardFile("file", 1, "hash"))
    server = Server(host, MemoryStorage(), address, 4, None, in_flight_limit_bytes=2 * MIB)
    host.obey(ShardOrders(G, ShardPhase.LOADING))
    host.load(G, [LoadedSlice(SPEC, 0, ROWS)])
    host.obey(ShardOrders(G, ShardPhase.LIVE, save="dddddddddddd"))
    shards = [RemoteShard(0, address) for _ in range(4)]
    try:
        ones = np.ones(ROWS, np.float32)
        for index, shard in enumerate(shards):
            shard.begin_exchange(push(f"worker:{index}", 1, ones))
        until(lambda: host.read_lead(lambda node: len(node.shard._parked)) == 4)
        host.obey(ShardOrders(G, ShardPhase.LIVE))
        assert [one.finish_exchange().outcome for one in shards] == [Outcome.APPLIED] * 4
    finally:
        for shard in shards:
            shard.close()
        server.stop(0.0)
        host.close()


def memory_mib(pid: int, what: str) -> float:
    found = re.search(rf"^{what}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert found
    return int(found[1]) / 1024


def test_64_threads_that_push_to_a_slow_ps_do_not_make_it_grow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PSYS_SHM_DIR", "none")
    threads, pushes, push_mib, limit_mib = 64, 8, 8, 16
    ones = np.ones(push_mib * MIB // 4, np.float32)
    address = free_address()
    ps = subprocess.Popen(
        [sys.executable, SLOW_PS, address, G, str(len(ones)), str(limit_mib * MIB)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert ps.stdout is not None
    assert ps.stdout.readline() == "serving\n"
    shards = [RemoteShard(0, address) for _ in range(threads)]

    def train(index: int, sequence: int) -> Outcome:
        shards[index].begin_exchange(push(f"worker:{index}", sequence, ones))
        return shards[index].finish_exchange().outcome

    idle, resident = memory_mib(ps.pid, "VmRSS"), []
    try:
        with ThreadPoolExecutor(threads) as pool:
            for sequence in range(1, 1 + pushes):
                tasks = [pool.submit(train, index, sequence) for index in range(threads)]
                assert {one.result(100) for one in tasks} == {Outcome.APPLIED}
                resident.append(memory_mib(ps.pid, "VmRSS"))
        # All pushes at once are 512 MiB, and without a limit the ps grew by 1,300. Each stream has
        # a thread, and up to one frame of 1 MiB at each of its ends within gRPC.
        assert memory_mib(ps.pid, "VmHWM") - idle < limit_mib + 3 * threads
        # Each stream's own memory is there after some pushes. Then nothing is left of the 512 MiB
        # that are pushed each time.
        assert resident[-1] - resident[pushes // 2 - 1] < threads, resident
        shards[0].begin_exchange(
            ExchangeRequest(G, "worker:0", 1, pushes, 0, None, True, {}, False)
        )
        reply = shards[0].finish_exchange()
        assert reply.version == threads * pushes
        assert (reply.dense["weight"] == -threads * pushes).all()
    finally:
        for shard in shards:
            shard.close()
        ps.kill()
        ps.communicate()
