"""The evaluator's news: checkpoints and the verdict, from the lead or from the directory.

The lead's watch lists all there is and then sends changes. Where no lead can be reached,
model_dir is read instead. Whatever the source, an event is told once.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

from psys.checkpoint.manifest import load_all
from psys.checkpoint.storage import FileStorage
from psys.errors import PsysError
from psys.ps.messages import CheckpointEntry, Verdict
from psys.rpc.remote_catalog import watch_checkpoints
from psys.train.committed import entry_of
from psys.train.verdict import read_verdict

logger = logging.getLogger("psys")

REOPEN_SECS = 0.3
SAY_AFTER_SECS = 3.0
DIRECTORY_SECS = 2.0
"""How often the directory is read while no lead can be reached: nobody can tell us."""

Event = CheckpointEntry | Verdict


class CheckpointFeed:
    """Events in the order they came to be known. ``next`` waits for one."""

    def __init__(
        self,
        address: str,
        model_dir: str,
        token: str | None,
        fail: Callable[[BaseException], None],
    ) -> None:
        """Begin to watch.

        Args:
            address: of the lead.
            model_dir: read where the lead is out of reach.
            token: the job's token.
            fail: told of an error after which nothing more will be told.
        """
        self._fail = fail
        self._address = address
        self._storage = FileStorage(model_dir)
        self._model_dir = model_dir
        self._token = token
        self._told: set[tuple[str, bool]] = set()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._begun = time.time()
        self.by_directory = False
        """Whether the lead is out of reach and the directory is read."""
        threading.Thread(target=self._watch, name="psys-watch", daemon=True).start()

    def next(self, timeout_secs: float) -> Event | None:
        """Return the next event; None if there is none within ``timeout_secs``."""
        try:
            return self._events.get(timeout=max(timeout_secs, 0.0))
        except queue.Empty:
            return None

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()

    def _watch(self) -> None:
        try:
            self._follow()
        except Exception as error:
            # In this thread nobody would see it, and the evaluator would be deaf for ever.
            self._fail(error)

    def _follow(self) -> None:
        lost_at, looked_at = 0.0, time.monotonic()
        while not self._closed.is_set():
            try:
                for event in watch_checkpoints(self._address, self._token):
                    lost_at = 0.0
                    if self.by_directory:
                        self.by_directory = False
                        logger.info("Watching the checkpoints of %s.", self._address)
                    if self._closed.is_set() or self._tell(event):
                        return
                self._closed.wait(REOPEN_SECS)
            except PsysError as error:
                now = time.monotonic()
                lost_at = lost_at or now
                if not self.by_directory and now - lost_at > SAY_AFTER_SECS:
                    self.by_directory = True
                    logger.info("%s Reading %s meanwhile.", error, self._model_dir)
                if now - looked_at >= DIRECTORY_SECS:
                    looked_at = now
                    if self._read_directory():
                        return
                self._closed.wait(REOPEN_SECS)

    def _tell(self, event: Event | None) -> bool:
        """Pass an event on unless it was told; return whether it is the last."""
        if isinstance(event, Verdict):
            self._events.put(event)
            return True
        if event is not None and (event.checkpoint_id, event.final) not in self._told:
            self._told.add((event.checkpoint_id, event.final))
            self._events.put(event)
        return False

    def _read_directory(self) -> bool:
        for manifest in load_all(self._storage):
            self._tell(entry_of(self._storage, manifest))
        verdict = read_verdict(self._model_dir, since_unix_secs=self._begun)
        return verdict is not None and self._tell(verdict)
