"""Line: how the messages of a stream travel between two processes of one host.

It is the Unix socket by which the stream's shared memory was handed over, kept open. It carries the
same frames as the stream, in a tenth of the time: no other thread has a part in it. What a frame
means is not known here. The stream stays open beside it: that it broke is how each side learns that
the other hangs.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterable, Iterator

from psys.errors import ModelError
from psys.rpc.channel import MESSAGE_LIMIT_BYTES

PIECE_BYTES = 64 << 10
"""A frame goes in pieces: one message of a Unix socket must fit into its buffer."""

_SIZE = struct.Struct("<I")


class Line:
    """One end of a connected SEQPACKET socket. One thread sends, one receives, any may end it.

    Attributes:
        ended: whether this side has shut it.
    """

    def __init__(self, connection: socket.socket) -> None:
        """Take over the connection."""
        self.ended = False
        connection.settimeout(None)
        # Whatever the system's default is, a piece must fit.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * PIECE_BYTES)
        self._socket = connection
        # The number of a socket that was closed may be another file's at once: it is closed when
        # no other thread is in a call on it. A signal's handler may close it within a call.
        self._sending, self._receiving, self._ending = (threading.RLock() for _ in range(3))

    def send(self, frames: Iterable[bytes]) -> None:
        """Send frames, waiting while the other side is not reading.

        Raises:
            OSError: if the other side is gone, or the line was shut.
        """
        with self._sending:
            for frame in frames:
                view = memoryview(frame)
                self._socket.sendmsg((_SIZE.pack(len(frame)), view[:PIECE_BYTES]))
                for at in range(PIECE_BYTES, len(frame), PIECE_BYTES):
                    self._socket.send(view[at : at + PIECE_BYTES])

    def frames(self) -> Iterator[bytes]:
        """Yield what the other side sends.

        Raises:
            OSError: when the other side is gone, or the line was shut; a frame that has not come
                as a whole is lost.
            ModelError: if what comes is no frame, or one that is too large.
        """
        while True:
            begun = self._receive(_SIZE.size + PIECE_BYTES)
            if len(begun) < _SIZE.size:
                raise ModelError(f"Got {len(begun)} bytes that are no frame.")
            (size,) = _SIZE.unpack_from(begun)
            if size > MESSAGE_LIMIT_BYTES:
                raise ModelError(
                    f"Got a frame of {size:,} bytes; at most {MESSAGE_LIMIT_BYTES:,} are taken."
                )
            yield self._whole(begun[_SIZE.size :], size)

    def _whole(self, piece: bytes, size: int) -> bytes:
        """Return a frame of ``size`` bytes that begins with ``piece``."""
        pieces, missing = [piece], size
        while True:
            # No other size: a frame of millions of tiny pieces would take far more than its bytes.
            due = min(missing, PIECE_BYTES)
            if len(piece) != due:
                raise ModelError(
                    f"Got {len(piece):,} bytes of a frame of {size:,}; expected {due:,}."
                )
            missing -= due
            if not missing:
                return b"".join(pieces)
            piece = self._receive(PIECE_BYTES)
            pieces.append(piece)

    def _receive(self, most: int) -> bytes:
        """Return the next message, one byte too long if it is longer than ``most``."""
        with self._receiving:
            message = self._socket.recv(most + 1)
        if not message:
            raise ConnectionResetError("the other side is gone")
        return message

    def shut(self) -> None:
        """End both directions; whoever waits is woken. From any thread, any number of times."""
        self.ended = True
        with self._ending, contextlib.suppress(OSError):  # it has ended already
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Shut it, wait until nobody is in it, and give up the socket. From any thread."""
        self.shut()
        with self._sending, self._receiving, self._ending:
            self._socket.close()
