"""What the chief of a real cluster writes for TensorBoard, of all trainers."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, finished, gate
from tensorboardX.proto.event_pb2 import Event

MakeCluster = Callable[..., Cluster]


def summaries(directory: Path, tag: str) -> Iterator[tuple[int, Any]]:
    """Yield step and summary of a tag, from all event files of a directory."""
    for file in sorted(directory.glob("events.out.tfevents.*")):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            at += 16 + length
            yield from ((event.step, one) for one in event.summary.value if one.tag == tag)


@pytest.mark.parametrize("ps", [2, 0])
def test_staleness_is_that_of_all_trainers(
    make_cluster: MakeCluster, tmp_path: Path, ps: int
) -> None:
    opened = gate(tmp_path, "all")
    cluster = make_cluster(ps=ps, workers=2, arguments=["--max_steps", 250])
    roles = cluster.start_all("--hold", f"40:{opened}")
    for name in ("chief:0", "worker:0", "worker:1"):
        roles[name].saw("HOLDING batch 40$")  # so each of them has taken part
    opened.touch()
    finished(*roles.values())
    own = sum(line.startswith("STEP ") for line in roles["chief:0"].lines)
    histograms = [value.histo for _, value in summaries(cluster.model_dir, "staleness")]
    assert 30 < own < 250 - 2 * 30
    assert sum(one.num for one in histograms) == 250  # every step of the job, once
