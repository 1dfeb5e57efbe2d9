"""InFlight: how many bytes of requests one ps takes in at once.

A request waits here, unread, until there is room; gRPC's flow control makes its sender wait. So
a ps that cannot keep up neither grows nor drops anything. What the Node itself withholds a reply
from (a hold, a grant) counts no more: it may need the very requests that wait here.

Nobody waits for ever: a request whose bytes do not arrive in time is given up as soon as another
waits for its room, one whose stream is gone leaves the queue, and WAIT_LIMIT_SECS bound the rest.
"""

from __future__ import annotations

import collections
import logging
import threading
import time
from collections.abc import Callable

from psys.errors import ShardTimeout, ShardUnavailable

logger = logging.getLogger("psys")

IN_FLIGHT_LIMIT_BYTES = 256 << 20
"""Of requests being read or applied. One request alone may be larger."""

FREE_BYTES = 64 << 10
"""A request this small never waits: pulls, empty pushes."""


BODY_LIMIT_SECS = 10.0
BODY_LEAST_BYTES_PER_SEC = 1_000_000
"""So much longer than BODY_LIMIT_SECS the bytes of a large request may take to arrive."""

WAIT_LIMIT_SECS = 60.0
"""A request that found no room for so long is answered with an error, to be sent again."""


def _always() -> bool:
    return True


def _nothing() -> None:
    pass


class InFlight:
    """Counts bytes, first come first served. Safe from any thread."""

    def __init__(self, limit_bytes: int = IN_FLIGHT_LIMIT_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self._bytes = 0
        self._queue: collections.deque[object] = collections.deque()
        self._reading: set[Entry] = set()
        """Those whose bytes have not all arrived."""
        # Reentrant: what is given up under it may end here again.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        """Heard by those in the queue."""

    def enter(
        self,
        size: int,
        is_wanted: Callable[[], bool] = _always,
        give_up: Callable[[], None] = _nothing,
    ) -> Entry:
        """Wait until there is room for ``size`` bytes; return what ends their count.

        Args:
            size: of the request.
            is_wanted: whether its sender is still there; ``wake`` lets it be asked again.
            give_up: ends its stream, from any thread: called if its bytes are too late while
                another request waits. Reading them must then raise.

        Raises:
            ShardUnavailable: if the sender went away.
            ShardTimeout: if there was no room for WAIT_LIMIT_SECS.
        """
        if size <= FREE_BYTES:
            return Entry(self, 0, _nothing)
        with self._lock:
            if self._queue or not self._fits(size):
                self._wait_for_room(size, is_wanted)
            self._bytes += size
            entry = Entry(self, size, give_up)
            self._reading.add(entry)
        return entry

    def _wait_for_room(self, size: int, is_wanted: Callable[[], bool]) -> None:
        """Queue for room, as ``enter`` says. The lock is held, but while waiting."""
        place = object()
        give_up_at = time.monotonic() + WAIT_LIMIT_SECS
        self._queue.append(place)
        try:
            while not (self._queue[0] is place and self._fits(size)):
                now = time.monotonic()
                if not is_wanted():
                    raise ShardUnavailable("The sender of a request that waited went away.")
                if now >= give_up_at:
                    raise ShardTimeout(
                        f"A request of {size:,} bytes found no room for "
                        f"{WAIT_LIMIT_SECS:.0f} s: the ps is overloaded."
                    )
                wake_at = min([give_up_at, *(one.late_at for one in self._reading)])
                if wake_at <= now:
                    self._give_up_late(now)
                else:
                    self._changed.wait(wake_at - now)
        finally:
            self._queue.remove(place)
            self._changed.notify_all()

    def wake(self) -> None:
        """Let those who wait ask again whether they are wanted."""
        with self._lock:
            self._changed.notify_all()

    def _give_up_late(self, now: float) -> None:
        """End the streams whose bytes should have come by now. The lock is held."""
        for entry in [one for one in self._reading if one.late_at <= now]:
            self._reading.discard(entry)
            logger.warning(
                "A request of %s bytes did not arrive in time while others waited for its room: "
                "its stream is ended.",
                f"{entry.size:,}",
            )
            entry.give_up()

    def _fits(self, size: int) -> bool:
        return not self._bytes or self._bytes + size <= self.limit_bytes

    def _arrived(self, entry: Entry) -> None:
        with self._lock:
            self._reading.discard(entry)

    def _leave(self, entry: Entry, size: int) -> None:
        with self._lock:
            self._reading.discard(entry)
            self._bytes -= size
            if self._queue:
                self._changed.notify_all()


class Entry:
    """Bytes that are counted until they are released, or the ``with`` block ends.

    Attributes:
        size: how many.
        late_at: monotonic seconds; from then on they need not be waited for.
        give_up: ends the stream they come on.
    """

    def __init__(self, counted_by: InFlight, size: int, give_up: Callable[[], None]) -> None:
        self.size = size
        self.late_at = time.monotonic() + BODY_LIMIT_SECS + size / BODY_LEAST_BYTES_PER_SEC
        self.give_up = give_up
        self._counted_by = counted_by
        self._held = size

    def arrived(self) -> None:
        """Note that all bytes are here: from now on the ps alone is at work."""
        self._counted_by._arrived(self)

    def release(self) -> None:
        """Count these bytes no more; a second time does nothing."""
        size, self._held = self._held, 0
        if size:
            self._counted_by._leave(self, size)

    def __enter__(self) -> Entry:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
