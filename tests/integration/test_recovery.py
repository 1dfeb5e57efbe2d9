"""Roles that are killed, told to leave, or cut off: what is kept, what is lost, how it ends."""

from __future__ import annotations

import itertools
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cluster import PROGRAM, Cluster, Role, check_model, failed, finished, gate, manifests

from psys.checkpoint import open_checkpoint

MakeCluster = Callable[..., Cluster]


def global_steps(*roles: Role) -> list[int]:
    return sorted(itertools.chain.from_iterable(role.steps for role in roles))


def test_a_killed_worker_that_comes_back_joins_again(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    chief_gate, worker_gate = gate(tmp_path, "chief"), gate(tmp_path, "worker")
    cluster = make_cluster(ps=2, evaluator=True, arguments=["--max_steps", 120])
    roles = cluster.start_all(but=["chief:0", "worker:0"])
    chief = cluster.start("chief", "--hold", f"30:{chief_gate}")
    worker = cluster.start("worker", "--hold", f"20:{worker_gate}")
    worker.holds(20)
    chief.holds(30)
    worker.kill()
    back = cluster.start("worker", "--hold", f"20:{worker_gate}")
    back.holds(20)
    chief_gate.touch()
    worker_gate.touch()
    finished(*roles.values(), chief, back)
    check_model(cluster.model_dir, 120)
    assert back.steps


@pytest.mark.chaos
def test_a_killed_worker_that_stays_away_does_not_stop_the_others(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    opened = gate(tmp_path, "chief")
    cluster = make_cluster(ps=2, workers=2, arguments=["--max_steps", 100, "--linger_secs", 1])
    roles = cluster.start_all("--hold", f"20:{opened}")
    lost = roles.pop("worker:1")
    for role in (*roles.values(), lost):
        if not role.name.startswith("ps"):
            role.holds(20)
    lost.kill()
    opened.touch()
    finished(*roles.values())
    check_model(cluster.model_dir, 100)


@pytest.mark.chaos
@pytest.mark.parametrize("run", range(6))
def test_a_worker_killed_in_the_middle_leaves_at_most_one_step_torn_and_it_is_recorded(
    make_cluster: MakeCluster, run: int
) -> None:
    cluster = make_cluster(ps=2, arguments=["--max_steps", 400, "--linger_secs", 1])
    roles = cluster.start_all()
    lost = roles.pop("worker:0")
    lost.saw_step(20 + 7 * run)
    lost.kill()
    finished(*roles.values())
    reader = open_checkpoint(cluster.model_dir)
    assert reader.global_step == 400
    # Half of the weights are on each ps; a step is on one of them only if it was torn.
    counts = np.unique(np.rint(reader.read_slot("weights", "accumulator") - 0.1))
    if reader.manifest.torn:
        assert list(reader.manifest.torn) == ["worker:0"]
        assert set(counts) <= {399, 400, 401}
        assert len(counts) == 2
    else:
        assert list(counts) == [400]


@pytest.mark.chaos
def test_finite_input_of_a_killed_worker_is_not_left_out_in_silence(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    cluster = make_cluster(
        ps=1, arguments=["--batches", 20, "--recover_secs", 2, "--linger_secs", 1]
    )
    roles = cluster.start_all(but=["worker:0"])
    worker = cluster.start("worker", "--hold", f"10:{gate(tmp_path, 'never')}")
    worker.holds(10)
    worker.kill()
    reason = "worker:0 was lost and did not come back within 2 s; its input was not trained on"
    failed(f"FAILED reason={reason}", *roles.values())


def test_a_killed_chief_that_comes_back_takes_over_the_live_model(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    never = gate(tmp_path, "never")
    worker_gates = [gate(tmp_path, f"worker-{i}") for i in range(2)]
    holds = ["--hold", f"20:{worker_gates[0]}", "--hold", f"40:{worker_gates[1]}"]
    cluster = make_cluster(ps=2, evaluator=True, arguments=["--max_steps", 150])
    roles = cluster.start_all(but=["chief:0", "worker:0"])
    worker = cluster.start("worker", *holds)
    chief = cluster.start("chief", "--hold", f"20:{never}")
    chief.holds(20)
    worker.holds(20)
    chief.kill()
    worker_gates[0].touch()  # the others go on without it
    worker.holds(40)
    reached = worker.steps[-1]
    back = cluster.start("chief")
    taken_over = back.saw(r"Taking over the live model at step (\d+)")
    back.saw_step(reached + 5)
    worker_gates[1].touch()
    finished(*roles.values(), worker, back)
    check_model(cluster.model_dir, 150)
    assert back.steps[0] > reached >= int(taken_over[1]) > 0
    assert worker.steps == sorted(worker.steps)
    taken = global_steps(chief, worker, back)
    assert len(taken) == 150
    assert "Restored" not in back.output
    assert "are lost" not in back.output


@pytest.mark.parametrize("index", [1, pytest.param(0, marks=pytest.mark.chaos)])
def test_a_killed_ps_that_comes_back_sends_all_back_to_the_last_checkpoint(
    make_cluster: MakeCluster, tmp_path: Path, index: int
) -> None:
    chief_gate, worker_gate = gate(tmp_path, "chief"), gate(tmp_path, "worker")
    cluster = make_cluster(ps=2, evaluator=True, arguments=["--max_steps", 150])
    roles = cluster.start_all(but=["chief:0", "worker:0"])
    worker = cluster.start("worker", "--hold", f"20:{worker_gate}")
    chief = cluster.start("chief", "--hold", f"30:{chief_gate}")
    chief.holds(30)
    worker.holds(20)
    chief.saw(r"Saved checkpoint for step (?!0:)\d+")
    roles.pop(f"ps:{index}").kill()
    back = cluster.start(f"ps:{index}")
    restored = chief.saw(r"Restored .*model-(\d+)-")
    lost = chief.saw(r"A ps lost its part of the model: (\d+) steps \((\d+) to (\d+)\) are lost")
    saved, (count, first, last) = int(restored[1]), map(int, lost.groups())
    assert first == saved + 1
    assert last - saved == count
    assert saved in [one["global_step"] for one in manifests(cluster.model_dir)]
    chief_gate.touch()
    worker_gate.touch()
    finished(*roles.values(), chief, worker, back)
    check_model(cluster.model_dir, 150)


@pytest.mark.parametrize(
    ("index", "save_steps"), [(1, 1000), pytest.param(0, 7, marks=pytest.mark.chaos)]
)
def test_a_ps_lost_after_the_last_step_does_not_end_the_job_at_an_older_one(
    make_cluster: MakeCluster, tmp_path: Path, index: int, save_steps: int
) -> None:
    save_gate = gate(tmp_path, "save")
    cluster = make_cluster(
        ps=2, evaluator=True, arguments=["--max_steps", 60, "--save_steps", save_steps]
    )
    roles = cluster.start_all("--hold_save", f"60:{save_gate}")
    chief = roles["chief:0"]
    # Every step is taken, and the last checkpoint is of an older one.
    chief.saw("HOLDING save 60")
    roles.pop(f"ps:{index}").kill()
    back = cluster.start(f"ps:{index}")
    chief.saw("Restored ")
    save_gate.touch()
    finished(*roles.values(), back)
    check_model(cluster.model_dir, 60)


def test_steps_of_a_finite_input_that_are_lost_at_the_end_fail_the_job(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    save_gate = gate(tmp_path, "save")
    cluster = make_cluster(ps=2, arguments=["--batches", 20, "--save_steps", 1000])
    roles = cluster.start_all("--hold_save", f"40:{save_gate}")
    chief = roles["chief:0"]
    chief.saw("HOLDING save 40")
    roles.pop("ps:1").kill()
    back = cluster.start("ps:1")
    chief.saw("Restored ")
    save_gate.touch()
    reason = "A ps was lost after the last step, 40: the model went back to step"
    failed(reason, *roles.values(), back)


@pytest.mark.parametrize(
    "task", ["ps:1", *(pytest.param(task, marks=pytest.mark.chaos) for task in ("ps:0", "chief:0"))]
)
def test_a_role_that_does_not_come_back_ends_everyone(
    make_cluster: MakeCluster, tmp_path: Path, task: str
) -> None:
    opened = gate(tmp_path, "never")
    cluster = make_cluster(
        ps=2,
        evaluator=True,
        arguments=["--max_steps", 1000, "--recover_secs", 3, "--linger_secs", 2],
    )
    roles = cluster.start_all("--hold", f"10:{opened}")
    roles["chief:0"].holds(10)
    roles["worker:0"].holds(10)
    roles.pop(task).kill()
    opened.touch()
    reasons = {
        "ps:1": "ps:1 was lost and did not come back within 3 s",
        "ps:0": "out of reach for 3 s|Neither the lead nor a new checkpoint was seen for 3 s",
        "chief:0": "chief was lost and did not come back within 3 s",
    }
    failed(reasons[task], *roles.values())


def test_a_worker_told_to_leave_finishes_its_step_and_the_others_go_on(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    opened, leave = gate(tmp_path, "chief"), gate(tmp_path, "worker")
    cluster = make_cluster(ps=2, arguments=["--max_steps", 100])
    roles = cluster.start_all(but=["worker:0", "chief:0"])
    chief = cluster.start("chief", "--hold", f"30:{opened}")
    worker = cluster.start("worker", "--hold", f"20:{leave}")
    worker.saw("HOLDING")
    chief.saw("HOLDING")
    worker.terminate()
    worker.saw("SIGTERM: leaving")
    leave.touch()
    assert worker.wait() == 143
    opened.touch()
    finished(*roles.values(), chief)
    check_model(cluster.model_dir, 100)


def test_a_worker_with_nothing_to_finish_leaves_at_once(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    opened = gate(tmp_path, "chief")
    cluster = make_cluster(ps=1, arguments=["--batches", 20])
    roles = cluster.start_all(but=["chief:0"])
    worker = roles.pop("worker:0")
    chief = cluster.start("chief", "--hold", f"10:{opened}")
    worker.saw("Loss for final step")
    worker.terminate()
    assert worker.wait() == 143
    opened.touch()
    finished(*roles.values(), chief)
    check_model(cluster.model_dir, 40)


def test_a_chief_told_to_leave_drains_saves_and_leaves(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    opened = gate(tmp_path, "chief")
    cluster = make_cluster(
        ps=2, arguments=["--max_steps", 100_000, "--recover_secs", 2, "--linger_secs", 1]
    )
    roles = cluster.start_all(but=["chief:0"])
    chief = cluster.start("chief", "--hold", f"20:{opened}")
    chief.saw("HOLDING")
    chief.terminate()
    chief.saw("SIGTERM: leaving")
    opened.touch()
    assert chief.wait() == 143
    step = len(chief.steps) + len(roles["worker:0"].steps)
    check_model(cluster.model_dir, step)
    failed("chief was lost and did not come back within 2 s", *roles.values())
    assert cluster.verdict["verdict"] == "FAILED"


def test_a_chief_told_to_leave_may_be_replaced_and_the_job_goes_on(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    opened = gate(tmp_path, "chief")
    cluster = make_cluster(ps=2, workers=0, arguments=["--max_steps", 100])
    roles = cluster.start_all(but=["chief:0"])
    chief = cluster.start("chief", "--hold", f"20:{opened}")
    chief.saw("HOLDING")
    chief.terminate()
    chief.saw("SIGTERM: leaving")
    opened.touch()
    assert chief.wait() == 143
    back = cluster.start("chief")
    finished(*roles.values(), back)
    check_model(cluster.model_dir, 100)
    assert len(chief.steps) + len(back.steps) == 100


@pytest.mark.parametrize(
    "task",
    [
        pytest.param("worker:0", marks=pytest.mark.chaos),
        "evaluator:0",
        "ps:1",
        "ps:0",
        pytest.param("chief:0", marks=pytest.mark.chaos),
    ],
)
def test_a_role_told_to_leave_while_it_waits_for_others_does(
    make_cluster: MakeCluster, task: str
) -> None:
    cluster = make_cluster(ps=2, evaluator=True, arguments=["--max_steps", 100])
    role = cluster.start(task)
    role.saw("listens on|Waiting for|cannot be reached|variables,")
    role.terminate()
    assert role.wait() == 143


def test_an_evaluator_told_to_leave_may_return(make_cluster: MakeCluster, tmp_path: Path) -> None:
    opened, never = gate(tmp_path, "train"), gate(tmp_path, "never")
    cluster = make_cluster(ps=1, evaluator=True, arguments=["--max_steps", 60])
    roles = cluster.start_all("--hold", f"20:{opened}", but=["evaluator:0"])
    evaluator = cluster.start("evaluator", "--hold_eval", never)
    evaluator.saw("HOLDING evaluation")
    evaluator.terminate()
    assert evaluator.wait() == 143
    opened.touch()
    back = cluster.start("evaluator")
    finished(*roles.values(), back)
    assert cluster.results[-1]["global_step"] == 60


def test_psys_run_told_to_stop_has_the_chief_save_and_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    model_dir = tmp_path / "model"
    command = [sys.executable, "-m", "psys", "run", "--ps", "2", "--evaluator"]
    program = [PROGRAM, "--model_dir", model_dir, "--max_steps", "1000000"]
    process = subprocess.Popen(
        [*map(str, command), "--log-dir", str(tmp_path / "logs"), *map(str, program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line.rstrip())
            if re.search(r"\[chief\] STEP 30\d", line):
                process.send_signal(signal.SIGINT)
                break
        lines += process.stdout.read().splitlines()
    assert process.returncode == 130, "\n".join(lines[-40:])
    assert lines[-1] == "psys: FAILED reason=interrupted"
    steps = sum(bool(re.search(r"STEP \d+$", line)) for line in lines)
    check_model(model_dir, steps)
    for line in lines:
        if found := re.search(r"\] PID (\d+)", line):
            assert not Path("/proc", found[1]).exists()


def test_a_latecomer_to_a_job_whose_lead_still_lingers_is_told(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(ps=1, workers=2, arguments=["--max_steps", 40])
    roles = cluster.start_all(but=["worker:1"])
    roles["ps:0"].saw("Staying for worker:1,")
    late = cluster.start("worker:1")
    finished(*roles.values(), late)
    assert late.steps == []


@pytest.mark.parametrize(
    "task",
    [
        "worker:0",
        pytest.param("evaluator:0", marks=pytest.mark.chaos),
        pytest.param("chief:0", marks=pytest.mark.chaos),
        pytest.param("ps:0", marks=pytest.mark.chaos),
        pytest.param("ps:1", marks=pytest.mark.chaos),
    ],
)
def test_a_latecomer_to_a_finished_job_finds_the_verdict_and_exits_0(
    make_cluster: MakeCluster, task: str
) -> None:
    cluster = make_cluster(ps=2, evaluator=True, arguments=["--max_steps", 40])
    finished(*cluster.start_all().values())
    before = cluster.verdict
    late = cluster.start(task)
    finished(late)
    late.saw("Nothing to do: the job finished at step 40")
    assert cluster.verdict == before


def test_ps_with_directories_of_their_own_send_their_files_to_the_chief(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    for number, (ps, max_steps) in enumerate([(2, 60), (3, 100)]):
        cluster = make_cluster(ps=ps, evaluator=True, arguments=["--max_steps", max_steps])
        roles = cluster.start_all(but=[f"ps:{i}" for i in range(ps)])
        own = [tmp_path / f"ps-{number}-{i}" for i in range(ps)]
        for i in range(ps):
            roles[f"ps:{i}"] = cluster.start(f"ps:{i}", model_dir=own[i])
        finished(*roles.values())
        check_model(cluster.model_dir, max_steps)
        assert len(manifests(cluster.model_dir)[-1]["shards"]) == ps
        assert cluster.results[-1]["global_step"] == max_steps
        assert cluster.verdict["verdict"] == "FINISHED"


def test_a_ps_with_a_directory_of_its_own_may_be_lost(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    saved, opened = gate(tmp_path, "saved"), gate(tmp_path, "gate")
    cluster = make_cluster(ps=2, workers=0, arguments=["--max_steps", 80])
    ps = [cluster.start(f"ps:{i}", model_dir=tmp_path / f"ps-{i}") for i in range(2)]
    chief = cluster.start("chief", "--hold", f"30:{saved}", "--hold", f"40:{opened}")
    chief.holds(30)
    chief.saw(r"Saved checkpoint for step (?!0:)\d+")
    saved.touch()
    chief.holds(40)  # steps that no checkpoint has: the next one is due at step 50
    ps[1].kill()
    ps[1] = cluster.start("ps:1", model_dir=tmp_path / "ps-1-again")
    chief.saw("are lost")
    opened.touch()
    finished(*ps, chief)
    check_model(cluster.model_dir, 80)


def test_with_named_runs_the_end_of_another_run_is_not_this_ones(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(ps=1, workers=1, arguments=["--batches", 5, "--linger_secs", 1])
    monday, tuesday = {"PSYS_JOB_ID": "monday"}, {"PSYS_JOB_ID": "tuesday"}
    roles = [cluster.start(task, environment=monday) for task in cluster.tasks]
    finished(*roles)
    assert cluster.verdict["job_id"] == "monday"
    late = cluster.start("worker", environment=monday)
    early = cluster.start("worker", environment=tuesday)
    finished(late)
    late.saw("Nothing to do: the job finished at step 10")
    others = [cluster.start(task, environment=tuesday) for task in ("ps", "chief")]
    finished(early, *others)
    check_model(cluster.model_dir, 20)
    assert cluster.verdict["job_id"] == "tuesday"


def test_what_is_left_over_from_another_run_is_sent_away(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    opened = gate(tmp_path, "chief")
    cluster = make_cluster(ps=1, workers=1, arguments=["--max_steps", 30])
    today = {"PSYS_JOB_ID": "today"}
    roles = [cluster.start(task, environment=today) for task in ("ps", "worker")]
    chief = cluster.start("chief", "--hold", f"5:{opened}", environment=today)
    chief.holds(5)
    orphan = cluster.start("worker", environment={"PSYS_JOB_ID": "yesterday"})
    failed("belongs to run yesterday of a job, the lead to run today", orphan)
    opened.touch()
    finished(*roles, chief)
    check_model(cluster.model_dir, 30)


def test_chief_and_lead_lost_together_go_on_with_their_run(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    opened = gate(tmp_path, "all")
    cluster = make_cluster(ps=2, workers=1, arguments=["--max_steps", 60, "--save_steps", 10])
    roles = cluster.start_all("--hold", f"12:{opened}")
    for name in ("chief:0", "worker:0"):
        roles[name].holds(12)
    (run,) = {one["job_id"] for one in manifests(cluster.model_dir)}
    for name in ("ps:0", "chief:0"):
        roles[name].kill()
        roles[name] = cluster.start(name)
    opened.touch()
    finished(*roles.values())
    assert cluster.verdict["job_id"] == run
    assert {one["job_id"] for one in manifests(cluster.model_dir)} == {run}


@pytest.mark.parametrize("lost", [pytest.param("ps:0", marks=pytest.mark.chaos), "ps:1"])
def test_trainers_told_to_leave_do_not_wait_for_a_lost_ps(
    make_cluster: MakeCluster, lost: str
) -> None:
    cluster = make_cluster(ps=2, arguments=["--max_steps", 100_000, "--recover_secs", 50])
    roles = cluster.start_all()
    trainers = [roles["chief:0"], roles["worker:0"]]
    for role in trainers:
        role.saw_step(10)
    roles[lost].kill()
    for role in trainers:
        role.saw("Trying again for at most")
        role.terminate()
    assert [role.wait() for role in trainers] == [143, 143]
