"""A small model and how it is saved with any number of shards, for every test here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from psys.arrays import Array, VariableSpec
from psys.checkpoint import (
    FileStorage,
    Manifest,
    MemoryStorage,
    ShardEntry,
    Storage,
    checkpoint_dir,
    commit,
    shard_file_name,
    write_shard,
)
from psys.initializers import Constant, TruncatedNormal

ADAM = {"kind": "Adam", "learning_rate": 0.001}
SPECS = (
    VariableSpec("bias", (), "float64", Constant(0.5)),
    VariableSpec("dnn/kernel", (3, 4), "float32", TruncatedNormal(0.0, 0.1), ADAM),
    VariableSpec("table", (10, 2), "float32", Constant(), ADAM, sparse=True),
)
Save = Callable[..., Manifest]


def model_values() -> dict[str, Array]:
    """Return every variable as rows, and its slots, by tensor key."""
    random = np.random.default_rng(7)
    values: dict[str, Array] = {"bias": np.array([2.5])}
    for spec in SPECS[1:]:
        for key in (spec.name, f"{spec.name}/Adam/m", f"{spec.name}/Adam/v"):
            values[key] = random.standard_normal(spec.shape).astype(spec.dtype)
    return values


def cut_evenly(count: int) -> list[list[tuple[str, int, int]]]:
    """Return each shard's slices, every variable cut into ``count`` (some then get none)."""
    return [
        [
            (spec.name, spec.rows * i // count, spec.rows * (i + 1) // count)
            for spec in SPECS
            if spec.rows * i // count < spec.rows * (i + 1) // count
        ]
        for i in range(count)
    ]


def save_model(
    storage: Storage,
    step: int = 100,
    checkpoint_id: str = "0123456789ab",
    shards: int = 2,
    cuts: Mapping[int, Mapping[str, Any]] | None = None,
    committed: bool = True,
    **manifest: Any,
) -> Manifest:
    """Save ``model_values()`` as the protocol says; ``cuts`` overrides a shard's recorded cut."""
    values, entries = model_values(), []
    cut = {"chief:0": [1, step], "worker:0": [2, step + 1]}
    for index, slices in enumerate(cut_evenly(shards)):
        tensors = {
            key: rows[start:stop]
            for variable, start, stop in slices
            for key, rows in values.items()
            if key == variable or key.startswith(variable + "/")
        }
        metadata = {
            "checkpoint_id": checkpoint_id,
            "generation": "g",
            "shard": index,
            "slices": slices,
            "scalars": {v: {"beta1_power": 0.9 - start / 100} for v, start, _ in slices},
            "cut": (cuts or {}).get(index, cut),
        }
        file = shard_file_name(index, shards)
        name = f"{checkpoint_dir(step, checkpoint_id)}/{file}"
        info = write_shard(storage, name, tensors, metadata)
        entries.append(ShardEntry(file, info.bytes, info.sha256, tuple(slices)))
    result = Manifest(
        checkpoint_id=checkpoint_id,
        job_id="job",
        generation="g",
        global_step=step,
        created_unix_secs=manifest.pop("created_unix_secs", 1.7e9 + step),
        variables=SPECS,
        shards=tuple(entries),
        cut={task: (member, last) for task, (member, last) in cut.items()},
        **manifest,
    )
    if committed:
        commit(storage, result)
    return result


@pytest.fixture
def values() -> dict[str, Array]:
    return model_values()


@pytest.fixture
def save() -> Save:
    return save_model


@pytest.fixture(params=["files", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Any) -> Storage:
    return FileStorage(tmp_path / "model") if request.param == "files" else MemoryStorage()
