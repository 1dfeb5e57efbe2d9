"""Shared memory: used where a host is shared, gone with either side, safe from the other."""

from __future__ import annotations

import logging
import mmap
import os
import queue
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from psys.arrays import VariableSpec
from psys.errors import ModelError, ShardUnavailable
from psys.initializers import Constant
from psys.optimizers import GradientDescentOptimizer
from psys.ps.messages import ExchangeReply, ExchangeRequest, Outcome
from psys.rpc import codec, handover, segment, stream_memory
from psys.rpc.frames import lay_out
from psys.rpc.handover import Handover, NoSharedMemory, Ticket, fetch_segment
from psys.rpc.remote_shard import RemoteShard
from psys.rpc.segment import (
    REPLY_ROOMS,
    Room,
    RoomAllocator,
    Segment,
    TrainerSegment,
    create_descriptor,
)
from psys.rpc.v1 import gradients_pb2, gradients_pb2_grpc, tensors_pb2

G = "aaaaaaaaaaaa"
ROWS = 100_000
ONES = np.ones(ROWS, np.float32)
SMALL_TRAINER = str(Path(__file__).with_name("small_trainer.py"))
PAGE = mmap.PAGESIZE


def push(sequence: int, values: Any = ONES) -> ExchangeRequest:
    return ExchangeRequest(G, "worker:0", 1, sequence, 0, {"weight": values}, True, {}, False)


def exchange(shard: RemoteShard, request: ExchangeRequest) -> ExchangeReply:
    shard.begin_exchange(request)
    return shard.finish_exchange()


def shared(pid: int | str = "self") -> list[str]:
    """Return the mappings and descriptors of shared memory a process has."""
    found = [
        line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if "/memfd:psys" in line
    ]
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(entry)
        except FileNotFoundError:
            continue
        if "/memfd:psys" in target:
            found.append(target)
    return found


def until(condition: Callable[[], object]) -> None:
    moment = threading.Event()
    while not condition():
        moment.wait(0.005)


@pytest.fixture
def connect() -> Iterator[Callable[[str], RemoteShard]]:
    opened: list[RemoteShard] = []

    def make(address: str) -> RemoteShard:
        opened.append(RemoteShard(0, address))
        return opened[-1]

    yield make
    for shard in opened:
        shard.close()


@pytest.fixture
def ps(small_ps: Callable[..., Any]) -> Any:
    return small_ps(G, rows=ROWS)


# ---------------------------------------------------------------- where it is used


def test_the_bulk_of_a_large_exchange_lies_in_memory_both_have(
    ps: Any, connect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "psys")
    shard = connect(ps.address)
    first = exchange(shard, push(1))
    assert not shared()
    for sequence in (2, 3, 4):
        reply = exchange(shard, push(sequence))
        assert reply.dense["weight"].tolist()[:: ROWS // 2] == [-sequence] * 2
    assert shared()
    assert shared(ps.process.pid)
    memory = shard._memory.segment.request.segment.region(0, 1)
    at = (
        reply.dense["weight"].__array_interface__["data"][0] - memory.__array_interface__["data"][0]
    )
    assert 0 < at < shard._memory.segment.request.segment.size
    assert first.dense["weight"][0] == -1
    assert [one.message for one in caplog.records if "ps:0" in one.message] == [
        "ps:0: shared memory."
    ]


def test_small_exchanges_need_none(small_ps: Any, connect: Any) -> None:
    shard = connect(small_ps(G).address)
    for sequence in (1, 2, 3):
        exchange(shard, push(sequence, np.ones(3, np.float32)))
    assert shard._memory.segment is None


def test_elsewhere_the_same_exchange_goes_over_grpc_and_says_so_once(
    ps: Any, connect: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "psys")
    monkeypatch.setattr(handover, "_abstract", lambda name: f"\0elsewhere-{name}")
    shard = connect(ps.address)
    for sequence in (1, 2, 3):
        reply = exchange(shard, push(sequence))
    assert reply.dense["weight"][0] == -3
    assert not shared()
    assert [one.message for one in caplog.records if "ps:0" in one.message] == [
        "ps:0: gRPC (not met on this host)."
    ]


@pytest.mark.parametrize("side", ["ps", "trainer"])
def test_either_side_may_refuse_it(
    small_ps: Any, connect: Any, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    wish = {"PSYS_SHM_DIR": "none"}
    ps = small_ps(G, rows=ROWS, **(wish if side == "ps" else {}))
    if side == "trainer":
        monkeypatch.setenv(*next(iter(wish.items())))
    shard = connect(ps.address)
    for sequence in (1, 2, 3):
        exchange(shard, push(sequence))
    assert not shared()


def test_containers_meet_in_a_directory(
    small_ps: Any, connect: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place = tmp_path / "meet"
    ps = small_ps(G, rows=ROWS, PSYS_SHM_DIR=str(place))
    (name,) = place.iterdir()
    assert name.stat().st_mode & 0o777 == 0o600
    assert place.stat().st_mode & 0o777 == 0o700
    # An abstract socket is of one network namespace: what another container sees is this.
    monkeypatch.setattr(handover, "_abstract", lambda name: f"\0elsewhere-{name}")
    monkeypatch.setenv("PSYS_SHM_DIR", str(place))
    shard = connect(ps.address)
    for sequence in (1, 2):
        exchange(shard, push(sequence))
    assert shared()


def test_the_socket_of_a_killed_ps_is_removed_by_the_next_and_no_other(tmp_path: Path) -> None:
    abandoned = tmp_path / "psys-000000000000.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(abandoned))
        dead.listen()
    first = Handover(str(tmp_path))
    (mine,) = tmp_path.iterdir()
    assert mine != abandoned
    second = Handover(str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 2
    second.close()
    assert list(tmp_path.iterdir()) == [mine]
    first.close()
    assert not list(tmp_path.iterdir())


def test_a_directory_that_cannot_be_had_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    one = Handover(str(tmp_path / "file" / "meet"))
    with one.stream() as ticket:
        assert ticket is not None
    one.close()


def test_a_segment_grows_with_the_messages_and_what_is_held_stays(job: Any, connect: Any) -> None:
    sgd = GradientDescentOptimizer(1.0).to_config()
    table = VariableSpec("table", (ROWS, 4), "float32", Constant(1.0), sgd, sparse=True)
    job.go_live([table])
    shard = connect(job.address)

    def pull(rows: int) -> Any:
        wanted = {"table": np.arange(rows, dtype=np.int64)}
        request = ExchangeRequest(job.generation, "chief", 1, 0, 0, None, False, wanted, False)
        return exchange(shard, request).rows["table"]

    held, sizes = [], []
    for rows in (4000, 4000, 20_000, 20_000, 20_001, ROWS, ROWS, 10):
        held.append(pull(rows))
        sizes.append(shard._memory.segment and shard._memory.segment.request.segment.size)
    assert sizes[0] is None
    assert sizes[1] < sizes[3] == sizes[4] < sizes[6] == sizes[7]
    assert [len(one) for one in held] == [4000, 4000, 20_000, 20_000, 20_001, ROWS, ROWS, 10]
    assert all((one == 1).all() for one in held)


def test_a_message_beyond_the_limit_travels_in_frames_and_the_others_do_not(
    job: Any, connect: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stream_memory, "SEGMENT_LIMIT_BYTES", 1 << 20)
    sgd = GradientDescentOptimizer(1.0).to_config()
    job.go_live([VariableSpec("table", (ROWS, 4), "float32", Constant(1.0), sgd, sparse=True)])
    shard = connect(job.address)
    caplog.set_level(logging.INFO, "psys")
    for rows in (20_000, 4000, 4000, ROWS, ROWS, 4000):
        wanted = {"table": np.arange(rows, dtype=np.int64)}
        request = ExchangeRequest(job.generation, "chief", 1, 0, 0, None, False, wanted, False)
        assert len(exchange(shard, request).rows["table"]) == rows
    assert shard._memory.segment.request.segment.size <= 1 << 20
    assert len([one for one in caplog.messages if "do not fit the 1 MiB" in one]) == 1


def test_arrays_may_be_made_where_the_bulk_has_them() -> None:
    descriptor = create_descriptor(4 * PAGE)
    room = Room(Segment(1, descriptor), PAGE, 2 * PAGE)
    os.close(descriptor)
    allocate = RoomAllocator(room)
    shapes = [(3,), (0, 4), (5, 2), ()]
    made = {f"v{i}": allocate(shape, np.dtype("float32")) for i, shape in enumerate(shapes)}
    for number, array in enumerate(made.values(), 1):
        array[...] = number
    too_large = allocate((PAGE,), np.dtype("float32"))
    assert too_large.base is None  # elsewhere: there is no such room
    for dense in (made, {name: array.copy() for name, array in made.items()}):
        frames = codec.encode_reply(ExchangeReply(G, 0, Outcome.NONE, dense=dense), room)
        incoming = codec.open_reply(next(frames), frames, "ps:0")
        assert not len(incoming.piece)
        bulk = room.bytes(incoming.header.bulk_region.length_bytes)
        layout = lay_out(incoming.header.tensors, PAGE, "ps:0")
        for number, (_, _, array) in enumerate(layout.arrays(bulk), 1):
            assert (array == number).all()
        room.bytes(2 * PAGE)[:] = 0 if dense is made else 9


# ---------------------------------------------------------------- when a side dies


def test_a_killed_trainer_leaves_nothing(ps: Any) -> None:
    before = set(os.listdir("/dev/shm"))
    trainer = subprocess.Popen(
        [sys.executable, SMALL_TRAINER, ps.address, G, str(ROWS)], stdout=subprocess.PIPE, text=True
    )
    assert trainer.stdout is not None
    assert trainer.stdout.readline() == "exchanged\n"
    assert shared(ps.process.pid)
    trainer.send_signal(signal.SIGKILL)
    trainer.wait()
    trainer.stdout.close()
    until(lambda: not shared(ps.process.pid))
    assert set(os.listdir("/dev/shm")) == before


def test_a_killed_ps_leaves_nothing_but_what_is_held(ps: Any, connect: Any) -> None:
    before = set(os.listdir("/dev/shm"))
    shard = connect(ps.address)
    for sequence in (1, 2):
        reply = exchange(shard, push(sequence))
    ps.kill()
    with pytest.raises(ShardUnavailable):
        exchange(shard, push(3))
    assert shared()  # the values of the last reply, which the trainer still has
    assert (reply.dense["weight"] == -2).all()
    del reply
    assert not shared()
    assert set(os.listdir("/dev/shm")) == before


def test_many_streams_leave_no_descriptors(ps: Any) -> None:
    def descriptors() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), len(os.listdir(f"/proc/{ps.process.pid}/fd"))

    sequence, counts = 0, []
    for _ in range(12):
        shard = RemoteShard(0, ps.address)
        for _ in range(2):
            sequence += 1
            exchange(shard, push(sequence))
        shard.close()
        until(lambda: not shared(ps.process.pid))
        counts.append(descriptors())
    assert not shared()
    # What gRPC itself keeps for its connections varies by a few.
    assert counts[-1][0] <= counts[2][0] + 3
    assert counts[-1][1] <= counts[2][1] + 3


def test_after_a_broken_stream_the_segment_is_a_new_one(ps: Any, connect: Any) -> None:
    shard = connect(ps.address)
    for sequence in (1, 2):
        exchange(shard, push(sequence))
    old = shard._memory.segment
    shard.begin_exchange(push(3))
    shard.begin_exchange(push(3))  # given up, and begun again
    assert shard._memory.segment is None
    assert shard.finish_exchange().outcome in (Outcome.APPLIED, Outcome.DUPLICATE)
    reply = exchange(shard, push(4))
    assert shard._memory.segment is not None
    assert shard._memory.segment.request.segment is not old.request.segment
    assert (reply.dense["weight"] == -4).all()


# ---------------------------------------------------------------- a peer that is not to be trusted


def test_no_peer_can_cut_a_segment() -> None:
    descriptor = create_descriptor(4 * PAGE)
    try:
        mine = Segment(1, descriptor)
        for size in (0, PAGE, 8 * PAGE):
            with pytest.raises(PermissionError):
                os.ftruncate(descriptor, size)
        assert mine.region(3 * PAGE, PAGE).sum() == 0
    finally:
        os.close(descriptor)


def unsealed() -> int:
    descriptor = os.memfd_create("psys", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, 1 << 20)
    return descriptor


def plain_file() -> int:
    descriptor = os.open("/tmp", os.O_TMPFILE | os.O_RDWR)
    os.ftruncate(descriptor, 1 << 20)
    return descriptor


class Impostor:
    """Answers one handover as a ps would that wants to do harm."""

    def __init__(self, *descriptors: int, proof: bool = True, answer: bytes | None = None) -> None:
        self._ticket = Ticket("0" * 12)
        self.offer = self._ticket.offer()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(handover._abstract(self.offer.socket))
        self._listener.listen()
        secret = self.offer.secret if proof else bytes(32)
        self._answer = answer or struct.pack("<Q32s", 1, handover._proof(secret, b"ps", 1))
        self._descriptors = descriptors
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            connection.recv(100)
            socket.send_fds(connection, [self._answer], self._descriptors)

    def close(self) -> None:
        self._thread.join()
        self._listener.close()
        for one in self._descriptors:
            os.close(one)


@pytest.mark.parametrize(
    ("make", "options", "reason"),
    [
        ([unsealed], {}, "not sealed"),
        ([plain_file], {}, ""),
        ([lambda: create_descriptor(PAGE)], {}, "too little"),
        ([lambda: create_descriptor(1 << 20)], {"proof": False}, "not the ps"),
        ([lambda: create_descriptor(1 << 20)], {"answer": b"short"}, "did not"),
        ([], {}, "did not"),
    ],
    ids=["unsealed", "a file", "too small", "no proof", "short", "none"],
)
def test_a_trainer_takes_only_what_is_safe(make: Any, options: Any, reason: str) -> None:
    impostor = Impostor(*(one() for one in make), **options)
    before = len(os.listdir("/proc/self/fd"))
    found = fetch_segment(impostor.offer, 10 * PAGE, 10 * PAGE)
    assert isinstance(found, NoSharedMemory)
    assert reason in found.reason
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # the impostor's connection
    impostor.close()


def ask(name: str, message: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(10)
        connection.connect(handover._abstract(name))
        connection.send(message)
        answer, descriptors, _, _ = socket.recv_fds(connection, 100, 1)
        for one in descriptors:
            os.close(one)
        return answer


def test_a_ps_hands_over_only_to_who_knows_the_secret() -> None:
    one = Handover()
    try:
        with one.stream() as ticket:
            assert ticket is not None
            offer = ticket.offer()

            def message(
                size: int, name: bytes = offer.ticket, secret: bytes = offer.secret
            ) -> bytes:
                proof = handover._proof(secret, b"trainer", size)
                return handover._ASK.pack(name, size, proof)

            good = message(PAGE)
            refused = {
                "no secret": message(PAGE, secret=bytes(32)),
                "another size": good[:16] + (2 * PAGE).to_bytes(8, "little") + good[24:],
                "no such stream": message(PAGE, name=bytes(16)),
                "nothing": b"",
                "short": good[:-1],
                "no memory": message(0),
                "too much": message(segment.SEGMENT_LIMIT_BYTES + 1),
            }
            for case, wrong in refused.items():
                assert ask(offer.socket, wrong or b"x") == b"", case
            assert ticket.segment is None
            assert len(ask(offer.socket, good)) == handover._ANSWER.size
            assert ticket.segment is not None
            assert (ticket.segment.number, ticket.segment.size) == (1, PAGE)
            assert len(ask(offer.socket, message(2 * PAGE))) == handover._ANSWER.size
            assert (ticket.segment.number, ticket.segment.size) == (2, 2 * PAGE)
        assert ask(offer.socket, good) == b""  # the stream ended
    finally:
        one.close()


def test_who_connects_and_says_nothing_keeps_nobody_waiting() -> None:
    one = Handover()
    idle = []
    try:
        for _ in range(5):
            idle.append(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            idle[-1].connect(handover._abstract(one._name))
        with one.stream() as ticket:
            assert ticket is not None
            begun = time.monotonic()
            assert isinstance(fetch_segment(ticket.offer(), PAGE, PAGE), TrainerSegment)
            # One after the other, each would have its time before.
            assert time.monotonic() - begun < handover.HANDOVER_LIMIT_SECS
        idle[0].settimeout(10)
        assert idle[0].recv(1) == b""  # and is given up at last
    finally:
        one.close()
        for connection in idle:
            connection.close()


def test_another_user_is_not_even_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Handover()
    other = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: other)
    try:
        with one.stream() as ticket:
            assert ticket is not None
            found = fetch_segment(ticket.offer(), PAGE, PAGE)
            assert isinstance(found, NoSharedMemory)
            assert ticket.segment is None
    finally:
        one.close()


def test_memory_that_cannot_be_mapped_leaves_no_descriptor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(number: int, descriptor: int) -> None:
        raise OSError("cannot allocate memory")

    monkeypatch.setattr(handover, "Segment", fail)
    ticket = Ticket("0" * 12)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="cannot allocate"):
        ticket.redeem(PAGE, handover._proof(ticket._secret, b"trainer", PAGE))
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(("failures", "in_memory"), [(2, True), (3, False)])
def test_what_failed_is_tried_again_at_the_next_exchange(
    job: Any, connect: Any, monkeypatch: pytest.MonkeyPatch, failures: int, in_memory: bool
) -> None:
    tries = []

    def fetch(*given: Any) -> Any:
        tries.append(given)
        if len(tries) <= failures:
            return NoSharedMemory("timed out", passing=True)
        return fetch_segment(*given)

    monkeypatch.setattr(stream_memory, "fetch_segment", fetch)
    sgd = GradientDescentOptimizer(1.0).to_config()
    job.go_live([VariableSpec("weight", (ROWS,), "float32", Constant(), sgd)])
    shard = connect(job.address)
    pull = ExchangeRequest(job.generation, "chief", 1, 0, 0, None, True, {}, False)
    for _ in range(6):
        exchange(shard, pull)
    assert (shard._memory.segment is not None) is in_memory
    assert len(tries) == 3


class Attacker:
    """A client made from the protos, with a segment of its stream in its hands."""

    def __init__(self, job: Any) -> None:
        self._job = job
        self._channel = grpc.insecure_channel(job.address)
        self._requests: Any = queue.SimpleQueue()
        stub = gradients_pb2_grpc.GradientsStub(self._channel)
        self._replies = stub.Exchange(iter(self._requests.get, None))
        offer = self.send().header.shared_memory
        found = fetch_segment(offer, 16 * PAGE, PAGE)
        assert isinstance(found, TrainerSegment)
        self.memory = found.request.segment

    def send(self, bulk: bytes = b"", **fields: Any) -> Any:
        header = gradients_pb2.ExchangeRequestHeader(
            generation=self._job.generation, task="worker:0", member=1, **fields
        )
        self._requests.put(gradients_pb2.ExchangeRequest(header=header, bulk=bulk))
        return next(self._replies)

    def close(self) -> None:
        self._requests.put(None)
        self._channel.close()


WEIGHT = tensors_pb2.Tensor(
    name="weight",
    role=tensors_pb2.TENSOR_ROLE_GRADIENT,
    dtype=tensors_pb2.DATA_TYPE_FLOAT32,
    shape=[2, 3],
)


def region(segment: int, offset: int, length: int) -> Any:
    return tensors_pb2.MemoryRegion(segment=segment, offset_bytes=offset, length_bytes=length)


SIZE = 16 * PAGE + REPLY_ROOMS * PAGE
HOSTILE = {
    "beyond the end": region(1, SIZE, 24),
    "over the end": region(1, SIZE - 16, 24),
    "wrapped around": region(1, 2**64 - 8, 24),
    "too long": region(1, 0, 2**64 - 1),
    "not aligned": region(1, 4, 24),
    "another segment": region(2, 0, 24),
    "no segment": region(0, 0, 24),
    "shorter than announced": region(1, 0, 16),
    "longer than announced": region(1, 0, 32),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_region_that_is_not_the_senders_is_refused(job: Any, name: str) -> None:
    job.go_live()
    attacker = Attacker(job)
    with pytest.raises(grpc.RpcError) as caught:
        attacker.send(sequence=1, has_push=True, tensors=[WEIGHT], bulk_region=HOSTILE[name])
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert job.host.read_lead(lambda node: node.shard.version) == 0
    attacker.close()


@pytest.mark.parametrize("name", [name for name in HOSTILE if "announced" not in name])
def test_a_reply_is_not_written_outside_the_senders_segment(job: Any, name: str) -> None:
    job.go_live()
    attacker = Attacker(job)
    with pytest.raises(grpc.RpcError) as caught:
        attacker.send(
            sequence=1,
            has_push=True,
            tensors=[WEIGHT],
            bulk_region=region(1, 0, 24),
            reply_region=HOSTILE[name],
            pull_dense=True,
        )
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert job.host.read_lead(lambda node: node.shard.version) == 0  # before anything is changed
    attacker.close()


def test_bulk_in_both_places_is_refused(job: Any) -> None:
    job.go_live()
    attacker = Attacker(job)
    with pytest.raises(grpc.RpcError) as caught:
        attacker.send(
            bytes(24), sequence=1, has_push=True, tensors=[WEIGHT], bulk_region=region(1, 0, 24)
        )
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    attacker.close()


def test_a_stream_without_a_segment_has_no_regions(job: Any) -> None:
    job.go_live()
    for field in ("bulk_region", "reply_region"):
        header = gradients_pb2.ExchangeRequestHeader(
            generation=job.generation, task="worker:0", member=1, **{field: region(1, 0, 0)}
        )
        with grpc.insecure_channel(job.address) as channel:
            stub = gradients_pb2_grpc.GradientsStub(channel)
            replies = stub.Exchange(iter([gradients_pb2.ExchangeRequest(header=header)]))
            with pytest.raises(grpc.RpcError) as caught:
                next(replies)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_row_numbers_are_what_was_checked_whatever_the_client_writes_later() -> None:
    descriptor = create_descriptor(PAGE)
    memory = Segment(1, descriptor)
    os.close(descriptor)
    memory.region(0, 16).view(np.int64)[:] = [1, 2]
    tensor = tensors_pb2.Tensor(
        name="t",
        role=tensors_pb2.TENSOR_ROLE_PULL,
        dtype=tensors_pb2.DATA_TYPE_INT64,
        shape=[2],
    )
    header = gradients_pb2.ExchangeRequestHeader(tensors=[tensor], bulk_region=region(1, 0, 16))
    frame = gradients_pb2.ExchangeRequest(header=header).SerializeToString()
    request = codec.decode_request(codec.open_request(frame, iter(())), 1 << 20, memory)
    memory.region(0, 16).view(np.int64)[:] = 2**40
    assert request.pull_rows["t"].tolist() == [1, 2]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_reply_that_lies_elsewhere_is_refused(name: str) -> None:
    descriptor = create_descriptor(SIZE)
    memory = TrainerSegment(Segment(1, descriptor), 16 * PAGE, PAGE)
    os.close(descriptor)
    header = gradients_pb2.ExchangeResponseHeader(
        outcome=gradients_pb2.OUTCOME_NONE,
        grant=gradients_pb2.GRANT_NONE,
        tensors=[
            tensors_pb2.Tensor(
                name="w",
                role=tensors_pb2.TENSOR_ROLE_DENSE,
                dtype=tensors_pb2.DATA_TYPE_FLOAT32,
                shape=[2, 3],
            )
        ],
        bulk_region=HOSTILE[name],
    )
    frame = gradients_pb2.ExchangeResponse(header=header).SerializeToString()
    incoming = codec.open_reply(frame, iter(()), "ps:0")
    for known, room in ((memory, memory.reply_room()), (memory, None), (None, None)):
        with pytest.raises(ModelError, match="ps:0"):
            codec.decode_reply(incoming, 1 << 20, "ps:0", known, room)
