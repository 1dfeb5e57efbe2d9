"""Which checkpoints there are, and which is the latest one that can be used.

Disk is the truth, and is looked at each time. A checkpoint found bad is reported in one line,
passed over, never deleted.
"""

from __future__ import annotations

import logging
import os

from psys.checkpoint.manifest import MANIFEST, Manifest, load_all
from psys.checkpoint.reader import CheckpointReader, open_checkpoint_dir
from psys.checkpoint.storage import FileStorage, Storage
from psys.errors import CheckpointError, CheckpointNotFound

_log = logging.getLogger(__name__)


def find_latest_valid(storage: Storage, hashes: bool = True) -> Manifest | None:
    """Return the newest checkpoint that passes ``CheckpointReader.verify``, or None.

    One that does not is reported in one warning, left where it is, and the one before is tried.

    Args:
        storage: model_dir.
        hashes: False leaves out the reading of all bytes: existence, sizes and headers only.
    """
    for manifest in reversed(load_all(storage)):
        try:
            CheckpointReader(storage, manifest).verify(hashes)
        except CheckpointError as error:
            if storage.exists(manifest.name):  # else it was deleted meanwhile
                _log.warning("%s is passed over: %s", storage.path(manifest.directory), error)
        else:
            return manifest
    return None


def latest_checkpoint(model_dir: str | os.PathLike[str]) -> str | None:
    """Return the directory of the newest checkpoint in model_dir, or None if there is none.

    Cheap enough to be called often: files are looked for and their headers read, not hashed.
    """
    storage = FileStorage(model_dir)
    manifest = find_latest_valid(storage, hashes=False)
    return storage.path(manifest.directory) if manifest else None


def open_checkpoint(path_or_model_dir: str | os.PathLike[str]) -> CheckpointReader:
    """Open a checkpoint's directory, or the newest valid one of a model_dir.

    An export is opened by ``psys.estimator.export.open_model``, which takes all three.

    Raises:
        CheckpointNotFound: if there is no checkpoint there.
        CheckpointCorrupt: if it was named, and its manifest cannot be read.
    """
    storage = FileStorage(path_or_model_dir)
    if storage.exists(MANIFEST):
        return open_checkpoint_dir(path_or_model_dir)
    manifest = find_latest_valid(storage)
    if manifest is None:
        raise CheckpointNotFound(
            f"{storage.root} is neither a checkpoint nor a model_dir with a valid one."
        )
    return CheckpointReader(storage, manifest)
