"""InFlight: how many bytes of requests one ps takes in at once.

A request waits here, unread, until there is room; gRPC's flow control makes its sender wait. So
a ps that cannot keep up neither grows nor drops anything. What the Node itself withholds a reply
from (a hold, a grant) counts no more: it may need the very requests that wait here.
"""

from __future__ import annotations

import collections
import threading

IN_FLIGHT_LIMIT_BYTES = 256 << 20
"""Of requests being read or applied. One request alone may be larger."""

FREE_BYTES = 64 << 10
"""A request this small never waits: pulls, empty pushes."""


class InFlight:
    """Counts bytes, first come first served. Safe from any thread."""

    def __init__(self, limit_bytes: int = IN_FLIGHT_LIMIT_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self._bytes = 0
        self._queue: collections.deque[object] = collections.deque()
        self._changed = threading.Condition()

    def enter(self, size: int) -> Entry:
        """Wait until there is room for ``size`` bytes; return what ends their count."""
        if size <= FREE_BYTES:
            return Entry(self, 0)
        place = object()
        with self._changed:
            self._queue.append(place)
            self._changed.wait_for(lambda: self._queue[0] is place and self._fits(size))
            self._queue.popleft()
            self._bytes += size
            self._changed.notify_all()
        return Entry(self, size)

    def _fits(self, size: int) -> bool:
        return not self._bytes or self._bytes + size <= self.limit_bytes

    def _leave(self, size: int) -> None:
        with self._changed:
            self._bytes -= size
            self._changed.notify_all()


class Entry:
    """Bytes that are counted until they are released, or the ``with`` block ends."""

    def __init__(self, counted_by: InFlight, size: int) -> None:
        self._counted_by = counted_by
        self._size = size

    def release(self) -> None:
        """Count these bytes no more; a second time does nothing."""
        size, self._size = self._size, 0
        if size:
            self._counted_by._leave(size)

    def __enter__(self) -> Entry:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
