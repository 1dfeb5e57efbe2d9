"""What psys refuses is one line in each process: no traceback, exit code 1, nothing hung."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from cluster import PROGRAM, Cluster, Role

MakeCluster = Callable[..., Cluster]

CENSUS = Path(__file__).parents[2] / "examples" / "census.py"
ORDINARY = re.compile(r"\d\d:\d\d:\d\d (?!psys: )|(PID|STEP|HOLDING|DONE)\b")
"""A log line with its time, or what the program itself prints."""

REFUSED = {
    "unknown feature": (
        ["--model", "canned", "--fail", "features"],
        r"ModelError: Feature 'x' is not in the features dictionary \(has: y\); .*",
    ),
    "label out of range": (
        ["--model", "canned", "--fail", "labels"],
        r"ModelError: Labels must be <= 3 - 1, given 3\..*",
    ),
    "NaN loss": (
        ["--fail", "nan_loss"],
        r"NanLossDuringTrainingError: NaN loss during training: .*",
    ),
    "unwritable model_dir": (
        ["--model_dir", __file__ + "/model"],
        rf"ConfigError: model_dir {re.escape(__file__)}/model cannot be written to: .*",
    ),
}
each_refused = pytest.mark.parametrize(("arguments", "reason"), REFUSED.values(), ids=REFUSED)

BAD_TF_CONFIGS = {
    "no JSON": ("{chief", r"TF_CONFIG must be a JSON object, got '\{chief' .*"),
    "no object": ("[]", r"TF_CONFIG must be a JSON object such as .*"),
    "misspelt task type": (
        '{"cluster": {"chef": ["h:1"]}, "task": {"type": "chief", "index": 0}}',
        r"TF_CONFIG cluster: unknown task type 'chef' \(did you mean 'chief'\?\).*",
    ),
    "no port": (
        '{"cluster": {"chief": ["h"]}, "task": {"type": "chief", "index": 0}}',
        r"TF_CONFIG cluster\.chief\[0\]: expected \"host:port\" .*",
    ),
    "index out of range": (
        '{"cluster": {"chief": ["h:1"]}, "task": {"type": "chief", "index": 1}}',
        r"1 is not a valid task_id for task_type chief in TF_CONFIG: .*",
    ),
    "no task": ('{"cluster": {"chief": ["h:1"]}}', r'If "cluster" is set in TF_CONFIG, task .*'),
}


def complaint(role: Role) -> str:
    """Wait for the role's failure and return the one line in which it tells it."""
    assert role.wait() == 1, role.output
    assert "Traceback" not in role.output
    told = [line for line in role.lines if not ORDINARY.match(line)]
    assert len(told) == 1, role.output
    assert told[0] == role.lines[-1]
    return re.sub(r"^\d\d:\d\d:\d\d ", "", told[0])


@each_refused
def test_on_one_machine(make_cluster: MakeCluster, arguments: Sequence[str], reason: str) -> None:
    role = make_cluster(arguments=["--max_steps", 100]).start("t", *arguments, tf_config="{}")
    assert re.fullmatch(f"psys: {reason}", complaint(role))


@each_refused
def test_in_a_cluster(make_cluster: MakeCluster, arguments: Sequence[str], reason: str) -> None:
    cluster = make_cluster(ps=1, evaluator=True, arguments=["--max_steps", 100_000])
    roles = cluster.start_all(*arguments)
    told = {name: complaint(role) for name, role in roles.items()}
    for line in told.values():
        assert re.fullmatch(rf"psys: (FAILED reason=[a-z:0-9]+: )?{reason}", line), told
    assert not [role for role in roles.values() if "could not be written" in role.output]
    if "--model_dir" not in arguments:
        assert cluster.verdict["verdict"] == "FAILED"
        assert re.search(reason, cluster.verdict["reason"])


def test_with_psys_run(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "psys", "run", "--evaluator", "--log-dir", tmp_path / "logs"]
    program = [PROGRAM, "--model_dir", tmp_path / "model", "--fail", "nan_loss"]
    done = subprocess.run([*command, *program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert "Loss for final step" not in done.stdout
    reason = r"psys: FAILED reason=(chief|worker:0): NanLossDuringTrainingError: NaN loss .*"
    assert re.fullmatch(reason, done.stdout.splitlines()[-1])


@pytest.mark.parametrize(("text", "reason"), BAD_TF_CONFIGS.values(), ids=BAD_TF_CONFIGS)
def test_a_bad_tf_config(make_cluster: MakeCluster, text: str, reason: str) -> None:
    role = make_cluster(arguments=["--max_steps", 100]).start("chief", tf_config=text)
    assert re.fullmatch(
        rf"psys: Config(Type)?Error: {reason} \(program\.py, line \d+\)", complaint(role)
    )


def test_a_missing_data_file(tmp_path: Path) -> None:
    missing = tmp_path / "adult.data"
    command = [CENSUS, "--train", missing, "--test", missing, "--model_dir", tmp_path / "model"]
    alone = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=60)
    assert alone.returncode == 1
    assert alone.stderr == f"census.py: there is no data file {missing}\n"

    launch = [sys.executable, "-m", "psys", "run", "--log-dir", tmp_path / "logs"]
    done = subprocess.run([*launch, *command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    *roles, verdict = done.stdout.splitlines()
    assert sorted(roles) == [
        f"[{role}] census.py: there is no data file {missing}"
        for role in ("chief", "ps 0", "worker 0")
    ]
    assert re.fullmatch(
        rf"psys: FAILED reason=.* exited with 1: census\.py: there is no data file {missing}",
        verdict,
    )


@pytest.mark.parametrize("index", [0, 1])
def test_a_port_in_use(make_cluster: MakeCluster, index: int) -> None:
    cluster = make_cluster(
        ps=2, evaluator=True, arguments=["--max_steps", 100, "--start_timeout_secs", 3]
    )
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        cluster.addresses["ps"][index] = address
        roles = cluster.start_all()
        own = complaint(roles.pop(f"ps:{index}"))
        others = {complaint(role) for role in roles.values()}
    if index:
        assert address in cluster.verdict["reason"]
    assert re.match(f"psys: ConfigError: Cannot listen on {address}", own)
    for line in others:
        # Where the lead itself cannot listen, nobody can be told why.
        assert address in line if index else re.match("psys: ClusterError: .* for 3 s", line)


def test_an_error_of_the_program_keeps_its_traceback(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(ps=0, workers=0, arguments=["--max_steps", 100])
    chief = cluster.start("chief", "--fail", "hook")
    assert chief.wait() == 1
    assert "Traceback" in chief.output
    assert 'raise RuntimeError("the hook is broken")' in chief.output


def test_the_traceback_can_be_asked_for(make_cluster: MakeCluster) -> None:
    config = json.dumps({"cluster": {"chef": ["h:1"]}})
    role = make_cluster(arguments=["--max_steps", 100]).start(
        "chief", tf_config=config, environment={"PSYS_TRACEBACK": "1"}
    )
    assert role.wait() == 1
    assert "Traceback" in role.output
    assert role.last_line.startswith("psys.errors.ConfigError: TF_CONFIG cluster: unknown task")
