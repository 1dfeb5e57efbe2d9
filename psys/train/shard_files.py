"""Shard files on their way: written by each ps, fetched by whoever cannot see them.

Whether a file system is shared is not configured: a shard file's directory carries the save's
random id, so seeing the file is the proof.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable

from psys.checkpoint.manifest import Manifest, checkpoint_dir, commit, shard_file_name
from psys.checkpoint.shard_file import write_shard
from psys.checkpoint.storage import FileStorage
from psys.errors import (
    CheckpointCorrupt,
    CheckpointError,
    CheckpointNotFound,
    ClusterError,
    ShardUnavailable,
)
from psys.ps.messages import ShardFile
from psys.ps.snapshot import Snapshot
from psys.rpc.remote_catalog import read_manifest, read_shard_file

logger = logging.getLogger("psys")


def shard_writer(model_dir: str, shard_count: int) -> Callable[[Snapshot], ShardFile]:
    """Return what writes a cut of one of ``shard_count`` shards below ``model_dir``."""
    storage = FileStorage(model_dir)

    def write(snapshot: Snapshot) -> ShardFile:
        directory = checkpoint_dir(snapshot.global_step, snapshot.save)
        name = shard_file_name(snapshot.index, shard_count)
        cut = {task: list(key) for task, key in snapshot.cut.items()}
        parts = snapshot.parts()
        info = write_shard(
            storage,
            f"{directory}/{name}",
            snapshot.tensors(),
            {
                "checkpoint_id": snapshot.save,
                "generation": snapshot.generation,
                "shard": snapshot.index,
                "slices": [[part.spec.name, part.start, part.stop] for part, _ in parts],
                "scalars": {part.spec.name: one.scalars for part, one in parts if one.scalars},
                "cut": cut,
            },
        )
        return ShardFile(name, info.bytes, info.sha256)

    return write


def fetch_checkpoint(
    storage: FileStorage,
    global_step: int,
    checkpoint_id: str,
    addresses: tuple[str, ...],
    token: str | None,
) -> Manifest:
    """Bring a checkpoint that the ps keep into ``storage``, shard files first; return it.

    Raises:
        CheckpointNotFound: if no ps keeps its manifest, or one has not its shard file.
        CheckpointCorrupt: if what came does not match its hash.
        ShardUnavailable: if a ps that is needed cannot be reached.
    """
    failure: Exception | None = None
    for address in addresses:
        try:
            text = read_manifest(address, global_step, checkpoint_id, token)
        except (CheckpointError, ClusterError) as error:
            failure = error
            continue
        manifest = Manifest.from_json(text, f"the manifest from {address}")
        if (manifest.global_step, manifest.checkpoint_id) != (global_step, checkpoint_id):
            raise CheckpointCorrupt(f"{address} sent the manifest of another checkpoint.")
        fetch_missing(storage, manifest, addresses, token)
        commit(storage, manifest)
        return manifest
    if isinstance(failure, ShardUnavailable):
        raise failure
    raise CheckpointNotFound(
        f"No ps keeps the manifest of checkpoint {checkpoint_id} (step {global_step})."
    ) from failure


def fetch_missing(
    storage: FileStorage, manifest: Manifest, addresses: tuple[str, ...], token: str | None
) -> None:
    """Stream into ``storage`` the shard files of ``manifest`` that are not there.

    Raises:
        CheckpointNotFound: if a file is missing and there is nobody to fetch it from.
        CheckpointCorrupt: if what came does not match its hash.
        ShardUnavailable: if the ps that has it cannot be reached.
    """
    count = len(manifest.shards)
    for index, shard in enumerate(manifest.shards):
        name = f"{manifest.directory}/{shard.file}"
        if storage.exists(name) and storage.size(name) == shard.bytes:
            continue
        if index >= len(addresses):
            raise CheckpointNotFound(f"{storage.path(name)} is missing.")
        logger.debug("Fetching %s from ps:%d.", shard.file, index)

        def fill(path: str, index: int = index, name: str = name) -> None:
            expected = manifest.shards[index].sha256
            digest = hashlib.sha256()
            with open(path, "wb") as file:
                for piece in read_shard_file(
                    addresses[index],
                    manifest.checkpoint_id,
                    manifest.global_step,
                    index,
                    count,
                    token,
                ):
                    file.write(piece)
                    digest.update(piece)
            if digest.hexdigest() != expected:
                raise CheckpointCorrupt(f"{name} from ps:{index} does not match its hash.")

        storage.write_file(name, fill)
