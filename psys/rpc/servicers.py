"""The services: decode, call the host, encode. Nothing is decided here."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

import grpc

from psys.checkpoint.manifest import checkpoint_dir, shard_file_name
from psys.checkpoint.storage import Storage
from psys.errors import CheckpointNotFound, ModelError
from psys.host import NodeHost
from psys.ps.messages import Directive, Report, Verdict
from psys.ps.node import Node
from psys.rpc import codec, wire
from psys.rpc.status import errors_to_status
from psys.rpc.v1 import (
    checkpoints_pb2,
    checkpoints_pb2_grpc,
    cluster_pb2,
    cluster_pb2_grpc,
    gradients_pb2,
    gradients_pb2_grpc,
    shard_pb2,
    shard_pb2_grpc,
)

KEEP_ALIVE_SECS = 5.0


class GradientsServicer(gradients_pb2_grpc.GradientsServicer):
    """Exchanges of trainers with this process's shard."""

    def __init__(self, host: NodeHost) -> None:
        self._host = host

    def Exchange(  # noqa: N802 - named by the .proto
        self,
        request_iterator: Iterator[gradients_pb2.ExchangeRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[gradients_pb2.ExchangeResponse]:
        """Serve one trainer, request by request."""
        caller = object()
        try:
            for first in request_iterator:
                with errors_to_status(context):
                    limit_bytes = self._host.request_limit_bytes()
                    request = codec.decode_request(first, request_iterator, limit_bytes)
                    reply = self._host.exchange(caller, request)
                yield from codec.encode_reply(reply)
        finally:
            self._host.forget(caller)


class ShardsServicer(shard_pb2_grpc.ShardsServicer):
    """The chief's loads into this process's shard."""

    def __init__(self, host: NodeHost) -> None:
        self._host = host

    def LoadSlices(  # noqa: N802
        self,
        request_iterator: Iterator[shard_pb2.LoadSlicesRequest],
        context: grpc.ServicerContext,
    ) -> shard_pb2.LoadSlicesResponse:
        """Put all slices in place."""
        with errors_to_status(context):
            generation, slices = codec.decode_load(request_iterator)
            self._host.load(generation, slices)
        return shard_pb2.LoadSlicesResponse()


class CheckpointsServicer(checkpoints_pb2_grpc.CheckpointsServicer):
    """The catalogue, where the lead lives; files, on every ps."""

    def __init__(self, host: NodeHost, storage: Storage) -> None:
        self._host = host
        self._storage = storage

    def ListCheckpoints(  # noqa: N802
        self,
        request: checkpoints_pb2.ListCheckpointsRequest,
        context: grpc.ServicerContext,
    ) -> checkpoints_pb2.ListCheckpointsResponse:
        """Return all checkpoints there are."""
        self._check_lead(context)
        entries, _ = self._host.wait_news(((), None), 0.0)
        return checkpoints_pb2.ListCheckpointsResponse(
            checkpoints=[wire.fill(checkpoints_pb2.Checkpoint(), entry) for entry in entries]
        )

    def WatchCheckpoints(  # noqa: N802
        self,
        request: checkpoints_pb2.WatchCheckpointsRequest,
        context: grpc.ServicerContext,
    ) -> Iterator[checkpoints_pb2.WatchCheckpointsResponse]:
        """Tell all checkpoints there are, then what comes, then the verdict."""
        self._check_lead(context)
        told: set[tuple[str, bool]] = set()
        known: tuple[tuple[object, ...], Verdict | None] = ((), None)
        while context.is_active():
            news = self._host.wait_news(known, KEEP_ALIVE_SECS)  # type: ignore[arg-type]
            if news == known:
                yield checkpoints_pb2.WatchCheckpointsResponse(
                    keep_alive=checkpoints_pb2.KeepAlive()
                )
            known = news
            for entry in news[0]:
                if (entry.checkpoint_id, entry.final) not in told:
                    told.add((entry.checkpoint_id, entry.final))
                    yield checkpoints_pb2.WatchCheckpointsResponse(
                        committed=wire.fill(checkpoints_pb2.Checkpoint(), entry)
                    )
            if news[1] is not None:
                yield checkpoints_pb2.WatchCheckpointsResponse(
                    verdict=wire.fill(checkpoints_pb2.JobVerdict(), news[1])
                )
                return

    def ReadFile(  # noqa: N802
        self, request: checkpoints_pb2.ReadFileRequest, context: grpc.ServicerContext
    ) -> Iterator[checkpoints_pb2.ReadFileResponse]:
        """Send one shard file of a checkpoint."""
        with errors_to_status(context):
            directory = checkpoint_dir(request.global_step, request.checkpoint_id)
            name = f"{directory}/{shard_file_name(request.shard_index, request.shard_count)}"
            if not self._storage.exists(name):
                raise CheckpointNotFound(f"{self._storage.path(name)} does not exist.")
            with self._storage.open_reader(name) as file:
                while piece := file.read(codec.FRAME_BYTES):
                    yield checkpoints_pb2.ReadFileResponse(data=piece)

    def _check_lead(self, context: grpc.ServicerContext) -> None:
        if not self._host.has_lead:
            context.abort(
                grpc.StatusCode.UNIMPLEMENTED,
                "The catalogue is kept by the lead: ask ps 0, or the chief where no ps is listed.",
            )


class ClusterServicer(cluster_pb2_grpc.ClusterServicer):
    """Control streams to the lead of this process."""

    def __init__(self, host: NodeHost) -> None:
        self._host = host

    def Attend(  # noqa: N802
        self,
        request_iterator: Iterator[cluster_pb2.AttendRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[cluster_pb2.AttendResponse]:
        """Carry one task's reports and directives."""
        with errors_to_status(context):
            first = next(request_iterator, None)
            if first is None:
                return
            report = wire.read(first.report, Report)
            if not report.task or not report.instance:
                raise ModelError("A report must name its task and instance.")
        instance = (report.task, report.instance)
        outbox: queue.SimpleQueue[Directive | None] = queue.SimpleQueue()
        deliver = outbox.put
        self._host.subscribe(instance, deliver)
        self._host.hear(report)

        def hear_all() -> None:
            try:
                for request in request_iterator:
                    self._host.hear(wire.read(request.report, Report))
            except grpc.RpcError:
                return  # the stream broke: what follows says so to the lead
            finally:
                outbox.put(None)

        threading.Thread(target=hear_all, name="psys-reports", daemon=True).start()
        try:
            while (directive := outbox.get()) is not None:
                yield cluster_pb2.AttendResponse(
                    directive=wire.fill(cluster_pb2.Directive(), directive)
                )
        finally:
            self._host.stream_broken(instance, deliver)

    def GetStatus(  # noqa: N802
        self,
        request: cluster_pb2.GetStatusRequest,
        context: grpc.ServicerContext,
    ) -> cluster_pb2.GetStatusResponse:
        """Describe the job for people."""
        status = self._host.read_lead(_status)
        assert isinstance(status, cluster_pb2.GetStatusResponse)
        return status


def _status(node: Node) -> cluster_pb2.GetStatusResponse:
    lead = node.lead
    assert lead is not None
    members = lead.roster.members
    tasks = []
    for task in sorted({*lead.job.listed, *members}):
        member = members.get(task)
        if member is None:
            tasks.append(cluster_pb2.TaskStatus(task=task, standing="never seen"))
            continue
        standing = "live" if member.live else "lost" if member.lost_since_secs else "left"
        tasks.append(
            cluster_pb2.TaskStatus(
                task=task,
                member=member.number,
                standing=standing,
                phase=member.report.phase.value + 1,  # type: ignore[arg-type]
            )
        )
    return cluster_pb2.GetStatusResponse(
        job=lead.phase.value + 1,  # type: ignore[arg-type]
        generation=lead.generation,
        global_step=lead.grants.global_step,
        max_steps=lead.grants.max_steps,
        waiting_for=lead.waits.describe(),
        tasks=tasks,
        checkpoints=[wire.fill(checkpoints_pb2.Checkpoint(), entry) for entry in lead.catalog],
    )
