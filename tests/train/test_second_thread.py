"""A trainer has a second thread where it has two cores to itself, and nowhere else."""

from __future__ import annotations

import json
import os

import pytest

from psys.cluster import ClusterConfig, Task, parse_tf_config
from psys.environment import THREAD_VARIABLES
from psys.train.second_thread import second_thread

CLUSTER = {
    "chief": ["one:1"],
    "worker": ["one:2", "two:1"],
    "ps": ["one:3", "two:2", "two:3"],
    "evaluator": ["two:4"],
}


def config(task: str) -> ClusterConfig:
    kind, _, index = task.partition(":")
    said = {"cluster": CLUSTER, "task": {"type": kind, "index": int(index or 0)}}
    return parse_tf_config(json.dumps(said))


@pytest.fixture(autouse=True)
def two_cores_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})
    for name in THREAD_VARIABLES:
        monkeypatch.setenv(name, "1")


def has_second(given: ClusterConfig) -> bool:
    executor = second_thread(given)
    if executor is not None:
        executor.shutdown()
    return executor is not None


def test_only_trainers_of_one_host_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not has_second(config("chief"))
    assert not has_second(config("worker:0"))
    assert has_second(config("worker:1"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2, 3})
    assert has_second(config("chief"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0})
    assert not has_second(config("worker:1"))


def test_a_process_alone_takes_what_it_was_given() -> None:
    assert not has_second(ClusterConfig())


@pytest.mark.parametrize("threads", ["4", "", "x"])
def test_threads_of_the_numeric_libraries_are_enough(
    monkeypatch: pytest.MonkeyPatch, threads: str
) -> None:
    for name in THREAD_VARIABLES:
        monkeypatch.setenv(name, threads)
    assert not has_second(config("worker:1"))


def test_trainers_beside_a_task() -> None:
    cluster = config("chief").cluster
    assert cluster is not None
    assert cluster.trainers_beside(Task("chief", 0)) == 2
    assert cluster.trainers_beside(Task("worker", 1)) == 1
