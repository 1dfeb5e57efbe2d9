"""Shared memory is used where a host is shared, and elsewhere nothing changes."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exchanging import PAGE, ROWS, G, exchange, push, shared

from psys.arrays import VariableSpec
from psys.initializers import Constant
from psys.optimizers import GradientDescentOptimizer
from psys.ps.messages import ExchangeReply, ExchangeRequest, Outcome
from psys.rpc import codec, handover, stream_memory
from psys.rpc.frames import lay_out
from psys.rpc.handover import Handover
from psys.rpc.segment import (
    Room,
    Segment,
    create_descriptor,
)


def test_the_bulk_of_a_large_exchange_lies_in_memory_both_have(
    ps: Any, connect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "psys")
    shard = connect(ps.address)
    first = exchange(shard, push(1))
    assert not shared()
    for sequence in (2, 3, 4):
        reply = exchange(shard, push(sequence))
        assert reply.dense["weight"].tolist()[:: ROWS // 2] == [-sequence] * 2
    assert shared()
    assert shared(ps.process.pid)
    memory = shard._memory.segment.request.segment.region(0, 1)
    at = (
        reply.dense["weight"].__array_interface__["data"][0] - memory.__array_interface__["data"][0]
    )
    assert 0 < at < shard._memory.segment.request.segment.size
    assert first.dense["weight"][0] == -1
    assert [one.message for one in caplog.records if "ps:0" in one.message] == [
        "ps:0: shared memory."
    ]


def test_the_bulk_of_small_exchanges_lies_in_their_frames(small_ps: Any, connect: Any) -> None:
    shard = connect(small_ps(G).address)
    for sequence in (1, 2, 3):
        exchange(shard, push(sequence, np.ones(3, np.float32)))
    memory = shard._memory.segment
    assert memory.line is not None  # which is what they have a segment for
    assert memory.request.segment.size == 4 * PAGE
    assert not memory.request.segment.region(0, 4 * PAGE).any()


def test_elsewhere_the_same_exchange_goes_over_grpc_and_says_so_once(
    ps: Any, connect: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "psys")
    monkeypatch.setattr(handover, "_abstract", lambda name: f"\0elsewhere-{name}")
    shard = connect(ps.address)
    for sequence in (1, 2, 3):
        reply = exchange(shard, push(sequence))
    assert reply.dense["weight"][0] == -3
    assert not shared()
    assert [one.message for one in caplog.records if "ps:0" in one.message] == [
        "ps:0: gRPC (not met on this host)."
    ]


@pytest.mark.parametrize("side", ["ps", "trainer"])
def test_either_side_may_refuse_it(
    small_ps: Any, connect: Any, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    wish = {"PSYS_SHM_DIR": "none"}
    ps = small_ps(G, rows=ROWS, **(wish if side == "ps" else {}))
    if side == "trainer":
        monkeypatch.setenv(*next(iter(wish.items())))
    shard = connect(ps.address)
    for sequence in (1, 2, 3):
        exchange(shard, push(sequence))
    assert not shared()
    assert shard._memory.line is None
    assert shard._incoming is shard._call


def test_containers_meet_in_a_directory(
    small_ps: Any, connect: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place = tmp_path / "meet"
    ps = small_ps(G, rows=ROWS, PSYS_SHM_DIR=str(place))
    (name,) = place.iterdir()
    assert name.stat().st_mode & 0o777 == 0o600
    assert place.stat().st_mode & 0o777 == 0o700
    # An abstract socket is of one network namespace: what another container sees is this.
    monkeypatch.setattr(handover, "_abstract", lambda name: f"\0elsewhere-{name}")
    monkeypatch.setenv("PSYS_SHM_DIR", str(place))
    shard = connect(ps.address)
    for sequence in (1, 2):
        exchange(shard, push(sequence))
    assert shared()
    assert shard._incoming is shard._incoming_by_line


def test_the_socket_of_a_killed_ps_is_removed_by_the_next_and_no_other(tmp_path: Path) -> None:
    abandoned = tmp_path / "psys-000000000000.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(abandoned))
        dead.listen()
    first = Handover(str(tmp_path))
    (mine,) = tmp_path.iterdir()
    assert mine != abandoned
    second = Handover(str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 2
    second.close()
    assert list(tmp_path.iterdir()) == [mine]
    first.close()
    assert not list(tmp_path.iterdir())


def test_a_file_that_only_has_the_name_of_a_socket_stays(tmp_path: Path) -> None:
    mine, abandoned = tmp_path / "psys-notes.sock", tmp_path / "psys-000000000000.sock"
    mine.write_text("not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(abandoned))
    Handover(str(tmp_path)).close()
    assert list(tmp_path.iterdir()) == [mine]
    assert mine.read_text() == "not a socket"


def test_a_directory_that_cannot_be_had_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    one = Handover(str(tmp_path / "file" / "meet"))
    with one.stream() as ticket:
        assert ticket is not None
    one.close()


def test_a_segment_grows_with_the_messages_and_what_is_held_stays(job: Any, connect: Any) -> None:
    sgd = GradientDescentOptimizer(1.0).to_config()
    table = VariableSpec("table", (ROWS, 4), "float32", Constant(1.0), sgd, sparse=True)
    job.go_live([table])
    shard = connect(job.address)

    def pull(rows: int) -> Any:
        wanted = {"table": np.arange(rows, dtype=np.int64)}
        request = ExchangeRequest(job.generation, "chief", 1, 0, 0, None, False, wanted, False)
        return exchange(shard, request).rows["table"]

    held, sizes = [], []
    for rows in (4000, 4000, 20_000, 20_000, 20_001, ROWS, ROWS, 10):
        held.append(pull(rows))
        sizes.append(shard._memory.segment and shard._memory.segment.request.segment.size)
    assert sizes[0] is None
    assert sizes[1] < sizes[3] == sizes[4] < sizes[6] == sizes[7]
    assert [len(one) for one in held] == [4000, 4000, 20_000, 20_000, 20_001, ROWS, ROWS, 10]
    assert all((one == 1).all() for one in held)


def test_a_message_beyond_the_limit_travels_in_frames_and_the_others_do_not(
    job: Any, connect: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stream_memory, "SEGMENT_LIMIT_BYTES", 1 << 20)
    sgd = GradientDescentOptimizer(1.0).to_config()
    job.go_live([VariableSpec("table", (ROWS, 4), "float32", Constant(1.0), sgd, sparse=True)])
    shard = connect(job.address)
    caplog.set_level(logging.INFO, "psys")
    for rows in (20_000, 4000, 4000, ROWS, ROWS, 4000):
        wanted = {"table": np.arange(rows, dtype=np.int64)}
        request = ExchangeRequest(job.generation, "chief", 1, 0, 0, None, False, wanted, False)
        assert len(exchange(shard, request).rows["table"]) == rows
    assert shard._memory.segment.request.segment.size <= 1 << 20
    assert len([one for one in caplog.messages if "do not fit the 1 MiB" in one]) == 1


def test_arrays_of_any_shape_lie_in_their_room() -> None:
    descriptor = create_descriptor(4 * PAGE)
    room = Room(Segment(1, descriptor), PAGE, 2 * PAGE)
    os.close(descriptor)
    shapes = [(3,), (0, 4), (5, 2), ()]
    dense = {f"v{i}": np.full(one, i + 1, np.float32) for i, one in enumerate(shapes)}
    dense["turned"] = np.full((3, 2), 5, np.float32).T
    frames = codec.encode_reply(ExchangeReply(G, 0, Outcome.NONE, dense=dense), room)
    incoming = codec.open_reply(next(frames), frames, "ps:0")
    assert not len(incoming.piece)
    bulk = room.bytes(incoming.header.bulk_region.length_bytes)
    layout = lay_out(incoming.header.tensors, PAGE, "ps:0")
    for number, (name, _, array) in enumerate(layout.arrays(bulk), 1):
        assert array.shape == dense[name].shape
        assert (array == number).all()
