"""What the pages tf.estimator.Exporter, FinalExporter, LatestExporter and the Estimator's
export methods promise, and what an export holds."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from psys.arrays import VariableSpec
from psys.checkpoint import (
    CheckpointReader,
    FileStorage,
    Manifest,
    ShardEntry,
    checkpoint_dir,
    commit,
    open_checkpoint,
    shard_file_name,
    write_shard,
)
from psys.errors import CheckpointCorrupt, CheckpointNotFound, ConfigError, ModelError
from psys.estimator.export import load_export, make_signature, open_model, write_export
from psys.estimator.exporters import Exporter, FinalExporter, LatestExporter
from psys.initializers import Constant

SIGNATURE = {"features": {"x": {"dtype": "float32", "shape": [None, 2]}}, "predictions": ["p"]}
TABLE = np.arange(12, dtype=np.float32).reshape(6, 2)
NOW = 1700000000.0


@pytest.fixture
def checkpoint(tmp_path: Path) -> CheckpointReader:
    """A table on two shards, with a slot, and a scalar."""
    storage, checkpoint_id, entries = FileStorage(tmp_path / "model"), "ab" * 6, []
    for index, slices in enumerate(([("table", 0, 4), ("bias", 0, 1)], [("table", 4, 6)])):
        values = {"table": TABLE[slices[0][1] : slices[0][2]]}
        values["table/Adagrad/accumulator"] = values["table"] + 1
        if index == 0:
            values["bias"] = np.array([0.5], np.float32)
        file = shard_file_name(index, 2)
        metadata = {"checkpoint_id": checkpoint_id, "slices": slices}
        info = write_shard(storage, f"{checkpoint_dir(7, checkpoint_id)}/{file}", values, metadata)
        entries.append(ShardEntry(file, info.bytes, info.sha256, tuple(slices)))
    specs = (
        VariableSpec("table", (6, 2), "float32", Constant(), {"kind": "Adagrad"}, sparse=True),
        VariableSpec("bias", (), "float32", Constant()),
    )
    commit(storage, Manifest(checkpoint_id, "j", "g", 7, NOW, specs, tuple(entries)))
    return open_checkpoint(tmp_path / "model")


class ExportingEstimator:
    """Exports as Estimator does, at times it is told; ``asked`` is what for."""

    def __init__(self, *times: float) -> None:
        self.times = list(times)
        self.asked: list[tuple[Any, ...]] = []

    def export_saved_model(
        self,
        export_dir_base: str,
        serving_input_receiver_fn: Callable[[], Any] | None,
        assets_extra: Mapping[str, str] | None = None,
        *,
        checkpoint_path: str | None = None,
    ) -> str:
        assert checkpoint_path is not None
        self.asked.append((export_dir_base, serving_input_receiver_fn, checkpoint_path))
        reader = open_checkpoint(checkpoint_path)
        return write_export(
            export_dir_base, reader, SIGNATURE, assets_extra, lambda: self.times.pop(0)
        )


def test_the_final_exporter_waits_for_the_end(tmp_path: Path, checkpoint) -> None:
    def receiver() -> None: ...

    exporter = FinalExporter("final", receiver)
    estimator = ExportingEstimator(NOW)
    base = str(tmp_path / "export" / "final")
    assert exporter.export(estimator, base, checkpoint.path, {}, False) is None
    assert estimator.asked == []
    assert not os.path.exists(base)
    path = exporter.export(estimator, base, checkpoint.path, {}, True)
    assert path == os.path.join(base, "1700000000")
    assert estimator.asked == [(base, receiver, checkpoint.path)]


def test_exporters_have_the_name_they_are_given() -> None:
    for exporter in (FinalExporter("census"), LatestExporter("census")):
        assert isinstance(exporter, Exporter)
        assert exporter.name == "census"


@pytest.mark.parametrize("final", [False, True])
def test_the_latest_exporter_exports_always_and_keeps_the_newest(
    tmp_path: Path, checkpoint, final: bool
) -> None:
    base = tmp_path / "export"
    for name in ("1600000001", "1600000002", "1600000003", "1600000004"):
        (base / name).mkdir(parents=True)
    exporter = LatestExporter("latest", exports_to_keep=2)
    path = exporter.export(ExportingEstimator(NOW), str(base), checkpoint.path, {}, final)
    assert path == str(base / "1700000000")
    assert sorted(os.listdir(base)) == ["1600000004", "1700000000"]


def test_only_ten_digit_directories_are_old_exports(tmp_path: Path, checkpoint) -> None:
    others = ["temp-1600000001", "160000000", "16000000001", "notes", "1600000001x"]
    for name in others:
        (tmp_path / "export" / name).mkdir(parents=True)
    exporter = LatestExporter("latest", exports_to_keep=1)
    exporter.export(ExportingEstimator(NOW), str(tmp_path / "export"), checkpoint.path, {}, False)
    assert sorted(os.listdir(tmp_path / "export")) == sorted([*others, "1700000000"])


def test_an_export_that_cannot_be_deleted_is_a_warning(tmp_path: Path, checkpoint, caplog) -> None:
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "1600000001").write_text("a file, which rmtree refuses")
    exporter = LatestExporter("latest", exports_to_keep=1)
    with caplog.at_level(logging.WARNING):
        path = exporter.export(
            ExportingEstimator(NOW), str(tmp_path / "export"), checkpoint.path, {}, False
        )
    assert path is not None
    assert "1600000001" in caplog.text


def test_exports_to_keep_is_positive_or_none(tmp_path: Path, checkpoint) -> None:
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="positive number"):
            LatestExporter("latest", exports_to_keep=wrong)
    (tmp_path / "export" / "1600000001").mkdir(parents=True)
    exporter = LatestExporter("latest", exports_to_keep=None)
    exporter.export(ExportingEstimator(NOW), str(tmp_path / "export"), checkpoint.path, {}, False)
    assert sorted(os.listdir(tmp_path / "export")) == ["1600000001", "1700000000"]


def test_an_export_reads_like_its_checkpoint(tmp_path: Path, checkpoint) -> None:
    export = load_export(write_export(tmp_path / "export", checkpoint, SIGNATURE))
    assert export.global_step == 7
    assert export.checkpoint_id == checkpoint.checkpoint_id
    assert export.signature == SIGNATURE
    assert sorted(export.variables) == ["bias", "table"]
    ids = np.array([5, 0, 0])
    for reader in (checkpoint, export):
        np.testing.assert_array_equal(reader.read("table"), TABLE)
        np.testing.assert_array_equal(reader.read_rows("table", ids), TABLE[ids])
        assert reader.read("bias").shape == ()
        assert reader.read("bias") == 0.5


def test_an_export_has_no_slots_and_no_optimizers(tmp_path: Path, checkpoint) -> None:
    path = write_export(tmp_path / "export", checkpoint, SIGNATURE)
    assert sorted(load_file(os.path.join(path, "variables.safetensors"))) == ["bias", "table"]
    assert all(spec.optimizer is None for spec in load_export(path).variables.values())
    assert "psys_version" in json.loads(Path(path, "export.json").read_text())


def test_assets_are_copied_to_their_place(tmp_path: Path, checkpoint) -> None:
    (tmp_path / "my words.txt").write_text("a\nb\n")
    assets = {"vocabulary/words 1.txt": str(tmp_path / "my words.txt")}
    path = write_export(tmp_path / "export", checkpoint, SIGNATURE, assets)
    assert Path(path, "assets.extra", "vocabulary", "words 1.txt").read_text() == "a\nb\n"


@pytest.mark.parametrize("place", ["../x", "/x", "a/../../x", "", ".", "a/.."])
def test_an_asset_does_not_leave_the_export(tmp_path: Path, checkpoint, place: str) -> None:
    (tmp_path / "source").write_text("")
    with pytest.raises(ConfigError, match=r"assets\.extra"):
        write_export(tmp_path / "export", checkpoint, {}, {place: str(tmp_path / "source")})
    assert not (tmp_path / "export").exists()


def test_an_asset_without_a_source_is_named(tmp_path: Path, checkpoint) -> None:
    with pytest.raises(ConfigError, match="absent"):
        write_export(tmp_path / "export", checkpoint, {}, {"words": str(tmp_path / "absent")})


def test_a_taken_second_is_waited_out(tmp_path: Path, checkpoint) -> None:
    waits: list[float] = []
    base = tmp_path / "export"
    (base / "1700000000").mkdir(parents=True)
    (base / "temp-1700000001").mkdir()
    path = write_export(base, checkpoint, {}, None, lambda: NOW + len(waits), waits.append)
    assert path == str(base / "1700000002")
    assert waits == [1.0, 1.0]


def test_ten_attempts_and_no_more(tmp_path: Path, checkpoint) -> None:
    waits: list[float] = []
    (tmp_path / "export" / "1700000000").mkdir(parents=True)
    with pytest.raises(RuntimeError, match="Failed to obtain a unique export directory name"):
        write_export(tmp_path / "export", checkpoint, {}, None, lambda: NOW, waits.append)
    assert len(waits) == 9


def test_a_failed_export_leaves_nothing(tmp_path: Path, checkpoint) -> None:
    with pytest.raises(TypeError):
        write_export(tmp_path / "export", checkpoint, {"features": object()})
    assert os.listdir(tmp_path / "export") == []


def test_one_function_opens_exports_checkpoints_and_model_dirs(tmp_path: Path, checkpoint) -> None:
    export = write_export(tmp_path / "export", checkpoint, SIGNATURE)
    for path in (export, checkpoint.path, tmp_path / "model"):
        model = open_model(path)
        assert model.global_step == 7
        np.testing.assert_array_equal(model.read("table"), TABLE)
    with pytest.raises(CheckpointNotFound):
        open_model(tmp_path / "absent")


def test_what_is_no_export_or_a_broken_one_is_said(tmp_path: Path, checkpoint) -> None:
    with pytest.raises(CheckpointNotFound, match=r"no export\.json"):
        load_export(tmp_path)
    path = write_export(tmp_path / "export", checkpoint, SIGNATURE)
    with pytest.raises(ModelError, match=r"'absent'.*'bias', 'table'"):
        load_export(path).read("absent")
    with pytest.raises(ModelError, match="rows 0 to 5"):
        load_export(path).read_rows("table", np.array([6]))
    document = json.loads(Path(path, "export.json").read_text())
    for change in ({"version": 2}, {"bytes": 3}, {"variables": [{}]}):
        Path(path, "export.json").write_text(json.dumps(document | change))
        with pytest.raises(CheckpointCorrupt):
            load_export(path)
    shaped = [
        variable | {"shape": [6, 3][: len(variable["shape"])]} for variable in document["variables"]
    ]
    Path(path, "export.json").write_text(json.dumps(document | {"variables": shaped}))
    with pytest.raises(CheckpointCorrupt, match=r"'table' is not float32 \(6, 3\)"):
        load_export(path)


def test_a_signature_is_taken_from_a_batch() -> None:
    features = {
        "age": np.zeros((4, 1), np.float32),
        "words": np.array([["a", "b"]] * 4),
        "ids": np.zeros(4, np.int64),
    }
    assert make_signature(features, ["probabilities", "logits"]) == {
        "features": {
            "age": {"dtype": "float32", "shape": [None, 1]},
            "ids": {"dtype": "int64", "shape": [None]},
            "words": {"dtype": "string", "shape": [None, 2]},
        },
        "predictions": ["logits", "probabilities"],
    }
