"""What must hold, whatever fails when. Each check quotes the sentence of the protocol it keeps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from simulation.model import Values, applied, shard_values

from psys.arrays import Array
from psys.ps.lead import Lead
from psys.ps.memory_shard import MemoryShard, Snapshot
from psys.ps.messages import Directive, SaveResult, ShardPhase, TaskName, TaskPhase, Verdict
from psys.ps.roster import Instance, Member


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


class Known:
    """A shard as it was when last looked at."""

    def __init__(self, generation: str, log: Array) -> None:
        self.generation = generation
        self.log = log


class Invariants:
    """Watches shards, lead, checkpoints and tasks; raises Violation."""

    def __init__(self, disk: Disk, num_ps: int, max_steps: int) -> None:
        self.disk = disk
        self.num_ps = num_ps
        self.max_steps = max_steps
        self.pushes: list[Push] = []
        self.lost: set[tuple[TaskName, int]] = set()
        """Members (task, number) that the lead gave up for lost."""
        self.loaded: dict[str, str | None] = {}
        """The checkpoint each generation was restored from; None where it was created."""
        self._known: dict[int, Known] = {}
        self._sequences: dict[tuple[int, str, TaskName, int], int] = defaultdict(int)
        self._members: dict[tuple[str, TaskName], Member] = {}
        self._owners: dict[tuple[str, int], Instance] = {}
        self._verdict: Verdict | None = None

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
        known = self._known.get(shard.index)
        log = shard.slices["log"].value[:, 0]
        if known is None or known.generation != shard.generation:
            self._known[shard.index] = Known(shard.generation, log.copy())
            self._check_restored(shard)
            return
        for row in np.flatnonzero(log != known.log).tolist():
            self._check_applied(shard, row, float(log[row]))
            known.log[row] = log[row]

    def _check_restored(self, shard: MemoryShard) -> None:
        origin = self.loaded[shard.generation]
        values = shard_values(shard)
        if origin is None:
            same = not any(array.any() for array in values.values())
        else:
            there = self.disk.values(origin, shard.index)
            same = all(np.array_equal(values[name], there[name]) for name in there)
        check(same, "all shards go back to the last manifest", f"ps:{shard.index} from {origin}")

    def _check_applied(self, shard: MemoryShard, row: int, value: float) -> None:
        push = self.pushes[row]
        where = f"{push} on ps:{shard.index}"
        check(value == 1.0, "A retried push applies once", f"{where}: {value:g} times")
        check(
            push.generation == shard.generation,
            "nothing of another is ever applied or served",
            f"{where}, which holds {shard.generation}",
        )
        key = (shard.index, push.generation, push.task, push.member)
        check(
            push.sequence == self._sequences[key] + 1,
            "the next is last + 1; a gap is an error",
            f"{where} after {self._sequences[key]}",
        )
        self._sequences[key] = push.sequence

    def served(self, generation: str, asked: str, own_row: float | None) -> None:
        """Check values that a trainer was given."""
        check(generation == asked, "Versions mean something only within one generation")
        check(own_row in (None, 1.0), "one round trip does both: a pull sees its own push")

    # ------------------------------------------------------------ the lead

    def look_at_lead(self, lead: Lead, own: MemoryShard) -> None:
        """Check the lead's count and its verdict."""
        grants, limit = lead.grants, self.max_steps
        if lead.live and own.phase is ShardPhase.LIVE:
            check(
                grants.global_step == np.count_nonzero(own.slices["log"].value),
                "The lead counts a step when it applies it",
                f"it counts {grants.global_step}",
            )
            if limit and grants.max_steps:
                check(
                    grants.global_step + len(grants.out) <= limit,
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
        if directive.job_id:
            runs = {one.run for one in self.disk.manifests.values()}
            check(
                runs <= {directive.job_id},
                "a restarted lead goes on with the run that has checkpoints",
                f"{task} heard {directive.job_id}, on disk are {runs}",
            )
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
            check(
                bool((file.values["count"] == len(sets)).all()),
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
        check(
            result.global_step == len(applied(files[0].values)),
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
                sequences == set(range(1, len(sequences) + 1)),
                "the applied sequences of a task are a prefix without gap",
                where,
            )
            inside = (member, len(sequences)) <= result.cut.get(task, (0, 0))
            check(inside, "a shard lets in what is ≤ V", where)
        for task, (member, sequence) in result.cut.items():
            there = len(members.get((task, member), ()))
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
