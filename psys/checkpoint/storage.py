"""Where checkpoint files lie: named bytes that appear whole or not at all.

``Storage`` is the interface, ``FileStorage`` a directory, ``MemoryStorage`` a dictionary for
simulations. A name is a relative path of plain parts (``checkpoints/model-.../manifest.json``);
anything else is refused before it meets a file system. Nothing here knows what a checkpoint is.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import re
import tempfile
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import BinaryIO

from psys.errors import CheckpointError, CheckpointNotFound, ConfigError

Fault = Callable[[str], None]
"""Called at a named point of a commit, so that a test can kill the process there."""

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
# Begins with a dot, so that no checked name can ever mean a file that is not finished.
_STAGED = ".staged-"

UNWRITABLE = "model_dir "
"""How the message of ``FileStorage.check_writable`` begins; the directory follows."""


def no_fault(point: str) -> None:
    """Do nothing; the default ``Fault``."""


def check_name(name: str) -> tuple[str, ...]:
    """Return the parts of a name.

    Raises:
        CheckpointError: if the name is absolute, or a part is empty, '.', '..', hidden, or has
            a character other than letters, digits, '.', '_' and '-'.
    """
    parts = tuple(name.split("/"))
    for part in parts:
        if not _PART.fullmatch(part):
            raise CheckpointError(
                f"A storage name must be relative, of parts like {_PART.pattern}; "
                f"got {name!r} (part {part!r})."
            )
    return parts


class Storage(ABC):
    """Named bytes. Every write is atomic: a reader sees the old bytes, the new, or none."""

    @abstractmethod
    def path(self, name: str) -> str:
        """Return what to call the file in messages; a file system path where there is one."""

    @abstractmethod
    def view(self, name: str) -> memoryview:
        """Return the bytes read-only, mapped rather than loaded where that is possible.

        Raises:
            CheckpointNotFound: if there is no such file. So do the other readers.
        """

    @abstractmethod
    def open_reader(self, name: str) -> BinaryIO:
        """Open the bytes for reading from their beginning."""

    @abstractmethod
    def size(self, name: str) -> int:
        """Return the number of bytes."""

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Say whether there is such a file."""

    @abstractmethod
    def list(self, directory: str = "") -> tuple[str, ...]:
        """Return the names of all files below a directory ('' for all), sorted."""

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Create or replace a file, durably."""

    @abstractmethod
    def write_once(self, name: str, data: bytes) -> bool:
        """Create a file, durably; False, and nothing changed, if there is one already."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file; one that is not there is no error."""

    @abstractmethod
    def prune(self, directory: str) -> None:
        """Remove a directory and what killed writers left in it, if nothing else is in it."""

    def read(self, name: str) -> bytes:
        """Return all the bytes."""
        with self.open_reader(name) as reader:
            return reader.read()

    def write_file(self, name: str, fill: Callable[[str], None], fault: Fault = no_fault) -> None:
        """Create or replace a file, durably, with what ``fill(path)`` writes to a local path.

        For what is too big to pass as bytes, or comes from a library that wants a path.
        """
        with tempfile.TemporaryDirectory(prefix="psys-") as directory:
            path = os.path.join(directory, "file")
            fill(path)
            with open(path, "rb") as written:
                data = written.read()
        fault("before_rename")
        self.write(name, data)


class FileStorage(Storage):
    """Files below a directory, which is created at the first write.

    Every write goes to a staged file in the same directory, is fsynced, then renamed (or
    linked, for ``write_once``) and the directory is fsynced: after a power cut a name means
    all of its bytes or nothing.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = os.path.abspath(os.fspath(root))

    def check_writable(self) -> None:
        """Create the directory, and for a moment a file in it: before work is done in vain.

        Raises:
            ConfigError: if the system refuses.
        """
        try:
            _make_directory(self.root)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise ConfigError(
                f"{UNWRITABLE}{self.root} cannot be written to: {error}. Name a directory that "
                "this process may create, or write to."
            ) from error

    def path(self, name: str) -> str:
        """Return the absolute path."""
        return os.path.join(self.root, *check_name(name))

    def view(self, name: str) -> memoryview:
        """Map the file."""
        with self.open_reader(name) as reader:
            if not os.fstat(reader.fileno()).st_size:
                return memoryview(b"")  # an empty file cannot be mapped
            return memoryview(mmap.mmap(reader.fileno(), 0, access=mmap.ACCESS_READ))

    def open_reader(self, name: str) -> BinaryIO:
        """Open the file."""
        with self._found(name) as path:
            return open(path, "rb")

    def size(self, name: str) -> int:
        """Return the file's size."""
        with self._found(name) as path:
            return os.stat(path).st_size

    def exists(self, name: str) -> bool:
        """Say whether the path is a file."""
        return os.path.isfile(self.path(name))

    def list(self, directory: str = "") -> tuple[str, ...]:
        """Walk the directory; files that no name can mean (staged, hidden) are not listed."""
        names = []
        for where, _, files in os.walk(self.path(directory) if directory else self.root):
            for file in files:
                name = os.path.relpath(os.path.join(where, file), self.root).replace(os.sep, "/")
                if all(_PART.fullmatch(part) for part in name.split("/")):
                    names.append(name)
        return tuple(sorted(names))

    def write(self, name: str, data: bytes) -> None:
        """Stage, fsync, rename, fsync the directory."""
        self.write_file(name, lambda path: _dump(path, data))

    def write_file(self, name: str, fill: Callable[[str], None], fault: Fault = no_fault) -> None:
        """Let ``fill`` write the staged file itself, so nothing is held in memory twice."""
        with self._staged(name, fill) as staged:
            fault("before_rename")
            os.replace(staged, self.path(name))

    def write_once(self, name: str, data: bytes) -> bool:
        """Stage, fsync, hard-link (which fails where the name exists), fsync the directory."""
        with self._staged(name, lambda path: _dump(path, data)) as staged:
            try:
                os.link(staged, self.path(name))
            except FileExistsError:
                return False
        return True

    def remove(self, name: str) -> None:
        """Unlink the file."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path(name))

    def prune(self, directory: str) -> None:
        """Unlink staged files, then remove the directory; one that holds more stays."""
        path = self.path(directory)
        with contextlib.suppress(OSError):
            for file in os.listdir(path):
                if file.startswith(_STAGED):
                    os.unlink(os.path.join(path, file))
            os.rmdir(path)
            sync(os.path.dirname(path))

    @contextlib.contextmanager
    def _found(self, name: str) -> Iterator[str]:
        path = self.path(name)
        try:
            yield path
        except (FileNotFoundError, NotADirectoryError) as error:
            raise CheckpointNotFound(f"There is no file {path}.") from error

    @contextlib.contextmanager
    def _staged(self, name: str, fill: Callable[[str], None]) -> Iterator[str]:
        directory = os.path.dirname(self.path(name))
        _make_directory(directory)
        staged = os.path.join(directory, _STAGED + uuid.uuid4().hex)
        try:
            fill(staged)
            sync(staged)
            yield staged
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(staged)
        sync(directory)


class MemoryStorage(Storage):
    """A dictionary of bytes: the real thing for simulations and tests, gone with the process."""

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def path(self, name: str) -> str:
        """Return ``memory:<name>``."""
        return "memory:" + "/".join(check_name(name))

    def view(self, name: str) -> memoryview:
        """Return the bytes."""
        return memoryview(self._found(name))

    def open_reader(self, name: str) -> BinaryIO:
        """Open the bytes."""
        return io.BytesIO(self._found(name))

    def size(self, name: str) -> int:
        """Return the number of bytes."""
        return len(self._found(name))

    def exists(self, name: str) -> bool:
        """Say whether the name is there."""
        return "/".join(check_name(name)) in self._files

    def list(self, directory: str = "") -> tuple[str, ...]:
        """Return the names that begin with ``directory/``."""
        prefix = "/".join(check_name(directory)) + "/" if directory else ""
        with self._lock:
            return tuple(sorted(name for name in self._files if name.startswith(prefix)))

    def write(self, name: str, data: bytes) -> None:
        """Set the bytes."""
        with self._lock:
            self._files["/".join(check_name(name))] = bytes(data)

    def write_once(self, name: str, data: bytes) -> bool:
        """Set the bytes if the name is new."""
        with self._lock:
            key = "/".join(check_name(name))
            if key in self._files:
                return False
            self._files[key] = bytes(data)
            return True

    def remove(self, name: str) -> None:
        """Forget the name."""
        with self._lock:
            self._files.pop("/".join(check_name(name)), None)

    def prune(self, directory: str) -> None:
        """Do nothing: a dictionary has no directories."""
        check_name(directory)

    def _found(self, name: str) -> bytes:
        try:
            return self._files["/".join(check_name(name))]
        except KeyError:
            raise CheckpointNotFound(f"There is no file {self.path(name)}.") from None


def _dump(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


def _make_directory(path: str) -> None:
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    _make_directory(parent)
    with contextlib.suppress(FileExistsError):  # another ps was first
        os.mkdir(path)
    sync(parent)


def sync(path: str) -> None:
    """Force a file's bytes, or a directory's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
