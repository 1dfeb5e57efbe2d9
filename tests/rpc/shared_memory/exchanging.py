"""Exchanges of a trainer with one ps, and what shared memory they leave in a process."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from psys.ps.messages import ExchangeReply, ExchangeRequest
from psys.rpc.remote_shard import RemoteShard

G = "aaaaaaaaaaaa"
ROWS = 100_000
ONES = np.ones(ROWS, np.float32)
PAGE = mmap.PAGESIZE


def push(sequence: int, values: Any = ONES) -> ExchangeRequest:
    return ExchangeRequest(G, "worker:0", 1, sequence, 0, {"weight": values}, True, {}, False)


def pull(sequence: int = 0) -> ExchangeRequest:
    return ExchangeRequest(G, "worker:0", 1, sequence, 0, None, True, {}, False)


def exchange(shard: RemoteShard, request: ExchangeRequest) -> ExchangeReply:
    shard.begin_exchange(request)
    return shard.finish_exchange()


def shared(pid: int | str = "self") -> list[str]:
    """Return the mappings and descriptors of shared memory a process has."""
    found = [
        line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if "/memfd:psys" in line
    ]
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(entry)
        except FileNotFoundError:
            continue
        if "/memfd:psys" in target:
            found.append(target)
    return found


def until(condition: Callable[[], object]) -> None:
    moment = threading.Event()
    while not condition():
        moment.wait(0.005)


def lines() -> list[threading.Thread]:
    """Return the threads of this process that serve lines."""
    return [one for one in threading.enumerate() if one.name == "psys-line"]
