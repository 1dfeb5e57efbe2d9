"""What must hold, whatever fails when. Each check quotes the sentence of the protocol it keeps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from simulation.model import DENSE, Values, applied, log_of, shard_values

from psys.arrays import Array
from psys.ps.lead import Lead
from psys.ps.memory_shard import MemoryShard
from psys.ps.messages import (
    Consistency,
    Directive,
    ExchangeReply,
    Outcome,
    SaveResult,
    ShardPhase,
    TaskName,
    TaskPhase,
    Verdict,
)
from psys.ps.roster import Instance, Member
from psys.ps.snapshot import Snapshot

if TYPE_CHECKING:
    from simulation.cluster import Plan


class Violation(AssertionError):
    """A sentence of the protocol was broken."""


def check(holds: bool, sentence: str, facts: object = "") -> None:
    """Raise unless a sentence of the protocol holds."""
    if not holds:
        raise Violation(f"«{sentence}» {facts}")


@dataclass(frozen=True)
class Push:
    """Who pushed what, under which number."""

    generation: str
    task: TaskName
    member: int
    sequence: int
    base_version: int


@dataclass
class ShardFileOnDisk:
    """A shard file on the virtual disk."""

    snapshot: Snapshot
    values: Values


@dataclass
class Checkpoint:
    """A committed checkpoint on the virtual disk."""

    result: SaveResult
    run: str
    final: bool = False

    @property
    def order(self) -> tuple[int, str]:
        return self.result.global_step, self.result.checkpoint_id


@dataclass
class Disk:
    """model_dir, which every task can see."""

    files: dict[tuple[str, int], ShardFileOnDisk] = field(default_factory=dict)
    manifests: dict[str, Checkpoint] = field(default_factory=dict)
    run: str = ""
    """The run under way, as the chief keeps it."""
    verdict: Verdict | None = None
    verdict_run: str = ""
    """The run of the job that the verdict names."""

    def newest(self) -> Checkpoint | None:
        """Return the checkpoint to restore."""
        return max(self.manifests.values(), key=lambda one: one.order, default=None)

    def values(self, checkpoint_id: str, shard: int) -> Values:
        """Return what a shard file holds."""
        return self.files[checkpoint_id, shard].values


@dataclass
class Known:
    """A shard as it was when last looked at."""

    generation: str
    log: Array
    version: int
    count: float


class Invariants:
    """Watches shards, lead, checkpoints and tasks; raises Violation."""

    def __init__(self, disk: Disk, plan: Plan) -> None:
        self.disk = disk
        self.num_ps = plan.num_ps
        self.max_steps = plan.max_steps
        self.policy = plan.policy
        self.sync = plan.policy.consistency is Consistency.SYNC
        self.updates: dict[tuple[str, int], frozenset[int]] = {}
        """In sync: the rows of the pushes in each update, by generation and number."""
        self.dropped: set[int] = set()
        """Rows of pushes whose trainer was told that they were dropped."""
        self.pushes: list[Push] = []
        self.lost: set[tuple[TaskName, int]] = set()
        """Members (task, number) that the lead gave up for lost."""
        self.loaded: dict[str, str | None] = {}
        """The checkpoint each generation was restored from; None where it was created."""
        self._known: dict[int, Known] = {}
        self._dense: dict[tuple[str, int, int], Values] = {}
        """The dense values of each generation, shard and version that was looked at."""
        self._sequences: dict[tuple[int, str, TaskName, int], int] = defaultdict(int)
        self._members: dict[tuple[str, TaskName], Member] = {}
        self._owners: dict[tuple[str, int], Instance] = {}
        self._verdict: Verdict | None = None
        self.two_chiefs = False

    # ------------------------------------------------------------ steps

    def new_push(self, push: Push) -> int:
        """Return the row of the log that belongs to a push."""
        self.pushes.append(push)
        return len(self.pushes) - 1

    def look_at_shard(self, shard: MemoryShard) -> None:
        """Check what became of a shard since the last look."""
        if shard.phase is not ShardPhase.LIVE:
            self._known.pop(shard.index, None)
            return
        at = (shard.generation, shard.index, shard.version)
        self._dense[at] = {name: shard.slices[name].value.copy() for name in DENSE}
        known = self._known.get(shard.index)
        log = log_of(shard)
        version, count = shard.version, float(shard.slices["count"].value[0])
        if known is None or known.generation != shard.generation:
            self._known[shard.index] = Known(shard.generation, log.copy(), version, count)
            self._check_restored(shard)
            return
        rows = np.flatnonzero(log != known.log).tolist()
        for row in rows:
            self._check_applied(shard, row, float(log[row]), len(rows))
            known.log[row] = log[row]
        if self.sync and version != known.version:
            self._check_update(shard, known, frozenset(rows), count)
        known.version, known.count = version, count

    def _check_update(
        self, shard: MemoryShard, known: Known, rows: frozenset[int], count: float
    ) -> None:
        where = f"update {shard.version} on ps:{shard.index}: {sorted(rows)}"
        check(shard.version == known.version + 1, "one update after another", where)
        same = self.updates.setdefault((shard.generation, shard.version), rows)
        check(same == rows, "every update has the same set on all shards", f"{where}, not {same}")
        check(count == known.count + 1, "the sum is divided by the size of the set", where)
        bases = {self.pushes[row].base_version for row in rows}
        check(bases == {known.version}, "every gradient is of the values before the update", where)
        tasks = [self.pushes[row].task for row in rows]
        check(len(set(tasks)) == len(tasks), "one gradient of each trainer", where)

    def _check_restored(self, shard: MemoryShard) -> None:
        origin = self.loaded[shard.generation]
        values = shard_values(shard)
        if origin is None:
            same = not any(array.any() for array in values.values())
        else:
            there = self.disk.values(origin, shard.index)
            same = all(np.array_equal(values[name], there[name]) for name in there)
        check(same, "all shards go back to the last manifest", f"ps:{shard.index} from {origin}")

    def _check_applied(self, shard: MemoryShard, row: int, value: float, together: int) -> None:
        push = self.pushes[row]
        where = f"{push} on ps:{shard.index}"
        share = float(np.float32(1.0) / np.float32(together)) if self.sync else 1.0
        check(value == share, "A retried push applies once", f"{where}: {value:g} times")
        check(row not in self.dropped, "what was told to be dropped is never applied", where)
        check(
            push.generation == shard.generation,
            "nothing of another is ever applied or served",
            f"{where}, which holds {shard.generation}",
        )
        key = (shard.index, push.generation, push.task, push.member)
        check(
            push.sequence == self._sequences[key] + 1
            or (self.sync and push.sequence > self._sequences[key]),
            "the next is last + 1; a gap is an error",
            f"{where} after {self._sequences[key]}",
        )
        self._sequences[key] = push.sequence

    def told(self, row: int | None, outcomes: set[Outcome]) -> bool:
        """Check what a trainer was told of its push; return whether that was dropped."""
        if row is None:
            return False
        dropped = outcomes == {Outcome.DROPPED}
        check(
            dropped or outcomes <= {Outcome.APPLIED, Outcome.DUPLICATE},
            "A step has one outcome, not one per shard",
            f"{self.pushes[row]}: {outcomes}",
        )
        if dropped:
            check(self.sync, "async and bounded never drop", self.pushes[row])
            self.dropped.add(row)
            inside = [number for number, rows in self.updates.items() if row in rows]
            check(not inside, "what was told to be dropped is never applied", inside)
        return dropped

    def served(self, generation: str, asked: str, own_row: float | None, dropped: bool) -> None:
        """Check values that a trainer was given."""
        check(generation == asked, "Versions mean something only within one generation")
        if own_row is not None:
            seen = own_row == 0.0 if dropped else own_row > 0.0 if self.sync else own_row == 1.0
            check(seen, "one round trip does both: a pull sees its own push", own_row)

    def sees(self, generation: str, shard: int, version: int, values: Mapping[str, Array]) -> None:
        """Check what a trainer has of a shard after a pull, of what came and what was left out."""
        there = self._dense.get((generation, shard, version))
        if there is None:
            return  # nobody looked between this update and the next
        check(
            values.keys() == there.keys()
            and all(np.array_equal(values[name], there[name]) for name in there),
            "a reply leaves out only what did not change since the version the trainer knows",
            f"{dict(values)} instead of {there} at {version} on ps:{shard}",
        )

    def answered(
        self, shard: MemoryShard, task: TaskName, member: int, reply: ExchangeReply
    ) -> None:
        """Check that a trainer is given values only while it is not too far ahead."""
        clocks = shard.clocks
        if clocks is None or reply.generation != shard.generation:
            return
        if member <= shard.refused.get(task, 0):
            return  # what it asks for next is refused

        def clock(one: TaskName) -> int:
            number, start = clocks[one]
            return start + self._sequences[shard.index, shard.generation, one, number]

        if clocks.get(task, (0, 0))[0] != member:
            done = self._sequences[shard.index, shard.generation, task, member]
            check(done == 0, "a trainer whose clock is not known waits once it has pushed", task)
            return
        slowest = min(clock(one) for one in clocks)
        check(
            clock(task) <= slowest + self.policy.staleness,
            "pulls wait until the slowest live trainer is within s",
            f"{task} at {clock(task)}, the slowest at {slowest} on ps:{shard.index}",
        )

    # ------------------------------------------------------------ the lead

    def look_at_lead(self, lead: Lead, own: MemoryShard) -> None:
        """Check the lead's count and its verdict."""
        grants, limit = lead.grants, self.max_steps
        # Of two chiefs at once, one may have started before there was a run to go on with.
        if lead.live and not self.two_chiefs:
            runs = {one.run for one in self.disk.manifests.values()}
            check(
                runs <= {lead.job_id},
                "a restarted lead goes on with the run that has checkpoints",
                f"it serves {lead.job_id}, on disk are {runs}",
            )
        if lead.live and own.phase is ShardPhase.LIVE:
            check(
                grants.global_step == own.slices["count"].value[0],
                "The lead counts a step when it applies it, or orders its update",
                f"it counts {grants.global_step}",
            )
            if limit and grants.max_steps:
                check(
                    grants.global_step + (bool(grants.out) if self.sync else len(grants.out))
                    <= limit,
                    "never grants beyond max_steps: the final step is exact",
                    f"{grants.global_step} + {grants.out}",
                )
        verdict = lead.ending.verdict
        if verdict is not None:
            check(
                self._verdict in (None, verdict),
                "verdict.json is written once",
                f"{self._verdict} then {verdict}",
            )
            self._verdict = verdict
        for member in lead.roster.members.values():
            owner = self._owners.setdefault((lead.lead_id, member.number), member.instance)
            check(owner == member.instance, "a member number belongs to one process", owner)
            key = (lead.lead_id, member.task)
            before = self._members.get(key)
            if before is not None and before.number != member.number:
                check(
                    member.number > before.number,
                    "member number: larger than any before in the generation",
                    f"{before} then {member}",
                )
                if before.report.phase is not TaskPhase.LEFT:
                    self.lost.add((before.task, before.number))
            self._members[key] = replace(member)
            if member.lost_since_secs is not None:
                self.lost.add((member.task, member.number))

    def heard(self, task: TaskName, directive: Directive) -> None:
        """Check a directive a task was given."""
        if directive.verdict is not None:
            check(
                directive.verdict == self.disk.verdict and bool(self.disk.verdict_run),
                "written once, to disk, before it is told",
                f"{task} heard {directive.verdict}, on disk is {self.disk.verdict}",
            )

    # ------------------------------------------------------------ checkpoints

    def committed(self, result: SaveResult) -> None:
        """Check that a checkpoint is one cut over all shards."""
        files = [self.disk.files[result.checkpoint_id, shard] for shard in range(self.num_ps)]
        for file in files:
            check(
                dict(file.snapshot.cut) == dict(result.cut)
                and file.snapshot.generation == result.generation,
                "All shard files of one checkpoint carry the same V",
                [one.snapshot.cut for one in files],
            )
            sets = applied(file.values)
            steps = result.global_step if self.sync else len(sets)
            check(
                bool((file.values["count"] == steps).all()),
                "a torn row never: dense and sparse agree in a cut",
            )
        inside = [self._by_member(applied(file.values), result.generation) for file in files]
        for shard, members in enumerate(inside):
            self._check_cut(shard, members, result)
        for key in set().union(*inside):
            counts = {len(members.get(key, ())) for members in inside}
            torn = len(counts) > 1
            check(
                not torn or (key in self.lost and max(counts) - min(counts) == 1),
                "a trainer that dies while sending leaves one step on some shards only",
                f"{key}: {counts}",
            )
            if torn:
                check(key[0] in result.torn, "the manifest records it as torn", key)
        if self.sync:
            same = all(one == inside[0] for one in inside)
            check(same and not result.torn, "a cut lies between two updates", inside)
        check(
            result.global_step == files[0].values["count"][0],
            "The checkpoint is named after the step in the cut",
            f"{result.global_step} for {len(applied(files[0].values))} steps",
        )

    def _by_member(
        self, rows: set[int], generation: str
    ) -> Mapping[tuple[TaskName, int], set[int]]:
        """Return the sequences applied in this generation, by (task, member number)."""
        members: dict[tuple[TaskName, int], set[int]] = defaultdict(set)
        for row in rows:
            push = self.pushes[row]
            if push.generation == generation:
                members[push.task, push.member].add(push.sequence)
        return members

    def _check_cut(
        self, shard: int, members: Mapping[tuple[TaskName, int], set[int]], result: SaveResult
    ) -> None:
        for (task, member), sequences in members.items():
            where = f"{task} number {member} on ps:{shard}: {sorted(sequences)}, V {result.cut}"
            check(
                self.sync or sequences == set(range(1, len(sequences) + 1)),
                "the applied sequences of a task are a prefix without gap",
                where,
            )
            inside = (member, max(sequences)) <= result.cut.get(task, (0, 0))
            check(inside, "a shard lets in what is ≤ V", where)
        for task, (member, sequence) in result.cut.items():
            there = max(members.get((task, member), {0}))
            check(
                there == sequence or task in result.torn,
                "a consistent cut: on every shard exactly what is ≤ V",
                f"{task}: {there} of {sequence} on ps:{shard}",
            )
        for task in result.torn:
            check(
                any(lost == task for lost, _ in self.lost),
                "torn only where a trainer was lost while sending",
                task,
            )

    # ------------------------------------------------------------ the end

    def ended(self, exits: Mapping[str, str], expects_evaluator: bool, evaluated: set[str]) -> None:
        """Check how every process ended."""
        hanging = sorted(who for who, how in exits.items() if not how)
        check(not hanging, "every job ends with a verdict that every role hears", hanging)
        verdict = self.disk.verdict
        if verdict is None or not verdict.finished:
            good = sorted(who for who, how in exits.items() if how == "finished")
            check(not good, "never a false success", good)
            return
        final = self.disk.manifests.get(verdict.checkpoint)
        check(final is not None and final.final, "FINISHED means the final checkpoint was saved")
        assert final is not None
        check(
            verdict.global_step == final.result.global_step,
            "verdict.json names its final step",
            f"{verdict} {final.result.global_step}",
        )
        if self.max_steps:
            check(
                verdict.global_step == self.max_steps,
                "FINISHED at exactly max_steps",
                f"{verdict.global_step} instead of {self.max_steps}",
            )
        if expects_evaluator:
            check(verdict.checkpoint in evaluated, "and, if there is an evaluator, evaluated")
