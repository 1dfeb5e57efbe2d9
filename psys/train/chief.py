"""ChiefControl: what only the chief does, in a thread of its own.

It creates or restores the model when the lead says so, commits a checkpoint when every shard
has written its file, asks again for one that failed, and deletes old ones. The training thread
hangs in an exchange exactly when a ps must be restored, so none of this may run there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from psys.arrays import VariableSpec
from psys.attendance import SAY_EVERY_SECS, Attendance
from psys.checkpoint.manifest import Manifest
from psys.checkpoint.reader import CheckpointReader
from psys.errors import CheckpointError, ModelError, PsysError
from psys.parameters import Parameters
from psys.ps.messages import (
    CheckpointEntry,
    ChiefFacts,
    ChiefOrders,
    Directive,
    SaveResult,
    Verdict,
)
from psys.ps.shard import LoadedSlice
from psys.ps.tally import NO_PUSHES, PushCounts
from psys.train.committed import Circumstances, CommittedCheckpoints
from psys.train.interrupts import SIGNALS
from psys.train.restoring import check_compatible, restored, say_new_optimizers

logger = logging.getLogger("psys")

RETRY_SECS = 0.5
SAVE_AGAIN_SECS = 1.0
"""How long to wait before a save that failed is tried again; each further time twice as long."""
SAVE_AGAIN_TIMES = 6


class ChiefControl:
    """Follows the lead's directives to the chief. Its methods are for the training thread."""

    def __init__(
        self,
        attendance: Attendance,
        parameters: Parameters,
        committed: CommittedCheckpoints,
        *,
        seed: int,
        steps: int | None = None,
        max_steps: int | None = None,
    ) -> None:
        """Prepare; ``start`` begins.

        Args:
            attendance: the chief's.
            parameters: a connection of its own to every shard, used for loading only.
            committed: the checkpoints that exist, and more to come.
            seed: for a model created afresh.
            steps: train for so many more steps than the model has when it is loaded.
            max_steps: train up to this global step.
        """
        self._attendance = attendance
        self._parameters = parameters
        self._committed = committed
        self._seed = seed
        self._steps = steps
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
        self._has_saved = committed.any
        self._failures = 0
        """Saves that failed since the last that did not."""
        self._save_again_at: float | None = None
        self._facts_lock = threading.Lock()
        self.reached: Callable[[], int] = lambda: 0
        """The last global step this chief's training heard of: a new lead knows of none."""
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

    @property
    def pushes(self) -> PushCounts:
        """What became of all trainers' pushes, as the lead last told."""
        orders = self._attendance.directive.chief
        return NO_PUSHES if orders is None else orders.pushes

    def has_loaded(self, generation: str) -> bool:
        """Return whether this process put a generation's values in place; else it took it over."""
        return self._loaded == generation

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
                    while self._directive is done and not self._closed and not self._save_is_due():
                        self._changed.wait(self._secs_to_next_save())
                    if self._closed:
                        return
                    done = self._directive
                if self._save_is_due():
                    self._save_again_at = None
                    self.request_save()
                if done is not None and done.chief is not None and not self._follow(done):
                    done = None  # interrupted: try again, unless there is a newer directive
                    with self._changed:
                        self._changed.wait(RETRY_SECS)
        except Exception as error:
            # The training thread raises it as its own, so the job fails with this reason.
            self._attendance.fail(error)

    def _save_is_due(self) -> bool:
        return self._save_again_at is not None and time.monotonic() >= self._save_again_at

    def _secs_to_next_save(self) -> float | None:
        if self._save_again_at is None:
            return None
        return max(self._save_again_at - time.monotonic(), 0.0)

    def _follow(self, directive: Directive) -> bool:
        """Do what a directive asks; False if it could not be done just now."""
        orders = directive.chief
        assert orders is not None
        saved = orders.saved
        # First: it may be the checkpoint to go back to.
        if saved is not None and (saved.request, saved.checkpoint_id) != self._last_saved:
            self._take_saved(saved, orders.pins)
        if orders.initialize and orders.initialize != self._loaded:
            return self._initialize(orders)
        return True

    def _take_saved(self, saved: SaveResult, pins: frozenset[str]) -> None:
        """Commit what was saved; what was not is asked for again, for a while."""
        error = saved.error
        if not error:
            try:
                self._commit(saved)
            except (PsysError, OSError) as failure:
                error = str(failure)
        if error and (again_secs := self._patience()) is not None:
            logger.warning(
                "The checkpoint was not saved: %s Trying again in %.0f s (%d of %d times).",
                error,
                again_secs,
                self._failures,
                SAVE_AGAIN_TIMES,
            )
            with self._changed:
                self._last_saved = (saved.request, saved.checkpoint_id)
                self._save_again_at = time.monotonic() + again_secs
            return
        with self._changed:
            self._last_saved = (saved.request, saved.checkpoint_id)
            self._answered = max(self._answered, saved.request)
            self._last_error = error
            self._changed.notify_all()
        if not error:
            self._failures, self._has_saved = 0, True
        self._remove_old(pins)

    def _patience(self) -> float | None:
        """Return after how long a failed save is tried again, None for never.

        The first save of all is not: a model_dir that cannot be written to is a mistake to be
        told at once.
        """
        if not self._has_saved or self._failures >= SAVE_AGAIN_TIMES:
            return None
        self._failures += 1
        return SAVE_AGAIN_SECS * 2.0 ** (self._failures - 1)

    def _initialize(self, orders: ChiefOrders) -> bool:
        """Create or restore the model as ordered; False if it was interrupted."""
        generation, member = orders.initialize, self._attendance.directive.member
        try:
            manifest = self._committed.choose(orders)
            if manifest is None:
                # The ps make the values themselves: nothing of them is in this process's memory.
                at_once = len(self._parameters.shards)
                self._parameters.load(generation, member, self._created, at_once)
            else:
                reader = CheckpointReader(self._committed.storage, manifest)
                check_compatible(self._parameters.specs, reader)
                say_new_optimizers(self._parameters.specs, reader)
                self._parameters.load(
                    generation,
                    member,
                    lambda spec, start, stop: restored(reader, spec, start, stop, self._seed),
                )
        except PsysError as error:
            if isinstance(error, (ModelError, CheckpointError)):
                raise
            # Another generation is about to be ordered, or a ps is just being restarted.
            logger.info("Loading the model was interrupted: %s", error)
            return False
        self._say_loaded(manifest, max(orders.lost_step, self.reached()))
        self._loaded, self._final_request, self._last_error = generation, None, ""
        # What was asked for and failed is asked for again, of the model as it is now.
        open_request = self._answered < self._facts().save_request
        self._failures, self._save_again_at = 0, time.monotonic() if open_request else None
        step = 0 if manifest is None else manifest.global_step
        max_steps = self._facts().max_steps
        if self._steps is not None and not max_steps:
            max_steps = step + self._steps
        self._change(
            loaded=generation,
            loaded_step=step,
            loaded_examples=0 if manifest is None else manifest.examples,
            max_steps=max_steps,
            committed=self._entries(),
        )
        return True

    def _say_loaded(self, manifest: Manifest | None, lost_step: int) -> None:
        """Say what was loaded and, in one line, how many steps were lost."""
        if manifest is None:
            step = 0
            logger.info("Created the model.")
        else:
            step = manifest.global_step
            logger.info("Restored %s.", self._committed.storage.path(manifest.directory))
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
        report, facts = self._attendance.report, self._facts()
        ends = self._final_request is not None and saved.request >= self._final_request
        self._committed.commit(
            saved,
            Circumstances(
                job_id=report.job_id,
                member=report.member,
                final=ends and facts.stop_reason not in SIGNALS,
                evaluator_expected=facts.evaluator_expected,
            ),
        )
        self._change(committed=self._entries())

    def _remove_old(self, pins: frozenset[str]) -> None:
        doomed = self._committed.take_old(pins | {self._final_id})
        if doomed:
            # Out of the catalogue before off the disk: nobody new begins to read them.
            self._change(committed=self._entries())
            directive = self._attendance.directive
            self._committed.delete(doomed, directive.generation, directive.member)

    def _entries(self) -> tuple[CheckpointEntry, ...]:
        return self._committed.entries(self._final_id)
