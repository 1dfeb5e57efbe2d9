"""Saving: the two rounds by which the lead cuts all shards at one point of history.

Hold: every shard queues arriving pushes and answers with its fences. Cut(V): V is the
greatest sequence of each trainer over all shards; a shard lets in what is in V (it was sent
already), copies its values, and lets the rest go on. All shard files of one checkpoint carry
the same V. A hold that takes too long is released and tried again under another id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from psys.ps.messages import Fences, SaveResult, ShardFacts, TaskName

HOLD_LIMIT_SECS = 0.05
"""How long shards are held at first; each further attempt may take twice as long.

Where one exchange takes seconds, a hold so short is always released too early; so the next save
begins one attempt before the one that sufficed for the last.
"""
LONGEST_HOLD_SECS = 10.0
WRITE_LIMIT_SECS = 600.0
ATTEMPTS = 12


@dataclass
class Attempt:
    """One attempt of a save."""

    save: str
    request: int
    begun_secs: float
    number: int
    cut: Fences | None = None
    cut_step: int = 0
    torn: tuple[TaskName, ...] = ()
    complete: bool = False
    """Every shard has taken its cut; what is left is writing."""

    @property
    def release_at_secs(self) -> float:
        """When training must be let go on."""
        doubled = HOLD_LIMIT_SECS * 2.0 ** min(self.number - 1, 20)
        return self.begun_secs + min(doubled, LONGEST_HOLD_SECS)

    def held_too_long(self, now: float) -> bool:
        """Return whether training must be let go on."""
        return now >= self.release_at_secs


def union_of(fences: Sequence[Fences]) -> dict[TaskName, tuple[int, int]]:
    """Return V: the greatest (member, sequence) of each task over all shards.

    Example: ``{chief: (1, 7)}`` and ``{chief: (1, 8), worker:0: (2, 3)}`` give
    ``{chief: (1, 8), worker:0: (2, 3)}``.
    """
    union: dict[TaskName, tuple[int, int]] = {}
    for one in fences:
        for task, key in one.items():
            union[task] = max(tuple(key), union.get(task, (0, 0)))  # type: ignore[assignment]
    return union


def torn_before(held: Sequence[ShardFacts]) -> set[TaskName]:
    """Return the tasks of which an earlier, replaced member left a step on some shards only."""
    torn = set()
    replaced = {(past.task, past.member) for one in held for past in one.past_fences}
    for task, member in replaced:
        reached = set()
        for one in held:
            last = {
                past.sequence
                for past in one.past_fences
                if (past.task, past.member) == (task, member)
            }
            number, sequence = one.fences.get(task, (0, 0))
            # A shard that has not heard of the successor yet still has this member's fence.
            reached |= last or {sequence if number == member else 0}
        if len(reached) > 1:
            torn.add(task)
    return torn


class Saving:
    """The save under way, if any, and the result of the last."""

    def __init__(self, new_id: Callable[[], str]) -> None:
        self._new_id = new_id
        self.attempt: Attempt | None = None
        self.result: SaveResult | None = None
        self.served_request = 0
        self._first_number = 1
        self.earlier_examples = 0
        """Examples that the generation's model had been trained on when it was loaded."""

    @property
    def cutting(self) -> bool:
        """Whether shards are being held and cut just now."""
        return self.attempt is not None and not self.attempt.complete

    @property
    def release_at_secs(self) -> float | None:
        """When the hold under way has to end; None while nobody is held."""
        attempt = self.attempt
        return attempt.release_at_secs if attempt is not None and self.cutting else None

    def abort(self, error: str) -> None:
        """Give up the save under way for good; the chief is told why."""
        if self.attempt is not None:
            self.result = SaveResult(self.attempt.request, error=error)
            self.served_request = self.attempt.request
            self.attempt = None

    def release(self) -> None:
        """Give up the save under way; its request stands, and is served when that is possible."""
        self.attempt = None

    def forget(self) -> None:
        """Forget all requests: another process is chief, and counts its own."""
        self.attempt, self.result, self.served_request = None, None, 0

    def advance(
        self,
        request: int,
        facts: Mapping[int, ShardFacts],
        num_shards: int,
        refused: Mapping[TaskName, int],
        global_step: int,
        generation: str,
        now: float,
    ) -> None:
        """Go as far as the shards' facts allow.

        Args:
            request: the chief's count of saves asked for; 0 where there is no chief just now,
                so that nothing new is begun.
            facts: the last known facts of each shard whose ps is live.
            num_shards: how many shards there are.
            refused: member numbers given up for lost; shards hear of them together with the
                order to hold.
            global_step: the lead's count; exact while its own shard is held.
            generation: the live generation.
            now: monotonic seconds.
        """
        if len(facts) < num_shards:
            if self.attempt is not None and not self.attempt.complete:
                self.release()  # nobody is held for a ps that may not come back
            return
        if self.attempt is None and request > self.served_request:
            self.attempt = Attempt(self._new_id(), request, now, self._first_number)
        attempt = self.attempt
        if attempt is None:
            return
        mine = [facts[i] for i in range(num_shards) if facts[i].held == attempt.save]
        if attempt.cut is None:
            if len(mine) == num_shards:
                self._order_cut(attempt, mine, refused, global_step)
            elif attempt.held_too_long(now):
                self._try_again(attempt, now, "not every ps could be held in time")
            return
        if any(one.write_error for one in mine):
            self.abort(next(one.write_error for one in mine if one.write_error))
            return
        cut = [one for one in mine if one.cut == attempt.save]
        if len(cut) < num_shards:
            if attempt.held_too_long(now):
                self._try_again(attempt, now, "the cut was not complete in time")
            return
        if not attempt.complete:
            attempt.complete = True
            self._first_number = max(attempt.number - 1, 1)
        written = [one for one in cut if one.written == attempt.save and one.file is not None]
        if len(written) < num_shards:
            if now - attempt.begun_secs > WRITE_LIMIT_SECS:
                self.abort(f"a ps did not write its shard file within {WRITE_LIMIT_SECS:.0f} s")
            return
        self.result = SaveResult(
            request=attempt.request,
            checkpoint_id=attempt.save,
            generation=generation,
            global_step=attempt.cut_step,
            cut=attempt.cut,
            files=tuple(one.file for one in written if one.file is not None),
            torn=attempt.torn,
            inputs=facts[0].cut_inputs,
            examples=self.earlier_examples + facts[0].cut_examples,
        )
        self.served_request = attempt.request
        self.attempt = None

    def _order_cut(
        self,
        attempt: Attempt,
        held: Sequence[ShardFacts],
        refused: Mapping[TaskName, int],
        global_step: int,
    ) -> None:
        attempt.cut = union_of([one.fences for one in held])
        lead_has = held[0].fences
        torn = torn_before(held)
        attempt.cut_step = global_step
        for task, key in attempt.cut.items():
            dead = key[0] <= refused.get(task, 0)
            if dead and any(tuple(one.fences.get(task, (0, 0))) < key for one in held):
                torn.add(task)
            # What the cut includes and the lead's shard still waits for will be counted
            # before it cuts: one step at most, since a trainer has one push under way.
            elif tuple(lead_has.get(task, (0, 0))) < key:
                attempt.cut_step += 1
        attempt.torn = tuple(sorted(torn))

    def _try_again(self, attempt: Attempt, now: float, why: str) -> None:
        if attempt.number >= ATTEMPTS:
            self.abort(f"gave up after {ATTEMPTS} attempts: {why}")
        else:
            self.attempt = Attempt(self._new_id(), attempt.request, now, attempt.number + 1)

    def trainer_lost(self, now: float) -> None:
        """Begin the save under way anew: the cut may include a push that will never come."""
        if self.attempt is not None and self.cutting:
            self._try_again(self.attempt, now, "a trainer was lost meanwhile")
