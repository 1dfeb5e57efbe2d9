"""What a trainer has of the dense variables when replies leave out what did not change.

Over every kind of shard: in this process, over gRPC, and through shared memory, where the memory
of a reply is used again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from psys.arrays import Array, VariableSpec
from psys.errors import GenerationChanged, ModelError, ShardUnavailable
from psys.exchange import Place, Pulled
from psys.host import NodeHost
from psys.initializers import Constant, RandomUniform
from psys.optimizers import GradientDescentOptimizer
from psys.parameters import Parameters
from psys.ps.messages import (
    Consistency,
    ExchangeReply,
    Policy,
    ShardOrders,
    ShardPhase,
    UpdateOrder,
)
from psys.ps.shard import LoadedSlice, Shard
from psys.rpc import codec

G, H = "aaaaaaaaaaaa", "bbbbbbbbbbbb"
PLACE = Place(G, "chief", 1)
CHIEF = 1
SGD = GradientDescentOptimizer(1.0).to_config()
SYNC = Policy(Consistency.SYNC)
SPECS = {
    spec.name: spec
    for spec in (
        VariableSpec("busy", (300, 8), "float32", RandomUniform(), SGD),
        VariableSpec("idle", (500, 8), "float32", RandomUniform(), SGD),
        VariableSpec("spare", (300, 8), "float32", RandomUniform(), SGD),
        VariableSpec("bias", (), "float32", Constant(1.0), SGD),
        VariableSpec("frozen", (700, 8), "float32", RandomUniform()),
        VariableSpec("table", (50, 4), "float32", RandomUniform(), SGD, sparse=True),
    )
}
DENSE = [name for name, spec in SPECS.items() if not spec.sparse]

Connect = Callable[[NodeHost], Shard]
NewHost = Callable[..., NodeHost]


def ones(name: str) -> dict[str, Any]:
    return {name: np.ones(SPECS[name].shape, np.float32)}


class Bench:
    """Two shards, and the replies that a trainer's connections to them brought."""

    def __init__(self, hosts: list[NodeHost], connect: Connect) -> None:
        self.hosts, self.connect = hosts, connect
        self.replies: list[ExchangeReply] = []
        self.parameters = self.new_trainer(self.replies)
        self.load(G)

    def new_trainer(self, replies: list[ExchangeReply] | None = None) -> Parameters:
        shards = [self.connect(host) for host in self.hosts]
        for shard in shards if replies is not None else ():
            record(shard, replies)
        return Parameters(SPECS, shards, 5.0)

    def order(self, generation: str, only: int | None = None, **orders: Any) -> None:
        for index, host in enumerate(self.hosts):
            if only in (None, index):
                host.obey(ShardOrders(generation, chief=CHIEF, **orders))

    def load(self, generation: str, seed: int = 1, policy: Policy | None = None) -> None:
        """Put a model in place, other values for another seed."""
        self.order("", phase=ShardPhase.EMPTY)
        self.order(generation, phase=ShardPhase.LOADING)
        self.new_trainer().load(
            generation, CHIEF, lambda spec, start, stop: LoadedSlice(spec, start, stop, seed)
        )
        self.order(generation, phase=ShardPhase.LIVE, **({"policy": policy} if policy else {}))

    def step(
        self,
        sequence: int,
        gradients: Any = None,
        *,
        place: Place = PLACE,
        trainer: Parameters | None = None,
    ) -> Pulled:
        trainer = trainer or self.parameters
        self.replies.clear()
        return trainer.exchange(place, sequence, gradients, {}, wants_grant=False)

    def brought(self) -> set[str]:
        """The dense variables of which the last step's replies had a slice."""
        return {name for reply in self.replies for name in reply.dense}

    def bytes(self) -> int:
        """The size of the last step's replies on the wire."""
        return sum(len(frame) for reply in self.replies for frame in codec.encode_reply(reply))

    def values(self) -> dict[str, Array]:
        """The dense variables as the shards have them."""

        def look(host: NodeHost) -> Any:
            slices = host.read_lead(lambda node: dict(node.shard.slices))
            return {name: state.value.copy() for name, state in slices.items()}  # type: ignore[attr-defined]

        parts = [look(host) for host in self.hosts]
        split = self.parameters.shard_map
        return {
            name: split.join(
                name, {one.shard: parts[one.shard][name] for one in split.of(name)}, spec.shape
            )
            for name, spec in SPECS.items()
            if not spec.sparse
        }


def record(shard: Any, replies: list[ExchangeReply]) -> None:
    finish = shard.finish_exchange

    def note() -> ExchangeReply:
        reply: ExchangeReply = finish()
        replies.append(reply)
        return reply

    shard.finish_exchange = note


def assert_same(found: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.fixture
def bench(new_host: NewHost, connect: Connect) -> Bench:
    return Bench([new_host(index=0), new_host(index=1)], connect)


# ---------------------------------------------------------------- what travels


def test_a_frozen_variable_travels_once(bench: Bench) -> None:
    bench.step(0)
    assert bench.brought() == set(DENSE)
    all_bytes = bench.bytes()
    for sequence in range(1, 6):
        pulled = bench.step(sequence, {**ones("busy"), **ones("idle"), **ones("bias")})
        assert bench.brought() == {"busy", "idle", "bias"}
        assert bench.bytes() < all_bytes - SPECS["frozen"].nbytes
        assert_same(pulled.dense, bench.values())


def test_a_pull_between_two_updates_brings_nothing(bench: Bench) -> None:
    first = bench.step(0)
    for _ in range(3):
        again = bench.step(0)
        assert bench.brought() == set()
        assert bench.bytes() < 200
        assert_same(again.dense, first.dense)


def test_a_variable_without_a_gradient_is_left_out_of_that_step(bench: Bench) -> None:
    bench.step(0)
    for sequence, names in enumerate(("busy", "busy", "idle", "busy", "idle", "bias"), 1):
        pulled = bench.step(sequence, ones(names))
        assert bench.brought() == {names}
        assert_same(pulled.dense, bench.values())


def test_what_others_change_comes_with_the_next_pull(bench: Bench) -> None:
    bench.step(0)
    other = bench.new_trainer()
    bench.step(1, ones("idle"), place=Place(G, "worker:0", 2), trainer=other)
    pulled = bench.step(1, ones("busy"))
    assert bench.brought() == {"busy", "idle"}
    assert_same(pulled.dense, bench.values())


def test_rows_alone_neither_bring_nor_forget_dense_values(bench: Bench) -> None:
    bench.step(0)
    rows = {"table": np.array([1, 40], np.int64)}
    bench.parameters.exchange(PLACE, 1, ones("busy"), {}, pull=False, wants_grant=False)
    bench.parameters.exchange(PLACE, 1, None, rows, pull=False, wants_grant=False)
    pulled = bench.step(1)
    assert bench.brought() == {"busy"}  # the push that pulled nothing was an update too
    assert_same(pulled.dense, bench.values())


def test_whatever_is_pushed_a_trainer_sees_what_the_shards_have(bench: Bench) -> None:
    random = np.random.default_rng(5)
    trainers = [(bench.parameters, PLACE), (bench.new_trainer(), Place(G, "worker:0", 2))]
    sequences = [0, 0]
    held: list[tuple[Mapping[str, Array], Mapping[str, Array]]] = []
    for _ in range(60):
        which = int(random.integers(2))
        trainer, place = trainers[which]
        gradients = None
        if random.random() < 0.8:
            sequences[which] += 1
            names = [name for name in ("busy", "idle", "bias") if random.random() < 0.4]
            gradients = {name: ones(name)[name] for name in names}
        pulled = bench.step(sequences[which], gradients, place=place, trainer=trainer)
        expected = bench.values()
        assert_same(pulled.dense, expected)
        held.append((pulled.dense, expected))
        # A trainer may hold the values of some steps: they never change under it.
        held = held[-3:]
        for values, then in held:
            assert_same(values, then)


def test_what_is_left_out_takes_no_room_that_replies_need(
    new_host: NewHost, connect: Connect, request: pytest.FixtureRequest
) -> None:
    bench = Bench([new_host(index=0)], connect)
    (shard,) = bench.parameters.shards
    bench.step(0)
    # Each of them was brought by another reply when it is left out.
    for sequence in range(1, 13):
        bench.step(sequence, ones(("busy", "idle", "bias", "spare")[sequence % 4]))
        if request.node.callspec.params["connect"] == "shared memory":
            assert shard._reply_room is not None  # type: ignore[attr-defined]


# ---------------------------------------------------------------- when all travels anew


def test_another_generation_brings_everything(bench: Bench) -> None:
    bench.step(0)
    bench.step(1, ones("busy"))
    bench.load(H, seed=2)
    with pytest.raises(GenerationChanged):
        bench.step(2, ones("busy"))
    pulled = bench.step(0, place=Place(H, "chief", 1))
    assert bench.brought() == set(DENSE)
    assert_same(pulled.dense, bench.values())


def test_another_number_brings_everything(bench: Bench) -> None:
    bench.step(0)
    bench.step(1, ones("busy"))
    pulled = bench.step(0, place=Place(G, "chief", 3))
    assert bench.brought() == set(DENSE)
    assert_same(pulled.dense, bench.values())


def test_a_connection_that_broke_brings_everything_of_that_shard(bench: Bench) -> None:
    bench.step(0)
    shard: Any = bench.parameters.shards[1]
    finish, failures = shard.finish_exchange, [ShardUnavailable("ps:1 cannot be reached")]

    def breaks() -> ExchangeReply:
        if failures:
            raise failures.pop()
        reply: ExchangeReply = finish()
        return reply

    shard.finish_exchange = breaks
    pulled = bench.step(1, ones("busy"))
    expected = {
        one.variable for one in bench.parameters.shard_map.on(1) if not SPECS[one.variable].sparse
    }
    assert bench.brought() == {"busy"} | expected
    assert_same(pulled.dense, bench.values())


def test_a_version_that_is_yet_to_come_is_not_known(bench: Bench) -> None:
    bench.step(0)
    for cache in bench.parameters._caches:
        cache.version = 7  # of a history that these shards do not have
    pulled = bench.step(0)
    assert bench.brought() == set(DENSE)
    assert_same(pulled.dense, bench.values())


def test_a_step_that_failed_leaves_what_is_known_as_it_was(bench: Bench) -> None:
    bench.step(0)
    with pytest.raises(ModelError):
        bench.step(5, ones("busy"))
    pulled = bench.step(1, ones("idle"))
    assert bench.brought() == {"idle"}
    assert_same(pulled.dense, bench.values())


def test_a_reply_that_leaves_out_what_is_not_known_is_refused(bench: Bench) -> None:
    shard: Any = bench.parameters.shards[0]
    finish = shard.finish_exchange

    def thrifty() -> ExchangeReply:
        reply: ExchangeReply = finish()
        dict.pop(reply.dense, next(iter(reply.dense)))  # type: ignore[arg-type]
        return reply

    shard.finish_exchange = thrifty
    with pytest.raises(ModelError, match="answered with nothing"):
        bench.step(0)


# ---------------------------------------------------------------- synchronous training


def test_a_shard_that_is_an_update_behind_is_caught_up_with(bench: Bench) -> None:
    bench.load(H, policy=SYNC)
    bench.parameters.same_version = True
    place = Place(H, "chief", 1)
    bench.step(0, place=place)
    other = bench.new_trainer()
    worker = Place(H, "worker:0", 2)
    pushing = threading.Thread(
        target=lambda: other.exchange(worker, 1, ones("busy"), {}, wants_grant=False)
    )
    pushing.start()
    for host in bench.hosts:
        while not host.read_lead(lambda node: node.shard.facts().arrived):
            pass
    update = UpdateOrder(1, 0, {"worker:0": (2, 1)})
    live: dict[str, Any] = {"phase": ShardPhase.LIVE, "policy": SYNC, "update": update}
    bench.order(H, only=0, **live)
    second: Any = bench.parameters.shards[1]
    begin, asked = second.begin_exchange, []

    def note(request: Any) -> None:
        begin(request)
        asked.append((request.known_version, request.least_version))
        if len(asked) == 2:
            bench.order(H, only=1, **live)

    second.begin_exchange = note
    pulled = bench.step(0, place=place)
    pushing.join()
    assert asked == [(0, 0), (0, 1)]
    assert bench.brought() == {"busy"}
    assert pulled.versions == (1, 1)
    assert_same(pulled.dense, bench.values())
