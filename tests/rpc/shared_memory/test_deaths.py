"""Whichever side dies, the shared memory goes with it."""

from __future__ import annotations

import os
from typing import Any

import pytest
from exchanging import exchange, push, shared, until

from psys.errors import ShardUnavailable
from psys.ps.messages import Outcome
from psys.rpc.remote_shard import RemoteShard


def test_a_killed_trainer_leaves_nothing(ps: Any, small_trainer: Any) -> None:
    before = set(os.listdir("/dev/shm"))
    trainer = small_trainer(ps.address)
    assert shared(ps.process.pid)
    trainer.kill()
    until(lambda: not shared(ps.process.pid))
    assert set(os.listdir("/dev/shm")) == before


def test_a_killed_ps_leaves_nothing_but_what_is_held(ps: Any, connect: Any) -> None:
    before = set(os.listdir("/dev/shm"))
    shard = connect(ps.address)
    for sequence in (1, 2):
        reply = exchange(shard, push(sequence))
    ps.kill()
    with pytest.raises(ShardUnavailable):
        exchange(shard, push(3))
    assert shared()  # the values of the last reply, which the trainer still has
    assert (reply.dense["weight"] == -2).all()
    del reply
    assert not shared()
    assert set(os.listdir("/dev/shm")) == before


def test_many_streams_leave_no_descriptors(ps: Any) -> None:
    def descriptors() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), len(os.listdir(f"/proc/{ps.process.pid}/fd"))

    sequence, counts = 0, []
    for _ in range(12):
        shard = RemoteShard(0, ps.address)
        for _ in range(2):
            sequence += 1
            exchange(shard, push(sequence))
        shard.close()
        until(lambda: not shared(ps.process.pid))
        counts.append(descriptors())
    assert not shared()
    # What gRPC keeps for its connections varies; a leak would be one for each of nine streams.
    assert counts[-1][0] < counts[2][0] + 9
    assert counts[-1][1] < counts[2][1] + 9


def test_after_a_broken_stream_the_segment_is_a_new_one(ps: Any, connect: Any) -> None:
    shard = connect(ps.address)
    for sequence in (1, 2):
        exchange(shard, push(sequence))
    old = shard._memory.segment
    shard.begin_exchange(push(3))
    shard.begin_exchange(push(3))  # given up, and begun again
    assert shard._memory.segment is None
    assert shard.finish_exchange().outcome in (Outcome.APPLIED, Outcome.DUPLICATE)
    reply = exchange(shard, push(4))
    assert shard._memory.segment is not None
    assert shard._memory.segment.request.segment is not old.request.segment
    assert (reply.dense["weight"] == -4).all()
