"""Courier: a thread that makes an exchange while the trainer computes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future

from psys.exchange import Pulled

_Errand = tuple[Callable[[], Pulled], "Future[Pulled]"]


class Courier:
    """Runs calls one after another in a daemon thread: a ps that hangs never keeps a process."""

    def __init__(self) -> None:
        self._errands: queue.SimpleQueue[_Errand | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="psys-exchange", daemon=True)
        self._thread.start()

    def take(self, call: Callable[[], Pulled]) -> Future[Pulled]:
        """Begin a call; the future has what it returns or raises."""
        future: Future[Pulled] = Future()
        self._errands.put((call, future))
        return future

    def close(self) -> None:
        """Take no more calls; one under way is not waited for."""
        self._errands.put(None)

    def _run(self) -> None:
        while (errand := self._errands.get()) is not None:
            call, future = errand
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)
