"""A worker: trains, keeps nothing, and hears how the job ended."""

from __future__ import annotations

import logging

from psys.estimator.estimator import Estimator
from psys.estimator.specs import TrainSpec
from psys.roles.role import (
    await_verdict,
    heard_verdict,
    member_of,
    on_sigterm,
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
        training = Training(membership, estimator, train_spec)
        with on_sigterm(training.leave):
            attendance.begin()
            attendance.wait_for(lambda one: one.member > 0, "a place in the cluster")
            try:
                if attendance.directive.verdict is None:
                    training.train()
            finally:
                training.close()
            verdict = await_verdict(membership)
            logger.info("The job FINISHED at step %d.", verdict.global_step)
            heard_verdict(membership)
