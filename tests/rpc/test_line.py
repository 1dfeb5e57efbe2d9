"""The line: frames of any size, and peers that go away or talk nonsense."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from psys.errors import ModelError
from psys.rpc import line as line_module
from psys.rpc.channel import MESSAGE_LIMIT_BYTES
from psys.rpc.line import PIECE_BYTES, Line

GONE = "gone|Broken pipe|Connection reset|Bad file descriptor"


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


@pytest.fixture
def ends() -> Iterator[tuple[Line, Line]]:
    here, there = (Line(one) for one in pair())
    yield here, there
    here.close()
    there.close()


@pytest.fixture
def raw() -> Iterator[tuple[socket.socket, Line]]:
    """A socket that may send anything, and the line that hears it."""
    connection, other = pair()
    there = Line(other)
    yield connection, there
    connection.close()
    there.close()


def sized(size: int, data: bytes) -> bytes:
    return struct.pack("<I", size) + data


SIZES = [0, 1, 4, 5000, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1]
SIZES += [2 * PIECE_BYTES, 3 * PIECE_BYTES + 7, 1 << 20, MESSAGE_LIMIT_BYTES]


def test_frames_of_any_size_arrive_as_they_were(ends: tuple[Line, Line]) -> None:
    here, there = ends
    frames = [os.urandom(size) for size in SIZES]
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(here.send, frames)
        arriving = there.frames()
        for frame in frames:
            assert next(arriving) == frame
        sent.result(10)


def test_both_directions_at_once(ends: tuple[Line, Line]) -> None:
    frames = [os.urandom(1 << 20) for _ in range(8)]
    with ThreadPoolExecutor(4) as pool:
        sent = [pool.submit(one.send, frames) for one in ends]
        got = [pool.submit(lambda one: [next(one) for _ in frames], one.frames()) for one in ends]
        assert [one.result(20) for one in got] == [frames, frames]
        for one in sent:
            one.result(1)


def test_a_piece_fits_whatever_the_systems_default_is() -> None:
    sockets = pair()
    for one in sockets:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    here, there = map(Line, sockets)
    here.send([bytes(PIECE_BYTES)])
    assert next(there.frames()) == bytes(PIECE_BYTES)
    here.close()
    there.close()


NONSENSE: dict[str, list[bytes]] = {
    "no size": [b"abc"],
    "too short": [sized(10, bytes(9))],
    "too long": [sized(10, bytes(11))],
    "a piece too long": [sized(PIECE_BYTES + 1, bytes(PIECE_BYTES + 1))],
    "much too long": [sized(10, bytes(PIECE_BYTES + 100))],
    "the first of several too short": [sized(PIECE_BYTES + 10, bytes(10)), bytes(PIECE_BYTES)],
    "the last too short": [sized(PIECE_BYTES + 10, bytes(PIECE_BYTES)), bytes(9)],
    "the last too long": [sized(PIECE_BYTES + 10, bytes(PIECE_BYTES)), bytes(11)],
    "too large": [sized(MESSAGE_LIMIT_BYTES + 1, bytes(PIECE_BYTES))],
    "absurd": [sized(2**32 - 1, b"")],
}


@pytest.mark.parametrize("name", NONSENSE)
def test_what_is_no_frame_is_refused(raw: tuple[socket.socket, Line], name: str) -> None:
    connection, there = raw
    for piece in NONSENSE[name]:
        connection.send(piece)
    with pytest.raises(ModelError):
        next(there.frames())


def test_a_frame_of_tiny_pieces_is_not_collected(raw: tuple[socket.socket, Line]) -> None:
    """In pieces of two bytes, a frame would take forty times its size."""
    connection, there = raw
    connection.send(sized(MESSAGE_LIMIT_BYTES, bytes(PIECE_BYTES)))
    connection.send(bytes(2))
    with pytest.raises(ModelError, match=r"Got 2 bytes of a frame of 33,554,432; expected 65,536"):
        next(there.frames())


def test_what_was_sent_is_heard_before_the_end(ends: tuple[Line, Line]) -> None:
    here, there = ends
    here.send([b"last", b""])
    here.close()
    arriving = there.frames()
    assert [next(arriving), next(arriving)] == [b"last", b""]
    with pytest.raises(OSError, match="gone"):
        next(arriving)


def test_an_end_within_a_frame_is_an_end_and_no_nonsense(raw: tuple[socket.socket, Line]) -> None:
    connection, there = raw
    connection.send(sized(PIECE_BYTES + 10, bytes(PIECE_BYTES)))
    connection.close()
    with pytest.raises(OSError, match="gone"):
        next(there.frames())


def test_who_sends_to_one_that_is_gone_is_told(ends: tuple[Line, Line]) -> None:
    here, there = ends
    there.close()
    with pytest.raises(OSError, match=GONE):
        here.send([b"x"])


def send_for_ever(end: Line, frame: bytes) -> None:
    while True:
        end.send([frame])


@pytest.mark.parametrize("how", [Line.shut, Line.close])
@pytest.mark.parametrize("whose", ["own", "peer"])
@pytest.mark.parametrize(
    "wait",
    [
        lambda end: next(end.frames()),
        lambda end: send_for_ever(end, b""),
        lambda end: send_for_ever(end, bytes(1 << 20)),
    ],
    ids=["reader", "sender of small frames", "sender of large frames"],
)
def test_who_waits_is_woken_by_the_end(
    ends: tuple[Line, Line],
    wait: Callable[[Line], object],
    whose: str,
    how: Callable[[Line], None],
) -> None:
    here, there = ends
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait, here)
        (thread,) = pool._threads
        until_asleep(thread.native_id)
        how(here if whose == "own" else there)
        with pytest.raises(OSError, match=GONE):
            waiting.result(10)


def until_asleep(native_id: int) -> None:
    """Wait until a thread sleeps, in a call on a socket."""
    moment = threading.Event()
    asleep = 0
    while asleep < 5:
        with open(f"/proc/self/task/{native_id}/stat") as file:
            state = file.read().rpartition(")")[2].split()[0]
        asleep = asleep + 1 if state == "S" else 0
        moment.wait(0.01)


def test_a_line_may_be_ended_again_and_again(ends: tuple[Line, Line]) -> None:
    here, _ = ends
    here.shut()
    here.shut()
    here.close()
    here.close()
    here.shut()
    with pytest.raises(OSError, match=GONE):
        here.send([b"x"])
    with pytest.raises(OSError, match=GONE):
        next(here.frames())


def test_a_number_is_not_given_up_while_somebody_is_in_a_call_on_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is closed under a call may be another file by the time the call looks at it."""
    connection, other = pair()
    inside, closed_within = threading.Event(), []

    class Slow(socket.socket):
        """Takes its time between being called and looking at its number."""

        def recv(self, *given: Any) -> bytes:
            inside.set()
            while not ended.wait(10):
                pytest.fail("it was never shut")
            moment.wait(0.2)
            closed_within.append(self.fileno() == -1)
            return super().recv(*given)

        def shutdown(self, how: int) -> None:
            super().shutdown(how)
            ended.set()

    ended, moment = threading.Event(), threading.Event()
    slow = Line(Slow(fileno=connection.detach()))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: next(slow.frames()))
        assert inside.wait(10)
        slow.close()
        with pytest.raises(OSError, match=GONE):
            waiting.result(10)
    assert closed_within == [False]
    other.close()


def test_a_signals_handler_may_close_it_within_a_call(ends: tuple[Line, Line]) -> None:
    here, _ = ends
    before = signal.signal(signal.SIGUSR1, lambda number, frame: here.close())
    me = threading.get_native_id()
    waker = threading.Thread(
        target=lambda: (until_asleep(me), signal.pthread_kill(main, signal.SIGUSR1))
    )
    main = threading.get_ident()
    try:
        waker.start()
        with pytest.raises(OSError, match=GONE):
            next(here.frames())
    finally:
        waker.join()
        signal.signal(signal.SIGUSR1, before)


def test_a_frame_beyond_the_limit_takes_no_memory(
    raw: tuple[socket.socket, Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_module, "MESSAGE_LIMIT_BYTES", 100)
    connection, there = raw
    connection.send(sized(100, bytes(100)))
    connection.send(sized(101, bytes(101)))
    arriving = there.frames()
    assert next(arriving) == bytes(100)
    with pytest.raises(ModelError, match="Got a frame of 101 bytes; at most 100 are taken"):
        next(arriving)
