"""A ps that takes its time: ``slow_ps.py ADDRESS GENERATION ROWS IN_FLIGHT_LIMIT_BYTES``.

Every push is applied 10 ms late, one after another, as on a ps whose optimizer is slow.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from psys.arrays import VariableSpec
from psys.checkpoint.storage import MemoryStorage
from psys.host import NodeHost
from psys.initializers import Constant
from psys.optimizers import GradientDescentOptimizer
from psys.ps.messages import ExchangeReply, ExchangeRequest, ShardFile, ShardOrders, ShardPhase
from psys.ps.shard import LoadedSlice
from psys.rpc.server import Server


class SlowHost(NodeHost):
    busy = threading.Lock()

    def exchange(self, caller: Any, request: ExchangeRequest, *rest: Any) -> ExchangeReply:
        with self.busy:
            time.sleep(0.01)
            return super().exchange(caller, request, *rest)


def main(address: str, generation: str, rows: str, in_flight_limit_bytes: str) -> None:
    host = SlowHost(0, lambda snapshot: ShardFile("file", 1, "hash"))
    # Kept in a variable: a server that nobody holds stops.
    _server = Server(host, MemoryStorage(), address, 64, None, int(in_flight_limit_bytes))
    sgd = GradientDescentOptimizer(1.0).to_config()
    spec = VariableSpec("weight", (int(rows),), "float32", Constant(), sgd)
    host.obey(ShardOrders(generation, ShardPhase.LOADING))
    host.load(generation, [LoadedSlice(spec, 0, spec.rows)])
    host.obey(ShardOrders(generation, ShardPhase.LIVE))
    print("serving", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
