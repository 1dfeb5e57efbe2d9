"""Which export the verdict names, and what the evaluator says of an exporter it cannot use."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cluster import Cluster, failed, finished

MakeCluster = Callable[..., Cluster]


@pytest.mark.parametrize("exporters", ["final,latest", "latest,final"])
def test_the_verdict_names_the_final_export(make_cluster: MakeCluster, exporters: str) -> None:
    cluster = make_cluster(
        ps=1, evaluator=True, arguments=["--max_steps", 30, "--exporters", exporters]
    )
    finished(*cluster.start_all().values())
    (export,) = (cluster.model_dir / "export" / "final").iterdir()
    assert cluster.verdict["export"] == str(export)


def test_without_a_final_exporter_the_verdict_names_the_last_export(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(
        ps=1, evaluator=True, arguments=["--max_steps", 30, "--exporters", "latest"]
    )
    finished(*cluster.start_all().values())
    newest = max((cluster.model_dir / "export" / "latest").iterdir())
    assert cluster.verdict["export"] == str(newest)


def test_an_unusable_exporter_ends_the_job_before_the_first_checkpoint_is_evaluated(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(
        ps=1, evaluator=True, arguments=["--max_steps", 100_000, "--exporters", "unusable"]
    )
    failed(
        "ConfigError: Exporter 'unusable': serving_input_receiver_fn failed: "
        r"IndexError: pop from empty list \(program.py, line ",
        *cluster.start_all().values(),
    )
    assert not (cluster.model_dir / "eval").exists()
