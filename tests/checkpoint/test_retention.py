from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from psys.checkpoint import (
    FileStorage,
    Manifest,
    Storage,
    delete,
    load_all,
    plan_deletions,
)


def manifest(step: int, wall_secs: float = 0.0, created: float | None = None) -> Manifest:
    when = float(step if created is None else created)
    return Manifest(f"{step:012x}", "j", "g", step, when, (), (), wall_secs=wall_secs)


def run(
    wall_secs: list[float],
    keep_max: int | None,
    hours: float | None,
    pinned: set[str] = frozenset(),
) -> list[int]:
    """Save, and delete what the plan says, one by one; return the steps that stayed."""
    kept: list[Manifest] = []
    for step, secs in enumerate(wall_secs):
        kept.append(manifest(step, secs))
        doomed = plan_deletions(kept, keep_max, hours, pinned)
        kept = [m for m in kept if m not in doomed]
    return [m.global_step for m in kept]


# tf.train.Saver(max_to_keep=...): each save deletes the oldest beyond the number.
@pytest.mark.parametrize(
    ("keep_max", "kept"), [(2, [2, 3]), (1, [3]), (9, [0, 1, 2, 3]), (0, [0, 1, 2, 3])]
)
def test_the_newest_keep_max_stay(keep_max: int, kept: list[int]) -> None:
    assert run([0, 0, 0, 0], keep_max, None) == kept


def test_none_keeps_all() -> None:
    assert plan_deletions([manifest(i) for i in range(9)], None) == []


# tf.train.Saver(max_to_keep=2, keep_checkpoint_every_n_hours=0.7 / 3600): saved once after the
# time is up, then thrice at once, the first stays for good and the second goes.
def test_one_saved_after_the_keep_time_stays_for_good() -> None:
    assert run([0.8, 0.81, 0.82, 0.83], 2, 0.7 / 3600) == [0, 2, 3]


def test_the_next_keep_time_is_n_hours_after_the_last() -> None:
    minutes = [0, 61, 70, 80, 119, 121, 130, 140, 150, 185, 186, 187]
    kept = run([60.0 * m for m in minutes], 2, 1.0)
    assert [minutes[step] for step in kept] == [61, 121, 185, 186, 187]


def test_a_restarted_chief_decides_the_same() -> None:
    saved = [manifest(step, wall_secs=1800.0 * step) for step in range(12)]
    stayed: list[Manifest] = []
    for one in saved:
        stayed.append(one)
        doomed = plan_deletions(stayed, 2, 1.0)
        stayed = [m for m in stayed if m not in doomed]
        assert plan_deletions(stayed, 2, 1.0) == []
    assert plan_deletions(saved, 2, 1.0) == [m for m in saved if m not in stayed]


def test_a_pinned_one_stays_until_it_is_unpinned() -> None:
    saved = [manifest(step) for step in range(4)]
    pinned = {saved[0].checkpoint_id}
    assert plan_deletions(saved, 2, None, pinned) == [saved[1]]
    assert plan_deletions(saved, 2, None, set()) == saved[:2]


def test_the_newest_is_by_step_whatever_the_order_given() -> None:
    saved = [manifest(3), manifest(1), manifest(2)]
    assert plan_deletions(saved, 1) == [saved[1], saved[2]]


def test_delete_leaves_nothing_and_reports_one_line(storage: Storage, save, caplog) -> None:
    gone = save(storage, step=1, checkpoint_id="a" * 12)
    stays = save(storage, step=2, checkpoint_id="b" * 12)
    with caplog.at_level(logging.INFO):
        delete(storage, gone)
    assert caplog.messages == [f"Deleted checkpoint {storage.path(gone.directory)}."]
    assert load_all(storage) == [stays]
    assert storage.list(gone.directory) == ()
    delete(storage, gone)


def test_the_directory_goes_too(tmp_path: Path, save) -> None:
    storage = FileStorage(tmp_path)
    gone = save(storage)
    delete(storage, gone)
    assert os.listdir(tmp_path / "checkpoints") == []


def test_the_manifest_goes_first(tmp_path: Path, save) -> None:
    removed: list[str] = []

    class Watched(FileStorage):
        def remove(self, name: str) -> None:
            removed.append(name)
            super().remove(name)

        def list(self, directory: str = "") -> tuple[str, ...]:
            return super().list(directory)[::-1]  # the order of names must not be what saves us

    storage = Watched(tmp_path)
    gone = save(storage, shards=2)
    delete(storage, gone)
    assert removed[0] == gone.name
    assert len(removed) == 3
