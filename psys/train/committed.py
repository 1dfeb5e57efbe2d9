"""The checkpoints that exist, as the chief keeps them: committed, told to every ps, deleted.

Nothing here decides when: ``psys.train.chief`` does, on the lead's word.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from psys.checkpoint.catalog import find_latest_valid
from psys.checkpoint.manifest import Manifest, ShardEntry, commit, load_all
from psys.checkpoint.retention import delete, plan_deletions
from psys.checkpoint.storage import FileStorage
from psys.errors import CheckpointError, ClusterError, ModelError, ShardUnavailable
from psys.parameters import Parameters
from psys.ps.messages import CheckpointEntry, ChiefOrders, SaveResult
from psys.ps.shard import Shard
from psys.train.shard_files import fetch_checkpoint, fetch_missing

logger = logging.getLogger("psys")


@dataclass(frozen=True)
class KeepRules:
    """Which checkpoints stay: RunConfig's ``keep_checkpoint_max`` and ``_every_n_hours``."""

    keep_max: int | None = 5
    every_n_hours: float | None = 10000


@dataclass(frozen=True)
class Circumstances:
    """What a manifest says besides what was cut.

    Attributes:
        job_id: the run of the job.
        member: the chief's member number.
        final: whether the job ends with the checkpoint.
        evaluator_expected: whether an evaluator has a part in the job.
    """

    job_id: str
    member: int
    final: bool
    evaluator_expected: bool


def entry_of(storage: FileStorage, manifest: Manifest, final: bool = False) -> CheckpointEntry:
    """Return a manifest as the lead's catalogue has it."""
    path = storage.path(manifest.directory)
    return CheckpointEntry(manifest.checkpoint_id, manifest.global_step, path, final)


class CommittedCheckpoints:
    """The manifests below the chief's model_dir, and every ps's copies of them."""

    def __init__(
        self,
        model_dir: str,
        parameters: Parameters,
        keep: KeepRules,
        addresses: tuple[str, ...],
        token: str | None,
    ) -> None:
        """Read what there is.

        Args:
            model_dir: where checkpoints are committed.
            parameters: knows the model and the way to every ps.
            keep: which checkpoints stay.
            addresses: of the ps, to fetch shard files from where no file system is shared.
            token: the job's token.
        """
        self.storage = FileStorage(model_dir)
        self._parameters = parameters
        self._keep = keep
        self._addresses = addresses
        self._token = token
        self._manifests = load_all(self.storage)
        self._begun = time.monotonic()
        # Until this chief loads a model, it goes on with a live one.
        newest = self._manifests[-1] if self._manifests else None
        self._earlier_secs = 0.0 if newest is None else newest.wall_secs
        """Training time before ``_begun``."""

    @property
    def any(self) -> bool:
        """Whether there is a checkpoint."""
        return bool(self._manifests)

    def entries(self, final_id: str) -> tuple[CheckpointEntry, ...]:
        """Return all, oldest first, for the lead's catalogue."""
        ordered = sorted(self._manifests, key=lambda one: one.order)
        return tuple(entry_of(self.storage, one, one.checkpoint_id == final_id) for one in ordered)

    def choose(self, orders: ChiefOrders) -> Manifest | None:
        """Return the checkpoint to go on from, None for none; what is newer counts no more.

        Raises:
            CheckpointError: if a ps keeps a newer one that cannot be had: training afresh would
                be a loss in silence.
            ShardUnavailable: if a ps that is needed cannot be reached just now.
        """
        self._fetch_newest(orders.newest_step, orders.newest_checkpoint)
        manifest = find_latest_valid(self.storage)
        order = (-1, 0.0, "") if manifest is None else manifest.order
        self._manifests = [one for one in self._manifests if one.order <= order]
        self._earlier_secs = 0.0 if manifest is None else manifest.wall_secs
        self._begun = time.monotonic()
        return manifest

    def _fetch_newest(self, step: int, newest: str) -> None:
        """Bring here the newest checkpoint a ps keeps, if this disk does not have it."""
        if not newest or newest in {one.checkpoint_id for one in self._manifests}:
            return
        if self._manifests and self._manifests[-1].global_step > step:
            return
        try:
            fetched = fetch_checkpoint(self.storage, step, newest, self._addresses, self._token)
        except ShardUnavailable:
            raise
        except (CheckpointError, ClusterError) as error:
            raise CheckpointError(
                f"A ps keeps a checkpoint of step {step} ({newest}) that is not in "
                f"{self.storage.root} and could not be fetched: {error} Copy it here, or give "
                "every task an empty model_dir to begin afresh."
            ) from error
        logger.info("Fetched the checkpoint of step %d from the ps.", step)
        self._manifests.append(fetched)

    def commit(self, saved: SaveResult, circumstances: Circumstances) -> None:
        """Make a checkpoint exist: fetch what cannot be seen, write the manifest, tell every ps.

        Raises:
            CheckpointError: if a shard file cannot be had, or the manifest not be written.
            OSError: if the disk refuses.
        """
        manifest = self._manifest(saved, circumstances)
        fetch_missing(self.storage, manifest, self._addresses, self._token)
        commit(self.storage, manifest)
        self._manifests.append(manifest)
        member, text = circumstances.member, manifest.to_json()
        self._on_every_ps(lambda shard: shard.keep_manifest(saved.generation, member, text))
        logger.info(
            "Saved checkpoint for step %d: %s",
            manifest.global_step,
            self.storage.path(manifest.directory),
        )

    def _manifest(self, saved: SaveResult, circumstances: Circumstances) -> Manifest:
        shard_map = self._parameters.shard_map
        return Manifest(
            checkpoint_id=saved.checkpoint_id,
            job_id=circumstances.job_id,
            generation=saved.generation,
            global_step=saved.global_step,
            created_unix_secs=time.time(),
            variables=tuple(self._parameters.specs.values()),
            shards=tuple(
                ShardEntry(
                    file=file.name,
                    bytes=file.size_bytes,
                    sha256=file.sha256,
                    slices=tuple((s.variable, s.start, s.stop) for s in shard_map.on(index)),
                )
                for index, file in enumerate(saved.files)
            ),
            cut={task: (member, sequence) for task, (member, sequence) in saved.cut.items()},
            torn=saved.torn,
            wall_secs=self._earlier_secs + time.monotonic() - self._begun,
            examples=saved.examples,
            input_positions=saved.inputs,
            final=circumstances.final,
            evaluator_expected=circumstances.evaluator_expected,
        )

    def take_old(self, spared: frozenset[str]) -> list[Manifest]:
        """Return what need not stay, and forget it: nobody new begins to read it.

        Args:
            spared: ids that stay whatever the rules say.
        """
        keep = self._keep
        doomed = plan_deletions(self._manifests, keep.keep_max, keep.every_n_hours, spared)
        self._manifests = [one for one in self._manifests if one not in doomed]
        return doomed

    def delete(self, doomed: list[Manifest], generation: str, member: int) -> None:
        """Delete checkpoints here and on every ps.

        Args:
            doomed: what ``take_old`` returned.
            generation: the live one.
            member: the chief's member number.
        """
        for manifest in doomed:
            try:
                delete(self.storage, manifest)
            except OSError as error:
                logger.warning("An old checkpoint could not be deleted: %s", error)
            step, checkpoint_id = manifest.global_step, manifest.checkpoint_id

            def forget(shard: Shard, step: int = step, one: str = checkpoint_id) -> None:
                shard.delete_checkpoint(generation, member, step, one)

            self._on_every_ps(forget)

    def _on_every_ps(self, call: Callable[[Shard], None]) -> None:
        """Tell every ps about a checkpoint; one that does not hear keeps what it has."""
        for shard in self._parameters.shards:
            try:
                call(shard)
            except (ClusterError, ModelError, CheckpointError) as error:
                logger.warning("A ps was not told of a checkpoint: %s", error)
