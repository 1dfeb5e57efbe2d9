"""Consistency with real processes: sync bit for bit, and trainers that are slow or killed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster import PATIENCE_SECS, Cluster, Role, finished, gate

from psys.checkpoint import CheckpointReader, open_checkpoint
from psys.errors import ShardUnavailable
from psys.rpc.remote_cluster import fetch_status

MakeCluster = Callable[..., Cluster]

PROGRAM = Path(__file__).parent / "averaging.py"


def start(cluster: Cluster, *tasks: str, arguments: tuple[object, ...] = ()) -> dict[str, Role]:
    return {task: cluster.start(task, *arguments, program=PROGRAM) for task in tasks}


def await_joined(cluster: Cluster, *tasks: str) -> None:
    """Wait until the lead knows that these take part: its first update then waits for them."""
    until = time.monotonic() + PATIENCE_SECS
    while time.monotonic() < until:
        try:
            status = fetch_status(cluster.address("ps"))
        except ShardUnavailable:
            continue
        if {one["task"] for one in status["tasks"] if one["standing"] == "live"} >= set(tasks):
            return
        time.sleep(0.05)
    pytest.fail(f"{tasks} did not join")


def state(reader: CheckpointReader) -> dict[str, bytes]:
    """Return every bit of the values and the slots of the optimizer."""
    found = {name: reader.read(name).tobytes() for name in reader.variables}
    for name in reader.variables:
        for slot in ("m", "v"):
            found[f"{name}/{slot}"] = reader.read_slot(name, slot).tobytes()
    return found


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(("--consistency", "sync"), id="strategy"),
        pytest.param(("--wrap", 3), id="SyncReplicasOptimizer", marks=pytest.mark.chaos),
    ],
)
def test_sync_equals_one_process_that_averages_bit_for_bit(
    make_cluster: MakeCluster, tmp_path: Path, how: tuple[object, ...]
) -> None:
    cluster = make_cluster(ps=2, workers=2, arguments=["--max_steps", 20])
    roles = start(cluster, "ps:0", "ps:1", "worker:0", "worker:1", arguments=how)
    await_joined(cluster, "worker:0", "worker:1")
    roles |= start(cluster, "chief", arguments=how)
    alone = cluster.start(
        "chief", "--alone", 3, model_dir=tmp_path / "alone", tf_config="{}", program=PROGRAM
    )
    finished(*roles.values(), alone)
    trained, expected = open_checkpoint(cluster.model_dir), open_checkpoint(tmp_path / "alone")
    assert trained.global_step == expected.global_step == 20
    assert state(trained) == state(expected)
    for role in (roles["chief"], roles["worker:0"], roles["worker:1"]):
        assert role.steps == list(range(1, 21)), role.output


def test_in_sync_a_worker_killed_in_the_middle_does_not_stop_the_others(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    opened = gate(tmp_path, "never")
    cluster = make_cluster(
        ps=2, workers=2, arguments=["--max_steps", 40, "--consistency", "sync", "--replicas", 3]
    )
    roles = start(cluster, "ps:0", "ps:1", "worker:0")
    lost = cluster.start("worker:1", "--hold", f"12:{opened}", program=PROGRAM)
    await_joined(cluster, "worker:0", "worker:1")
    roles |= start(cluster, "chief")
    # A batch is read one ahead: the others have sent their part of the next step, and wait.
    lost.saw("HOLDING batch 12$")
    roles["chief"].saw_step(11)
    assert max(roles["chief"].steps) == 11
    lost.kill()
    finished(*roles.values())
    assert open_checkpoint(cluster.model_dir).global_step == 40
    assert roles["chief"].steps == list(range(1, 41))


def test_a_backup_workers_late_gradient_is_dropped_and_the_end_is_exact(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    opened = gate(tmp_path, "slow")
    cluster = make_cluster(
        ps=2, workers=2, arguments=["--max_steps", 30, "--consistency", "sync", "--replicas", 2]
    )
    roles = start(cluster, "ps:0", "ps:1", "worker:0")
    slow = cluster.start("worker:1", "--hold", f"5:{opened}", program=PROGRAM)
    await_joined(cluster, "worker:0", "worker:1")
    roles |= start(cluster, "chief")
    slow.saw("HOLDING batch 5$")
    roles["chief"].saw_step(20)
    opened.touch()
    finished(*roles.values(), slow)
    assert open_checkpoint(cluster.model_dir).global_step == 30
    slow.saw("^DROPPED ")
    assert "steps came too late for their update" in slow.output


def test_bounded_waits_for_the_slowest_as_long_as_it_lives(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    # The chief stops short until the worker has joined it, however late that is.
    joined, never = gate(tmp_path, "joined"), gate(tmp_path, "never")
    cluster = make_cluster(
        ps=2, arguments=["--max_steps", 60, "--consistency", "bounded", "--staleness", 3]
    )
    roles = start(cluster, "ps:0", "ps:1")
    lost = cluster.start("worker:0", "--hold", f"8:{never}", program=PROGRAM)
    roles |= start(cluster, "chief", arguments=("--hold", f"2:{joined}"))
    lost.saw("Waiting for chief, whose step is behind")
    joined.touch()
    roles["chief"].saw("Waiting for worker:0, whose step is behind")
    # The worker's clock started at two or less, and it has eight batches; three more are allowed.
    assert len(roles["chief"].steps) <= 2 + 8 + 3
    lost.kill()
    finished(*roles.values())
    assert open_checkpoint(cluster.model_dir).global_step == 60


def test_a_worker_with_another_strategy_is_refused(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(ps=1, arguments=["--max_steps", 5])
    roles = start(cluster, "ps", "chief", arguments=("--consistency", "sync"))
    worker = cluster.start("worker", program=PROGRAM)
    assert worker.wait() != 0
    assert 'worker:0 trains with consistency="async", the chief with' in worker.last_line
    for role in roles.values():
        role.wait()
