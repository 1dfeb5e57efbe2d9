"""A ps: holds one shard, serves it, and leaves when the job has ended.

ps 0 hosts the lead besides, and is the last to leave.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace

from psys import kernels
from psys.errors import JobFailed
from psys.estimator.run_config import RunConfig
from psys.host import NodeHost
from psys.ps.messages import Directive, ShardFacts, TaskPhase
from psys.ps.node import Node
from psys.roles.role import (
    JobOver,
    await_verdict,
    end_if_over,
    finished_before,
    heard_verdict,
    latecomer_secs,
    member_of,
    on_sigterm,
    settings_of,
)
from psys.train.interrupts import SIGTERM_EXIT_CODE
from psys.train.membership import Membership

logger = logging.getLogger("psys")

SIGTERM_PATIENCE_SECS = 8.0
LOOK_SECS = 0.25


def run(config: RunConfig, max_steps: int | None, without_script: bool = False) -> None:
    """Be a ps of the cluster TF_CONFIG names, until the job has ended.

    Args:
        config: which task of which cluster, where its files go, and how long it waits.
        max_steps: of the job, where it is known.
        without_script: whether this process does not run the job's program, and so knows none of
            its optimizers and schedules.

    Raises:
        SystemExit: 1 if the job failed, 143 after SIGTERM.
        ConfigError: if the address cannot be bound.
    """
    leaving = threading.Event()
    settings = replace(settings_of(config), without_script=without_script)
    with (
        on_sigterm(leaving.set),
        member_of(settings, leaving.is_set) as membership,
    ):
        logger.info(
            "%s listens on %s.",
            membership.settings.task,
            membership.settings.shard_addresses[membership.settings.hosts or 0],
        )
        # While trainers start; a load waits for what is not ready by then.
        threading.Thread(
            target=kernels.prepare_rows, args=("float32",), name="psys-kernels", daemon=True
        ).start()
        if membership.attendance is None:
            _lead(membership, leaving, max_steps)
        else:
            _follow(membership, leaving, max_steps)


def _lead(membership: Membership, leaving: threading.Event, max_steps: int | None) -> None:
    """Be ps 0: stay until everyone has heard the verdict."""
    host = membership.host
    assert host is not None
    begun, patience_secs = time.monotonic(), latecomer_secs(membership, max_steps)
    while (verdict := host.verdict(LOOK_SECS)) is None:
        if leaving.is_set():
            _leave(host)
        if time.monotonic() - begun > patience_secs and not host.read_lead(_chief_seen):
            old = finished_before(membership.settings, max_steps)
            if old is not None:
                raise JobOver(old)
    host.wait_may_leave(leaving.is_set)
    if not verdict.finished:
        raise JobFailed(verdict.reason)
    logger.info("The job FINISHED at step %d.", verdict.global_step)


def _chief_seen(node: Node) -> bool:
    return node.lead is not None and "chief" in node.lead.roster.seen


def _chief_gone(node: Node) -> bool:
    return node.lead is None or node.lead.roster.get("chief") is None


def _leave(host: NodeHost) -> None:
    """Stay until the chief has saved and left, at most SIGTERM_PATIENCE_SECS; then exit."""
    logger.warning("SIGTERM: leaving once the chief has saved.")
    until = time.monotonic() + SIGTERM_PATIENCE_SECS
    while time.monotonic() < until and not host.read_lead(_chief_gone):
        host.verdict(LOOK_SECS)
    raise SystemExit(SIGTERM_EXIT_CODE)


def _follow(membership: Membership, leaving: threading.Event, max_steps: int | None) -> None:
    """Be another ps: do what the lead orders until it tells the verdict."""
    host, attendance = membership.host, membership.attendance
    assert host is not None
    assert attendance is not None

    def obey(directive: Directive) -> None:
        if directive.shard is not None:
            host.obey(directive.shard)

    def tell(facts: ShardFacts) -> None:
        attendance.update(shard=facts)

    def look(unreachable_secs: float) -> None:
        if leaving.is_set():
            raise SystemExit(SIGTERM_EXIT_CODE)
        end_if_over(membership, max_steps, unreachable_secs)

    attendance.out_of_reach = look
    attendance.update(phase=TaskPhase.WORKING)
    attendance.listen(obey)
    host.listen_to_facts(tell)
    attendance.begin()

    def over(directive: Directive) -> bool:
        return directive.verdict is not None or leaving.is_set()

    attendance.wait_for(over, "the job to end", despite_verdict=True, idle=True)
    if leaving.is_set() and attendance.directive.verdict is None:
        logger.warning("SIGTERM: leaving once the lead has left.")
        try:
            attendance.wait_unreachable(SIGTERM_PATIENCE_SECS)
        finally:
            raise SystemExit(SIGTERM_EXIT_CODE)
    verdict = await_verdict(membership)
    logger.info("The job FINISHED at step %d.", verdict.global_step)
    heard_verdict(membership)
