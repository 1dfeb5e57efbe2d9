"""Checkpoints: one consistent cut of a model, on disk, whole or not there at all.

``manifest.py`` states the commit protocol; read it first. Each ps writes a shard file
(``write_shard``), then the chief commits (``commit``). ``CheckpointReader`` gives variables, rows
and slices back to any number of ps. Nothing in this package knows gRPC, threads or optimizers.
"""

from psys.checkpoint.catalog import find_latest_valid, latest_checkpoint, open_checkpoint
from psys.checkpoint.manifest import (
    CHECKPOINTS,
    MANIFEST,
    Manifest,
    ShardEntry,
    checkpoint_dir,
    commit,
    load,
    load_all,
    shard_file_name,
)
from psys.checkpoint.reader import CheckpointReader, ModelReader, SliceState
from psys.checkpoint.retention import delete, plan_deletions
from psys.checkpoint.shard_file import FileInfo, ShardReader, write_shard
from psys.checkpoint.storage import Fault, FileStorage, MemoryStorage, Storage, no_fault

__all__ = [
    "CHECKPOINTS",
    "MANIFEST",
    "CheckpointReader",
    "Fault",
    "FileInfo",
    "FileStorage",
    "Manifest",
    "MemoryStorage",
    "ModelReader",
    "ShardEntry",
    "ShardReader",
    "SliceState",
    "Storage",
    "checkpoint_dir",
    "commit",
    "delete",
    "find_latest_valid",
    "latest_checkpoint",
    "load",
    "load_all",
    "no_fault",
    "open_checkpoint",
    "plan_deletions",
    "shard_file_name",
    "write_shard",
]
