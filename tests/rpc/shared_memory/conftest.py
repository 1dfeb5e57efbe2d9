from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from psys.rpc.remote_shard import RemoteShard

# The tests are no package (importlib mode), and these share a module.
sys.path.insert(0, str(Path(__file__).parent))

from exchanging import ROWS, G, lines, until
from live_ps import Live

SMALL_TRAINER = str(Path(__file__).parents[1] / "small_trainer.py")


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
def live(monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    one = Live(monkeypatch)
    yield one
    one.close()
    until(lambda: not lines())


@pytest.fixture
def small_trainer() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start ``small_trainer.py``; return when it has exchanged by the line."""
    started: list[subprocess.Popen[str]] = []

    def start(address: str, member: int = 1) -> subprocess.Popen[str]:
        command = [sys.executable, SMALL_TRAINER, address, G, str(ROWS), str(member)]
        started.append(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        assert started[-1].stdout is not None
        assert started[-1].stdout.readline() == "exchanged\n"
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.communicate()


@pytest.fixture
def ps(small_ps: Callable[..., Any]) -> Any:
    return small_ps(G, rows=ROWS)
