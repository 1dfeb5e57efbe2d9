"""What a local cluster is asked to be: its command, addresses, log directory and limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from psys.cli import guard
from psys.cluster import CHIEF, EVALUATOR, PS, WORKER, Task


@dataclass(frozen=True)
class Patience:
    """How long roles may take to end by themselves.

    Attributes:
        grace_secs: after a role failed.
        ending_secs: after the chief ended, or there was a verdict.
        interrupt_secs: after they were asked to stop.
        terminate_secs: between SIGTERM and SIGKILL for those who took too long.
    """

    grace_secs: float = 20.0
    ending_secs: float = 90.0
    interrupt_secs: float = 15.0
    terminate_secs: float = guard.TERMINATE_SECS


@dataclass(frozen=True)
class Launch:
    """What to start.

    Attributes:
        command: the script and its arguments, run by this Python.
        cluster: addresses by task type; every task listed is started.
        log_dir: an existing directory for one log file per role, and the verdict.
        environment: variables for every role.
        timeout_secs: how long the whole job may take; None without a limit.
        patience: how long the roles may take to end.
    """

    command: Sequence[str]
    cluster: Mapping[str, Sequence[str]]
    log_dir: Path
    environment: Mapping[str, str]
    timeout_secs: float | None = None
    patience: Patience = Patience()

    @property
    def tasks(self) -> list[Task]:
        """Every task, in the order in which they are started."""
        order = (PS, CHIEF, WORKER, EVALUATOR)
        return [Task(kind, i) for kind in order for i in range(len(self.cluster.get(kind, ())))]

    @property
    def verdict_path(self) -> Path:
        """Where the role that concludes the job writes its verdict."""
        return self.log_dir / "verdict.json"
