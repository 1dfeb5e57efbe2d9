"""Whichever side dies, hangs or leaves, and if the network does: the line ends with the stream."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exchanging import ONES, ROWS, G, exchange, lines, pull, push, shared, until
from live_ps import Live

from psys.arrays import VariableSpec
from psys.checkpoint.storage import MemoryStorage
from psys.errors import ShardUnavailable
from psys.exchange import Place
from psys.initializers import Constant
from psys.optimizers import GradientDescentOptimizer
from psys.parameters import Parameters
from psys.ps.messages import ExchangeReply, Outcome
from psys.rpc import channel, remote_shard, stream_memory
from psys.rpc import server as server_module
from psys.rpc.remote_shard import RemoteShard
from psys.rpc.server import Server

sys.path.insert(0, str(Path(__file__).parents[2] / "integration"))

from proxy import Proxy

SGD = GradientDescentOptimizer(1.0).to_config()
PATIENCE = ("grpc.keepalive_time_ms", "grpc.keepalive_timeout_ms", "grpc.http2.ping_timeout_ms")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notice a peer that hangs in little more than a second."""
    for module in (channel, server_module):
        assert {*PATIENCE} <= {name for name, _ in module.OPTIONS}
        options = [(name, 500 if name in PATIENCE else value) for name, value in module.OPTIONS]
        monkeypatch.setattr(module, "OPTIONS", options)


def exchange_until_it_works(shard: RemoteShard, request: Any) -> ExchangeReply:
    while True:
        try:
            return exchange(shard, request)
        except ShardUnavailable:
            continue


def by_line(shard: RemoteShard) -> bool:
    """Return whether the last exchange went by the line."""
    return shard._incoming is not shard._call


def stop(process: Any) -> None:
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)


# ---------------------------------------------------------------- the ps


def test_a_ps_killed_while_its_answer_is_awaited(small_ps: Any, connect: Any) -> None:
    ps = small_ps(G, rows=ROWS)
    shard = connect(ps.address)
    for sequence in (1, 2):
        exchange(shard, push(sequence))
    stop(ps.process)
    shard.begin_exchange(push(3))
    assert by_line(shard)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(shard.finish_exchange)
        ps.kill()
        with pytest.raises(ShardUnavailable, match="ps:0"):
            waiting.result(20)
    assert not shared()
    small_ps(G, ps.address, rows=ROWS)
    assert exchange_until_it_works(shard, push(1)).outcome is Outcome.APPLIED
    assert not by_line(shard)
    assert exchange(shard, push(2)).outcome is Outcome.APPLIED
    assert by_line(shard)


def test_a_ps_killed_in_the_middle_of_its_answer(small_ps: Any, connect: Any) -> None:
    """What came of the answer is no nonsense: the trainer tries again."""
    rows = 2_000_000
    ps = small_ps(G, rows=rows)
    shard = connect(ps.address)
    ones = np.ones(rows, np.float32)
    held = [exchange(shard, push(sequence, ones)) for sequence in (1, 2, 3, 4)]
    shard.begin_exchange(push(5, ones))
    assert shard._reply_room is None  # so it comes in frames, more than the socket takes
    socket = shard._memory.line._socket
    until(lambda: struct.unpack("i", fcntl.ioctl(socket, termios.FIONREAD, bytes(4)))[0])
    ps.kill()
    with pytest.raises(ShardUnavailable, match="ps:0"):
        shard.finish_exchange()
    assert held[3].dense["weight"][0] == -4


@pytest.mark.usefixtures("impatient")
def test_a_ps_that_hangs_is_noticed(small_ps: Any, connect: Any) -> None:
    ps = small_ps(G, rows=ROWS)
    shard = connect(ps.address)
    for sequence in (1, 2):
        exchange(shard, push(sequence))
    stop(ps.process)
    shard.begin_exchange(push(3))
    with ThreadPoolExecutor(1) as pool, pytest.raises(ShardUnavailable, match="ps:0"):
        pool.submit(shard.finish_exchange).result(20)
    ps.process.send_signal(signal.SIGCONT)
    # What was sent before may have been applied; it is not applied again.
    reply = exchange_until_it_works(shard, push(3))
    assert reply.outcome in (Outcome.APPLIED, Outcome.DUPLICATE)
    assert (reply.dense["weight"] == -3).all()
    assert exchange(shard, push(4)).outcome is Outcome.APPLIED
    assert by_line(shard)


@pytest.mark.usefixtures("impatient")
def test_a_ps_that_hangs_while_it_is_sent_to_is_noticed(small_ps: Any, connect: Any) -> None:
    ps = small_ps(G, rows=3)
    shard = connect(ps.address)
    for sequence in (1, 2):
        exchange(shard, push(sequence, np.ones(3, np.float32)))
    stop(ps.process)
    # A header larger than the socket takes: nobody reads it.
    many = {f"no such variable {n}": np.ones(0, np.float32) for n in range(20_000)}
    with ThreadPoolExecutor(1) as pool, pytest.raises(ShardUnavailable, match="ps:0"):
        pool.submit(shard.begin_exchange, replace(push(3), push=many)).result(20)
    ps.process.send_signal(signal.SIGCONT)
    reply = exchange_until_it_works(shard, push(3, np.ones(3, np.float32)))
    assert reply.outcome is Outcome.APPLIED


def test_a_ps_that_leaves_ends_the_wait_and_its_lines(live: Live, connect: Any) -> None:
    shard = connect(live.address)
    for sequence in (1, 2):
        exchange(shard, push(sequence))
    live.hold()
    shard.begin_exchange(push(3))
    until(lambda: live.parked)
    live.server.stop(0.0)
    with pytest.raises(ShardUnavailable, match="ps:0"):
        shard.finish_exchange()
    until(lambda: not live.parked)
    until(lambda: not lines())
    live.let_go()
    live.server = Server(live.host, MemoryStorage(), live.address, 4, None)
    assert exchange_until_it_works(shard, push(3)).outcome is Outcome.APPLIED
    assert exchange(shard, push(4)).outcome is Outcome.APPLIED
    assert by_line(shard)


def test_a_stopped_server_has_no_lines(live: Live, connect: Any) -> None:
    shards = [connect(live.address) for _ in range(4)]
    for shard in shards:
        for _ in range(2):
            exchange(shard, push(1))
    assert len(lines()) == 4
    live.server.stop(0.0)
    until(lambda: not lines())
    for shard in shards:
        with pytest.raises(ShardUnavailable):
            exchange(shard, push(2))
    assert live.version == 1


# ---------------------------------------------------------------- the trainer


def descriptors() -> list[str]:
    """Return what this process's Unix sockets and memory are, other descriptors left out."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(entry)
        except FileNotFoundError:
            continue
        if target.startswith("socket:") or "memfd" in target:
            found.append(target)
    return found


def test_a_trainer_killed_while_its_exchange_is_withheld_is_forgotten(
    live: Live, small_trainer: Any
) -> None:
    counts = []
    for member in range(1, 5):
        trainer = small_trainer(live.address, member)
        live.hold()
        trainer.stdin.write("\n")
        trainer.stdin.flush()
        until(lambda: live.parked)
        (thread,) = lines()
        trainer.kill()
        until(lambda: not live.parked)
        until(lambda thread=thread: not thread.is_alive())
        until(lambda: not shared())
        live.let_go()
        counts.append(len(sockets()))
    assert live.version == 8
    # What gRPC keeps for its connections varies a little; a leak would be one for each trainer.
    assert counts[-1] < counts[0] + 3


def sockets() -> list[str]:
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(entry))
    return [one for one in found if one.startswith("socket:")]


@pytest.mark.usefixtures("impatient")
def test_a_trainer_that_hangs_is_forgotten(
    monkeypatch: pytest.MonkeyPatch, small_trainer: Any
) -> None:
    live = Live(monkeypatch)
    trainer = small_trainer(live.address)
    live.hold()
    trainer.stdin.write("\n")
    trainer.stdin.flush()
    until(lambda: live.parked)
    stop(trainer)
    until(lambda: not live.parked)
    until(lambda: not lines())
    assert not shared()
    assert live.version == 2
    live.close()


def test_a_push_that_comes_as_its_stream_breaks_is_not_kept(
    live: Live, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream's end is told before the ps takes the push in: nobody would tell it again."""
    shard = connect(live.address)
    for sequence in (1, 2):
        exchange(shard, push(sequence))
    serve, arrived, broken = live.host.exchange, threading.Event(), threading.Event()

    def late(caller: Any, request: Any, withheld: Any) -> Any:
        arrived.set()
        assert broken.wait(20)
        return serve(caller, request, withheld)

    monkeypatch.setattr(live.host, "exchange", late)
    forget, forgotten = live.host.forget, []

    def note(caller: Any) -> None:
        forget(caller)
        forgotten.append(caller)

    monkeypatch.setattr(live.host, "forget", note)
    live.hold()
    shard.begin_exchange(push(3))
    assert arrived.wait(20)
    shard.close()
    until(lambda: len(forgotten) == 2)  # by gRPC's callback, and at the end of the stream
    (thread,) = lines()
    broken.set()
    thread.join(10)  # a reply is withheld for 30 s
    assert not thread.is_alive()
    assert not live.parked
    live.let_go()
    assert live.version == 2


@pytest.mark.parametrize("other_thread", [False, True])
def test_closing_while_an_answer_is_awaited(live: Live, connect: Any, other_thread: bool) -> None:
    shard = connect(live.address)
    for sequence in (1, 2):
        exchange(shard, push(sequence))
    live.hold()
    shard.begin_exchange(push(3))
    until(lambda: live.parked)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(shard.finish_exchange) if other_thread else None
        shard.close()
        if waiting is not None:
            with pytest.raises(ShardUnavailable):
                waiting.result(20)
    until(lambda: not live.parked)
    until(lambda: not lines())
    live.let_go()
    assert live.version == 2


def count_lines(
    work: Callable[[], object], at: int = 0, act: Callable[[], None] | None = None
) -> int:
    """Return how many lines of the client's code some work runs.

    Before the one whose number is ``at``, another thread does ``act``.
    """
    count = 0

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal count
        if frame.f_code.co_filename not in (remote_shard.__file__, stream_memory.__file__):
            return None
        count += event == "line"
        if event == "line" and count == at:
            acting = threading.Thread(target=act)
            acting.start()
            acting.join(20)
            assert not acting.is_alive()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("exchanges_before", [0, 1, 2])
def test_closing_before_any_line_of_an_exchange(
    live: Live, connect: Any, exchanges_before: int
) -> None:
    """It opens a stream; or fetches a segment, or a larger one, and goes by its line."""

    def opened() -> RemoteShard:
        shard: RemoteShard = connect(live.address)
        for _ in range(exchanges_before):
            exchange(shard, pull())
        return shard

    shard = opened()
    begun = count_lines(lambda: shard.begin_exchange(push(1)))
    assert by_line(shard) is (exchanges_before > 0)
    finished = count_lines(shard.finish_exchange)
    assert min(begun, finished) > 15
    for line in range(1, begun + finished + 1):
        shard = opened()
        try:
            count_lines(lambda shard=shard: exchange(shard, push(1)), line, shard.close)
        except ShardUnavailable:
            continue
        assert line > begun  # the answer was here


# ---------------------------------------------------------------- the network


@pytest.fixture
def through_proxy(live: Live, connect: Any) -> Iterator[tuple[Proxy, RemoteShard]]:
    """A trainer whose stream passes a network that can be cut; its line does not."""
    proxy = Proxy(live.address)
    shard = connect(proxy.address)
    yield proxy, shard
    shard.close()
    proxy.close()


def test_a_cut_network_ends_the_line_that_works(
    live: Live, through_proxy: tuple[Proxy, RemoteShard]
) -> None:
    proxy, shard = through_proxy
    for sequence in (1, 2):
        exchange(shard, push(sequence))
    live.hold()
    shard.begin_exchange(push(3))
    assert by_line(shard)
    until(lambda: live.parked)
    proxy.cut()
    with pytest.raises(ShardUnavailable, match="ps:0"):
        shard.finish_exchange()
    until(lambda: not live.parked)
    until(lambda: not lines())
    with pytest.raises(ShardUnavailable):
        exchange(shard, push(3))
    live.let_go()
    assert live.version == 2
    proxy.restore()
    assert exchange_until_it_works(shard, push(3)).outcome is Outcome.APPLIED
    assert not by_line(shard)
    assert exchange(shard, push(4)).outcome is Outcome.APPLIED
    assert by_line(shard)


def test_a_trainer_comes_back_after_the_network_was_cut_between_two_steps(
    live: Live, through_proxy: tuple[Proxy, RemoteShard]
) -> None:
    proxy, shard = through_proxy
    spec = VariableSpec("weight", (ROWS,), "float32", Constant(), SGD)
    tried = threading.Event()
    parameters = Parameters({"weight": spec}, [shard], 30.0, lambda place: tried.set())
    place, went = Place(G, "worker:0", 1), []

    def step(sequence: int) -> None:
        pulled = parameters.exchange(place, sequence, {"weight": ONES}, {}, wants_grant=False)
        assert pulled.outcome in (Outcome.APPLIED, Outcome.DUPLICATE)
        assert (pulled.dense["weight"] == -sequence).all()
        went.append(by_line(shard))

    with ThreadPoolExecutor(1) as pool:
        for sequence in range(1, 4):
            step(sequence)
        proxy.cut()
        until(lambda: not lines())
        tried.clear()
        waiting = pool.submit(step, 4)
        assert tried.wait(20)
        proxy.restore()
        waiting.result(30)
    step(5)
    assert went == [False, True, True, False, True]
    assert live.version == 5
