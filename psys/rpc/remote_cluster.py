"""The lead of another process: the control stream, and its status for people."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import grpc

from psys.attendance import Attendance, LeadLink
from psys.errors import ConfigError, ModelError
from psys.ps.messages import Directive, Report
from psys.rpc import wire
from psys.rpc.channel import metadata, open_channel
from psys.rpc.status import error_of
from psys.rpc.v1 import cluster_pb2, cluster_pb2_grpc

logger = logging.getLogger("psys")

REOPEN_SECS = 0.2
STATUS_LIMIT_SECS = 5.0
FAREWELL_SECS = 2.0


class RemoteLink(LeadLink):
    """Carries reports and directives over one stream, opened again whenever it breaks."""

    def __init__(self, address: str, token: str | None = None) -> None:
        """Prepare; ``start`` connects.

        Args:
            address: ``host:port`` of the lead.
            token: the job's token, where there is one.
        """
        self._address = address
        self._metadata = metadata(token)
        self._news = threading.Condition()
        self._report: Report | None = None
        self._closing = False
        self._gone = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, attendance: Attendance) -> None:
        """Begin to carry, in a thread of its own."""
        self._report = attendance.report
        self._thread = threading.Thread(
            target=self._run, args=(attendance,), name="psys-control", daemon=True
        )
        self._thread.start()

    def send(self, report: Report) -> None:
        """Let the stream carry ``report``; only the newest waits."""
        with self._news:
            # Two threads may come here in another order than their reports were made.
            if self._report is None or report.revision > self._report.revision:
                self._report = report
                self._news.notify_all()

    def close(self) -> None:
        """Send what is left to send, waiting at most FAREWELL_SECS until it has arrived."""
        with self._news:
            self._closing = True
            self._news.notify_all()
        self._gone.set()
        if self._thread is not None:
            self._thread.join(FAREWELL_SECS)

    def _run(self, attendance: Attendance) -> None:
        try:
            while True:
                last = self._closing
                told = self._carry(attendance)
                # A stream that broke under the last report gets one more chance to tell it.
                if self._closing and (told or last):
                    return
                self._gone.wait(REOPEN_SECS)
        except Exception as error:
            # Trying again is no use; nor must a listener's error end in silence.
            attendance.fail(error)

    def _carry(self, attendance: Attendance) -> bool:
        """Carry over one stream until it ends; return whether the lead has heard everything.

        Raises:
            ConfigError: if who answers is not the lead of this job.
            ModelError: if it does not understand what it is told, or is not understood.
        """
        # A new channel each time: a restarted host may have another address.
        channel = open_channel(self._address)
        ended = threading.Event()
        try:
            stub = cluster_pb2_grpc.ClusterStub(channel)
            for response in stub.Attend(self._reports(ended), metadata=self._metadata):
                attendance.receive(wire.read(response.directive, Directive))
            if not self._closing:
                attendance.unreachable("it closed the connection")
            # The lead ends a stream of its own accord only after the last report on it.
            return True
        except grpc.RpcError as failure:
            error = error_of(failure, self._address)
            if isinstance(error, (ConfigError, ModelError)):
                raise error from failure
            attendance.unreachable(str(error))
            return False
        finally:
            ended.set()
            with self._news:
                self._news.notify_all()
            channel.close()

    def _reports(self, ended: threading.Event) -> Iterator[cluster_pb2.AttendRequest]:
        """Yield the newest report whenever there is one, until the stream or we end."""
        sent = -1
        while True:
            with self._news:
                assert self._report is not None
                while self._report.revision == sent and not self._closing and not ended.is_set():
                    self._news.wait()
                report = self._report
            if ended.is_set():
                return
            if report.revision != sent:
                sent = report.revision
                yield cluster_pb2.AttendRequest(report=wire.fill(cluster_pb2.Report(), report))
            elif self._closing:
                return


def fetch_status(address: str, token: str | None = None) -> dict[str, Any]:
    """Return what the lead at ``address`` knows of its job.

    Raises:
        ShardUnavailable: if nobody answers there.
    """
    channel = open_channel(address)
    try:
        status = cluster_pb2_grpc.ClusterStub(channel).GetStatus(
            cluster_pb2.GetStatusRequest(), timeout=STATUS_LIMIT_SECS, metadata=metadata(token)
        )
    except grpc.RpcError as failure:
        raise error_of(failure, address) from failure
    finally:
        channel.close()
    return {
        "job": cluster_pb2.JobPhase.Name(status.job).removeprefix("JOB_PHASE_").lower(),
        "generation": status.generation,
        "global_step": status.global_step,
        "max_steps": status.max_steps,
        "waiting_for": status.waiting_for,
        "tasks": [
            {
                "task": one.task,
                "member": one.member,
                "standing": one.standing,
                "phase": cluster_pb2.TaskPhase.Name(one.phase).removeprefix("TASK_PHASE_").lower(),
            }
            for one in status.tasks
        ],
        "checkpoints": [
            {"checkpoint_id": one.checkpoint_id, "global_step": one.global_step, "path": one.path}
            for one in status.checkpoints
        ],
        "plan": [
            {
                "variable": one.variable,
                "start": one.start,
                "stop": one.stop,
                "shard": one.shard,
                "bytes": one.nbytes,
            }
            for one in status.plan
        ],
        "holders": list(status.holders),
    }
