"""A virtual ps: a real Node, with virtual time, streams and disk around it.

The virtual twin of ``psys.host``, ``psys.rpc.servicers`` and ``psys.roles.ps``. It decides nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulation.invariants import ShardFileOnDisk
from simulation.model import snapshot_values
from simulation.network import Process, Stream, Thread, Wait
from simulation.tasks import LATECOMER_SECS, Task

from psys.errors import GenerationChanged
from psys.ps.messages import (
    CheckpointEntry,
    ExchangeReply,
    ExchangeRequest,
    Report,
    ShardFacts,
    ShardFile,
    Verdict,
)
from psys.ps.roster import Instance
from psys.ps.shard import LoadedSlice

if TYPE_CHECKING:
    from simulation.cluster import Cluster

TICK_SECS = 0.25
SIGTERM_PATIENCE_SECS = 8.0

News = tuple[tuple[CheckpointEntry, ...], Verdict | None]
Load = tuple[str, list[LoadedSlice]]


class Server(Process):
    """Serves one shard, and on ps 0 the lead."""

    def __init__(self, cluster: Cluster, index: int) -> None:
        super().__init__(cluster.clock, f"ps:{index}")
        self.cluster = cluster
        job = cluster.job_of_a_new_lead() if index == 0 else None
        self.node = cluster.options.node(index, cluster.new_id, job)
        self.task: Task | None = None
        """The control stream of a ps that is not the lead."""
        self._subscribers: dict[Instance, Stream] = {}
        self._watchers: dict[Stream, News] = {}
        self._facts: ShardFacts | None = None
        self._hold_ends_at: float | None = None
        self.after(TICK_SECS, self._tick)

    def _tick(self) -> None:
        self._deliver(self.node.tick(self.clock.now))
        self.after(TICK_SECS, self._tick)

    def _end_hold(self) -> None:
        """Tick when a hold has to end, as the host's clock does."""
        at = self.node.look_again_at_secs
        if at is not None and at != self._hold_ends_at:
            self._hold_ends_at = at
            self.after(
                max(at - self.clock.now, 0.0),
                lambda: self._deliver(self.node.tick(self.clock.now)),
            )

    # ------------------------------------------------------------ streams

    def accept_exchange(self, stream: Stream) -> None:
        """Serve a trainer's exchanges."""

        def take(request: ExchangeRequest) -> None:
            self._deliver(self.node.exchange(stream, request, self.clock.now))

        stream.to_server = take
        stream.server_broken = lambda: self.node.forget(stream)

    def accept_load(self, stream: Stream) -> None:
        """Take in the chief's slices."""

        def take(load: Load) -> None:
            try:
                self._deliver(self.node.load(*load, self.clock.now))
            except GenerationChanged:
                stream.break_off()
            else:
                stream.send_down("loaded")

        stream.to_server = take

    def accept_control(self, stream: Stream) -> None:
        """Carry one task's reports and directives."""
        instances: set[Instance] = set()

        def take(report: Report) -> None:
            instance = (report.task, report.instance)
            if instance not in instances and stream.open:
                instances.add(instance)
                self._subscribers[instance] = stream
                self.node.tell_again(instance)
            self._deliver(self.node.hear(report, self.clock.now))

        def broken() -> None:
            for instance in instances:
                if self._subscribers.get(instance) is stream:
                    del self._subscribers[instance]
                    self._deliver(self.node.stream_broken(instance, self.clock.now))

        stream.to_server = take
        stream.server_broken = broken

    def accept_watch(self, stream: Stream) -> None:
        """Tell all checkpoints, then what comes."""

        def begin(_: object) -> None:
            self._watchers[stream] = ((), None)
            self._tell_watchers()

        stream.to_server = begin
        stream.server_broken = lambda: self._forget_watcher(stream)

    def _forget_watcher(self, stream: Stream) -> None:
        self._watchers.pop(stream, None)

    def _tell_watchers(self) -> None:
        lead = self.node.lead
        assert lead is not None
        news = (lead.catalog, lead.ending.verdict)
        for stream, known in self._watchers.items():
            if news != known:
                self._watchers[stream] = news
                stream.send_down(news)

    # ------------------------------------------------------------ delivering

    def _deliver(self, replies: list[tuple[object, ExchangeReply]]) -> None:
        node, invariants = self.node, self.cluster.invariants
        invariants.look_at_shard(node.shard)
        for stream, reply in replies:
            assert isinstance(stream, Stream)
            if reply.dense:
                invariants.answered(node.shard, stream.client.name, stream.client.number, reply)
            stream.send_down(reply)
        snapshot = node.take_snapshot()
        if snapshot is not None:
            disk = self.cluster.disk

            def write() -> None:  # what was applied since the cut is not in it
                file = ShardFileOnDisk(snapshot, snapshot_values(snapshot))
                disk.files[snapshot.save, node.shard.index] = file
                name = ShardFile(f"shard-{node.shard.index}", 1, "")
                self._deliver(node.written(snapshot.save, name, "", self.clock.now))

            self.after(self.cluster.options.write_secs * self.clock.random.random(), write)
        if node.lead is not None:
            invariants.look_at_lead(node.lead, node.shard)
            self._end_hold()
            self._tell()
        elif self.task is not None and (facts := node.shard.facts()) != self._facts:
            self._facts = facts
            self.task.update(shard=facts)

    def _tell(self) -> None:
        lead, disk = self.node.lead, self.cluster.disk
        assert lead is not None
        if lead.ending.verdict is not None and disk.verdict is None:
            disk.verdict, disk.verdict_run = lead.ending.verdict, lead.job_id
            self.clock.log("verdict", str(disk.verdict))
        for instance, directive in self.node.take_directives().items():
            if (stream := self._subscribers.get(instance)) is not None:
                stream.send_down(directive)
        self._tell_watchers()


class LeadServer(Server):
    """ps 0: leaves when everyone has heard the verdict."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster, 0)
        self._leaving_at_secs = float("inf")

    def begin(self) -> None:
        """Serve until the end."""
        self.spawn(self._main())

    def _main(self) -> Thread:
        lead = self.node.lead
        assert lead is not None
        begun, ended = self.clock.now, self.cluster.disk.verdict
        while not lead.may_leave(self.clock.now):
            yield Wait(at_most_secs=TICK_SECS)
            late = self.clock.now - begun > LATECOMER_SECS and "chief" not in lead.roster.seen
            if late and ended is not None and ended.finished:
                self.end("latecomer")
                return
            gone = lead.roster.get("chief") is None
            if self.clock.now > self._leaving_at_secs or (
                gone and self._leaving_at_secs != float("inf")
            ):
                self.end("left")
                return
        verdict = lead.ending.verdict
        assert verdict is not None
        self.end("finished" if verdict.finished else f"failed: {verdict.reason}")

    def sigterm(self) -> None:
        """Stay until the chief left, for a while."""
        self._leaving_at_secs = self.clock.now + SIGTERM_PATIENCE_SECS


class Ps(Task):
    """The control stream of another ps, and its obedience. Its server lives and dies with it."""

    def __init__(self, cluster: Cluster, index: int) -> None:
        super().__init__(cluster, f"ps:{index}", shard=ShardFacts(index))
        self.server = Server(cluster, index)
        self.server.task = self
        self.on_directive = self._obey

    def _obey(self) -> None:
        directive = self.directive
        if directive.shard is not None:
            node = self.server.node
            self.server._deliver(node.obey(directive.shard, self.clock.now))

    def main(self) -> Thread:
        yield from self.wait_for(lambda one: one.verdict is not None, despite_verdict=True)
        yield from self.await_verdict()

    def pause(self, secs: float) -> None:
        super().pause(secs)
        self.server.pause(secs)

    def end(self, how: str, notice_secs: float = 0.01) -> None:
        self.server.end(how, notice_secs)
        super().end(how, notice_secs)

    def sigterm(self) -> None:
        """Leave at once: what a ps holds back for is the lead."""
        self.after(1.0, lambda: self.end("left"))
