"""One live shard with slices of every kind, and what the contracts of a shard say to it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from psys.arrays import Array, VariableSpec
from psys.host import NodeHost
from psys.initializers import Constant, TruncatedNormal
from psys.optimizers import AdamOptimizer, GradientDescentOptimizer
from psys.ps.messages import ExchangeReply, ExchangeRequest, ShardOrders, ShardPhase
from psys.ps.shard import LoadedSlice, Shard

SGD = GradientDescentOptimizer(1.0).to_config()
ADAM = AdamOptimizer(0.1).to_config()
G = "aaaaaaaaaaaa"

KERNEL = VariableSpec("kernel", (4, 3), "float32", Constant(1.0), SGD)
SCALAR = VariableSpec("scalar", (), "float32", Constant(2.0), SGD)
COUNT = VariableSpec("count", (2,), "int64", Constant(7))
PRECISE = VariableSpec("precise", (3,), "float64", Constant(0.5), SGD)
TABLE = VariableSpec("table", (10, 2), "float32", TruncatedNormal(0.0, 1.0), SGD, sparse=True)
NOTHING = VariableSpec("nothing", (0, 4), "float32", Constant(), SGD, sparse=True)
ADAPTED = VariableSpec("adapted", (2, 2), "float32", Constant(), ADAM)
SLICES = (
    *(LoadedSlice(spec, 0, spec.rows) for spec in (KERNEL, SCALAR, COUNT, PRECISE, NOTHING)),
    LoadedSlice(TABLE, 5, 10, seed=3),
)
TABLE_ROWS = TABLE.initializer.rows("table", (10, 2), "float32", 5, 10, 3)

Connect = Callable[[NodeHost], Shard]
NewHost = Callable[..., NodeHost]


def ask(**changes: Any) -> ExchangeRequest:
    fields: dict[str, Any] = {
        "generation": G,
        "task": "worker:0",
        "member": 1,
        "sequence": 0,
        "base_version": 0,
        "push": None,
        "pull_dense": False,
        "pull_rows": {},
        "wants_grant": False,
    }
    return ExchangeRequest(**{**fields, **changes})


def push(sequence: int, gradients: dict[str, Any] | None = None, **changes: Any) -> ExchangeRequest:
    return ask(sequence=sequence, push={} if gradients is None else gradients, **changes)


def exchange(shard: Shard, request: ExchangeRequest) -> ExchangeReply:
    shard.begin_exchange(request)
    return shard.finish_exchange()


def ones(*shape: int) -> Array:
    return np.ones(shape, np.float32)


def rows(*numbers: int) -> Array:
    return np.array(numbers, np.int64)


CHIEF = 9
"""The chief's member number."""


def order(host: NodeHost, generation: str = G, **orders: Any) -> None:
    host.obey(ShardOrders(generation=generation, chief=CHIEF, **orders))


def go_live(host: NodeHost, shard: Shard, slices: Any = SLICES, generation: str = G) -> None:
    order(host, generation, phase=ShardPhase.LOADING)
    shard.load(generation, CHIEF, list(slices))
    order(host, generation, phase=ShardPhase.LIVE)


def wait_until_parked(host: NodeHost) -> None:
    moment = threading.Event()
    while not host.read_lead(lambda node: node.shard._parked):
        moment.wait(0.005)
