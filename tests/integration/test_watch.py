"""The evaluator's news: nothing missed and nothing told twice, whatever breaks in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster import PATIENCE_SECS, Cluster, check_model, failed, finished, gate, manifests
from proxy import Proxy

from psys.ps.messages import CheckpointEntry, Verdict
from psys.roles.checkpoint_feed import CheckpointFeed

MakeCluster = Callable[..., Cluster]


@pytest.fixture
def cut_off() -> Iterator[Callable[[str, Path], tuple[Proxy, CheckpointFeed]]]:
    """Watch a lead through a proxy; both are closed with the test."""
    made: list[tuple[Proxy, CheckpointFeed]] = []
    failures: list[BaseException] = []

    def make(address: str, model_dir: Path) -> tuple[Proxy, CheckpointFeed]:
        proxy = Proxy(address)
        made.append((proxy, CheckpointFeed(proxy.address, str(model_dir), None, failures.append)))
        return made[-1]

    yield make
    for proxy, feed in made:
        feed.close()
        proxy.close()
    assert not failures


def next_entry(feed: CheckpointFeed) -> CheckpointEntry:
    event = feed.next(PATIENCE_SECS)
    assert isinstance(event, CheckpointEntry)
    return event


@pytest.mark.parametrize("shared", [True, False], ids=["shared disk", "no shared disk"])
def test_a_broken_watch_has_no_gap_and_no_repeat(
    make_cluster: MakeCluster,
    cut_off: Callable[[str, Path], tuple[Proxy, CheckpointFeed]],
    tmp_path: Path,
    shared: bool,
) -> None:
    gates = [gate(tmp_path, f"chief-{i}") for i in range(3)]
    holds = [f"{20 * (i + 1)}:{one}" for i, one in enumerate(gates)]
    cluster = make_cluster(ps=1, workers=0, arguments=["--max_steps", 80, "--save_steps", 5])
    ps = cluster.start("ps")
    chief = cluster.start("chief", *(word for hold in holds for word in ("--hold", hold)))
    ps.saw("listens on")
    proxy, feed = cut_off(
        cluster.address("ps"), cluster.model_dir if shared else tmp_path / "elsewhere"
    )
    seen = [next_entry(feed)]
    chief.saw("HOLDING batch 20")
    proxy.cut()
    gates[0].touch()  # checkpoints appear unheard
    chief.saw("HOLDING batch 40")
    proxy.restore()
    newest = chief.saw(r"Saved checkpoint for step (2[5-9]|3\d)")
    while seen[-1].global_step < int(newest[1]):
        seen.append(next_entry(feed))
    proxy.cut()
    gates[1].touch()
    chief.saw("HOLDING batch 60")
    proxy.restore()
    newest = chief.saw(r"Saved checkpoint for step (4[5-9]|5\d)")
    while seen[-1].global_step < int(newest[1]):
        seen.append(next_entry(feed))
    gates[2].touch()
    finished(ps, chief)
    while isinstance(event := feed.next(PATIENCE_SECS), CheckpointEntry):
        seen.append(event)
    assert isinstance(event, Verdict)
    assert event.finished
    committed = [(m["global_step"], m["checkpoint_id"]) for m in manifests(cluster.model_dir)]
    # The last may be the job's last by the time it is first told: then it is told as that alone.
    told = [(one.global_step, one.checkpoint_id) for one in seen]
    assert list(dict.fromkeys(told)) == committed
    assert [one for one, entry in zip(told, seen, strict=True) if entry.final] == committed[-1:]
    assert len(told) == len({(one.checkpoint_id, one.final) for one in seen})


@pytest.mark.chaos
def test_without_a_lead_the_evaluator_reads_the_directory(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(ps=1, workers=0, arguments=["--max_steps", 40])
    finished(*cluster.start_all().values())
    evaluator = cluster.start("evaluator", "--max_steps", 100, "--start_timeout_secs", 3)
    failed("Neither the lead nor a new checkpoint was seen for 3 s", evaluator)
    assert [line["global_step"] for line in cluster.results] == [40]


@pytest.mark.chaos
def test_an_evaluator_that_comes_after_the_end_evaluates_and_exports_what_was_left(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(ps=1, workers=0, arguments=["--max_steps", 40])
    finished(*cluster.start_all().values())
    evaluator = cluster.start("evaluator")
    finished(evaluator)
    evaluator.saw("Nothing to do: the job finished at step 40")
    assert [line["global_step"] for line in cluster.results] == [40]
    assert list((cluster.model_dir / "export" / "final").iterdir())


def test_a_killed_evaluator_goes_on_with_what_it_has_not_evaluated(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    opened = gate(tmp_path, "chief")
    cluster = make_cluster(ps=1, workers=0, evaluator=True, arguments=["--max_steps", 60])
    ps, evaluator = cluster.start("ps"), cluster.start("evaluator")
    chief = cluster.start("chief", "--hold", f"30:{opened}")
    evaluator.saw("Evaluated step 2[5-9]")
    evaluator.kill()
    back = cluster.start("evaluator")
    opened.touch()
    finished(ps, chief, back)
    check_model(cluster.model_dir, 60)
    evaluated = [line["checkpoint"] for line in cluster.results]
    assert len(evaluated) == len(set(evaluated))
    assert cluster.results[-1]["global_step"] == 60
