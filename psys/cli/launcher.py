"""A whole cluster on this machine: every role a real process, watched until the last has ended.

The roles end by themselves, as the job's verdict tells them; the launcher only bounds how long
that may take, and says so. It never restarts a role, and never judges a job that has a verdict:
only where no role wrote one (the script failed before psys began) it is FAILED by exit code.

How each end is bounded: ``Patience``. Whoever is late gets SIGTERM, then SIGKILL. Signals go to
a role's process group (each role leads its own session), so its children end too, and a
terminal's Ctrl-C reaches only the launcher. Should the launcher itself be killed, ``guard`` ends
the roles. A worker or evaluator that was killed is a loss, not a failure: the cluster decides.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from psys.cli import guard
from psys.cli.guard_pipe import Guard, start_guard
from psys.cli.launch import Launch
from psys.cli.output import Console, RoleOutput
from psys.cli.verdict import FAILED, JobVerdict, one_line, read_verdict
from psys.cluster import CHIEF, EVALUATOR, PS, WORKER, Task
from psys.environment import child_environment

_READ_REST_SECS = 2.0


@dataclass
class _Role:
    """A started process. Its process group is its process id: it leads its own session."""

    task: Task
    process: subprocess.Popen[bytes]
    output: RoleOutput
    exit_code: int | None = None


@dataclass(frozen=True)
class _Exited:
    role: _Role
    exit_code: int


@dataclass(frozen=True)
class _Interrupted:
    signum: int


class LocalCluster:
    """The processes of one job, from the first start to the last exit."""

    def __init__(self, launch: Launch, console: Console, say: Callable[[str], None]) -> None:
        """Prepare; nothing is started yet.

        Args:
            launch: what to start.
            console: where the roles' lines go.
            say: prints one line of the launcher's own.
        """
        self._launch = launch
        self._patience = launch.patience
        self._console = console
        self._say = say
        self._events: queue.SimpleQueue[_Exited | _Interrupted] = queue.SimpleQueue()
        self._roles: list[_Role] = []
        self._first_failure: _Role | None = None
        self._hurried: _Role | None = None
        self._interrupted_by: int | None = None
        self._timed_out = False
        self._signals = [signal.SIGTERM, signal.SIGKILL]
        self._deadline = float("inf")

    def interrupt(self, signum: int) -> None:
        """Ask for the end of the job; asked again, end it at once. Safe in a signal handler."""
        self._events.put(_Interrupted(signum))

    def run(self) -> JobVerdict:
        """Start every role, watch them to the end, and return how the job ended."""
        self._launch.verdict_path.unlink(missing_ok=True)
        if self._launch.timeout_secs is not None:
            self._deadline = time.monotonic() + self._launch.timeout_secs
        with start_guard() as keeper:
            try:
                for task in self._launch.tasks:
                    self._start(task, keeper)
                while self._running:
                    self._handle_next(keeper)
            finally:
                # Only an error of the launcher itself leaves roles behind here.
                for role in self._running:
                    guard.send_to_group(role.process.pid, signal.SIGKILL)
        for role in self._roles:
            role.output.join(_READ_REST_SECS)
        return self._conclude()

    @property
    def _running(self) -> list[_Role]:
        return [role for role in self._roles if role.exit_code is None]

    def _start(self, task: Task, keeper: Guard) -> None:
        tf_config: dict[str, Any] = {
            "cluster": dict(self._launch.cluster),
            "task": {"type": task.type, "index": task.index},
        }
        alone = len(self._launch.tasks) == 1
        process = subprocess.Popen(
            [sys.executable, *self._launch.command],
            env=child_environment(
                tf_config,
                extra={
                    **self._launch.environment,
                    "PSYS_VERDICT_FILE": str(self._launch.verdict_path),
                },
                threads=(os.cpu_count() or 1) if alone else 1,
            ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        keeper.add(process.pid)
        assert process.stdout is not None
        name = label(task)
        log_path = self._launch.log_dir / f"{name.replace(' ', '-')}.log"
        role = _Role(task, process, RoleOutput(name, process.stdout, log_path, self._console))
        self._roles.append(role)
        role.output.start()
        threading.Thread(target=self._await_exit, args=(role,), daemon=True).start()

    def _await_exit(self, role: _Role) -> None:
        self._events.put(_Exited(role, role.process.wait()))

    def _handle_next(self, keeper: Guard) -> None:
        try:
            timeout = self._deadline - time.monotonic()
            if timeout == float("inf"):
                event = self._events.get()
            else:
                event = self._events.get(timeout=max(0.0, timeout))
        except queue.Empty:
            self._on_deadline()
            return
        if isinstance(event, _Interrupted):
            self._on_interrupt(event.signum)
        else:
            self._on_exit(event.role, event.exit_code)
            keeper.discard(event.role.process.pid)

    def _on_exit(self, role: _Role, exit_code: int) -> None:
        role.exit_code = exit_code
        # What the role itself started must not outlive it.
        guard.send_to_group(role.process.pid, signal.SIGKILL)
        verdict = read_verdict(self._launch.verdict_path)
        self._judge_exit(role, exit_code, verdict)
        if verdict is not None:
            self._hurry_lead()

    def _judge_exit(self, role: _Role, exit_code: int, verdict: JobVerdict | None) -> None:
        """Say how a role ended, and bound how long the others may take to follow it."""
        if exit_code == 0:
            if role.task.is_chief:
                self._bound(self._patience.ending_secs)
            return
        name, how = label(role.task), describe_exit(exit_code)
        if verdict is not None:
            self._bound(self._patience.ending_secs)
            if verdict.finished and role is not self._hurried:
                self._say(f"{name} {how}, though the job finished")
        elif exit_code < 0 and role.task.type in (WORKER, EVALUATOR):
            if not self._stopping:
                self._say(f"{name} {how}; the job goes on without it")
        else:
            if self._first_failure is None:
                self._first_failure = role
            if self._running and not self._stopping:
                self._say(
                    f"{name} {how}; {self._names()} may take {self._patience.grace_secs:g} s "
                    "to end by themselves"
                )
            self._bound(self._patience.grace_secs)

    def _hurry_lead(self) -> None:
        """Spare ps 0 the wait for a killed role to come back and hear the verdict: none does.

        Where none was killed it leaves by itself, and may be past handling a signal.
        """
        killed = any(role.exit_code is not None and role.exit_code < 0 for role in self._roles)
        if self._hurried is None and killed and not self._stopping:
            match self._running:
                case [role] if (role.task.type, role.task.index) == (PS, 0):
                    self._hurried = role
                    guard.send_to_group(role.process.pid, signal.SIGTERM)

    def _on_interrupt(self, signum: int) -> None:
        if self._interrupted_by is not None:
            self._signals = [signal.SIGKILL]
            self._on_deadline()
            return
        self._interrupted_by = signum
        self._say(
            f"{signal.Signals(signum).name}: asked {self._names()} to stop, waiting up to "
            f"{self._patience.interrupt_secs:g} s (once more: kill them at once)"
        )
        self._signal_running(signal.SIGTERM)
        self._signals = [signal.SIGKILL]
        self._deadline = time.monotonic() + self._patience.interrupt_secs

    def _on_deadline(self) -> None:
        """End whoever is late: by SIGTERM first, then by SIGKILL."""
        if not self._stopping and self._first_failure is None and not self._ended:
            self._timed_out = True
        signum = self._signals.pop(0) if self._signals else signal.SIGKILL
        self._say(f"{self._names()} still running: sending {signum.name}")
        self._signal_running(signum)
        self._deadline = time.monotonic() + self._patience.terminate_secs

    @property
    def _stopping(self) -> bool:
        """Whether the roles were already told to stop."""
        return len(self._signals) < 2

    @property
    def _ended(self) -> bool:
        """Whether the job came to an end by itself: the chief left, or there is a verdict."""
        chief_left = any(role.task.is_chief and role.exit_code is not None for role in self._roles)
        return chief_left or self._launch.verdict_path.exists()

    def _bound(self, seconds: float) -> None:
        """Give the roles that still run at most so long, unless they have less already."""
        if not self._stopping:
            self._deadline = min(self._deadline, time.monotonic() + seconds)

    def _signal_running(self, signum: signal.Signals) -> None:
        for role in self._running:
            guard.send_to_group(role.process.pid, signum)

    def _names(self) -> str:
        return ", ".join(label(role.task) for role in self._running)

    def _conclude(self) -> JobVerdict:
        verdict = read_verdict(self._launch.verdict_path)
        if verdict is not None and verdict.finished:
            return verdict
        if self._interrupted_by is not None:
            return JobVerdict(FAILED, "interrupted")
        if verdict is not None:
            return verdict
        if self._timed_out:
            return JobVerdict(FAILED, f"not finished within {self._launch.timeout_secs:g} s")
        failed = self._first_failure or next((r for r in self._roles if r.exit_code != 0), None)
        if failed is None:
            return JobVerdict(
                FAILED,
                "every role exited with 0 but none reported a verdict: does "
                f"{self._launch.command[0]} call train_and_evaluate?",
            )
        why = f"{label(failed.task)} {describe_exit(failed.exit_code or 0)}"
        # Who was killed had no last words: its last line is whatever it said before.
        last_words = one_line(failed.output.last_words) if (failed.exit_code or 0) > 0 else ""
        return JobVerdict(FAILED, f"{why}: {last_words}" if last_words else why)


def label(task: Task) -> str:
    """Return what a role's lines are marked with: ``chief``, ``worker 0``, ``ps 1``."""
    return task.type if task.type in (CHIEF, EVALUATOR) else f"{task.type} {task.index}"


def describe_exit(exit_code: int) -> str:
    """Return ``exited with 1`` or ``was killed by SIGKILL``."""
    if exit_code >= 0:
        return f"exited with {exit_code}"
    try:
        return f"was killed by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"was killed by signal {-exit_code}"
