"""Directives: what the lead tells each process, made of what it has decided. Decides nothing."""

from __future__ import annotations

from dataclasses import replace

from psys.ps.lead import Lead
from psys.ps.messages import ChiefOrders, Directive, Standing, Verdict
from psys.ps.roster import Instance
from psys.ps.tally import NO_PUSHES, PushCounts


def directive_to(lead: Lead, instance: Instance, pushes: PushCounts = NO_PUSHES) -> Directive:
    """Return all a process needs to know; its revision is for the host to set.

    Args:
        lead: who decided it.
        instance: the process.
        pushes: what the chief is told of them.
    """
    task = instance[0]
    base = Directive(
        lead=lead.lead_id,
        # First the chief alone, who puts it on disk: else a run could be known only to those
        # who stay when chief and lead are lost together.
        job_id=lead.job_id if lead.run_kept or task == "chief" else "",
        generation=lead.generation if lead.live else "",
        job=lead.phase,
        waiting_for=lead.waits.describe(),
        ps_lost=any(
            one in lead.roster.seen and lead.roster.get(one) is None for one in lead.job.others
        ),
        global_step=lead.grants.global_step if task == "chief" else 0,
        live_trainers=sum(member.trains for member in lead.roster.live()),
        verdict=lead.ending.verdict or _verdict_before(lead, instance),
    )
    if instance in lead.rejected:
        return replace(base, standing=Standing.REJECTED, waiting_for=lead.rejected[instance])
    member = lead.roster.members.get(task)
    if member is None or member.instance != instance:
        if instance in lead.roster.replaced:
            return replace(base, standing=Standing.REPLACED)
        return replace(
            base,
            standing=Standing.WAITING,
            waiting_for=f"the other {task} to leave or be lost",
        )
    # A trainer whose variables are not known yet may turn out not to belong here.
    unknown = task in lead.job.trainers and not member.report.model_digest
    chief = lead.chief_report()
    if unknown and chief is not None and chief.model_digest:
        base = replace(base, generation="")
    return replace(
        base,
        member=member.number,
        shard=lead.shard_orders() if task in lead.job.ps else None,
        chief=_chief_orders(lead, pushes) if task == "chief" else None,
    )


def _chief_orders(lead: Lead, pushes: PushCounts) -> ChiefOrders:
    evaluator = lead.roster.get("evaluator")
    facts = evaluator.report.evaluator if evaluator is not None else None
    progress = "absent" if facts is None else facts.progress or "waiting for a checkpoint"
    newest = max((one.newest_step, one.newest_checkpoint) for one in lead.shard_facts().values())
    return ChiefOrders(
        initialize=lead.generation if lead.initializing else "",
        lost_step=lead.lost_step,
        saved=lead.saving.result,
        completed=lead.completed,
        evaluator=progress,
        evaluator_seen="evaluator" in lead.roster.seen,
        export=facts.export if facts is not None else "",
        pins=facts.pins if facts is not None else frozenset(),
        newest_checkpoint=newest[1],
        newest_step=newest[0],
        pushes=pushes,
    )


def _verdict_before(lead: Lead, instance: Instance) -> Verdict | None:
    """Return how the run ended that a process takes part in, if this is not that run."""
    ended = lead.job.ended
    claim = lead.claims.get(instance, "")
    return ended[1] if ended is not None and claim and claim == ended[0] else None
