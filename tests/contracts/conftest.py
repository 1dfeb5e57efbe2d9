"""Every implementation of an interface, by name, for the one test that all must pass."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from psys.attendance import Attendance, LeadLink
from psys.checkpoint.storage import MemoryStorage
from psys.host import NodeHost, new_id
from psys.local import LocalLink, LocalShard
from psys.ps.job import Job
from psys.ps.messages import Outcome, Report, ShardFile
from psys.ps.shard import Shard
from psys.rpc import stream_memory
from psys.rpc.remote_cluster import RemoteLink
from psys.rpc.remote_shard import RemoteShard
from psys.rpc.server import Server

# Modules of tests are no package (importlib mode), but share what stands in their folder.
sys.path.insert(0, str(Path(__file__).parent))

from live_shard import ask, exchange, go_live

TOKEN = "a token"
GENERATION_CHANGED = Outcome.GENERATION_CHANGED
NewHost = Callable[..., NodeHost]
Serve = Callable[[NodeHost], str]
Connect = Callable[[NodeHost], Shard]
Attend = Callable[..., Attendance]


@pytest.fixture
def new_host() -> Iterator[NewHost]:
    """Make hosts, and close them at the end."""
    with contextlib.ExitStack() as stack:

        def make(job: Job | None = None, index: int = 0) -> NodeHost:
            host = NodeHost(index, lambda snapshot: ShardFile("file", 1, "hash"), job)
            stack.callback(host.close)
            return host

        yield make


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve a host on a free port; return its address."""
    with contextlib.ExitStack() as stack:
        addresses: dict[int, str] = {}

        def start(host: NodeHost) -> str:
            if id(host) not in addresses:
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", 0))
                    address = f"127.0.0.1:{probe.getsockname()[1]}"
                server = Server(host, MemoryStorage(), address, tasks=4, token=TOKEN)
                stack.callback(server.stop, 0.0)
                addresses[id(host)] = address
            return addresses[id(host)]

        yield start


@pytest.fixture(params=["local", "gRPC", "shared memory"])
def connect(
    request: pytest.FixtureRequest, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Connect]:
    """Make clients of a host's shard, of each kind."""
    monkeypatch.setenv("PSYS_SHM_DIR", "none" if request.param == "gRPC" else "")
    # However small: every array of these tests goes through the segment.
    monkeypatch.setattr(stream_memory, "INLINE_BYTES", 0)
    with contextlib.ExitStack() as stack:

        def make(host: NodeHost) -> Shard:
            shard: Shard
            if request.param == "local":
                shard = LocalShard(host)
            else:
                shard = RemoteShard(host.index, serve(host), TOKEN)
                if request.param == "shared memory":
                    # The first exchange of a stream brings the offer; from now on they go by the
                    # line, and their bulk lies in the segment.
                    assert exchange(shard, ask(generation="")).outcome is GENERATION_CHANGED
                    assert shard._memory._offer is not None
            stack.callback(shard.close)
            return shard

        yield make


@pytest.fixture(params=["local", "remote"])
def attend(request: pytest.FixtureRequest, serve: Serve) -> Iterator[Attend]:
    """Make attendances with a host's lead, over the one kind of link and over the other."""
    with contextlib.ExitStack() as stack:

        def make(host: NodeHost, task: str = "worker:0", cluster_digest: str = "") -> Attendance:
            link: LeadLink
            link = LocalLink(host) if request.param == "local" else RemoteLink(serve(host), TOKEN)
            report = Report(task, new_id(), 0, cluster_digest=cluster_digest)
            attendance = Attendance(report, link, start_timeout_secs=20.0, recover_secs=20.0)
            stack.callback(attendance.close)
            return attendance

        yield make


@pytest.fixture
def host(new_host: NewHost) -> NodeHost:
    return new_host(index=1)


@pytest.fixture
def shard(host: NodeHost, connect: Connect) -> Shard:
    """A live shard with all of SLICES."""
    client = connect(host)
    go_live(host, client)
    return client
