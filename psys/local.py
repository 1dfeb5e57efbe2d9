"""A shard and the way to the lead, of a Node in this very process.

What ``psys.rpc`` is to a Node in another: training on one machine is a cluster whose one shard is
in memory.
"""

from __future__ import annotations

import queue
import threading

from psys.arrays import Plan
from psys.attendance import Attendance, LeadLink
from psys.host import NodeHost
from psys.ps.messages import Directive, ExchangeReply, ExchangeRequest, Report
from psys.ps.roster import Instance
from psys.ps.shard import LoadedSlice, Shard


class LocalShard(Shard):
    """The shard of a Node in this process."""

    def __init__(self, host: NodeHost) -> None:
        self._host = host
        self._request: ExchangeRequest | None = None

    def load(
        self, generation: str, member: int, slices: list[LoadedSlice], plan: Plan = ()
    ) -> None:
        """Put all slices in place; see ``Shard.load``."""
        self._host.check_load(generation, member)
        self._host.load(generation, slices, plan)

    def keep_manifest(self, generation: str, member: int, manifest_json: str) -> None:
        """Do nothing: this shard's files lie where the chief commits."""

    def delete_checkpoint(
        self, generation: str, member: int, global_step: int, checkpoint_id: str
    ) -> None:
        """Do nothing: this shard's files lie where the chief deletes."""

    def begin_exchange(self, request: ExchangeRequest) -> None:
        """Keep the request; ``finish_exchange`` serves it."""
        self._request = request

    def finish_exchange(self) -> ExchangeReply:
        """Serve the request begun last."""
        assert self._request is not None
        return self._host.exchange(self, self._request)

    def close(self) -> None:
        """Forget this client."""
        self._host.forget(self)


class LocalLink(LeadLink):
    """The way to a lead in this process."""

    def __init__(self, host: NodeHost) -> None:
        self._host = host
        self._directives: queue.SimpleQueue[Directive | None] = queue.SimpleQueue()
        self._deliver = self._directives.put
        self._attendance: Attendance | None = None

    def start(self, attendance: Attendance) -> None:
        """Begin to carry."""
        self._attendance = attendance
        self._host.subscribe(_instance(attendance), self._deliver)
        # Directives arrive under the Node's lock; listeners must not run there.
        threading.Thread(target=self._carry, name="psys-directives", daemon=True).start()

    def send(self, report: Report) -> None:
        """Hand the report to the lead."""
        self._host.hear(report)

    def close(self) -> None:
        """Stop carrying; the lead hears that this process is gone."""
        self._directives.put(None)
        if self._attendance is not None:
            self._host.stream_broken(_instance(self._attendance), self._deliver)

    def _carry(self) -> None:
        assert self._attendance is not None
        try:
            while (directive := self._directives.get()) is not None:
                self._attendance.receive(directive)
        except Exception as error:
            # A listener's error must not end in a thread nobody waits for.
            self._attendance.fail(error)


def _instance(attendance: Attendance) -> Instance:
    return (attendance.report.task, attendance.report.instance)
