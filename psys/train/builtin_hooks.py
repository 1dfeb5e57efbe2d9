"""The hooks every training has: checkpoints, loss and speed, progress.

As tf.estimator's, told by the step's global step. None of them talks to a shard.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence

from psys.errors import ConfigError
from psys.ps.messages import CheckpointEntry
from psys.ps.tally import NO_PUSHES, PushCounts, least_of
from psys.summary.writer import SummaryWriter
from psys.train.chief import ChiefControl
from psys.train.hooks import (
    CheckpointSaverListener,
    SessionRunContext,
    SessionRunHook,
    SessionRunValues,
)
from psys.train.progress import ProgressReporter
from psys.train.session import Session

logger = logging.getLogger("psys")

LISTENER_STOPS = "a checkpoint listener asked to stop"


class SecondOrStepTimer:
    """Says when it is time again: every so many steps, or every so many seconds.

    The first call says yes, the same step never twice (tf.estimator's SecondOrStepTimer).
    """

    def __init__(
        self,
        every_secs: float | None = None,
        every_steps: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Set exactly one of the two; ``clock`` gives seconds.

        Raises:
            ConfigError: if both or none are given.
        """
        if (every_secs is None) == (every_steps is None):
            raise ConfigError("Exactly one of every_secs and every_steps should be provided.")
        self._every_secs = every_secs
        self._every_steps = every_steps
        self._clock = clock
        self._last_step: int | None = None
        self._last_secs = 0.0

    def should_trigger_for_step(self, step: int) -> bool:
        """Return whether it is time at ``step``."""
        if self._last_step is None:
            return True
        if step == self._last_step:
            return False
        if self._every_secs is not None:
            return self._clock() >= self._last_secs + self._every_secs
        return self._every_steps is not None and step >= self._last_step + self._every_steps

    def update_last_triggered_step(self, step: int) -> tuple[float | None, int | None]:
        """Note that it was time; return seconds and steps since the time before."""
        now = self._clock()
        if self._last_step is None:
            elapsed: tuple[float | None, int | None] = (None, None)
        else:
            elapsed = (now - self._last_secs, step - self._last_step)
        self._last_step, self._last_secs = step, now
        return elapsed

    @property
    def last_triggered_step(self) -> int | None:
        """The step of the last time; None before the first."""
        return self._last_step


class CheckpointSaverHook(SessionRunHook):
    """Saves when the model is created, then every so often, and the last, with listeners told.

    Without listeners a save goes on while training does, until the next is due; with them it
    is waited for, because a listener may read the checkpoint.
    """

    def __init__(
        self,
        control: ChiefControl,
        save_secs: float | None = None,
        save_steps: int | None = None,
        listeners: Sequence[CheckpointSaverListener] = (),
    ) -> None:
        """Save every ``save_secs`` seconds or ``save_steps`` steps; with neither, only the last."""
        self._control = control
        self._timer = SecondOrStepTimer(save_secs, save_steps) if save_secs or save_steps else None
        self._listeners = tuple(listeners)
        self._pending = 0

    def begin(self) -> None:
        """Tell the listeners."""
        for listener in self._listeners:
            listener.begin()

    def after_create_session(self, session: Session | None, coord: None = None) -> None:
        """Save the model as it was created or restored."""
        assert session is not None
        self._pending = 0
        if self._timer is None:
            return
        self._timer.update_last_triggered_step(session.global_step)
        newest = self._control.newest
        if newest is None or newest.global_step != session.global_step:
            self._save(session, session.global_step)
        else:
            # It was restored from this checkpoint: as good as saved.
            self._tell_before(session, session.global_step)
            self._tell_saved(session, session.global_step)

    def after_run(self, run_context: SessionRunContext, run_values: SessionRunValues) -> None:
        """Save if it is time."""
        step = run_values.global_step
        if self.is_time(step) and self.save_now(run_context.session, step):
            run_context.request_stop(LISTENER_STOPS)

    def is_time(self, step: int) -> bool:
        """Return whether a checkpoint is due at ``step``.

        Raises:
            CheckpointError: if the last one could not be saved.
        """
        if self._timer is None:
            return False
        if self._pending and self._control.saved(self._pending):
            self._pending = 0
        return self._timer.should_trigger_for_step(step)

    def save_now(self, session: Session | None, step: int) -> bool:
        """Save once the save under way is done; return whether a listener wants to stop."""
        if self._timer is not None:
            self._timer.update_last_triggered_step(step)
        self._wait()
        return self._save(session, step)

    def _save(self, session: Session | None, step: int) -> bool:
        """Ask for a checkpoint; return whether a listener wants training to stop."""
        self._tell_before(session, step)
        self._pending = self._control.request_save()
        if not self._listeners:
            return False
        entry = self._control.wait_saved(self._pending)
        self._pending = 0
        return self._tell_saved(session, entry.global_step)

    def _wait(self) -> None:
        """Wait for the save under way, so that the next one is of its own step."""
        if self._pending:
            self._control.wait_saved(self._pending)
            self._pending = 0

    def _tell_before(self, session: Session | None, step: int) -> None:
        for listener in self._listeners:
            listener.before_save(session, step)

    def _tell_saved(self, session: Session | None, step: int) -> bool:
        # All are told, whatever the first of them answers.
        answers = [listener.after_save(session, step) for listener in self._listeners]
        return any(answers)

    def save_last(self, session: Session, step: int) -> CheckpointEntry:
        """Save the model as training left it, unless that is saved already.

        Args:
            session: the one that ended.
            step: the global step of all trainers together; none is under way any more.

        Raises:
            CheckpointError: if the checkpoint could not be saved.
        """
        self._wait()
        last = self._control.newest
        if last is None or last.global_step != step:
            self._tell_before(session, step)
            last = self._control.wait_saved(self._control.request_save(final=True))
            self._tell_saved(session, last.global_step)
        return last

    def end(self, session: Session | None) -> None:
        """Tell the listeners that training ended."""
        assert session is not None
        for listener in self._listeners:
            listener.end(session, session.global_step)


class StepCounterHook(SessionRunHook):
    """Writes ``global_step/sec`` every so many global steps, or logs it where it cannot."""

    def __init__(self, every_steps: int, writer: SummaryWriter | None) -> None:
        """Write every ``every_steps`` steps; log, with the loss, where there is no writer."""
        self._timer = SecondOrStepTimer(every_steps=every_steps)
        self._writer = writer

    def after_run(self, run_context: SessionRunContext, run_values: SessionRunValues) -> None:
        """Write or log if it is time."""
        step = run_values.global_step
        if not self._timer.should_trigger_for_step(step):
            return
        secs, steps = self._timer.update_last_triggered_step(step)
        if secs is None or steps is None:
            return
        rate = steps / max(secs, 1e-9)
        if self._writer is not None:
            self._writer.scalar("global_step/sec", rate, step)
        else:
            logger.info(
                "loss = %.6g, step = %d (%.3f sec), global_step/sec: %.4g",
                run_values.loss,
                step,
                secs,
                rate,
            )


class LossSummaryHook(SessionRunHook):
    """Writes the loss every so many steps, the first among them."""

    def __init__(self, every_steps: int, writer: SummaryWriter) -> None:
        """Write every ``every_steps`` steps."""
        self._timer = SecondOrStepTimer(every_steps=every_steps)
        self._writer = writer

    def after_run(self, run_context: SessionRunContext, run_values: SessionRunValues) -> None:
        """Write if it is time."""
        step = run_values.global_step
        if run_values.loss is not None and self._timer.should_trigger_for_step(step):
            self._timer.update_last_triggered_step(step)
            self._writer.scalar("loss", run_values.loss, step)

    def end(self, session: Session | None) -> None:
        """Put what was written on disk."""
        self._writer.flush()


class StalenessHook(SessionRunHook):
    """Writes how stale the gradients of all trainers were, and how many steps were dropped."""

    def __init__(self, every_steps: int, writer: SummaryWriter, control: ChiefControl) -> None:
        """Write ``staleness`` and ``dropped_steps`` every ``every_steps`` global steps."""
        self._timer = SecondOrStepTimer(every_steps=every_steps)
        self._writer = writer
        self._control = control
        self._told = NO_PUSHES
        self._staleness: Counter[int] = Counter()
        """What came since the last time that it was written."""
        self._dropped = self._written_dropped = 0

    def after_create_session(self, session: Session | None, coord: None = None) -> None:
        """See from where on to count."""
        self._take_in()

    def after_run(self, run_context: SessionRunContext, run_values: SessionRunValues) -> None:
        """Take in what the lead told; write if it is time."""
        self._take_in()
        step = run_values.global_step
        if self._timer.should_trigger_for_step(step):
            self._timer.update_last_triggered_step(step)
            self._write(step)

    def end(self, session: Session | None) -> None:
        """Write what is left."""
        self._take_in()
        left = self._staleness or self._dropped != self._written_dropped
        if left and session is not None:
            self._write(session.global_step)
        self._writer.flush()

    def _take_in(self) -> None:
        """Add what the lead has told since the last look: what others do takes a moment."""
        pushes, told = self._control.pushes, self._told
        if pushes is told or not pushes.generation:
            return
        self._told = pushes
        if pushes.generation != told.generation:
            if not self._control.has_loaded(pushes.generation):
                return  # a chief before this one has written what came before
            told = PushCounts(pushes.generation)
        more = pushes.since(told)
        for bucket, times in enumerate(more.staleness):
            if times:
                self._staleness[least_of(bucket)] += times
        self._dropped += more.dropped

    def _write(self, step: int) -> None:
        if self._staleness:
            self._writer.histogram("staleness", dict(sorted(self._staleness.items())), step)
            self._staleness.clear()
        self._writer.scalar("dropped_steps", self._dropped, step)
        self._written_dropped = self._dropped


class ProgressHook(SessionRunHook):
    """Shows how far training is."""

    def __init__(self, reporter: ProgressReporter) -> None:
        self._reporter = reporter

    def after_run(self, run_context: SessionRunContext, run_values: SessionRunValues) -> None:
        """Tell the reporter of the step."""
        self._reporter.update(run_values.global_step, run_values.examples, run_values.loss)

    def end(self, session: Session | None) -> None:
        """Leave the terminal as it was."""
        self._reporter.close()
