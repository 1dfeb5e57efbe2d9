"""Checkpoints where no disk is shared: kept by each ps, fetched by whoever cannot see them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from psys.arrays import VariableSpec
from psys.checkpoint.manifest import Manifest, ShardEntry, commit
from psys.checkpoint.reader import CheckpointReader
from psys.checkpoint.storage import FileStorage
from psys.errors import CheckpointCorrupt, CheckpointNotFound, Fenced, GenerationChanged
from psys.host import NodeHost
from psys.initializers import Constant, RandomUniform
from psys.optimizers import AdagradOptimizer
from psys.ps.loading import put_in_place
from psys.ps.messages import ShardFacts, ShardOrders, ShardPhase
from psys.ps.shard import LoadedSlice
from psys.ps.snapshot import Snapshot
from psys.rpc.remote_shard import RemoteShard
from psys.rpc.server import Server
from psys.train.shard_files import fetch_checkpoint, shard_writer

ID = "0123456789ab"
STEP = 7
CHIEF = 3
"""Its member number."""
SPEC = VariableSpec("w", (5, 2), "float32", Constant(0.0))
VALUE = np.arange(10, dtype=np.float32).reshape(5, 2)
ROWS = ((0, 3), (3, 5))


@dataclass
class Ps:
    host: NodeHost
    server: Server
    storage: FileStorage
    address: str
    shard: RemoteShard


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def ps(tmp_path: Path) -> Iterator[list[Ps]]:
    """Two ps with a disk of their own, each with its shard file of one save."""
    started = []
    for index in range(2):
        directory = tmp_path / f"ps{index}"
        host = NodeHost(index, shard_writer(str(directory), 2))
        host.obey(ShardOrders(generation="g", phase=ShardPhase.LOADING, chief=CHIEF))
        address, storage = free_address(), FileStorage(directory)
        server = Server(host, storage, address, tasks=2, token=None)
        started.append(Ps(host, server, storage, address, RemoteShard(index, address)))
    yield started
    for one in started:
        one.shard.close()
        one.server.stop()
        one.host.close()


def save(ps: list[Ps]) -> Manifest:
    entries = []
    for index, (one, (start, stop)) in enumerate(zip(ps, ROWS, strict=True)):
        sent = [LoadedSlice(SPEC, start, stop, value=VALUE[start:stop])]
        state = put_in_place(sent)["w"]
        write = shard_writer(one.storage.root, 2)
        file = write(Snapshot(ID, "g", index, STEP, {"chief": (1, STEP)}, (state.cut(),)))
        entries.append(ShardEntry(file.name, file.size_bytes, file.sha256, (("w", start, stop),)))
    return Manifest(ID, "job", "g", STEP, 1.0, (SPEC,), tuple(entries), cut={"chief": (1, STEP)})


def test_a_shard_file_is_the_same_whether_or_not_tables_are_a_stack(tmp_path: Path) -> None:
    adagrad = AdagradOptimizer(0.5).to_config()
    files = []
    for stack in ("", "s"):
        sent = [LoadedSlice(SPEC, 0, 5)]
        for name, start, stop in (("z", 0, 4), ("a", 1, 3), ("none", 2, 2)):
            spec = VariableSpec(name, (4, 2), "float32", RandomUniform(), adagrad, True, stack)
            sent.append(LoadedSlice(spec, start, stop, seed=3))
        states = put_in_place(sent)
        assert len(states) == (2 if stack else 4)
        cuts = tuple(state.cut() for state in states.values())
        file = shard_writer(str(tmp_path / f"of {stack}"), 1)(
            Snapshot(ID, "g", 0, STEP, {"chief": (1, STEP)}, cuts)
        )
        (path,) = (tmp_path / f"of {stack}").rglob(file.name)
        assert path.stat().st_size == file.size_bytes
        files.append(path.read_bytes())
    assert files[0] == files[1]


def keep(ps: list[Ps], manifest: Manifest) -> None:
    for one in ps:
        one.shard.keep_manifest("g", CHIEF, manifest.to_json())


def addresses(ps: list[Ps]) -> tuple[str, ...]:
    return tuple(one.address for one in ps)


def test_a_kept_checkpoint_is_fetched_whole(ps: list[Ps], tmp_path: Path) -> None:
    manifest = save(ps)
    keep(ps, manifest)
    here = FileStorage(tmp_path / "here")
    assert fetch_checkpoint(here, STEP, ID, addresses(ps), None) == manifest
    reader = CheckpointReader(here, manifest)
    reader.verify()
    np.testing.assert_array_equal(reader.read("w"), VALUE)


def test_a_manifest_kept_twice_or_on_a_shared_disk_is_no_error(ps: list[Ps]) -> None:
    manifest = save(ps)
    commit(ps[0].storage, manifest)  # as the chief does where it sees the same disk
    keep(ps, manifest)
    keep(ps, manifest)
    assert all(one.storage.exists(manifest.name) for one in ps)


def test_a_ps_tells_the_lead_of_the_newest_it_keeps(ps: list[Ps]) -> None:
    heard: list[ShardFacts] = []
    ps[0].host.listen_to_facts(heard.append)
    assert (heard[-1].newest_step, heard[-1].newest_checkpoint) == (0, "")
    keep(ps, save(ps))
    assert (heard[-1].newest_step, heard[-1].newest_checkpoint) == (STEP, ID)


def test_files_are_changed_only_for_the_generation_that_is_held(ps: list[Ps]) -> None:
    manifest = save(ps)
    with pytest.raises(GenerationChanged, match="holds generation g"):
        ps[0].shard.keep_manifest("another", CHIEF, manifest.to_json())
    keep(ps, manifest)
    with pytest.raises(GenerationChanged):
        ps[0].shard.delete_checkpoint("another", CHIEF, STEP, ID)
    assert ps[0].storage.exists(manifest.name)


def test_files_are_changed_only_by_the_chief_of_today(ps: list[Ps]) -> None:
    manifest = save(ps)
    keep(ps, manifest)
    for number in (0, CHIEF - 1, CHIEF + 1):
        with pytest.raises(Fenced, match="is not the chief's"):
            ps[0].shard.keep_manifest("g", number, manifest.to_json())
        with pytest.raises(Fenced, match="is not the chief's"):
            ps[0].shard.delete_checkpoint("g", number, STEP, ID)
    assert ps[0].storage.exists(manifest.name)


def test_a_deleted_checkpoint_leaves_nothing_on_a_ps(ps: list[Ps]) -> None:
    manifest = save(ps)
    keep(ps, manifest)
    for _ in range(2):  # the second time it is gone already
        ps[0].shard.delete_checkpoint("g", CHIEF, STEP, ID)
    assert not ps[0].storage.list(manifest.directory)


def test_nobody_keeps_it(ps: list[Ps], tmp_path: Path) -> None:
    save(ps)
    with pytest.raises(CheckpointNotFound, match=f"No ps keeps the manifest of checkpoint {ID}"):
        fetch_checkpoint(FileStorage(tmp_path / "here"), STEP, ID, addresses(ps), None)


def test_a_lost_shard_file_is_named_and_nothing_is_committed(ps: list[Ps], tmp_path: Path) -> None:
    manifest = save(ps)
    keep(ps, manifest)
    ps[1].storage.remove(f"{manifest.directory}/{manifest.shards[1].file}")
    here = FileStorage(tmp_path / "here")
    with pytest.raises(CheckpointNotFound, match=manifest.shards[1].file):
        fetch_checkpoint(here, STEP, ID, addresses(ps), None)
    assert not here.exists(manifest.name)


def test_a_spoilt_shard_file_is_refused(ps: list[Ps], tmp_path: Path) -> None:
    manifest = save(ps)
    keep(ps, manifest)
    path = Path(ps[0].storage.path(f"{manifest.directory}/{manifest.shards[0].file}"))
    spoilt = bytearray(path.read_bytes())
    spoilt[-1] ^= 1
    path.write_bytes(bytes(spoilt))
    here = FileStorage(tmp_path / "here")
    with pytest.raises(CheckpointCorrupt, match="does not match its hash"):
        fetch_checkpoint(here, STEP, ID, addresses(ps), None)
    assert not here.exists(manifest.name)
