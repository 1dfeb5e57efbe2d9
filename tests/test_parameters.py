"""Parameters over several shards: what is checked before the first byte, and how it ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psys.arrays import IndexedSlices, VariableSpec
from psys.errors import ClusterError, Fenced, GenerationChanged, ModelError, ShardUnavailable
from psys.exchange import Place
from psys.host import NodeHost
from psys.initializers import Constant, RandomUniform
from psys.local import LocalShard
from psys.optimizers import GradientDescentOptimizer
from psys.parameters import Parameters
from psys.ps.messages import (
    Consistency,
    ExchangeReply,
    ExchangeRequest,
    Outcome,
    Policy,
    ShardFile,
    ShardOrders,
    ShardPhase,
    UpdateOrder,
)
from psys.ps.shard import LoadedSlice

G = "aaaaaaaaaaaa"
PLACE = Place(G, "chief", 1)
SGD = GradientDescentOptimizer(1.0).to_config()
SPECS = {
    spec.name: spec
    for spec in (
        VariableSpec("bias", (), "float32", Constant(1.0), SGD),
        VariableSpec("kernel", (40, 8), "float32", RandomUniform(), SGD),
        VariableSpec("fixed", (4,), "float32", Constant(), None),
        VariableSpec("table", (100, 4), "float32", RandomUniform(), SGD, sparse=True),
    )
}


def slice_for(spec: VariableSpec, start: int, stop: int) -> LoadedSlice:
    return LoadedSlice(spec, start, stop, seed=1)


class Cluster:
    """So many live shards in this process."""

    def __init__(self, count: int) -> None:
        self.hosts = [
            NodeHost(index, lambda snapshot: ShardFile("file", 1, "hash")) for index in range(count)
        ]
        self.shards: list[Any] = [LocalShard(host) for host in self.hosts]
        self.parameters = Parameters(SPECS, self.shards, 1.0)
        self.order(phase=ShardPhase.LOADING)
        self.parameters.load(G, 1, slice_for)
        self.order(phase=ShardPhase.LIVE)

    def order(self, generation: str = G, **orders: Any) -> None:
        for host in self.hosts:
            host.obey(ShardOrders(generation, chief=1, **orders))

    def exchange(self, sequence: int, gradients: Any = None, rows: Any = None) -> Any:
        return self.parameters.exchange(PLACE, sequence, gradients, rows or {}, wants_grant=False)

    def versions(self) -> list[Any]:
        return [host.read_lead(lambda node: node.shard.version) for host in self.hosts]


@pytest.fixture
def new_cluster() -> Iterator[Callable[[int], Cluster]]:
    made: list[Cluster] = []

    def make(count: int) -> Cluster:
        made.append(Cluster(count))
        return made[-1]

    yield make
    for cluster in made:
        cluster.parameters.close()
        for host in cluster.hosts:
            host.close()


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_a_model_is_the_same_over_any_number_of_shards(
    new_cluster: Callable[[int], Cluster], count: int
) -> None:
    one, several = new_cluster(1), new_cluster(count)
    ids = np.array([0, 3, 50, 51, 99], np.int64)
    kernel = np.arange(320, dtype=np.float32).reshape(40, 8)
    gradients = {
        "bias": np.float32(0.5) * np.ones((), np.float32),
        "kernel": kernel,
        "table": IndexedSlices(np.array([99, 0, 99]), np.ones((3, 4), np.float32)),
    }
    for cluster in (one, several):
        cluster.exchange(1, gradients)
    left, right = (cluster.exchange(1, None, {"table": ids}) for cluster in (one, several))
    for name, value in left.dense.items():
        np.testing.assert_array_equal(value, right.dense[name])
        assert right.dense[name].shape == SPECS[name].shape
    np.testing.assert_array_equal(left.rows["table"][1], right.rows["table"][1])
    assert several.versions() == [1] * count


@given(st.lists(st.integers(0, 99), unique=True).map(sorted))
@settings(max_examples=25)
def test_any_rows_come_back_in_the_order_they_were_asked(ids: list[int]) -> None:
    cluster = Cluster(3)
    pulled = cluster.exchange(0, None, {"table": np.array(ids, np.int64)})
    expected = SPECS["table"].initializer.rows("table", (100, 4), "float32", 0, 100, 1)[ids]
    np.testing.assert_array_equal(pulled.rows["table"][1], expected)
    for host in cluster.hosts:
        host.close()


def rows(*indices: int, width: int = 4, dtype: str = "float32") -> IndexedSlices:
    return IndexedSlices(np.array(indices, np.int64), np.ones((len(indices), width), dtype))


BAD: Mapping[str, dict[str, Any]] = {
    "unknown": {"other": np.ones(3, np.float32)},
    "shape": {"kernel": np.ones((40, 7), np.float32)},
    "dtype": {"kernel": np.ones((40, 8))},
    "not trained": {"fixed": np.ones(4, np.float32)},
    "nan": {"kernel": np.full((40, 8), np.nan, np.float32)},
    "row too large": {"table": rows(3, 100)},
    "row negative": {"table": rows(-1)},
    "row width": {"table": rows(3, width=5)},
    "row dtype": {"table": rows(3, dtype="float64")},
    "second": {"bias": np.ones((), np.float32), "table": rows(100)},
}


@pytest.mark.parametrize("name", BAD)
def test_a_gradient_that_does_not_fit_is_not_sent_to_any_shard(
    new_cluster: Callable[[int], Cluster], name: str
) -> None:
    cluster = new_cluster(3)
    sent: list[ExchangeRequest] = []
    for shard in cluster.shards:
        shard.begin_exchange = sent.append
    with pytest.raises(ModelError, match=next(reversed(BAD[name]))):
        cluster.exchange(1, BAD[name])
    assert sent == []


@pytest.mark.parametrize("ids", [[100], [-1]])
def test_rows_that_are_not_there_are_not_asked_for(
    new_cluster: Callable[[int], Cluster], ids: list[int]
) -> None:
    with pytest.raises(ModelError, match="table"):
        new_cluster(2).exchange(0, None, {"table": np.array(ids, np.int64)})


def test_outcomes_that_end_a_step_are_errors(new_cluster: Callable[[int], Cluster]) -> None:
    cluster = new_cluster(2)
    with pytest.raises(ModelError, match="refused the step"):
        cluster.exchange(2, {})
    cluster.order(phase=ShardPhase.LIVE, refused={"chief": 1})
    with pytest.raises(Fenced, match="ps:0"):
        cluster.exchange(1, {})
    cluster.order("bbbbbbbbbbbb", phase=ShardPhase.LOADING)
    with pytest.raises(GenerationChanged):
        cluster.exchange(1, {})


def test_shards_are_loaded_at_once_and_the_first_error_is_raised(
    new_cluster: Callable[[int], Cluster],
) -> None:
    cluster = new_cluster(2)
    cluster.order("", phase=ShardPhase.EMPTY)
    cluster.order(phase=ShardPhase.LOADING)
    both = threading.Barrier(2)

    def load(one: Any, *given: Any) -> None:
        both.wait(20)  # one after the other, the first would wait for ever
        one.load(*given)

    for index, shard in enumerate(cluster.shards):
        cluster.parameters.shards[index].load = partial(load, LocalShard(shard._host))
    cluster.parameters.load(G, 1, slice_for, at_once=2)
    for member in (2, 3):
        with pytest.raises(Fenced, match=rf"ps:\d: number {member} "):
            cluster.parameters.load(G, member, slice_for, at_once=2)


# ---------------------------------------------------------------- synchronous training

SYNC = Policy(Consistency.SYNC)
ONES = {"kernel": np.ones((40, 8), np.float32)}
FIRST = UpdateOrder(1, 0, {"chief": (1, 1)})


def in_sync(cluster: Cluster) -> None:
    cluster.order("", phase=ShardPhase.EMPTY)
    cluster.order(phase=ShardPhase.LOADING)
    cluster.parameters.load(G, 1, slice_for)
    cluster.order(phase=ShardPhase.LIVE, policy=SYNC)
    cluster.parameters.same_version = True


def test_a_push_that_is_kept_for_long_is_asked_for_again_and_counts_once(
    new_cluster: Callable[[int], Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psys.ps.node.WAIT_ANSWER_SECS", 0.1)
    cluster = new_cluster(2)
    in_sync(cluster)
    before = cluster.exchange(0)
    asked: list[ExchangeRequest] = []
    begin = cluster.shards[0].begin_exchange

    def note(request: ExchangeRequest) -> None:
        asked.append(request)
        if len(asked) == 3:  # told twice to ask again
            cluster.order(phase=ShardPhase.LIVE, policy=SYNC, update=FIRST)
        begin(request)

    cluster.shards[0].begin_exchange = note
    pulled = cluster.exchange(1, ONES)
    assert len(asked) >= 3
    assert [bool(one.push) for one in asked[:3]] == [True, False, False]
    assert {one.sequence for one in asked} == {1}
    np.testing.assert_array_equal(pulled.dense["kernel"], before.dense["kernel"] - 1)
    assert pulled.outcome in (Outcome.APPLIED, Outcome.DUPLICATE)


def test_what_is_pulled_is_of_one_version(new_cluster: Callable[[int], Cluster]) -> None:
    cluster = new_cluster(2)
    in_sync(cluster)
    before = cluster.exchange(0)
    other = Parameters(SPECS, [LocalShard(host) for host in cluster.hosts], 1.0)
    place = Place(G, "worker:0", 1)
    thread = threading.Thread(target=lambda: other.exchange(place, 1, ONES, {}, wants_grant=False))
    thread.start()
    for host in cluster.hosts:
        while not host.read_lead(lambda node: node.shard.facts().arrived):
            pass
    order = UpdateOrder(1, 0, {"worker:0": (1, 1)})
    cluster.hosts[0].obey(ShardOrders(G, ShardPhase.LIVE, chief=1, policy=SYNC, update=order))
    asked: list[ExchangeRequest] = []
    begin = cluster.shards[1].begin_exchange

    def note(request: ExchangeRequest) -> None:
        asked.append(request)
        begin(request)
        if len(asked) == 2:
            orders = ShardOrders(G, ShardPhase.LIVE, chief=1, policy=SYNC, update=order)
            cluster.hosts[1].obey(orders)

    cluster.shards[1].begin_exchange = note
    pulled = cluster.exchange(0)
    thread.join()
    assert [one.least_version for one in asked] == [0, 1]
    np.testing.assert_array_equal(pulled.dense["kernel"], before.dense["kernel"] - 1)


def test_rows_fetched_in_the_middle_of_a_step_do_not_make_it_newer(
    new_cluster: Callable[[int], Cluster],
) -> None:
    cluster = new_cluster(1)
    cluster.exchange(0)
    other = Parameters(SPECS, [LocalShard(cluster.hosts[0])], 1.0)
    other.exchange(Place(G, "worker:0", 2), 1, {}, {}, wants_grant=False)
    rows = {"table": np.array([1], np.int64)}
    cluster.parameters.exchange(PLACE, 0, None, rows, pull=False, wants_grant=False)
    assert cluster.exchange(1, {}).staleness == 1


class Broken(LocalShard):
    """A shard that cannot be reached, so many times or for ever."""

    def __init__(self, host: NodeHost, failures: float) -> None:
        super().__init__(host)
        self.failures = failures
        self.tries = 0

    def finish_exchange(self) -> ExchangeReply:
        self.tries += 1
        if self.tries <= self.failures:
            raise ShardUnavailable("ps:1 cannot be reached")
        return super().finish_exchange()


def breaks(cluster: Cluster, failures: float, retry_secs: float = 30.0) -> Parameters:
    shards = [cluster.shards[0], Broken(cluster.hosts[1], failures)]
    return Parameters(SPECS, shards, retry_secs)


def test_only_the_shard_that_did_not_answer_is_tried_again(
    new_cluster: Callable[[int], Cluster],
) -> None:
    cluster = new_cluster(2)
    parameters = breaks(cluster, 2)
    pulled = parameters.exchange(PLACE, 1, {}, {}, wants_grant=False)
    assert pulled.outcome is Outcome.APPLIED
    assert parameters.shards[1].tries == 3  # type: ignore[attr-defined]
    assert cluster.versions() == [1, 1]


def test_trying_again_ends_when_it_took_too_long(new_cluster: Callable[[int], Cluster]) -> None:
    with pytest.raises(ShardUnavailable, match="ps:1"):
        breaks(new_cluster(2), np.inf, 0.05).exchange(PLACE, 1, {}, {}, wants_grant=False)


def test_trying_again_ends_when_it_makes_no_sense_any_more(
    new_cluster: Callable[[int], Cluster],
) -> None:
    def check(place: Place) -> None:
        raise ClusterError(f"{place.task}: enough")

    parameters = breaks(new_cluster(2), np.inf)
    parameters.check = check
    with pytest.raises(ClusterError, match="chief: enough"):
        parameters.exchange(PLACE, 1, {}, {}, wants_grant=False)


def test_one_shard_of_another_generation_ends_the_tries_at_the_other(
    new_cluster: Callable[[int], Cluster],
) -> None:
    cluster = new_cluster(2)
    cluster.hosts[0].obey(ShardOrders("bbbbbbbbbbbb", ShardPhase.LOADING))
    parameters = breaks(cluster, np.inf)
    with pytest.raises(GenerationChanged, match="ps:0"):
        parameters.exchange(PLACE, 1, {}, {}, wants_grant=False)
    assert parameters.shards[1].tries == 1  # type: ignore[attr-defined]
