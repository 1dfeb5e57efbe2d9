"""The handover: how a trainer gets memory that it shares with a ps of the same host.

Nobody is asked whether two processes share a host: the ps tells each stream, in its first reply,
the name of a Unix socket and a secret; whoever reaches that socket and knows the secret is handed
the descriptor of a new segment. So the descriptor itself is the probe. What does not work, for
whatever reason, leaves the stream as it was: its bulk travels in frames.

The socket is an abstract one, which has no file and goes with its process. Where PSYS_SHM_DIR
names a directory (containers of one host, with a volume between them), the ps listens there too.
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import math
import os
import re
import secrets
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from psys.errors import ModelError
from psys.rpc.line import Line
from psys.rpc.segment import (
    SEGMENT_LIMIT_BYTES,
    SUPPORTED,
    Segment,
    TrainerSegment,
    create_descriptor,
    segment_bytes,
)
from psys.rpc.v1 import gradients_pb2

logger = logging.getLogger("psys")

NEVER = "none"
"""The value of PSYS_SHM_DIR by which no memory is shared."""

HANDOVER_LIMIT_SECS = 2.0
"""For one handover, on either side; after that the bulk goes over gRPC."""

MOST_UNANSWERED = 64
"""Connections that have not said what they want; then the oldest makes room."""

# ticket, size in bytes, proof of the trainer
_ASK = struct.Struct("<16sQ32s")
# process, user, group
_CREDENTIALS = struct.Struct("3i")
# number of the segment, proof of the ps
_ANSWER = struct.Struct("<Q32s")


def _proof(secret: bytes, who: bytes, number: int) -> bytes:
    """Return what only someone who knows the secret can say, and does not tell it."""
    return hmac.digest(secret, who + number.to_bytes(8, "little"), "sha256")


def _abstract(name: str) -> str:
    return f"\0psys-{name}"


def _file(directory: Path, name: str) -> str:
    return str(directory / f"psys-{name}.sock")


# ---------------------------------------------------------------- the ps


class Ticket:
    """One stream's right to one segment at a time, and to the line that comes with it.

    Attributes:
        segment: the stream's, None before it was fetched.
    """

    def __init__(
        self, socket_name: str, serve: Callable[[Ticket, Line], None] | None = None
    ) -> None:
        """Make a ticket.

        Args:
            socket_name: where it is redeemed.
            serve: serves a line until it ends, and closes it; called in a thread of its own. None
                for no line.
        """
        self.segment: Segment | None = None
        self._serve = serve
        self._line: Line | None = None
        self._ended = False
        self._lock = threading.Lock()
        self.name = secrets.token_bytes(16)
        self._secret = secrets.token_bytes(32)
        self._socket_name = socket_name
        self._segments = 0

    def offer(self) -> gradients_pb2.SharedMemoryOffer:
        """Return what the stream's client is told."""
        return gradients_pb2.SharedMemoryOffer(
            socket=self._socket_name, ticket=self.name, secret=self._secret
        )

    def redeem(self, size: int, proof: bytes) -> tuple[int, bytes]:
        """Give the stream a new segment instead of the one it has.

        Returns:
            Its descriptor, and what goes with it to the client.

        Raises:
            ValueError: if the client does not know the secret, or asks for too much.
            OSError: if there is no memory.
        """
        if not hmac.compare_digest(proof, _proof(self._secret, b"trainer", size)):
            raise ValueError("the secret is not known")
        if not 0 < size <= SEGMENT_LIMIT_BYTES:
            raise ValueError(f"{size:,} bytes were asked for")
        self._segments += 1
        with contextlib.ExitStack() as cleanup:
            descriptor = create_descriptor(size)
            cleanup.callback(os.close, descriptor)
            self.segment = Segment(self._segments, descriptor)
            cleanup.pop_all()
        return descriptor, _ANSWER.pack(self._segments, _proof(self._secret, b"ps", self._segments))

    def connect(self, connection: socket.socket) -> None:
        """Serve the connection that redeemed the ticket as the stream's line, its only one."""
        line = Line(connection)
        with self._lock:
            before, self._line = self._line, line
            serve = None if self._ended else self._serve
        if before is not None:
            before.shut()
        if serve is None:
            line.close()
            return
        thread = threading.Thread(target=serve, args=(self, line), name="psys-line", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # this process may have no more threads
            line.close()
            logger.warning("A stream's line is not served: %s.", error)

    def end(self) -> None:
        """Let go of segment and line: the stream is over."""
        self.segment = None
        self.end_line()

    def end_line(self) -> None:
        """End the line, and let no other be made."""
        with self._lock:
            self._ended = True
            if self._line is not None:
                self._line.shut()


class Handover:
    """Hands segments to the streams of one server, from a thread of its own."""

    def __init__(self, place: str = "") -> None:
        """Listen.

        Args:
            place: a directory where a socket is also made as a file; NEVER to hand over nothing.
        """
        directory = Path(place) if place and place != NEVER else None
        self._name = secrets.token_hex(6)
        self._tickets: dict[bytes, Ticket] = {}
        self._lock = threading.Lock()
        self._path: Path | None = None
        self._listeners = [] if place == NEVER else _listen_all(self._name, directory)
        if directory is not None and len(self._listeners) > 1:
            self._path = Path(_file(directory, self._name))
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="psys-handover", daemon=True)
        if self._listeners:
            self._thread.start()

    @contextlib.contextmanager
    def stream(
        self, serve: Callable[[Ticket, Line], None] | None = None
    ) -> Iterator[Ticket | None]:
        """Give a stream a ticket, as long as it lasts; None where memory cannot be shared.

        Args:
            serve: serves the stream's line until it ends, and closes it; called in a thread of
                its own. None for no line.
        """
        if not self._listeners:
            yield None
            return
        ticket = Ticket(self._name, serve)
        with self._lock:
            self._tickets[ticket.name] = ticket
        try:
            yield ticket
        finally:
            with self._lock:
                del self._tickets[ticket.name]
            ticket.end()

    def close(self) -> None:
        """Hand over nothing more, and end every line; segments last as long as their streams."""
        self._wake.close()
        if self._thread.is_alive():
            self._thread.join()
        for listener in self._listeners:
            listener.close()
        self._woken.close()
        with self._lock:
            tickets = list(self._tickets.values())
        for ticket in tickets:
            ticket.end_line()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _serve(self) -> None:
        # When each connection that has not said yet what it wants is given up.
        open_until: dict[socket.socket, float] = {}
        with selectors.DefaultSelector() as selector:
            for listener in (*self._listeners, self._woken):
                selector.register(listener, selectors.EVENT_READ)

            def let_go(connection: socket.socket) -> socket.socket:
                del open_until[connection]
                selector.unregister(connection)
                return connection

            while True:
                wait_secs = min(open_until.values(), default=math.inf) - time.monotonic()
                ready = selector.select(None if wait_secs == math.inf else max(wait_secs, 0.0))
                for one in [key.fileobj for key, _ in ready]:
                    assert isinstance(one, socket.socket)
                    if one is self._woken:
                        for unanswered in open_until:
                            unanswered.close()
                        return
                    try:
                        if one not in open_until:
                            connection = _accept(one)
                            if len(open_until) == MOST_UNANSWERED:
                                let_go(min(open_until, key=open_until.__getitem__)).close()
                            selector.register(connection, selectors.EVENT_READ)
                            open_until[connection] = time.monotonic() + HANDOVER_LIMIT_SECS
                            continue
                        ticket = self._hand_over(one)
                        ticket.connect(let_go(one))
                    except (OSError, ValueError, struct.error, ModelError) as error:
                        # The client finds the connection closed, and sends frames.
                        logger.debug("Shared memory was not handed over: %s.", error)
                    if one in open_until:
                        let_go(one).close()
                now = time.monotonic()
                for late in [one for one, until in open_until.items() if until <= now]:
                    let_go(late).close()

    def _hand_over(self, connection: socket.socket) -> Ticket:
        """Answer whoever asks with a segment; return whose it is."""
        name, size, proof = _ASK.unpack(connection.recv(_ASK.size))
        with self._lock:
            ticket = self._tickets.get(name)
            if ticket is None:
                raise ValueError("no stream has this ticket")
            descriptor, answer = ticket.redeem(size, proof)
        try:
            socket.send_fds(connection, [answer], [descriptor])
        finally:
            os.close(descriptor)
        return ticket


def _accept(listener: socket.socket) -> socket.socket:
    """Return the next connection, if it is of a process of this user.

    Raises:
        OSError: if there is none.
        ValueError: if it is another's, who cannot know a secret and is not waited for.
    """
    connection, _ = listener.accept()
    connection.setblocking(False)
    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(peer)
    if user != os.getuid():
        connection.close()
        raise ValueError(f"a process of user {user} asked")
    return connection


def _listen_all(name: str, directory: Path | None) -> list[socket.socket]:
    """Return the sockets listened on; none where memory cannot be shared."""
    if not SUPPORTED:
        return []
    listeners: list[socket.socket] = []
    try:
        listeners.append(_listen(_abstract(name)))
        if directory is not None:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _remove_abandoned(directory)
            # Under its name it is listened on at once, so that nobody takes it for abandoned.
            staged = _file(directory, name) + ".new"
            listeners.append(_listen(staged))
            os.rename(staged, _file(directory, name))
    except OSError as error:
        logger.info("This task cannot share memory through %s: %s.", directory or "a socket", error)
    return listeners


def _listen(address: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        listener.bind(address)
        if not address.startswith("\0"):
            os.chmod(address, 0o600)
        listener.listen(64)
    except OSError:
        listener.close()
        raise
    return listener


def _remove_abandoned(directory: Path) -> None:
    """Remove the sockets of ps that were killed: those that nobody listens on."""
    for path in directory.glob("psys-*.sock"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
            probe.setblocking(False)
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                if path.is_socket():
                    path.unlink(missing_ok=True)
            except OSError:
                continue  # busy, or not ours to judge


# ---------------------------------------------------------------- the trainer


@dataclass(frozen=True)
class NoSharedMemory:
    """Why a stream has no segment.

    Attributes:
        reason: in words.
        passing: whether asking again may help.
    """

    reason: str
    passing: bool = False


def fetch_segment(
    offer: gradients_pb2.SharedMemoryOffer,
    request_bytes: int,
    reply_bytes: int,
    place: str = "",
) -> TrainerSegment | NoSharedMemory:
    """Fetch a new segment for a stream, in place of the one it had.

    Args:
        offer: what the ps told.
        request_bytes: room for a request.
        reply_bytes: room for each of the replies that may be held at once.
        place: a directory where the ps may also listen.
    """
    size = segment_bytes(request_bytes, reply_bytes)
    if not SUPPORTED:
        return NoSharedMemory("this system has no memfd")
    if size > SEGMENT_LIMIT_BYTES:
        return NoSharedMemory(f"messages are too large for {SEGMENT_LIMIT_BYTES >> 20:,} MiB")
    if not re.fullmatch("[0-9a-f]{12}", offer.socket):
        return NoSharedMemory("the ps does not offer it")
    sockets = [_abstract(offer.socket)]
    if place:
        sockets.append(_file(Path(place), offer.socket))
    failure = NoSharedMemory("not met on this host")
    for one in sockets:
        try:
            segment, line = _fetch(one, offer, size)
        except (FileNotFoundError, ConnectionRefusedError):
            continue
        except (OSError, ValueError, ModelError) as error:
            failure = NoSharedMemory(str(error), passing=True)
            continue
        return TrainerSegment(segment, request_bytes, reply_bytes, line)
    return failure


def _fetch(address: str, offer: gradients_pb2.SharedMemoryOffer, size: int) -> tuple[Segment, Line]:
    with contextlib.ExitStack() as cleanup:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        cleanup.callback(connection.close)
        connection.settimeout(HANDOVER_LIMIT_SECS)
        connection.connect(address)
        connection.send(_ASK.pack(offer.ticket, size, _proof(offer.secret, b"trainer", size)))
        answer, descriptors, _, _ = socket.recv_fds(
            connection, _ANSWER.size, 1, socket.MSG_CMSG_CLOEXEC
        )
        for descriptor in descriptors:
            cleanup.callback(os.close, descriptor)
        if len(answer) != _ANSWER.size or len(descriptors) != 1:
            raise ValueError("the ps did not hand it over")
        number, proof = _ANSWER.unpack(answer)
        if not hmac.compare_digest(proof, _proof(offer.secret, b"ps", number)):
            raise ValueError("who answered is not the ps")
        segment = Segment(number, descriptors[0])
        if segment.size < size:
            raise ValueError("the ps handed over too little")
        # The line has a descriptor of its own.
        return segment, Line(connection.dup())
