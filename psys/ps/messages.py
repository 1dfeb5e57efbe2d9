"""What the processes of a cluster say to each other, as plain values.

Two conversations. An **exchange** (trainer and shard) carries one step's gradients and the
next step's parameters. **Reports and directives** (any task and the lead) carry state, not
events: each is whole, a later revision replaces an earlier one, so one lost, repeated or
delivered late does no harm. Nothing here acts; ``psys.rpc`` puts these on the wire.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from psys.arrays import Array, Gradient
from psys.ps.tally import NO_PUSHES, PushCounts

PROTOCOL_VERSION = 1

TaskName = str
"""``chief``, ``worker:1``, ``ps:0`` or ``evaluator``: unique among the live tasks of a job."""


# ---------------------------------------------------------------- consistency


class Consistency(enum.Enum):
    """What trainers may assume of each other's gradients."""

    ASYNC = 0
    """A gradient is an update, applied as soon as it comes."""
    BOUNDED = 1
    """And no trainer is given values while it is too far ahead of the slowest."""
    SYNC = 2
    """An update is the average of the gradients of several trainers."""


@dataclass(frozen=True)
class Policy:
    """When a job's gradients become updates; the same on every trainer.

    Attributes:
        consistency: which of the three.
        staleness: for BOUNDED, how many steps a trainer may be ahead of the slowest.
        replicas: for SYNC, how many trainers' gradients make an update; 0 for all.
    """

    consistency: Consistency = Consistency.ASYNC
    staleness: int = 0
    replicas: int = 0

    def __str__(self) -> str:
        if self.consistency is Consistency.BOUNDED:
            return f'consistency="bounded", staleness={self.staleness}'
        if self.consistency is Consistency.SYNC:
            return f'consistency="sync", replicas_to_aggregate={self.replicas or None}'
        return 'consistency="async"'


ASYNC = Policy()


# ---------------------------------------------------------------- exchange


class Outcome(enum.Enum):
    """What became of a push."""

    NONE = 0
    """There was no push."""
    APPLIED = 1
    DUPLICATE = 2
    """This very push had been applied before; only its pull was served."""
    FENCED = 3
    """A later process has this task's place, or the lead gave this one up for lost."""
    GENERATION_CHANGED = 4
    """The shard does not hold the generation named; nothing was applied or read."""
    GAP = 5
    """A sequence number was skipped: an error of the sender."""
    REFUSED = 6
    """A name, shape, dtype or id does not fit; nothing was applied (see ``reason``)."""
    DROPPED = 7
    """It came after the update it was computed for (SYNC): nothing was applied of it."""
    ACCUMULATED = 8
    """It is kept for its update, which is yet to be made (SYNC): ask again for the values."""
    WAITING = 9
    """The push, if any, was applied; the values have to wait for others: ask again."""


class Grant(enum.Enum):
    """Permission to take one step, given by the lead alone."""

    NONE = 0
    """Not asked for, or this shard is not the lead's."""
    GO = 1
    WAIT = 2
    """All steps up to max_steps are granted to others; ask again."""
    STOP = 3


@dataclass(frozen=True)
class ExchangeRequest:
    """One step's push and the next step's pull, for one shard.

    Attributes:
        generation: the history of the model the sender has.
        task: the sender.
        member: the sender's member number.
        sequence: the push's number, one more than the last; without a push, the last one sent.
        base_version: the shard's version the gradients were computed from.
        push: gradients by variable or stack, of its rows here alone, counted from the first;
            None when there is nothing to push. Empty for a shard with no part in it.
        pull_dense: whether the values of the dense slices are wanted.
        pull_rows: the rows wanted of tables and stacks, likewise.
        wants_grant: whether the sender asks for permission for a next step.
        global_step: the step the gradients were computed at, as the sender read it.
        input_batches: where the sender's input stands: batches its process has trained on,
            the one pushed included.
        examples: how many examples the pushed batch has.
        least_version: the reply waits until the shard's version is at least this.
        known_version: the sender has all dense slices as they were at this version, and wants
            those that changed since; None for all.
        exact: of the push, what is no gradient: it is not rounded on its way.
    """

    generation: str
    task: TaskName
    member: int
    sequence: int
    base_version: int
    push: Mapping[str, Gradient] | None
    pull_dense: bool
    pull_rows: Mapping[str, Array]
    wants_grant: bool
    global_step: int = 0
    input_batches: int = 0
    examples: int = 0
    least_version: int = 0
    known_version: int | None = None
    exact: frozenset[str] = frozenset()


@dataclass(frozen=True)
class ExchangeReply:
    """A shard's answer.

    Attributes:
        generation: the generation the shard holds, '' for none.
        sequence: as in the request.
        outcome: what became of the push.
        reason: one sentence where the outcome is REFUSED, GAP or FENCED.
        version: the number of updates made here, read together with the values. Under SYNC it
            means the same on every shard, otherwise on this one alone.
        staleness: version at arrival − base version, for an applied or dropped push.
        global_step: steps counted by the lead so far (its shard only, otherwise 0).
        grant: the lead's permission (its shard only).
        waiting_for: whom a WAIT, ACCUMULATED or WAITING waits for.
        dense: values of the dense slices, but for those the sender knows; only to be read.
        rows: the rows asked for, by table.
    """

    generation: str
    sequence: int
    outcome: Outcome
    reason: str = ""
    version: int = 0
    staleness: int = 0
    global_step: int = 0
    grant: Grant = Grant.NONE
    waiting_for: str = ""
    dense: Mapping[str, Array] = field(default_factory=dict)
    rows: Mapping[str, Array] = field(default_factory=dict)


# ---------------------------------------------------------------- reports


class TaskPhase(enum.Enum):
    """Where a task stands, in its own words."""

    JOINING = 0
    WORKING = 1
    INPUT_ENDED = 2
    """A trainer whose input ended, or whose hook asked to stop: it takes no more steps."""
    LEFT = 3
    """Leaves by its own will (SIGTERM), without a verdict."""
    FAILED = 4
    """Ended by an exception; ``reason`` says which."""


class ShardPhase(enum.Enum):
    """What a shard holds."""

    EMPTY = 0
    LOADING = 1
    LOADED = 2
    LIVE = 3


@dataclass(frozen=True)
class ShardFile:
    """A shard file that was written: its name within the checkpoint, size and hash."""

    name: str
    size_bytes: int
    sha256: str


Fences = Mapping[TaskName, tuple[int, int]]
"""For each trainer, (member number, sequence of its last applied push)."""


@dataclass(frozen=True)
class PastFence:
    """The last push applied of a member whose task another process has now."""

    task: TaskName
    member: int
    sequence: int


@dataclass(frozen=True)
class ShardFacts:
    """What a ps says of its shard. Save ids are '' when there is none."""

    index: int
    phase: ShardPhase = ShardPhase.EMPTY
    generation: str = ""
    refused: Mapping[TaskName, int] = field(default_factory=dict)
    held: str = ""
    fences: Fences = field(default_factory=dict)
    past_fences: tuple[PastFence, ...] = ()
    cut: str = ""
    cut_inputs: Mapping[TaskName, int] = field(default_factory=dict)
    """Where each trainer's input stands in the cut, in batches (the lead's shard)."""
    cut_examples: int = 0
    """Examples trained on in this generation, in the cut."""
    written: str = ""
    file: ShardFile | None = None
    write_error: str = ""
    newest_checkpoint: str = ""
    """The newest checkpoint of which this ps keeps a manifest."""
    newest_step: int = 0
    updates: int = 0
    """Updates made in this generation, under SYNC; otherwise 0."""
    arrived: Fences = field(default_factory=dict)
    """The pushes kept for the next update, under SYNC."""


@dataclass(frozen=True)
class CheckpointEntry:
    """A committed checkpoint."""

    checkpoint_id: str
    global_step: int
    path: str
    final: bool = False


@dataclass(frozen=True)
class Verdict:
    """How the job ended; written once.

    Attributes:
        finished: True for FINISHED, False for FAILED.
        reason: one line, for FAILED.
        global_step: the final step.
        checkpoint: the final checkpoint's path, '' for none.
        export: the final export's path, '' for none.
        evaluated: True if the final checkpoint was evaluated.
    """

    finished: bool
    reason: str = ""
    global_step: int = 0
    checkpoint: str = ""
    export: str = ""
    evaluated: bool = False


@dataclass(frozen=True)
class ChiefFacts:
    """What the chief asks for and has done."""

    max_steps: int = 0
    """The global step at which the job ends; 0 for none."""
    loaded: str = ""
    """The generation whose values the chief has put into every shard."""
    loaded_step: int = 0
    loaded_examples: int = 0
    """Examples that what was loaded had been trained on."""
    save_request: int = 0
    """Counts the saves asked for; one save answers all requests up to it."""
    stop_reason: str = ""
    """Why no more steps shall be granted; '' while training goes on."""
    committed: tuple[CheckpointEntry, ...] = ()
    """Every checkpoint that exists, oldest first."""
    evaluator_expected: bool = False
    conclusion: Verdict | None = None
    proposed_job: str = ""
    """The run of the job that this chief's predecessor took part in, if it did not end."""


@dataclass(frozen=True)
class EvaluatorFacts:
    """What the evaluator has done."""

    completed: frozenset[str] = frozenset()
    """Checkpoint ids evaluated, and exported, as the job's last."""
    pins: frozenset[str] = frozenset()
    """Checkpoint ids being read, which must not be deleted."""
    progress: str = ""
    export: str = ""
    """The last export's path."""


@dataclass(frozen=True)
class Report:
    """All a task tells the lead; whole in every renewal of its lease.

    Attributes:
        task: who speaks.
        instance: a random id of the process.
        revision: grows with each report of the instance.
        protocol_version: must equal the lead's.
        cluster_digest: of the ps list, in order.
        job_id: the job run the process takes part in; '' before it heard which.
        model_digest: of the variables' names, shapes and dtypes; '' before they are known.
        generation: the generation the task works in, '' for none.
        member: its member number there, 0 for none.
        phase: where it stands.
        reason: for FAILED and LEFT.
        heard_verdict: it knows the verdict and is about to end.
        policy: from a trainer, together with ``model_digest``; the chief's is the job's.
        plan_digest: likewise, of which rows of which variable are on which shard.
        shard: from a ps.
        chief: from the chief.
        evaluator: from the evaluator.
    """

    task: TaskName
    instance: str
    revision: int
    protocol_version: int = PROTOCOL_VERSION
    cluster_digest: str = ""
    job_id: str = ""
    model_digest: str = ""
    generation: str = ""
    member: int = 0
    phase: TaskPhase = TaskPhase.JOINING
    reason: str = ""
    heard_verdict: bool = False
    policy: Policy | None = None
    plan_digest: str = ""
    shard: ShardFacts | None = None
    chief: ChiefFacts | None = None
    evaluator: EvaluatorFacts | None = None


# ---------------------------------------------------------------- directives


class Standing(enum.Enum):
    """How the lead sees the process it answers."""

    ADMITTED = 0
    WAITING = 1
    """A twin: another process has this name and lives."""
    REPLACED = 2
    """Another process has taken its place."""
    REJECTED = 3
    """It does not belong to this job; ``waiting_for`` says why."""


class JobPhase(enum.Enum):
    """How far the job is."""

    WAITING = 0
    RUNNING = 1
    STOPPING = 2
    DRAINED = 3
    """No step is under way and none will be: the final checkpoint may be saved."""
    ENDED = 4
    """There is a verdict."""


@dataclass(frozen=True)
class UpdateOrder:
    """One update under SYNC: which pushes are averaged, the same on every shard.

    Attributes:
        number: counts the generation's updates from 1.
        global_step: the step it starts from, for schedules.
        pushes: whose gradients; every shard has said that it holds them.
    """

    number: int
    global_step: int = 0
    pushes: Fences = field(default_factory=dict)


@dataclass(frozen=True)
class ShardOrders:
    """What a shard shall be. ``save`` is the save under way, '' for none."""

    generation: str = ""
    phase: ShardPhase = ShardPhase.EMPTY
    refused: Mapping[TaskName, int] = field(default_factory=dict)
    save: str = ""
    cut: Fences | None = None
    """None while holding; then what to let in before the cut."""
    cut_step: int = 0
    """The global step once exactly that is applied."""
    chief: int = 0
    """The chief's member number: nobody else may change a ps's files. 0 for no chief."""
    policy: Policy = ASYNC
    """Of the generation, from the time it is LIVE."""
    update: UpdateOrder | None = None
    """The last update ordered, under SYNC. The next is ordered once all shards have made it."""
    clocks: Fences | None = None
    """Under BOUNDED, for each live trainer its member number and the clock it started at; None
    while nobody has to wait."""


@dataclass(frozen=True)
class SaveResult:
    """A finished save: every shard has written its file. The chief commits it.

    Attributes:
        request: the chief's ``save_request`` it answers.
        checkpoint_id: names its directory.
        global_step: of the cut.
        cut: V, the same on every shard.
        files: one for each shard, in order.
        torn: lost trainers of whom one step is on some shards only.
        inputs: where each trainer's input stands, in batches its process has trained on.
        examples: examples trained on since the model was created.
        error: why it failed; '' if it did not.
    """

    request: int
    checkpoint_id: str = ""
    generation: str = ""
    global_step: int = 0
    cut: Fences = field(default_factory=dict)
    files: tuple[ShardFile, ...] = ()
    torn: tuple[TaskName, ...] = ()
    inputs: Mapping[TaskName, int] = field(default_factory=dict)
    examples: int = 0
    error: str = ""


@dataclass(frozen=True)
class ChiefOrders:
    """What the lead tells the chief alone."""

    initialize: str = ""
    """Create or restore the model in every shard, as this generation."""
    lost_step: int = 0
    """The global step reached before a roll-back, to say how many steps are lost."""
    saved: SaveResult | None = None
    completed: frozenset[str] = frozenset()
    """Checkpoint ids the evaluator has completed as the job's last."""
    evaluator: str = ""
    """'absent', or what the evaluator last said it is doing."""
    evaluator_seen: bool = False
    export: str = ""
    pins: frozenset[str] = frozenset()
    newest_checkpoint: str = ""
    """The newest checkpoint any ps keeps a manifest of: never to be overwritten in silence."""
    newest_step: int = 0
    pushes: PushCounts = NO_PUSHES
    """Of all trainers, as the lead's shard counts them; as of the last tick while training."""


@dataclass(frozen=True)
class Directive:
    """All the lead tells one task; a later revision replaces an earlier one."""

    revision: int = 0
    lead: str = ""
    """A random id of the lead's process: revisions compare within one lead only."""
    job_id: str = ""
    """The job run the lead serves; '' until that is settled."""
    standing: Standing = Standing.ADMITTED
    member: int = 0
    generation: str = ""
    """The live generation; '' while the model is not ready."""
    job: JobPhase = JobPhase.WAITING
    waiting_for: str = ""
    """Whom or what the job waits for; '' if it does not."""
    ps_lost: bool = False
    """Whether a ps is lost, and training stands still until it comes back."""
    global_step: int = 0
    live_trainers: int = 0
    shard: ShardOrders | None = None
    chief: ChiefOrders | None = None
    verdict: Verdict | None = None
