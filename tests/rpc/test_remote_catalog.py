"""The catalogue from afar: list then changes then the verdict; files by id and index alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import grpc
import pytest

from psys.checkpoint import checkpoint_dir, shard_file_name
from psys.checkpoint.storage import MemoryStorage
from psys.errors import CheckpointNotFound, GenerationChanged, ModelError, PsysError
from psys.errors import ShardUnavailable as Unavailable
from psys.ps.messages import CheckpointEntry, Verdict
from psys.rpc.remote_catalog import (
    list_checkpoints,
    read_manifest,
    read_shard_file,
    watch_checkpoints,
)
from psys.rpc.remote_shard import RemoteShard
from psys.rpc.server import Server
from psys.rpc.v1 import checkpoints_pb2, checkpoints_pb2_grpc

FIRST = CheckpointEntry("111111111111", 10, "/m/1")
SECOND = CheckpointEntry("222222222222", 20, "/m/2")
ID = "aaaaaaaaaaaa"
FILE = f"{checkpoint_dir(7, ID)}/{shard_file_name(0, 2)}"


def told(watch: Iterator[Any]) -> Any:
    """Return the next event that is one."""
    return next(event for event in watch if event is not None)


# ---------------------------------------------------------------- list and watch


def test_list_returns_what_there_is(job: Any) -> None:
    job.chief.begin()
    assert list_checkpoints(job.address) == []
    job.commit(FIRST, SECOND)
    assert list_checkpoints(job.address) == [FIRST, SECOND]


def test_watch_lists_then_tells_changes_then_the_verdict(job: Any) -> None:
    job.chief.begin()
    job.commit(FIRST)
    watch = watch_checkpoints(job.address)
    assert told(watch) == FIRST
    job.commit(FIRST, SECOND)
    assert told(watch) == SECOND
    job.commit(SECOND)  # one fewer is no event
    final = replace(SECOND, final=True)
    job.commit(final)
    assert told(watch) == final
    verdict = Verdict(True, global_step=20, checkpoint="/m/2", export="/e", evaluated=True)
    job.update_chief(conclusion=verdict)
    assert told(watch) == verdict
    assert list(watch) == []


def test_who_comes_after_the_verdict_hears_everything(job: Any) -> None:
    job.chief.begin()
    job.commit(FIRST)
    job.host.fail("why")
    events = list(watch_checkpoints(job.address))
    assert events[0] == FIRST
    assert isinstance(events[1], Verdict)
    assert (events[1].finished, events[1].reason) == (False, "why")


def test_a_watch_that_broke_is_opened_again_and_nothing_is_lost(job: Any) -> None:
    job.chief.begin()
    job.commit(FIRST)
    watch = watch_checkpoints(job.address)
    assert told(watch) == FIRST
    job.server.stop(0.0)
    with pytest.raises(Unavailable):
        told(watch)
    job.commit(FIRST, SECOND)
    server = Server(job.host, MemoryStorage(), job.address, 2, None)
    try:
        events: list[Any] = []
        watch = watch_checkpoints(job.address)
        while not events:
            event = told(watch)
            if event != FIRST:
                events.append(event)
        assert events == [SECOND]
    finally:
        server.stop(0.0)


def test_a_watch_of_a_host_that_closes_ends_without_a_verdict(job: Any) -> None:
    job.chief.begin()
    job.commit(FIRST)
    watch = watch_checkpoints(job.address)
    assert told(watch) == FIRST
    job.host.close()
    with pytest.raises(Unavailable):
        told(watch)


def test_nobody_there_is_said(job: Any) -> None:
    job.server.stop(0.0)
    with pytest.raises(Unavailable, match=job.address):
        list_checkpoints(job.address)
    with pytest.raises(Unavailable, match=job.address):
        next(watch_checkpoints(job.address))


# ---------------------------------------------------------------- files


def test_a_file_comes_in_pieces_and_whole(job: Any) -> None:
    data = bytes(range(256)) * (3 << 12) + b"the end"
    job.storage.write_once(FILE, data)
    pieces = list(read_shard_file(job.address, ID, 7, 0, 2))
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) <= 1 << 20


def test_a_file_that_is_not_there_is_not_found(job: Any) -> None:
    job.storage.write_once(FILE, b"data")
    for arguments in ((ID, 8, 0, 2), (ID, 7, 1, 2), ("bbbbbbbbbbbb", 7, 0, 2)):
        with pytest.raises(CheckpointNotFound):
            list(read_shard_file(job.address, *arguments))
    with pytest.raises(CheckpointNotFound):
        read_manifest(job.address, 7, ID)


ODD_IDS = [
    "",
    "../../../etc",
    "AAAAAAAAAAAA",
    "aaaaaaaaaaa",
    "aaaaaaaaaaaaa",
    "aaaaaaaaaaa/",
    "é" * 12,
]


@pytest.mark.parametrize("checkpoint_id", ODD_IDS)
def test_an_id_that_is_none_is_refused(job: Any, checkpoint_id: str) -> None:
    with pytest.raises(ModelError, match="12 hex digits"):
        list(read_shard_file(job.address, checkpoint_id, 7, 0, 2))
    with pytest.raises(ModelError, match="12 hex digits"):
        read_manifest(job.address, 7, checkpoint_id)


@pytest.mark.parametrize(("index", "count"), [(2, 2), (0, 0), (2**32 - 1, 1)])
def test_an_index_that_is_none_is_refused(job: Any, index: int, count: int) -> None:
    with pytest.raises(ModelError, match="There is no shard"):
        list(read_shard_file(job.address, ID, 7, index, count))


# ---------------------------------------------------------------- what only the chief does

ODD_MANIFEST = json.dumps(
    {
        "version": 1,
        "checkpoint_id": "../../../../tmp",
        "job_id": "",
        "generation": "",
        "global_step": 1,
        "created_unix_secs": 0,
        "variables": [],
        "shards": [],
        "cut": {},
        "torn": [],
        "final": False,
        "evaluator_expected": False,
    }
)


@pytest.fixture
def shard(job: Any) -> Iterator[RemoteShard]:
    job.go_live()
    shard = RemoteShard(0, job.address)
    yield shard
    shard.close()


@pytest.mark.parametrize("generation", ["", "bbbbbbbbbbbb"])
def test_another_generations_chief_neither_keeps_nor_deletes(
    job: Any, shard: RemoteShard, generation: str
) -> None:
    job.storage.write_once(FILE, b"data")
    with pytest.raises(GenerationChanged):
        shard.keep_manifest(generation, job.member, "{}")
    with pytest.raises(GenerationChanged):
        shard.delete_checkpoint(generation, job.member, 7, ID)
    assert job.storage.exists(FILE)


@pytest.mark.parametrize("checkpoint_id", ODD_IDS)
def test_no_id_that_is_none_deletes_anything(
    job: Any, shard: RemoteShard, checkpoint_id: str
) -> None:
    job.storage.write_once(FILE, b"data")
    with pytest.raises(ModelError):
        shard.delete_checkpoint(job.generation, job.member, 7, checkpoint_id)
    assert job.storage.exists(FILE)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"version": 1}',
        ODD_MANIFEST,
    ],
    ids=["empty", "list", "keys missing", "a path for an id"],
)
def test_a_manifest_that_is_none_is_not_kept(job: Any, shard: RemoteShard, text: str) -> None:
    with pytest.raises(PsysError):
        shard.keep_manifest(job.generation, job.member, text)
    assert job.storage.list() == ()


def test_a_message_beyond_grpcs_default_limit_arrives(job: Any) -> None:
    name = f"{checkpoint_dir(7, ID)}/manifest.json"
    text = "x" * (6 << 20)
    job.storage.write_once(name, text.encode())
    assert read_manifest(job.address, 7, ID) == text


def test_a_stock_client_can_watch(job: Any) -> None:
    job.chief.begin()
    job.commit(FIRST)
    with grpc.insecure_channel(job.address) as channel:
        stub = checkpoints_pb2_grpc.CheckpointsStub(channel)
        watch = stub.WatchCheckpoints(checkpoints_pb2.WatchCheckpointsRequest())
        assert next(watch).committed.checkpoint_id == FIRST.checkpoint_id
        watch.cancel()
