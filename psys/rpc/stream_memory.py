"""StreamMemory: whether, and how large, a trainer's stream has shared memory.

It learns from the messages that pass how much room they need, fetches a segment of that size
when the ps has offered one, and a larger one when it became too small.
"""

from __future__ import annotations

import logging

from psys.ps.messages import ExchangeReply
from psys.rpc.handover import NEVER, NoSharedMemory, fetch_segment
from psys.rpc.line import Line
from psys.rpc.segment import (
    SEGMENT_LIMIT_BYTES,
    Room,
    TrainerSegment,
    room_bytes,
    segment_bytes,
)
from psys.rpc.v1 import gradients_pb2

logger = logging.getLogger("psys")

INLINE_BYTES = 8 << 10
"""Bulk up to this size is cheaper in the frame that is sent anyway."""


ATTEMPTS = 3
"""So often, at one exchange each, a stream asks for a segment before it keeps to frames."""


class StreamMemory:
    """The shared memory of one stream after the other, of one trainer with one ps.

    Attributes:
        segment: of the stream that is open, None without one.
    """

    def __init__(self, peer: str, place: str) -> None:
        """Begin without a segment.

        Args:
            peer: the ps's name, for the log.
            place: a directory where the ps may be met; NEVER to share no memory.
        """
        self.segment: TrainerSegment | None = None
        self._peer = peer
        self._place = place
        self._offer: gradients_pb2.SharedMemoryOffer | None = None
        self._largest_request = 0
        self._largest_reply = 0
        self._failures = 0
        """How often the open stream asked in vain."""
        self._said = ""
        self._said_too_large = False

    def for_request(self, size: int) -> TrainerSegment | None:
        """Return the segment for a request with so many bytes of bulk, None for frames."""
        if size > self._largest_request:
            if _fits(size, self._largest_reply):
                self._largest_request = size
            else:
                self._say_too_large(size)
        self._grow()
        return self.segment if size > INLINE_BYTES else None

    @property
    def line(self) -> Line | None:
        """The line of the open stream, which came with its segment; None without one."""
        segment = self.segment  # forget() may be called in another thread
        return None if segment is None else segment.line

    def reply_room(self) -> Room | None:
        """Return where the next reply may lie, None for frames."""
        segment = self.segment
        if segment is None or self._largest_reply <= INLINE_BYTES:
            return None
        return segment.reply_room()

    def note_reply(
        self, header: gradients_pb2.ExchangeResponseHeader, reply: ExchangeReply
    ) -> None:
        """Learn from a reply how large replies are, and what the ps offers."""
        if self._place != NEVER and header.HasField("shared_memory"):
            self._offer = header.shared_memory
        size = 0
        for array in (*reply.dense.values(), *reply.rows.values()):
            size += array.nbytes + 7
        if size > self._largest_reply:
            if _fits(self._largest_request, size):
                self._largest_reply = size
            else:
                self._say_too_large(size)

    def forget(self) -> None:
        """Throw away what belonged to a stream that is gone."""
        self._let_go()
        self._offer, self._failures = None, 0

    def _let_go(self) -> None:
        segment, self.segment = self.segment, None
        if segment is not None and segment.line is not None:
            segment.line.close()

    def _grow(self) -> None:
        needed = self._largest_request, self._largest_reply
        offer, segment = self._offer, self.segment  # forget() may be called in another thread
        if offer is None or (segment is not None and segment.fits(*needed)):
            return
        self._let_go()
        request_bytes, reply_bytes = map(room_bytes, needed)
        fetched = fetch_segment(offer, request_bytes, reply_bytes, self._place)
        if isinstance(fetched, NoSharedMemory):
            self._failures += 1
            if not fetched.passing or self._failures == ATTEMPTS:
                self._offer = None
            self._say(f"gRPC ({fetched.reason})")
        else:
            self.segment = fetched
            self._say("shared memory")

    def _say_too_large(self, size: int) -> None:
        """Say once why messages go in frames though memory is shared."""
        if self._place != NEVER and self._offer is not None and not self._said_too_large:
            self._said_too_large = True
            logger.info(
                "%s: messages of %s MiB go over gRPC: with those of the other direction they do "
                "not fit the %s MiB that may be shared. More ps make them smaller.",
                self._peer,
                f"{size >> 20:,}",
                f"{SEGMENT_LIMIT_BYTES >> 20:,}",
            )

    def _say(self, transport: str) -> None:
        if transport != self._said:
            self._said = transport
            logger.info("%s: %s.", self._peer, transport)


def _fits(request_bytes: int, reply_bytes: int) -> bool:
    return segment_bytes(room_bytes(request_bytes), room_bytes(reply_bytes)) <= SEGMENT_LIMIT_BYTES
