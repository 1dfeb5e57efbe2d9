"""What every Shard promises: in this process (LocalShard), over gRPC and through shared memory."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from live_shard import (
    SGD,
    TABLE_ROWS,
    Connect,
    G,
    ask,
    exchange,
    go_live,
    ones,
    order,
    push,
    rows,
    wait_until_parked,
)

from psys.arrays import IndexedSlices, VariableSpec
from psys.errors import ShardUnavailable
from psys.host import NodeHost
from psys.initializers import Constant
from psys.ps.messages import Outcome, ShardPhase
from psys.ps.shard import LoadedSlice, Shard

# ---------------------------------------------------------------- the forms of an exchange


def test_a_push_changes_dense_variables_and_rows(shard: Shard) -> None:
    gradients: dict[str, Any] = {
        "kernel": 2 * ones(4, 3),
        "scalar": ones(1),
        "precise": np.array([0.1, 0.2, 0.3]),
        "table": IndexedSlices(rows(1, 3), ones(2, 2)),
        "nothing": IndexedSlices(rows(), np.zeros((0, 4), np.float32)),
    }
    reply = exchange(shard, push(1, gradients))
    assert (reply.outcome, reply.version, reply.sequence) == (Outcome.APPLIED, 1, 1)
    assert (dict(reply.dense), dict(reply.rows), reply.generation) == ({}, {}, G)
    wanted = {"table": rows(0, 1, 2, 3), "nothing": rows()}
    reply = exchange(shard, ask(sequence=1, pull_dense=True, pull_rows=wanted))
    np.testing.assert_array_equal(reply.dense["kernel"], -ones(4, 3))
    np.testing.assert_array_equal(reply.dense["scalar"], ones(1))
    np.testing.assert_array_equal(reply.dense["precise"], 0.5 - gradients["precise"])
    np.testing.assert_array_equal(reply.dense["count"], [7, 7])
    expected = TABLE_ROWS[:4].copy()
    expected[[1, 3]] -= 1
    np.testing.assert_array_equal(reply.rows["table"], expected)
    assert reply.rows["nothing"].shape == (0, 4)


def test_a_push_carries_the_next_pull(shard: Shard) -> None:
    request = push(1, {"scalar": ones(1)}, pull_dense=True, pull_rows={"table": rows(4)})
    reply = exchange(shard, request)
    assert reply.outcome is Outcome.APPLIED
    assert reply.dense["scalar"].tolist() == [1.0]
    np.testing.assert_array_equal(reply.rows["table"], TABLE_ROWS[[4]])


@pytest.mark.parametrize(
    ("known", "brought"),
    [
        (None, {"kernel", "scalar", "count", "precise"}),
        (0, {"scalar", "kernel"}),
        (1, {"kernel"}),
        (2, set()),
        (3, {"kernel", "scalar", "count", "precise"}),  # of a history that is not this shard's
    ],
)
def test_a_pull_brings_what_changed_since_the_known_version(
    shard: Shard, known: int | None, brought: set[str]
) -> None:
    exchange(shard, push(1, {"scalar": ones(1)}))
    exchange(shard, push(2, {"kernel": ones(4, 3), "table": IndexedSlices(rows(1), ones(1, 2))}))
    wanted = {"table": rows(0, 1)}
    request = ask(sequence=2, pull_dense=True, pull_rows=wanted, known_version=known)
    for _ in range(2):  # asked again, as after a lost reply, the answer is the same
        reply = exchange(shard, request)
        assert set(reply.dense) == brought
        assert reply.version == 2
        np.testing.assert_array_equal(reply.rows["table"][1], TABLE_ROWS[1] - 1)


def test_dense_variables_that_were_pulled_are_only_to_be_read(shard: Shard) -> None:
    reply = exchange(shard, ask(pull_dense=True))
    for values in (reply.dense["kernel"], reply.dense["scalar"]):
        with pytest.raises(ValueError, match="read-only"):
            values[...] = 99


def test_rows_that_were_pulled_are_the_clients_own(shard: Shard) -> None:
    request = ask(pull_rows={"table": rows(0)})
    first = exchange(shard, request).rows["table"]
    if first.flags.writeable:
        first[:] = 99
    np.testing.assert_array_equal(exchange(shard, request).rows["table"], TABLE_ROWS[[0]])


def test_what_was_pulled_never_changes_while_it_is_held(shard: Shard) -> None:
    held = []
    for step in range(1, 8):
        gradients = {"kernel": ones(4, 3), "table": IndexedSlices(rows(1), ones(1, 2))}
        request = push(step, gradients, pull_dense=True, pull_rows={"table": rows(0, 1)})
        held.append(exchange(shard, request))
    for step, reply in enumerate(held, 1):
        np.testing.assert_array_equal(reply.dense["kernel"], (1 - step) * ones(4, 3))
        np.testing.assert_array_equal(reply.rows["table"][1], TABLE_ROWS[1] - step)


def test_a_gradient_may_change_once_its_exchange_is_done(shard: Shard) -> None:
    gradient = ones(4, 3)
    for step in (1, 2, 3):
        exchange(shard, push(step, {"kernel": gradient}))
        gradient += 1
    reply = exchange(shard, ask(sequence=3, pull_dense=True))
    np.testing.assert_array_equal(reply.dense["kernel"], 1 - (1 + 2 + 3) * ones(4, 3))


def test_staleness_counts_the_pushes_since_the_base_version(shard: Shard) -> None:
    for sequence in (1, 2, 3):
        exchange(shard, push(sequence, task="worker:1", member=2))
    reply = exchange(shard, push(1, base_version=1))
    assert (reply.version, reply.staleness) == (4, 2)


@pytest.mark.parametrize("layout", ["strided", "fortran", "reversed"])
def test_the_layout_of_a_gradient_in_memory_does_not_matter(shard: Shard, layout: str) -> None:
    whole = np.arange(24, dtype=np.float32).reshape(4, 6)
    gradient = {
        "strided": whole[:, ::2],
        "fortran": np.asfortranarray(whole[:, :3]),
        "reversed": whole[::-1, :3],
    }[layout]
    reply = exchange(shard, push(1, {"kernel": gradient}, pull_dense=True))
    np.testing.assert_array_equal(reply.dense["kernel"], 1 - gradient)


def test_arrays_of_many_frames_go_both_ways(host: NodeHost, connect: Connect) -> None:
    dense = VariableSpec("dense", (1280, 1024), "float32", Constant(), SGD)
    table = VariableSpec("table", (9000, 128), "float32", Constant(), SGD, sparse=True)
    odd = VariableSpec("odd", (262_143,), "float32", Constant(), SGD)
    shard = connect(host)
    value = np.random.default_rng(1).standard_normal(dense.shape).astype(np.float32)
    go_live(
        host,
        shard,
        [
            LoadedSlice(odd, 0, odd.rows),
            LoadedSlice(dense, 0, 1280, value=value.copy()),
            LoadedSlice(table, 0, 9000),
        ],
    )
    wanted = np.arange(0, 9000, dtype=np.int64)[: 3 << 11]
    gradient = IndexedSlices(
        wanted, np.random.default_rng(2).random((len(wanted), 128), np.float32)
    )
    gradients: dict[str, Any] = {
        "dense": value,
        "table": gradient,
        "odd": np.arange(262_143, dtype=np.float32),
    }
    reply = exchange(shard, push(1, gradients, pull_dense=True, pull_rows={"table": wanted}))
    assert reply.outcome is Outcome.APPLIED
    assert reply.rows["table"].nbytes == 3 << 20
    np.testing.assert_array_equal(reply.dense["dense"], np.zeros_like(value))
    np.testing.assert_array_equal(reply.dense["odd"], -gradients["odd"])
    np.testing.assert_array_equal(reply.rows["table"], -gradient.values)


# ---------------------------------------------------------------- once, in order, by the right one


def test_a_push_sent_again_is_applied_once_and_its_pull_is_served(shard: Shard) -> None:
    request = push(1, {"scalar": ones(1)}, pull_dense=True)
    first, second = exchange(shard, request), exchange(shard, request)
    assert (first.outcome, second.outcome) == (Outcome.APPLIED, Outcome.DUPLICATE)
    assert first.version == second.version == 1
    assert second.dense["scalar"].tolist() == [1.0]


def test_a_skipped_sequence_number_is_a_gap(shard: Shard) -> None:
    reply = exchange(shard, push(2, {"scalar": ones(1)}))
    assert (reply.outcome, reply.version) == (Outcome.GAP, 0)
    assert "2 after 0" in reply.reason


def test_a_lower_member_number_is_fenced(shard: Shard) -> None:
    exchange(shard, push(1, member=5))
    reply = exchange(shard, push(1, {"scalar": ones(1)}, member=4, pull_dense=True))
    assert (reply.outcome, reply.version, dict(reply.dense)) == (Outcome.FENCED, 1, {})
    assert "worker:0" in reply.reason


def test_a_number_the_lead_gave_up_is_fenced(host: NodeHost, shard: Shard) -> None:
    order(host, phase=ShardPhase.LIVE, refused={"worker:0": 1})
    assert exchange(shard, push(1)).outcome is Outcome.FENCED
    assert exchange(shard, push(1, member=2)).outcome is Outcome.APPLIED


REFUSED = {
    "unknown push": push(1, {"other": ones(1)}),
    "unknown pull": push(1, pull_rows={"other": rows(0)}),
    "shape": push(1, {"kernel": ones(4, 2)}),
    "rank": push(1, {"kernel": ones(12)}),
    "dtype": push(1, {"kernel": np.ones((4, 3))}),
    "not trained": push(1, {"count": np.ones(2, np.int64)}),
    "row shape": push(1, {"table": IndexedSlices(rows(1), ones(1, 3))}),
    "row too large": push(1, {"table": IndexedSlices(rows(1, 5), ones(2, 2))}),
    "row negative": push(1, {"table": IndexedSlices(rows(-1), ones(1, 2))}),
    "pull too large": push(1, {"scalar": ones(1)}, pull_rows={"table": rows(0, 5)}),
    "pull negative": push(1, {"scalar": ones(1)}, pull_rows={"table": rows(-1)}),
    "row of nothing": push(1, {"nothing": IndexedSlices(rows(0), ones(1, 4))}),
    "nan": push(1, {"scalar": np.array([np.nan], np.float32)}),
    "infinite row": push(1, {"table": IndexedSlices(rows(0), np.full((1, 2), np.inf, np.float32))}),
    "second of two": push(1, {"scalar": ones(1), "kernel": ones(4, 2)}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_as_a_whole(shard: Shard, name: str) -> None:
    before = exchange(shard, ask(pull_dense=True))
    reply = exchange(shard, REFUSED[name])
    assert (reply.outcome, dict(reply.dense), dict(reply.rows)) == (Outcome.REFUSED, {}, {})
    assert reply.reason
    after = exchange(shard, ask(pull_dense=True))
    assert after.version == before.version == 0
    assert after.dense["scalar"].tolist() == [2.0]
    assert exchange(shard, push(1)).outcome is Outcome.APPLIED


# ---------------------------------------------------------------- generations


def test_another_generation_is_neither_applied_nor_served(shard: Shard) -> None:
    reply = exchange(
        shard, push(1, {"scalar": ones(1)}, generation="bbbbbbbbbbbb", pull_dense=True)
    )
    assert (reply.outcome, dict(reply.dense)) == (Outcome.GENERATION_CHANGED, {})
    assert exchange(shard, ask()).version == 0


def test_a_shard_that_lost_its_model_says_so_even_to_a_large_push(
    host: NodeHost, connect: Connect
) -> None:
    spec = VariableSpec("w", (1280, 1024), "float32", Constant(), SGD)
    shard = connect(host)
    go_live(host, shard, [LoadedSlice(spec, 0, 1280)])
    large = push(1, {"w": ones(1280, 1024)}, pull_dense=True)
    order(host, "bbbbbbbbbbbb", phase=ShardPhase.LOADING)
    assert exchange(shard, large).outcome is Outcome.GENERATION_CHANGED
    order(host, "", phase=ShardPhase.EMPTY)
    assert exchange(shard, large).outcome is Outcome.GENERATION_CHANGED
    go_live(host, shard, [LoadedSlice(spec, 0, 1280)], "cccccccccccc")
    assert exchange(shard, push(1, generation="cccccccccccc")).outcome is Outcome.APPLIED


def test_numbers_begin_again_with_a_generation(host: NodeHost, shard: Shard) -> None:
    exchange(shard, push(1, member=7))
    go_live(host, shard, generation="bbbbbbbbbbbb")
    reply = exchange(shard, push(1, generation="bbbbbbbbbbbb", member=1))
    assert (reply.outcome, reply.version) == (Outcome.APPLIED, 1)


# ---------------------------------------------------------------- waiting


def test_a_push_waits_while_the_shard_is_held(host: NodeHost, shard: Shard) -> None:
    order(host, phase=ShardPhase.LIVE, save="dddddddddddd")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(exchange, shard, push(1))
        wait_until_parked(host)
        assert not waiting.done()
        order(host, phase=ShardPhase.LIVE)
        assert waiting.result(10).outcome is Outcome.APPLIED


def test_a_waiting_push_hears_that_the_generation_changed(host: NodeHost, shard: Shard) -> None:
    order(host, phase=ShardPhase.LIVE, save="dddddddddddd")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(exchange, shard, push(1))
        wait_until_parked(host)
        order(host, "bbbbbbbbbbbb", phase=ShardPhase.LOADING)
        assert waiting.result(10).outcome is Outcome.GENERATION_CHANGED


@pytest.mark.parametrize("who", ["client", "host"])
def test_closing_ends_an_exchange_that_waits(host: NodeHost, shard: Shard, who: str) -> None:
    order(host, phase=ShardPhase.LIVE, save="dddddddddddd")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(exchange, shard, push(1))
        wait_until_parked(host)
        (shard if who == "client" else host).close()
        with pytest.raises(ShardUnavailable):
            waiting.result(10)


def test_a_request_begun_again_is_answered_once(shard: Shard) -> None:
    request = push(1, {"scalar": ones(1)}, pull_dense=True)
    shard.begin_exchange(request)
    shard.begin_exchange(request)
    reply = shard.finish_exchange()
    assert reply.outcome in (Outcome.APPLIED, Outcome.DUPLICATE)
    assert (reply.version, reply.dense["scalar"].tolist()) == (1, [1.0])
    assert exchange(shard, push(2)).version == 2


def test_an_answer_nobody_took_does_not_answer_the_next_request(shard: Shard) -> None:
    shard.begin_exchange(ask(pull_dense=True))
    reply = exchange(shard, ask(pull_rows={"table": rows(2)}))
    assert (dict(reply.dense), list(reply.rows)) == ({}, ["table"])


# ---------------------------------------------------------------- at once


def test_two_clients_at_once_lose_nothing(host: NodeHost, connect: Connect) -> None:
    first, second = connect(host), connect(host)
    go_live(host, first)
    pushes = 50
    together = threading.Barrier(2)

    def train(shard: Shard, task: str, member: int) -> None:
        together.wait(10)
        for sequence in range(1, pushes + 1):
            gradient = {"scalar": ones(1), "table": IndexedSlices(rows(2), ones(1, 2))}
            reply = exchange(shard, push(sequence, gradient, task=task, member=member))
            assert reply.outcome is Outcome.APPLIED

    with ThreadPoolExecutor(2) as pool:
        tasks = [pool.submit(train, first, "chief", 1), pool.submit(train, second, "worker:0", 2)]
        for one in tasks:
            one.result(60)
    reply = exchange(first, ask(task="chief", sequence=pushes, pull_dense=True))
    assert (reply.version, reply.dense["scalar"].tolist()) == (2 * pushes, [2.0 - 2 * pushes])
