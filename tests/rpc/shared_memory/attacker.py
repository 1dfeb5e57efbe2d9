"""A client made from the protos that may send anything, either way."""

from __future__ import annotations

import queue
from typing import Any

import grpc
from exchanging import PAGE

from psys.rpc.handover import fetch_segment
from psys.rpc.segment import TrainerSegment
from psys.rpc.v1 import gradients_pb2, gradients_pb2_grpc, tensors_pb2


class Attacker:
    """A client with a segment and a line of its stream in its hands."""

    def __init__(self, address: str, generation: str, way: str = "stream") -> None:
        self._generation = generation
        self._way = "stream"
        self._channel = grpc.insecure_channel(address)
        self._requests: Any = queue.SimpleQueue()
        stub = gradients_pb2_grpc.GradientsStub(self._channel)
        self.replies = stub.Exchange(iter(self._requests.get, None))
        self.offer = self.send().header.shared_memory
        found = fetch_segment(self.offer, 16 * PAGE, PAGE)
        assert isinstance(found, TrainerSegment)
        assert found.line is not None
        self.memory, self.line, self._way = found.request.segment, found.line, way
        self.answers = self.line.frames()

    def request(self, bulk: bytes = b"", **fields: Any) -> Any:
        header = gradients_pb2.ExchangeRequestHeader(
            generation=self._generation, task="worker:0", member=1, **fields
        )
        return gradients_pb2.ExchangeRequest(header=header, bulk=bulk)

    def send(self, bulk: bytes = b"", **fields: Any) -> Any:
        """Send as told; what the line refuses goes by the stream, which says why."""
        request = self.request(bulk, **fields)
        if self._way == "line":
            self.send_by_line(request)
            if answer := next(self.answers):
                return gradients_pb2.ExchangeResponse.FromString(answer)
        self.send_by_stream(request)
        return next(self.replies)

    def send_by_line(self, request: Any) -> None:
        self.line.send([request.SerializeToString()])

    def send_by_stream(self, request: Any) -> None:
        self._requests.put(request)

    def close(self) -> None:
        self.line.close()
        self._requests.put(None)
        self._channel.close()


WEIGHT = tensors_pb2.Tensor(
    name="weight",
    role=tensors_pb2.TENSOR_ROLE_GRADIENT,
    dtype=tensors_pb2.DATA_TYPE_FLOAT32,
    shape=[2, 3],
)


def region(segment: int, offset: int, length: int) -> Any:
    return tensors_pb2.MemoryRegion(segment=segment, offset_bytes=offset, length_bytes=length)
