"""A ps in a process of its own, to be killed: ``small_ps.py ADDRESS [GENERATION [ROWS]]``.

Serves one variable, ``weight`` of ROWS elements (3), live in GENERATION; with none named, an
empty shard.
"""

from __future__ import annotations

import sys
import threading

from psys.arrays import VariableSpec
from psys.checkpoint.storage import MemoryStorage
from psys.host import NodeHost
from psys.initializers import Constant
from psys.optimizers import GradientDescentOptimizer
from psys.ps.messages import ShardFile, ShardOrders, ShardPhase
from psys.ps.shard import LoadedSlice
from psys.rpc.server import Server


def main(address: str, generation: str = "", rows: str = "3") -> None:
    host = NodeHost(0, lambda snapshot: ShardFile("file", 1, "hash"))
    # Kept in a variable: a server that nobody holds stops.
    _server = Server(host, MemoryStorage(), address, tasks=2, token=None)
    if generation:
        sgd = GradientDescentOptimizer(1.0).to_config()
        spec = VariableSpec("weight", (int(rows),), "float32", Constant(), sgd)
        host.obey(ShardOrders(generation, ShardPhase.LOADING))
        host.load(generation, [LoadedSlice(spec, 0, spec.rows)])
        host.obey(ShardOrders(generation, ShardPhase.LIVE))
    print("serving", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
