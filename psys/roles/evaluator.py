"""The evaluator: evaluates checkpoints as they appear, and the final one in any case.

No part of the training cluster: it subscribes to the lead's checkpoint stream. When several
checkpoints wait, the newest is evaluated and the others are passed over, with a line saying so.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import replace

from psys.checkpoint.manifest import MANIFEST, Manifest
from psys.checkpoint.retention import delete
from psys.checkpoint.storage import FileStorage
from psys.errors import (
    CheckpointCorrupt,
    CheckpointNotFound,
    ClusterError,
    JobFailed,
    ShardUnavailable,
)
from psys.estimator.estimator import Estimator
from psys.estimator.evaluation import evaluated_checkpoints
from psys.estimator.exporters import check_exporters
from psys.estimator.specs import EvalSpec
from psys.ps.messages import CheckpointEntry, EvaluatorFacts, Standing, TaskPhase, Verdict
from psys.roles.checkpoint_feed import CheckpointFeed
from psys.roles.evaluating import Evaluated, evaluate_and_export
from psys.roles.role import (
    JobOver,
    heard_verdict,
    member_of,
    on_sigterm,
    settings_of,
    verdict_before,
)
from psys.train.interrupts import SIGTERM_EXIT_CODE
from psys.train.membership import Membership
from psys.train.progress import format_duration
from psys.train.shard_files import fetch_checkpoint

logger = logging.getLogger("psys")

LISTEN_SECS = 0.5
SETTLE_SECS = 0.05
PROGRESS_SECS = 2.0
RETRY_SECS = 1.0
SAY_WAIT_SECS = 2.0
"""A checkpoint that is kept waiting no longer is not worth a line."""


def run(estimator: Estimator, eval_spec: EvalSpec, max_steps: int | None) -> None:
    """Be the evaluator of the cluster TF_CONFIG names, until the job has ended.

    Raises:
        SystemExit: 1 if the job failed, 143 after SIGTERM.
        ClusterError: if lead and new checkpoints stayed away for too long.
    """
    with member_of(settings_of(estimator.config)) as membership:
        check_exporters(eval_spec.exporters)
        evaluator = _Evaluator(membership, estimator, eval_spec, max_steps)
        try:
            with on_sigterm(evaluator.leave):
                evaluator.run()
        finally:
            evaluator.feed.close()
        heard_verdict(membership)


class _Evaluator:
    """What has been evaluated, what waits, and since when."""

    def __init__(
        self,
        membership: Membership,
        estimator: Estimator,
        eval_spec: EvalSpec,
        max_steps: int | None,
    ) -> None:
        settings = membership.settings
        self._membership = membership
        assert membership.attendance is not None
        self._attendance = membership.attendance
        self._estimator = estimator
        self._spec = eval_spec
        self._max_steps = max_steps
        self._settings = settings
        self._storage = FileStorage(settings.model_dir)
        self._fetched: list[Manifest] = []
        self._limits = settings.limits
        self.feed = CheckpointFeed(
            settings.shard_addresses[0],
            settings.model_dir,
            settings.token,
            membership.attendance.fail,
        )
        ledger = evaluated_checkpoints(estimator.eval_dir(eval_spec.name))
        self._done = {
            os.path.basename(path): Evaluated(metrics, [None] * len(eval_spec.exporters))
            for path, metrics in ledger.items()
        }
        self._retry_at = 0.0
        self._leaving = False
        self._interruptible = False
        self._pending: CheckpointEntry | None = None
        self._last: CheckpointEntry | None = None
        self._not_before = time.monotonic() + eval_spec.start_delay_secs
        self._said_wait_until = 0.0
        self._news_at = time.monotonic()
        self._facts = EvaluatorFacts()

    def leave(self) -> None:
        """Leave because of SIGTERM; the evaluation under way is given up (signal handler).

        Raises:
            SystemExit: 143, if only the user's code is interrupted, which may take long.
        """
        logger.warning("SIGTERM: leaving.")
        self._leaving = True
        if self._interruptible:
            raise SystemExit(SIGTERM_EXIT_CODE)

    def run(self) -> None:
        """Evaluate what comes until the verdict.

        Raises:
            JobFailed: if the verdict is FAILED.
        """
        self._attendance.update(phase=TaskPhase.WORKING)
        self._attendance.begin()
        while not self._leaving:
            if self._ready():
                self._evaluate_pending()
                continue
            event = self.feed.next(LISTEN_SECS)
            while isinstance(event, CheckpointEntry):
                self._take(event)
                # What there is already comes one by one; only the newest is worth an evaluation.
                event = self.feed.next(SETTLE_SECS)
            if event is not None:
                self._end(event)
                return
            if self._over():
                return
            self._end_if_late()
        raise SystemExit(SIGTERM_EXIT_CODE)

    def _take(self, entry: CheckpointEntry) -> None:
        """Let a checkpoint wait; the newest and the final one go first."""
        self._news_at = time.monotonic()
        waiting = self._pending
        if waiting is not None and not entry.final and waiting.global_step > entry.global_step:
            return
        if not entry.final and _name(entry) in self._done:
            self._pending = None  # what waits is older than what was evaluated before
            return
        if waiting is not None and waiting.checkpoint_id != entry.checkpoint_id:
            logger.info(
                "Passing over step %d: step %d is newer.", waiting.global_step, entry.global_step
            )
        self._pending = entry
        if not entry.final:
            self._say_wait(entry)

    def _say_wait(self, entry: CheckpointEntry) -> None:
        """Say, once for each wait, what keeps a checkpoint from being evaluated now."""
        left_secs = self._not_before - time.monotonic()
        if left_secs < SAY_WAIT_SECS or self._said_wait_until == self._not_before:
            return
        self._said_wait_until = self._not_before
        why = "start_delay_secs" if self._last is None else "throttle_secs"
        logger.info(
            "Step %d, or a newer one, is evaluated in %s (%s of the EvalSpec); the last at once.",
            entry.global_step,
            format_duration(left_secs),
            why,
        )
        self._tell(progress=f"waits for {why}")

    def _ready(self) -> bool:
        """Return whether a checkpoint waits and may be evaluated now."""
        if self._pending is None or self._attendance.directive.standing is Standing.WAITING:
            return False
        now = time.monotonic()
        return now >= self._retry_at and (self._pending.final or now >= self._not_before)

    def _evaluate_pending(self) -> None:
        entry, self._pending = self._pending, None
        assert entry is not None
        self._last = entry
        self._not_before = time.monotonic() + self._spec.throttle_secs
        self._tell(pins=frozenset({entry.checkpoint_id}), progress=f"step {entry.global_step}")
        try:
            path = self._local_path(entry)
            self._interruptible = not self._leaving
            result = evaluate_and_export(
                self._estimator,
                self._spec,
                path,
                entry.final,
                before=self._done.get(_name(entry)),
                progress=self._progress,
            )
        except ShardUnavailable as error:
            # Nobody to fetch it from just now.
            logger.warning("%s Trying again.", error)
            self._pending, self._retry_at = self._pending or entry, time.monotonic() + RETRY_SECS
            return
        except (CheckpointNotFound, CheckpointCorrupt) as error:
            if entry.final:
                raise
            # It was deleted or spoilt before it could be read; a newer one follows.
            logger.warning("Step %d was not evaluated: %s", entry.global_step, error)
            return
        finally:
            self._interruptible = False
        self._done[_name(entry)] = result
        completed = self._facts.completed
        if entry.final:
            completed |= {entry.checkpoint_id}
        self._tell(
            pins=frozenset(),
            progress=f"evaluated step {entry.global_step}",
            completed=completed,
            export=result.export or self._facts.export,
        )
        self._news_at = time.monotonic()

    def _local_path(self, entry: CheckpointEntry) -> str:
        """Return where the checkpoint can be read, fetching it where no disk is shared."""
        if os.path.exists(os.path.join(entry.path, MANIFEST)):
            return entry.path
        settings = self._settings
        manifest = fetch_checkpoint(
            self._storage,
            entry.global_step,
            entry.checkpoint_id,
            settings.shard_addresses,
            settings.token,
        )
        # One copy is enough: what was evaluated before is the chief's to keep.
        for old in self._fetched:
            if old.checkpoint_id != manifest.checkpoint_id:
                delete(self._storage, old)
        self._fetched = [manifest]
        return self._storage.path(manifest.directory)

    def _progress(self, batch: int) -> None:
        now = time.monotonic()
        if now - self._news_at >= PROGRESS_SECS:
            self._news_at = now
            self._interruptible = False  # a signal in here could leave a lock behind
            self._tell(progress=f"batch {batch}")
            self._interruptible = True
        if self._leaving:
            raise SystemExit(SIGTERM_EXIT_CODE)

    def _tell(self, **changes: object) -> None:
        self._facts = replace(self._facts, **changes)  # type: ignore[arg-type]
        self._attendance.update(evaluator=self._facts)

    def _over(self) -> bool:
        """Return whether the lead told the verdict; fail if nothing is heard for too long."""
        attendance = self._attendance
        directive = attendance.directive
        if directive.verdict is not None:
            # The watch tells it too, but may be broken just now.
            if self._pending is not None and directive.verdict.finished:
                return False
            self._end(directive.verdict)
            return True
        if attendance.failure is not None:
            raise attendance.failure
        if directive.standing in (Standing.REJECTED, Standing.REPLACED):
            attendance.check()
        silent = min(attendance.unreachable_secs, time.monotonic() - self._news_at)
        heard = directive.revision >= 0
        limit = self._limits.recover_secs if heard else self._limits.start_timeout_secs
        if silent >= limit:
            raise ClusterError(f"Neither the lead nor a new checkpoint was seen for {limit:.0f} s.")
        return False

    def _end_if_late(self) -> None:
        """End where the job was over before; what it left unevaluated is evaluated first.

        Raises:
            JobOver: then.
        """
        secs = self._attendance.unreachable_secs
        verdict = verdict_before(self._membership, self._max_steps, secs)
        if verdict is None:
            return
        newest = self._pending or self._last
        last_name = "" if verdict.evaluated else os.path.basename(verdict.checkpoint)
        if newest is not None and not newest.final and _name(newest) == last_name:
            self._pending = replace(newest, final=True)  # its final exporters have not run
        elif self._pending is None:
            raise JobOver(verdict)
        self._not_before = time.monotonic()

    def _end(self, verdict: Verdict) -> None:
        if not verdict.finished:
            raise JobFailed(verdict.reason)
        logger.info("The job FINISHED at step %d.", verdict.global_step)


def _name(entry: CheckpointEntry) -> str:
    """Return the checkpoint's directory name, which is unique."""
    return os.path.basename(entry.path)
