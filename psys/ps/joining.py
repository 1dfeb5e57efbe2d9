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
    chief: Report | None,
) -> str:
    """Return why a process does not belong to this job, '' if it does.

    Args:
        report: what the process says.
        job_id: the run the lead serves, '' if that is not settled.
        cluster_digest: of the lead's ps list.
        listed: the tasks of the lead's cluster.
        chief: what the chief says, None if there is none.
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
    return "" if chief is None or report.task == "chief" else _other_model(report, chief)


def _other_model(report: Report, chief: Report) -> str:
    """Return how a trainer's model is not the chief's, '' as far as that is not known."""
    if _differ(report.model_digest, chief.model_digest):
        return (
            f"{report.task} builds other variables than the chief: run the same program "
            "with the same arguments on every task."
        )
    if _differ(report.plan_digest, chief.plan_digest):
        return (
            f"{report.task} looks for variables on other ps than the chief puts them on: give "
            "every task the same ParameterServerStrategy(variable_partitioner=, placement=), and "
            "see that both answer alike on every task."
        )
    if _differ(report.policy, chief.policy):
        return (
            f"{report.task} trains with {report.policy}, the chief with {chief.policy}: give every "
            "task the same ParameterServerStrategy, or the same SyncReplicasOptimizer."
        )
    return ""


def _differ(one: str | Policy | None, other: str | Policy | None) -> bool:
    """Return whether both are known and not the same."""
    return bool(one) and bool(other) and one != other


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
