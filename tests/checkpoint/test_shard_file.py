from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from psys.checkpoint import FileStorage, MemoryStorage, ShardReader, Storage, write_shard
from psys.errors import CheckpointCorrupt, CheckpointError, CheckpointNotFound, ModelError

VALUES = {
    "t": np.arange(24, dtype=np.float32).reshape(12, 2),
    "t/Adagrad/accumulator": np.full((12, 2), 0.1, np.float32),
    "step": np.array([7], np.int64),
    "wide": np.arange(3, dtype=np.float64),
    "ids": np.arange(4, dtype=np.int32),
}
METADATA = {"checkpoint_id": "0123456789ab", "scalars": {"t": {"beta1_power": 0.9}}}


def test_tensors_and_metadata_come_back(storage: Storage) -> None:
    info = write_shard(storage, "d/s.safetensors", VALUES, METADATA)
    reader = ShardReader(storage, info.name)
    assert reader.metadata == METADATA
    assert reader.keys() == tuple(sorted(VALUES))
    for key, value in VALUES.items():
        read = reader.read(key)
        assert read.dtype == value.dtype
        np.testing.assert_array_equal(read, value)
        read[...] = 0  # a copy: the next reader still sees the file
        np.testing.assert_array_equal(reader.view(key), value)


def test_size_and_hash_are_those_of_the_bytes(storage: Storage) -> None:
    info = write_shard(storage, "d/s", VALUES, METADATA)
    data = storage.read("d/s")
    assert (info.bytes, info.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_any_safetensors_reader_can_read_it(tmp_path: Path) -> None:
    write_shard(FileStorage(tmp_path), "s", VALUES, METADATA)
    with safe_open(tmp_path / "s", framework="numpy") as file:
        assert json.loads(file.metadata()["psys"]) == METADATA
        for key, value in VALUES.items():
            np.testing.assert_array_equal(file.get_tensor(key), value)


def test_a_shard_of_no_slices_is_a_valid_file(storage: Storage) -> None:
    write_shard(storage, "s", {}, METADATA)
    reader = ShardReader(storage, "s")
    assert reader.keys() == ()
    assert reader.metadata == METADATA


def test_strided_and_empty_arrays_are_written_as_they_look(storage: Storage) -> None:
    table = np.arange(12, dtype=np.float32).reshape(3, 4)
    write_shard(storage, "s", {"t": table.T[1:], "none": table[:0]}, METADATA)
    reader = ShardReader(storage, "s")
    np.testing.assert_array_equal(reader.read("t"), table.T[1:])
    assert reader.read("none").shape == (0, 4)


def test_numpy_numbers_may_stand_in_the_metadata(storage: Storage) -> None:
    write_shard(storage, "s", {}, {"scalars": {"t": {"beta": np.float32(0.5)}}, "n": np.int64(3)})
    assert ShardReader(storage, "s").metadata == {"scalars": {"t": {"beta": 0.5}}, "n": 3}


def test_rows_in_any_order_with_repeats(storage: Storage) -> None:
    write_shard(storage, "s", VALUES, METADATA)
    rows = np.array([11, 0, 0, 5])
    read = ShardReader(storage, "s").read_rows("t", rows)
    np.testing.assert_array_equal(read, VALUES["t"][rows])
    assert ShardReader(storage, "s").read_rows("t", np.empty(0, np.int64)).shape == (0, 2)


@pytest.mark.parametrize("row", [-1, 12])
def test_a_row_out_of_range_is_refused(storage: Storage, row: int) -> None:
    write_shard(storage, "s", VALUES, METADATA)
    with pytest.raises(ModelError, match="rows 0 to 11"):
        ShardReader(storage, "s").read_rows("t", np.array([0, row]))


def test_an_unknown_tensor_is_named_with_the_known_ones(storage: Storage) -> None:
    write_shard(storage, "s", VALUES, METADATA)
    with pytest.raises(ModelError, match=r"'absent'.*accumulator"):
        ShardReader(storage, "s").read("absent")


@pytest.mark.parametrize("value", [np.float32(1.0).reshape(()), np.zeros(2, np.float16)])
def test_an_array_without_rows_or_of_a_foreign_dtype_is_not_written(value: np.ndarray) -> None:
    storage = MemoryStorage()
    with pytest.raises(CheckpointError, match="expected \\[rows"):
        write_shard(storage, "s", {"x": value}, METADATA)
    assert storage.list() == ()


def test_a_missing_file_is_not_found(storage: Storage) -> None:
    with pytest.raises(CheckpointNotFound):
        ShardReader(storage, "absent")


def test_a_file_cut_anywhere_is_corrupt() -> None:
    storage = MemoryStorage()
    write_shard(storage, "s", VALUES, METADATA)
    data = storage.read("s")
    for length in range(len(data)):
        storage.write("short", data[:length])
        with pytest.raises(CheckpointCorrupt, match="memory:short"):
            ShardReader(storage, "short")


@pytest.mark.parametrize(
    "header",
    [
        "[]",
        "not json",
        '{"__metadata__": {}}',
        '{"__metadata__": {"psys": "7"}}',
        '{"__metadata__": {"psys": "{}"}, "t": 3}',
    ],
)
def test_what_is_no_header_is_corrupt(header: str) -> None:
    with pytest.raises(CheckpointCorrupt):
        ShardReader(with_header(header), "s")


@pytest.mark.parametrize(
    "change",
    [
        {"data_offsets": None},
        {"data_offsets": [0, 16]},
        {"data_offsets": [-8, 0]},
        {"data_offsets": [8, 16]},
        {"shape": [-2, -1]},
        {"shape": []},
        {"shape": [2**62, 4]},
        {"dtype": "F99"},
    ],
)
def test_a_tensor_that_is_not_in_the_file_is_corrupt(change: dict[str, object]) -> None:
    tensor = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    header = {"__metadata__": {"psys": "{}"}, "t": tensor}
    assert ShardReader(with_header(json.dumps(header)), "s").read("t").tolist() == [0.0, 0.0]
    header["t"] = tensor | change
    with pytest.raises(CheckpointCorrupt):
        ShardReader(with_header(json.dumps(header)), "s")


def with_header(header: str) -> MemoryStorage:
    """Return a storage with a file "s" of this header and eight bytes of tensors."""
    storage = MemoryStorage()
    storage.write("s", len(header).to_bytes(8, "little") + header.encode() + bytes(8))
    return storage
