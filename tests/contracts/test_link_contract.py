"""What every way to the lead promises: in this process (LocalLink) and over gRPC (RemoteLink)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from psys.attendance import Attendance
from psys.errors import ClusterError, ConfigError, JobFailed
from psys.host import NodeHost
from psys.ps.job import Job
from psys.ps.messages import Directive, Report, Standing, TaskPhase
from psys.ps.roster import BROKEN_STREAM_LEASE_SECS

JOB = Job(ps=("ps:0",), trainers=("chief", "worker:0"))
Attend = Callable[..., Attendance]


@pytest.fixture
def host(new_host: Callable[..., NodeHost]) -> NodeHost:
    return new_host(JOB)


def admitted(attendance: Attendance) -> Directive:
    attendance.begin()
    return attendance.wait_for(lambda one: one.member > 0, "a place", 20)


def heard(host: NodeHost, task: str = "worker:0") -> Report | None:
    """Return the lead's last report of a task."""

    def look(node: Any) -> Report | None:
        member = node.lead.roster.members.get(task)
        return None if member is None else member.report

    report = host.read_lead(look)
    assert report is None or isinstance(report, Report)
    return report


def until(condition: Callable[[], bool]) -> None:
    moment, end = threading.Event(), time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        moment.wait(0.005)


def test_a_task_is_given_a_place_and_a_number(host: NodeHost, attend: Attend) -> None:
    directive = admitted(attend(host))
    assert (directive.standing, directive.verdict) == (Standing.ADMITTED, None)
    assert "chief" in directive.waiting_for


def test_begin_twice_is_begin_once(host: NodeHost, attend: Attend) -> None:
    attendance = attend(host)
    assert admitted(attendance).member == admitted(attendance).member


def test_an_update_reaches_the_lead_and_the_same_again_is_not_sent(
    host: NodeHost, attend: Attend
) -> None:
    attendance = attend(host)
    admitted(attendance)
    attendance.update(phase=TaskPhase.WORKING, generation="aaaaaaaaaaaa")
    until(lambda: (one := heard(host)) is not None and one.phase is TaskPhase.WORKING)
    revision = attendance.report.revision
    attendance.update(phase=TaskPhase.WORKING)
    assert attendance.report.revision == revision


def test_only_the_newest_of_many_updates_matters(host: NodeHost, attend: Attend) -> None:
    attendance = attend(host)
    admitted(attendance)
    with ThreadPoolExecutor(4) as pool:
        for number in range(200):
            pool.submit(attendance.update, reason=str(number))
    until(lambda: (one := heard(host)) is not None and one.reason == attendance.report.reason)


def test_directives_come_as_things_change_and_listeners_may_answer(
    host: NodeHost, attend: Attend
) -> None:
    attendance = attend(host)
    told: list[Directive] = []

    def listen(directive: Directive) -> None:
        told.append(directive)
        attendance.update(reason=f"heard of {directive.live_trainers}")

    attendance.listen(listen)
    first = admitted(attendance)
    chief = attend(host, "chief")
    admitted(chief)
    attendance.wait_for(lambda one: one.live_trainers == 2, "the chief", 20)
    until(lambda: (one := heard(host)) is not None and one.reason == "heard of 2")
    revisions = [one.revision for one in told]
    assert revisions == sorted(revisions)
    assert first in told


def test_a_task_of_another_cluster_is_told_why_it_has_no_place(
    host: NodeHost, attend: Attend
) -> None:
    attendance = attend(host, cluster_digest="another")
    with pytest.raises(ConfigError, match="another list of ps"):
        admitted(attendance)


def test_a_second_process_of_a_name_waits_for_the_first_to_leave(
    host: NodeHost, attend: Attend
) -> None:
    first, second = attend(host), attend(host)
    number = admitted(first).member
    second.begin()
    second.wait_for(lambda one: one.standing is Standing.WAITING, "its turn", 20)
    first.update(phase=TaskPhase.LEFT)
    directive = second.wait_for(lambda one: one.member > 0, "a place", 20)
    assert directive.member > number


def test_everyone_hears_the_verdict(host: NodeHost, attend: Attend) -> None:
    worker, chief = attend(host), attend(host, "chief")
    admitted(worker)
    admitted(chief)
    worker.update(phase=TaskPhase.FAILED, reason="ValueError: no")
    for one in (worker, chief):
        with pytest.raises(JobFailed, match="worker:0: ValueError: no"):
            one.wait_for(lambda directive: False, "nothing", 20)
        directive = one.wait_for(
            lambda directive: directive.verdict is not None, "it", 20, despite_verdict=True
        )
        assert directive.verdict is not None
        assert not directive.verdict.finished


@pytest.mark.parametrize("attempt", range(10))
def test_the_last_report_has_arrived_when_close_returns(
    host: NodeHost, attend: Attend, attempt: int
) -> None:
    attendance = attend(host)
    admitted(attendance)
    attendance.update(phase=TaskPhase.FAILED, reason=f"the last words, {attempt}")
    attendance.close()
    report = heard(host)
    assert report is not None
    assert report.reason == f"the last words, {attempt}"
    assert host.wait_news(((), None), 0.0)[1] is not None


def test_what_was_never_sent_before_close_is_sent_by_it(host: NodeHost, attend: Attend) -> None:
    attendance = attend(host)
    attendance.begin()
    attendance.update(phase=TaskPhase.LEFT, reason="at once")
    attendance.close()
    report = heard(host)
    assert report is not None
    assert report.reason == "at once"


def test_the_lead_hears_of_a_task_that_is_gone_at_once(host: NodeHost, attend: Attend) -> None:
    attendance = attend(host)
    admitted(attendance)
    attendance.close()
    lease_until_secs = host.read_lead(
        lambda node: node.lead is not None and node.lead.roster.members["worker:0"].lease_until_secs
    )
    assert isinstance(lease_until_secs, float)
    assert lease_until_secs <= time.monotonic() + BROKEN_STREAM_LEASE_SECS


def test_close_ends_a_wait_and_may_come_twice(host: NodeHost, attend: Attend) -> None:
    attendance = attend(host)
    admitted(attendance)
    waits = threading.Event()

    def never(directive: Directive) -> bool:
        waits.set()
        return False

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(attendance.wait_for, never, "nothing")
        assert waits.wait(10)
        attendance.close()
        attendance.close()
        with pytest.raises(ClusterError, match="stopped attending"):
            waiting.result(10)


def test_an_error_of_a_listener_ends_every_wait(host: NodeHost, attend: Attend) -> None:
    attendance = attend(host)

    def listen(directive: Directive) -> None:
        raise ZeroDivisionError("in a listener")

    attendance.listen(listen)
    attendance.begin()
    with pytest.raises(ZeroDivisionError, match="in a listener"):
        attendance.wait_for(lambda one: False, "nothing", 20)
