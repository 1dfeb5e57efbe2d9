"""RemoteShard when the connection breaks: nothing is applied twice, nothing hangs."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest

from psys.arrays import VariableSpec
from psys.checkpoint.storage import MemoryStorage
from psys.errors import GenerationChanged, ModelError, ShardUnavailable
from psys.exchange import Place
from psys.host import NodeHost
from psys.initializers import Constant
from psys.optimizers import GradientDescentOptimizer
from psys.parameters import Parameters
from psys.ps.messages import (
    ExchangeReply,
    ExchangeRequest,
    Outcome,
    ShardFile,
    ShardOrders,
    ShardPhase,
)
from psys.ps.shard import LoadedSlice
from psys.rpc import codec
from psys.rpc.remote_shard import RemoteShard
from psys.rpc.server import Server

G = "aaaaaaaaaaaa"
PLACE = Place(G, "worker:0", 1)
SGD = GradientDescentOptimizer(1.0).to_config()
WEIGHT = VariableSpec("weight", (3,), "float32", Constant(), SGD)
ONES = np.ones(3, np.float32)


def push(sequence: int, generation: str = G) -> ExchangeRequest:
    gradients = {"weight": ONES}
    return ExchangeRequest(generation, "worker:0", 1, sequence, 0, gradients, True, {}, False)


def exchange(shard: RemoteShard, request: ExchangeRequest) -> ExchangeReply:
    shard.begin_exchange(request)
    return shard.finish_exchange()


@pytest.fixture
def connect() -> Iterator[Callable[[str], RemoteShard]]:
    opened: list[RemoteShard] = []

    def make(address: str) -> RemoteShard:
        opened.append(RemoteShard(0, address))
        return opened[-1]

    yield make
    for shard in opened:
        shard.close()


@pytest.fixture
def host(job: Any) -> NodeHost:
    """A live host with the variable ``weight``, served at ``job.address``."""
    job.go_live([WEIGHT])
    host: NodeHost = job.host
    return host


def test_a_stream_that_broke_is_opened_again_and_the_push_applied_once(
    job: Any, host: NodeHost, connect: Callable[[str], RemoteShard]
) -> None:
    shard = connect(job.address)
    g = job.generation
    assert exchange(shard, push(1, g)).outcome is Outcome.APPLIED
    job.server.stop(0.0)
    with pytest.raises(ShardUnavailable, match=r"ps:0 \(127"):
        exchange(shard, push(2, g))
    server = Server(host, MemoryStorage(), job.address, 2, None)
    try:
        outcomes: list[Outcome | None] = []
        while not outcomes or outcomes[-1] is None:
            try:
                outcomes.append(exchange(shard, push(2, g)).outcome)
            except ShardUnavailable:
                outcomes.append(None)
        reply = exchange(shard, push(2, g))
        assert (reply.outcome, reply.version) == (Outcome.DUPLICATE, 2)
        assert reply.dense["weight"].tolist() == [-2.0] * 3
    finally:
        server.stop(0.0)


def test_an_answer_lost_on_the_way_does_not_apply_the_push_again(
    job: Any, host: NodeHost, connect: Callable[[str], RemoteShard]
) -> None:
    first, second = connect(job.address), connect(job.address)
    first.begin_exchange(push(1, job.generation))
    moment = threading.Event()
    while not host.read_lead(lambda node: node.shard.version):
        moment.wait(0.005)
    first.close()
    reply = exchange(second, push(1, job.generation))
    assert (reply.outcome, reply.version) == (Outcome.DUPLICATE, 1)


def test_a_push_that_waits_when_its_stream_breaks_is_forgotten_at_once(
    small_host: tuple[NodeHost, str], connect: Callable[[str], RemoteShard]
) -> None:
    host, address = small_host
    host.obey(ShardOrders(G, ShardPhase.LIVE, save="dddddddddddd"))
    first, second = connect(address), connect(address)
    moment = threading.Event()

    def parked() -> Any:
        return host.read_lead(lambda node: len(node.shard._parked))

    first.begin_exchange(push(1))
    while not parked():
        moment.wait(0.005)
    first.close()
    while parked():
        moment.wait(0.005)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(exchange, second, push(1))
        while not parked():
            moment.wait(0.005)
        host.obey(ShardOrders(G, ShardPhase.LIVE))
        reply = waiting.result(20)
    assert (reply.outcome, reply.version) == (Outcome.APPLIED, 1)


@pytest.fixture
def small_host(new_job: Callable[..., Any]) -> Iterator[tuple[NodeHost, str]]:
    """A host without a lead, live, and its address."""
    host = NodeHost(1, lambda snapshot: ShardFile("file", 1, "hash"))
    host.obey(ShardOrders(G, ShardPhase.LOADING))
    host.load(G, [LoadedSlice(WEIGHT, 0, 3)])
    host.obey(ShardOrders(G, ShardPhase.LIVE))
    other = new_job()
    other.server.stop(0.0)
    server = Server(host, MemoryStorage(), other.address, 2, None)
    yield host, other.address
    server.stop(0.0)
    host.close()


def test_a_killed_ps_is_noticed_at_once_and_found_again(
    small_ps: Callable[..., Any], connect: Callable[[str], RemoteShard]
) -> None:
    ps = small_ps(G)
    shard = connect(ps.address)
    assert exchange(shard, push(1)).outcome is Outcome.APPLIED
    ps.kill()
    with pytest.raises(ShardUnavailable):
        exchange(shard, push(2))
    small_ps("", ps.address)
    reply = None
    while reply is None:
        try:
            reply = exchange(shard, push(2))
        except ShardUnavailable:
            continue
    assert reply.outcome is Outcome.GENERATION_CHANGED


def test_a_ps_killed_while_an_exchange_waits_ends_the_wait(
    small_ps: Callable[..., Any], connect: Callable[[str], RemoteShard]
) -> None:
    ps = small_ps(G)
    shard = connect(ps.address)
    exchange(shard, push(1))
    ps.process.send_signal(19)  # SIGSTOP: it will never answer
    os.waitid(os.P_PID, ps.process.pid, os.WSTOPPED | os.WNOWAIT)  # it has stopped by now
    shard.begin_exchange(push(2))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(shard.finish_exchange)
        ps.kill()
        with pytest.raises(ShardUnavailable):
            waiting.result(20)


def test_parameters_try_the_same_request_again_until_the_ps_is_back(
    job: Any, host: NodeHost, connect: Callable[[str], RemoteShard]
) -> None:
    place = Place(job.generation, "worker:0", 1)
    tried = threading.Event()
    parameters = Parameters(
        {"weight": WEIGHT}, [connect(job.address)], 30.0, lambda place: tried.set()
    )
    parameters.exchange(place, 1, {"weight": ONES}, {}, wants_grant=False)
    job.server.stop(0.0)
    with ThreadPoolExecutor(1) as pool:
        step = pool.submit(parameters.exchange, place, 2, {"weight": ONES}, {}, wants_grant=False)
        assert tried.wait(20)
        server = Server(host, MemoryStorage(), job.address, 2, None)
        try:
            pulled = step.result(30)
        finally:
            server.stop(0.0)
    assert pulled.outcome is Outcome.APPLIED
    assert pulled.dense["weight"].tolist() == [-2.0] * 3


def test_load_does_not_wait_for_a_ps_that_is_not_there(
    connect: Callable[[str], RemoteShard],
) -> None:
    with pytest.raises(ShardUnavailable):
        connect("127.0.0.1:1").load(G, 1, [])


def test_a_load_nobody_ordered_ends_before_it_is_sent(
    small_ps: Callable[..., Any], connect: Callable[[str], RemoteShard]
) -> None:
    spec = VariableSpec("big", (1 << 22,), "float32", Constant())
    value = np.zeros(1 << 22, np.float32)
    with pytest.raises(GenerationChanged):
        connect(small_ps(G).address).load(
            "bbbbbbbbbbbb", 1, [LoadedSlice(spec, 0, 1 << 22, 0, value)]
        )


def test_a_closed_shard_says_so(job: Any, connect: Callable[[str], RemoteShard]) -> None:
    shard = connect(job.address)
    shard.close()
    with pytest.raises(ShardUnavailable, match="was closed"):
        shard.begin_exchange(push(1))
    with pytest.raises(ShardUnavailable, match="was closed"):
        shard.load(G, 1, [])


# ---------------------------------------------------------------- a peer that is not to be trusted


@pytest.fixture
def liar() -> Iterator[Callable[[Callable[[], Iterator[bytes]]], str]]:
    """Serve what a test says as the reply to every exchange."""
    servers: list[Any] = []

    def serve(reply: Callable[[], Iterator[bytes]]) -> str:
        def behave(frames: Iterator[bytes], context: Any) -> Iterator[bytes]:
            for _ in frames:
                yield from reply()

        server = grpc.server(ThreadPoolExecutor(2))
        _, service, method = codec.EXCHANGE.split("/")
        handler = grpc.stream_stream_rpc_method_handler(behave)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {method: handler}),)
        )
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield serve
    for server in servers:
        server.stop(0).wait()


def answer(**dense: Any) -> Iterator[bytes]:
    return codec.encode_reply(ExchangeReply(G, 0, Outcome.NONE, dense=dense))


LIES: dict[str, dict[str, Any]] = {
    "far too much": {"weight": np.zeros(10_000, np.float32)},
    "too much": {"weight": np.zeros(4, np.float32)},
    "another dtype": {"weight": np.zeros(3, np.float64)},
    "another shape": {"weight": np.zeros((1, 3), np.float32)},
    "another name": {"other": ONES},
    "nothing": {},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_reply_that_does_not_fit_what_was_asked_is_refused(
    liar: Any, connect: Callable[[str], RemoteShard], lie: str
) -> None:
    parameters = Parameters({"weight": WEIGHT}, [connect(liar(lambda: answer(**LIES[lie])))], 1.0)
    with pytest.raises(ModelError, match="ps:0"):
        parameters.exchange(PLACE, 0, None, {}, wants_grant=False)


def test_after_a_reply_that_made_no_sense_the_stream_is_a_new_one(
    liar: Any, connect: Callable[[str], RemoteShard]
) -> None:
    replies = iter([b"nonsense", *answer(weight=ONES)])
    shard = connect(liar(lambda: iter([next(replies)])))
    with pytest.raises(ModelError, match="ps:0"):
        exchange(shard, push(1))
    assert exchange(shard, push(1)).dense["weight"].tolist() == [1.0] * 3


def test_an_empty_message_of_the_stream_is_no_reply(
    liar: Any, connect: Callable[[str], RemoteShard]
) -> None:
    """Only by the line has it a meaning: to send the request again."""
    shard = connect(liar(lambda: iter([b""])))
    shard.begin_exchange(push(1))
    with ThreadPoolExecutor(1) as pool, pytest.raises(ModelError, match="a header comes first"):
        pool.submit(shard.finish_exchange).result(10)


def test_parameters_bound_every_reply_by_what_they_asked_for(
    connect: Callable[[str], RemoteShard], liar: Any
) -> None:
    shard = connect(liar(lambda: answer(weight=np.zeros(1 << 20, np.float32))))
    before = shard.reply_limit_bytes
    parameters = Parameters({"weight": WEIGHT}, [shard], 1.0)
    with pytest.raises(ModelError, match="fit here"):
        parameters.exchange(PLACE, 0, None, {}, wants_grant=False)
    assert shard.reply_limit_bytes < 10_000 < before
