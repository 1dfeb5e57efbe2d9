"""Training with stacks is training without them, bit for bit, over any number of ps."""

from __future__ import annotations

import contextlib
import gc
import itertools
import socket
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import psys as tf
from psys.arrays import Array
from psys.checkpoint import open_checkpoint
from psys.checkpoint.storage import MemoryStorage
from psys.compute.train_store import TrainStore
from psys.distribute import ParameterServerStrategy
from psys.exchange import Place
from psys.feature_column.sparse_ids import SparseFeature
from psys.host import NodeHost
from psys.initializers import RandomNormal
from psys.local import LocalShard
from psys.parameters import Parameters
from psys.ps.messages import ShardFile, ShardOrders, ShardPhase
from psys.ps.shard import LoadedSlice
from psys.rpc import stream_memory
from psys.rpc.remote_shard import RemoteShard
from psys.rpc.server import Server
from psys.train import session
from psys.train.input_pipeline import as_batch
from psys.train.lookahead import Lookahead
from psys.train.model import Model, build, loss_and_gradients

# Modules of tests are no package (importlib mode), but share what stands in their folder.
sys.path.insert(0, str(Path(__file__).parent))

from stack_models import without_stacks

G = "aaaaaaaaaaaa"
PLACE = Place(G, "chief", 1)
SIZES = {"a": 11, "b": 7, "c": 30, "d": 5}
BATCH = 8
fc = tf.feature_column
COLUMNS = {name: fc.categorical_column_with_identity(name, size) for name, size in SIZES.items()}
BAG = fc.categorical_column_with_identity("bag", 13)

OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "SGD": lambda: tf.train.GradientDescentOptimizer(0.1),
    "Momentum": lambda: tf.train.MomentumOptimizer(0.1, 0.9),
    "Adagrad": lambda: tf.train.AdagradOptimizer(0.1),
    "Ftrl": lambda: tf.train.FtrlOptimizer(0.1, l1_regularization_strength=0.01),
    "RMSProp": lambda: tf.train.RMSPropOptimizer(0.01, momentum=0.5),
    "replicas": lambda: tf.train.SyncReplicasOptimizer(tf.train.AdagradOptimizer(0.1), 1),
    "clipped": lambda: tf.train.clip_gradients_by_norm(tf.train.MomentumOptimizer(0.1, 0.9), 0.5),
}


def batch_of(number: int) -> tuple[dict[str, Any], Any]:
    random = np.random.default_rng(number)
    features: dict[str, Any] = {
        name: random.integers(0, size, BATCH) for name, size in SIZES.items()
    }
    count = int(random.integers(0, 12))
    segments = np.sort(random.integers(0, BATCH, count))
    features["bag"] = SparseFeature(random.integers(0, 13, count), segments, BATCH)
    features["x"] = random.normal(size=(BATCH, 2)).astype(np.float32)
    return features, random.integers(0, 2, (BATCH, 1)).astype(np.float32)


def batches_from(start: int) -> Callable[[], Iterator[Any]]:
    return lambda: (batch_of(number) for number in itertools.count(start))


def embedding(column: Any, width: int = 4) -> Any:
    return fc.embedding_column(column, width, initializer=RandomNormal(0.0, 1.0))


def model_fn_of(kind: str) -> Callable[..., Any]:
    """Deep columns of two widths and a bag by one optimizer, linear ones by another."""

    def model_fn(features: Any, labels: Any, mode: str) -> Any:
        a, b, c, d = COLUMNS.values()
        columns = [fc.numeric_column("x", 2), *map(embedding, (a, b, c, BAG)), embedding(d, 2)]
        net = tf.layers.dense(fc.input_layer(features, columns), 6, tf.nn.tanh)
        logits = tf.layers.dense(net, 1) + fc.linear_model(features, [a, b, c, d])
        loss = tf.losses.sigmoid_cross_entropy(labels, logits)
        linear: Any = tf.train.FtrlOptimizer(0.1)
        if kind == "replicas":  # all of a model, or none
            linear = tf.train.SyncReplicasOptimizer(linear, 1)
        wide = linear.minimize(loss, var_list=["linear_model/"])
        train_op = tf.group(OPTIMIZERS[kind]().minimize(loss), wide)
        return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=train_op)

    return model_fn


# ---------------------------------------------------------------- over shards, step by step


@contextlib.contextmanager
def shards(count: int, how: str) -> Iterator[tuple[list[NodeHost], list[Any]]]:
    """Ps of this process, and clients of them."""
    with contextlib.ExitStack() as stack:
        hosts, clients = [], []
        for index in range(count):
            host = NodeHost(index, lambda snapshot: ShardFile("file", 1, "hash"))
            stack.callback(host.close)
            hosts.append(host)
            if how == "in this process":
                client: Any = LocalShard(host)
            else:
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", 0))
                    address = f"127.0.0.1:{probe.getsockname()[1]}"
                server = Server(host, MemoryStorage(), address, tasks=2, token="t")
                stack.callback(server.stop, 0.0)
                client = RemoteShard(index, address, "t")
            stack.callback(client.close)
            clients.append(client)
        yield hosts, clients


def trained(kind: str, count: int, how: str, *, stacked: bool, steps: int = 8) -> dict[str, Array]:
    """Return every variable after some steps over ``count`` ps."""
    model_fn = model_fn_of(kind)

    def call(features: Any, labels: Any) -> Any:
        return model_fn(features, labels, tf.estimator.ModeKeys.TRAIN)

    first = as_batch(batch_of(0))
    with contextlib.nullcontext() if stacked else without_stacks():
        model, _ = build(call, first.features, first.labels, 1)
    assert len(model.lookups.stacks) == (2 if stacked else 0)
    with shards(count, how) as (hosts, clients):
        parameters = Parameters(model.specs, clients, 5.0)
        order(hosts, ShardPhase.LOADING)
        parameters.load(G, 1, lambda spec, start, stop: LoadedSlice(spec, start, stop, seed=1))
        order(hosts, ShardPhase.LIVE)
        gradients: Mapping[str, Any] | None = None
        for number in range(steps):
            batch = as_batch(batch_of(number))
            batch.prepare(model.lookups)
            pulled = parameters.exchange(PLACE, number, gradients, batch.rows, wants_grant=False)
            store = TrainStore(
                model.specs,
                pulled.dense,
                pulled.rows,
                no_fetch,
                stacks=model.lookups.stacks,
                global_step=number,
                seed=1,
            )
            _, gradients, _ = loss_and_gradients(model, call, batch.features, batch.labels, store)
            if stacked and kind != "clipped":
                assert model.lookups.stacks.keys() <= gradients.keys()
        parameters.exchange(PLACE, steps, gradients, {}, wants_grant=False)
        return values(parameters, model, steps)


def no_fetch(table: str, ids: Array) -> Array:
    raise AssertionError(f"{table} {ids} should have been pulled with the rest")


def order(hosts: list[NodeHost], phase: ShardPhase) -> None:
    for host in hosts:
        host.obey(ShardOrders(G, phase, chief=1))


def values(parameters: Parameters, model: Model, sequence: int) -> dict[str, Array]:
    """Pull every variable whole; tables one by one, whatever stack they are in."""
    found: dict[str, Array] = {}
    for name, spec in model.specs.items():
        rows = {name: np.arange(spec.rows)} if spec.sparse else {}
        pulled = parameters.exchange(PLACE, sequence, None, rows, wants_grant=False)
        own = pulled.rows[name][1] if spec.sparse else pulled.dense[name]
        found[name] = own.copy()
    return found


def assert_same(found: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert value.tobytes() == expected[name].tobytes(), name


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_steps_with_stacks_and_without_make_the_same_model_over_any_ps(kind: str) -> None:
    expected = trained(kind, 1, "in this process", stacked=False)
    assert len(expected) == 14
    for count in (1, 2, 3):
        for stacked in (True, False):
            assert_same(trained(kind, count, "in this process", stacked=stacked), expected)


@pytest.mark.parametrize("how", ["gRPC", "shared memory"])
def test_and_over_the_wire(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PSYS_SHM_DIR", "none" if how == "gRPC" else "")
    # However small: every array of these tests goes through the segment.
    monkeypatch.setattr(stream_memory, "INLINE_BYTES", 0)
    expected = trained("Momentum", 1, "in this process", stacked=False)
    assert_same(trained("Momentum", 3, how, stacked=True), expected)


# ---------------------------------------------------------------- whole trainings


def state(model_dir: Path) -> dict[str, Any]:
    """All of the newest checkpoint, value by value and slot by slot."""
    reader = open_checkpoint(str(model_dir))
    found: dict[str, Any] = {"global_step": reader.global_step}
    for name, spec in reader.variables.items():
        one = reader.slice_state(name, 0, spec.rows)
        found[name] = (one.value.tobytes(), {s: a.tobytes() for s, a in one.slots.items()})
    return found


STRATEGIES: dict[str, Any] = {
    "async": ParameterServerStrategy(),
    "overlapped": ParameterServerStrategy(pipeline_depth=1),
    "sync": ParameterServerStrategy("sync"),
    "bounded": ParameterServerStrategy("bounded", staleness=1),
}


def fit(model_dir: Path, kind: str, strategy: str, *steps: int) -> dict[str, Any]:
    """Train up to each of these steps, on the n-th batch in the n-th step."""
    config = tf.estimator.RunConfig(
        model_dir=str(model_dir), tf_random_seed=5, train_distribute=STRATEGIES[strategy]
    )
    estimator = tf.estimator.Estimator(model_fn_of(kind), config=config)
    before = 0
    for step in steps:
        estimator.train(batches_from(before), max_steps=step)
        before = step
    return state(model_dir)


@pytest.mark.parametrize(
    ("kind", "strategy"),
    [
        ("Adagrad", "async"),
        ("Momentum", "overlapped"),
        ("Momentum", "sync"),
        ("SGD", "bounded"),
        ("replicas", "async"),
        ("clipped", "async"),
        ("clipped", "overlapped"),
    ],
)
def test_a_training_with_stacks_is_the_one_without(
    tmp_path: Path, kind: str, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However busy the machine, each batch is there in time: for one that is late an overlapped
    # step pulls anew, and then trains on fresher values.
    monkeypatch.setattr(Lookahead, "at_once", lambda self, number, _wait_secs=0.0: self.at(number))
    with without_stacks():
        expected = fit(tmp_path / "alone", kind, strategy, 10)
    assert fit(tmp_path / "stacked", kind, strategy, 10) == expected


def test_a_checkpoint_knows_no_stacks(tmp_path: Path) -> None:
    """What was saved with stacks is gone on with without them, and the other way round."""
    expected = fit(tmp_path / "whole", "Momentum", "async", 10)
    for first in (True, False):
        directory = tmp_path / f"{first}"
        for stacked, step in ((first, 5), (not first, 10)):
            with contextlib.nullcontext() if stacked else without_stacks():
                config = tf.estimator.RunConfig(model_dir=str(directory), tf_random_seed=5)
                estimator = tf.estimator.Estimator(model_fn_of("Momentum"), config=config)
                estimator.train(batches_from(step - 5), max_steps=step)
        assert state(directory) == expected
    names = open_checkpoint(str(tmp_path / "whole")).variables
    assert not [name for name in names if name.startswith("stack:")]


# ---------------------------------------------------------------- memory


class Watched(TrainStore):
    """Counts, whenever one begins, the earlier ones of which anything is left."""

    alive: ClassVar[list[set[int]]] = []
    _references: ClassVar[list[list[Any]]] = []

    def __init__(self, specs: Any, dense: Any, rows: Any, *others: Any, **options: Any) -> None:
        super().__init__(specs, dense, rows, *others, **options)
        found = enumerate(self._references)
        self.alive.append({n for n, one in found if any(array() is not None for array in one)})
        watched = [self, *(values for _, values in rows.values())]
        self._references.append([weakref.ref(one) for one in watched])


@pytest.mark.parametrize(("strategy", "kept"), [("async", 0), ("overlapped", 1)])
def test_what_a_step_pulled_is_free_when_a_later_one_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str, kept: int
) -> None:
    """By counting references alone: the memory of a reply is used again when nobody has it."""
    monkeypatch.setattr(session, "TrainStore", Watched)
    monkeypatch.setattr(Watched, "alive", [])
    monkeypatch.setattr(Watched, "_references", [])
    gc.collect()
    gc.disable()
    try:
        fit(tmp_path, "Adagrad", strategy, 8)
    finally:
        gc.enable()
    assert len(Watched.alive) >= 8
    for number, alive in enumerate(Watched.alive):
        assert alive <= set(range(number - kept, number)), Watched.alive
