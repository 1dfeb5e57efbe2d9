"""Times the exchange alone, beside raw sockets and memcpy: ``python benchmarks/transport.py``.

A ps in a process of its own holds one dense variable and a trainer pushes a gradient for it and
pulls it, over gRPC and through shared memory. The ps answers from memory that is ready, so that
what is timed is the transport: no optimizer runs. Beside it, as much goes through a raw loopback
socket, through ``memcpy`` (every byte once in and once out), and by hand: two processes that copy
into shared memory, each its own bytes, and wake the other, with no message. They take turns, call
by call, so that a drift of the machine's speed hits all, and no one finds the caches warmer than a
training step leaves them. Medians over the windows. Prints two tables, writes
``benchmarks/results/transport.json``.
"""

from __future__ import annotations

import argparse
import json
import logging
import mmap
import os
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from psys.checkpoint.storage import MemoryStorage
from psys.host import NodeHost
from psys.ps.messages import ExchangeReply, ExchangeRequest, Outcome, ShardFile
from psys.rpc.remote_shard import RemoteShard
from psys.rpc.server import Server

HERE = Path(__file__).resolve().parent
MIB = 1 << 20
SMALL_BYTES = (4 << 10, 64 << 10)
LARGE_BYTES = (1 * MIB, 6 * MIB, 32 * MIB)
MOST_BYTES = max(LARGE_BYTES)
TRANSPORTS = ("gRPC", "shared memory")


# ---------------------------------------------------------------- the other ends


class ReadyHost(NodeHost):
    """Answers every exchange at once, with as many bytes as its base version says."""

    values = np.ones(MOST_BYTES // 4, np.float32)

    def request_limit_bytes(self, generation: str) -> int | None:
        return 2 * MOST_BYTES

    def exchange(self, caller: Any, request: ExchangeRequest, *_: Any) -> ExchangeReply:
        used = resource.getrusage(resource.RUSAGE_SELF)
        cpu_usecs = int((used.ru_utime + used.ru_stime) * 1e6)
        dense = {"w": self.values[: request.base_version // 4]} if request.pull_dense else {}
        return ExchangeReply("g", 0, Outcome.APPLIED, version=cpu_usecs, dense=dense)


def serve_ps(port: int) -> None:
    host = ReadyHost(0, lambda _: ShardFile("", 0, ""))
    server = Server(host, MemoryStorage(), f"127.0.0.1:{port}", 4, None)
    print("serving", flush=True)
    sys.stdin.read()
    server.stop()
    host.close()


def serve_socket(port: int) -> None:
    """Take as many bytes as announced, and give as many."""
    listener = socket.create_server(("127.0.0.1", port))
    print("serving", flush=True)
    connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    buffer = memoryview(bytearray(MOST_BYTES))
    while size := int.from_bytes(connection.recv(8, socket.MSG_WAITALL), "little"):
        receive_into(connection, buffer[:size])
        connection.sendall(buffer[:size])


def serve_by_hand(port: int) -> None:
    """Copy as many bytes as a packet says into shared memory, each time elsewhere, and say so."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(f"\0psys-transport-{port}")
        listener.listen()
        print("serving", flush=True)
        connection, _ = listener.accept()
    _, (descriptor,), _, _ = socket.recv_fds(connection, 1, 1)
    rooms = np.frombuffer(mmap.mmap(descriptor, 4 * MOST_BYTES), np.uint8).reshape(4, -1)
    os.close(descriptor)
    values, turn = np.ones(MOST_BYTES, np.uint8), 0
    while size := int.from_bytes(connection.recv(8), "little"):
        turn = turn % 3 + 1
        np.copyto(rooms[turn, :size], values[:size])
        connection.send(turn.to_bytes(8, "little"))


def receive_into(connection: socket.socket, buffer: memoryview) -> None:
    while buffer:
        buffer = buffer[connection.recv_into(buffer) :]


def start(what: str) -> tuple[subprocess.Popen[str], int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, __file__, "--serve", what, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "serving\n"
    return process, port


# ---------------------------------------------------------------- what is timed


class Trainer:
    """Pushes and pulls ``size`` bytes; the clock of the ps's CPU comes back as the version."""

    def __init__(self, address: str, transport: str) -> None:
        os.environ["PSYS_SHM_DIR"] = "" if transport == "shared memory" else "none"
        self.shard = RemoteShard(0, address)
        self.gradient = np.ones(MOST_BYTES // 4, np.float32)
        self.last: ExchangeReply | None = None

    def exchange(self, size: int) -> int:
        push = {"w": self.gradient[: size // 4]}
        request = ExchangeRequest("g", "chief", 1, 1, size, push, True, {}, False)
        self.shard.begin_exchange(request)
        self.last = self.shard.finish_exchange()
        assert self.last.dense["w"].nbytes == size
        return self.last.version


class RawSocket:
    def __init__(self, port: int) -> None:
        self.connection = socket.create_connection(("127.0.0.1", port))
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.gradient = memoryview(bytearray(MOST_BYTES))
        self.values = memoryview(bytearray(MOST_BYTES))

    def exchange(self, size: int) -> None:
        self.connection.sendall(size.to_bytes(8, "little"))
        self.connection.sendall(self.gradient[:size])
        receive_into(self.connection, self.values[:size])


class ByHand:
    """What shared memory takes with nothing around it."""

    def __init__(self, port: int) -> None:
        self.connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.connection.connect(f"\0psys-transport-{port}")
        descriptor = os.memfd_create("by hand")
        os.ftruncate(descriptor, 4 * MOST_BYTES)
        self.room = np.frombuffer(mmap.mmap(descriptor, 4 * MOST_BYTES), np.uint8)
        socket.send_fds(self.connection, [b"m"], [descriptor])
        os.close(descriptor)
        self.gradient = np.ones(MOST_BYTES, np.uint8)

    def exchange(self, size: int) -> None:
        np.copyto(self.room[:size], self.gradient[:size])
        self.connection.send(size.to_bytes(8, "little"))
        self.connection.recv(8)


class Memcpy:
    """Every byte once in and once out: two copies of the push, two of the pull."""

    def __init__(self) -> None:
        self.gradient, self.values, self.there, self.back = np.ones((4, MOST_BYTES), np.uint8)

    def exchange(self, size: int) -> None:
        for source, between, end in (
            (self.gradient, self.there, self.back),
            (self.values, self.there, self.gradient),
        ):
            np.copyto(between[:size], source[:size])
            np.copyto(end[:size], between[:size])


def times_ms(ways: dict[str, Callable[[int], object]], size: int, secs: float) -> dict[str, float]:
    """Return the median time of one exchange each way; call by call they take turns."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    until = time.perf_counter() + secs
    while len(times["memcpy"]) < 8 or time.perf_counter() < until:
        for name, way in ways.items():
            begun = time.perf_counter()
            way(size)
            times[name].append(1e3 * (time.perf_counter() - begun))
    return {name: statistics.median(some[2:]) for name, some in times.items()}


def small_figures(trainer: Trainer, size: int, calls: int = 2000) -> dict[str, float]:
    """Return round trips a second, and the CPU of both ends for one of them."""
    for _ in range(min(100, calls)):
        there = trainer.exchange(size)
    begun, here = time.perf_counter(), time.process_time()
    for _ in range(calls):
        there_now = trainer.exchange(size)
    secs = time.perf_counter() - begun
    cpu_secs = time.process_time() - here + (there_now - there) / 1e6
    return {"per_sec": calls / secs, "cpu_ms": 1e3 * cpu_secs / calls}


def median_of(windows: list[dict[str, Any]]) -> dict[str, Any]:
    first = windows[0]
    if not isinstance(first, dict):
        return statistics.median(windows)  # type: ignore[return-value]
    return {key: median_of([window[key] for window in windows]) for key in first}


def measure(windows: int, secs: float) -> dict[str, Any]:
    ps, ps_port = start("ps")
    raw, raw_port = start("socket")
    hand, hand_port = start("by hand")
    trainers = {kind: Trainer(f"127.0.0.1:{ps_port}", kind) for kind in TRANSPORTS}
    ways: dict[str, Callable[[int], object]] = {
        "memcpy": Memcpy().exchange,
        "raw socket": RawSocket(raw_port).exchange,
        "by hand": ByHand(hand_port).exchange,
        **{kind: trainer.exchange for kind, trainer in trainers.items()},
    }
    found = []
    for _ in range(windows):
        small = {
            str(size): {kind: small_figures(one, size) for kind, one in trainers.items()}
            for size in SMALL_BYTES
        }
        large = {str(size): times_ms(ways, size, secs) for size in LARGE_BYTES}
        found.append({"small": small, "large_ms": large})
    for trainer in trainers.values():
        trainer.shard.close()
    for process in (ps, raw, hand):
        process.kill()
        process.communicate()
    return median_of(found)


def report(figures: dict[str, Any]) -> None:
    print("One exchange, as much pushed as pulled\n")
    print(f"{'each way':>10} {'transport':>14} {'round trips/s':>14} {'CPU, both ends':>15}")
    for size, by_kind in figures["small"].items():
        for kind, one in by_kind.items():
            cpu = f"{one['cpu_ms']:.2f} ms"
            print(f"{int(size) >> 10:>6} KiB {kind:>14} {one['per_sec']:>14.0f} {cpu:>15}")
    print()
    first = next(iter(figures["large_ms"].values()))
    print(f"{'each way':>10} " + " ".join(f"{name:>14}" for name in first) + "   ratios")
    for size, times in figures["large_ms"].items():
        grpc = times["raw socket"] / times["gRPC"]
        memory = times["memcpy"] / times["shared memory"]
        print(
            f"{int(size) // MIB:>6} MiB "
            + " ".join(f"{one:>11.2f} ms" for one in times.values())
            + f"   gRPC/raw socket {grpc:.2f}, shared memory/memcpy {memory:.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, default=5)
    parser.add_argument("--secs", type=float, default=2.0, help="for each size in each window")
    parser.add_argument("--quick", action="store_true", help="one short window")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "transport.json")
    parser.add_argument("--serve", nargs=2, metavar=("WHAT", "PORT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    if arguments.serve:
        what, port = arguments.serve
        servers = {"ps": serve_ps, "socket": serve_socket, "by hand": serve_by_hand}
        servers[what](int(port))
        return
    windows, secs = (1, 0.5) if arguments.quick else (arguments.windows, arguments.secs)
    figures = measure(windows, secs)
    report(figures)
    out = arguments.out
    if arguments.quick and out == parser.get_default("out"):
        out = out.parent / "quick" / out.name  # not the figures kept
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
