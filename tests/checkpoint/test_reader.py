from __future__ import annotations

import dataclasses
import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psys.arrays import VariableSpec
from psys.checkpoint import (
    CheckpointReader,
    FileStorage,
    Manifest,
    MemoryStorage,
    ShardEntry,
    Storage,
    checkpoint_dir,
    open_checkpoint,
    shard_file_name,
    write_shard,
)
from psys.errors import CheckpointCorrupt, CheckpointNotFound, ModelError
from psys.initializers import Constant

SHARDS = [1, 2, 3, 11]


@pytest.mark.parametrize("shards", SHARDS)
def test_whole_variables_are_joined_in_their_shape(storage: Storage, save, values, shards) -> None:
    reader = CheckpointReader(storage, save(storage, shards=shards))
    assert reader.global_step == 100
    assert sorted(reader.variables) == ["bias", "dnn/kernel", "table"]
    for name, spec in reader.variables.items():
        read = reader.read(name)
        assert read.shape == spec.shape
        assert read.dtype == spec.dtype
        np.testing.assert_array_equal(read, values[name].reshape(spec.shape))


@pytest.mark.parametrize("shards", SHARDS)
def test_rows_are_found_in_whichever_file_holds_them(
    storage: Storage, save, values, shards
) -> None:
    reader = CheckpointReader(storage, save(storage, shards=shards))
    ids = np.array([9, 0, 4, 4, 5])
    np.testing.assert_array_equal(reader.read_rows("table", ids), values["table"][ids])
    assert reader.read_rows("table", np.empty(0, np.int64)).shape == (0, 2)


@pytest.mark.parametrize("shards", SHARDS)
def test_slots_are_read_whole(storage: Storage, save, values, shards) -> None:
    reader = CheckpointReader(storage, save(storage, shards=shards))
    assert reader.slot_names("table") == ("m", "v")
    assert reader.slot_names("bias") == ()
    np.testing.assert_array_equal(reader.read_slot("table", "v"), values["table/Adam/v"])
    with pytest.raises(ModelError, match="no slot 'u'"):
        reader.read_slot("table", "u")


def test_scalars_come_from_the_slice_that_held_the_first_row(save) -> None:
    storage = MemoryStorage()
    reader = CheckpointReader(storage, save(storage, shards=2))  # table: [0, 5) and [5, 10)
    assert reader.slice_state("table", 4, 10).scalars == {"beta1_power": 0.9}
    assert reader.slice_state("table", 5, 10).scalars == {"beta1_power": 0.9 - 0.05}


def test_unknown_variables_and_rows_are_named(save) -> None:
    storage = MemoryStorage()
    reader = CheckpointReader(storage, save(storage))
    with pytest.raises(ModelError, match=r"'absent'.*dnn/kernel"):
        reader.read("absent")
    for ids in ([10], [-1]):
        with pytest.raises(ModelError, match="rows 0 to 9"):
            reader.read_rows("table", np.array(ids))
    for start, stop in ((0, 11), (5, 5), (-1, 3)):
        with pytest.raises(ModelError, match="10 rows"):
            reader.slice_state("table", start, stop)


def bounds(rows: int, cuts: list[int]) -> list[tuple[int, int]]:
    """Return the ranges that cut points make of rows, empty ones included."""
    points = [0, *sorted(min(cut, rows) for cut in cuts), rows]
    return list(itertools.pairwise(points))


@settings(max_examples=60)
@given(
    rows=st.integers(1, 12),
    width=st.integers(0, 3),
    written=st.lists(st.integers(0, 12), max_size=4),
    wanted=st.lists(st.integers(0, 12), max_size=4),
)
def test_written_by_k_shards_it_restores_onto_m(rows, width, written, wanted) -> None:
    spec = VariableSpec("w", (rows, width), "float32", Constant(), {"kind": "Adagrad"})
    value = np.arange(rows * width, dtype=np.float32).reshape(rows, width)
    storage, entries = MemoryStorage(), []
    ranges = bounds(rows, written)
    for index, (start, stop) in enumerate(ranges):
        slices = [("w", start, stop)] if start < stop else []
        tensors = {"w": value[start:stop], "w/Adagrad/accumulator": value[start:stop] + 1}
        file = shard_file_name(index, len(ranges))
        info = write_shard(
            storage,
            f"{checkpoint_dir(5, 'a' * 12)}/{file}",
            tensors if slices else {},
            {"checkpoint_id": "a" * 12, "slices": slices},
        )
        entries.append(ShardEntry(file, info.bytes, info.sha256, tuple(slices)))
    manifest = Manifest("a" * 12, "j", "g", 5, 0.0, (spec,), tuple(entries))
    reader = CheckpointReader(storage, Manifest.from_json(manifest.to_json(), "here"))
    reader.verify()
    states = [
        reader.slice_state("w", low, high) for low, high in bounds(rows, wanted) if low < high
    ]
    np.testing.assert_array_equal(np.concatenate([s.value for s in states]), value)
    accumulators = np.concatenate([s.slots["accumulator"] for s in states])
    np.testing.assert_array_equal(accumulators, value + 1)


def test_a_sound_checkpoint_verifies(storage: Storage, save) -> None:
    CheckpointReader(storage, save(storage, shards=11)).verify()


def test_a_missing_file_is_corrupt(storage: Storage, save) -> None:
    manifest = save(storage)
    name = f"{manifest.directory}/{manifest.shards[1].file}"
    storage.remove(name)
    with pytest.raises(CheckpointCorrupt, match=f"{storage.path(name)} is missing"):
        CheckpointReader(storage, manifest).verify()


def test_a_short_file_is_corrupt(storage: Storage, save) -> None:
    manifest = save(storage)
    name = f"{manifest.directory}/{manifest.shards[0].file}"
    storage.write(name, storage.read(name)[:-1])
    with pytest.raises(CheckpointCorrupt, match="bytes, found"):
        CheckpointReader(storage, manifest).verify(hashes=False)


def test_one_wrong_bit_is_corrupt(storage: Storage, save) -> None:
    manifest = save(storage)
    name = f"{manifest.directory}/{manifest.shards[0].file}"
    data = bytearray(storage.read(name))
    data[-1] ^= 1
    storage.write(name, bytes(data))
    with pytest.raises(CheckpointCorrupt, match="sha256"):
        CheckpointReader(storage, manifest).verify()


def test_shards_of_different_cuts_are_no_checkpoint(storage: Storage, save) -> None:
    manifest = save(storage, cuts={1: {"chief:0": [1, 100], "worker:0": [2, 100]}})
    with pytest.raises(CheckpointCorrupt, match="cut"):
        CheckpointReader(storage, manifest).verify()
    with pytest.raises(CheckpointCorrupt, match="cut"):
        CheckpointReader(storage, manifest).read("table")


def test_a_failed_attempts_file_does_not_pass_for_anothers(save) -> None:
    storage = MemoryStorage()
    manifest = save(storage)
    other = save(storage, checkpoint_id="f" * 12)
    file = manifest.shards[0].file
    storage.write(f"{manifest.directory}/{file}", storage.read(f"{other.directory}/{file}"))
    with pytest.raises(CheckpointCorrupt, match="checkpoint id"):
        CheckpointReader(storage, manifest).read("table")


def test_a_spec_that_does_not_fit_its_tensor_is_corrupt(save) -> None:
    storage = MemoryStorage()
    manifest = save(storage)
    specs = [
        dataclasses.replace(spec, shape=(10, 3)) if spec.name == "table" else spec
        for spec in manifest.variables
    ]
    reader = CheckpointReader(storage, dataclasses.replace(manifest, variables=tuple(specs)))
    with pytest.raises(CheckpointCorrupt, match=r"the manifest has float32 \(\d, 3\)"):
        reader.read("table")


def test_open_takes_a_checkpoint_a_copy_of_one_or_a_model_dir(tmp_path: Path, save) -> None:
    storage = FileStorage(tmp_path / "model")
    save(storage, step=1, checkpoint_id="a" * 12)
    newest = save(storage, step=2, checkpoint_id="b" * 12)
    directory = storage.path(newest.directory)
    copy = shutil.copytree(directory, tmp_path / "copy")
    for path in (tmp_path / "model", directory, directory + "/", copy):
        reader = open_checkpoint(path)
        assert reader.checkpoint_id == "b" * 12
        reader.verify()
    assert open_checkpoint(copy).path == str(copy)
    assert open_checkpoint(tmp_path / "model").path == directory


def test_open_says_what_it_looked_for(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match="neither a checkpoint nor a model_dir"):
        open_checkpoint(tmp_path / "absent")


def test_a_deleted_checkpoint_stays_readable_to_who_has_it_open(
    tmp_path: Path, save, values
) -> None:
    storage = FileStorage(tmp_path / "model")
    manifest = save(storage)
    reader = open_checkpoint(tmp_path / "model")
    reader.verify()
    shutil.rmtree(storage.path(manifest.directory))
    np.testing.assert_array_equal(reader.read("table"), values["table"])
