"""How steps travel: overlapped, narrow, through shared memory or not; each counts exactly once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from cluster import Cluster, check_model, finished, gate

MakeCluster = Callable[..., Cluster]


@pytest.mark.parametrize(
    ("arguments", "memory"),
    [
        (["--pipeline_depth", 1], ""),
        (["--pipeline_depth", 1, "--push_dtype", "bfloat16"], "none"),
        (["--push_dtype", "float16"], ""),
        ([], "none"),
    ],
)
def test_every_step_is_applied_exactly_once(
    make_cluster: MakeCluster, arguments: Sequence[object], memory: str
) -> None:
    cluster = make_cluster(ps=2, arguments=["--max_steps", 150, *arguments])
    finished(*(cluster.start(task, environment={"PSYS_SHM_DIR": memory}) for task in cluster.tasks))
    check_model(cluster.model_dir, 150)  # its gradients, all −1, are exact in 16 bits


def test_overlapped_trainers_go_back_with_a_ps_that_was_lost(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    opened = gate(tmp_path, "all")
    cluster = make_cluster(
        ps=2, arguments=["--max_steps", 120, "--save_steps", 20, "--pipeline_depth", 1]
    )
    roles = cluster.start_all("--hold", f"40:{opened}")
    for name in ("chief:0", "worker:0"):
        roles[name].saw("HOLDING batch 40$")
    roles["ps:1"].kill()
    roles["ps:1"] = cluster.start("ps:1")
    opened.touch()
    finished(*roles.values())
    check_model(cluster.model_dir, 120)


def test_an_overlapped_finite_input_is_trained_on_exactly_once(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(ps=2, arguments=["--batches", 30, "--pipeline_depth", 1])
    finished(*cluster.start_all().values())
    check_model(cluster.model_dir, 60)


def test_a_ps_has_its_kernels_ready_before_anybody_comes(make_cluster: MakeCluster) -> None:
    ps = make_cluster(ps=1).start("ps")
    ps.saw("listens on")
    mapped = Path(f"/proc/{ps.process.pid}/maps")
    moment, end = threading.Event(), time.monotonic() + 60
    while "llvmlite" not in mapped.read_text():
        assert time.monotonic() < end
        moment.wait(0.05)
