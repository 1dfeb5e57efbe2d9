"""The chief: creates or restores, trains, saves, and ends the job."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

from psys.errors import ClusterError
from psys.estimator.estimator import Estimator
from psys.estimator.specs import TrainSpec
from psys.ps.messages import CheckpointEntry, ChiefFacts, Directive, TaskPhase, Verdict
from psys.roles.role import (
    SIGTERM_EXIT_CODE,
    await_verdict,
    heard_verdict,
    member_of,
    settings_of,
    watch_for_the_end,
)
from psys.roles.trainer import Training
from psys.train.membership import Membership
from psys.train.verdict import put_aside_verdict

logger = logging.getLogger("psys")

SAY_EVERY_SECS = 10.0


def run(estimator: Estimator, train_spec: TrainSpec) -> None:
    """Be the chief of the cluster TF_CONFIG names, until the job has ended.

    Raises:
        SystemExit: 1 if the job failed elsewhere, 143 after SIGTERM.
        ClusterError: if the final checkpoint was not evaluated in time.
    """
    config = estimator.config
    with member_of(settings_of(config)) as membership:
        attendance = membership.attendance
        assert attendance is not None
        watch_for_the_end(membership, train_spec.max_steps)
        expected = config.evaluator_expected
        attendance.update(
            chief=ChiefFacts(
                max_steps=train_spec.max_steps or 0,
                evaluator_expected=bool(expected)
                or (expected is None and membership.settings.job.evaluator_listed),
            )
        )
        attendance.begin()
        attendance.wait_for(lambda one: one.member > 0, "the lead")
        if attendance.directive.verdict is None:
            put_aside_verdict(membership.settings.model_dir)
        training = Training(membership, estimator, train_spec)
        try:
            training.train()
            final = training.run.finish()
            if training.leaving:
                attendance.update(phase=TaskPhase.LEFT, reason="SIGTERM")
                raise SystemExit(SIGTERM_EXIT_CODE)
            _conclude(membership, training, final, config.start_timeout_secs)
        finally:
            training.run.close()
        await_verdict(membership)
        heard_verdict(membership)


def _conclude(
    membership: Membership, training: Training, final: CheckpointEntry, patience_secs: float
) -> None:
    """Wait for the final evaluation where one is expected, then write and tell FINISHED."""
    attendance, control = membership.attendance, training.run.control
    assert attendance is not None
    assert control is not None
    final = control.mark_final(final)
    expected = _evaluator_expected(attendance.directive, attendance.report.chief)
    if expected:
        _await_evaluation(membership, final, patience_secs)
    orders = attendance.directive.chief
    export = orders.export if expected and orders is not None else ""
    verdict = Verdict(
        finished=True,
        global_step=final.global_step,
        checkpoint=final.path,
        export=export,
        evaluated=expected,
    )
    membership.settings.keep(verdict)
    facts = attendance.report.chief
    assert facts is not None
    attendance.update(chief=replace(facts, conclusion=verdict))
    logger.info(
        "FINISHED at step %d: %s. Evaluated: %s.",
        final.global_step,
        final.path,
        "yes" if expected else "none expected",
    )


def _evaluator_expected(directive: Directive, facts: ChiefFacts | None) -> bool:
    seen = directive.chief is not None and directive.chief.evaluator_seen
    return seen or (facts is not None and facts.evaluator_expected)


def _await_evaluation(membership: Membership, final: CheckpointEntry, patience_secs: float) -> None:
    """Wait as long as the evaluator lives; for an absent one, ``patience_secs``.

    Raises:
        ClusterError: if the evaluator stayed absent; the message names the checkpoint.
    """
    attendance = membership.attendance
    assert attendance is not None
    absent_since = time.monotonic()
    said = time.monotonic()

    def evaluated(directive: Directive) -> bool:
        nonlocal absent_since, said
        orders = directive.chief
        now = time.monotonic()
        if orders is None:
            return False
        if orders.evaluator != "absent":
            absent_since = now
        if now - said > SAY_EVERY_SECS:
            said = now
            logger.info("Waiting for the final evaluation. Evaluator: %s.", orders.evaluator)
        if now - absent_since > patience_secs:
            raise ClusterError(
                f"The final checkpoint is saved ({final.path}), but the evaluator expected to "
                f"evaluate it was absent for {patience_secs:.0f} s."
            )
        return final.checkpoint_id in orders.completed

    attendance.wait_for(evaluated, "the final evaluation")
