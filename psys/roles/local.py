"""Training on one machine: train, evaluate each checkpoint in between, export.

A cluster whose one shard is in memory; evaluation runs in the same process, after a save.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from psys.estimator.estimator import Estimator
from psys.estimator.exporters import check_exporters
from psys.estimator.specs import EvalSpec, TrainSpec
from psys.roles.evaluating import Evaluated, evaluate_and_export
from psys.train.hooks import CheckpointSaverListener
from psys.train.session import Session

logger = logging.getLogger("psys")


class EvaluationListener(CheckpointSaverListener):
    """Evaluates a checkpoint as soon as it is saved, at most every ``throttle_secs``.

    The first save, of the model as it was created or restored, is passed over; the last
    checkpoint is always evaluated (tf.estimator's local rule).
    """

    def __init__(self, estimator: Estimator, train_spec: TrainSpec, eval_spec: EvalSpec) -> None:
        self._estimator = estimator
        self._max_steps = train_spec.max_steps
        self._eval_spec = eval_spec
        self._seen_first = False
        self._evaluated_step = -1
        self._evaluated_secs: float | None = None
        self._exported_final = False
        self.result: Evaluated | None = None

    def begin(self) -> None:
        """Start anew."""
        self._seen_first = False

    def after_save(self, session: Session | None, global_step_value: int) -> bool | None:
        """Evaluate, unless it is too soon, or a signal is to be obeyed."""
        if session is not None and session.interrupted:
            return None
        if not self._seen_first:
            self._seen_first = True
            return None
        final = session is not None and session.ended
        final = final or 0 < (self._max_steps or 0) <= global_step_value
        now = time.monotonic()
        throttle_secs = self._eval_spec.throttle_secs
        soon = self._evaluated_secs is not None and now - self._evaluated_secs < throttle_secs
        if self._evaluated_secs is not None and soon and not final:
            logger.info(
                "Not evaluating step %d now: the last evaluation was %.0f s ago, throttle_secs "
                "is %.0f.",
                global_step_value,
                now - self._evaluated_secs,
                throttle_secs,
            )
            return None
        self._evaluate(global_step_value, final)
        return None

    def end(self, session: Session | None, global_step_value: int) -> None:
        """Evaluate the last checkpoint if it was not, and let the final exporters run."""
        if session is not None and session.interrupted:
            return
        if global_step_value != self._evaluated_step:
            self._evaluate(global_step_value, final=True)
        elif not self._exported_final:
            path = self._estimator.latest_checkpoint()
            assert path is not None
            assert self.result is not None
            self.result = evaluate_and_export(
                self._estimator, self._eval_spec, path, final=True, before=self.result
            )

    def _evaluate(self, step: int, final: bool) -> None:
        self._evaluated_step, self._evaluated_secs = step, time.monotonic()
        path = self._estimator.latest_checkpoint()
        assert path is not None
        self.result = evaluate_and_export(self._estimator, self._eval_spec, path, final)
        self._exported_final = self._exported_final or final


def run(
    estimator: Estimator, train_spec: TrainSpec, eval_spec: EvalSpec
) -> tuple[dict[str, Any] | None, list[str | None] | None]:
    """Train and evaluate in this process.

    Returns:
        The metrics of the last evaluation and what its exporters returned; (None, None) if
        there was nothing to train.
    """
    check_exporters(eval_spec.exporters)
    listener = EvaluationListener(estimator, train_spec, eval_spec)
    estimator.train(
        train_spec.input_fn,
        hooks=train_spec.hooks,
        max_steps=train_spec.max_steps,
        saving_listeners=(*train_spec.saving_listeners, listener),
    )
    if listener.result is None:
        return None, None
    return listener.result.metrics, listener.result.exports
