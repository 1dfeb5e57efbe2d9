"""A trainer, for tests that kill it: ``small_trainer.py ADDRESS G ROWS [MEMBER]``.

Pushes and pulls twice, so that the second time shared memory is used, then again for each line it
reads, until that ends.
"""

from __future__ import annotations

import itertools
import sys

import numpy as np

from psys.ps.messages import ExchangeRequest, Outcome
from psys.rpc.remote_shard import RemoteShard


def main(address: str, generation: str, rows: str, member: str = "1") -> None:
    shard = RemoteShard(0, address)
    push = {"weight": np.ones(int(rows), np.float32)}
    for sequence in itertools.count(1):
        shard.begin_exchange(
            ExchangeRequest(generation, "worker:0", int(member), sequence, 0, push, True, {}, False)
        )
        reply = shard.finish_exchange()
        assert reply.outcome is Outcome.APPLIED
        if sequence > 1:
            print("exchanged", flush=True)
            if not sys.stdin.readline():
                return


if __name__ == "__main__":
    main(*sys.argv[1:])
