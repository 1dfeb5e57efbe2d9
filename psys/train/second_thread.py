"""Whether a trainer has a second thread for its gradients: where a core is free for it."""

from __future__ import annotations

import logging
import os
from concurrent.futures import Executor, ThreadPoolExecutor

from psys.cluster import ClusterConfig
from psys.environment import numeric_threads

logger = logging.getLogger("psys")

CORES_OF_A_TRAINER = 2
"""So many a trainer must have to itself. With fewer, two threads only make each other slower: two
trainers on two cores took 4 % fewer steps."""


def second_thread(config: ClusterConfig) -> Executor | None:
    """Return a thread that computes some of a trainer's gradients, None where it would not help.

    A process alone takes the threads its numeric libraries were given and no more, and so does one
    that was given several: theirs share each product already.

    Args:
        config: who else trains on this host.
    """
    if config.cluster is None or numeric_threads() != 1:
        return None
    if _cores() < CORES_OF_A_TRAINER * config.cluster.trainers_beside(config.task):
        return None
    logger.info("Gradients are computed in two threads.")
    return ThreadPoolExecutor(1, "psys-gradients")


def _cores() -> int:
    """Return how many cores this process may use, where the system says; else all there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
