"""What goes by the line: every exchange of a stream but the first, and what becomes of it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from attacker import WEIGHT, Attacker, region
from exchanging import ONES, PAGE, ROWS, G, exchange, lines, pull, push, shared, until
from live_ps import Live

from psys import host as host_module
from psys.errors import ModelError, PsysError, ShardTimeout, ShardUnavailable
from psys.ps.messages import Outcome
from psys.rpc import stream_memory
from psys.rpc.handover import fetch_segment
from psys.rpc.in_flight import InFlight
from psys.rpc.remote_shard import RemoteShard
from psys.rpc.v1 import gradients_pb2


@pytest.mark.parametrize("rows", [3, ROWS])
def test_only_a_streams_first_exchange_goes_by_the_stream(
    monkeypatch: pytest.MonkeyPatch, connect: Any, rows: int
) -> None:
    live = Live(monkeypatch, rows=rows)
    shard = connect(live.address)
    ones = np.ones(rows, np.float32)
    for sequence in range(1, 6):
        reply = exchange(shard, push(sequence, ones))
        assert (reply.outcome, reply.version) == (Outcome.APPLIED, sequence)
        assert (reply.dense["weight"] == -sequence).all()
        assert len(live.by_stream) == 1
    shard.close()
    live.close()


def test_a_reply_without_room_comes_by_the_line_in_frames(
    monkeypatch: pytest.MonkeyPatch, connect: Any
) -> None:
    live = Live(monkeypatch, rows=1_000_000)  # frames of 1 MiB, far more than a socket takes
    shard = connect(live.address)
    held = [exchange(shard, pull()).dense["weight"]]
    for sequence in range(1, 6):
        reply = exchange(shard, push(sequence, np.ones(1_000_000, np.float32)))
        held.append(reply.dense["weight"])
    assert shard._memory.segment.reply_room() is None
    assert len(live.by_stream) == 1
    assert [one[[0, -1]].tolist() for one in held] == [[-n, -n] for n in range(6)]
    assert all((one == one[0]).all() for one in held)
    shard.close()
    live.close()


def test_a_request_too_large_for_the_segment_goes_by_the_stream(
    live: Live, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_memory, "SEGMENT_LIMIT_BYTES", 1 << 16)
    shard = connect(live.address)
    by_stream = []
    for sequence in range(1, 4):
        assert (exchange(shard, push(sequence)).dense["weight"] == -sequence).all()
        by_stream.append(len(live.by_stream))
        assert (exchange(shard, pull(sequence)).dense["weight"] == -sequence).all()
        by_stream.append(len(live.by_stream))
    assert by_stream == [1, 1, 2, 2, 3, 3]


def refusal(shard: RemoteShard, request: Any) -> str:
    with pytest.raises(PsysError) as caught:
        exchange(shard, request)
    assert type(caught.value) is ModelError
    return str(caught.value)


def test_a_request_the_ps_cannot_take_is_told_in_the_same_words(
    live: Live, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.ones(6 * ROWS, np.float32)  # more than the shard could ever need
    by_line = connect(live.address)
    for sequence in (1, 2):
        exchange(by_line, push(sequence))
    assert len(live.by_stream) == 1
    told = refusal(by_line, push(3, values))
    monkeypatch.setenv("PSYS_SHM_DIR", "none")
    by_stream = connect(live.address)
    exchange(by_stream, push(2))
    assert refusal(by_stream, push(3, values)) == told
    assert "announced" in told
    assert live.version == 2
    for _ in range(2):
        assert exchange(by_line, push(3)).version == 3
    assert live.version == 3


def test_what_the_shard_refuses_is_an_answer_like_any_other(live: Live, connect: Any) -> None:
    shard = connect(live.address)
    exchange(shard, push(1))
    wrong = ONES.copy()
    wrong[7] = np.nan
    reply = exchange(shard, push(2, wrong))
    assert (reply.outcome, reply.version) == (Outcome.REFUSED, 1)
    assert exchange(shard, push(3)).outcome is Outcome.GAP
    assert exchange(shard, push(1)).outcome is Outcome.DUPLICATE
    assert exchange(shard, push(2)).outcome is Outcome.APPLIED
    assert len(live.by_stream) == 1


def test_a_withheld_reply_comes_by_the_line(live: Live, connect: Any) -> None:
    shard = connect(live.address)
    for sequence in (1, 2):
        exchange(shard, push(sequence))
    live.hold()
    shard.begin_exchange(push(3))
    until(lambda: live.parked)
    live.let_go()
    reply = shard.finish_exchange()
    assert (reply.outcome, reply.version) == (Outcome.APPLIED, 3)
    assert len(live.by_stream) == 1


def test_what_is_withheld_too_long_is_told_and_applied_once(
    live: Live, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = connect(live.address)
    for sequence in (1, 2):
        exchange(shard, push(sequence))
    live.hold()
    monkeypatch.setattr(host_module, "REPLY_LIMIT_SECS", 0.1)
    with pytest.raises(ShardTimeout, match="withheld its reply"):
        exchange(shard, push(3))
    assert not live.parked
    live.let_go()
    assert exchange(shard, push(3)).outcome is Outcome.APPLIED
    assert exchange(shard, push(3)).outcome is Outcome.DUPLICATE
    assert live.version == 3


def test_an_error_of_the_ps_is_told_by_the_stream(
    live: Live, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = connect(live.address)
    for sequence in (1, 2):
        exchange(shard, push(sequence))
    live.hold()
    shard.begin_exchange(push(3))
    until(lambda: live.parked)
    live.host.close()
    with pytest.raises(ShardUnavailable, match="is leaving"):
        shard.finish_exchange()


def test_a_larger_segment_brings_a_line_of_its_own(live: Live, connect: Any) -> None:
    shard = connect(live.address)
    exchange(shard, pull())
    old_lines, old_threads = [], []
    for sequence in range(1, 4):
        # The first pull made room for replies; each push is larger than those before.
        shard._memory._largest_request = sequence * ROWS * 8
        exchange(shard, push(sequence))
        assert shard._memory.line not in old_lines
        old_lines.append(shard._memory.line)
        (served,) = [one for one in lines() if one not in old_threads and one.is_alive()]
        old_threads.append(served)
        until(lambda: len(lines()) == 1)
        assert [one._socket.fileno() >= 0 for one in old_lines] == [False] * (sequence - 1) + [True]
    assert live.version == 3
    assert len(live.by_stream) == 1


# ---------------------------------------------------------------- clients of any kind


GONE = r"gone|Broken pipe|reset"


def answer_of(data: bytes) -> Any:
    return gradients_pb2.ExchangeResponse.FromString(data).header


@pytest.fixture
def attacker(job: Any) -> Any:
    job.go_live()
    one = Attacker(job.address, job.generation)
    yield one
    one.close()


PUSH: Any = {"has_push": True, "tensors": [WEIGHT]}
BULK = np.ones(6, np.float32).tobytes()


def version(job: Any) -> int:
    return int(job.host.read_lead(lambda node: node.shard.version))


def test_who_closes_the_line_goes_on_by_the_stream(job: Any, attacker: Attacker) -> None:
    attacker.line.close()
    until(lambda: not lines())
    for sequence in (1, 2, 3):
        reply = attacker.send(sequence=sequence, bulk=BULK, **PUSH)
        assert reply.header.outcome == gradients_pb2.OUTCOME_APPLIED
    attacker.memory.region(0, 24).view(np.float32)[:] = 1  # the segment is still the stream's
    reply = attacker.send(sequence=4, bulk_region=region(1, 0, 24), **PUSH)
    assert reply.header.outcome == gradients_pb2.OUTCOME_APPLIED
    assert version(job) == 4


def test_sent_both_ways_at_once_a_push_is_applied_once(job: Any, attacker: Attacker) -> None:
    for sequence in range(1, 101):
        request = attacker.request(BULK, sequence=sequence, **PUSH)
        attacker.send_by_line(request)
        attacker.send_by_stream(request)
        outcomes = {
            answer_of(next(attacker.answers)).outcome,
            next(attacker.replies).header.outcome,
        }
        assert outcomes == {gradients_pb2.OUTCOME_APPLIED, gradients_pb2.OUTCOME_DUPLICATE}
    assert version(job) == 100


def test_sent_again_by_the_stream_while_it_waits_it_is_given_up_by_the_line(
    monkeypatch: pytest.MonkeyPatch, live: Live
) -> None:
    attacker = Attacker(live.address, G)
    weight = type(WEIGHT)()
    weight.CopyFrom(WEIGHT)
    weight.shape[:] = [ROWS]
    push_again = attacker.request(ONES.tobytes(), sequence=1, has_push=True, tensors=[weight])
    live.hold()
    attacker.send_by_line(push_again)
    until(lambda: live.parked)
    attacker.send_by_stream(push_again)
    assert next(attacker.answers) == b""
    assert live.parked == 1
    live.let_go()
    assert next(attacker.replies).header.outcome == gradients_pb2.OUTCOME_APPLIED
    assert live.version == 1
    attacker.close()


def test_a_bad_request_does_not_spoil_the_next(job: Any, attacker: Attacker) -> None:
    good = attacker.request(BULK, sequence=1, **PUSH).SerializeToString()
    bad = {
        "empty": b"",
        "nonsense": b"\xff" * 50,
        "no header": gradients_pb2.ExchangeRequest(bulk=b"x").SerializeToString(),
        "bulk in another frame": attacker.request(b"", sequence=1, **PUSH).SerializeToString(),
        "no such region": attacker.request(
            b"", sequence=1, bulk_region=region(7, 0, 24), **PUSH
        ).SerializeToString(),
        "64 pieces of nothing": bytes(64 << 16),
    }
    for name, frame in bad.items():
        attacker.line.send([frame])
        assert next(attacker.answers) == b"", name
    attacker.line.send([good])
    assert answer_of(next(attacker.answers)).outcome == gradients_pb2.OUTCOME_APPLIED
    assert version(job) == 1


def test_who_does_not_read_the_answers_keeps_nothing_but_its_own_line(
    job: Any, attacker: Attacker
) -> None:
    frame = attacker.request().SerializeToString()
    with ThreadPoolExecutor(1) as pool:
        flood = pool.submit(lambda: [attacker.line.send([frame]) for _ in range(100_000)])
        other = Attacker(job.address, job.generation, "line")
        reply = other.send(sequence=1, bulk=BULK, **PUSH)
        assert reply.header.outcome == gradients_pb2.OUTCOME_APPLIED
        other.close()
        attacker.send_by_stream(None)  # the end of the stream ends the line, full as it is
        with pytest.raises(OSError, match=GONE):
            flood.result(20)
    until(lambda: not lines())


def test_what_is_left_of_a_broken_stream_is_not_served(
    job: Any, attacker: Attacker, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve, arrived, broken = job.host.exchange, threading.Event(), threading.Event()

    def late(*given: Any) -> Any:
        arrived.set()
        assert broken.wait(20)
        return serve(*given)

    monkeypatch.setattr(job.host, "exchange", late)
    forget, forgotten = job.host.forget, threading.Event()
    monkeypatch.setattr(job.host, "forget", lambda caller: (forget(caller), forgotten.set()))
    for sequence in (1, 2, 3):
        attacker.send_by_line(attacker.request(BULK, sequence=sequence, **PUSH))
    assert arrived.wait(20)
    attacker.replies.cancel()
    assert forgotten.wait(20)
    broken.set()
    until(lambda: not lines())
    assert version(job) == 1  # the one that was being served


def test_a_ticket_redeemed_again_and_again_has_one_line(job: Any, attacker: Attacker) -> None:
    for _ in range(50):
        found: Any = fetch_segment(attacker.offer, PAGE, PAGE)
        until(lambda: len(lines()) == 1)
        found.line.send([attacker.request().SerializeToString()])
        assert answer_of(next(found.line.frames())).outcome == gradients_pb2.OUTCOME_NONE
        found.line.close()


def test_lines_left_while_their_requests_wait_for_room_leave_no_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = InFlight(ONES.nbytes)
    monkeypatch.setattr("psys.rpc.server.InFlight", lambda _: gate)
    live = Live(monkeypatch)
    attacker = Attacker(live.address, G)
    weight = type(WEIGHT)()
    weight.CopyFrom(WEIGHT)
    weight.shape[:] = [ROWS]
    waiting: list[object] = []

    def only_a_new_one_waits() -> bool:
        return len(gate._queue) == len(lines()) == 1 and list(gate._queue) != waiting

    with gate.enter(ONES.nbytes):
        for number in range(2, 32):  # of the segment
            found: Any = fetch_segment(attacker.offer, ONES.nbytes, PAGE)
            found.request.segment.region(0, ONES.nbytes).view(np.float32)[:] = number
            fields = {"tensors": [weight], "bulk_region": region(number, 0, ONES.nbytes)}
            request = attacker.request(sequence=1, has_push=True, **fields)
            found.line.send([request.SerializeToString()])
            found.line.close()
            until(only_a_new_one_waits)
            waiting = list(gate._queue)
        assert live.version == 0
    until(lambda: not lines())
    assert live.version == 1
    reply = attacker.send(pull_dense=True)
    assert (np.frombuffer(reply.bulk, np.float32) == -31).all()  # what the last line brought
    attacker.close()
    live.close()


# ---------------------------------------------------------------- many


def test_64_streams_at_once_under_overload(monkeypatch: pytest.MonkeyPatch) -> None:
    most = []
    fits = InFlight._fits

    class Watched(InFlight):
        def _fits(self, size: int) -> bool:
            most.append(self._bytes)
            return fits(self, size)

    limit = 3 * ONES.nbytes
    monkeypatch.setattr("psys.rpc.server.InFlight", lambda _: Watched(limit))
    live = Live(monkeypatch, tasks=64)
    shards = [RemoteShard(0, live.address) for _ in range(64)]

    def train(index: int, sequence: int) -> Outcome:
        request = replace(push(sequence), task=f"worker:{index}", pull_dense=False)
        return exchange(shards[index], request).outcome

    with ThreadPoolExecutor(64) as pool:
        for sequence in range(1, 5):
            tasks = [pool.submit(train, index, sequence) for index in range(64)]
            assert {one.result(60) for one in tasks} == {Outcome.APPLIED}
    assert len(lines()) == 64
    assert len(live.by_stream) == 64
    assert live.version == 4 * 64
    assert 2 * ONES.nbytes <= max(most) <= limit
    assert (exchange(shards[0], pull(4)).dense["weight"] == -256).all()
    for shard in shards:
        shard.close()
    live.close()
    until(lambda: not lines())
    until(lambda: not shared())
