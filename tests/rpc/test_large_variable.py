"""A variable of 3 GiB: created, pushed, pulled, saved, read and restored, all in frames."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from psys.arrays import VariableSpec
from psys.checkpoint.shard_file import ShardReader
from psys.checkpoint.storage import FileStorage
from psys.host import NodeHost
from psys.initializers import Constant
from psys.optimizers import GradientDescentOptimizer
from psys.ps.messages import ExchangeReply, ExchangeRequest, Outcome, ShardOrders, ShardPhase
from psys.ps.shard import LoadedSlice
from psys.rpc.frames import memory_bytes
from psys.rpc.remote_shard import RemoteShard
from psys.rpc.server import Server
from psys.train.shard_files import shard_writer

G = "aaaaaaaaaaaa"
SAVE = "dddddddddddd"
ROWS, COLUMNS = 3 << 20, 256
SIZE = ROWS * COLUMNS * 4
SPEC = VariableSpec(
    "huge", (ROWS, COLUMNS), "float32", Constant(1.0), GradientDescentOptimizer(1.0).to_config()
)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[], tuple[NodeHost, RemoteShard]]]:
    if memory_bytes() < 7 * SIZE or shutil.disk_usage(tmp_path).free < 2 * SIZE:
        pytest.skip("needs 21 GiB of memory and 6 GiB of disk")
    closers: list[Callable[[], None]] = []

    def start() -> tuple[NodeHost, RemoteShard]:
        while closers:
            closers.pop()()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        host = NodeHost(0, shard_writer(str(tmp_path), 1))
        server = Server(host, FileStorage(tmp_path), address, 2, None)
        shard = RemoteShard(0, address)
        closers.extend((host.close, server.stop, shard.close))
        host.obey(ShardOrders(G, ShardPhase.LOADING, chief=1))
        return host, shard

    yield start
    while closers:
        closers.pop()()


def exchange(shard: RemoteShard, sequence: int, push: Any, pull: bool) -> ExchangeReply:
    gradients = None if push is None else {"huge": push}
    shard.begin_exchange(ExchangeRequest(G, "chief", 1, sequence, 0, gradients, pull, {}, False))
    return shard.finish_exchange()


def check(values: Any) -> None:
    """Check ``1 - row number % 1000``, a part at a time."""
    assert values.shape == (ROWS, COLUMNS)
    for start in range(0, ROWS, 1 << 16):
        part = values[start : start + (1 << 16)]
        numbers = np.arange(start, start + len(part), dtype=np.int64) % 1000
        assert (part == (1 - numbers)[:, None]).all()


@pytest.mark.chaos
@pytest.mark.timeout(1200)
def test_a_variable_of_3_gib(serve: Any, tmp_path: Path) -> None:
    host, shard = serve()
    shard.load(G, 1, [LoadedSlice(SPEC, 0, ROWS)])
    host.obey(ShardOrders(G, ShardPhase.LIVE))
    gradient = np.empty((ROWS, COLUMNS), np.float32)
    gradient[:] = (np.arange(ROWS) % 1000)[:, None]
    assert exchange(shard, 1, gradient, False).outcome is Outcome.APPLIED
    del gradient
    check(exchange(shard, 1, None, True).dense["huge"])
    host.obey(ShardOrders(G, ShardPhase.LIVE, save=SAVE))
    host.obey(ShardOrders(G, ShardPhase.LIVE, save=SAVE, cut={"chief": (1, 1)}, cut_step=1))
    moment = threading.Event()
    while not (facts := host.read_lead(lambda node: node.shard.facts())).written:
        moment.wait(0.1)
    assert not facts.write_error
    (file,) = tmp_path.rglob("*.safetensors")
    assert file.stat().st_size == facts.file.size_bytes > SIZE
    host, shard = serve()
    reader = ShardReader(FileStorage(tmp_path), str(file.relative_to(tmp_path)))
    check(reader.view("huge"))
    shard.load(G, 1, [LoadedSlice(SPEC, 0, ROWS, value=reader.view("huge"))])
    host.obey(ShardOrders(G, ShardPhase.LIVE))
    check(exchange(shard, 0, None, True).dense["huge"])
