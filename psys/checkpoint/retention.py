"""Which checkpoints to delete, and deleting them.

The rule is a pure function of the manifests, so a restarted chief decides as the one before did.
Nothing here looks for checkpoints by itself, and nothing is deleted that has no manifest.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable

from psys.checkpoint.manifest import Manifest
from psys.checkpoint.storage import Storage

_log = logging.getLogger(__name__)


def plan_deletions(
    manifests: Iterable[Manifest],
    keep_max: int | None = 5,
    keep_every_n_hours: float | None = None,
    pinned: Collection[str] = (),
) -> list[Manifest]:
    """Return the checkpoints to delete now, oldest first; never the newest, never a pinned one.

    RunConfig's ``keep_checkpoint_max`` and ``keep_checkpoint_every_n_hours`` as tf.train.Saver
    means them: the newest ``keep_max`` stay. An older one stays for good if it was saved after
    the next keep time, which is then n hours later; the first is n hours from the beginning.
    Hours are hours of training (``Manifest.wall_secs``), so a restart does not begin them anew.

    Example: ``keep_max=2``, ``keep_every_n_hours=1``, saved after 0, 61, 70, 80, 90 minutes:
    those of 80 and 90 are the newest, that of 61 stays for good, those of 0 and 70 go.

    Args:
        manifests: all checkpoints, in any order.
        keep_max: how many of the newest stay; 0 or None for all.
        keep_every_n_hours: None for no such rule.
        pinned: ids that somebody reads just now.
    """
    newest_last = sorted(manifests, key=lambda manifest: manifest.order)
    if not keep_max:
        return []
    period_secs = keep_every_n_hours * 3600 if keep_every_n_hours is not None else float("inf")
    keep_after_secs = period_secs
    doomed = []
    # By time: what was saved later must not change what was decided before.
    for manifest in sorted(newest_last[:-keep_max], key=lambda m: (m.created_unix_secs, m.order)):
        if manifest.wall_secs > keep_after_secs:
            keep_after_secs += period_secs
        elif manifest.checkpoint_id not in pinned:
            doomed.append(manifest)
    return doomed


def delete(storage: Storage, manifest: Manifest) -> None:
    """Delete a checkpoint: its manifest first, then its files, then its directory.

    Killed in between, it leaves files that no reader looks at. Doing it again is no error.
    """
    storage.remove(manifest.name)
    _remove_files(storage, manifest.directory)
    _log.info("Deleted checkpoint %s.", storage.path(manifest.directory))


def _remove_files(storage: Storage, directory: str) -> None:
    for name in storage.list(directory):
        storage.remove(name)
    storage.prune(directory)
