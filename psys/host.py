"""NodeHost: runs a Node in a process: its lock, its clock, its parked callers, its disk.

The Node decides; the host only delivers. ``LocalShard`` and ``LocalLink`` are the way to a
Node in the same process, as ``psys.rpc`` is to one in another: training on one machine is a
cluster whose one shard is in memory.
"""

from __future__ import annotations

import logging
import queue
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from psys.arrays import Plan
from psys.errors import Fenced, GenerationChanged, ShardTimeout, ShardUnavailable
from psys.ps.job import Job
from psys.ps.memory_shard import Caller
from psys.ps.messages import (
    CheckpointEntry,
    Directive,
    ExchangeReply,
    ExchangeRequest,
    Report,
    ShardFacts,
    ShardFile,
    ShardOrders,
    ShardPhase,
    Verdict,
)
from psys.ps.node import Node
from psys.ps.roster import Instance
from psys.ps.shard import LoadedSlice
from psys.ps.slice_state import prepare
from psys.ps.snapshot import Snapshot

logger = logging.getLogger("psys")

_T = TypeVar("_T")

TICK_SECS = 0.25
REPLY_LIMIT_SECS = 30.0
"""A reply is never withheld for longer: holds and grant waits are answered well before."""
MOST_CLOCK_ERRORS = 8
"""So many ticks in a row may meet an error; a clock that meets more is broken."""
STAY_SILENTLY_SECS = 2.0
SAY_EVERY_SECS = 10.0

WriteShard = Callable[[Snapshot], ShardFile]
News = tuple[tuple[CheckpointEntry, ...], Verdict | None]
"""Catalogue and verdict."""


def new_id() -> str:
    """Return a random id of 12 hex digits."""
    return secrets.token_hex(6)


class NodeHost:
    """One Node, safe to call from any thread.

    What it calls back (subscribers, the listener to facts, ``keep_verdict``) runs under its
    lock: it must not block, and must not call the host.
    """

    def __init__(
        self,
        index: int,
        write_shard: WriteShard,
        job: Job | None = None,
        keep_verdict: Callable[[Verdict, str], None] | None = None,
        prepare: Callable[[Sequence[LoadedSlice]], None] = prepare,
    ) -> None:
        """Start the clock.

        Args:
            index: of the shard.
            write_shard: writes a cut to disk; its exception fails the save.
            job: given where the lead lives here.
            keep_verdict: puts a verdict, and the job run's id, on disk before anyone is told.
            prepare: gets slices ready to be loaded; its PsysError refuses them.
        """
        self._node = Node(index, new_id, job)
        self._write_shard = write_shard
        self._keep_verdict = keep_verdict
        self._prepare = prepare
        self._lock = threading.Lock()
        self._news = threading.Condition(self._lock)
        self._waiting: dict[Caller, queue.SimpleQueue[ExchangeReply | None]] = {}
        self._subscribers: dict[Instance, Callable[[Directive], None]] = {}
        self._facts_listener: Callable[[ShardFacts], None] | None = None
        self._facts: ShardFacts | None = None
        self._catalog_told: News = ((), None)
        self._request_limit: tuple[str, int] = ("", 0)
        """The generation the shard serves, '' for none, and how large a request can be in it."""
        self._kept_verdict: Verdict | None = None
        self._writer = ThreadPoolExecutor(1, "psys-writer")
        self._closed = threading.Event()
        self._hurry = threading.Event()
        self._hold_ends_at: float | None = None
        self._clock = threading.Thread(target=self._tick, name="psys-clock", daemon=True)
        self._clock.start()

    @property
    def index(self) -> int:
        """The shard's index."""
        return self._node.shard.index

    # ------------------------------------------------------------ trainers

    def exchange(
        self,
        caller: Caller,
        request: ExchangeRequest,
        withheld: Callable[[], None] | None = None,
    ) -> ExchangeReply:
        """Serve a request, waiting as long as the Node withholds the reply.

        Args:
            caller: who waits for it.
            request: the request.
            withheld: called when the Node has taken the request in and does not answer yet.

        Raises:
            ShardTimeout: if no reply came within REPLY_LIMIT_SECS.
            ShardUnavailable: if the host closed, or the caller was forgotten or called again.
        """
        answer: queue.SimpleQueue[ExchangeReply | None] = queue.SimpleQueue()
        with self._lock:
            if self._closed.is_set():
                raise ShardUnavailable(f"ps:{self.index} is leaving.")
            self._release(caller)
            self._waiting[caller] = answer
            self._deliver(self._node.exchange(caller, request, time.monotonic()))
        if withheld is not None and answer.empty():
            withheld()
        try:
            reply = answer.get(timeout=REPLY_LIMIT_SECS)
        except queue.Empty:
            self.forget(caller)
            raise ShardTimeout(
                f"ps:{self.index} withheld its reply for {REPLY_LIMIT_SECS:.0f} s."
            ) from None
        if reply is None:
            raise ShardUnavailable(f"ps:{self.index} gave up an exchange that was waiting.")
        return reply

    def forget(self, caller: Caller) -> None:
        """Drop a caller that is gone; an exchange of its that waits ends."""
        with self._lock:
            self._release(caller)
            self._node.forget(caller)

    def _release(self, caller: Caller) -> None:
        """End the wait of a caller's exchange, if one waits. The lock is held."""
        waiting = self._waiting.pop(caller, None)
        if waiting is not None:
            waiting.put(None)

    def request_limit_bytes(self, generation: str) -> int | None:
        """Return how large a request can be, None unless the shard serves that generation.

        A push is never larger than what the shard holds; without the generation that is not
        known, and no request can be served.
        """
        serves, limit_bytes = self._request_limit
        return limit_bytes if serves and serves == generation else None

    def check_load(self, generation: str, member: int) -> None:
        """Check, before a load is read, that the lead has ordered it of this chief.

        Raises:
            GenerationChanged: if it has not.
            Fenced: if the sender is not the chief, or not any more.
        """
        with self._lock:
            shard = self._node.shard
            chief = shard.chief
            loads = shard.phase in (ShardPhase.LOADING, ShardPhase.LOADED)
            if not generation or shard.generation != generation or not loads:
                raise GenerationChanged(
                    f"ps:{self.index} is {shard.phase.name} in generation "
                    f"{shard.generation or 'none'}; it was asked to load {generation or 'none'}."
                )
        self._check_number(member, chief)

    def load(self, generation: str, slices: list[LoadedSlice], plan: Plan = ()) -> None:
        """Put the shard's slices in place; see ``Shard.load``."""
        self._prepare(slices)  # not under the lock: leases are renewed meanwhile
        with self._lock:
            self._deliver(self._node.load(generation, slices, time.monotonic(), plan))

    def check_chief(self, generation: str, member: int) -> None:
        """Check that a request about files comes from the chief of the live generation.

        Raises:
            GenerationChanged: if the shard holds another generation, or none.
            Fenced: if the sender is not the chief, or not any more.
        """
        with self._lock:
            held, chief = self._node.shard.generation, self._node.shard.chief
        if not held or held != generation:
            raise GenerationChanged(f"ps:{self.index} holds generation {held or 'none'}.")
        self._check_number(member, chief)

    def _check_number(self, member: int, chief: int) -> None:
        if not member or member != chief:
            raise Fenced(f"ps:{self.index}: number {member} is not the chief's.")

    def note_newest(self, global_step: int, checkpoint_id: str) -> None:
        """Note the newest checkpoint of which this process's disk has a manifest."""
        with self._lock:
            self._node.shard.newest = (global_step, checkpoint_id)
            self._deliver([])

    # ------------------------------------------------------------ tasks and the lead

    def subscribe(self, instance: Instance, deliver: Callable[[Directive], None]) -> None:
        """Send an instance's directives to ``deliver`` (must not block)."""
        with self._lock:
            self._subscribers[instance] = deliver
            self._node.tell_again(instance)

    def hear(self, report: Report, deliver: Callable[[Directive], None] | None = None) -> None:
        """Take in a report.

        Args:
            report: the report.
            deliver: the way back of the stream it came on, which is the newest of its process:
                an older stream that is late to end must not keep the directives to itself.
        """
        with self._lock:
            instance = (report.task, report.instance)
            if deliver is not None and self._subscribers.get(instance) is not deliver:
                self._subscribers[instance] = deliver
                self._node.tell_again(instance)
            self._deliver(self._node.hear(report, time.monotonic()))

    def stream_broken(self, instance: Instance, deliver: Callable[[Directive], None]) -> None:
        """Note that a control stream broke, unless a newer one of the process replaced it."""
        with self._lock:
            if self._subscribers.get(instance) is deliver:
                del self._subscribers[instance]
                self._deliver(self._node.stream_broken(instance, time.monotonic()))

    def obey(self, orders: ShardOrders) -> None:
        """Take orders of a lead elsewhere."""
        with self._lock:
            self._deliver(self._node.obey(orders, time.monotonic()))

    def listen_to_facts(self, listener: Callable[[ShardFacts], None]) -> None:
        """Call ``listener`` whenever the shard's facts changed (must not block)."""
        with self._lock:
            self._facts_listener = listener
            self._deliver([])

    # ------------------------------------------------------------ the lead's knowledge

    @property
    def has_lead(self) -> bool:
        """Whether the lead lives here."""
        return self._node.lead is not None

    def read_lead(self, read: Callable[[Node], _T]) -> _T:
        """Return what ``read`` makes of the Node, under the lock."""
        with self._lock:
            return read(self._node)

    def wait_news(self, known: News, timeout_secs: float) -> News:
        """Wait until catalogue or verdict differ from ``known``; return them as they are.

        Raises:
            ShardUnavailable: if the host closed.
        """
        until = time.monotonic() + timeout_secs
        with self._news:
            while (news := self._catalog()) == known:
                left = until - time.monotonic()
                if self._closed.is_set():
                    raise ShardUnavailable(f"ps:{self.index} is leaving.")
                if left <= 0:
                    break
                self._news.wait(left)
            return news

    def _catalog(self) -> News:
        lead = self._node.lead
        assert lead is not None
        return lead.catalog, lead.ending.verdict

    def wait_may_leave(self, hurried: Callable[[], bool] = lambda: False) -> None:
        """Wait until the lead may end; say for whom it stays, once that takes a while.

        Args:
            hurried: whether to end as soon as there is a verdict, whoever has not heard it.
        """
        say_at = 0.0
        with self._news:
            while True:
                lead = self._node.lead
                assert lead is not None
                now = time.monotonic()
                if lead.may_leave(now) or (lead.ending.verdict is not None and hurried()):
                    return
                if lead.ending.verdict is None or not say_at:
                    say_at = now + STAY_SILENTLY_SECS
                elif now >= say_at:
                    say_at = now + SAY_EVERY_SECS
                    verdict = lead.ending.verdict
                    logger.info(
                        "The job %s. Staying for %s, not heard to know it yet (at most %.0f s).",
                        f"FINISHED at step {verdict.global_step}"
                        if verdict.finished
                        else f"FAILED: {verdict.reason.rstrip('.')}",
                        ", ".join(lead.unheard()),
                        lead.job.limits.linger_secs,
                    )
                self._news.wait(TICK_SECS)

    def verdict(self, timeout_secs: float) -> Verdict | None:
        """Return the verdict, waiting for it at most ``timeout_secs``."""
        with self._news:
            self._news.wait_for(lambda: self._catalog()[1] is not None, timeout_secs)
            return self._catalog()[1]

    def fail(self, reason: str) -> None:
        """Make FAILED the verdict, from the lead's own process."""
        with self._lock:
            self._deliver(self._node.fail(reason, time.monotonic()))

    def close(self) -> None:
        """Stop the clock, end every wait, and finish writing."""
        with self._news:
            self._closed.set()
            self._hurry.set()
            for caller in list(self._waiting):
                self._release(caller)
            self._news.notify_all()
        self._writer.shutdown(wait=True)

    # ------------------------------------------------------------ inside

    def _tick(self) -> None:
        errors, said_at = 0, 0.0
        while True:
            with self._lock:
                at = self._node.look_again_at_secs
            # After an error not at once, whatever there is to look at: it may come again.
            left = TICK_SECS if at is None or errors else max(at - time.monotonic(), 0.0)
            # Woken when a hold begins, which may have to end before the next tick.
            if self._hurry.wait(min(left, TICK_SECS)):
                self._hurry.clear()
                if self._closed.is_set():
                    return
                continue
            try:
                with self._lock:
                    if errors > MOST_CLOCK_ERRORS:
                        self._fail_by_clock()
                    self._deliver(self._node.tick(time.monotonic()))
                errors = 0
            except Exception:
                # Without a clock no lease would end, and the job would hang for ever.
                errors += 1
                if errors == 1 or time.monotonic() >= said_at:
                    said_at = time.monotonic() + SAY_EVERY_SECS
                    logger.exception("The clock of ps:%d met an error and goes on.", self.index)

    def _fail_by_clock(self) -> None:
        """End the job: no lease ends any more, and nobody would be told. The lock is held."""
        if self._node.lead is None:
            return
        reason = f"The clock of ps:{self.index} meets an error again and again; see its log."
        try:
            self._deliver(self._node.fail(reason, time.monotonic()))
        finally:
            self._deliver_news()  # whatever is in the way of all else

    def _deliver(self, replies: list[tuple[Caller, ExchangeReply]]) -> None:
        """Hand out what a call produced. The lock is held."""
        for caller, reply in replies:
            waiting = self._waiting.pop(caller, None)
            if waiting is not None:
                waiting.put(reply)
        shard = self._node.shard
        serves = shard.generation if shard.phase is ShardPhase.LIVE else ""
        if serves != self._request_limit[0]:
            self._request_limit = (serves, shard.request_limit_bytes())
        snapshot = self._node.take_snapshot()
        if snapshot is not None and not self._closed.is_set():
            self._writer.submit(self._write, snapshot)
        if self._node.lead is not None:
            if self._hold_ends_at != (ends_at := self._node.look_again_at_secs):
                self._hold_ends_at = ends_at
                self._hurry.set()
            self._deliver_news()
        if self._facts_listener is not None:
            self._deliver_facts(self._facts_listener)

    def _deliver_news(self) -> None:
        """Tell what the lead has to tell; the verdict only once it is on disk."""
        news = self._catalog()
        verdict = news[1]
        if verdict is not None and self._kept_verdict is None:
            self._kept_verdict = verdict
            self._keep(verdict)
        for instance, directive in self._node.take_directives().items():
            subscriber = self._subscribers.get(instance)
            if subscriber is not None:
                subscriber(directive)
        # After the verdict those who wait to leave look at who has heard it.
        if news != self._catalog_told or verdict is not None:
            self._catalog_told = news
            self._news.notify_all()

    def _keep(self, verdict: Verdict) -> None:
        lead = self._node.lead
        if self._keep_verdict is None or lead is None:
            return
        try:
            self._keep_verdict(verdict, lead.job_id)
        except OSError as error:
            # Everyone is told all the same; only a latecomer will look for the file in vain.
            logger.error("The verdict could not be written: %s.", error)

    def _deliver_facts(self, listener: Callable[[ShardFacts], None]) -> None:
        facts = self._node.shard.facts()
        if facts != self._facts:
            self._facts = facts
            listener(facts)

    def _write(self, snapshot: Snapshot) -> None:
        file, error = None, ""
        try:
            file = self._write_shard(replace(snapshot, guard=self._lock))
        except Exception as failure:
            # Whatever went wrong fails this save, in the chief's words; the shard lives on.
            error = f"ps:{self.index} could not write its shard file: {failure}"
            logger.error("%s", error, exc_info=not isinstance(failure, OSError))
        with self._lock:
            self._deliver(self._node.written(snapshot.save, file, error, time.monotonic()))
