"""Checkpoints of a running job: saved whoever trains, tried again when a disk refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster import BATCH, Cluster, check_model, finished, gate, manifests

MakeCluster = Callable[..., Cluster]


def newest_manifest(cluster: Cluster) -> dict[str, object]:
    found: dict[str, object] = manifests(cluster.model_dir)[-1]
    return found


def test_a_save_that_fails_is_tried_again(make_cluster: MakeCluster, tmp_path: Path) -> None:
    opened = gate(tmp_path, "chief")
    cluster = make_cluster(ps=2, workers=0, arguments=["--max_steps", 60, "--save_steps", 25])
    roles = cluster.start_all("--hold", f"30:{opened}")
    chief = roles["chief:0"]
    chief.holds(30)
    chief.saw("Saved checkpoint for step 2[5-9]")
    checkpoints, aside = cluster.model_dir / "checkpoints", cluster.model_dir / "aside"
    checkpoints.rename(aside)
    checkpoints.write_text("no directory: the disk refuses")
    opened.touch()
    chief.saw(r"The checkpoint was not saved: .* Trying again in 1 s \(1 of 6 times\)")
    checkpoints.unlink()
    aside.rename(checkpoints)
    finished(*roles.values())
    check_model(cluster.model_dir, 60)


def test_what_others_train_is_saved_after_the_chiefs_input_ended(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    opened = gate(tmp_path, "worker")
    cluster = make_cluster(ps=2, workers=1, arguments=["--save_steps", 25])
    roles = cluster.start_all(but=["chief:0", "worker:0"])
    chief = cluster.start("chief", "--batches", 5)
    chief.saw("^STEP ", 5)
    worker = cluster.start("worker", "--batches", 100, "--hold", f"80:{opened}")
    worker.holds(80)
    chief.saw("Saved checkpoint for step (3[0-9]|[4-9][0-9])")  # nobody has to end for it
    assert newest_manifest(cluster)["final"] is False
    opened.touch()
    finished(*roles.values(), chief, worker)
    check_model(cluster.model_dir, 105)


def test_a_manifest_says_where_the_inputs_stood(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(ps=2, workers=1, arguments=["--batches", 20])
    roles = cluster.start_all()
    finished(*roles.values())
    manifest = newest_manifest(cluster)
    assert manifest["input_positions"] == {"chief": 20, "worker:0": 20}
    assert manifest["examples"] == 40 * BATCH
    again = make_cluster(ps=1, workers=0, arguments=["--batches", 10])
    again.model_dir = cluster.model_dir
    finished(*again.start_all().values())
    manifest = newest_manifest(again)
    assert (manifest["global_step"], manifest["examples"]) == (50, 50 * BATCH)
    assert manifest["input_positions"] == {"chief": 10}


def test_a_run_has_one_id_from_manifest_to_verdict(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(ps=1, workers=0, arguments=["--max_steps", 5])
    finished(*cluster.start_all().values())
    (run,) = {one["job_id"] for one in manifests(cluster.model_dir)}
    assert run
    assert cluster.verdict["job_id"] == run
    assert json.loads((cluster.model_dir / "run.json").read_text()) == {"job_id": run}


@pytest.mark.chaos
def test_a_save_that_failed_before_a_ps_was_lost_is_asked_for_again(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    opened = gate(tmp_path, "chief")
    cluster = make_cluster(ps=2, workers=0, arguments=["--max_steps", 60, "--save_steps", 25])
    roles = cluster.start_all("--hold", f"55:{opened}")
    chief = roles["chief:0"]
    chief.holds(55)
    chief.saw("Saved checkpoint for step 5[0-9]")
    checkpoints, aside = cluster.model_dir / "checkpoints", cluster.model_dir / "aside"
    checkpoints.rename(aside)
    checkpoints.write_text("no directory: the disk refuses")
    opened.touch()
    chief.saw(r"Trying again in 4 s \(3 of 6 times\)")  # the final checkpoint
    checkpoints.unlink()
    aside.rename(checkpoints)
    roles["ps:1"].kill()
    roles["ps:1"] = cluster.start("ps:1")
    finished(*roles.values())
    check_model(cluster.model_dir, 60)


@pytest.mark.chaos
def test_a_chief_that_takes_over_goes_on_with_the_totals(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    opened = gate(tmp_path, "all")
    cluster = make_cluster(ps=1, workers=1, arguments=["--save_steps", 25])
    finished(*cluster.start_all("--max_steps", 50).values())
    roles = cluster.start_all("--max_steps", 150, "--hold", f"30:{opened}")
    chief = roles.pop("chief:0")
    chief.holds(30)
    roles["worker:0"].holds(30)
    chief.kill()
    back = cluster.start("chief", "--max_steps", 150)
    back.saw("^STEP ", 3)
    opened.touch()
    finished(*roles.values(), back)
    found = manifests(cluster.model_dir)
    assert found[-1]["examples"] == 150 * BATCH
    walls = [one["wall_secs"] for one in found]
    assert walls == sorted(walls)


def test_what_a_master_saves_while_others_train_is_not_the_last(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    opened = gate(tmp_path, "worker")
    cluster = make_cluster(ps=1, workers=1, chief="master", arguments=["--save_steps", 25])
    roles = cluster.start_all(but=["master:0", "worker:0"])
    master = cluster.start("master", "--batches", 5)
    worker = cluster.start("worker", "--batches", 100, "--hold", f"80:{opened}")
    worker.holds(80)
    master.saw("Saved checkpoint for step ([5-9][0-9])")
    opened.touch()
    finished(*roles.values(), master, worker)
    assert len(list((cluster.model_dir / "export" / "final").iterdir())) == 1
    check_model(cluster.model_dir, 105)
