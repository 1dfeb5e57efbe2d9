"""Segments: memory that a trainer and a ps on one host have both mapped.

A segment is a memfd without a name: it is gone when the last process that mapped it is, however
that ended. Its size is sealed, so no peer can cut it under a reader (which would be SIGBUS).
Only numbers of checked regions come from a peer; how a segment gets from one process to the
other: ``psys.rpc.handover``.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import weakref
from dataclasses import dataclass

import numpy as np

from psys.arrays import Array
from psys.errors import ModelError
from psys.rpc.frames import ALIGNMENT
from psys.rpc.line import Line
from psys.rpc.v1 import tensors_pb2

SUPPORTED = hasattr(os, "memfd_create") and hasattr(fcntl, "F_ADD_SEALS")

SEGMENT_LIMIT_BYTES = 1 << 30
"""The most one trainer's segment of one ps may have; a larger message travels in frames."""

REPLY_ROOMS = 3
"""A trainer may hold the values of two replies while the next is written."""

_SIZE_SEALS = 0 if not SUPPORTED else fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Segment:
    """One mapped segment. It stays mapped as long as an array in it is held.

    Attributes:
        number: by which the messages of its stream name it.
        size: in bytes.
    """

    def __init__(self, number: int, descriptor: int) -> None:
        """Map a sealed memfd; the descriptor stays the caller's.

        Raises:
            OSError: if it cannot be mapped.
            ModelError: if its size is not sealed.
        """
        if fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _SIZE_SEALS != _SIZE_SEALS:
            raise ModelError("Shared memory was handed over whose size is not sealed.")
        self.number = number
        self.size = os.fstat(descriptor).st_size
        self._memory = mmap.mmap(descriptor, self.size)

    def region(self, offset: int, size: int) -> Array:
        """Return ``[size]`` bytes from ``offset``, as an array that its views have as base."""
        return np.frombuffer(self._memory, np.uint8, size, offset)

    def room(self, region: tensors_pb2.MemoryRegion, peer: str) -> Room:
        """Return the part of this segment that a peer named.

        Raises:
            ModelError: if it is of another segment, or not within this one.
        """
        offset, size = region.offset_bytes, region.length_bytes
        if region.segment != self.number:
            raise ModelError(
                f"{peer} names segment {region.segment} of shared memory; "
                f"this stream has {self.number}."
            )
        if offset % ALIGNMENT or offset > self.size or size > self.size - offset:
            raise ModelError(
                f"{peer} names bytes [{offset:,}, {offset + size:,}) of shared memory; "
                f"the segment has {self.size:,}, and a region begins at a multiple of {ALIGNMENT}."
            )
        return Room(self, offset, size)


@dataclass(frozen=True)
class Room:
    """A part of a segment that one message may fill."""

    segment: Segment
    offset: int
    size: int

    def bytes(self, size: int) -> Array:
        """Return its first ``size`` bytes."""
        return self.segment.region(self.offset, size)

    def region(self, size: int) -> tensors_pb2.MemoryRegion:
        """Return how a message says that it fills the first ``size`` bytes."""
        return tensors_pb2.MemoryRegion(
            segment=self.segment.number, offset_bytes=self.offset, length_bytes=size
        )


def create_descriptor(size: int) -> int:
    """Return a new memfd of ``size`` bytes that nobody can make larger or smaller.

    Raises:
        OSError: if this machine has no memfd, or will not give one.
    """
    descriptor = os.memfd_create("psys", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SIZE_SEALS)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


class TrainerSegment:
    """How a trainer uses its segment: room for one request, and for some replies.

    The arrays of a reply lie in its room, which is written again only when nobody holds an array
    in it any more: what was pulled never changes under its holder.

    Attributes:
        request: where requests are written; each stays there until its answer came.
        line: the connection it came by, which carries what the stream would; None for none.
    """

    def __init__(
        self, segment: Segment, request_bytes: int, reply_bytes: int, line: Line | None = None
    ) -> None:
        """Divide a segment of ``segment_bytes(request_bytes, reply_bytes)``."""
        self.line = line
        self.request = Room(segment, 0, request_bytes)
        self._replies = [
            Room(segment, request_bytes + i * reply_bytes, reply_bytes) for i in range(REPLY_ROOMS)
        ]
        self._held: dict[int, weakref.ref[Array]] = {}
        """The reply that was read last from each room, by the room's offset."""

    def fits(self, request_bytes: int, reply_bytes: int) -> bool:
        """Return whether messages of these sizes have room."""
        return request_bytes <= self.request.size and reply_bytes <= self._replies[0].size

    def reply_room(self) -> Room | None:
        """Return where the next reply may be written, None while arrays in every room are held."""
        for room in self._replies:
            held = self._held.get(room.offset)
            if held is None or held() is None:
                return room
        return None

    def read_reply(
        self, region: tensors_pb2.MemoryRegion, asked_for: Room | None, peer: str
    ) -> Array:
        """Return the bytes of a reply, and keep its room while an array in it is held.

        Raises:
            ModelError: if it does not lie where it was asked for.
        """
        room = self.request.segment.room(region, peer)
        if asked_for is None or room.offset != asked_for.offset or room.size > asked_for.size:
            raise ModelError(f"{peer} put its reply where it was not asked for.")
        reply = room.bytes(room.size)
        self._held[room.offset] = weakref.ref(reply)
        return reply


def segment_bytes(request_bytes: int, reply_bytes: int) -> int:
    """Return the size of the segment that a trainer needs for such messages."""
    return request_bytes + REPLY_ROOMS * reply_bytes


def room_bytes(largest_message: int) -> int:
    """Return the room for messages like the largest so far: somewhat more, in whole pages.

    Batches differ in how many rows they need; a new segment for each record would be waste.
    """
    return (largest_message * 5 // 4 // mmap.PAGESIZE + 1) * mmap.PAGESIZE
