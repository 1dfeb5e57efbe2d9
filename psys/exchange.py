"""One exchange with all shards, as a trainer sees it: whose it is, its batch, what it brought."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psys.arrays import Array
from psys.errors import ClusterError
from psys.ps.messages import ExchangeRequest, Grant, Outcome, TaskName
from psys.spread import Wanted


@dataclass(frozen=True)
class Place:
    """Under which name a trainer's steps are counted.

    Attributes:
        generation: the live generation.
        task: the trainer.
        member: its member number in that generation.
    """

    generation: str
    task: TaskName
    member: int


@dataclass(frozen=True)
class Origin:
    """What a push says of its batch.

    Attributes:
        global_step: the step its gradients were computed at.
        input_batches: batches the trainer's process has trained on, this one included.
        examples: in this batch.
        versions: of each shard, that its gradients were computed from; empty for the newest.
    """

    global_step: int = 0
    input_batches: int = 0
    examples: int = 0
    versions: tuple[int, ...] = ()


NO_ORIGIN = Origin()


@dataclass(frozen=True)
class Pulled:
    """What one exchange brought.

    Attributes:
        dense: every dense variable, whole; only to be read, for it may be handed out again.
        rows: for each table or stack asked for, ``(ids, rows)`` as asked.
        grant: the lead's permission.
        global_step: steps counted by the lead.
        staleness: the greatest over the shards, of the push just applied.
        outcome: of the push, as the lead's shard told it; DROPPED by one is DROPPED by all.
        waiting_for: whom a WAIT waits for.
        versions: of each shard, when the values were read.
    """

    dense: Mapping[str, Array]
    rows: Mapping[str, tuple[Array, Array]]
    grant: Grant
    global_step: int
    staleness: int
    outcome: Outcome
    waiting_for: str
    versions: tuple[int, ...] = ()


Sent = tuple[Sequence[int], ClusterError | None]
"""The shards a request was sent to, and why it was not sent to another."""


@dataclass(frozen=True)
class Exchange:
    """An exchange that was begun, and is to be finished.

    Attributes:
        place: who counts it.
        requests: one for each shard.
        rows: global ids wanted, by table or stack.
        wanted: for each of these, how they were asked for.
        pull: whether values are wanted at all.
        sent: the shards it was sent to.
        failure: why it was not sent to another.
    """

    place: Place
    requests: Sequence[ExchangeRequest]
    rows: Mapping[str, Array]
    wanted: Mapping[str, Wanted]
    pull: bool
    sent: Sequence[int]
    failure: ClusterError | None
