"""One shard's part of a checkpoint, as one safetensors file.

A tensor is the rows of a slice, ``[rows, ...]`` (a scalar variable is one row, ``[1]``): the
value under the variable's name, a slot under ``<variable>/<OptimizerKind>/<slot>``. What is no
tensor (rows covered, scalars, cut) is JSON under the key ``psys`` of the file's metadata. A
shard without slices writes a valid file of no tensors. Writing takes tensors block by block, and
hashes what it writes; reading maps the file and touches only the rows asked for. Nothing here
knows which files make a checkpoint: ``manifest.py``.

The format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from psys.arrays import DTYPES, Array
from psys.checkpoint.storage import Fault, Storage, no_fault
from psys.errors import CheckpointCorrupt, CheckpointError, ModelError

METADATA_KEY = "psys"

_CODES = {"F32": "<f4", "F64": "<f8", "I32": "<i4", "I64": "<i8"}
_CODE_OF = {np.dtype(kind).name: code for code, kind in _CODES.items()}
_HASH_CHUNK_BYTES = 1 << 20
# The library's own limit; a length beyond it means the first eight bytes are not a length.
_MAX_HEADER_BYTES = 100_000_000


class Tensor(Protocol):
    """An array that is read in blocks, so that it need not lie in memory as it is written."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(rows, ...)``."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """One of ``DTYPES``."""

    def blocks(self) -> Iterator[Array]:
        """Yield all rows in order, ``[some, ...]`` at a time."""


@dataclass(frozen=True)
class FileInfo:
    """What a written file is known by: its storage name, size and sha256 (hex)."""

    name: str
    bytes: int
    sha256: str


def write_shard(
    storage: Storage,
    name: str,
    values: Mapping[str, Array | Tensor],
    metadata: Mapping[str, Any],
    fault: Fault = no_fault,
) -> FileInfo:
    """Write a shard file, durably and in one step.

    Args:
        storage: where to.
        name: its storage name: ``checkpoint_dir(...)/shard_file_name(...)``.
        values: ``[rows, ...]`` by tensor key (see the module's docstring): arrays, or tensors
            that are read in blocks.
        metadata: JSON-able; as used here ``checkpoint_id``, ``generation``, ``shard`` (index),
            ``slices`` ``[[variable, start, stop], ...]``, ``scalars``
            ``{variable: {name: float}}``, ``cut`` ``{task: [member, sequence]}``.
        fault: called with "before_rename".

    Raises:
        CheckpointError: if an array has no rows axis or a dtype that is not in ``DTYPES``.
    """
    for key, value in values.items():
        if not value.shape or value.dtype.name not in DTYPES:
            raise CheckpointError(
                f"Tensor {key!r} of {name}: expected [rows, ...] of {sorted(DTYPES)}, "
                f"got shape {value.shape} of {value.dtype}."
            )
    digest = hashlib.sha256()

    def fill(path: str) -> None:
        with open(path, "wb") as file:
            for piece in _pieces(values, metadata):
                file.write(piece)
                digest.update(piece)

    storage.write_file(name, fill, fault)
    return FileInfo(name, storage.size(name), digest.hexdigest())


def _pieces(
    values: Mapping[str, Array | Tensor], metadata: Mapping[str, Any]
) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a file: the header's length, the header, and the tensors as it says."""
    # The widest first: so each begins at a multiple of its width, as the header ends at one of 8.
    ordered = sorted(values.items(), key=lambda item: -item[1].dtype.itemsize)
    # Scalars and counters may be numpy's; item() is the plain number.
    text = json.dumps(metadata, sort_keys=True, default=lambda n: n.item())
    header: dict[str, Any] = {"__metadata__": {METADATA_KEY: text}}
    end = 0
    for key, value in ordered:
        begin, end = end, end + math.prod(value.shape) * value.dtype.itemsize
        code = _CODE_OF[value.dtype.name]
        header[key] = {"dtype": code, "shape": value.shape, "data_offsets": [begin, end]}
    encoded = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    encoded += b" " * (-len(encoded) % 8)
    yield len(encoded).to_bytes(8, "little")
    yield encoded
    for key, value in ordered:
        little_endian = _CODES[header[key]["dtype"]]
        for block in [value] if isinstance(value, np.ndarray) else value.blocks():
            if block.size:
                yield np.ascontiguousarray(block, little_endian).data


def sha256(storage: Storage, name: str) -> str:
    """Return the hex sha256 of a file, read in chunks."""
    digest = hashlib.sha256()
    with storage.open_reader(name) as reader:
        while chunk := reader.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@dataclass(frozen=True)
class _Tensor:
    """Where a tensor lies in the file."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int


class ShardReader:
    """A shard file, mapped; only what is read is loaded.

    Attributes:
        metadata: the dict that ``write_shard`` was given.

    Raises:
        CheckpointNotFound: if there is no such file.
        CheckpointCorrupt: if it is short, or no shard file.
    """

    def __init__(self, storage: Storage, name: str) -> None:
        self._path = storage.path(name)
        self._buffer = storage.view(name)
        try:
            header, begin = _parse_header(self._buffer)
            texts = header.pop("__metadata__", {})
            self.metadata: dict[str, Any] = dict(json.loads(texts[METADATA_KEY]))
            self._tensors = {
                key: _parse_tensor(entry, begin, len(self._buffer)) for key, entry in header.items()
            }
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointCorrupt(f"{self._path}: not a readable shard file: {error}.") from error

    def keys(self) -> tuple[str, ...]:
        """Return the tensor keys, sorted."""
        return tuple(sorted(self._tensors))

    def __contains__(self, key: str) -> bool:
        return key in self._tensors

    def view(self, key: str) -> Array:
        """Return a tensor ``[rows, ...]``, read-only and mapped: pages load when touched.

        Raises:
            ModelError: if the file has no such tensor.
        """
        if key not in self._tensors:
            raise ModelError(f"{self._path} has no tensor {key!r}; it has {list(self.keys())}.")
        tensor = self._tensors[key]
        count = math.prod(tensor.shape)
        if not count:
            return np.empty(tensor.shape, tensor.dtype)
        flat = np.frombuffer(self._buffer, tensor.dtype, count, tensor.offset)
        return flat.reshape(tensor.shape)

    def read(self, key: str) -> Array:
        """Return a copy of a tensor, ``[rows, ...]``."""
        return self.view(key).copy()

    def read_rows(self, key: str, rows: Array) -> Array:
        """Return some rows of a tensor, ``[n, ...]``, loading no others.

        Args:
            key: the tensor's key.
            rows: ``[n]`` int64, counted from the slice's first row, in any order.

        Raises:
            ModelError: if the file has no such tensor, or a row is out of its range.
        """
        tensor = self.view(key)
        if len(rows) and (rows.min() < 0 or rows.max() >= len(tensor)):
            raise ModelError(
                f"{self._path}: tensor {key!r} has rows 0 to {len(tensor) - 1}, "
                f"asked for {rows.min()} to {rows.max()}."
            )
        return np.asarray(tensor[rows])


def _parse_header(buffer: memoryview) -> tuple[dict[str, Any], int]:
    """Return the JSON header and where the tensors' bytes begin."""
    length = int.from_bytes(buffer[:8], "little")
    if len(buffer) < 8 or length > min(len(buffer) - 8, _MAX_HEADER_BYTES):
        raise ValueError(f"{len(buffer)} bytes cannot hold a header of {length}")
    header = json.loads(bytes(buffer[8 : 8 + length]))
    if not isinstance(header, dict):
        raise ValueError("the header is no JSON object")
    return header, 8 + length


def _parse_tensor(entry: Mapping[str, Any], begin: int, end: int) -> _Tensor:
    """Return where a tensor lies, after checking that it lies in the file."""
    dtype = np.dtype(_CODES[entry["dtype"]])
    shape = tuple(int(size) for size in entry["shape"])
    first, last = (begin + int(offset) for offset in entry["data_offsets"])
    expected = math.prod(shape) * dtype.itemsize
    if not shape or min(shape) < 0 or last - first != expected or not begin <= first <= last <= end:
        raise ValueError(f"tensor {dict(entry)} does not fit in bytes {begin} to {end}")
    return _Tensor(dtype, shape, first)
