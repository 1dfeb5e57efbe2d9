"""A worker: trains, keeps nothing, and hears how the job ended."""

from __future__ import annotations

import logging

from psys.estimator.estimator import Estimator
from psys.estimator.specs import TrainSpec
from psys.ps.messages import TaskPhase
from psys.roles.role import (
    SIGTERM_EXIT_CODE,
    await_verdict,
    heard_verdict,
    member_of,
    settings_of,
    watch_for_the_end,
)
from psys.roles.trainer import Training

logger = logging.getLogger("psys")


def run(estimator: Estimator, train_spec: TrainSpec) -> None:
    """Be a worker of the cluster TF_CONFIG names, until the job has ended.

    Raises:
        SystemExit: 1 if the job failed elsewhere, 143 after SIGTERM.
    """
    with member_of(settings_of(estimator.config)) as membership:
        attendance = membership.attendance
        assert attendance is not None
        watch_for_the_end(membership, train_spec.max_steps)
        attendance.begin()
        attendance.wait_for(lambda one: one.member > 0, "a place in the cluster")
        verdict = attendance.directive.verdict
        if verdict is None:
            training = Training(membership, estimator, train_spec)
            try:
                training.train()
            finally:
                training.run.close()
            if training.leaving:
                attendance.update(phase=TaskPhase.LEFT, reason="SIGTERM")
                raise SystemExit(SIGTERM_EXIT_CODE)
        verdict = await_verdict(membership)
        logger.info("The job FINISHED at step %d.", verdict.global_step)
        heard_verdict(membership)
