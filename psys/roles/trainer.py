"""What chief and worker share: training until no more is granted, or SIGTERM."""

from __future__ import annotations

import logging

from psys.estimator.estimator import Estimator
from psys.estimator.specs import TrainSpec
from psys.estimator.training import TrainArguments, TrainingRun
from psys.roles.role import SIGTERM_EXIT_CODE, on_sigterm
from psys.train.input_pipeline import InputContext
from psys.train.membership import Membership

logger = logging.getLogger("psys")


class Training:
    """One trainer's run, with a note of whether it was told to leave."""

    def __init__(self, membership: Membership, estimator: Estimator, train_spec: TrainSpec) -> None:
        trainers = membership.settings.job.trainers
        self.leaving = False
        self.run = TrainingRun(
            estimator.call_model_fn,
            estimator.config,
            membership,
            TrainArguments(
                train_spec.input_fn,
                train_spec.hooks,
                train_spec.saving_listeners if membership.is_chief else (),
                max_steps=train_spec.max_steps,
                input_context=InputContext(len(trainers), trainers.index(membership.settings.task)),
                params=estimator.params,
            ),
        )

    def train(self) -> None:
        """Train; after SIGTERM the step under way is finished."""
        with on_sigterm(self._leave):
            self.run.run()

    def _leave(self) -> None:
        logger.warning("SIGTERM: leaving after this step.")
        self.leaving = True
        if not self.run.request_stop("SIGTERM"):
            raise SystemExit(SIGTERM_EXIT_CODE)
