"""What chief and worker share: training until no more is granted, and leaving on SIGTERM."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from psys.attendance import Attendance
from psys.estimator.estimator import Estimator
from psys.estimator.specs import TrainSpec
from psys.estimator.training import TrainArguments, TrainingRun
from psys.ps.messages import CheckpointEntry, Directive, Verdict
from psys.train.hooks import CheckpointSaverListener
from psys.train.input_pipeline import InputContext
from psys.train.interrupts import SIGTERM_EXIT_CODE
from psys.train.membership import Membership

logger = logging.getLogger("psys")

LOOK_SECS = 0.5
LOST_LEAD_SECS = 2.0
"""A trainer told to leave waits so long for a lead that is out of reach."""


class Training:
    """One trainer's run, with a note of whether it was told to leave."""

    def __init__(
        self,
        membership: Membership,
        estimator: Estimator,
        train_spec: TrainSpec,
        listeners: Sequence[CheckpointSaverListener] = (),
    ) -> None:
        """Prepare; nothing starts before ``train``."""
        trainers = membership.settings.job.trainers
        self._membership = membership
        self._leaving = False
        self._under_way = False
        self._ended = threading.Event()
        self._run = TrainingRun(
            estimator.call_model_fn,
            estimator.config,
            membership,
            TrainArguments(
                train_spec.input_fn,
                train_spec.hooks,
                listeners,
                max_steps=train_spec.max_steps,
                input_context=InputContext(len(trainers), trainers.index(membership.settings.task)),
                params=estimator.params,
            ),
        )

    def train(self) -> CheckpointEntry | None:
        """Train; after SIGTERM the step under way is finished, and saved by the chief.

        Returns:
            The final checkpoint, on the chief.

        Raises:
            SystemExit: 143 after SIGTERM.
        """
        self._under_way = True
        self._run.run()
        final = self._run.finish() if self._membership.is_chief else None
        self._under_way = False
        if self._leaving:
            raise SystemExit(SIGTERM_EXIT_CODE)
        return final

    def mark_final(self, entry: CheckpointEntry) -> CheckpointEntry:
        """Tell everyone that ``entry`` is the job's last checkpoint (chief only)."""
        assert self._run.control is not None
        return self._run.control.mark_final(entry)

    def conclude(self, verdict: Verdict) -> None:
        """Tell the lead how the job ended (chief only)."""
        assert self._run.control is not None
        self._run.control.conclude(verdict)

    def close(self) -> None:
        """Give up input, connections and files."""
        self._ended.set()
        self._run.close()

    def leave(self) -> None:
        """Leave because of SIGTERM: after the step under way, if there is one.

        For a signal handler: it raises nothing and asks for no lock of the interrupted code.
        """
        attendance = self._membership.attendance
        assert attendance is not None
        live = bool(attendance.directive.generation)
        if self._under_way and live and self._run.request_stop("SIGTERM"):
            logger.warning("SIGTERM: leaving after this step.")
            self._leaving = True
        else:
            logger.warning("SIGTERM: leaving.")
        threading.Thread(target=self._wait_no_more, args=(attendance,), daemon=True).start()

    def _wait_no_more(self, attendance: Attendance) -> None:
        """End every wait of this task with SystemExit, unless a step is to be finished first.

        A step that a lost ps, or a lead out of reach, keeps from being finished is not waited for.
        """

        def end_unless_live(directive: Directive) -> None:
            if not (self._leaving and directive.generation) or directive.ps_lost:
                attendance.fail(SystemExit(SIGTERM_EXIT_CODE))

        if self._leaving and self._run.control is not None:
            self._run.control.stop("SIGTERM")
        attendance.listen(end_unless_live)
        end_unless_live(attendance.directive)
        while attendance.failure is None and not self._ended.wait(LOOK_SECS):
            if attendance.unreachable_secs > LOST_LEAD_SECS:
                attendance.fail(SystemExit(SIGTERM_EXIT_CODE))
