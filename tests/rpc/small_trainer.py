"""A trainer in a process of its own, for tests that kill it: ``small_trainer.py ADDRESS G ROWS``.

Pushes and pulls twice, so that the second time shared memory is used, and then waits.
"""

from __future__ import annotations

import sys
import threading

import numpy as np

from psys.ps.messages import ExchangeRequest, Outcome
from psys.rpc.remote_shard import RemoteShard


def main(address: str, generation: str, rows: str) -> None:
    shard = RemoteShard(0, address)
    push = {"weight": np.ones(int(rows), np.float32)}
    for sequence in (1, 2):
        shard.begin_exchange(
            ExchangeRequest(generation, "worker:0", 1, sequence, 0, push, True, {}, False)
        )
        reply = shard.finish_exchange()
        assert reply.outcome is Outcome.APPLIED
    print("exchanged", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
