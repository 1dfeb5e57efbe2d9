"""The hooks every training has: checkpoints, loss and speed, NaN, progress.

As tf.estimator's, told by the step's global step. None of them talks to a shard.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence

from psys.errors import ConfigError, NanLossDuringTrainingError
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


class SecondOrStepTimer:
    """Says when it is time again: every so many steps, or every so many seconds.

    The first call says yes, the same step never twice (tf.estimator's SecondOrStepTimer).
    """

    def __init__(self, every_secs: float | None = None, every_steps: int | None = None) -> None:
        """Set exactly one of the two.

        Raises:
            ConfigError: if both or none are given.
        """
        if (every_secs is None) == (every_steps is None):
            raise ConfigError("Exactly one of every_secs and every_steps should be provided.")
        self._every_secs = every_secs
        self._every_steps = every_steps
        self._last_step: int | None = None
        self._last_secs = 0.0

    def should_trigger_for_step(self, step: int) -> bool:
        """Return whether it is time at ``step``."""
        if self._last_step is None:
            return True
        if step == self._last_step:
            return False
        if self._every_secs is not None:
            return time.monotonic() >= self._last_secs + self._every_secs
        return self._every_steps is not None and step >= self._last_step + self._every_steps

    def update_last_triggered_step(self, step: int) -> tuple[float | None, int | None]:
        """Note that it was time; return seconds and steps since the time before."""
        now = time.monotonic()
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
    """Saves when the model is created, then every so often, with listeners told.

    Without listeners a save goes on while training does; with them it is waited for, because
    a listener may read the checkpoint.
    """

    def __init__(
        self,
        control: ChiefControl,
        save_secs: float | None = None,
        save_steps: int | None = None,
        listeners: Sequence[CheckpointSaverListener] = (),
    ) -> None:
        """Save every ``save_secs`` seconds or every ``save_steps`` steps: exactly one."""
        self._control = control
        self._timer = SecondOrStepTimer(save_secs, save_steps)
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
        self._timer.update_last_triggered_step(session.global_step)
        newest = self._control.newest
        if newest is None or newest.global_step != session.global_step:
            self._save(session, session.global_step)
        else:
            self._tell_saved(session, session.global_step)

    def after_run(self, run_context: SessionRunContext, run_values: SessionRunValues) -> None:
        """Save if it is time."""
        if self._pending and self._control.saved(self._pending):
            self._pending = 0
        step = run_values.global_step
        if not self._pending and self._timer.should_trigger_for_step(step):
            self._timer.update_last_triggered_step(step)
            if self._save(run_context.session, step):
                run_context.request_stop("a checkpoint listener asked to stop")

    def _save(self, session: Session | None, step: int) -> bool:
        """Ask for a checkpoint; return whether a listener wants training to stop."""
        for listener in self._listeners:
            listener.before_save(session, step)
        self._pending = self._control.request_save()
        if not self._listeners:
            return False
        entry = self._control.wait_saved(self._pending)
        self._pending = 0
        return self._tell_saved(session, entry.global_step)

    def _tell_saved(self, session: Session | None, step: int) -> bool:
        # All are told, whatever the first of them answers.
        answers = [listener.after_save(session, step) for listener in self._listeners]
        return any(answers)

    def end_listeners(self, session: Session, step: int, saved: bool) -> None:
        """Tell the listeners of the end, and of the final checkpoint if it is a new one."""
        if saved:
            self._tell_saved(session, step)
        for listener in self._listeners:
            listener.end(session, step)


class StepCounterHook(SessionRunHook):
    """Logs and writes ``global_step/sec``, and the loss, every so many global steps."""

    def __init__(self, every_steps: int, writer: SummaryWriter | None) -> None:
        """Log every ``every_steps`` steps; write too where there is a writer."""
        self._timer = SecondOrStepTimer(every_steps=every_steps)
        self._writer = writer

    def after_run(self, run_context: SessionRunContext, run_values: SessionRunValues) -> None:
        """Log and write if it is time."""
        step = run_values.global_step
        if not self._timer.should_trigger_for_step(step):
            return
        secs, steps = self._timer.update_last_triggered_step(step)
        if secs is None or steps is None:
            return
        rate = steps / max(secs, 1e-9)
        logger.debug(
            "loss = %.6g, step = %d (%.3f sec), global_step/sec: %.4g",
            run_values.loss,
            step,
            secs,
            rate,
        )
        if self._writer is not None:
            self._writer.scalar("global_step/sec", rate, step)


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


class NanLossHook(SessionRunHook):
    """Ends training when the loss is NaN or infinite, before its gradient is pushed."""

    def after_run(self, run_context: SessionRunContext, run_values: SessionRunValues) -> None:
        """Raise if the loss is no number."""
        if run_values.loss is not None and not math.isfinite(run_values.loss):
            raise NanLossDuringTrainingError(
                f"NaN loss during training: the loss is {run_values.loss} after step "
                f"{run_values.global_step}. Lower the learning rate, or look for bad input."
            )


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
