"""An exception in any role, and input that cannot be used: everyone ends, and says why."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster import PROGRAM, Cluster, failed, finished

MakeCluster = Callable[..., Cluster]

# Which role raises, where, and what every role then says.
EXCEPTIONS = {
    "input_fn of a worker": ("worker:0", "input_fn", "worker:0: RuntimeError: the input is broken"),
    "input_fn of the chief": ("chief:0", "input_fn", "chief: RuntimeError: the input is broken"),
    "model_fn of the chief": ("chief:0", "model_fn", "chief: ValueError: the model is broken"),
    "input_fn of the evaluator": (
        "evaluator:0",
        "eval_input_fn",
        "evaluator: RuntimeError: the evaluation input is broken",
    ),
    "hook of a worker": ("worker:0", "hook", "worker:0: RuntimeError: the hook is broken"),
    "hook of the chief": ("chief:0", "hook", "chief: RuntimeError: the hook is broken"),
    "loss of a worker": ("worker:0", "nan_loss", "worker:0: NanLossDuringTrainingError: NaN loss"),
    "file of the chief": ("chief:0", "missing_file", r"FileNotFoundError: .*/nowhere/train\.csv"),
}


LESS_OFTEN = ("input_fn of the chief", "hook of a worker", "file of the chief")


@pytest.mark.parametrize(
    ("task", "where", "reason"),
    [
        pytest.param(*case, id=name, marks=[pytest.mark.chaos] if name in LESS_OFTEN else [])
        for name, case in EXCEPTIONS.items()
    ],
)
def test_an_exception_in_one_role_ends_every_role_with_its_reason(
    make_cluster: MakeCluster, task: str, where: str, reason: str
) -> None:
    cluster = make_cluster(ps=2, evaluator=True, arguments=["--max_steps", 100_000])
    roles = cluster.start_all(but=[task])
    culprit = cluster.start(task, "--fail", where)
    failed(f"psys: FAILED reason=.*{reason}", *roles.values())
    failed(reason.split(": ", 1)[-1], culprit)
    assert cluster.verdict["verdict"] == "FAILED"
    assert re.search(reason, cluster.verdict["reason"])


def test_a_chief_that_hosts_the_model_and_fails_tells_the_others(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(ps=0, evaluator=True, arguments=["--max_steps", 100_000])
    worker, evaluator = cluster.start("worker"), cluster.start("evaluator")
    chief = cluster.start("chief", "--fail", "hook")
    failed("psys: FAILED reason=chief: RuntimeError: the hook is broken", worker, evaluator)
    failed("RuntimeError: the hook is broken", chief)


def test_psys_run_ends_with_the_reason(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "psys", "run", "--evaluator", "--log-dir", tmp_path / "logs"]
    program = [PROGRAM, "--model_dir", tmp_path / "model", "--fail", "input_fn"]
    done = subprocess.run([*command, *program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    last = done.stdout.splitlines()[-1]
    # Both trainers fail, and whichever the lead hears first gives the reason.
    assert re.fullmatch(
        r"psys: FAILED reason=(chief|worker:0): RuntimeError: the input is broken", last
    )
    assert json.loads((tmp_path / "model" / "verdict.json").read_text())["verdict"] == "FAILED"


def test_a_chief_whose_lead_is_gone_for_good_says_itself_how_far_the_job_came(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    opened = tmp_path / "never"
    arguments = ["--max_steps", 60, "--save_steps", 20, "--recover_secs", 2]
    cluster = make_cluster(ps=2, arguments=[*arguments, "--hold", f"30:{opened}"])
    roles = cluster.start_all()
    roles["chief:0"].saw("Saved checkpoint for step [2-9]")
    roles["ps:0"].kill()
    opened.touch()
    failed("The lead was out of reach", roles["chief:0"])
    for name in ("worker:0", "ps:1"):
        assert roles[name].wait() != 0
    verdict = cluster.verdict
    assert (verdict["verdict"], Path(verdict["checkpoint"]).is_dir()) == ("FAILED", True)
    assert verdict["global_step"] >= 20


def test_a_second_process_of_one_ps_is_refused_and_the_job_goes_on(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    opened = tmp_path / "gate"
    cluster = make_cluster(ps=2, arguments=["--max_steps", 60, "--hold", f"10:{opened}"])
    roles = cluster.start_all()
    roles["chief:0"].saw("HOLDING")
    for task in ("ps:0", "ps:1"):
        failed("Cannot listen on", cluster.start(task))
    opened.touch()
    finished(*roles.values())


def test_a_worker_with_the_ps_in_another_order_is_refused(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    opened = tmp_path / "gate"
    cluster = make_cluster(
        ps=2, arguments=["--max_steps", 60, "--hold", f"10:{opened}", "--linger_secs", 1]
    )
    roles = cluster.start_all(but=["worker:0"])
    roles["chief:0"].saw("HOLDING")
    ps = cluster.addresses["ps"]
    # ps 1 under number 0: it leads nothing, and must not be taken for the lead.
    other = {**cluster.addresses, "ps": [ps[0], "127.0.0.1:1"]}
    config = {"cluster": other, "task": {"type": "worker", "index": 0}}
    stranger = cluster.start("worker", tf_config=config)
    failed("ConfigError: worker:0 has another list of ps than the lead", stranger)
    opened.touch()
    finished(*roles.values())


def test_a_worker_with_other_variables_is_refused(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    opened = tmp_path / "gate"
    cluster = make_cluster(
        ps=2, arguments=["--max_steps", 60, "--hold", f"10:{opened}", "--linger_secs", 1]
    )
    roles = cluster.start_all(but=["worker:0"])
    roles["chief:0"].saw("HOLDING")
    stranger = cluster.start("worker", "--model", "other")
    failed("ConfigError: worker:0 builds other variables than the chief", stranger)
    assert "could not be told" not in stranger.output
    opened.touch()
    finished(*roles.values())


@pytest.mark.parametrize("absent", ["ps:1", pytest.param("chief:0", marks=pytest.mark.chaos)])
def test_a_role_that_never_starts_is_named(make_cluster: MakeCluster, absent: str) -> None:
    cluster = make_cluster(
        ps=2,
        evaluator=True,
        arguments=["--max_steps", 60, "--start_timeout_secs", 2, "--linger_secs", 1],
    )
    roles = cluster.start_all(but=[absent])
    name = absent.removesuffix(":0")
    failed(f"psys: FAILED reason={name} did not start within 2 s", *roles.values())


@pytest.mark.chaos
def test_a_worker_with_finite_input_that_never_starts_is_named(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(
        ps=1,
        arguments=["--batches", 10, "--start_timeout_secs", 2, "--linger_secs", 1],
    )
    roles = cluster.start_all(but=["worker:0"])
    reason = "worker:0 did not start within 2 s; its input was not trained on"
    failed(f"psys: FAILED reason={reason}", *roles.values())


@pytest.mark.chaos
def test_an_evaluator_that_never_starts_fails_the_job_with_the_checkpoint_named(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(
        ps=1,
        evaluator=True,
        arguments=["--max_steps", 30, "--start_timeout_secs", 2, "--linger_secs", 1],
    )
    roles = cluster.start_all(but=["evaluator:0"])
    failed("final checkpoint is saved .*model-0000000030-.* absent for 2 s", *roles.values())


def test_a_program_that_calls_exit_in_the_middle_fails_the_job(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(PROGRAM.parent)!r})\n"
        "import program_of_tests as program\n"
        "program.counting_model = lambda features, labels, mode, params: sys.exit('no licence')\n"
        "program.main()\n"
    )
    (tmp_path / "program_of_tests.py").write_text(PROGRAM.read_text())
    cluster = make_cluster(ps=1, arguments=["--max_steps", 100_000])
    ps, chief = cluster.start("ps"), cluster.start("chief")
    worker = cluster.start("worker", program=program)
    failed("reason=worker:0: the program ended itself with 'no licence'", ps, chief)
    failed("no licence", worker)
