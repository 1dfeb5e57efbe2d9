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
from collections.abc import Iterable, Iterator

from psys.errors import ModelError
from psys.rpc.channel import MESSAGE_LIMIT_BYTES

PIECE_BYTES = 64 << 10
"""A frame goes in pieces: one message of a Unix socket must fit into its buffer."""

_SIZE = struct.Struct("<I")


class Line:
    """One end of a connected SEQPACKET socket. One thread sends, one receives, any may shut it."""

    def __init__(self, connection: socket.socket) -> None:
        """Take over the connection."""
        connection.settimeout(None)
        self._socket = connection

    def send(self, frames: Iterable[bytes]) -> None:
        """Send frames, waiting while the other side is not reading.

        Raises:
            OSError: if the other side is gone, or the line was shut.
        """
        for frame in frames:
            view = memoryview(frame)
            self._socket.sendmsg((_SIZE.pack(len(frame)), view[:PIECE_BYTES]))
            for at in range(PIECE_BYTES, len(frame), PIECE_BYTES):
                self._socket.send(view[at : at + PIECE_BYTES])

    def frames(self) -> Iterator[bytes]:
        """Yield what the other side sends, until that is gone or the line is shut.

        Raises:
            ModelError: if it sends what is no frame, or one that is too large.
        """
        while piece := self._receive(_SIZE.size + PIECE_BYTES):
            if len(piece) < _SIZE.size:
                raise ModelError(f"Got {len(piece)} bytes that are no frame.")
            (size,) = _SIZE.unpack_from(piece)
            frame = piece[_SIZE.size :]
            if len(frame) != size:
                if size > MESSAGE_LIMIT_BYTES:
                    raise ModelError(
                        f"Got a frame of {size:,} bytes; at most {MESSAGE_LIMIT_BYTES:,} are taken."
                    )
                frame = self._rest(frame, size)
            yield frame

    def _rest(self, begun: bytes, size: int) -> bytes:
        pieces, missing = [begun], size - len(begun)
        while missing > 0:
            piece = self._receive(min(missing, PIECE_BYTES))
            if not piece:
                raise ModelError(f"A frame of {size:,} bytes ended {missing:,} bytes early.")
            pieces.append(piece)
            missing -= len(piece)
        if missing:
            raise ModelError(f"Got {-missing:,} bytes more than the {size:,} of a frame.")
        return b"".join(pieces)

    def _receive(self, most: int) -> bytes:
        """Return the next message, b'' if there is none any more."""
        try:
            return self._socket.recv(most)
        except OSError:  # shut here, or reset by the other side: both are its end
            return b""

    def shut(self) -> None:
        """End both directions; whoever waits is woken. From any thread, any number of times."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Shut it and give up the socket: for whom it belongs to."""
        self.shut()
        self._socket.close()
