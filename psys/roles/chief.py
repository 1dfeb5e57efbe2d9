"""The chief: creates or restores, trains, saves, and ends the job."""

from __future__ import annotations

import logging
import time
from functools import partial

from psys.cluster import MASTER
from psys.errors import ClusterError
from psys.estimator.estimator import Estimator
from psys.estimator.exporters import check_exporters
from psys.estimator.specs import EvalSpec, TrainSpec
from psys.ps.messages import CheckpointEntry, ChiefFacts, Directive, Verdict
from psys.roles.local import EvaluationListener
from psys.roles.role import (
    await_verdict,
    heard_verdict,
    keep_verdict,
    member_of,
    on_sigterm,
    settings_of,
    watch_for_the_end,
)
from psys.roles.trainer import Training
from psys.train.membership import Membership
from psys.train.verdict import keep_run, put_aside_verdict, unended_run

logger = logging.getLogger("psys")

SAY_EVERY_SECS = 10.0


def run(estimator: Estimator, train_spec: TrainSpec, eval_spec: EvalSpec) -> None:
    """Be the chief of the cluster TF_CONFIG names, until the job has ended.

    Under its older name, master, it evaluates too, in between and at the end.

    Raises:
        SystemExit: 1 if the job failed elsewhere, 143 after SIGTERM.
        ClusterError: if the final checkpoint was not evaluated in time.
    """
    config = estimator.config
    listeners = tuple(train_spec.saving_listeners)
    own: EvaluationListener | None = None
    if config.task_type == MASTER:
        own = EvaluationListener(estimator, train_spec, eval_spec)
        listeners += (own,)
    with member_of(settings_of(config)) as membership:
        attendance = membership.attendance
        assert attendance is not None
        watch_for_the_end(membership, train_spec.max_steps)
        if own is not None:
            check_exporters(eval_spec.exporters)
        training = Training(membership, estimator, train_spec, listeners)
        with on_sigterm(training.leave):
            _begin(membership, train_spec, config.evaluator_expected)
            try:
                # With a verdict, this is a latecomer: the job is over.
                told = attendance.directive
                if told.verdict is None:
                    if told.generation:
                        logger.info("Taking over the live model at step %d.", told.global_step)
                    put_aside_verdict(membership.settings.model_dir)
                    final = training.train()
                    assert final is not None
                    final = training.mark_final(final)
                    training.conclude(_verdict(final, _evaluated(membership, final, own)))
                verdict = await_verdict(membership)
            finally:
                training.close()
            keep_verdict(membership)
            logger.info(
                "FINISHED at step %d: %s. Evaluated: %s.",
                verdict.global_step,
                verdict.checkpoint,
                "yes" if verdict.evaluated else "none expected",
            )
            heard_verdict(membership)


def _begin(membership: Membership, train_spec: TrainSpec, expected: bool | None) -> None:
    """Take the chief's place."""
    attendance = membership.attendance
    assert attendance is not None
    listed = membership.settings.job.evaluator_listed
    attendance.update(
        chief=ChiefFacts(
            max_steps=train_spec.max_steps or 0,
            evaluator_expected=listed if expected is None else expected,
            proposed_job=unended_run(membership.settings.model_dir),
        )
    )
    attendance.keep_run = partial(keep_run, membership.settings.model_dir)
    attendance.begin()
    attendance.wait_for(lambda one: one.member > 0, "the lead")


def _evaluated(
    membership: Membership, final: CheckpointEntry, own: EvaluationListener | None
) -> str | None:
    """Return the final export's path, '' for none; None if nobody evaluates.

    Raises:
        ClusterError: if an evaluator is expected and stayed absent.
    """
    if own is not None and own.result is not None:
        return own.result.export
    if not _evaluator_expected(membership):
        return None
    return _await_evaluation(membership, final, membership.settings.limits.start_timeout_secs)


def _verdict(final: CheckpointEntry, export: str | None) -> Verdict:
    """Return FINISHED. ``export`` is None if nobody evaluated."""
    return Verdict(
        finished=True,
        global_step=final.global_step,
        checkpoint=final.path,
        export=export or "",
        evaluated=export is not None,
    )


def _evaluator_expected(membership: Membership) -> bool:
    attendance = membership.attendance
    assert attendance is not None
    orders, facts = attendance.directive.chief, attendance.report.chief
    seen = orders is not None and orders.evaluator_seen
    return seen or (facts is not None and facts.evaluator_expected)


def _await_evaluation(membership: Membership, final: CheckpointEntry, patience_secs: float) -> str:
    """Wait as long as the evaluator makes progress; ``patience_secs`` where it does not.

    Returns:
        The path of the final export, '' for none.

    Raises:
        ClusterError: if the evaluator is absent or stuck; the message names the checkpoint.
    """
    attendance = membership.attendance
    assert attendance is not None
    progress, progress_at = "absent", time.monotonic()
    said = time.monotonic()

    def evaluated(directive: Directive) -> bool:
        nonlocal progress, progress_at, said
        orders = directive.chief
        now = time.monotonic()
        if orders is None:
            return False
        if orders.evaluator != progress:
            progress, progress_at = orders.evaluator, now
        state = f"{progress}, {now - progress_at:.0f} s ago"
        if now - said > SAY_EVERY_SECS:
            said = now
            logger.info("Waiting for the final evaluation. The evaluator: %s.", state)
        if now - progress_at > patience_secs:
            stuck = "was absent" if progress == "absent" else f"made no progress ({progress})"
            raise ClusterError(
                f"The final checkpoint is saved ({final.path}), but the evaluator expected to "
                f"evaluate it {stuck} for {patience_secs:.0f} s."
            )
        return final.checkpoint_id in orders.completed

    orders = attendance.wait_for(evaluated, "the final evaluation").chief
    assert orders is not None
    return orders.export
