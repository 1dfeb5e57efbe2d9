"""Ctrl-C and SIGTERM on one machine: the step under way is saved, and a later run goes on."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster import PROGRAM, Cluster, Role, check_model, finished, gate, manifests

MakeCluster = Callable[..., Cluster]
# Ctrl-C as a terminal's shell has it, also where these tests themselves run in the background.
WRAPPER = f"""
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, {str(PROGRAM.parent)!r})
import program
program.main()
"""
each_signal = pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143)]
)


def start(cluster: Cluster, *arguments: object) -> Role:
    wrapper = cluster.model_dir.parent / "wrapper.py"
    wrapper.write_text(WRAPPER)
    return cluster.start("local", *arguments, tf_config="{}", program=wrapper)


@each_signal
def test_the_step_under_way_is_saved(make_cluster: MakeCluster, signum: int, code: int) -> None:
    cluster = make_cluster(arguments=["--save_steps", 1_000_000])
    role = start(cluster, "--max_steps", 1_000_000)
    role.saw_step(10)
    role.process.send_signal(signum)
    assert role.wait() == code
    role.saw(f"{signal.Signals(signum).name}: saving after this step; once more ends at once")
    assert "Loss for final step" not in role.output
    last = manifests(cluster.model_dir)[-1]
    assert last["global_step"] == role.steps[-1]
    assert not last["final"]
    check_model(cluster.model_dir, role.steps[-1])
    assert not (cluster.model_dir / "eval").exists()
    assert not (cluster.model_dir / "export").exists()

    more = start(cluster, "--max_steps", role.steps[-1] + 20)
    finished(more)
    assert more.steps[0] == role.steps[-1] + 1
    check_model(cluster.model_dir, role.steps[-1] + 20)
    assert manifests(cluster.model_dir)[-1]["final"]


@each_signal
def test_a_second_signal_ends_it_at_once(
    make_cluster: MakeCluster, tmp_path: Path, signum: int, code: int
) -> None:
    cluster = make_cluster(arguments=["--max_steps", 1_000_000])
    role = start(cluster, "--hold_save", f"25:{gate(tmp_path, 'never')}")
    role.saw("HOLDING save 25")
    role.process.send_signal(signum)
    role.saw("saving after this step")
    role.process.send_signal(signum)
    assert role.wait() == -signum
    assert [one["global_step"] for one in manifests(cluster.model_dir)] == [0]


@each_signal
def test_before_training_has_begun_a_signal_ends_it_at_once(
    make_cluster: MakeCluster, tmp_path: Path, signum: int, code: int
) -> None:
    cluster = make_cluster(arguments=["--max_steps", 1_000_000])
    role = start(cluster, "--hold_model", gate(tmp_path, "never"))
    role.saw("HOLDING model")
    role.process.send_signal(signum)
    assert role.wait() == code
    assert not manifests(cluster.model_dir)


def test_a_handler_of_the_programs_own_stays(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(arguments=["--max_steps", 200])
    wrapper = cluster.model_dir.parent / "own.py"
    wrapper.write_text(
        WRAPPER.replace(
            "program.main()",
            "signal.signal(signal.SIGTERM, lambda *_: program.say('MINE'))\nprogram.main()",
        )
    )
    role = cluster.start("local", tf_config="{}", program=wrapper)
    role.saw_step(5)
    role.process.send_signal(signal.SIGTERM)
    finished(role)
    role.saw("MINE")
    assert role.steps[-1] == 200
