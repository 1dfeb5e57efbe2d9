"""Processes killed at the named points of a commit: a checkpoint is whole or not there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from psys.checkpoint import (
    FileStorage,
    delete,
    find_latest_valid,
    load_all,
    shard_file_name,
)

SAVE_AND_DIE = """
import os, sys
import numpy as np
from psys.arrays import VariableSpec
from psys.checkpoint import *
from psys.initializers import Constant

root, step, checkpoint_id, deadly = sys.argv[1:]

def fault(point):
    if point == deadly:
        os._exit(9)

storage, directory = FileStorage(root), checkpoint_dir(int(step), checkpoint_id)
entries = []
for index in range(2):
    slices = [["w", index, index + 1]]
    metadata = {"checkpoint_id": checkpoint_id, "slices": slices, "cut": {}}
    file = shard_file_name(index, 2)
    # The first shard is written; the second meets the fault.
    at = fault if index else no_fault
    values = {"w": np.full((1, 1000), float(step), np.float32)}
    info = write_shard(storage, f"{directory}/{file}", values, metadata, at)
    entries.append(ShardEntry(file, info.bytes, info.sha256, (("w", index, index + 1),)))
spec = VariableSpec("w", (2, 1000), "float32", Constant())
commit(storage, Manifest(checkpoint_id, "j", "g", int(step), 0.0, (spec,), tuple(entries)), fault)
"""


def save(root: Path, step: int, checkpoint_id: str, deadly: str = "") -> int:
    command = [sys.executable, "-c", SAVE_AND_DIE, str(root), str(step), checkpoint_id, deadly]
    return subprocess.run(command, check=False, timeout=60).returncode


@pytest.mark.parametrize("deadly", ["before_rename", "before_manifest"])
def test_killed_before_the_commit_there_is_no_checkpoint(tmp_path: Path, deadly: str) -> None:
    storage = FileStorage(tmp_path)
    assert save(tmp_path, 1, "a" * 12, deadly) == 9
    files = [os.path.basename(name) for name in storage.list("checkpoints")]
    written = 1 if deadly == "before_rename" else 2
    assert files == [shard_file_name(index, 2) for index in range(written)]
    assert load_all(storage) == []
    assert find_latest_valid(storage) is None


@pytest.mark.parametrize("deadly", ["before_rename", "before_manifest"])
def test_killed_before_the_commit_the_former_is_the_latest(tmp_path: Path, deadly: str) -> None:
    storage = FileStorage(tmp_path)
    assert save(tmp_path, 1, "a" * 12) == 0
    assert save(tmp_path, 2, "b" * 12, deadly) == 9
    former = find_latest_valid(storage)
    assert former is not None
    assert former.checkpoint_id == "a" * 12

    # Tried again under a new id, at the same step: the dead attempt's files are no hindrance.
    assert save(tmp_path, 2, "c" * 12) == 0
    latest = find_latest_valid(storage)
    assert latest is not None
    assert latest.checkpoint_id == "c" * 12

    delete(storage, former)
    assert load_all(storage) == [latest]
