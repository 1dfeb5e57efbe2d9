"""Regions of a segment, as named by a peer that is not to be trusted."""

from __future__ import annotations

import os
from typing import Any

import grpc
import numpy as np
import pytest
from attacker import WEIGHT, Attacker, region
from exchanging import PAGE

from psys.errors import ModelError
from psys.rpc import codec
from psys.rpc.segment import (
    REPLY_ROOMS,
    Segment,
    TrainerSegment,
    create_descriptor,
)
from psys.rpc.v1 import gradients_pb2, gradients_pb2_grpc, tensors_pb2

SIZE = 16 * PAGE + REPLY_ROOMS * PAGE
HOSTILE = {
    "beyond the end": region(1, SIZE, 24),
    "over the end": region(1, SIZE - 16, 24),
    "wrapped around": region(1, 2**64 - 8, 24),
    "too long": region(1, 0, 2**64 - 1),
    "not aligned": region(1, 4, 24),
    "another segment": region(2, 0, 24),
    "no segment": region(0, 0, 24),
    "shorter than announced": region(1, 0, 16),
    "longer than announced": region(1, 0, 32),
}


WAYS = ("stream", "line")


@pytest.mark.parametrize("way", WAYS)
def test_a_client_of_the_protos_pushes_either_way(job: Any, way: str) -> None:
    job.go_live()
    attacker = Attacker(job.address, job.generation, way)
    push = {"has_push": True, "tensors": [WEIGHT], "pull_dense": True}
    attacker.memory.region(0, 24).view(np.float32)[:] = 1
    reply = attacker.send(sequence=1, bulk_region=region(1, 0, 24), **push)
    assert reply.header.outcome == gradients_pb2.OUTCOME_APPLIED
    ones = np.ones(6, np.float32).tobytes()
    reply = attacker.send(ones, sequence=2, reply_region=region(1, 16 * PAGE, PAGE), **push)
    assert reply.header.outcome == gradients_pb2.OUTCOME_APPLIED
    assert not reply.bulk
    assert (attacker.memory.region(16 * PAGE, 24).view(np.float32) == -1).all()  # 1 - 2
    attacker.close()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_region_that_is_not_the_senders_is_refused(job: Any, name: str, way: str) -> None:
    job.go_live()
    attacker = Attacker(job.address, job.generation, way)
    with pytest.raises(grpc.RpcError) as caught:
        attacker.send(sequence=1, has_push=True, tensors=[WEIGHT], bulk_region=HOSTILE[name])
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert job.host.read_lead(lambda node: node.shard.version) == 0
    attacker.close()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", [name for name in HOSTILE if "announced" not in name])
def test_a_reply_is_not_written_outside_the_senders_segment(job: Any, name: str, way: str) -> None:
    job.go_live()
    attacker = Attacker(job.address, job.generation, way)
    with pytest.raises(grpc.RpcError) as caught:
        attacker.send(
            sequence=1,
            has_push=True,
            tensors=[WEIGHT],
            bulk_region=region(1, 0, 24),
            reply_region=HOSTILE[name],
            pull_dense=True,
        )
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert job.host.read_lead(lambda node: node.shard.version) == 0  # before anything is changed
    attacker.close()


@pytest.mark.parametrize("way", WAYS)
def test_bulk_in_both_places_is_refused(job: Any, way: str) -> None:
    job.go_live()
    attacker = Attacker(job.address, job.generation, way)
    with pytest.raises(grpc.RpcError) as caught:
        attacker.send(
            bytes(24), sequence=1, has_push=True, tensors=[WEIGHT], bulk_region=region(1, 0, 24)
        )
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    attacker.close()


def test_a_stream_without_a_segment_has_no_regions(job: Any) -> None:
    job.go_live()
    for field in ("bulk_region", "reply_region"):
        header = gradients_pb2.ExchangeRequestHeader(
            generation=job.generation, task="worker:0", member=1, **{field: region(1, 0, 0)}
        )
        with grpc.insecure_channel(job.address) as channel:
            stub = gradients_pb2_grpc.GradientsStub(channel)
            replies = stub.Exchange(iter([gradients_pb2.ExchangeRequest(header=header)]))
            with pytest.raises(grpc.RpcError) as caught:
                next(replies)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_row_numbers_are_what_was_checked_whatever_the_client_writes_later() -> None:
    descriptor = create_descriptor(PAGE)
    memory = Segment(1, descriptor)
    os.close(descriptor)
    memory.region(0, 16).view(np.int64)[:] = [1, 2]
    tensor = tensors_pb2.Tensor(
        name="t",
        role=tensors_pb2.TENSOR_ROLE_PULL,
        dtype=tensors_pb2.DATA_TYPE_INT64,
        shape=[2],
    )
    header = gradients_pb2.ExchangeRequestHeader(tensors=[tensor], bulk_region=region(1, 0, 16))
    frame = gradients_pb2.ExchangeRequest(header=header).SerializeToString()
    incoming = codec.open_request(frame, iter(()))
    request = codec.decode_request(incoming, codec.lay_out_request(incoming, 1 << 20), memory)
    memory.region(0, 16).view(np.int64)[:] = 2**40
    assert request.pull_rows["t"].tolist() == [1, 2]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_reply_that_lies_elsewhere_is_refused(name: str) -> None:
    descriptor = create_descriptor(SIZE)
    memory = TrainerSegment(Segment(1, descriptor), 16 * PAGE, PAGE)
    os.close(descriptor)
    header = gradients_pb2.ExchangeResponseHeader(
        outcome=gradients_pb2.OUTCOME_NONE,
        grant=gradients_pb2.GRANT_NONE,
        tensors=[
            tensors_pb2.Tensor(
                name="w",
                role=tensors_pb2.TENSOR_ROLE_DENSE,
                dtype=tensors_pb2.DATA_TYPE_FLOAT32,
                shape=[2, 3],
            )
        ],
        bulk_region=HOSTILE[name],
    )
    frame = gradients_pb2.ExchangeResponse(header=header).SerializeToString()
    incoming = codec.open_reply(frame, iter(()), "ps:0")
    for known, room in ((memory, memory.reply_room()), (memory, None), (None, None)):
        with pytest.raises(ModelError, match="ps:0"):
            codec.decode_reply(incoming, 1 << 20, "ps:0", known, room)
