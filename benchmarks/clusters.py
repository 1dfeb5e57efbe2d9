"""Real processes of one job on this machine: started, watched, frozen, ended.

A job is a local process or a cluster under TF_CONFIG. Everything started here is gone when the
job is closed: each role runs in a session of its own that is killed whole, and dies with the
benchmark should that be killed.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steps import Steps, read_steps

HERE = Path(__file__).resolve().parent
DATA = HERE / ".data"
TICKS_PER_SEC = os.sysconf("SC_CLK_TCK")
START_LIMIT_SECS = 180.0
WARM_STEPS = 40
FIRST_CHECKPOINT_SECS = 3.0
"""A model is saved once right after its creation: for so long a ps does more than serve."""
INHERITED = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "PYTHONDONTWRITEBYTECODE")
"""What a shell may have fixed: no job inherits it, so that libraries choose for this CPU."""
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")

_TOPOLOGY = re.compile(r"chief(?:\+(\d+)workers?)?\+(\d+)ps")


def roles_of(topology: str) -> dict[str, int]:
    """Return how many of each role ``local``, ``chief+1ps`` or ``chief+2workers+2ps`` has."""
    if topology == "local":
        return {}
    match = _TOPOLOGY.fullmatch(topology)
    if match is None:
        sys.exit(f"no topology {topology!r}: local, chief+1ps, chief+2workers+2ps and the like")
    workers = {"worker": int(match[1])} if match[1] else {}
    return {"chief": 1, **workers, "ps": int(match[2])}


@dataclass(frozen=True)
class Variant:
    """A program to measure.

    Attributes:
        name: in tables.
        python: its interpreter.
        script: what each role runs.
        options: passed to the script.
        env: added to the environment.
    """

    name: str
    python: str
    script: str
    options: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Role:
    """One process."""

    name: str
    process: subprocess.Popen[bytes]
    steps: Path
    log: Path


class Job:
    """All roles of one variant and topology."""

    def __init__(
        self, variant: Variant, workload: str, topology: str, extra: Mapping[str, Any] | None = None
    ) -> None:
        """Start every role at once."""
        self.variant, self.workload, self.topology = variant, workload, topology
        self._folder = Path(tempfile.mkdtemp(prefix="psys-bench-"))
        roles = roles_of(topology)
        ports = iter(free_ports(sum(roles.values())))
        cluster = {
            kind: [f"127.0.0.1:{next(ports)}" for _ in range(n)] for kind, n in roles.items()
        }
        self.roles: list[Role] = []
        self.started_secs = time.monotonic()
        try:
            for kind, count in (roles or {"local": 1}).items():
                for index in range(count):
                    self.roles.append(self._start(kind, index, cluster, extra or {}))
        except BaseException:
            self.close()
            raise

    def _start(self, kind: str, index: int, cluster: Any, extra: Mapping[str, Any]) -> Role:
        name = f"{kind}-{index}"
        options = {
            "workload": self.workload,
            "model_dir": str(self._folder / "model"),
            "data": str(DATA),
            "steps": str(self._folder / f"{name}.steps"),
            "max_steps": None,
            "strategy": {},
            "role": name,
            **self.variant.options,
            **extra,
        }
        if options.get("profile"):
            options["profile"] = f"{options['profile']}/{name}.json"
        env = dict(os.environ)
        for unwanted in (*INHERITED, *THREADS, "TF_CONFIG", "TF_CONFIG_FILE"):
            env.pop(unwanted, None)
        if cluster:
            env["TF_CONFIG"] = json.dumps(
                {"cluster": cluster, "task": {"type": kind, "index": index}}
            )
        env.update(self.variant.env)
        log = self._folder / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [self.variant.python, str(HERE / self.variant.script), json.dumps(options)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                preexec_fn=die_with_parent,
            )
        return Role(name, process, Path(options["steps"]), log)

    # ------------------------------------------------------------ what it does

    @property
    def trainers(self) -> list[Role]:
        return [role for role in self.roles if not role.name.startswith("ps")]

    def wait_first_steps(self, steps: int = 1) -> dict[str, float]:
        """Wait until every trainer has taken so many steps; return seconds to each first one."""
        until = time.monotonic() + START_LIMIT_SECS
        while True:
            self.check()
            counts = {role.name: read_steps(role.steps) for role in self.trainers}
            if all(one.steps >= steps for one in counts.values()):
                return {name: one.first_secs - self.started_secs for name, one in counts.items()}
            if time.monotonic() > until:
                raise RuntimeError(f"{self.describe()}: no first step.\n{self.last_words()}")
            time.sleep(0.02)

    def wait_steady(self) -> None:
        """Wait until every trainer trains, and the first checkpoint is out of the way."""
        self.wait_first_steps(WARM_STEPS)
        time.sleep(FIRST_CHECKPOINT_SECS)

    def check(self) -> None:
        """Raise if a role has ended."""
        for role in self.roles:
            if role.process.poll() is not None:
                raise RuntimeError(f"{self.describe()}: {role.name} ended.\n{self.last_words()}")

    def counts(self) -> dict[str, Steps]:
        return {role.name: read_steps(role.steps) for role in self.trainers}

    def cpu_secs(self) -> dict[str, float]:
        """Return CPU seconds of each role so far."""
        return {role.name: cpu_secs_of(role.process.pid) for role in self.roles}

    def memory_mib(self) -> dict[str, dict[str, float]]:
        """Return resident memory of each role: now, of it shared segments, and the peak."""
        return {role.name: _memory_mib(role.process.pid) for role in self.roles}

    def describe(self) -> str:
        return f"{self.variant.name} {self.workload} {self.topology}"

    def last_words(self) -> str:
        texts = (f"--- {r.name}\n{r.log.read_text(errors='replace')[-1500:]}" for r in self.roles)
        return "\n".join(texts)

    # ------------------------------------------------------------ frozen, thawed, ended

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """Kill every role with all it started, and remove its files."""
        self._signal(signal.SIGKILL)
        for role in self.roles:
            role.process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _signal(self, number: signal.Signals) -> None:
        for role in self.roles:
            with suppress(ProcessLookupError):
                os.killpg(role.process.pid, number)

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def die_with_parent() -> None:
    os.setsid()
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def free_ports(count: int) -> Sequence[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def cpu_secs_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SEC


def _memory_mib(pid: int) -> dict[str, float]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kib = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("Vm", "Rss"))}
    return {
        "now": int(kib["VmRSS"]) / 1024,
        "shared": int(kib["RssShmem"]) / 1024,
        "peak": int(kib["VmHWM"]) / 1024,
    }


def end_on_signals() -> None:
    """Turn SIGTERM and SIGHUP into an exit, so that jobs are closed."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(143))
