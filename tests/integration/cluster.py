"""A cluster of real processes for tests: every role a subprocess with a TF_CONFIG of its own.

Tests wait for what the roles print or write, never for time to pass. Whatever still runs at the
end of a test is killed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from psys.checkpoint import open_checkpoint
from psys.cli.ports import LOOPBACK, PortReservation
from psys.environment import child_environment

PROGRAM = Path(__file__).parent / "program.py"
PATIENCE_SECS = 60.0
"""Far more than anything here takes; a test that needs it has failed."""

BATCH, WIDTH = 4, 2
TABLE = "input_layer/id_embedding/embedding_weights"
TWINS = (
    "input_layer/id_bucketized_embedding/embedding_weights",
    "more/input_layer/id_embedding/embedding_weights",
)
"""The other tables of its stack, whose rows are always trained on together with its own."""


class Role:
    """One started process; its output is read as it comes."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        self.process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                with self._news:
                    self.lines.append(line.rstrip("\n"))
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    @property
    def last_line(self) -> str:
        return next((line for line in reversed(self.lines) if line.strip()), "")

    @property
    def steps(self) -> list[int]:
        """The global step after each step this trainer took."""
        return [int(line[5:]) for line in self.lines if line.startswith("STEP ")]

    def saw(self, pattern: str, count: int = 1) -> re.Match[str]:
        """Wait until ``count`` lines match; return the last of them."""
        found: list[re.Match[str]] = []

        def look() -> bool:
            found[:] = [m for line in self.lines if (m := re.search(pattern, line))]
            return len(found) >= count or self._ended

        with self._news:
            done = self._news.wait_for(look, PATIENCE_SECS)
        if len(found) < count:
            why = "ended" if done else f"did not in {PATIENCE_SECS:.0f} s"
            pytest.fail(f"{self.name} was to print {pattern!r}, and {why}:\n{self.output[-4000:]}")
        return found[count - 1]

    def holds(self, batch: int) -> None:
        """Wait until the trainer waits for its input's next batch, with no step under way.

        A step is sent together with the wish for the next batch, so one less is trained on.
        """
        self.saw(f"HOLDING batch {batch}$")
        self.saw("^STEP ", batch - 1)

    def saw_step(self, step: int) -> int:
        """Wait until the trainer took a step at or beyond ``step``; return that step."""
        with self._news:
            self._news.wait_for(
                lambda: self._ended or (self.steps or [0])[-1] >= step, PATIENCE_SECS
            )
            assert self.steps, self.output
            assert self.steps[-1] >= step, self.output
            return self.steps[-1]

    def kill(self) -> None:
        """Kill it as the kernel would, and wait until it is gone."""
        self.process.kill()
        self.process.wait()

    def terminate(self) -> None:
        self.process.terminate()

    def wait(self) -> int:
        """Wait for its end and for the rest of its output; return the exit code."""
        try:
            code = self.process.wait(PATIENCE_SECS)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{self.name} did not end:\n{self.output[-4000:]}")
        self._reader.join(PATIENCE_SECS)
        return code


class Cluster:
    """Addresses, and the processes started at them."""

    def __init__(
        self,
        directory: Path,
        *,
        ps: int = 2,
        workers: int = 1,
        evaluator: bool = False,
        chief: str = "chief",
        arguments: Sequence[object] = (),
    ) -> None:
        """Reserve ports; nothing is started.

        Args:
            directory: for model_dir, unless a role is given another.
            ps: how many.
            workers: how many.
            evaluator: whether the cluster lists one.
            chief: the dialect: ``chief`` or ``master``.
            arguments: of the program, for every role.
        """
        counts = {chief: 1, "worker": workers, "ps": ps, "evaluator": int(evaluator)}
        self._reservation = PortReservation(sum(counts.values()))
        addresses = iter(self._reservation.ports)
        self.addresses = {
            kind: [f"{LOOPBACK}:{next(addresses)}" for _ in range(count)]
            for kind, count in counts.items()
            if count
        }
        self.model_dir = directory / "model"
        self._chief = chief
        self._arguments = [str(one) for one in arguments]
        self.roles: list[Role] = []

    @property
    def tasks(self) -> list[str]:
        """Every listed task, ps first."""
        order = ("ps", self._chief, "worker", "evaluator")
        return [f"{kind}:{i}" for kind in order for i in range(len(self.addresses.get(kind, ())))]

    def start(
        self,
        task: str,
        *arguments: object,
        model_dir: Path | None = None,
        tf_config: Mapping[str, Any] | str | None = None,
        program: Path = PROGRAM,
        environment: Mapping[str, str] | None = None,
    ) -> Role:
        """Start ``chief``, ``worker:1``, ...: the index is 0 where none is given."""
        config: Mapping[str, Any] | str = tf_config or self.tf_config(task)
        extra = dict(environment or {})
        if isinstance(config, str):
            extra["TF_CONFIG"], config = config, {}
        command = [sys.executable, str(program), "--model_dir", str(model_dir or self.model_dir)]
        role = Role(
            task,
            [*command, *self._arguments, *map(str, arguments)],
            child_environment(config, extra),
        )
        self.roles.append(role)
        return role

    def tf_config(self, task: str) -> dict[str, Any]:
        kind, _, index = task.partition(":")
        return {"cluster": self.addresses, "task": {"type": kind, "index": int(index or 0)}}

    def start_bare(self, task: str, *arguments: object, model_dir: Path | None = None) -> Role:
        """Start ``ps:1``, ... by ``psys ps``, without the program."""
        command = [sys.executable, "-m", "psys", "ps", "--model_dir"]
        command += [str(model_dir or self.model_dir), *map(str, arguments)]
        role = Role(task, command, child_environment(self.tf_config(task)))
        self.roles.append(role)
        return role

    def start_all(self, *arguments: object, but: Sequence[str] = ()) -> dict[str, Role]:
        """Start every listed task that is not in ``but``."""
        return {task: self.start(task, *arguments) for task in self.tasks if task not in but}

    def address(self, task: str) -> str:
        kind, _, index = task.partition(":")
        return self.addresses[kind][int(index or 0)]

    @property
    def verdict(self) -> dict[str, Any]:
        verdict: dict[str, Any] = json.loads((self.model_dir / "verdict.json").read_text())
        return verdict

    @property
    def results(self) -> list[dict[str, Any]]:
        """The lines of ``eval/results.jsonl``."""
        return [
            json.loads(line)
            for line in (self.model_dir / "eval" / "results.jsonl").read_text().splitlines()
        ]

    def close(self) -> None:
        """Kill what still runs and let the ports go."""
        for role in self.roles:
            role.kill()
            role.wait()
        self._reservation.close()


def finished(*roles: Role) -> None:
    """Wait for the roles; all must exit with 0, and none may meet an error that nobody foresaw."""
    codes = {role.name: role.wait() for role in roles}
    failed = [role for role in roles if codes[role.name]]
    assert not failed, "\n\n".join(
        f"== {role.name}: {codes[role.name]}\n{role.output[-3000:]}" for role in roles
    )
    for role in roles:
        assert "INTERNAL" not in role.output, f"== {role.name}\n{role.output[-3000:]}"


def failed(reason: str, *roles: Role) -> None:
    """Wait for the roles; all must exit with an error and name the reason in their last line."""
    for role in roles:
        code = role.wait()
        assert code not in (0, -9), f"{role.name}: {code}\n{role.output[-3000:]}"
    for role in roles:
        assert re.search(reason, role.last_line), f"{role.name}:\n{role.output[-3000:]}"


def gate(directory: Path, name: str) -> Path:
    """Return a path that roles hold at until it is touched."""
    return directory / f"gate-{name}"


def check_model(path: Path | str, step: int) -> None:
    """Check that the newest checkpoint holds exactly what ``step`` steps make of the model."""
    reader = open_checkpoint(path)
    assert reader.global_step == step, (reader.global_step, step)
    assert reader.read("steps_applied") == step
    accumulator = np.float32(0.1)
    moved = np.float32(0.0)
    for _ in range(step):
        accumulator += np.float32(1.0)
        moved += np.float32(0.1) / np.sqrt(accumulator)
    np.testing.assert_allclose(reader.read_slot("weights", "accumulator"), accumulator, rtol=1e-5)
    initial = reader.variables["weights"].initializer.rows("weights", (8, 3), "float32", 0, 8, 1)
    np.testing.assert_allclose(reader.read("weights"), initial + moved, rtol=1e-4, atol=1e-4)
    assert visits(path).sum() == step * BATCH


def visits(path: Path | str) -> np.ndarray[Any, Any]:
    """Return how often each row of the table, and of its twins, was trained on, ``[rows]``."""
    reader = open_checkpoint(path)
    slots = [reader.read_slot(name, "accumulator") for name in (TABLE, *TWINS)]
    slot = np.concatenate(slots, axis=1)
    counts = np.rint(slot - 0.1)
    np.testing.assert_allclose(slot, counts + 0.1, atol=1e-3)
    assert (counts[:, :1] == counts).all(), "a row was applied in part"
    return counts[:, 0].astype(int)


def manifests(model_dir: Path) -> list[dict[str, Any]]:
    """Return every committed checkpoint's manifest, oldest first."""
    files = (model_dir / "checkpoints").glob("model-*/manifest.json")
    found = [json.loads(file.read_text()) for file in files]
    # On a busy machine two saves may be of one step: the second was asked for at a later one.
    return sorted(found, key=lambda one: (one["global_step"], one["created_unix_secs"]))
