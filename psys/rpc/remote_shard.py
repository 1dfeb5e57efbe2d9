"""RemoteShard: the shard of another process, over one kept-open stream.

One stream per trainer and ps carries every exchange in order; it is opened when first
needed and again after it broke. Trying again is the caller's business.
"""

from __future__ import annotations

import math
import queue
from collections.abc import Iterator, Sequence

import grpc

from psys.errors import ShardUnavailable
from psys.ps.messages import ExchangeReply, ExchangeRequest
from psys.ps.shard import LoadedSlice, Shard
from psys.rpc import codec
from psys.rpc.channel import metadata, open_channel
from psys.rpc.status import error_of
from psys.rpc.v1 import gradients_pb2, gradients_pb2_grpc, shard_pb2_grpc

LOAD_LIMIT_SECS = 600.0

_Frames = Iterator[gradients_pb2.ExchangeRequest]


class RemoteShard(Shard):
    """One ps, seen from a trainer."""

    def __init__(self, index: int, address: str, token: str | None = None) -> None:
        """Prepare; the connection is made when first used.

        Args:
            index: of the shard.
            address: ``host:port`` of its ps.
            token: the job's token, where there is one.
        """
        self._peer = f"ps:{index} ({address})"
        self._metadata = metadata(token)
        self._channel = open_channel(address)
        self._outbox: queue.SimpleQueue[_Frames | None] | None = None
        self._call: grpc.Call | None = None
        self.reply_limit_bytes = math.inf
        """No reply may announce more; set once the model is known."""

    def load(self, generation: str, slices: Sequence[LoadedSlice]) -> None:
        """Put all slices in place; see ``Shard.load``."""
        stub = shard_pb2_grpc.ShardsStub(self._channel)
        try:
            stub.LoadSlices(
                codec.encode_load(generation, slices),
                timeout=LOAD_LIMIT_SECS,
                metadata=self._metadata,
                wait_for_ready=True,
            )
        except grpc.RpcError as failure:
            raise error_of(failure, self._peer) from failure

    def begin_exchange(self, request: ExchangeRequest) -> None:
        """Send one request; ``finish_exchange`` waits for its answer."""
        if self._call is None:
            self._outbox = queue.SimpleQueue()
            stub = gradients_pb2_grpc.GradientsStub(self._channel)
            self._call = stub.Exchange(_frames_from(self._outbox), metadata=self._metadata)
        assert self._outbox is not None
        self._outbox.put(codec.encode_request(request))

    def finish_exchange(self) -> ExchangeReply:
        """Return the answer to the request begun last; see ``Shard.finish_exchange``."""
        call = self._call
        if call is None:
            raise ShardUnavailable(f"{self._peer}: the connection broke.")
        try:
            first = next(call)
            return codec.decode_reply(first, call, self.reply_limit_bytes, self._peer)
        except StopIteration:
            self._drop()
            raise ShardUnavailable(f"{self._peer} closed the connection.") from None
        except grpc.RpcError as failure:
            self._drop()
            raise error_of(failure, self._peer) from failure

    def close(self) -> None:
        """Give up the connection."""
        self._drop()
        self._channel.close()

    def _drop(self) -> None:
        if self._outbox is not None:
            self._outbox.put(None)
        if self._call is not None:
            self._call.cancel()
        self._outbox, self._call = None, None


def _frames_from(outbox: queue.SimpleQueue[_Frames | None]) -> _Frames:
    while (frames := outbox.get()) is not None:
        yield from frames
