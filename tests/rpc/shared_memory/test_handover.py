"""The handover of a segment to, and from, a peer that is not to be trusted."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from typing import Any

import pytest
from exchanging import PAGE, ROWS, exchange, until

from psys.arrays import VariableSpec
from psys.initializers import Constant
from psys.optimizers import GradientDescentOptimizer
from psys.ps.messages import ExchangeRequest
from psys.rpc import handover, segment, stream_memory
from psys.rpc.handover import Handover, NoSharedMemory, Ticket, fetch_segment
from psys.rpc.line import Line
from psys.rpc.segment import (
    Segment,
    TrainerSegment,
    create_descriptor,
)


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
    lines: list[Line] = []
    try:
        with one.stream(lambda ticket, line: lines.append(line)) as ticket:
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
            assert not lines
            assert len(ask(offer.socket, good)) == handover._ANSWER.size
            assert ticket.segment is not None
            assert (ticket.segment.number, ticket.segment.size) == (1, PAGE)
            assert len(ask(offer.socket, message(2 * PAGE))) == handover._ANSWER.size
            assert (ticket.segment.number, ticket.segment.size) == (2, 2 * PAGE)
            until(lambda: len(lines) == 2)
        assert ask(offer.socket, good) == b""  # the stream ended
        assert len(lines) == 2
    finally:
        one.close()
        for line in lines:
            line.close()


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
            found = fetch_segment(ticket.offer(), PAGE, PAGE)
            assert isinstance(found, TrainerSegment)
            assert found.line is not None
            found.line.close()
            # One after the other, each would have its time before.
            assert time.monotonic() - begun < handover.HANDOVER_LIMIT_SECS
        idle[0].settimeout(10)
        assert idle[0].recv(1) == b""  # and is given up at last
    finally:
        one.close()
        for connection in idle:
            connection.close()


def test_too_many_who_say_nothing_push_out_the_oldest_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handover, "HANDOVER_LIMIT_SECS", 100.0)  # nobody's time is over
    one = Handover()
    silent = []
    try:
        for _ in range(handover.MOST_UNANSWERED + 3):
            silent.append(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            silent[-1].connect(handover._abstract(one._name))
            silent[-1].setblocking(False)
        with one.stream() as ticket:
            assert ticket is not None
            found = fetch_segment(ticket.offer(), PAGE, PAGE)
            give_up = time.monotonic() + 10.0
            while (
                isinstance(found, NoSharedMemory) and found.passing and time.monotonic() < give_up
            ):
                # The queue of those who are not taken in yet is full: as a trainer does, again.
                found = fetch_segment(ticket.offer(), PAGE, PAGE)
            assert isinstance(found, TrainerSegment)
            assert found.line is not None
            found.line.close()
        # Connections are taken in order: the trainer's, too, made one of them leave.
        for connection in silent[:4]:
            assert connection.recv(1) == b""
        for connection in silent[4:]:
            with pytest.raises(BlockingIOError):
                connection.recv(1)
    finally:
        one.close()
        for connection in silent:
            connection.close()


def test_another_user_is_not_even_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Handover()
    other = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: other)
    try:
        with one.stream(lambda ticket, line: pytest.fail("it got a line")) as ticket:
            assert ticket is not None
            found = fetch_segment(ticket.offer(), PAGE, PAGE)
            assert isinstance(found, NoSharedMemory)
            assert ticket.segment is None
            assert ticket._line is None
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


def test_a_process_without_threads_to_spare_goes_on_handing_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    start = threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        if thread.name == "psys-line":
            raise RuntimeError("can't start new thread")
        start(thread)

    one = Handover()
    served: list[Line] = []
    try:
        with one.stream(lambda ticket, line: served.append(line)) as ticket:
            assert ticket is not None
            for _ in range(2):
                with monkeypatch.context() as patch:
                    patch.setattr(threading.Thread, "start", fail)
                    found = fetch_segment(ticket.offer(), PAGE, PAGE)
                    assert isinstance(found, TrainerSegment)
                    assert found.line is not None
                    with pytest.raises(OSError, match="gone"):
                        next(found.line.frames())
                    found.line.close()
            assert "can't start new thread" in caplog.text
            found = fetch_segment(ticket.offer(), PAGE, PAGE)
            assert isinstance(found, TrainerSegment)
            assert found.line is not None
            until(lambda: served)
            found.line.close()
    finally:
        one.close()
        for line in served:
            line.close()


def test_the_end_of_handing_over_ends_the_lines() -> None:
    one = Handover()
    with one.stream(lambda ticket, line: until_gone(line)) as ticket:
        assert ticket is not None
        found = fetch_segment(ticket.offer(), PAGE, PAGE)
        assert isinstance(found, TrainerSegment)
        assert found.line is not None
        one.close()
        until_gone(found.line)


def until_gone(line: Line) -> None:
    with pytest.raises(OSError, match="gone"):
        next(line.frames())
    line.close()


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
