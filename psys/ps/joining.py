"""Joining: what a task must have in common with the lead, and which run of the job that is.

Yesterday's process on today's port, a ps list in another order, a worker with other code: each
difference is one sentence. Nothing here changes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from psys.ps.job import EndedRun
from psys.ps.messages import PROTOCOL_VERSION, Policy, Report, TaskName


def objection(
    report: Report,
    *,
    job_id: str,
    cluster_digest: str,
    listed: Sequence[TaskName],
    chief_digest: str,
    chief_policy: Policy | None = None,
) -> str:
    """Return why a process does not belong to this job, '' if it does.

    Args:
        report: what the process says.
        job_id: the run the lead serves, '' if that is not settled.
        cluster_digest: of the lead's ps list.
        listed: the tasks of the lead's cluster.
        chief_digest: of the chief's variables, '' if it has not built its model.
        chief_policy: of the chief, None if it has not built its model.
    """
    if report.protocol_version != PROTOCOL_VERSION:
        return (
            f"{report.task} speaks protocol version {report.protocol_version}, the lead "
            f"{PROTOCOL_VERSION}: install the same psys everywhere."
        )
    if report.cluster_digest != cluster_digest:
        return (
            f"{report.task} has another list of ps than the lead (other addresses, or "
            "another order): give every task the same TF_CONFIG cluster."
        )
    if job_id and report.job_id not in ("", job_id):
        return (
            f"{report.task} belongs to run {report.job_id} of a job, the lead to run {job_id}: "
            "it is left over from an earlier run, or two jobs use one address. End it, or give "
            "each job its own addresses."
        )
    if report.task not in listed:
        return f"{report.task} is not listed in the lead's cluster."
    if report.task != "chief" and chief_digest and report.model_digest not in ("", chief_digest):
        return (
            f"{report.task} builds other variables than the chief: run the same program "
            "with the same arguments on every task."
        )
    given = report.policy
    if report.task != "chief" and chief_policy is not None and given not in (None, chief_policy):
        return (
            f"{report.task} trains with {given}, the chief with {chief_policy}: give every "
            "task the same ParameterServerStrategy, or the same SyncReplicasOptimizer."
        )
    return ""


def settle(reports: Sequence[Report], ended: EndedRun | None, new_id: Callable[[], str]) -> str:
    """Return the id of the run that a lead serves which was not given one.

    A lead that was restarted goes on with the run its chief takes part in. If the chief is new
    too, with the run it finds on its disk, or the one that other tasks take part in; a run
    that has ended is gone on with only if its chief is still there, to hear of it.

    Args:
        reports: of all tasks, the chief first, then the ps.
        ended: the run whose verdict lies on the lead's disk.
        new_id: makes a random id.
    """
    chief = next((one for one in reports if one.chief is not None), None)
    if chief is not None and chief.job_id:
        return chief.job_id
    proposed = chief.chief.proposed_job if chief is not None and chief.chief is not None else ""
    for claim in (proposed, *(one.job_id for one in reports)):
        if claim and (ended is None or claim != ended[0]):
            return claim
    return new_id()
