"""RemoteShard: the shard of another process, over one kept-open stream.

One stream per trainer and ps carries every exchange in order; it is opened when first
needed and again after it broke. Trying again is the caller's business. Where the ps can hand
over shared memory, large bulk lies there and the stream carries the rest; nobody above knows.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from typing import Any

import grpc

from psys import environment
from psys.arrays import Plan
from psys.errors import ModelError, ShardUnavailable
from psys.ps.messages import ExchangeReply, ExchangeRequest
from psys.ps.shard import LoadedSlice, Shard
from psys.rpc import codec, load_codec
from psys.rpc.channel import metadata, open_channel
from psys.rpc.frames import memory_bytes
from psys.rpc.freed_memory import keep_freed_memory
from psys.rpc.half_floats import check_push_dtype
from psys.rpc.line import Line
from psys.rpc.recycler import Recycler
from psys.rpc.segment import Room
from psys.rpc.status import error_of
from psys.rpc.stream_memory import INLINE_BYTES, StreamMemory
from psys.rpc.v1 import checkpoints_pb2, checkpoints_pb2_grpc

LOAD_LIMIT_SECS = 600.0
LOAD_LEAST_BYTES_PER_SEC = 10_000_000
"""So much longer than LOAD_LIMIT_SECS a large load may take."""
FILE_LIMIT_SECS = 30.0

NARROWED_LIMIT_BYTES = 256 << 20
"""So much memory for gradients as 16-bit floats is kept from one step to the next."""

_Frames = Iterator[bytes]


class RemoteShard(Shard):
    """One ps, seen from a trainer."""

    def __init__(
        self,
        index: int,
        address: str,
        token: str | None = None,
        push_dtype: str | None = None,
    ) -> None:
        """Prepare; the connection is made when first used.

        Args:
            index: of the shard.
            address: ``host:port`` of its ps.
            token: the job's token, where there is one.
            push_dtype: ``"float16"`` or ``"bfloat16"``: what float32 gradients travel as; None
                for as they are. Values that are pulled keep their dtype.

        Raises:
            ConfigError: if there is no such ``push_dtype``.
        """
        self._push_dtype = check_push_dtype(push_dtype)
        keep_freed_memory()
        self._recycler = Recycler(NARROWED_LIMIT_BYTES)
        self._memory = StreamMemory(f"ps:{index}", environment.shared_memory_place())
        self._prepared: tuple[ExchangeRequest, codec.OutgoingRequest] | None = None
        self._reply_room: Room | None = None
        self._peer = f"ps:{index} ({address})"
        self._metadata = metadata(token)
        self._channel = open_channel(address)
        self._closed = False
        self._outbox: queue.SimpleQueue[_Frames | None] | None = None
        self._call: Any = None
        self._awaited = False
        """Whether a request was begun whose answer nobody has taken."""
        self._line: Line | None = None
        self._incoming_by_line: _Frames = iter(())
        self._incoming: _Frames = iter(())
        """Where the answer to the request begun last comes."""
        self._again: Sequence[bytes] = ()
        """The frames of a request that went by the line, in case it is to go by the stream."""
        self.reply_limit_bytes = memory_bytes()
        """No reply may announce more; ``Parameters`` sets it for each exchange."""

    def load(
        self, generation: str, member: int, slices: list[LoadedSlice], plan: Plan = ()
    ) -> None:
        """Put all slices in place; see ``Shard.load``."""
        load = self._open_channel().stream_unary(load_codec.LOAD_SLICES, None, None)
        try:
            load(
                load_codec.encode_load(generation, member, slices, plan),
                timeout=LOAD_LIMIT_SECS + _load_bytes(slices) / LOAD_LEAST_BYTES_PER_SEC,
                metadata=self._metadata,
            )
        except grpc.RpcError as failure:
            raise error_of(failure, self._peer) from failure

    def keep_manifest(self, generation: str, member: int, manifest_json: str) -> None:
        """Put a manifest beside the shard's own file; see ``Shard.keep_manifest``."""
        request = checkpoints_pb2.KeepManifestRequest(
            generation=generation, member=member, manifest_json=manifest_json
        )
        self._call_checkpoints("KeepManifest", request)

    def delete_checkpoint(
        self, generation: str, member: int, global_step: int, checkpoint_id: str
    ) -> None:
        """Delete the shard's part of a checkpoint; see ``Shard.delete_checkpoint``."""
        request = checkpoints_pb2.DeleteCheckpointRequest(
            generation=generation,
            member=member,
            global_step=global_step,
            checkpoint_id=checkpoint_id,
        )
        self._call_checkpoints("DeleteCheckpoint", request)

    def _call_checkpoints(self, call: str, request: Any) -> None:
        stub = checkpoints_pb2_grpc.CheckpointsStub(self._open_channel())
        try:
            getattr(stub, call)(request, timeout=FILE_LIMIT_SECS, metadata=self._metadata)
        except grpc.RpcError as failure:
            raise error_of(failure, self._peer) from failure

    def prepare_exchange(self, request: ExchangeRequest) -> None:
        """Check and narrow a request; ``begin_exchange`` then sends what was made of it.

        Raises:
            ModelError: if an array has a dtype that does not travel, or a gradient is beyond the
                range of ``push_dtype``.
        """
        self._prepared = request, codec.describe_request(request, self._push_dtype, self._recycler)

    def begin_exchange(self, request: ExchangeRequest) -> None:
        """Send one request; ``finish_exchange`` waits for its answer.

        Raises:
            ModelError: as ``prepare_exchange``, which is done first where it was not.
        """
        prepared, self._prepared = self._prepared, None
        if prepared is None or prepared[0] is not request:
            prepared = request, codec.describe_request(request, self._push_dtype, self._recycler)
        outgoing = prepared[1]
        if self._awaited:
            # The answer to the request before is still on its way: it must not answer this one.
            self._drop()
        # From here on close() may be called in another thread: what it takes away is held.
        call, outbox = self._call, self._outbox
        if call is None or outbox is None:
            outbox = queue.SimpleQueue()
            exchange = self._open_channel().stream_stream(codec.EXCHANGE, None, None)
            try:
                call = exchange(_frames_from(outbox), metadata=self._metadata)
            except ValueError:  # from gRPC, if the channel was closed since
                self._open_channel()
                raise
            self._call, self._outbox = call, outbox
        self._awaited = True
        memory = self._memory.for_request(outgoing.bulk_bytes)
        self._reply_room = reply_room = self._memory.reply_room()
        frames = codec.write_request(outgoing, memory, reply_room)
        room_bytes = INLINE_BYTES if memory is None else memory.request.size
        line = self._open_line(call)
        if line is not None and outgoing.bulk_bytes <= room_bytes:
            self._send_by_line(line, frames)
        else:
            self._incoming = call
            outbox.put(frames)

    def _open_line(self, call: Any) -> Line | None:
        """Return the line of an open stream, if it has one; it ends with the stream."""
        line = self._memory.line
        if line is not self._line:
            self._line = line
            if line is not None:
                self._incoming_by_line = line.frames()
                if not call.add_callback(line.shut):
                    line.shut()
        return line

    def _send_by_line(self, line: Line, frames: _Frames) -> None:
        self._again = again = tuple(frames)
        self._incoming = self._incoming_by_line
        try:
            line.send(again)
        except OSError as error:
            self._drop()
            raise ShardUnavailable(f"{self._peer}: the connection broke ({error}).") from error

    def finish_exchange(self) -> ExchangeReply:
        """Return the answer to the request begun last; see ``Shard.finish_exchange``.

        Raises:
            ModelError: if the answer is not well formed, or larger than expected.
        """
        call, outbox = self._call, self._outbox
        if call is None or outbox is None:
            raise ShardUnavailable(f"{self._peer}: the connection broke.")
        try:
            first = next(self._incoming)
            if not first and self._incoming is not call:
                # The ps could not serve it by the line; by the stream it says why.
                self._incoming = call
                outbox.put(iter(self._again))
                first = next(call)
            incoming = codec.open_reply(first, self._incoming, self._peer)
            memory, room = self._memory.segment, self._reply_room
            reply = codec.decode_reply(incoming, self.reply_limit_bytes, self._peer, memory, room)
            self._memory.note_reply(incoming.header, reply)
        except StopIteration:
            self._drop()
            raise ShardUnavailable(f"{self._peer} closed the connection.") from None
        except OSError as error:  # of the line, which ends with the stream
            self._drop()
            raise ShardUnavailable(f"{self._peer}: the connection broke ({error}).") from error
        except grpc.RpcError as failure:
            self._drop()
            raise error_of(failure, self._peer) from failure
        except ModelError as error:
            self._drop()
            if self._closed:  # meanwhile: it took away what the answer was to be checked against
                raise ShardUnavailable(f"{self._peer}: the connection was closed.") from error
            raise
        self._awaited = False
        return reply

    def close(self) -> None:
        """Give up the connection."""
        self._closed = True
        self._drop()
        self._channel.close()

    def _open_channel(self) -> grpc.Channel:
        if self._closed:
            raise ShardUnavailable(f"{self._peer}: the connection was closed.")
        return self._channel

    def _drop(self) -> None:
        outbox, call = self._outbox, self._call
        self._outbox, self._call, self._awaited = None, None, False
        # The ps may still be writing into it: nothing of a broken stream is used again.
        self._memory.forget()
        self._reply_room, self._line, self._again = None, None, ()
        if outbox is not None:
            outbox.put(None)
        if call is not None:
            call.cancel()


def _load_bytes(slices: Sequence[LoadedSlice]) -> int:
    """Return the size of what a load puts in place, whether it is sent or made there."""
    return sum(
        one.spec.nbytes // max(one.spec.rows, 1) * (one.stop - one.start) * (1 + len(one.slots))
        for one in slices
    )


def _frames_from(outbox: queue.SimpleQueue[_Frames | None]) -> _Frames:
    while (frames := outbox.get()) is not None:
        yield from frames
