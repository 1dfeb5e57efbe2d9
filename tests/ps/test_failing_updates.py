"""A push is applied at most once, whatever a schedule or an update of the user's does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pytest

from psys.arrays import Array, Gradient, VariableSpec
from psys.initializers import Constant
from psys.optimizers import GradientDescentOptimizer, optimizer, schedules
from psys.optimizers.optimizer import Optimizer
from psys.ps.memory_shard import MemoryShard
from psys.ps.messages import ExchangeReply, ExchangeRequest, Outcome, ShardOrders, ShardPhase
from psys.ps.shard import LoadedSlice
from psys.train import exponential_decay

SGD = GradientDescentOptimizer(1.0)
ONES = np.ones(3, np.float32)


@pytest.fixture
def failing() -> Iterator[type[Optimizer]]:
    class Failing(Optimizer):
        kind = "Failing"

        def __init__(self, learning_rate: float = 1.0) -> None:
            super().__init__(learning_rate, False, "Failing")

        def update(
            self,
            value: Array,
            slots: Mapping[str, Array],
            scalars: Mapping[str, float],
            gradient: Array,
        ) -> None:
            value -= gradient
            raise ZeroDivisionError("not this one")

    yield Failing
    del optimizer._KINDS["Failing"]


def live(*optimizers: Optimizer) -> MemoryShard:
    shard = MemoryShard(0)
    shard.obey(ShardOrders("g", ShardPhase.LOADING))
    specs = [
        VariableSpec(f"v{i}", (3,), "float32", Constant(1.0), one.to_config())
        for i, one in enumerate(optimizers)
    ]
    shard.load("g", [LoadedSlice(one, 0, 3) for one in specs])
    shard.obey(ShardOrders("g", ShardPhase.LIVE))
    return shard


def push(shard: MemoryShard, sequence: int = 1, task: str = "worker:0") -> ExchangeReply:
    gradients: dict[str, Gradient] = dict.fromkeys(shard.slices, ONES)
    request = ExchangeRequest(
        "g", task, 1, sequence, 0, gradients, True, {}, False, global_step=8000
    )
    (served,) = shard.exchange("c", request)
    return served.reply


def test_a_rate_that_overflows_is_refused_before_anything_is_changed() -> None:
    shard = live(SGD, GradientDescentOptimizer(exponential_decay(0.1, None, 1, 1.1)))  # type: ignore[arg-type]
    for _ in range(2):
        reply = push(shard)
        assert reply.outcome is Outcome.REFUSED
        assert "'v1'" in reply.reason
        assert "global step 8000" in reply.reason
    assert shard.slices["v0"].value.tolist() == [1, 1, 1]
    assert (shard.version, shard.fences) == (0, {})


def test_a_schedule_of_the_users_that_raises_is_refused_too() -> None:
    @dataclass(frozen=True)
    class Raises(schedules.LearningRateSchedule):
        kind = "Raises"

        def __call__(self, step: int) -> float:
            raise LookupError("no such step")

    try:
        shard = live(SGD, GradientDescentOptimizer(Raises()))
        reply = push(shard)
    finally:
        del schedules._KINDS["Raises"]
    assert reply.outcome is Outcome.REFUSED
    assert "LookupError: no such step" in reply.reason
    assert shard.slices["v0"].value.tolist() == [1, 1, 1]


def test_a_push_that_failed_in_the_middle_is_not_applied_again_nor_is_its_model_served(
    failing: type[Optimizer],
) -> None:
    shard = live(SGD, failing())  # type: ignore[call-arg]
    reply = push(shard)
    assert reply.outcome is Outcome.REFUSED
    assert "ZeroDivisionError: not this one" in reply.reason
    assert "test_failing_updates.py, line" in reply.reason
    after = [one.value.copy() for one in shard.slices.values()]
    for again in (push(shard), push(shard, task="worker:1")):
        assert (again.outcome, again.reason) == (Outcome.REFUSED, reply.reason)
        assert not again.dense
    for before, one in zip(after, shard.slices.values(), strict=True):
        assert before.tolist() == one.value.tolist()


def test_what_was_applied_in_part_is_not_saved(failing: type[Optimizer]) -> None:
    shard = live(SGD, failing())  # type: ignore[call-arg]
    push(shard)
    orders = ShardOrders("g", ShardPhase.LIVE, save="s")
    shard.obey(orders)
    shard.obey(replace(orders, cut={}))
    assert shard.take_snapshot() is None
    assert "in part" in shard.facts().write_error
    shard.obey(ShardOrders("h", ShardPhase.LOADING))  # the next model is another
    assert not shard.facts().write_error


COLD = """
import numpy as np
from psys.arrays import VariableSpec
from psys.initializers import Constant
from psys.kernels import rows
from psys.optimizers.updates import Sum
from psys.ps.slice_state import prepare
from psys.ps.shard import LoadedSlice
spec = VariableSpec("v", (3,), "float32", Constant(), Sum().to_config(), sparse=True)
prepare([LoadedSlice(spec, 0, 3)])
print(len(rows.sum_duplicates._compiled))
"""


def test_what_every_push_takes_is_compiled_when_a_model_is_loaded() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COLD], capture_output=True, text=True, check=True, env={**os.environ}
    )
    assert done.stdout.split() == ["1"]
