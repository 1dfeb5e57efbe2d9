from __future__ import annotations

import io
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from psys.cli.launch import Launch, Patience
from psys.cli.launcher import LocalCluster, describe_exit
from psys.cli.output import Console
from psys.cli.verdict import JobVerdict

SHORT = Patience(grace_secs=0.2, ending_secs=0.2, interrupt_secs=0.2, terminate_secs=0.2)
USUAL = Patience()
ONE_OF_EACH = {"chief": ["h:1"], "worker": ["h:2"], "ps": ["h:3"], "evaluator": ["h:4"]}


@pytest.fixture
def launch(
    write_script: Callable[[str], Path], tmp_path: Path
) -> Callable[..., tuple[JobVerdict, list[str]]]:
    """Run a program as every role; return the verdict and the launcher's own lines."""

    def run(
        body: str, patience: Patience = USUAL, timeout_secs: float | None = None
    ) -> tuple[JobVerdict, list[str]]:
        said: list[str] = []
        description = Launch(
            command=[str(write_script(body))],
            cluster=ONE_OF_EACH,
            log_dir=tmp_path,
            environment={},
            timeout_secs=timeout_secs,
            patience=patience,
        )
        console = Console(io.StringIO(), colour=False)
        return LocalCluster(description, console, said.append).run(), said

    return run


Launcher = Callable[..., tuple[JobVerdict, list[str]]]


def test_who_does_not_end_after_a_failure_is_ended(launch: Launcher) -> None:
    verdict, said = launch(
        'if KIND == "ps": raise RuntimeError("out of memory")\n'
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nhang()",
        SHORT,
    )
    assert verdict.reason == "ps 0 exited with 1: RuntimeError: out of memory"
    assert said == [
        "ps 0 exited with 1; chief, worker 0, evaluator may take 0.2 s to end by themselves",
        "chief, worker 0, evaluator still running: sending SIGTERM",
        "chief, worker 0, evaluator still running: sending SIGKILL",
    ]


def test_who_does_not_end_after_the_verdict_is_ended_and_the_verdict_stands(
    launch: Launcher,
) -> None:
    verdict, said = launch(
        'if KIND == "chief": conclude(verdict="FINISHED", global_step=1)\nif KIND == "ps": hang()',
        SHORT,
    )
    assert verdict.finished
    assert said[0] == "ps 0 still running: sending SIGTERM"


def test_a_killed_worker_is_a_loss_that_the_job_may_survive(launch: Launcher) -> None:
    # The chief concludes only after the launcher has reaped the worker.
    verdict, said = launch(
        "fifo = os.environ['PSYS_VERDICT_FILE'] + '.fifo'\n"
        "try: os.mkfifo(fifo)\n"
        "except FileExistsError: pass\n"
        "if KIND == 'worker':\n"
        "    open(fifo, 'w').write(str(os.getpid()))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "if KIND == 'chief':\n"
        "    pid = open(fifo).read()\n"
        "    while os.path.exists(f'/proc/{pid}'): os.sched_yield()\n"
        "    conclude(verdict='FINISHED', global_step=5)\n",
        Patience(grace_secs=0.0),
    )
    assert verdict.finished
    assert "worker 0 was killed by SIGKILL" in said[0]


def test_a_killed_ps_fails_the_job_when_nobody_brings_it_back(launch: Launcher) -> None:
    verdict, _ = launch(
        'print("all well")\nif KIND == "ps": os.kill(os.getpid(), signal.SIGKILL)\nhang()', SHORT
    )
    assert verdict == JobVerdict("FAILED", "ps 0 was killed by SIGKILL")


def test_a_job_that_takes_too_long_is_ended(launch: Launcher) -> None:
    verdict, said = launch("hang()", timeout_secs=0.3)
    assert verdict.reason == "not finished within 0.3 s"
    assert said == ["ps 0, chief, worker 0, evaluator still running: sending SIGTERM"]


def test_a_child_that_a_role_left_behind_does_not_keep_the_launcher_waiting(
    launch: Launcher,
) -> None:
    verdict, _ = launch(
        'subprocess.Popen(["sleep", "1000"])\n'
        'if KIND == "chief": conclude(verdict="FINISHED", global_step=1)'
    )
    assert verdict.finished


def test_exit_codes_in_words() -> None:
    assert describe_exit(3) == "exited with 3"
    assert describe_exit(-signal.SIGSEGV) == "was killed by SIGSEGV"
