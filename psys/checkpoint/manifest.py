"""The manifest of a checkpoint, and the commit protocol.

A checkpoint is a directory of its own, ``checkpoints/model-<step:010d>-<id>/`` under model_dir,
where the id is 12 random hex digits: a failed attempt's file never meets another's manifest.

1. Each ps writes ``shard-<index>-of-<count>.safetensors`` there: a staged file, fsynced, then
   renamed. A file that has its name is whole.
2. When all have, ``manifest.json`` is written last, create-if-absent: a staged file, fsynced,
   hard-linked, then the directory is fsynced. **This is the commit**: a checkpoint exists if and
   only if its manifest does. A process killed at any moment before leaves a directory without a
   manifest, which no reader looks at.
3. The latest checkpoint is the newest valid manifest by (global_step, created). There is no
   mutable pointer to be wrong.
4. Deleting goes the other way: manifest, then files, then directory (``retention.py``).

The format is additive: within one ``version`` keys are only ever added, and readers ignore the
ones they do not know. Nothing here reads a shard file.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from psys.arrays import VariableSpec
from psys.checkpoint.storage import Fault, Storage, no_fault
from psys.errors import CheckpointCorrupt, CheckpointError, ModelError
from psys.initializers import from_config

VERSION = 1
CHECKPOINTS = "checkpoints"
MANIFEST = "manifest.json"

_ID = re.compile(r"[0-9a-f]{12}")
_log = logging.getLogger(__name__)


def checkpoint_dir(global_step: int, checkpoint_id: str) -> str:
    """Return the storage name of a checkpoint's directory.

    Raises:
        CheckpointError: if the step is negative or the id is not 12 lower-case hex digits.
    """
    if global_step < 0 or not _ID.fullmatch(checkpoint_id):
        raise CheckpointError(
            "A checkpoint is named by a step ≥ 0 and an id of 12 hex digits, "
            f"got step {global_step} and id {checkpoint_id!r}."
        )
    return f"{CHECKPOINTS}/model-{global_step:010d}-{checkpoint_id}"


def shard_file_name(index: int, count: int) -> str:
    """Return the name of a shard's file in the checkpoint's directory.

    Raises:
        CheckpointError: if not 0 ≤ index < count.
    """
    if not 0 <= index < count:
        raise CheckpointError(f"There is no shard {index} of {count}.")
    return f"shard-{index:05d}-of-{count:05d}.safetensors"


@dataclass(frozen=True)
class ShardEntry:
    """One shard file of a checkpoint.

    Attributes:
        file: its name in the checkpoint's directory.
        bytes: its size.
        sha256: its hash, hex.
        slices: ``(variable, start, stop)`` for each slice it holds.
    """

    file: str
    bytes: int
    sha256: str
    slices: tuple[tuple[str, int, int], ...] = ()


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint is. Invariant: the slices cover every row of every variable once.

    Attributes:
        checkpoint_id: 12 hex digits, new for every attempt.
        job_id: the job run that wrote it.
        generation: the history of the model it belongs to.
        global_step: the step in the cut, which names it.
        created_unix_secs: when.
        variables: the model's variables, with optimizer and initializer.
        shards: entry i is shard i's file.
        cut: V, the last ``(member number, sequence)`` of each task in it.
        torn: tasks of which one step is on some shards only.
        wall_secs: training time since the model was created, over all restarts.
        examples: examples trained on so far; 0 if not counted.
        final: True if the job ends with it.
        evaluator_expected: True if an evaluator has a part in the job.
        input_positions: where each input stands, by task.
        version: of the format.
    """

    checkpoint_id: str
    job_id: str
    generation: str
    global_step: int
    created_unix_secs: float
    variables: tuple[VariableSpec, ...]
    shards: tuple[ShardEntry, ...]
    cut: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    torn: tuple[str, ...] = ()
    wall_secs: float = 0.0
    examples: int = 0
    final: bool = False
    evaluator_expected: bool = False
    input_positions: Mapping[str, Any] = field(default_factory=dict)
    version: int = VERSION

    def __post_init__(self) -> None:
        checkpoint_dir(self.global_step, self.checkpoint_id)
        expected = [shard_file_name(i, len(self.shards)) for i in range(len(self.shards))]
        given = [shard.file for shard in self.shards]
        if given != expected:
            raise CheckpointError(f"Shard files must be {expected}, got {given}.")
        _check_cover(self.variables, self.shards)

    @property
    def directory(self) -> str:
        """The storage name of the checkpoint's directory."""
        return checkpoint_dir(self.global_step, self.checkpoint_id)

    @property
    def name(self) -> str:
        """The storage name of the manifest."""
        return f"{self.directory}/{MANIFEST}"

    @property
    def order(self) -> tuple[int, float, str]:
        """The key checkpoints are sorted by, oldest first: step, time, and the id for ties."""
        return self.global_step, self.created_unix_secs, self.checkpoint_id

    def to_json(self) -> str:
        """Return the text of ``manifest.json``."""
        document = {
            **self.__dict__,
            "cut": dict(self.cut),
            "input_positions": dict(self.input_positions),
            "variables": [variable_to_config(spec) for spec in self.variables],
            "shards": [shard.__dict__ for shard in self.shards],
        }
        return json.dumps(document, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, origin: str) -> Manifest:
        """Return the manifest a text describes; keys this version does not know are ignored.

        Args:
            text: what ``to_json`` returned.
            origin: where it came from, for messages.

        Raises:
            CheckpointCorrupt: if a key is missing or a value makes no sense.
            CheckpointError: if a later, incompatible version wrote it.
        """
        try:
            document = json.loads(text)
            version = int(document["version"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointCorrupt(f"{origin}: not a manifest: {error!r}.") from error
        if version != VERSION:
            raise CheckpointError(
                f"{origin}: manifest version {version}; this psys reads version {VERSION}."
            )
        try:
            return cls(
                checkpoint_id=str(document["checkpoint_id"]),
                job_id=str(document["job_id"]),
                generation=str(document["generation"]),
                global_step=int(document["global_step"]),
                created_unix_secs=float(document["created_unix_secs"]),
                variables=tuple(variable_from_config(v) for v in document["variables"]),
                shards=tuple(_shard_from_config(s) for s in document["shards"]),
                cut={str(t): (int(m), int(s)) for t, (m, s) in document["cut"].items()},
                torn=tuple(str(task) for task in document["torn"]),
                wall_secs=float(document.get("wall_secs", 0.0)),
                examples=int(document.get("examples", 0)),
                final=bool(document["final"]),
                evaluator_expected=bool(document["evaluator_expected"]),
                input_positions=dict(document.get("input_positions", {})),
            )
        except (KeyError, TypeError, ValueError, AttributeError, CheckpointError) as error:
            raise CheckpointCorrupt(f"{origin}: not a valid manifest: {error!r}.") from error


def commit(storage: Storage, manifest: Manifest, fault: Fault = no_fault) -> str:
    """Make the checkpoint exist, and return its manifest's storage name.

    The caller has seen to it that every shard file is written. Doing it again with the same
    manifest is no error: an answer may be lost, and the request sent again.

    Args:
        storage: model_dir.
        manifest: what to write.
        fault: called with "before_manifest".

    Raises:
        CheckpointError: if another manifest has that name, or this one cannot be read back.
    """
    text = manifest.to_json()
    Manifest.from_json(text, f"the manifest of {manifest.directory}")
    fault("before_manifest")
    if not storage.write_once(manifest.name, text.encode()) and (
        storage.read(manifest.name) != text.encode()
    ):
        raise CheckpointError(f"{storage.path(manifest.name)} exists, with another content.")
    return manifest.name


def load(storage: Storage, name: str) -> Manifest:
    """Read one manifest.

    Raises:
        CheckpointNotFound: if there is none.
        CheckpointCorrupt: if it cannot be read, or says that it belongs elsewhere.
    """
    manifest = Manifest.from_json(storage.read(name), storage.path(name))
    if manifest.name != name:
        raise CheckpointCorrupt(f"{storage.path(name)}: the manifest of {manifest.directory}.")
    return manifest


def load_all(storage: Storage) -> list[Manifest]:
    """Return every readable manifest, oldest first; one warning for each of the others."""
    manifests = []
    for name in storage.list(CHECKPOINTS):
        if name.endswith("/" + MANIFEST):
            try:
                manifests.append(load(storage, name))
            except CheckpointError as error:
                if storage.exists(name):  # else it was deleted meanwhile
                    _log.warning("Checkpoint skipped: %s", error)
    return sorted(manifests, key=lambda manifest: manifest.order)


def _check_cover(variables: Iterable[VariableSpec], shards: Iterable[ShardEntry]) -> None:
    ranges: dict[str, list[tuple[int, int]]] = {spec.name: [] for spec in variables}
    for shard in shards:
        names = [variable for variable, _, _ in shard.slices]
        if len(set(names)) != len(names):  # a tensor's key is its variable's name
            raise CheckpointError(f"{shard.file} holds two slices of one variable: {names}.")
        for variable, start, stop in shard.slices:
            if variable not in ranges:
                raise CheckpointError(f"{shard.file} holds unknown variable {variable!r}.")
            ranges[variable].append((start, stop))
    for spec in variables:
        reached = 0
        for start, stop in sorted(ranges[spec.name]):
            if start != reached or stop < start:
                break
            reached = stop
        else:
            if reached == spec.rows:
                continue
        raise CheckpointError(
            f"Variable {spec.name!r}: slices {sorted(ranges[spec.name])} do not cover rows "
            f"0 to {spec.rows} once."
        )


def variable_to_config(spec: VariableSpec) -> dict[str, Any]:
    """Return a JSON-able description; ``variable_from_config`` reads it back.

    In which stack a table was is left out: whoever goes on from a checkpoint makes its own.
    """
    return {
        "name": spec.name,
        "shape": spec.shape,
        "dtype": spec.dtype,
        "initializer": spec.initializer.to_config(),
        "optimizer": None if spec.optimizer is None else dict(spec.optimizer),
        "sparse": spec.sparse,
    }


def variable_from_config(config: Mapping[str, Any]) -> VariableSpec:
    """Return the variable that ``variable_to_config`` described; unknown keys are ignored.

    Raises:
        KeyError: if a key is missing.
        ModelError: if a value makes no sense, or the initializer is of an unknown kind.
    """
    optimizer = config["optimizer"]
    if optimizer is not None and "kind" not in optimizer:
        raise ModelError(f"Variable {config['name']!r}: optimizer {optimizer} has no kind.")
    return VariableSpec(
        name=str(config["name"]),
        shape=tuple(int(size) for size in config["shape"]),
        dtype=str(config["dtype"]),
        initializer=from_config(config["initializer"]),
        optimizer=optimizer,
        sparse=bool(config["sparse"]),
    )


def _shard_from_config(config: Mapping[str, Any]) -> ShardEntry:
    return ShardEntry(
        file=str(config["file"]),
        bytes=int(config["bytes"]),
        sha256=str(config["sha256"]),
        slices=tuple((str(v), int(start), int(stop)) for v, start, stop in config["slices"]),
    )
