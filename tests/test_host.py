"""The host of a Node: its clock, its callbacks, its waits, its disk."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from psys import host as hosts
from psys.arrays import Gradient, IndexedSlices, VariableSpec
from psys.errors import ShardTimeout, ShardUnavailable
from psys.host import NodeHost
from psys.initializers import Constant
from psys.local import LocalShard
from psys.optimizers import GradientDescentOptimizer
from psys.ps import snapshot as snapshots
from psys.ps.endings import Limits
from psys.ps.job import Job
from psys.ps.messages import (
    ExchangeRequest,
    Outcome,
    Report,
    ShardFacts,
    ShardFile,
    ShardOrders,
    ShardPhase,
    Verdict,
)
from psys.ps.shard import LoadedSlice

G = "aaaaaaaaaaaa"
JOB = Job(("ps:0",), ("chief",), limits=Limits(linger_secs=60.0))
NewHost = Callable[..., NodeHost]


@pytest.fixture
def new_host() -> Iterator[NewHost]:
    made: list[NodeHost] = []

    def make(job: Job | None = None, **options: Any) -> NodeHost:
        write = options.pop("write_shard", lambda snapshot: ShardFile("file", 1, "hash"))
        made.append(NodeHost(0, write, job, **options))
        return made[-1]

    yield make
    for host in made:
        host.close()


def push(sequence: int = 1, **gradients: Gradient) -> ExchangeRequest:
    return ExchangeRequest(G, "chief", 1, sequence, 0, gradients, False, {}, False)


def live(host: NodeHost, *slices: LoadedSlice) -> NodeHost:
    host.obey(ShardOrders(G, ShardPhase.LOADING))
    host.load(G, list(slices))
    host.obey(ShardOrders(G, ShardPhase.LIVE))
    return host


def until(condition: Callable[[], Any]) -> None:
    moment, end = threading.Event(), time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        moment.wait(0.005)


# ---------------------------------------------------------------- exchanges that wait


def test_a_reply_withheld_for_too_long_is_a_timeout_and_leaves_nothing_behind(
    new_host: NewHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "REPLY_LIMIT_SECS", 0.05)
    host = live(new_host())
    host.obey(ShardOrders(G, ShardPhase.LIVE, save="dddddddddddd"))
    caller = object()
    with pytest.raises(ShardTimeout):
        host.exchange(caller, push())
    host.obey(ShardOrders(G, ShardPhase.LIVE))
    assert host.read_lead(lambda node: node.shard.version) == 0
    assert host.exchange(caller, push()).outcome is Outcome.APPLIED


def test_a_caller_that_comes_again_takes_the_place_of_its_first_wait(new_host: NewHost) -> None:
    host = live(new_host())
    host.obey(ShardOrders(G, ShardPhase.LIVE, save="dddddddddddd"))
    caller = object()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(host.exchange, caller, push())
        until(lambda: host.read_lead(lambda node: node.shard._parked))
        second = pool.submit(host.exchange, caller, push())
        with pytest.raises(ShardUnavailable):
            first.result(20)
        host.obey(ShardOrders(G, ShardPhase.LIVE))
        assert second.result(20).version == 1


def test_a_closed_host_serves_nobody(new_host: NewHost) -> None:
    host = live(new_host())
    host.close()
    shard = LocalShard(host)
    shard.begin_exchange(push())
    with pytest.raises(ShardUnavailable, match="leaving"):
        shard.finish_exchange()


def test_the_limit_of_a_request_is_known_for_the_generation_served_alone(
    new_host: NewHost,
) -> None:
    host = new_host()
    assert host.request_limit_bytes("") is None
    assert host.request_limit_bytes(G) is None
    live(host)
    limit = host.request_limit_bytes(G)
    assert limit is not None
    assert limit > 0
    assert host.request_limit_bytes("bbbbbbbbbbbb") is None
    host.obey(ShardOrders("bbbbbbbbbbbb", ShardPhase.LOADING))
    assert host.request_limit_bytes(G) is host.request_limit_bytes("bbbbbbbbbbbb") is None


# ---------------------------------------------------------------- what it calls back


def test_facts_are_told_when_they_change_and_not_at_every_push(new_host: NewHost) -> None:
    host = live(new_host())
    told: list[ShardFacts] = []
    host.listen_to_facts(told.append)
    for sequence in range(1, 20):
        host.exchange("caller", push(sequence))
    assert len(told) == 1
    host.obey(ShardOrders(G, ShardPhase.LIVE, save="dddddddddddd"))
    assert told[-1].held == "dddddddddddd"
    assert dict(told[-1].fences) == {"chief": (1, 19)}


def test_a_shard_file_that_cannot_be_written_fails_the_save_and_no_more(
    new_host: NewHost, caplog: pytest.LogCaptureFixture
) -> None:
    def write(snapshot: Any) -> ShardFile:
        raise OSError(28, "No space left on device")

    host = live(new_host(write_shard=write))
    told: list[ShardFacts] = []
    host.listen_to_facts(told.append)
    host.obey(ShardOrders(G, ShardPhase.LIVE, save="dddddddddddd", cut={}))
    until(lambda: told[-1].write_error)
    assert "No space left on device" in told[-1].write_error
    assert host.exchange("caller", push()).outcome is Outcome.APPLIED


def test_a_cut_is_written_once(new_host: NewHost) -> None:
    written: list[str] = []

    def write(snapshot: Any) -> ShardFile:
        written.append(snapshot.save)
        return ShardFile("file", 1, "hash")

    host = live(new_host(write_shard=write))
    host.obey(ShardOrders(G, ShardPhase.LIVE, save="dddddddddddd", cut={}))
    host.obey(ShardOrders(G, ShardPhase.LIVE, save="dddddddddddd", cut={}))
    host.close()
    assert written == ["dddddddddddd"]


def test_a_cut_is_written_as_it_was_taken_while_pushes_go_on(
    new_host: NewHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "BLOCK_BYTES", 1024)
    sgd = GradientDescentOptimizer(1.0).to_config()
    table = VariableSpec("table", (40_000, 4), "float32", Constant(), sgd, sparse=True)
    pushed, found = threading.Event(), []

    def write(snapshot: Any) -> ShardFile:
        (tensor,) = snapshot.tensors().values()
        for block in tensor.blocks():
            found.append(block)
            assert pushed.wait(20)
        return ShardFile("file", 1, "hash")

    host = live(new_host(write_shard=write), LoadedSlice(table, 0, table.rows))
    host.exchange("caller", push(1, table=IndexedSlices(*rows_of(table, 1))))
    host.obey(ShardOrders(G, ShardPhase.LIVE, save="dddddddddddd", cut={"chief": (1, 1)}))
    sequence = 1
    while sequence < 5 or sum(map(len, found)) < table.rows:
        sequence += 1
        host.exchange("caller", push(sequence, table=IndexedSlices(*rows_of(table, sequence))))
        pushed.set()
    expected = np.zeros(table.shape, np.float32)
    expected[rows_of(table, 1)[0]] = -1
    assert np.array_equal(np.concatenate(found), expected)


def rows_of(spec: VariableSpec, seed: int) -> tuple[Any, Any]:
    """Return some rows of a table, in order, and a gradient of ones for them."""
    rows = np.sort(np.random.default_rng(seed).permutation(spec.rows)[: spec.rows // 4])
    return rows, np.ones((len(rows), *spec.row_shape), np.float32)


def test_the_clock_survives_an_error(
    new_host: NewHost, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hosts, "TICK_SECS", 0.01)
    host = new_host(JOB)
    ticks: list[float] = []

    def tick(now: float) -> list[Any]:
        ticks.append(now)
        raise ZeroDivisionError("a bug")

    host.read_lead(lambda node: setattr(node, "tick", tick))
    until(lambda: len(ticks) > 2)
    assert "met an error and goes on" in caplog.text


@pytest.mark.parametrize("where", ["tick", "_settle"])
def test_a_clock_that_is_broken_ends_the_job(
    where: str,
    new_host: NewHost,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(hosts, "TICK_SECS", 0.01)
    host = new_host(JOB)
    told: list[Any] = []
    host.subscribe(("chief", "i"), told.append)
    host.hear(Report("chief", "i", 0))
    calls: list[float] = []
    well = hosts.MOST_CLOCK_ERRORS - 1

    def broken(now: float) -> list[Any]:
        calls.append(now)
        if len(calls) == well:
            return []  # what it met before was not lasting
        raise ZeroDivisionError("a bug")

    host.read_lead(lambda node: setattr(node, where, broken))
    # Something is due all the time: that must not make it run through its tries at once.
    monkeypatch.setattr(type(host._node), "look_again_at_secs", property(lambda _: 0.0))
    until(lambda: len(calls) > well + hosts.MOST_CLOCK_ERRORS)
    verdict = host.verdict(20.0)
    assert verdict is not None
    assert not verdict.finished
    assert "The clock of ps:0 meets an error again and again" in verdict.reason
    until(lambda: any(one.verdict for one in told))
    in_a_row = calls[well : well + hosts.MOST_CLOCK_ERRORS]
    assert in_a_row[-1] - in_a_row[0] >= 0.01 * (len(in_a_row) - 1)
    until(lambda: len(calls) > 60)
    assert caplog.text.count("met an error and goes on") == 2  # of each row of errors the first


# ---------------------------------------------------------------- the verdict


def test_the_verdict_is_on_disk_before_anyone_is_told(new_host: NewHost) -> None:
    order: list[str] = []
    host = new_host(JOB, keep_verdict=lambda verdict, _lead: order.append("kept"))
    host.subscribe(
        ("chief", "i"), lambda one: order.append("told") if one.verdict is not None else None
    )
    host.hear(Report("chief", "i", 0))
    host.fail("why")
    host.fail("why else")
    assert order == ["kept", "told"]
    verdict = host.verdict(0.0)
    assert verdict is not None
    assert verdict.reason == "why"


def test_a_full_disk_does_not_keep_the_verdict_from_being_told(
    new_host: NewHost, caplog: pytest.LogCaptureFixture
) -> None:
    def keep(verdict: Verdict, _lead: str) -> None:
        raise OSError(28, "No space left on device")

    host = new_host(JOB, keep_verdict=keep)
    host.fail("why")
    assert host.verdict(0.0) is not None
    assert "No space left on device" in caplog.text


def test_who_waits_for_the_verdict_is_woken_by_it(new_host: NewHost) -> None:
    host = new_host(JOB)
    with ThreadPoolExecutor(2) as pool:
        waiting: list[Any] = [
            pool.submit(host.verdict, 20.0),
            pool.submit(host.wait_news, ((), None), 20.0),
        ]
        host.fail("why")
        assert all(one.result(5) is not None for one in waiting)


# ---------------------------------------------------------------- staying until all have heard


@pytest.fixture
def lead(new_host: NewHost, monkeypatch: pytest.MonkeyPatch) -> NodeHost:
    """A lead whose chief lives and has not heard the verdict; times are a tenth of the real."""
    monkeypatch.setattr(hosts, "STAY_SILENTLY_SECS", 0.2)
    monkeypatch.setattr(hosts, "SAY_EVERY_SECS", 1.0)
    monkeypatch.setattr(hosts, "TICK_SECS", 0.02)
    host = new_host(JOB)
    host.hear(Report("chief", "i", 0))
    host.fail("why")
    return host


def test_a_lead_that_may_leave_soon_says_nothing(
    lead: NodeHost, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "psys")
    with ThreadPoolExecutor(1) as pool:
        staying = pool.submit(lead.wait_may_leave)
        lead.hear(Report("chief", "i", 1, heard_verdict=True))
        staying.result(20)
    assert "Staying" not in caplog.text


def test_a_lead_that_stays_says_for_whom_once_in_a_while(
    lead: NodeHost, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "psys")
    begun = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        staying = pool.submit(lead.wait_may_leave)
        until(lambda: "Staying for chief" in caplog.text)
        said_after_secs = time.monotonic() - begun
        lead.hear(Report("chief", "i", 1, heard_verdict=True))
        staying.result(20)
    assert said_after_secs >= 0.2
    assert caplog.text.count("Staying") == 1
