"""Reading a checkpoint as whole variables, rows, or slices for any number of ps.

Which shard file holds which rows stays behind ``CheckpointReader``; rows are mapped, so a table
is never loaded whole to read some of it. Every shard file is compared with the manifest when it
is first opened; ``verify`` hashes all of them besides. Nothing here writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from psys.arrays import DTYPES, Array, VariableSpec
from psys.checkpoint.manifest import MANIFEST, Manifest
from psys.checkpoint.shard_file import ShardReader, sha256
from psys.checkpoint.storage import FileStorage, Storage
from psys.errors import CheckpointCorrupt, CheckpointNotFound, ModelError


class ModelReader(Protocol):
    """What a checkpoint and an export have in common: the values of a model's variables."""

    @property
    def path(self) -> str:
        """The directory it is read from."""

    @property
    def global_step(self) -> int:
        """The step the values are of."""

    @property
    def variables(self) -> Mapping[str, VariableSpec]:
        """The variables by name."""

    def read(self, name: str) -> Array:
        """Return a variable's value in its shape."""

    def read_rows(self, name: str, ids: Array) -> Array:
        """Return rows ``ids`` ``[n]`` of a variable, ``[n, *row_shape]``."""


@dataclass(frozen=True)
class SliceState:
    """All that a shard needs to go on with a slice.

    Attributes:
        value: ``[rows, ...]``.
        slots: ``[rows, ...]`` by slot name.
        scalars: the slice's non-slot optimizer state by name.
    """

    value: Array
    slots: dict[str, Array] = field(default_factory=dict)
    scalars: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Part:
    """The rows ``[start, stop)`` of a variable that one shard file holds."""

    start: int
    stop: int
    shard: int


class CheckpointReader:
    """A checkpoint, read on demand.

    Args:
        storage: where it lies.
        manifest: which one.
        directory: its directory in the storage, where that is not ``manifest.directory``
            (a checkpoint copied elsewhere; '' for the storage's root).
    """

    def __init__(self, storage: Storage, manifest: Manifest, directory: str | None = None) -> None:
        self.manifest = manifest
        self._storage = storage
        self._prefix = manifest.directory + "/" if directory is None else directory
        if self._prefix and not self._prefix.endswith("/"):
            self._prefix += "/"
        self._variables = {spec.name: spec for spec in manifest.variables}
        self._parts: dict[str, list[_Part]] = {name: [] for name in self._variables}
        for index, shard in enumerate(manifest.shards):
            for variable, start, stop in shard.slices:
                self._parts[variable].append(_Part(start, stop, index))
        for parts in self._parts.values():
            parts.sort(key=lambda part: (part.start, part.stop))
        self._opened: dict[int, ShardReader] = {}

    @property
    def path(self) -> str:
        """The checkpoint's directory."""
        return os.path.dirname(self._storage.path(self._prefix + MANIFEST))

    @property
    def checkpoint_id(self) -> str:
        """The checkpoint's id."""
        return self.manifest.checkpoint_id

    @property
    def global_step(self) -> int:
        """The step in the cut."""
        return self.manifest.global_step

    @property
    def variables(self) -> Mapping[str, VariableSpec]:
        """The variables by name, with optimizer and initializer as they were."""
        return self._variables

    def read(self, name: str) -> Array:
        """Return a variable's value, joined over its slices, in its shape (``()`` for a scalar).

        Raises:
            ModelError: if there is no such variable.
            CheckpointCorrupt: if a shard file does not fit the manifest.
        """
        spec = self._spec(name)
        return self._join(name, name, 0, spec.rows, spec.row_shape, spec.dtype).reshape(spec.shape)

    def read_rows(self, name: str, ids: Array) -> Array:
        """Return rows ``ids`` ``[n]`` (any order, duplicates allowed), ``[n, *row_shape]``.

        Raises:
            ModelError: if there is no such variable, or an id is not one of its rows.
            CheckpointCorrupt: if a shard file does not fit the manifest.
        """
        spec = self._spec(name)
        ids = np.asarray(ids, np.int64)
        check_rows(spec, ids)
        result = np.empty((len(ids), *spec.row_shape), DTYPES[spec.dtype])
        for part in self._parts[name]:
            here = np.flatnonzero((ids >= part.start) & (ids < part.stop))
            if len(here):
                result[here] = self._shard(part.shard).read_rows(name, ids[here] - part.start)
        return result

    def slot_names(self, name: str) -> tuple[str, ...]:
        """Return the names of a variable's slots, sorted."""
        spec = self._spec(name)
        parts = self._parts[name]
        return tuple(sorted(_slot_keys(spec, self._shard(parts[0].shard)))) if parts else ()

    def read_slot(self, name: str, slot: str) -> Array:
        """Return a slot of a variable, whole, ``[rows, ...]``.

        Raises:
            ModelError: if there is no such variable or slot.
        """
        spec = self._spec(name)
        if slot not in self.slot_names(name):
            raise ModelError(f"Variable {name!r} has no slot {slot!r} in {self.path}.")
        return self._join_slot(spec, slot, 0, spec.rows)

    def slice_state(self, name: str, start: int, stop: int) -> SliceState:
        """Return value, slots and scalars of rows ``[start, stop)``, from whichever files.

        Scalars belong to a slice; those of the slice that held ``start`` are returned.

        Raises:
            ModelError: if there is no such variable, or the rows are not its own.
            CheckpointCorrupt: if a shard file does not fit the manifest.
        """
        spec = self._spec(name)
        if not 0 <= start < stop <= spec.rows:
            raise ModelError(f"Variable {name!r} has {spec.rows} rows, not [{start}, {stop}).")
        part, _, _ = next(self._overlaps(name, start, stop))
        shard = self._shard(part.shard)
        scalars = shard.metadata.get("scalars", {}).get(name, {})
        return SliceState(
            self._join(name, name, start, stop, spec.row_shape, spec.dtype),
            {slot: self._join_slot(spec, slot, start, stop) for slot in _slot_keys(spec, shard)},
            {key: float(number) for key, number in scalars.items()},
        )

    def verify(self, hashes: bool = True) -> None:
        """Check every shard file: there, of its size, of its hash, of this cut.

        Args:
            hashes: False leaves the reading of all bytes out.

        Raises:
            CheckpointCorrupt: naming the first file that is not as the manifest says.
        """
        for index, shard in enumerate(self.manifest.shards):
            name = self._prefix + shard.file
            path = self._storage.path(name)
            try:
                size = self._storage.size(name)
            except CheckpointNotFound as error:
                raise CheckpointCorrupt(f"{path} is missing.") from error
            if size != shard.bytes:
                raise CheckpointCorrupt(f"{path}: expected {shard.bytes} bytes, found {size}.")
            if hashes and (digest := sha256(self._storage, name)) != shard.sha256:
                raise CheckpointCorrupt(f"{path}: expected sha256 {shard.sha256}, found {digest}.")
            self._shard(index)

    def _spec(self, name: str) -> VariableSpec:
        if name not in self._variables:
            raise ModelError(
                f"{self.path} has no variable {name!r}; it has {sorted(self._variables)}."
            )
        return self._variables[name]

    def _join_slot(self, spec: VariableSpec, slot: str, start: int, stop: int) -> Array:
        part, _, _ = next(self._overlaps(spec.name, start, stop))
        shard = self._shard(part.shard)
        key = _slot_keys(spec, shard)[slot]
        like = shard.view(key)
        return self._join(spec.name, key, start, stop, like.shape[1:], like.dtype)

    def _join(
        self, name: str, key: str, start: int, stop: int, row_shape: tuple[int, ...], dtype: Any
    ) -> Array:
        result = np.empty((stop - start, *row_shape), dtype)
        for part, low, high in self._overlaps(name, start, stop):
            rows = self._shard(part.shard).view(key)[low - part.start : high - part.start]
            result[low - start : high - start] = rows
        return result

    def _overlaps(self, name: str, start: int, stop: int) -> Iterator[tuple[_Part, int, int]]:
        for part in self._parts[name]:
            low, high = max(start, part.start), min(stop, part.stop)
            if low < high:
                yield part, low, high

    def _shard(self, index: int) -> ShardReader:
        if index not in self._opened:
            shard = ShardReader(self._storage, self._prefix + self.manifest.shards[index].file)
            self._check(index, shard)
            self._opened[index] = shard
        return self._opened[index]

    def _check(self, index: int, shard: ShardReader) -> None:
        """Compare a shard file with the manifest, all but its hash."""
        entry, metadata = self.manifest.shards[index], shard.metadata
        path = self._storage.path(self._prefix + entry.file)
        for what, given, expected in (
            ("checkpoint id", metadata.get("checkpoint_id"), self.checkpoint_id),
            ("cut", _plain(metadata.get("cut", {})), _plain(self.manifest.cut)),
            ("slices", sorted(map(tuple, metadata.get("slices", ()))), sorted(entry.slices)),
        ):
            if given != expected:
                raise CheckpointCorrupt(f"{path}: the manifest has {what} {expected}, not {given}.")
        for variable, start, stop in entry.slices:
            spec = self._variables[variable]
            expected_shape = (stop - start, *spec.row_shape)
            for key in (variable, *_slot_keys(spec, shard).values()):
                if key not in shard or len(shard.view(key)) != stop - start:
                    raise CheckpointCorrupt(f"{path}: tensor {key!r} has not the slice's rows.")
            value = shard.view(variable)
            if value.shape != expected_shape or value.dtype != DTYPES[spec.dtype]:
                raise CheckpointCorrupt(
                    f"{path}: tensor {variable!r} is {value.dtype} {value.shape}, "
                    f"the manifest has {spec.dtype} {expected_shape}."
                )


def check_rows(spec: VariableSpec, ids: Array) -> None:
    """Check that ids ``[n]`` are rows of a variable.

    Raises:
        ModelError: if one is not.
    """
    if len(ids) and (ids.min() < 0 or ids.max() >= spec.rows):
        raise ModelError(
            f"Variable {spec.name!r} has rows 0 to {spec.rows - 1}, "
            f"asked for {ids.min()} to {ids.max()}."
        )


def open_checkpoint_dir(path: str | os.PathLike[str]) -> CheckpointReader:
    """Open the checkpoint whose directory this is, wherever it was copied to.

    Raises:
        CheckpointNotFound: if there is no manifest.
        CheckpointCorrupt: if the manifest cannot be read.
    """
    storage = FileStorage(path)
    if not storage.exists(MANIFEST):
        raise CheckpointNotFound(f"{storage.root} is no checkpoint: it has no {MANIFEST}.")
    manifest = Manifest.from_json(storage.read(MANIFEST), storage.path(MANIFEST))
    return CheckpointReader(storage, manifest, directory="")


def _slot_keys(spec: VariableSpec, shard: ShardReader) -> dict[str, str]:
    """Return the tensor keys of a variable's slots in a shard file, by slot name."""
    if not spec.optimizer:
        return {}
    prefix = f"{spec.name}/{spec.optimizer['kind']}/"
    keys = [key for key in set(shard.keys()) if key.startswith(prefix)]
    return {key[len(prefix) :]: key for key in sorted(keys) if "/" not in key[len(prefix) :]}


def _plain(cut: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return a cut as JSON has it, to be compared."""
    return {task: [int(number) for number in last] for task, last in cut.items()}
