"""DenseCache: the dense slices of one shard as a trainer has them, from one pull to the next.

A pull says up to which version the trainer knows the values, and the reply leaves out what did
not change since. What it leaves out is here.
"""

from __future__ import annotations

from collections.abc import Mapping

from psys.arrays import Array
from psys.ps.messages import ExchangeReply


class DenseCache:
    """One shard's dense slices, of one member in one generation.

    The arrays of a reply are kept until the next one came, and no longer: they may lie in memory
    that a later reply needs. A slice that is left out of that one is copied, once; so nothing is
    copied that changes with every update.

    Attributes:
        version: of the shard, that the values are of; None before the first pull.
    """

    def __init__(self) -> None:
        self.version: int | None = None
        self._values: Mapping[str, Array] = {}
        self._copies: dict[str, Array] = {}
        """Those of the values that are this cache's own."""

    def take(self, reply: ExchangeReply) -> Mapping[str, Array]:
        """Return all slices as they are at the reply's version; they are only to be read.

        Args:
            reply: to a pull that named ``version``, or to one that named none.
        """
        before, copies, values = self._values, self._copies, reply.dense
        left_out = before.keys() - values.keys()
        self._copies = {
            name: copies[name] if name in copies else before[name].copy() for name in left_out
        }
        self._values = {**self._copies, **values} if left_out else values
        self.version = reply.version
        return self._values
