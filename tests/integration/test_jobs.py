"""Whole jobs that nothing happens to: every shape of cluster, every order of starting."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster import Cluster, check_model, finished, gate, manifests, visits

from psys.checkpoint import open_checkpoint

MakeCluster = Callable[..., Cluster]


def test_a_whole_cluster_reaches_max_steps_exactly_and_every_role_exits_0(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(ps=2, workers=1, evaluator=True, arguments=["--max_steps", 120])
    roles = cluster.start_all()
    finished(*roles.values())
    check_model(cluster.model_dir, 120)
    steps = roles["chief:0"].steps + roles["worker:0"].steps
    assert len(steps) == 120
    assert max(steps) == 120

    verdict = cluster.verdict
    assert verdict["verdict"] == "FINISHED"
    assert verdict["global_step"] == 120
    assert verdict["evaluated"] is True
    assert verdict["checkpoint"] == open_checkpoint(cluster.model_dir).path
    assert open_checkpoint(cluster.model_dir).manifest.evaluator_expected

    last = cluster.results[-1]
    assert last["global_step"] == 120
    assert last["checkpoint"] == verdict["checkpoint"]
    assert {"loss", "weight"} <= last["metrics"].keys()
    assert last["wall_secs"] >= 0
    evaluated = [line["checkpoint"] for line in cluster.results]
    assert len(evaluated) == len(set(evaluated))

    exported = Path(verdict["export"])
    assert exported.parent == cluster.model_dir / "export" / "final"
    assert (exported / "export.json").exists()
    assert list(cluster.model_dir.glob("events.out.tfevents.*"))
    assert list((cluster.model_dir / "eval").glob("events.out.tfevents.*"))


def test_a_job_goes_on_from_its_checkpoint_with_another_number_of_ps(
    make_cluster: MakeCluster,
) -> None:
    for ps, max_steps in ((2, 40), (3, 70), (1, 90)):
        cluster = make_cluster(ps=ps, workers=0, arguments=["--max_steps", max_steps])
        finished(*cluster.start_all().values())
        check_model(cluster.model_dir, max_steps)
        assert len(manifests(cluster.model_dir)[-1]["shards"]) == ps
    alone = make_cluster(ps=0, workers=0, arguments=["--max_steps", 110])
    finished(alone.start("local", tf_config="{}"))
    check_model(alone.model_dir, 110)


def test_a_job_restarted_at_its_max_steps_has_nothing_to_do(make_cluster: MakeCluster) -> None:
    evaluations = []
    for _ in range(2):
        cluster = make_cluster(evaluator=True, arguments=["--max_steps", 30])
        roles = cluster.start_all()
        finished(*roles.values())
        check_model(cluster.model_dir, 30)
        assert cluster.verdict["verdict"] == "FINISHED"
        assert cluster.verdict["global_step"] == 30
        evaluations.append([line["checkpoint"] for line in cluster.results])
    assert roles["chief:0"].steps == roles["worker:0"].steps == []
    for trainer in ("chief:0", "worker:0"):
        roles[trainer].saw("Nothing to train: global step 30 has reached max_steps 30 already")
    assert evaluations[0][-1] == evaluations[1][-1] == cluster.verdict["checkpoint"]
    assert len(set(evaluations[1])) == len(evaluations[1])
    assert len(list(cluster.model_dir.glob("verdict.json*"))) == 2


def test_a_worker_that_comes_after_the_end_says_that_there_was_nothing_to_train(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    first = make_cluster(ps=1, arguments=["--max_steps", 30])
    finished(*first.start_all().values())
    again = make_cluster(ps=1, arguments=["--max_steps", 30])
    opened = gate(tmp_path, "worker")
    roles = again.start_all("--hold_model", opened, but=["chief:0"])
    roles["worker:0"].saw("HOLDING model")
    chief = again.start("chief")
    roles["ps:0"].saw("The job FINISHED at step 30")
    opened.touch()
    finished(chief, *roles.values())
    roles["worker:0"].saw("Nothing to train: global step 30 has reached max_steps 30 already")


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("evaluator", [False, True])
def test_without_ps_the_chief_hosts_the_model(
    make_cluster: MakeCluster, workers: int, evaluator: bool
) -> None:
    cluster = make_cluster(
        ps=0, workers=workers, evaluator=evaluator, arguments=["--max_steps", 60]
    )
    finished(*cluster.start_all().values())
    check_model(cluster.model_dir, 60)
    assert cluster.verdict["evaluated"] is evaluator


@pytest.mark.parametrize("ps", [0, 1])
def test_a_master_is_a_chief_that_evaluates(make_cluster: MakeCluster, ps: int) -> None:
    cluster = make_cluster(ps=ps, chief="master", arguments=["--max_steps", 60])
    finished(*cluster.start_all().values())
    check_model(cluster.model_dir, 60)
    assert cluster.verdict["evaluated"] is True
    assert cluster.results[-1]["global_step"] == 60
    assert Path(cluster.verdict["export"]).is_dir()


def test_an_evaluator_that_is_not_listed_is_waited_for_if_the_program_expects_one(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    cluster = make_cluster(arguments=["--max_steps", 60, "--expect_evaluator"])
    roles = cluster.start_all()
    roles["chief:0"].saw("Saved checkpoint for step 60")
    evaluator = cluster.start("evaluator")
    finished(*roles.values(), evaluator)
    assert cluster.verdict["evaluated"] is True
    assert cluster.results[-1]["global_step"] == 60


def test_an_evaluator_that_is_not_listed_is_waited_for_once_it_has_joined(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    opened = gate(tmp_path, "eval")
    trainers = gate(tmp_path, "train")
    cluster = make_cluster(arguments=["--max_steps", 60])
    evaluator = cluster.start("evaluator", "--hold_eval", opened)
    roles = cluster.start_all("--hold", f"10:{trainers}")
    evaluator.saw("HOLDING evaluation")
    trainers.touch()
    roles["chief:0"].saw("Saved checkpoint for step 60")
    opened.touch()
    finished(*roles.values(), evaluator)
    assert cluster.verdict["evaluated"] is True
    assert cluster.results[-1]["global_step"] == 60


def test_an_evaluator_says_what_a_checkpoint_waits_for_but_not_the_last(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    opened = gate(tmp_path, "train")
    cluster = make_cluster(ps=1, arguments=["--max_steps", 60])
    evaluator = cluster.start("evaluator", "--start_delay_secs", 7200)
    roles = cluster.start_all("--hold", f"30:{opened}")
    evaluator.saw(
        r"Step \d+, or a newer one, is evaluated in (1:59:\d\d|2:00:00) \(start_delay_secs"
    )
    opened.touch()
    finished(*roles.values(), evaluator)
    assert [line["global_step"] for line in cluster.results] == [60]
    assert len([line for line in evaluator.lines if "or a newer one" in line]) == 1


def test_without_an_evaluator_the_job_ends_at_once_and_says_so(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(ps=1, arguments=["--max_steps", 30])
    roles = cluster.start_all()
    finished(*roles.values())
    assert cluster.verdict["evaluated"] is False
    roles["chief:0"].saw("Evaluated: none expected")


def test_indices_may_be_strings_and_the_cluster_sparse(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(ps=1, arguments=["--max_steps", 30])
    roles = []
    for task in cluster.tasks:
        kind, _, index = task.partition(":")
        listed = {k: {str(i): one for i, one in enumerate(v)} for k, v in cluster.addresses.items()}
        config = {"cluster": listed, "task": {"type": kind, "index": index}}
        roles.append(cluster.start(task, tf_config=json.dumps(config)))
    finished(*roles)
    check_model(cluster.model_dir, 30)


ORDERS = {
    "worker first": ["worker:0", "chief:0", "evaluator:0", "ps:1", "ps:0"],
    "evaluator first": ["evaluator:0", "ps:1", "ps:0", "worker:0", "chief:0"],
    "chief first, ps last": ["chief:0", "worker:0", "evaluator:0", "ps:0", "ps:1"],
}


@pytest.mark.parametrize(
    "order",
    [
        ORDERS["chief first, ps last"],
        *(
            pytest.param(ORDERS[name], marks=pytest.mark.chaos)
            for name in ("worker first", "evaluator first")
        ),
    ],
)
def test_roles_may_start_in_any_order(make_cluster: MakeCluster, order: list[str]) -> None:
    cluster = make_cluster(evaluator=True, arguments=["--max_steps", 60])
    roles = []
    for task in order:
        role = cluster.start(task)
        role.saw("PID")
        roles.append(role)
    finished(*roles)
    check_model(cluster.model_dir, 60)
    assert cluster.results[-1]["global_step"] == 60


def test_a_worker_may_come_late(make_cluster: MakeCluster, tmp_path: Path) -> None:
    opened = gate(tmp_path, "chief")
    cluster = make_cluster(ps=2, workers=1, arguments=["--max_steps", 90])
    roles = cluster.start_all("--hold", f"40:{opened}", but=["worker:0"])
    roles["chief:0"].saw("HOLDING batch 40")
    worker = cluster.start("worker", "--hold", f"30:{gate(tmp_path, 'never')}")
    worker.saw("HOLDING batch 30")
    opened.touch()
    roles["chief:0"].saw_step(80)
    gate(tmp_path, "never").touch()
    finished(*roles.values(), worker)
    check_model(cluster.model_dir, 90)
    assert worker.steps[0] > 30
    assert len(worker.steps) + len(roles["chief:0"].steps) == 90


def test_finite_input_is_trained_on_exactly_once(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(
        ps=2, workers=1, evaluator=True, arguments=["--max_steps", 0, "--batches", 30]
    )
    roles = cluster.start_all()
    finished(*roles.values())
    check_model(cluster.model_dir, 60)
    counts = visits(cluster.model_dir)
    assert (counts[:240] == 1).all()
    assert (counts[240:] == 0).all()
    assert len(roles["chief:0"].steps) == len(roles["worker:0"].steps) == 30


def test_finite_input_of_a_worker_that_comes_late_is_waited_for(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    cluster = make_cluster(ps=1, workers=1, arguments=["--max_steps", 0, "--batches", 20])
    roles = cluster.start_all(but=["worker:0"])
    roles["chief:0"].saw("Loss for final step")
    worker = cluster.start("worker")
    finished(*roles.values(), worker)
    check_model(cluster.model_dir, 40)
    assert (visits(cluster.model_dir)[:160] == 1).all()


def test_a_hook_of_the_chief_may_end_the_job(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(ps=1, workers=1, arguments=["--max_steps", 100_000])
    ps, worker = cluster.start("ps"), cluster.start("worker")
    chief = cluster.start("chief", "--fail", "stop")
    finished(ps, worker, chief)
    step = len(chief.steps) + len(worker.steps)
    check_model(cluster.model_dir, step)
    assert cluster.verdict["global_step"] == step
