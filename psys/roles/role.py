"""What all roles of a cluster have in common: settings, signals, and a failure that is told."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from psys.attendance import Attendance
from psys.checkpoint.storage import FileStorage
from psys.cluster import EVALUATOR
from psys.environment import job_id, job_token, verdict_file
from psys.errors import ClusterError, ConfigError, JobFailed
from psys.estimator.run_config import RunConfig
from psys.host import new_id
from psys.ps.endings import Limits
from psys.ps.job import Job
from psys.ps.messages import Standing, TaskPhase, Verdict
from psys.train.interrupts import SIGTERM_EXIT_CODE
from psys.train.membership import LOCAL, Membership, Settings
from psys.train.verdict import read_ended
from psys.uncaught import one_line

logger = logging.getLogger("psys")

FAREWELL_SECS = 5.0
LATECOMER_SECS = 10.0
"""A lead out of reach for so long, with a FINISHED verdict on disk: the job was over before."""


class JobOver(Exception):
    """The job finished before this task came."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(
            f"Nothing to do: the job finished at step {verdict.global_step} ({verdict.checkpoint})."
        )


def settings_of(config: RunConfig) -> Settings:
    """Return what TF_CONFIG and the RunConfig say of this task."""
    cluster_config = config.cluster_config
    cluster = cluster_config.cluster
    assert cluster is not None
    assert config.model_dir is not None
    return Settings(
        task=str(cluster_config.task),
        model_dir=config.model_dir,
        job=Job(
            ps=tuple(f"ps:{index}" for index in range(len(cluster.ps))),
            trainers=cluster.trainers,
            evaluator_listed=cluster_config.evaluator_listed,
            cluster_digest=cluster.digest(),
            job_id=job_id(),
            limits=Limits(config.start_timeout_secs, config.recover_secs, config.linger_secs),
        ),
        shard_addresses=cluster.shard_addresses,
        token=job_token(),
        verdict_file=verdict_file(),
    )


@contextmanager
def member_of(
    settings: Settings, hurried: Callable[[], bool] = lambda: False
) -> Iterator[Membership]:
    """Connect a task; whatever goes wrong inside becomes the job's verdict.

    Args:
        settings: of the task.
        hurried: whether the lead, once there is a verdict, is to end whoever has not heard it.

    Raises:
        SystemExit: 1, with one line, if the job failed elsewhere; 0 if it was over before.
        Exception: what was raised inside, once the lead was told.
    """
    membership = _connect(settings)
    try:
        if settings.hosts is not None or settings.task in (LOCAL, EVALUATOR):
            FileStorage(settings.model_dir).check_writable()
        yield membership
    except JobFailed as failure:
        keep_verdict(membership)
        heard_verdict(membership, hurried)
        logger.error("psys: FAILED reason=%s", " ".join(str(failure).split()))
        raise SystemExit(1) from None
    except JobOver as over:
        logger.info("%s", over)
        raise SystemExit(0) from None
    except KeyboardInterrupt:
        _leave(membership, "SIGINT")
        raise
    except SystemExit as end:
        if end.code == SIGTERM_EXIT_CODE:
            _leave(membership, "SIGTERM")
        else:  # the program's own sys.exit(), in the middle of the job
            tell_failure(membership, f"the program ended itself with {end.code!r}")
        raise
    except Exception as error:
        tell_failure(membership, one_line(error))
        raise
    finally:
        membership.close()


def _connect(settings: Settings) -> Membership:
    """Return a task's membership; a ps that cannot serve says so to the lead first."""
    try:
        return Membership(settings)
    except ConfigError as error:
        if settings.hosts:  # not ps 0, which is the lead
            alone = Membership(settings, serve=False)
            tell_failure(alone, one_line(error))
            alone.close()
        raise


def tell_failure(membership: Membership, reason: str) -> None:
    """Report FAILED with its reason, and stay until the lead has made it the verdict."""
    attendance = membership.attendance
    if attendance is None:
        assert membership.host is not None
        membership.host.fail(f"{membership.settings.task}: {reason}")
        membership.host.wait_may_leave()
        return
    attendance.out_of_reach = None  # too late to find that the job was over before
    attendance.update(phase=TaskPhase.FAILED, reason=reason)
    attendance.begin()
    try:
        # A process that is no member has no part in the job: its failure is its own.
        directive = attendance.wait_for(
            lambda one: one.verdict is not None or one.standing is not Standing.ADMITTED,
            "the lead to hear of the failure",
            FAREWELL_SECS,
            despite_verdict=True,
        )
    except (ClusterError, ConfigError):
        # The lead is gone too; this process still ends with its own error.
        logger.warning("The lead could not be told of the failure.")
        if membership.is_chief:
            verdict = _own_verdict(attendance, f"{membership.settings.task}: {reason}")
            membership.settings.keep(verdict, _run_of(attendance))
        return
    if directive.standing is Standing.ADMITTED:
        keep_verdict(membership)
        heard_verdict(membership)


def keep_verdict(membership: Membership) -> None:
    """Put the verdict on the chief's disk too: the lead's may be another."""
    attendance = membership.attendance
    if attendance is None or not membership.is_chief:
        return
    directive = attendance.directive
    if directive.verdict is not None:
        membership.settings.keep(directive.verdict, _run_of(attendance))


def _own_verdict(attendance: Attendance, reason: str) -> Verdict:
    """Return FAILED as the chief knows it, where there is no lead to say it."""
    facts, step = attendance.report.chief, attendance.directive.global_step
    if facts is None or not facts.committed:
        return Verdict(False, reason, step)
    newest = facts.committed[-1]
    return Verdict(False, reason, max(step, newest.global_step), newest.path)


def _run_of(attendance: Attendance) -> str:
    """Return the run a verdict belongs to; a new id where none was ever known."""
    return attendance.report.job_id or attendance.directive.job_id or new_id()


def _leave(membership: Membership, why: str) -> None:
    """Tell the lead that this task leaves by its own will."""
    if membership.attendance is not None:
        membership.attendance.update(phase=TaskPhase.LEFT, reason=why)


def heard_verdict(membership: Membership, hurried: Callable[[], bool] = lambda: False) -> None:
    """Acknowledge the verdict, and where the lead lives here, stay until all others have."""
    if membership.attendance is not None:
        membership.attendance.update(heard_verdict=True)
    if membership.host is not None and membership.host.has_lead:
        membership.host.wait_may_leave(hurried)


def await_verdict(membership: Membership) -> Verdict:
    """Wait until the job ends; return how, or raise JobFailed.

    Raises:
        JobFailed: if the verdict is FAILED.
        ClusterError: if the lead stays out of reach.
    """
    assert membership.attendance is not None
    directive = membership.attendance.wait_for(
        lambda one: one.verdict is not None, "the job to end", despite_verdict=True
    )
    assert directive.verdict is not None
    if not directive.verdict.finished:
        raise JobFailed(directive.verdict.reason)
    return directive.verdict


def watch_for_the_end(membership: Membership, max_steps: int | None) -> None:
    """Let a latecomer notice, while it waits for a lead, that the job is over."""
    attendance = membership.attendance
    assert attendance is not None

    attendance.out_of_reach = lambda secs: end_if_over(membership, max_steps, secs)


def end_if_over(membership: Membership, max_steps: int | None, unreachable_secs: float) -> None:
    """Raise JobOver if the job was over before this task came; see ``verdict_before``."""
    verdict = verdict_before(membership, max_steps, unreachable_secs)
    if verdict is not None:
        raise JobOver(verdict)


def verdict_before(
    membership: Membership, max_steps: int | None, unreachable_secs: float
) -> Verdict | None:
    """Return the FINISHED verdict of a job that was over before this task came.

    Nobody obeys the file while the lead can be reached, or where there is work left to do.
    """
    attendance = membership.attendance
    assert attendance is not None
    patience_secs = latecomer_secs(membership, max_steps)
    if unreachable_secs < patience_secs or attendance.directive.revision >= 0:
        return None
    return finished_before(membership.settings, max_steps)


def latecomer_secs(membership: Membership, max_steps: int | None) -> float:
    """Return how long to look for a lead before an old FINISHED verdict is obeyed.

    Where max_steps are reached there is nothing to do in any case, and where the runs have
    names the file says which it is of. Otherwise only the absence of everyone else tells a
    job that is over from one that is about to start.
    """
    if max_steps is not None or membership.settings.job.job_id:
        return LATECOMER_SECS
    return 0.9 * membership.settings.limits.start_timeout_secs


def finished_before(settings: Settings, max_steps: int | None) -> Verdict | None:
    """Return the verdict below model_dir if it is FINISHED with nothing left to do.

    Where this run has a name (PSYS_JOB_ID), an end of another run leaves all of it to do,
    unless max_steps are reached.
    """
    ended = read_ended(settings.model_dir)
    if ended is None or not ended[1].finished:
        return None
    run, verdict = ended
    this_run = settings.job.job_id in ("", run)
    if max_steps is None:
        return verdict if this_run else None
    return verdict if verdict.global_step >= max_steps else None


@contextmanager
def on_sigterm(stop: Callable[[], None]) -> Iterator[None]:
    """Call ``stop`` when the process is asked to end, once; a second time ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        stop()

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
