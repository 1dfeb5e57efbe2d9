"""The Shard interface: everything a client may ask of one ps.

``MemoryShard`` is the thing itself, ``RemoteShard`` (``psys.rpc``) the same over gRPC, and
``LocalShard`` (``psys.local``) the same within one process. All obey one contract test.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from psys.arrays import Array, Plan, VariableSpec
from psys.ps.messages import ExchangeReply, ExchangeRequest


@dataclass(frozen=True)
class LoadedSlice:
    """Rows ``[start, stop)`` of a variable, as they are put into a shard.

    Attributes:
        spec: the whole variable.
        start: first row.
        stop: one past the last row.
        seed: for the initializer.
        value: ``[stop - start, ...]``, or None to let the shard run the initializer.
        slots: optimizer state by slot name; missing ones start at the optimizer's default.
        scalars: optimizer state that is one number for the slice.
    """

    spec: VariableSpec
    start: int
    stop: int
    seed: int = 0
    value: Array | None = None
    slots: Mapping[str, Array] = field(default_factory=dict)
    scalars: Mapping[str, float] = field(default_factory=dict)


class Shard(ABC):
    """All slices on one ps, as a client sees them. Calls may block; none is concurrent.

    Attributes:
        reply_limit_bytes: no reply may be larger; ``Parameters`` sets it for each exchange.
    """

    reply_limit_bytes: int = sys.maxsize

    @abstractmethod
    def load(
        self, generation: str, member: int, slices: list[LoadedSlice], plan: Plan = ()
    ) -> None:
        """Put all slices of the shard in place.

        A shard in this process empties the list, and uses the arrays on or frees each as soon as
        it has copied it, so that a model is not in memory twice: only who keeps no other reference
        gains by it. Slices are made again for another attempt.

        Args:
            generation: as the lead ordered it.
            member: the chief's member number.
            slices: all there are on this shard; the list is given away.
            plan: the slices of all shards, for the lead's shard: what people are shown.

        Raises:
            GenerationChanged: if the lead has not ordered this generation to be loaded.
            Fenced: if ``member`` is not the chief's.
            ModelError: if a slice does not fit its own spec, tables cannot be the stack that they
                name, or the slices are not the plan's.
            ShardUnavailable: if the ps cannot be reached.
        """

    @abstractmethod
    def keep_manifest(self, generation: str, member: int, manifest_json: str) -> None:
        """Put a committed checkpoint's manifest beside the shard's own file.

        Args:
            generation: the live one.
            member: the chief's member number.
            manifest_json: the text of the manifest.

        Raises:
            GenerationChanged: if the shard does not hold ``generation``.
            Fenced: if ``member`` is not the chief's.
            ShardUnavailable: if the ps cannot be reached.
        """

    @abstractmethod
    def delete_checkpoint(
        self, generation: str, member: int, global_step: int, checkpoint_id: str
    ) -> None:
        """Delete the shard's part of a checkpoint that the chief no longer keeps.

        Args:
            generation: the live one.
            member: the chief's member number.
            global_step: of the checkpoint.
            checkpoint_id: its id.

        Raises:
            GenerationChanged: if the shard does not hold ``generation``.
            Fenced: if ``member`` is not the chief's.
            ShardUnavailable: if the ps cannot be reached.
        """

    def prepare_exchange(self, request: ExchangeRequest) -> None:  # noqa: B027 - few can refuse
        """Refuse a request that could not be sent, before any shard is sent its part.

        Raises:
            ModelError: if the request cannot be sent; nothing was.
        """

    @abstractmethod
    def begin_exchange(self, request: ExchangeRequest) -> None:
        """Send one request; ``finish_exchange`` waits for its answer."""

    @abstractmethod
    def finish_exchange(self) -> ExchangeReply:
        """Return the answer to the request begun last.

        Raises:
            ShardUnavailable: if the connection broke before the answer came; the same request
                may be begun again.
        """

    @abstractmethod
    def close(self) -> None:
        """Give up the connection; an exchange that waits ends with ShardUnavailable."""
