"""`psys ps`: a ps that runs no program, with real processes."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster import Cluster, check_model, failed, finished, gate

from psys.checkpoint import open_checkpoint
from psys.environment import child_environment

MakeCluster = Callable[..., Cluster]


def test_a_canned_model_is_trained_on_a_ps_without_a_script(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(ps=1, workers=0, arguments=["--max_steps", 20, "--model", "canned"])
    bare, chief = cluster.start_bare("ps:0"), cluster.start("chief")
    finished(bare, chief)
    assert cluster.verdict["verdict"] == "FINISHED"
    assert open_checkpoint(cluster.model_dir).global_step == 20
    bare.saw("The job FINISHED at step 20")


def test_with_directories_of_their_own_and_one_of_them_lost(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    opened = gate(tmp_path, "open")
    cluster = make_cluster(ps=2, workers=0, arguments=["--max_steps", 30, "--save_steps", 5])
    own = [tmp_path / "first", tmp_path / "second"]
    roles = [cluster.start_bare(f"ps:{index}", model_dir=own[index]) for index in range(2)]
    chief = cluster.start("chief", "--hold", f"12:{opened}")
    chief.holds(12)
    chief.saw("Saved checkpoint for step", 3)
    roles[1].kill()
    roles[1] = cluster.start_bare("ps:1", model_dir=own[1])
    chief.saw("Restored ")
    opened.touch()
    finished(*roles, chief)
    check_model(cluster.model_dir, 30)


@pytest.mark.parametrize(
    ("optimizer", "bare", "what"),
    [
        ("OwnDescent", ["ps:0"], "optimizer 'OwnDescent'"),
        pytest.param("OwnDescent", ["ps:1"], "optimizer 'OwnDescent'", marks=pytest.mark.chaos),
        ("OwnSchedule", ["ps:1"], "learning rate schedule 'OwnSchedule'"),
    ],
)
def test_what_the_program_defines_is_refused_in_one_message_that_everyone_ends_with(
    make_cluster: MakeCluster, optimizer: str, bare: list[str], what: str
) -> None:
    cluster = make_cluster(ps=2, workers=1, arguments=["--max_steps", 20, "--optimizer", optimizer])
    roles = [cluster.start_bare(task) for task in bare]
    roles += cluster.start_all(but=bare).values()
    failed(
        rf"ModelError: {bare[0]} \([\d.:]+\): The {what} of variable '.*' is not one of psys's "
        "own, and this ps was started by `psys ps`, without the program that defines it. Start "
        "every ps with the program itself, under the same TF_CONFIG, or use one of psys's own.",
        *roles,
    )
    assert {role.name: role.wait() for role in roles} == dict.fromkeys(cluster.tasks, 1)
    assert cluster.verdict["verdict"] == "FAILED"


@pytest.mark.parametrize("optimizer", ["OwnDescent", "OwnSchedule"])
def test_a_ps_that_runs_the_program_knows_what_it_defines(
    make_cluster: MakeCluster, optimizer: str
) -> None:
    cluster = make_cluster(ps=1, workers=0, arguments=["--max_steps", 10, "--optimizer", optimizer])
    finished(*cluster.start_all().values())
    assert open_checkpoint(cluster.model_dir).read("steps_applied") == 10


def test_a_signal_ends_it_as_it_ends_any_ps(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(ps=2, workers=0)
    asked, interrupted = cluster.start_bare("ps:1"), cluster.start_bare("ps:0")
    asked.saw("listens on")
    interrupted.saw("listens on")
    asked.terminate()
    interrupted.process.send_signal(signal.SIGINT)
    assert interrupted.wait() == 130
    assert asked.wait() == 143
    assert "Traceback" not in interrupted.output + asked.output


ADDRESSES = {"chief": ["127.0.0.1:1"], "ps": ["127.0.0.1:2"]}


@pytest.mark.parametrize(
    ("tf_config", "arguments", "message"),
    [
        ("{}", ["--model_dir", "x"], "TF_CONFIG must name the cluster and this process as one"),
        (
            json.dumps({"cluster": ADDRESSES, "task": {"type": "chief", "index": 0}}),
            ["--model_dir", "x"],
            "TF_CONFIG must name this process as a ps, got the task chief: start that with",
        ),
        (
            json.dumps({"cluster": ADDRESSES, "task": {"type": "ps", "index": 0}}),
            [],
            "--model_dir must say where the files of ps:0 go",
        ),
        (
            json.dumps({"cluster": ADDRESSES, "task": {"type": "ps", "index": 0}}),
            ["--model_dir", "x", "--linger-secs", "-1"],
            "linger_secs should be >= 0, got -1.0",
        ),
    ],
)
def test_what_it_is_asked_for_wrongly_is_one_line(
    tmp_path: Path, tf_config: str, arguments: list[str], message: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "psys", "ps", *arguments],
        env=child_environment({}, {"TF_CONFIG": tf_config}),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"psys ps: {message}")
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_an_address_that_is_taken_is_one_line(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(ps=1, workers=0)
    host, _, port = cluster.address("ps").rpartition(":")
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((host, int(port)))
        taken.listen()
        bare = cluster.start_bare("ps:0")
        assert bare.wait() == 2
    assert bare.last_line.startswith(f"psys ps: Cannot listen on {cluster.address('ps')}")
    assert "Traceback" not in bare.output
