"""Exchanges alone: ``RemoteShard`` and ``Server`` beside raw loopback sockets and memcpy.

One ps process and one trainer process exchange a dense variable: its gradient out, its value
back, as in a step, but with an optimizer that does nothing. Beside them the same bytes over
plain sockets between two processes, and copied once in and once out by numpy. All take turns.

For each size: round trips a second, the ratio to each of the two, and the CPU time of one
exchange at both ends. Prints a table and writes ``benchmarks/results/exchange.json``.
"""

from __future__ import annotations

import speed  # first: it asks numpy for one thread

# isort: split

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from against_tf import RESULTS, psys_variant
from clusters import THREADS, cpu_secs_of, die_with_parent, end_on_signals, free_ports

MIB = 1 << 20
SIZES = (4 << 10, 64 << 10, MIB, 6 * MIB, 32 * MIB)
GENERATION = "g"
HERE = Path(__file__).resolve()


# ---------------------------------------------------------------- what the processes do


def serve_ps(address: str, size: int) -> None:
    """Hold one variable of ``size`` bytes, live."""
    from psys.checkpoint.storage import MemoryStorage
    from psys.host import NodeHost
    from psys.ps.messages import ShardFile, ShardOrders, ShardPhase
    from psys.ps.shard import LoadedSlice
    from psys.rpc.server import Server

    host = NodeHost(1, lambda _snapshot: ShardFile("file", 1, "hash"))
    spec = weight_of(size)
    server = Server(host, MemoryStorage(), address, tasks=2, token=None)
    host.obey(ShardOrders(GENERATION, ShardPhase.LOADING))
    host.load(GENERATION, [LoadedSlice(spec, 0, spec.rows)])
    host.obey(ShardOrders(GENERATION, ShardPhase.LIVE))
    print("ready", flush=True)
    signal.pause()
    server.stop()


def weight_of(size: int) -> Any:
    from psys.arrays import VariableSpec
    from psys.initializers import Constant
    from psys.optimizers.optimizer import Optimizer

    class Nothing(Optimizer):
        """Applies nothing: the transport alone is measured."""

        kind = "BenchmarkNothing"
        arguments = ("learning_rate",)

        def __init__(self, learning_rate: float) -> None:
            super().__init__(learning_rate, use_locking=False, name="Nothing")

        def update(self, value: Any, slots: Any, scalars: Any, gradient: Any) -> None:
            pass

        def apply_dense(self, *_arguments: Any, global_step: int = 0) -> None:
            pass

    return VariableSpec("weight", (size // 4,), "float32", Constant(0.5), Nothing(1.0).to_config())


def exchange_once(address: str, size: int) -> Callable[[], None]:
    """Return a function that pushes and pulls ``size`` bytes."""
    from psys.ps.messages import ExchangeRequest, Outcome
    from psys.rpc.remote_shard import RemoteShard

    weight_of(size)
    shard = RemoteShard(1, address)
    gradient = np.full(size // 4, 0.25, np.float32)
    state = {"sequence": 0, "version": 0}

    def once() -> None:
        state["sequence"] += 1
        shard.begin_exchange(
            ExchangeRequest(
                generation=GENERATION,
                task="chief:0",
                member=1,
                sequence=state["sequence"],
                base_version=state["version"],
                push={"weight": gradient},
                pull_dense=True,
                pull_rows={},
                wants_grant=False,
            )
        )
        reply = shard.finish_exchange()
        state["version"] = reply.version
        if reply.outcome is not Outcome.APPLIED or reply.dense["weight"].nbytes != size:
            sys.exit(f"the exchange failed: {reply.outcome} {reply.reason}")

    return once


def serve_sockets(address: str, size: int) -> None:
    """Take ``size`` bytes, give ``size`` bytes, for ever."""
    buffer, value = bytearray(size), bytes(size)
    host, _, port = address.rpartition(":")
    with socket.create_server((host, int(port))) as server:
        print("ready", flush=True)
        connection, _ = server.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while receive(connection, buffer):
            connection.sendall(value)


def receive(connection: socket.socket, buffer: bytearray) -> bool:
    view, at = memoryview(buffer), 0
    while at < len(buffer):
        got = connection.recv_into(view[at:])
        if not got:
            return False
        at += got
    return True


def sockets_once(address: str, size: int) -> Callable[[], None]:
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    gradient, buffer = bytes(size), bytearray(size)

    def once() -> None:
        connection.sendall(gradient)
        receive(connection, buffer)

    return once


def memcpy_once(_address: str, size: int) -> Callable[[], None]:
    """Return a function that copies ``size`` bytes once in and once out."""
    source, inside, result = (np.ones(size // 4, np.float32) for _ in range(3))

    def once() -> None:
        np.copyto(inside, source)
        np.copyto(result, inside)

    return once


CLIENTS = {"psys": exchange_once, "sockets": sockets_once, "memcpy": memcpy_once}
SERVERS = {"psys": serve_ps, "sockets": serve_sockets}


def obey(kind: str, address: str, size: int) -> None:
    """As a client: for each line of seconds, repeat for so long; print the figures."""
    once = CLIENTS[kind](address, size)
    for _ in range(5):
        once()
    print("ready", flush=True)
    for line in sys.stdin:
        until = time.perf_counter() + float(line)
        begun, cpu, count = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() < until:
            once()
            count += 1
        took = time.perf_counter() - begun
        figures = {"count": count, "secs": took, "cpu_secs": time.process_time() - cpu}
        print(json.dumps(figures), flush=True)


# ---------------------------------------------------------------- measuring them


class Pair:
    """A client and, but for memcpy, its server, as processes."""

    def __init__(self, kind: str, size: int, env: Mapping[str, str]) -> None:
        address = f"127.0.0.1:{free_ports(1)[0]}"
        self._env = {**os.environ, **dict.fromkeys(THREADS, "1"), **env}
        self._server = self._start("serve", kind, address, size) if kind in SERVERS else None
        self._client = self._start("client", kind, address, size)

    def _start(self, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(HERE), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self._env,
            text=True,
            preexec_fn=die_with_parent,
        )
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            process.kill()
            sys.exit(f"{arguments}: it did not start")
        return process

    def measure(self, secs: float) -> dict[str, float]:
        """Return round trips a second and CPU seconds of one, at the client and the server."""
        assert self._client.stdin is not None
        assert self._client.stdout is not None
        before = cpu_secs_of(self._server.pid) if self._server else 0.0
        self._client.stdin.write(f"{secs}\n")
        self._client.stdin.flush()
        figures = json.loads(self._client.stdout.readline())
        after = cpu_secs_of(self._server.pid) if self._server else 0.0
        count = figures["count"]
        return {
            "per_sec": count / figures["secs"],
            "client_cpu_ms": 1e3 * figures["cpu_secs"] / count,
            "server_cpu_ms": 1e3 * (after - before) / count,
            "gflops": speed.probe_gflops(3),
        }

    def close(self) -> None:
        for process in (self._client, self._server):
            if process is not None:
                process.kill()
                process.wait()


def measure_size(size: int, variants: Mapping[str, Any], rounds: int, secs: float) -> Any:
    """Return medians of all ways to move ``size`` bytes each way, by name."""
    with ExitStack() as stack:
        pairs = {}
        for name, (kind, env) in variants.items():
            pairs[name] = Pair(kind, size, env)
            stack.callback(pairs[name].close)
        found: dict[str, list[dict[str, float]]] = {name: [] for name in pairs}
        for _ in range(rounds):
            for name, pair in pairs.items():
                found[name].append(pair.measure(secs))
    return {
        name: {
            **{key: statistics.median(one[key] for one in runs) for key in runs[0]},
            "against": {
                base: statistics.median(
                    a["per_sec"] / b["per_sec"] for a, b in zip(runs, found[base], strict=True)
                )
                for base in ("sockets", "memcpy")
            },
            "windows": runs,
        }
        for name, runs in found.items()
    }


def main() -> None:
    if sys.argv[1:2] == ["serve"]:
        SERVERS[sys.argv[2]](sys.argv[3], int(sys.argv[4]))
        return
    if sys.argv[1:2] == ["client"]:
        obey(sys.argv[2], sys.argv[3], int(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, default=5)
    parser.add_argument("--secs", type=float, default=1.0, help="of one window")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument(
        "--variant", action="append", metavar="NAME:env.KEY=VALUE,…", help="a way to run psys"
    )
    parser.add_argument("--output", type=Path, default=RESULTS / "exchange.json")
    options = parser.parse_args()
    if options.quick:
        options.windows, options.secs = 2, 0.3
    end_on_signals()
    variants: dict[str, tuple[str, Mapping[str, str]]] = {"memcpy": ("memcpy", {})}
    variants["sockets"] = ("sockets", {})
    for one in map(psys_variant, options.variant or ["psys"]):
        variants[one.name] = ("psys", one.env)
    results: dict[str, Any] = {"machine": speed.describe_machine(), "sizes": {}}
    print(
        f"{'bytes each way':>15} {'':14}{'/s':>9}{'MB/s':>8}{'/sockets':>9}{'/memcpy':>9}"
        f"{'client CPU ms':>15}{'ps CPU ms':>11}{'GF/s':>6}"
    )
    for size in SIZES:
        found = measure_size(size, variants, options.windows, options.secs)
        results["sizes"][size] = found
        for name, one in found.items():
            print(
                f"{size:15,} {name:14}{one['per_sec']:9.0f}{2e-6 * size * one['per_sec']:8.0f}"
                f"{one['against']['sockets']:9.2f}{one['against']['memcpy']:9.2f}"
                f"{one['client_cpu_ms']:15.3f}{one['server_cpu_ms']:11.3f}{one['gflops']:6.0f}"
            )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
