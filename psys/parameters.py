"""Parameters: the whole model over a list of shards.

Splits a step's gradients and the rows it needs by the shard map, sends every shard its part
under one sequence number, and joins the answers. It knows how to try again; when to join
again is the trainer's business.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace

from psys.arrays import DTYPES, Array, Gradient, Plan, VariableSpec
from psys.errors import (
    ClusterError,
    Fenced,
    GenerationChanged,
    ModelError,
    ShardTimeout,
    ShardUnavailable,
)
from psys.exchange import NO_ORIGIN, Exchange, Origin, Place, Pulled, Sent
from psys.ps.dense_cache import DenseCache
from psys.ps.messages import ExchangeReply, ExchangeRequest, Outcome
from psys.ps.shard import LoadedSlice, Shard
from psys.sharding import ShardMap, plan, planned_slices
from psys.spread import Spread

logger = logging.getLogger("psys")

REPLY_SLACK_BYTES = 4096
PADDING_BYTES = 8
"""Of each array of a reply, at most."""
SAY_EVERY_SECS = 10.0

_ASK_AGAIN = (Outcome.ACCUMULATED, Outcome.WAITING)


class Parameters:
    """All variables of one model, spread over ``shards``. One trainer, one thread."""

    def __init__(
        self,
        specs: Mapping[str, VariableSpec],
        shards: Sequence[Shard],
        retry_secs: float,
        check: Callable[[Place], None] | None = None,
        *,
        shard_map: ShardMap | None = None,
    ) -> None:
        """Note where everything is; nothing is sent.

        Args:
            specs: the model, by variable name.
            shards: in the order of the ps list; the first is the lead's.
            retry_secs: how long an exchange is tried again while a ps cannot be reached.
            check: called before each new try; raises to give up.
            shard_map: where everything is; None plans it evenly.
        """
        self.specs = dict(specs)
        self.shards = tuple(shards)
        self.shard_map = shard_map or plan(list(specs.values()), len(self.shards))
        """Which rows of which variable are on which shard."""
        self._retry_secs = retry_secs
        self.check = check
        """Called before each new try; raises to give up."""
        self.same_version = False
        """Whether what is pulled must be of one version on all shards (synchronous training)."""
        self._said_secs = 0.0
        self._versions = [0] * len(self.shards)
        self._cached_for = Place("", "", 0)
        self._caches = [DenseCache() for _ in self.shards]
        self._spread = Spread(self.specs, self.shard_map)
        self._dense = [self._spread.dense_slices(index) for index in range(len(self.shards))]
        self._row_bytes = {
            name: math.prod(spec.row_shape) * DTYPES[spec.dtype].itemsize
            for name, spec in self._spread.specs.items()
        }
        self._dense_bytes = [
            sum(rows * self._row_bytes[name] + PADDING_BYTES for name, (rows, *_) in slices.items())
            for slices in self._dense
        ]

    # ------------------------------------------------------------ create and restore

    def load(
        self,
        generation: str,
        member: int,
        slice_for: Callable[[VariableSpec, int, int], LoadedSlice],
        at_once: int = 1,
    ) -> None:
        """Put every slice into its shard.

        Args:
            generation: as the lead ordered it.
            member: the chief's member number.
            slice_for: makes the slice of a variable's rows ``[start, stop)``; called from several
                threads.
            at_once: how many shards; what each is to hold is in memory meanwhile.

        Raises:
            ClusterError: if a ps cannot be reached, or refuses; others may be loaded or not.
        """

        def load(index: int) -> None:
            slices = [
                slice_for(self.specs[one.variable], one.start, one.stop)
                for one in self.shard_map.on(index)
            ]
            # The lead's shard is told where all others are too, for people to see.
            self.shards[index].load(generation, member, slices, self.planned if index == 0 else ())

        pool = ThreadPoolExecutor(at_once, "psys-load")
        try:
            for one in as_completed([pool.submit(load, n) for n in range(len(self.shards))]):
                one.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    @property
    def planned(self) -> Plan:
        """Every slice of the model, with its size, by variable name."""
        return planned_slices(self.shard_map, self.specs)

    # ------------------------------------------------------------ the step

    def exchange(
        self,
        place: Place,
        sequence: int,
        gradients: Mapping[str, Gradient] | None,
        rows: Mapping[str, Array],
        *,
        pull: bool = True,
        wants_grant: bool = True,
        origin: Origin = NO_ORIGIN,
    ) -> Pulled:
        """Push one step and pull the next, over all shards at once: ``begin`` and ``finish``.

        Raises:
            ModelError: if a gradient does not fit; nothing was sent.
            GenerationChanged: if the model was restored meanwhile; join again.
            Fenced: if another process has this task's place.
            ShardUnavailable: if a ps stayed out of reach for ``retry_secs``.
        """
        return self.finish(
            self.begin(
                place, sequence, gradients, rows, pull=pull, wants_grant=wants_grant, origin=origin
            )
        )

    def begin(
        self,
        place: Place,
        sequence: int,
        gradients: Mapping[str, Gradient] | None,
        rows: Mapping[str, Array],
        *,
        pull: bool = True,
        wants_grant: bool = True,
        origin: Origin = NO_ORIGIN,
    ) -> Exchange:
        """Send one step's push and the next one's pull, and do not wait; ``finish`` does.

        Between the two nothing else may be begun. What ps cannot be reached is told by ``finish``.

        Args:
            place: who counts this step.
            sequence: of the push; the last one sent where there is none.
            gradients: by variable, or of tables in a stack by that; None for no push.
            rows: global ids wanted of each table or stack, ``[n]`` sorted and unique; not of two
                tables of one stack.
            pull: whether values are wanted at all.
            wants_grant: whether the lead is asked for a next step.
            origin: of the gradients.

        Raises:
            ModelError: if a gradient does not fit; nothing was sent.
        """
        if place != self._cached_for:
            # Versions mean nothing beyond their generation.
            self._cached_for, self._caches = place, [DenseCache() for _ in self.shards]
        pushes = None if gradients is None else self._spread.split_gradients(gradients)
        wanted = {name: self._spread.want(name, ids) for name, ids in rows.items()}
        if len({one.name for one in wanted.values()}) < len(wanted):
            raise ModelError(f"A step asks twice for rows of one stack: {sorted(wanted)}.")
        requests = [
            ExchangeRequest(
                generation=place.generation,
                task=place.task,
                member=place.member,
                sequence=sequence,
                base_version=(origin.versions or self._versions)[index],
                push=None if pushes is None else pushes[index],
                pull_dense=pull,
                pull_rows={
                    one.name: one.parts[index][1] for one in wanted.values() if index in one.parts
                },
                wants_grant=wants_grant and index == 0,
                global_step=origin.global_step,
                input_batches=origin.input_batches,
                examples=origin.examples,
                known_version=self._caches[index].version if pull else None,
                exact=self._spread.measured,
            )
            for index in range(len(self.shards))
        ]
        self._bound_replies(requests)
        for shard, request in zip(self.shards, requests, strict=True):
            shard.prepare_exchange(request)
        sent, failure = self._send(requests, range(len(requests)))
        return Exchange(place, requests, rows, wanted, pull, sent, failure)

    def finish(self, exchange: Exchange) -> Pulled:
        """Wait for what was begun; send it again where a ps could not be reached.

        Raises:
            ModelError: if a ps refused it.
            GenerationChanged: if the model was restored meanwhile; join again.
            Fenced: if another process has this task's place.
            ShardUnavailable: if a ps stayed out of reach for ``retry_secs``.
        """
        place, requests = exchange.place, exchange.requests
        begun = exchange.sent, exchange.failure
        replies = self._call(place, requests, [None] * len(requests), begun)
        outcome, staleness = replies[0].outcome, max(reply.staleness for reply in replies)
        dense: Mapping[str, Array] = {}
        if exchange.pull:
            while self.same_version and len({reply.version for reply in replies}) > 1:
                replies = self._catch_up(place, requests, replies)
            # Rows fetched in the middle of a step do not make its gradients any newer.
            self._versions = [reply.version for reply in replies]
            dense = self._spread.join_dense(
                [cache.take(reply) for cache, reply in zip(self._caches, replies, strict=True)]
            )
        lead, given = replies[0], [reply.rows for reply in replies]
        return Pulled(
            dense=dense,
            rows={
                name: (ids, self._spread.join_rows(exchange.wanted[name], given))
                for name, ids in exchange.rows.items()
            },
            grant=lead.grant,
            global_step=lead.global_step,
            staleness=staleness,
            outcome=outcome,
            waiting_for=lead.waiting_for,
            versions=tuple(self._versions),
        )

    def _catch_up(
        self, place: Place, requests: Sequence[ExchangeRequest], replies: Sequence[ExchangeReply]
    ) -> list[ExchangeReply]:
        """Pull again from the shards that have yet to make the update that others have made."""
        newest = max(reply.version for reply in replies)
        again = [replace(one, push=None, least_version=newest) for one in requests]
        return self._call(place, again, [one if one.version == newest else None for one in replies])

    def _call(
        self,
        place: Place,
        requests: Sequence[ExchangeRequest],
        known: Sequence[ExchangeReply | None],
        first: Sent | None = None,
    ) -> list[ExchangeReply]:
        """Send every request, and again the same where a ps could not be reached.

        Args:
            place: who asks.
            requests: one for each shard.
            known: the replies there are; the others are asked for.
            first: how they were sent already; None if they were not.
        """
        replies, requests = list(known), list(requests)
        begun: float | None = None
        pause = 0.05
        while True:
            open_ones = [i for i, reply in enumerate(replies) if reply is None]
            sent, failure = first or self._send(requests, open_ones)
            first = None
            for index in set(open_ones) - set(sent):
                requests[index] = replace(requests[index], known_version=None)
            waiting = False
            for index in sent:
                try:
                    reply = self.shards[index].finish_exchange()
                except (ShardUnavailable, ShardTimeout) as error:
                    failure = error
                    requests[index] = replace(requests[index], known_version=None)
                    continue
                if reply.outcome in _ASK_AGAIN:
                    waiting = True
                    self._say(reply)
                    if requests[index].push is not None:  # it has been taken in
                        requests[index] = replace(requests[index], push={})
                else:
                    replies[index] = reply
            self._check_replies(requests, replies)
            if failure is None and not waiting:
                return [reply for reply in replies if reply is not None]
            if failure is None:
                begun = None
                if self.check is not None:
                    self.check(place)
                continue
            if begun is None:
                begun = time.monotonic()
                logger.info("%s Trying again for at most %.0f s.", failure, self._retry_secs)
            if self.check is not None:
                self.check(place)
            if time.monotonic() - begun > self._retry_secs:
                raise failure
            # Jittered back-off: several trainers must not return in step.
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, 1.0)

    def _send(self, requests: Sequence[ExchangeRequest], indices: Iterable[int]) -> Sent:
        """Begin exchanges; return with which shards, and why not with the others."""
        sent: list[int] = []
        failure: ClusterError | None = None
        for index in indices:
            try:
                self.shards[index].begin_exchange(requests[index])
                sent.append(index)
            except (ShardUnavailable, ShardTimeout) as error:
                failure = error
        return sent, failure

    def _say(self, reply: ExchangeReply) -> None:
        """Say whom a ps waits for, every so often."""
        if time.monotonic() - self._said_secs >= SAY_EVERY_SECS:
            self._said_secs = time.monotonic()
            logger.info("Waiting for %s, whose step is behind.", reply.waiting_for or "the lead")

    def _bound_replies(self, requests: Sequence[ExchangeRequest]) -> None:
        """Tell each shard how large its reply can be: what was asked for, and its header."""
        for shard, request, dense_bytes in zip(
            self.shards, requests, self._dense_bytes, strict=True
        ):
            asked_bytes = dense_bytes if request.pull_dense else 0
            for name, ids in request.pull_rows.items():
                asked_bytes += len(ids) * self._row_bytes[name] + PADDING_BYTES
            shard.reply_limit_bytes = REPLY_SLACK_BYTES + asked_bytes

    def _rows_of(self, request: ExchangeRequest) -> dict[str, tuple[int, ...]]:
        """Return the shape of the rows that a request asks for, by table."""
        return {
            name: (len(ids), *self._spread.specs[name].row_shape)
            for name, ids in request.pull_rows.items()
        }

    def _check_replies(
        self, requests: Sequence[ExchangeRequest], replies: Sequence[ExchangeReply | None]
    ) -> None:
        """Turn outcomes that end the step, and replies that do not fit, into exceptions.

        Also while other shards are still being tried: their answers would change nothing.
        """
        for index, reply in enumerate(replies):
            if reply is not None and reply.outcome is Outcome.FENCED:
                raise Fenced(f"ps:{index}: {reply.reason}")
        for index, reply in enumerate(replies):
            if reply is None:
                continue
            if reply.outcome is Outcome.GENERATION_CHANGED:
                raise GenerationChanged(f"ps:{index} holds another generation of the model.")
            if reply.outcome in (Outcome.REFUSED, Outcome.GAP):
                raise ModelError(f"ps:{index} refused the step: {reply.reason}")
            arrays = {**reply.dense, **reply.rows}
            known = () if requests[index].known_version is None else self._dense[index]
            expected = self._rows_of(requests[index])
            if requests[index].pull_dense:
                expected |= self._dense[index]
            for name, shape in expected.items():
                array, dtype = arrays.get(name), DTYPES[self._spread.specs[name].dtype]
                if array is None and name in known:
                    continue  # it has not changed since
                if array is None or array.shape != shape or array.dtype != dtype:
                    found = "nothing" if array is None else f"{array.shape} {array.dtype}"
                    raise ModelError(
                        f"ps:{index} answered with {found} for {name!r}; expected {shape} {dtype}."
                    )

    def close(self) -> None:
        """Give up all connections."""
        for shard in self.shards:
            shard.close()
