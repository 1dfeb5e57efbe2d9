from __future__ import annotations

import logging
from pathlib import Path

from psys.checkpoint import (
    FileStorage,
    Storage,
    find_latest_valid,
    latest_checkpoint,
    open_checkpoint,
)

A, B, C = "a" * 12, "b" * 12, "c" * 12


def test_no_checkpoint_is_none(storage: Storage) -> None:
    assert find_latest_valid(storage) is None


def test_the_newest_is_by_step_then_time(storage: Storage, save) -> None:
    save(storage, step=2, checkpoint_id=A, created_unix_secs=1.0)
    newest = save(storage, step=2, checkpoint_id=B, created_unix_secs=2.0)
    save(storage, step=1, checkpoint_id=C, created_unix_secs=3.0)
    assert find_latest_valid(storage) == newest


def test_a_bad_one_is_passed_over_reported_and_kept(storage: Storage, save, caplog) -> None:
    before = save(storage, step=1, checkpoint_id=A)
    bad = save(storage, step=2, checkpoint_id=B)
    name = f"{bad.directory}/{bad.shards[0].file}"
    data = storage.read(name)
    storage.write(name, data[:-1] + bytes([data[-1] ^ 1]))
    with caplog.at_level(logging.WARNING):
        assert find_latest_valid(storage) == before
    assert len(caplog.messages) == 1
    assert storage.path(bad.directory) in caplog.messages[0]
    assert "sha256" in caplog.messages[0]
    assert storage.exists(bad.name)


def test_latest_checkpoint_is_a_path_that_opens(tmp_path: Path, save) -> None:
    storage = FileStorage(tmp_path / "model")
    assert latest_checkpoint(tmp_path / "model") is None
    save(storage, step=1, checkpoint_id=A)
    save(storage, step=2, checkpoint_id=B, committed=False)
    path = latest_checkpoint(tmp_path / "model")
    assert path == str(tmp_path / "model" / "checkpoints" / f"model-0000000001-{A}")
    assert open_checkpoint(path).global_step == 1
