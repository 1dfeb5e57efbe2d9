"""The control stream: it is opened again when it breaks, and its last words arrive."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from psys.attendance import Attendance
from psys.checkpoint.storage import MemoryStorage
from psys.errors import ClusterError, ModelError
from psys.host import new_id
from psys.ps.messages import Directive, Report, TaskPhase
from psys.rpc import wire
from psys.rpc.remote_cluster import FAREWELL_SECS, RemoteLink, fetch_status
from psys.rpc.server import Server
from psys.rpc.v1 import cluster_pb2, cluster_pb2_grpc

LEAVER = str(Path(__file__).with_name("leaver.py"))
Attend = Callable[..., Attendance]


@pytest.fixture
def attend() -> Iterator[Attend]:
    opened: list[Attendance] = []

    def make(address: str, recover_secs: float = 20.0) -> Attendance:
        report = Report("worker:0", new_id(), 0)
        link = RemoteLink(address)
        opened.append(Attendance(report, link, recover_secs, recover_secs))
        opened[-1].begin()
        return opened[-1]

    yield make
    for attendance in opened:
        attendance.close()


def reason(job: Any) -> Any:
    members = job.host.read_lead(lambda node: node.lead.roster.members)
    return members["worker:0"].report.reason if "worker:0" in members else None


def test_the_last_words_of_a_process_arrive_before_it_ends(job: Any) -> None:
    done = subprocess.run([sys.executable, LEAVER, job.address], timeout=60)
    assert done.returncode == 0
    assert reason(job) == "ValueError: the last words"
    verdict = job.host.verdict(0.0)
    assert verdict is not None
    assert verdict.reason == "worker:0: ValueError: the last words"


def test_a_lead_that_is_back_is_found_again(job: Any, attend: Attend) -> None:
    attendance = attend(job.address)
    attendance.wait_for(lambda one: one.revision >= 0, "the lead")
    job.server.stop(0.0)
    attendance.wait_unreachable(20)
    assert attendance.unreachable_secs > 0
    attendance.update(reason="said meanwhile")
    server = Server(job.host, MemoryStorage(), job.address, 2, None)
    try:
        moment = threading.Event()
        while reason(job) != "said meanwhile":
            moment.wait(0.01)
        assert attendance.wait_for(lambda one: True, "news").revision >= 0
    finally:
        server.stop(0.0)


def test_last_words_are_said_again_on_a_new_stream_if_the_old_one_broke(
    job: Any, attend: Attend
) -> None:
    attendance = attend(job.address)
    attendance.wait_for(lambda one: one.revision >= 0, "the lead")
    job.server.stop(0.0)
    attendance.wait_unreachable(20)
    server = Server(job.host, MemoryStorage(), job.address, 2, None)
    try:
        attendance.update(phase=TaskPhase.LEFT, reason="goodbye")
        attendance.close()
        assert reason(job) == "goodbye"
    finally:
        server.stop(0.0)


def test_closing_is_quick_where_the_lead_is_gone(job: Any, attend: Attend) -> None:
    attendance = attend(job.address)
    attendance.wait_for(lambda one: one.revision >= 0, "the lead")
    job.server.stop(0.0)
    attendance.wait_unreachable(20)
    attendance.update(reason="nobody hears this")
    begun = time.monotonic()
    attendance.close()
    assert time.monotonic() - begun < FAREWELL_SECS


def test_a_lead_out_of_reach_for_too_long_is_an_error(job: Any, attend: Attend) -> None:
    job.server.stop(0.0)
    attendance = attend(job.address, recover_secs=0.2)
    with pytest.raises(ClusterError, match="out of reach for 0 s"):
        attendance.wait_for(lambda one: False, "nothing", 20)


# ---------------------------------------------------------------- what a peer says


def first_of(job: Any, *reports: cluster_pb2.Report) -> Any:
    requests = iter([cluster_pb2.AttendRequest(report=report) for report in reports])
    with grpc.insecure_channel(job.address) as channel:
        return list(cluster_pb2_grpc.ClusterStub(channel).Attend(requests, timeout=20))


GOOD: dict[str, Any] = {"task": "worker:0", "instance": "i", "phase": 1, "protocol_version": 1}


def test_a_stock_client_can_attend(job: Any) -> None:
    (first, *_) = first_of(job, cluster_pb2.Report(**GOOD))
    assert wire.read(first.directive, Directive).lead


@pytest.mark.parametrize(
    "reports",
    [
        [{**GOOD, "task": ""}],
        [{**GOOD, "instance": ""}],
        [{**GOOD, "phase": 0}],
        [{**GOOD, "phase": 99}],
        [GOOD, {**GOOD, "phase": 99}],
        [GOOD, {**GOOD, "task": "chief"}],
        [GOOD, {**GOOD, "instance": "another"}],
    ],
    ids=["no task", "no instance", "no phase", "odd phase", "odd later", "for another", "twin"],
)
def test_a_report_that_makes_no_sense_ends_the_stream_in_words(
    job: Any, reports: list[dict[str, Any]]
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        first_of(job, *(cluster_pb2.Report(**one) for one in reports))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "chief" not in job.host.read_lead(lambda node: node.lead.roster.members)


def test_a_stream_without_a_report_is_no_task(job: Any) -> None:
    assert first_of(job) == []


def test_a_directive_that_is_not_understood_ends_every_wait(attend: Attend) -> None:
    odd: dict[str, Any] = {"standing": 77, "job": 1}

    class Lead(cluster_pb2_grpc.ClusterServicer):
        def Attend(self, request_iterator: Any, context: Any) -> Any:  # noqa: N802
            yield cluster_pb2.AttendResponse(directive=cluster_pb2.Directive(**odd))

    server = grpc.server(ThreadPoolExecutor(2))
    cluster_pb2_grpc.add_ClusterServicer_to_server(Lead(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    attendance = attend(f"127.0.0.1:{port}")
    with pytest.raises(ModelError, match="unknown value 77"):
        attendance.wait_for(lambda one: False, "nothing", 20)
    server.stop(0).wait()


# ---------------------------------------------------------------- status


def test_status_says_what_the_lead_knows(job: Any, attend: Attend) -> None:
    job.go_live()
    attend(job.address).wait_for(lambda one: one.revision >= 0, "the lead")
    job.update_chief(max_steps=100)
    status = fetch_status(job.address)
    assert (status["job"], status["max_steps"], status["global_step"]) == ("running", 100, 0)
    assert status["generation"] == job.generation
    tasks = {one["task"]: one["standing"] for one in status["tasks"]}
    assert tasks == {"ps:0": "live", "chief": "live", "worker:0": "live"}


def test_status_does_not_tell_a_generation_that_is_still_loaded(job: Any) -> None:
    job.chief.begin()
    job.chief.wait_for(lambda one: one.chief is not None and bool(one.chief.initialize), "orders")
    assert fetch_status(job.address)["generation"] == ""
