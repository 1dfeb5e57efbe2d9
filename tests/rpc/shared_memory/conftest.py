from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from psys.rpc.remote_shard import RemoteShard

# The tests are no package (importlib mode), and these share a module.
sys.path.insert(0, str(Path(__file__).parent))

from exchanging import ROWS, G


@pytest.fixture(autouse=True)
def nothing_is_left_of_a_test_before() -> None:
    """Free what an error that was caught holds with its frames: segments, too."""
    gc.collect()


@pytest.fixture
def connect() -> Iterator[Callable[[str], RemoteShard]]:
    opened: list[RemoteShard] = []

    def make(address: str) -> RemoteShard:
        opened.append(RemoteShard(0, address))
        return opened[-1]

    yield make
    for shard in opened:
        shard.close()


@pytest.fixture
def ps(small_ps: Callable[..., Any]) -> Any:
    return small_ps(G, rows=ROWS)
