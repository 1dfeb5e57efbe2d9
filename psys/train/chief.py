"""ChiefControl: what only the chief does, in a thread of its own.

It creates or restores the model when the lead says so, commits a checkpoint when every shard
has written its file, and deletes old ones. The training thread hangs in an exchange exactly
when a ps must be restored, so none of this may run there.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from psys.arrays import VariableSpec
from psys.attendance import SAY_EVERY_SECS, Attendance
from psys.checkpoint.catalog import find_latest_valid
from psys.checkpoint.manifest import Manifest, ShardEntry, commit, load_all
from psys.checkpoint.reader import CheckpointReader
from psys.checkpoint.retention import delete, plan_deletions
from psys.checkpoint.storage import FileStorage
from psys.errors import CheckpointError, ClusterError, ModelError, PsysError, ShardUnavailable
from psys.parameters import Parameters
from psys.ps.messages import (
    CheckpointEntry,
    ChiefFacts,
    ChiefOrders,
    Directive,
    SaveResult,
    Verdict,
)
from psys.ps.shard import LoadedSlice, Shard
from psys.train.interrupts import SIGNALS
from psys.train.shard_files import fetch_checkpoint, fetch_missing

logger = logging.getLogger("psys")

RETRY_SECS = 0.5


@dataclass(frozen=True)
class KeepRules:
    """Which checkpoints stay: RunConfig's ``keep_checkpoint_max`` and ``_every_n_hours``."""

    keep_max: int | None = 5
    every_n_hours: float | None = 10000


def entry_of(storage: FileStorage, manifest: Manifest, final: bool = False) -> CheckpointEntry:
    """Return a manifest as the lead's catalogue has it."""
    path = storage.path(manifest.directory)
    return CheckpointEntry(manifest.checkpoint_id, manifest.global_step, path, final)


class ChiefControl:
    """Follows the lead's directives to the chief. Its methods are for the training thread."""

    def __init__(
        self,
        attendance: Attendance,
        parameters: Parameters,
        model_dir: str,
        *,
        seed: int,
        keep: KeepRules,
        steps: int | None = None,
        max_steps: int | None = None,
        addresses: tuple[str, ...] = (),
        token: str | None = None,
    ) -> None:
        """Prepare; ``start`` begins.

        Args:
            attendance: the chief's.
            parameters: a connection of its own to every shard, used for loading only.
            model_dir: where checkpoints are committed.
            seed: for a model created afresh.
            keep: which checkpoints stay.
            steps: train for so many more steps than the model has when it is loaded.
            max_steps: train up to this global step.
            addresses: of the ps, to fetch shard files from where no file system is shared.
            token: the job's token.
        """
        self._attendance = attendance
        self._parameters = parameters
        self._storage = FileStorage(model_dir)
        self._seed = seed
        self._keep = keep
        self._steps = steps
        self._addresses = addresses
        self._token = token
        self._changed = threading.Condition()
        self._directive: Directive | None = None
        self._closed = False
        self._loaded = ""
        self._answered = 0
        self._final_request: int | None = None
        self._final_id = ""
        self._last_saved: tuple[int, str] = (0, "")
        """Request and id of the lead's last answer that was dealt with."""
        self._last_error = ""
        self._facts_lock = threading.Lock()
        self.reached: Callable[[], int] = lambda: 0
        """The last global step this chief's training heard of: a new lead knows of none."""
        self._begun = time.monotonic()
        self._earlier_secs = 0.0
        self._manifests = load_all(self._storage)
        self._thread = threading.Thread(target=self._run, name="psys-chief", daemon=True)
        self._change(max_steps=max_steps or 0, committed=self._entries())

    def start(self) -> None:
        """Begin to follow directives, the one that stands first."""
        self._attendance.listen(self._note)
        self._note(self._attendance.directive)
        self._thread.start()

    def close(self) -> None:
        """Stop following directives."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(5.0)
        self._parameters.close()

    # ------------------------------------------------------------ for the training thread

    @property
    def newest(self) -> CheckpointEntry | None:
        """The newest committed checkpoint."""
        facts = self._attendance.report.chief
        return facts.committed[-1] if facts is not None and facts.committed else None

    def request_save(self, final: bool = False) -> int:
        """Ask for a checkpoint; return the request's number for ``saved`` and ``wait_saved``.

        Args:
            final: whether the job ends with it, as its manifest will say.
        """
        with self._facts_lock:
            number = self._facts().save_request + 1
            if final:
                self._final_request = number
            self._attendance.update(chief=replace(self._facts(), save_request=number))
        return number

    def saved(self, request: int) -> bool:
        """Return whether a checkpoint that answers ``request`` is committed.

        Raises:
            CheckpointError: if the save failed.
        """
        with self._changed:
            if self._answered < request:
                return False
            if self._last_error:
                raise CheckpointError(f"The checkpoint was not saved: {self._last_error}")
            return True

    def wait_saved(self, request: int) -> CheckpointEntry:
        """Wait until ``request`` is answered; return the newest checkpoint.

        Raises:
            CheckpointError: if the save failed.
        """
        begun = said = time.monotonic()
        while not self.saved(request):
            self._attendance.check()
            if time.monotonic() - said > SAY_EVERY_SECS:
                said = time.monotonic()
                logger.info("Waiting for the checkpoint to be saved since %.0f s.", said - begun)
            with self._changed:
                if self._answered < request:
                    self._changed.wait(0.5)
        newest = self.newest
        if newest is None:
            raise CheckpointError("The checkpoint was saved and is gone.")
        return newest

    def stop(self, reason: str) -> None:
        """Ask the lead to grant no more steps."""
        if not self._facts().stop_reason:
            self._change(stop_reason=reason)

    def mark_final(self, entry: CheckpointEntry) -> CheckpointEntry:
        """Tell everyone that ``entry`` is the job's last checkpoint."""
        self._final_id = entry.checkpoint_id
        self._change(committed=self._entries())
        return replace(entry, final=True)

    def conclude(self, verdict: Verdict) -> None:
        """Tell the lead how the job ended."""
        self._change(conclusion=verdict)

    # ------------------------------------------------------------ the chief's thread

    def _change(self, **changes: Any) -> None:
        """Change what the lead is told: two threads do, and neither may undo the other's."""
        with self._facts_lock:
            self._attendance.update(chief=replace(self._facts(), **changes))

    def _facts(self) -> ChiefFacts:
        facts = self._attendance.report.chief
        assert facts is not None
        return facts

    def _note(self, directive: Directive) -> None:
        with self._changed:
            known = self._directive
            if (
                known is not None
                and known.lead == directive.lead
                and known.revision > directive.revision
            ):
                return  # a newer one came while this was on its way
            self._directive = directive
            self._changed.notify_all()

    def _run(self) -> None:
        try:
            done: Directive | None = None
            while True:
                with self._changed:
                    while self._directive is done and not self._closed:
                        self._changed.wait()
                    if self._closed:
                        return
                    done = self._directive
                if done is not None and done.chief is not None and not self._follow(done):
                    done = None  # interrupted: try again, unless there is a newer directive
                    with self._changed:
                        self._changed.wait(RETRY_SECS)
        except Exception as error:
            # The training thread raises it as its own, so the job fails with this reason.
            self._attendance.fail(error)

    def _follow(self, directive: Directive) -> bool:
        """Do what a directive asks; False if it could not be done just now."""
        orders = directive.chief
        assert orders is not None
        saved = orders.saved
        # First: it may be the checkpoint to go back to.
        if saved is not None and (saved.request, saved.checkpoint_id) != self._last_saved:
            error = saved.error
            if not error:
                try:
                    self._commit(saved)
                except (PsysError, OSError) as failure:
                    error = str(failure)
            if error:
                logger.error("The checkpoint was not saved: %s", error)
            with self._changed:
                self._last_saved = (saved.request, saved.checkpoint_id)
                self._answered = max(self._answered, saved.request)
                self._last_error = error
                self._changed.notify_all()
            self._remove_old(orders.pins)
        if orders.initialize and orders.initialize != self._loaded:
            return self._initialize(orders)
        return True

    def _initialize(self, orders: ChiefOrders) -> bool:
        """Create or restore the model as ordered; False if it was interrupted."""
        generation = orders.initialize
        try:
            self._fetch_newest(orders)
            manifest = find_latest_valid(self._storage)
            # What is newer and was passed over counts for nothing from here on.
            order = (-1, 0.0, "") if manifest is None else manifest.order
            self._manifests = [one for one in self._manifests if one.order <= order]
            if manifest is None:
                self._parameters.load(generation, self._created)
            else:
                reader = CheckpointReader(self._storage, manifest)
                check_compatible(self._parameters.specs, reader)
                self._parameters.load(
                    generation,
                    lambda spec, start, stop: restored(reader, spec, start, stop, self._seed),
                )
                self._earlier_secs, self._begun = manifest.wall_secs, time.monotonic()
        except PsysError as error:
            if isinstance(error, (ModelError, CheckpointError)):
                raise
            # Another generation is about to be ordered, or a ps is just being restarted.
            logger.info("Loading the model was interrupted: %s", error)
            return False
        self._say_loaded(manifest, max(orders.lost_step, self.reached()))
        self._loaded, self._final_request, self._last_error = generation, None, ""
        step = 0 if manifest is None else manifest.global_step
        max_steps = self._facts().max_steps
        if self._steps is not None and not max_steps:
            max_steps = step + self._steps
        self._change(
            loaded=generation, loaded_step=step, max_steps=max_steps, committed=self._entries()
        )
        return True

    def _fetch_newest(self, orders: ChiefOrders) -> None:
        """Bring here the newest checkpoint a ps keeps, if this disk does not have it.

        Raises:
            CheckpointError: if it cannot be had: training afresh would be a loss in silence.
        """
        step, newest = orders.newest_step, orders.newest_checkpoint
        if not newest or newest in {one.checkpoint_id for one in self._manifests}:
            return
        if self._manifests and self._manifests[-1].global_step > step:
            return
        try:
            fetched = fetch_checkpoint(self._storage, step, newest, self._addresses, self._token)
        except ShardUnavailable:
            raise
        except (CheckpointError, ClusterError) as error:
            raise CheckpointError(
                f"A ps keeps a checkpoint of step {step} ({newest}) that is not in "
                f"{self._storage.root} and could not be fetched: {error} Copy it here, or give "
                "every task an empty model_dir to begin afresh."
            ) from error
        logger.info("Fetched the checkpoint of step %d from the ps.", step)
        self._manifests.append(fetched)

    def _say_loaded(self, manifest: Manifest | None, lost_step: int) -> None:
        """Say what was loaded and, in one line, how many steps were lost."""
        plan = self._parameters.describe_plan()
        if manifest is None:
            step = 0
            logger.info("Created the model. %s.", plan)
        else:
            step = manifest.global_step
            logger.info("Restored %s. %s.", self._storage.path(manifest.directory), plan)
        if lost_step > step:
            logger.warning(
                "A ps lost its part of the model: %d steps (%d to %d) are lost.",
                lost_step - step,
                step + 1,
                lost_step,
            )

    def _created(self, spec: VariableSpec, start: int, stop: int) -> LoadedSlice:
        return LoadedSlice(spec, start, stop, seed=self._seed)

    def _commit(self, saved: SaveResult) -> None:
        """Make the checkpoint exist: fetch what cannot be seen, write the manifest, tell."""
        shard_map = self._parameters.shard_map
        manifest = Manifest(
            checkpoint_id=saved.checkpoint_id,
            job_id=self._attendance.directive.lead,
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
            final=self._final_request is not None
            and saved.request >= self._final_request
            and self._facts().stop_reason not in SIGNALS,
            evaluator_expected=self._facts().evaluator_expected,
        )
        fetch_missing(self._storage, manifest, self._addresses, self._token)
        commit(self._storage, manifest)
        self._manifests.append(manifest)
        member, text = self._attendance.directive.member, manifest.to_json()
        self._on_every_ps(lambda shard: shard.keep_manifest(saved.generation, member, text))
        logger.info(
            "Saved checkpoint for step %d: %s",
            manifest.global_step,
            self._storage.path(manifest.directory),
        )
        self._change(committed=self._entries())

    def _remove_old(self, pins: frozenset[str]) -> None:
        doomed = plan_deletions(
            self._manifests,
            self._keep.keep_max,
            self._keep.every_n_hours,
            pins | {self._final_id},
        )
        if not doomed:
            return
        self._manifests = [one for one in self._manifests if one not in doomed]
        # Out of the catalogue before off the disk: nobody new begins to read them.
        self._change(committed=self._entries())
        for manifest in doomed:
            delete(self._storage, manifest)
            self._delete_on_every_ps(manifest)

    def _delete_on_every_ps(self, manifest: Manifest) -> None:
        directive = self._attendance.directive
        self._on_every_ps(
            lambda shard: shard.delete_checkpoint(
                directive.generation,
                directive.member,
                manifest.global_step,
                manifest.checkpoint_id,
            )
        )

    def _on_every_ps(self, call: Callable[[Shard], None]) -> None:
        """Tell every ps about a checkpoint; one that does not hear keeps what it has."""
        for shard in self._parameters.shards:
            try:
                call(shard)
            except (ClusterError, ModelError, CheckpointError) as error:
                logger.warning("A ps was not told of a checkpoint: %s", error)

    def _entries(self) -> tuple[CheckpointEntry, ...]:
        ordered = sorted(self._manifests, key=lambda one: one.order)
        return tuple(
            entry_of(self._storage, one, one.checkpoint_id == self._final_id) for one in ordered
        )


def check_compatible(specs: Mapping[str, VariableSpec], reader: CheckpointReader) -> None:
    """Check that every variable of the model is in the checkpoint, with its shape and dtype.

    Raises:
        ModelError: naming the first that is not.
    """
    for name, spec in specs.items():
        there = reader.variables.get(name)
        if there is None:
            raise ModelError(
                f"{reader.path} has no variable {name!r}: it belongs to another model. Use "
                "another model_dir, or the program that wrote it."
            )
        if (there.shape, there.dtype) != (spec.shape, spec.dtype):
            raise ModelError(
                f"Variable {name!r} is {spec.shape} {spec.dtype} in the model and {there.shape} "
                f"{there.dtype} in {reader.path}. Use another model_dir."
            )


def restored(
    reader: CheckpointReader, spec: VariableSpec, start: int, stop: int, seed: int
) -> LoadedSlice:
    """Return rows ``[start, stop)`` of a variable as a checkpoint has them.

    The optimizer is the program's, so a changed learning rate counts; state that the
    checkpoint does not have begins at the optimizer's default.
    """
    if start == stop:
        return LoadedSlice(spec, start, stop, seed=seed)
    state = reader.slice_state(spec.name, start, stop)
    return LoadedSlice(spec, start, stop, seed, state.value, state.slots, state.scalars)


def new_seed() -> int:
    """Return a seed for a job whose RunConfig names none."""
    return secrets.randbits(31)
