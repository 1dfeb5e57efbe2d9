"""The services: decode, call the host, encode. Nothing is decided here."""

from __future__ import annotations

import functools
import itertools
import logging
import queue
import threading
from collections.abc import Callable, Iterator

import grpc

from psys.arrays import Plan
from psys.checkpoint.manifest import (
    MANIFEST,
    Manifest,
    checkpoint_dir,
    commit,
    load,
    shard_file_name,
)
from psys.checkpoint.retention import delete
from psys.checkpoint.storage import Storage
from psys.errors import CheckpointError, ModelError
from psys.host import News, NodeHost
from psys.ps.messages import Directive, ExchangeReply, Outcome, Report
from psys.ps.node import Node
from psys.ps.roster import Instance
from psys.rpc import codec, freed_memory, load_codec, wire
from psys.rpc.frames import FRAME_BYTES
from psys.rpc.handover import Handover, Ticket
from psys.rpc.in_flight import InFlight
from psys.rpc.line import Line
from psys.rpc.recycler import Recycler
from psys.rpc.status import errors_to_status
from psys.rpc.v1 import (
    checkpoints_pb2,
    checkpoints_pb2_grpc,
    cluster_pb2,
    cluster_pb2_grpc,
    shard_pb2,
)
from psys.rpc.v1.gradients_pb2 import SharedMemoryOffer

logger = logging.getLogger("psys")

KEEP_ALIVE_SECS = 5.0


class GradientsServicer:
    """Exchanges of trainers with this process's shard, as the bytes of their frames."""

    def __init__(self, host: NodeHost, handover: Handover, in_flight: InFlight) -> None:
        self._host = host
        self._handover = handover
        self._in_flight = in_flight
        self._recycler = Recycler(in_flight.limit_bytes)

    def exchange(self, frames: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """Serve one trainer, request by request."""
        caller = object()
        # At once, even while its exchange waits: a waiting push of a broken stream is not kept.
        context.add_callback(lambda: self._host.forget(caller))
        context.add_callback(self._in_flight.wake)
        serve = functools.partial(self._serve_line, caller, context)
        with self._handover.stream(serve) as ticket:
            offer = None if ticket is None else ticket.offer()
            try:
                for first in frames:
                    with errors_to_status(context):
                        incoming = codec.open_request(first, frames)
                        replies = self._answer(
                            caller, incoming, context, context.is_active, ticket, offer
                        )
                    yield from replies
                    offer = None
            finally:
                self._host.forget(caller)

    def _serve_line(
        self, caller: object, context: grpc.ServicerContext, ticket: Ticket, line: Line
    ) -> None:
        """Serve what comes by the line of a stream, as what comes by the stream itself."""

        def is_wanted() -> bool:
            return context.is_active() and not line.ended

        self._in_flight.wake()  # what the line before this one brought may wait for room
        try:
            for frame in line.frames():
                if not context.is_active():
                    return  # the stream broke, and its handler is about to end the line
                try:
                    # A request is one frame here: what comes after a bad one begins anew.
                    incoming = codec.open_request(frame, iter(()))
                    replies = self._answer(caller, incoming, context, is_wanted, ticket)
                except Exception as error:
                    # The trainer sends it again by the stream, which says what is wrong: what was
                    # applied is known by its number.
                    logger.debug("Not served by the line: %s", error)
                    replies = iter((b"",))
                line.send(replies)
        except (OSError, ModelError) as error:  # the trainer went away, or talks nonsense
            logger.debug("The line of a stream ended: %s", error)
        finally:
            line.close()

    def _answer(
        self,
        caller: object,
        incoming: codec.IncomingRequest,
        context: grpc.ServicerContext,
        is_wanted: Callable[[], bool],
        ticket: Ticket | None,
        offer: SharedMemoryOffer | None = None,
    ) -> Iterator[bytes]:
        limit_bytes = self._host.request_limit_bytes(incoming.header.generation)
        if limit_bytes is None:
            codec.skip_request(incoming)
            return codec.encode_reply(
                ExchangeReply("", incoming.header.sequence, Outcome.GENERATION_CHANGED), offer=offer
            )
        segment = None if ticket is None else ticket.segment
        room = codec.find_reply_room(incoming, segment)
        layout = codec.lay_out_request(incoming, limit_bytes)
        with self._in_flight.enter(layout.size, is_wanted, context.cancel) as entry:
            request = codec.decode_request(incoming, layout, segment, self._recycler)
            entry.arrived()

            def withheld() -> None:
                entry.release()
                if not context.is_active():
                    # Its stream broke just before it waited: nobody else would end its wait.
                    self._host.forget(caller)

            reply = self._host.exchange(caller, request, withheld)
        return codec.encode_reply(reply, room, offer)


class ShardsServicer:
    """The chief's loads into this process's shard, as the bytes of their frames."""

    def __init__(self, host: NodeHost) -> None:
        self._host = host

    def load_slices(self, frames: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        """Put all slices in place."""
        with errors_to_status(context), freed_memory.loading():
            self._host.load(*load_codec.decode_load(frames, self._host.check_load))
        return shard_pb2.LoadSlicesResponse().SerializeToString()


def add_shard_services(
    host: NodeHost, server: grpc.Server, handover: Handover, in_flight: InFlight
) -> None:
    """Let ``server`` answer the calls whose frames are taken apart by ``psys.rpc.frames``."""
    gradients = GradientsServicer(host, handover, in_flight)
    exchange = grpc.stream_stream_rpc_method_handler(gradients.exchange)
    load_slices = grpc.stream_unary_rpc_method_handler(ShardsServicer(host).load_slices)
    for path, handler in ((codec.EXCHANGE, exchange), (load_codec.LOAD_SLICES, load_slices)):
        _, service, method = path.split("/")
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {method: handler}),)
        )


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
        known: News = ((), None)
        while context.is_active():
            with errors_to_status(context):
                news = self._host.wait_news(known, KEEP_ALIVE_SECS)
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
            directory = _directory(request.global_step, request.checkpoint_id)
            try:
                file_name = shard_file_name(request.shard_index, request.shard_count)
            except CheckpointError as error:
                raise ModelError(str(error)) from error
            with self._storage.open_reader(f"{directory}/{file_name}") as file:
                while piece := file.read(FRAME_BYTES):
                    yield checkpoints_pb2.ReadFileResponse(data=piece)

    def ReadManifest(  # noqa: N802
        self,
        request: checkpoints_pb2.ReadManifestRequest,
        context: grpc.ServicerContext,
    ) -> checkpoints_pb2.ReadManifestResponse:
        """Return a manifest this ps keeps."""
        with errors_to_status(context):
            directory = _directory(request.global_step, request.checkpoint_id)
            text = self._storage.read(f"{directory}/{MANIFEST}").decode()
        return checkpoints_pb2.ReadManifestResponse(manifest_json=text)

    def KeepManifest(  # noqa: N802
        self,
        request: checkpoints_pb2.KeepManifestRequest,
        context: grpc.ServicerContext,
    ) -> checkpoints_pb2.KeepManifestResponse:
        """Put a manifest beside this ps's shard file; where the disk is shared, it is there."""
        with errors_to_status(context):
            self._host.check_chief(request.generation, request.member)
            manifest = Manifest.from_json(request.manifest_json, "a manifest from the chief")
            commit(self._storage, manifest)
            self._host.note_newest(manifest.global_step, manifest.checkpoint_id)
        return checkpoints_pb2.KeepManifestResponse()

    def DeleteCheckpoint(  # noqa: N802
        self,
        request: checkpoints_pb2.DeleteCheckpointRequest,
        context: grpc.ServicerContext,
    ) -> checkpoints_pb2.DeleteCheckpointResponse:
        """Delete this ps's part of a checkpoint; one that is gone is no error."""
        with errors_to_status(context):
            self._host.check_chief(request.generation, request.member)
            directory = _directory(request.global_step, request.checkpoint_id)
            if self._storage.exists(f"{directory}/{MANIFEST}"):
                delete(self._storage, load(self._storage, f"{directory}/{MANIFEST}"))
        return checkpoints_pb2.DeleteCheckpointResponse()

    def _check_lead(self, context: grpc.ServicerContext) -> None:
        if not self._host.has_lead:
            context.abort(
                grpc.StatusCode.UNIMPLEMENTED,
                "The catalogue is kept by the lead: ask ps 0, or the chief where no ps is listed.",
            )


def _directory(global_step: int, checkpoint_id: str) -> str:
    """Return a checkpoint's directory; what came from the wire is checked before it is a path."""
    try:
        return checkpoint_dir(global_step, checkpoint_id)
    except CheckpointError as error:
        raise ModelError(str(error)) from error


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
        outbox: queue.SimpleQueue[Directive | ModelError | None] = queue.SimpleQueue()
        deliver = outbox.put
        self._host.subscribe(instance, deliver)
        threading.Thread(
            target=self._hear_all,
            args=(instance, itertools.chain((first,), request_iterator), outbox, deliver, context),
            name="psys-reports",
            daemon=True,
        ).start()
        try:
            with errors_to_status(context):
                while (news := outbox.get()) is not None:
                    if isinstance(news, ModelError):
                        raise news
                    yield cluster_pb2.AttendResponse(
                        directive=wire.fill(cluster_pb2.Directive(), news)
                    )
        finally:
            self._host.stream_broken(instance, deliver)

    def _hear_all(
        self,
        instance: Instance,
        requests: Iterator[cluster_pb2.AttendRequest],
        outbox: queue.SimpleQueue[Directive | ModelError | None],
        deliver: Callable[[Directive], None],
        context: grpc.ServicerContext,
    ) -> None:
        """Take in the reports of one process; put None, or what is wrong, when they end."""
        try:
            for request in requests:
                report = wire.read(request.report, Report)
                if (report.task, report.instance) != instance:
                    raise ModelError(f"{instance[0]} sent a report of {report.task!r}.")
                if not context.is_active():
                    return  # what is left of a broken stream must not come to life again
                self._host.hear(report, deliver)
        except grpc.RpcError:
            pass  # the stream broke, and ends
        except ModelError as error:
            outbox.put(error)
        finally:
            outbox.put(None)

    def GetStatus(  # noqa: N802
        self,
        request: cluster_pb2.GetStatusRequest,
        context: grpc.ServicerContext,
    ) -> cluster_pb2.GetStatusResponse:
        """Describe the job for people."""
        status, plan = self._host.read_lead(_status)
        # Not under the host's lock: of a large model it takes long.
        status.plan.extend(wire.fill(shard_pb2.PlannedSlice(), one) for one in plan)
        return status


def _status(node: Node) -> tuple[cluster_pb2.GetStatusResponse, Plan]:
    """Return the job for people, and the plan that is still to be put in."""
    lead = node.lead
    assert lead is not None
    members = lead.roster.members
    tasks = []
    if lead.job.ps:  # this very process, which attends nobody
        tasks.append(
            cluster_pb2.TaskStatus(
                task=lead.job.ps[0], standing="live", phase=cluster_pb2.TASK_PHASE_WORKING
            )
        )
    for task in sorted({*lead.job.listed, *members}):
        member = members.get(task)
        if member is None:
            tasks.append(cluster_pb2.TaskStatus(task=task, standing="never seen"))
            continue
        standing = "live" if member.live else "left" if member.lost_since_secs is None else "lost"
        tasks.append(
            cluster_pb2.TaskStatus(
                task=task,
                member=member.number,
                standing=standing,
                phase=member.report.phase.value + 1,  # type: ignore[arg-type]
            )
        )
    status = cluster_pb2.GetStatusResponse(
        job=lead.phase.value + 1,  # type: ignore[arg-type]
        # While it is being loaded, a generation is known to the chief and the shards alone.
        generation=lead.generation if lead.live else "",
        global_step=lead.grants.global_step,
        max_steps=lead.grants.max_steps,
        waiting_for=lead.waits.describe(),
        tasks=tasks,
        checkpoints=[wire.fill(checkpoints_pb2.Checkpoint(), entry) for entry in lead.catalog],
        holders=lead.job.ps or ("chief",),
    )
    return status, tuple(lead.plan) if lead.live else ()
