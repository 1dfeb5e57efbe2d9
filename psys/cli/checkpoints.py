"""``psys checkpoints MODEL_DIR|HOST:PORT``: the checkpoints of a model, newest last.

A directory is read as it lies on disk; an address is asked, so that a model_dir one cannot see
can still be listed. Nothing is changed by looking.
"""

from __future__ import annotations

import argparse
import re
import time
from dataclasses import dataclass
from pathlib import Path

from psys.checkpoint.manifest import Manifest, load_all
from psys.checkpoint.storage import FileStorage
from psys.environment import job_token
from psys.errors import ConfigError
from psys.ps.messages import CheckpointEntry
from psys.rpc.remote_catalog import list_checkpoints
from psys.table import format_table

_ADDRESS = re.compile(r"[^/\s]+:\d{1,5}")
_HEADER = ("STEP", "ID", "AGE", "SIZE", "FINAL", "PATH")
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True)
class CheckpointRow:
    """One line of the table.

    Attributes:
        step: the global step it was saved at.
        checkpoint_id: what tells it from others of the same step.
        age_secs: since it was created; None where the lead was asked, which does not tell.
        size_bytes: of all its shard files; None likewise.
        final: whether the job ended with it.
        path: where it lies.
    """

    step: int
    checkpoint_id: str
    age_secs: float | None
    size_bytes: int | None
    final: bool
    path: str

    @property
    def cells(self) -> tuple[str, ...]:
        """What is printed, in the order of the header."""
        return (
            str(self.step),
            self.checkpoint_id,
            "-" if self.age_secs is None else format_age(self.age_secs),
            "-" if self.size_bytes is None else format_size(self.size_bytes),
            "yes" if self.final else "no",
            self.path,
        )


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``checkpoints`` to the commands of ``psys``."""
    parser = commands.add_parser(
        "checkpoints",
        help="list the checkpoints in a model_dir, or of a running job",
        description="List checkpoints: in MODEL_DIR, or those the lead at HOST:PORT knows.",
        allow_abbrev=False,
    )
    parser.add_argument("source", metavar="MODEL_DIR|HOST:PORT")
    parser.set_defaults(handler=run)


def run(options: argparse.Namespace) -> int:
    """Print the table and return 0.

    Raises:
        ConfigError: the argument is neither a directory nor an address.
    """
    rows = find_rows(options.source, time.time())
    if rows:
        print("\n".join(format_table([_HEADER, *(row.cells for row in rows)])))
    else:
        print(f"no checkpoints in {options.source}")
    return 0


def find_rows(source: str, now_unix_secs: float) -> list[CheckpointRow]:
    """Return one row for each checkpoint, oldest first.

    Raises:
        ConfigError: ``source`` is neither a directory nor ``HOST:PORT``.
        ShardUnavailable: nobody answers at that address.
    """
    if Path(source).is_dir():
        storage = FileStorage(source)
        return [
            _manifest_row(manifest, storage.path(manifest.directory), now_unix_secs)
            for manifest in load_all(storage)
        ]
    if not _ADDRESS.fullmatch(source):
        raise ConfigError(
            f"expected a model_dir or HOST:PORT, but {source!r} is no directory and no address"
        )
    return [_entry_row(entry) for entry in list_checkpoints(source, job_token())]


def _manifest_row(manifest: Manifest, path: str, now_unix_secs: float) -> CheckpointRow:
    return CheckpointRow(
        step=manifest.global_step,
        checkpoint_id=manifest.checkpoint_id,
        age_secs=now_unix_secs - manifest.created_unix_secs,
        size_bytes=sum(shard.bytes for shard in manifest.shards),
        final=manifest.final,
        path=path,
    )


def _entry_row(entry: CheckpointEntry) -> CheckpointRow:
    return CheckpointRow(
        step=entry.global_step,
        checkpoint_id=entry.checkpoint_id,
        age_secs=None,
        size_bytes=None,
        final=entry.final,
        path=entry.path,
    )


def format_age(seconds: float) -> str:
    """Return e.g. ``12 s``, ``3 min``, ``5 h``, ``2 d``; whole units, rounded down."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(0.0, seconds) // 1:.0f} s"


def format_size(size_bytes: int) -> str:
    """Return e.g. ``512 B``, ``1.5 MiB``."""
    size, index = float(size_bytes), 0
    while size >= 1024 and index < len(_UNITS) - 1:
        size, index = size / 1024, index + 1
    return f"{size:.0f} B" if index == 0 else f"{size:.1f} {_UNITS[index]}"
