"""A ps in the process of the test, which counts what comes by the streams."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from exchanging import ROWS, G

from psys.arrays import VariableSpec
from psys.checkpoint.storage import MemoryStorage
from psys.host import NodeHost
from psys.initializers import Constant
from psys.optimizers import GradientDescentOptimizer
from psys.ps.messages import ShardFile, ShardOrders, ShardPhase
from psys.ps.shard import LoadedSlice
from psys.rpc.server import Server
from psys.rpc.servicers import GradientsServicer

SGD = GradientDescentOptimizer(1.0).to_config()


class Live:
    """A ps without a lead in this process, live in G with ``weight`` of ROWS elements.

    Attributes:
        by_stream: the frames that came by the streams.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tasks: int = 4, rows: int = ROWS) -> None:
        self.by_stream: list[bytes] = []
        serve = GradientsServicer.exchange

        def note(frames: Iterator[bytes]) -> Iterator[bytes]:
            for frame in frames:
                self.by_stream.append(frame)
                yield frame

        monkeypatch.setattr(
            GradientsServicer,
            "exchange",
            lambda servicer, frames, context: serve(servicer, note(frames), context),
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.host = NodeHost(1, lambda snapshot: ShardFile("file", 1, "hash"))
        self.server = Server(self.host, MemoryStorage(), self.address, tasks, None)
        self.host.obey(ShardOrders(G, ShardPhase.LOADING))
        spec = VariableSpec("weight", (rows,), "float32", Constant(), SGD)
        self.host.load(G, [LoadedSlice(spec, 0, rows)])
        self.host.obey(ShardOrders(G, ShardPhase.LIVE))

    @property
    def version(self) -> int:
        return self.host.read_lead(lambda node: node.shard.version)

    @property
    def parked(self) -> int:
        return self.host.read_lead(lambda node: len(node.shard._parked))

    def hold(self) -> None:
        """Keep every push waiting, as before a cut."""
        self.host.obey(ShardOrders(G, ShardPhase.LIVE, save="dddddddddddd"))

    def let_go(self) -> None:
        self.host.obey(ShardOrders(G, ShardPhase.LIVE))

    def close(self) -> None:
        self.server.stop(0.0)
        self.host.close()
