"""A virtual clock and network: everything that happens, happens at a time a seed decided.

``Clock`` runs actions in order of virtual time. ``Process`` is what can be killed or stopped;
its threads are generators that yield what they wait for. ``Stream`` is an ordered two-way
connection of two processes that delays, breaks, and, where allowed, loses and repeats. Nothing
here knows what psys is.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

Action = Callable[[], None]


class Clock:
    """Virtual time, and all that is going to happen."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 100.0
        self.trace: list[str] = []
        self._queue: list[tuple[float, int, Action]] = []
        self._count = 0

    def after(self, delay_secs: float, action: Action) -> None:
        """Do something later."""
        self._count += 1
        heapq.heappush(self._queue, (self.now + delay_secs, self._count, action))

    def log(self, who: str, what: str) -> None:
        """Note something worth reading when a seed fails."""
        self.trace.append(f"{self.now - 100:9.3f}  {who:<10} {what}")

    def run(self, until_secs: float, over: Callable[[], bool]) -> None:
        """Let things happen until it is over, or the time is."""
        while self._queue and not over():
            at, _, action = heapq.heappop(self._queue)
            if at > until_secs:
                self.now = until_secs
                return
            self.now = max(self.now, at)
            action()


@dataclass
class Wait:
    """What a thread yields: until the condition holds, at most so many seconds."""

    until: Callable[[], bool] = lambda: False
    at_most_secs: float = float("inf")


Thread = Generator[Wait, bool, Any]
"""It is sent whether what it waited for came true."""


class Process:
    """Something with threads, streams, and a life of its own."""

    def __init__(self, clock: Clock, name: str) -> None:
        self.clock = clock
        self.name = name
        self.alive = True
        self.paused = False
        self.exit = ""
        """How it ended; '' while it lives."""
        self.streams: list[Stream] = []
        self._backlog: list[Action] = []
        self._threads: list[_Running] = []

    # ------------------------------------------------------------ life

    def spawn(self, thread: Thread) -> None:
        """Run a thread from now on."""
        running = _Running(thread)
        self._threads.append(running)
        self._resume(running, False)

    def do(self, action: Action) -> None:
        """Do something in this process: now, when it goes on again, or never."""
        if not self.alive:
            return
        if self.paused:
            self._backlog.append(action)
            return
        action()
        self.poke()

    def after(self, delay_secs: float, action: Action) -> None:
        """Do something in this process later."""
        self.clock.after(delay_secs, lambda: self.do(action))

    def poke(self) -> None:
        """Let those threads go on whose wait is over."""
        for running in list(self._threads):
            if self.alive and running.wait is not None and running.wait.until():
                self._resume(running, True)

    def pause(self, secs: float) -> None:
        """Stop for a while (SIGSTOP, or a starved machine); what comes meanwhile waits."""
        self.paused = True
        self.clock.log(self.name, f"paused for {secs:.1f} s")
        self.clock.after(secs, self.unpause)

    def unpause(self) -> None:
        if not self.paused or not self.alive:
            return
        self.paused = False
        self.clock.log(self.name, "goes on")
        backlog, self._backlog = self._backlog, []
        for action in backlog:
            self.do(action)

    def end(self, how: str, notice_secs: float = 0.01) -> None:
        """End, for whatever reason; the other side of every stream notices later."""
        if not self.alive:
            return
        self.clock.log(self.name, f"ends: {how}")
        self.alive, self.exit = False, how
        self._threads.clear()
        for stream in list(self.streams):
            stream.break_off(notice_secs)

    # ------------------------------------------------------------ inside

    def _resume(self, running: _Running, came_true: bool) -> None:
        running.wait = None
        try:
            while True:
                wait = running.thread.send(came_true) if running.begun else next(running.thread)
                running.begun = True
                if not self.alive:
                    return
                if not wait.until():
                    break
                came_true = True
        except StopIteration:
            if running in self._threads:
                self._threads.remove(running)
            return
        running.wait = wait
        if wait.at_most_secs != float("inf"):

            def time_is_over() -> None:
                if running.wait is wait:
                    self._resume(running, False)

            self.after(wait.at_most_secs, time_is_over)


class _Running:
    def __init__(self, thread: Thread) -> None:
        self.thread = thread
        self.wait: Wait | None = None
        self.begun = False


@dataclass(frozen=True)
class Weather:
    """How bad the network is.

    Attributes:
        delay_secs: the longest usual delay of a message.
        break_chance: that a message breaks the stream it travels on.
        lose_chance: that a message that may be lost is lost.
        repeat_chance: that a message that may be repeated comes again, later.
        half_open_chance: that the server never notices that a stream broke.
    """

    delay_secs: float = 0.02
    break_chance: float = 0.0
    lose_chance: float = 0.0
    repeat_chance: float = 0.0
    half_open_chance: float = 0.0


class Stream:
    """An ordered two-way connection from a client to a server.

    What is under way when it breaks may still arrive, and later than anything else. With
    ``whole_state`` its messages may also be lost or repeated while it lives; one lost on the
    way down breaks it some time later, as a lost packet would.
    """

    def __init__(
        self,
        weather: Weather,
        client: Process,
        server: Process,
        to_client: Callable[[Any], None],
        client_broken: Action,
        whole_state: bool = False,
    ) -> None:
        self.clock = client.clock
        self.client, self.server = client, server
        self.to_client = to_client
        self.client_broken = client_broken
        self.to_server: Callable[[Any], None] = lambda _: None
        self.server_broken: Action = lambda: None
        self.open = True
        self._whole_state = whole_state
        self._weather = weather
        self._last_secs = {True: 0.0, False: 0.0}
        self._late_secs: dict[bool, float | None] = {True: None, False: None}
        client.streams.append(self)
        server.streams.append(self)
        if not server.alive:
            self.break_off(0.01)

    def send_up(self, message: Any) -> None:
        """Send to the server."""
        self._send(message, up=True)

    def send_down(self, message: Any) -> None:
        """Send to the client."""
        self._send(message, up=False)

    def _send(self, message: Any, up: bool) -> None:
        if not self.open:
            return
        chance, weather = self.clock.random.random, self._weather
        if self._whole_state:
            if chance() < weather.repeat_chance:
                self.clock.after(2 * chance(), lambda: self._repeat(message, up))
            if chance() < weather.lose_chance:
                if not up:
                    self.clock.after(3 * chance(), self.break_off)
                return
        delay = weather.delay_secs * chance() ** 2
        at = max(self._last_secs[up] + 1e-6, self.clock.now + delay)
        self._last_secs[up] = at
        self.clock.after(at - self.clock.now, lambda: self._arrive(message, up))
        if chance() < weather.break_chance:
            self.clock.after(delay * chance(), self.break_off)

    def _arrive(self, message: Any, up: bool) -> None:
        end, handle = (self.server, self.to_server) if up else (self.client, self.to_client)
        if self.open:
            end.do(lambda: handle(message))
        elif up and (late := self._late_secs[up]) is not None:
            self.clock.after(late, lambda: end.do(lambda: handle(message)))

    def _repeat(self, message: Any, up: bool) -> None:
        if self.open:
            self._arrive(message, up)

    def break_off(self, notice_secs: float | None = None) -> None:
        """Break; what is on its way up may still arrive, both ends notice in a while."""
        if not self.open:
            return
        self.open = False
        chance = self.clock.random.random
        if chance() < 0.5:
            self._late_secs[True] = chance()
        notice = 0.02 * chance() if notice_secs is None else notice_secs
        self.clock.after(notice, lambda: self.client.do(self.client_broken))
        if notice_secs is not None or chance() >= self._weather.half_open_chance:
            # Nothing comes after the end of a stream.
            arrived = max(self._last_secs[True] - self.clock.now, notice)
            late = self._late_secs[True] or 0.0
            self.clock.after(arrived + late + 1e-6, lambda: self.server.do(self.server_broken))
        self.client.streams.remove(self)
        self.server.streams.remove(self)
