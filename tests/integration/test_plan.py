"""The plan with real processes: said once, shown by the lead whoever restarts, and agreed on."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from cluster import (
    PATIENCE_SECS,
    PROGRAM,
    TABLE,
    TWINS,
    WIDTH,
    Cluster,
    Role,
    check_model,
    finished,
    gate,
)

from psys.environment import child_environment
from psys.errors import ShardUnavailable
from psys.rpc.remote_cluster import fetch_status

MakeCluster = Callable[..., Cluster]

TABLES = (TWINS[0], TABLE, TWINS[1])
"""In the order of model_fn, and of names."""
ROW_BYTES = {"frozen": 4 * 96, "steps_applied": 8, "weights": 4 * 3}
ROW_BYTES |= dict.fromkeys(TABLES, 4 * WIDTH)
ROWS = {"frozen": 64, "steps_applied": 1, "weights": 8, **dict.fromkeys(TABLES, 512)}


def psys(*arguments: str) -> str:
    """Return what a command of psys prints."""
    command = [sys.executable, "-m", "psys", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


def await_live(cluster: Cluster, before: str = "", holder: str = "ps") -> Mapping[str, Any]:
    """Return the status as soon as a model is live that is not the generation ``before``."""
    until = time.monotonic() + PATIENCE_SECS
    while time.monotonic() < until:
        try:
            status = fetch_status(cluster.address(holder))
        except ShardUnavailable:
            continue
        if status["generation"] not in ("", before):
            return status
        time.sleep(0.05)
    pytest.fail("no model came to be live")


def holders_of(plan: list[dict[str, Any]]) -> dict[str, list[int]]:
    """Return the shards of each variable, checked to hold every row of it once."""
    held: dict[str, list[int]] = {}
    at: dict[str, int] = {}
    for one in plan:
        name = one["variable"]
        assert one["start"] == at.get(name, 0)
        assert one["bytes"] == (one["stop"] - one["start"]) * ROW_BYTES[name]
        at[name] = one["stop"]
        held.setdefault(name, []).append(one["shard"])
    assert at == ROWS
    return held


def said_once(chief: Role) -> None:
    assert chief.output.count("The plan:") == 1, chief.output


@pytest.mark.parametrize("lost", ["ps:0", pytest.param("ps:1", marks=pytest.mark.chaos), "chief:0"])
def test_the_plan_is_said_once_and_shown_by_the_lead_whoever_restarts(
    make_cluster: MakeCluster, tmp_path: Path, lost: str
) -> None:
    opened = gate(tmp_path, "open")
    cluster = make_cluster(ps=2, workers=0, arguments=["--max_steps", 30, "--hold", f"10:{opened}"])
    roles = cluster.start_all()
    roles["chief:0"].holds(10)
    shown = json.loads(psys("status", "--json", cluster.address("ps")))
    assert shown["holders"] == ["ps:0", "ps:1"]
    held = holders_of(shown["plan"])
    # Each has a table of the stack, and a part of another.
    assert [held[name] for name in TABLES] == [[1], [0], [0, 1]]
    table = psys("status", cluster.address("ps"))
    logged = roles["chief:0"].output
    for name, shards in held.items():
        rows = ", ".join(rf"\d+-\d+ on ps:{shard}" for shard in shards)
        line = rf"{re.escape(name)} +{ROWS[name] * ROW_BYTES[name]:,} +{rows}"
        assert re.search(rf"^{line}$", table, re.MULTILINE)
        assert re.search(rf"^[\d:]+   {line}$", logged, re.MULTILINE)
    assert re.search(r"^ps:1 +\d +[\d,]+ +\d+ %$", table, re.MULTILINE)

    roles[lost].kill()
    roles[lost] = cluster.start(lost)
    if lost == "chief:0":
        roles[lost].saw("Taking over the live model")
        roles[lost].holds(10)
        assert await_live(cluster)["generation"] == shown["generation"]
    else:
        roles["chief:0"].saw("Restored ")
    again = await_live(cluster, "" if lost == "chief:0" else shown["generation"])
    assert again["plan"] == shown["plan"]
    opened.touch()
    finished(*roles.values())
    said_once(roles["chief:0"])
    check_model(cluster.model_dir, 30)


def test_a_chief_without_ps_shows_its_own_shard(make_cluster: MakeCluster, tmp_path: Path) -> None:
    opened = gate(tmp_path, "open")
    cluster = make_cluster(ps=0, workers=1, arguments=["--max_steps", 30])
    roles = cluster.start_all("--hold", f"5:{opened}")
    roles["chief:0"].saw("HOLDING batch 5")
    status = await_live(cluster, holder="chief")
    assert status["holders"] == ["chief"]
    assert holders_of(status["plan"]) == {name: [0] for name in ROWS}
    opened.touch()
    finished(*roles.values())
    said_once(roles["chief:0"])
    roles["chief:0"].saw(r"^[\d:]+   weights +96 +0-8 on chief$")


def test_training_on_one_machine_says_the_plan_once(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    cluster = make_cluster(ps=0, workers=0)
    alone = cluster.start("chief", "--max_steps", 30, tf_config="{}")
    finished(alone)
    said_once(alone)
    alone.saw(r"^[\d:]+   weights +96 +0-8 on this process$")


def test_psys_run_shows_the_plan_in_the_chiefs_lines(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "psys", "run", "--ps", "2", "--workers", "1", str(PROGRAM)]
    options = ["--model_dir", str(tmp_path / "model"), "--max_steps", "30"]
    done = subprocess.run(
        [*command, *options],
        env=child_environment({}),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECS,
    )
    assert done.returncode == 0, done.stdout
    plans = [line for line in done.stdout.splitlines() if "The plan:" in line]
    assert len(plans) == 1
    assert plans[0].startswith("[chief] ")
    rows = r"0-\d+ on ps:0, \d+-512 on ps:1"
    assert re.search(rf"^\[chief\] [\d:]+   {TWINS[1]} +4,096 +{rows}$", done.stdout, re.MULTILINE)
    assert re.search(r"^\[chief\] [\d:]+   ps:1 +\d +[\d,]+ +\d+ %$", done.stdout, re.MULTILINE)


# ---------------------------------------------------------------- partitioner and placement


def test_a_chosen_plan_is_trained_and_restored_under_another(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    opened = gate(tmp_path, "open")
    chosen = ["--parts", 2, "--placement", "round_robin", "--hold", f"5:{opened}"]
    cluster = make_cluster(ps=3, workers=1, arguments=["--max_steps", 30, *chosen])
    roles = cluster.start_all()
    roles["chief:0"].saw("HOLDING batch 5")
    # In the order of model_fn: weights, the tables, and the counter, which cannot be cut.
    assert holders_of(await_live(cluster)["plan"]) == {
        "weights": [0, 1],
        **dict(zip(TABLES, ([2, 0], [1, 2], [0, 1]), strict=True)),
        "frozen": [2, 0],
        "steps_applied": [1],
    }
    opened.touch()
    finished(*roles.values())
    check_model(cluster.model_dir, 30)

    cluster = make_cluster(ps=2, workers=1, arguments=["--max_steps", 60, "--placement", "greedy"])
    finished(*cluster.start_all().values())
    check_model(cluster.model_dir, 60)


def test_a_worker_with_another_plan_is_refused_in_one_sentence(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    opened = gate(tmp_path, "open")
    # The lead stays for a listed worker that has not heard the verdict: not for long, here.
    cluster = make_cluster(ps=2, workers=1, arguments=["--max_steps", 40, "--linger_secs", 1])
    roles = cluster.start_all("--hold", f"5:{opened}", but=["worker:0"])
    roles["chief:0"].holds(5)
    other = cluster.start("worker", "--placement", "round_robin")
    assert other.wait() == 1
    assert re.search(
        "worker:0 looks for variables on other ps than the chief puts them on: give every task "
        "the same ParameterServerStrategy",
        other.last_line,
    ), other.output
    assert other.steps == []
    opened.touch()
    finished(*roles.values())
    check_model(cluster.model_dir, 40)


def test_a_chief_restarted_with_another_plan_restores_the_model_under_it(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    opened = gate(tmp_path, "open")
    cluster = make_cluster(ps=2, workers=0, arguments=["--max_steps", 40, "--save_steps", 5])
    roles = cluster.start_all("--hold", f"12:{opened}")
    roles["chief:0"].holds(12)
    roles["chief:0"].saw("Saved checkpoint for step", 3)
    before = await_live(cluster)
    roles["chief:0"].kill()
    roles["chief:0"] = cluster.start("chief", "--placement", "round_robin", "--hold", f"3:{opened}")
    roles["chief:0"].saw("Restored ")
    after = await_live(cluster, before["generation"])
    # In turns, as model_fn asks for them.
    expected = {"weights": [0], "frozen": [0], "steps_applied": [1]}
    expected |= dict(zip(TABLES, ([1], [0], [1]), strict=True))
    assert holders_of(after["plan"]) == expected
    opened.touch()
    finished(*roles.values())
    check_model(cluster.model_dir, 40)
