from __future__ import annotations

import dataclasses
import json
import logging

import pytest

from psys.arrays import VariableSpec
from psys.checkpoint import (
    Manifest,
    MemoryStorage,
    ShardEntry,
    Storage,
    checkpoint_dir,
    commit,
    load,
    load_all,
    shard_file_name,
)
from psys.errors import CheckpointCorrupt, CheckpointError
from psys.initializers import Constant


def test_names_are_built_from_checked_parts() -> None:
    assert checkpoint_dir(42, "00ff00ff00ff") == "checkpoints/model-0000000042-00ff00ff00ff"
    assert shard_file_name(1, 3) == "shard-00001-of-00003.safetensors"


@pytest.mark.parametrize(
    ("step", "checkpoint_id"),
    [(-1, "0" * 12), (0, "../../../etc"), (0, "0" * 11), (0, "0" * 13), (0, "A" * 12), (0, "")],
)
def test_an_id_from_the_wire_does_not_reach_a_path_unchecked(step: int, checkpoint_id: str) -> None:
    with pytest.raises(CheckpointError, match="12 hex digits"):
        checkpoint_dir(step, checkpoint_id)


def test_there_is_no_shard_beyond_the_count() -> None:
    for index, count in ((-1, 2), (2, 2), (0, 0)):
        with pytest.raises(CheckpointError):
            shard_file_name(index, count)


def test_a_manifest_comes_back_from_its_text(save) -> None:
    manifest = save(
        MemoryStorage(),
        final=True,
        evaluator_expected=True,
        torn=("worker:1",),
        wall_secs=12.5,
        examples=3200,
        input_positions={"chief:0": {"epoch": 1}},
    )
    assert Manifest.from_json(manifest.to_json(), "here") == manifest


def test_a_manifest_that_was_read_has_the_text_it_was_written_with(save) -> None:
    """The chief sends its text to every ps, which must come to the very same file."""
    written = save(MemoryStorage())
    stacked = tuple(
        dataclasses.replace(one, sparse=True, stack="stack:a") for one in written.variables
    )
    text = dataclasses.replace(written, variables=stacked).to_json()
    assert Manifest.from_json(text, "here").to_json() == text


def test_keys_of_a_later_psys_are_ignored_and_added_ones_have_defaults(save) -> None:
    manifest = save(MemoryStorage())
    document = json.loads(manifest.to_json())
    document["from_the_future"] = 1
    document["variables"][0]["from_the_future"] = 1
    for added in ("wall_secs", "examples", "input_positions"):
        del document[added]
    assert Manifest.from_json(json.dumps(document), "here") == manifest


def test_another_version_is_refused_by_number(save) -> None:
    document = json.loads(save(MemoryStorage()).to_json()) | {"version": 2}
    with pytest.raises(CheckpointError, match="version 2; this psys reads version 1"):
        Manifest.from_json(json.dumps(document), "here")


@pytest.mark.parametrize(
    "change",
    [
        {"checkpoint_id": "../../evil00"},
        {"global_step": -1},
        {"global_step": None},
        {"cut": [1]},
        {"shards": [{"file": "../../x", "bytes": 1, "sha256": "", "slices": []}]},
        {"variables": [{"name": "bias"}]},
        {"torn": None},
    ],
)
def test_a_manifest_that_makes_no_sense_is_corrupt(save, change) -> None:
    document = json.loads(save(MemoryStorage()).to_json()) | change
    with pytest.raises(CheckpointCorrupt, match="here"):
        Manifest.from_json(json.dumps(document), "here")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", b"\xff\xfe"])
def test_what_is_no_manifest_is_corrupt(text) -> None:
    with pytest.raises(CheckpointCorrupt):
        Manifest.from_json(text, "here")


@pytest.mark.parametrize(
    "slices",
    [
        [[("w", 0, 2)], [("w", 3, 4)]],  # a gap
        [[("w", 0, 3)], [("w", 2, 4)]],  # an overlap
        [[("w", 0, 3)], []],  # an end
        [[("w", 0, 4)], [("other", 0, 1)]],  # an unknown variable
        [[("w", 0, 2), ("w", 2, 4)], []],  # one tensor key for two slices
    ],
)
def test_slices_that_do_not_cover_every_row_once_are_refused(slices) -> None:
    shards = tuple(
        ShardEntry(shard_file_name(i, 2), 0, "", tuple(held)) for i, held in enumerate(slices)
    )
    with pytest.raises(CheckpointError):
        Manifest(
            checkpoint_id="0" * 12,
            job_id="j",
            generation="g",
            global_step=0,
            created_unix_secs=0.0,
            variables=(VariableSpec("w", (4,), "float32", Constant()),),
            shards=shards,
        )


def test_a_checkpoint_exists_when_its_manifest_does(storage: Storage, save) -> None:
    manifest = save(storage, committed=False)
    assert load_all(storage) == []
    assert commit(storage, manifest) == manifest.name
    assert load_all(storage) == [manifest]
    assert load(storage, manifest.name) == manifest


def test_a_commit_sent_again_is_one_commit_but_another_is_refused(storage: Storage, save) -> None:
    manifest = save(storage)
    commit(storage, manifest)
    with pytest.raises(CheckpointError, match="another content"):
        commit(storage, dataclasses.replace(manifest, final=True))
    assert load_all(storage) == [manifest]


def test_manifests_come_oldest_first_by_step_then_time(storage: Storage, save) -> None:
    save(storage, step=20, checkpoint_id="a" * 12, created_unix_secs=3.0)
    save(storage, step=10, checkpoint_id="b" * 12, created_unix_secs=2.0)
    save(storage, step=10, checkpoint_id="c" * 12, created_unix_secs=1.0)
    assert [m.checkpoint_id[0] for m in load_all(storage)] == ["c", "b", "a"]


def test_an_unreadable_manifest_is_reported_in_one_line(storage: Storage, save, caplog) -> None:
    good = save(storage, step=1)
    bad = checkpoint_dir(2, "f" * 12) + "/manifest.json"
    moved = checkpoint_dir(3, "f" * 12) + "/manifest.json"
    storage.write(bad, b"{")
    storage.write(moved, good.to_json().encode())
    with caplog.at_level(logging.WARNING):
        assert load_all(storage) == [good]
    assert len(caplog.messages) == 2
    assert storage.path(bad) in caplog.messages[0]
    assert storage.path(moved) in caplog.messages[1]
    assert storage.exists(bad)
