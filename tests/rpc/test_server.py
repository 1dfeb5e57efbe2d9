"""The server: who may call it, where it listens, and that any gRPC client can talk to it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from psys.attendance import Attendance
from psys.checkpoint.storage import MemoryStorage
from psys.errors import ConfigError
from psys.ps.messages import CheckpointEntry, ExchangeRequest, Report
from psys.rpc import health, remote_catalog, remote_cluster
from psys.rpc.channel import TOKEN_KEY
from psys.rpc.remote_cluster import RemoteLink
from psys.rpc.remote_shard import RemoteShard
from psys.rpc.server import RESERVE, STREAMS_PER_TASK, Server
from psys.rpc.v1 import (
    checkpoints_pb2,
    checkpoints_pb2_grpc,
    cluster_pb2,
    cluster_pb2_grpc,
    gradients_pb2,
    gradients_pb2_grpc,
    shard_pb2,
    shard_pb2_grpc,
    tensors_pb2,
)

NewJob = Callable[..., Any]
SMALL_PS = str(Path(__file__).with_name("small_ps.py"))


@pytest.fixture
def channel() -> Iterator[Callable[[str], grpc.Channel]]:
    opened: list[grpc.Channel] = []

    def connect(address: str) -> grpc.Channel:
        opened.append(grpc.insecure_channel(address))
        return opened[-1]

    yield connect
    for one in opened:
        one.close()


# ---------------------------------------------------------------- the token


def exchange_once(channel: grpc.Channel, metadata: Any) -> Any:
    header = gradients_pb2.ExchangeRequestHeader(task="chief")
    request = gradients_pb2.ExchangeRequest(header=header)
    return next(
        gradients_pb2_grpc.GradientsStub(channel).Exchange(iter([request]), metadata=metadata)
    )


def load_once(channel: grpc.Channel, metadata: Any) -> Any:
    request = shard_pb2.LoadSlicesRequest(slice=shard_pb2.SliceHeader(generation="none"))
    return shard_pb2_grpc.ShardsStub(channel).LoadSlices(iter([request]), metadata=metadata)


def list_once(channel: grpc.Channel, metadata: Any) -> Any:
    stub = checkpoints_pb2_grpc.CheckpointsStub(channel)
    return stub.ListCheckpoints(checkpoints_pb2.ListCheckpointsRequest(), metadata=metadata)


def watch_once(channel: grpc.Channel, metadata: Any) -> Any:
    stub = checkpoints_pb2_grpc.CheckpointsStub(channel)
    return next(stub.WatchCheckpoints(checkpoints_pb2.WatchCheckpointsRequest(), metadata=metadata))


def read_once(channel: grpc.Channel, metadata: Any) -> Any:
    stub = checkpoints_pb2_grpc.CheckpointsStub(channel)
    request = checkpoints_pb2.ReadFileRequest(checkpoint_id="0" * 12, shard_count=1)
    return next(stub.ReadFile(request, metadata=metadata))


def read_manifest_once(channel: grpc.Channel, metadata: Any) -> Any:
    request = checkpoints_pb2.ReadManifestRequest(checkpoint_id="0" * 12)
    return checkpoints_pb2_grpc.CheckpointsStub(channel).ReadManifest(request, metadata=metadata)


def keep_manifest_once(channel: grpc.Channel, metadata: Any) -> Any:
    request = checkpoints_pb2.KeepManifestRequest(manifest_json="{}")
    return checkpoints_pb2_grpc.CheckpointsStub(channel).KeepManifest(request, metadata=metadata)


def delete_once(channel: grpc.Channel, metadata: Any) -> Any:
    request = checkpoints_pb2.DeleteCheckpointRequest(checkpoint_id="0" * 12)
    return checkpoints_pb2_grpc.CheckpointsStub(channel).DeleteCheckpoint(
        request, metadata=metadata
    )


def attend_once(channel: grpc.Channel, metadata: Any) -> Any:
    report = cluster_pb2.Report(
        task="worker:0",
        instance="i",
        protocol_version=1,
        phase=cluster_pb2.TASK_PHASE_JOINING,
    )
    requests = iter([cluster_pb2.AttendRequest(report=report)])
    return next(cluster_pb2_grpc.ClusterStub(channel).Attend(requests, metadata=metadata))


def status_once(channel: grpc.Channel, metadata: Any) -> Any:
    stub = cluster_pb2_grpc.ClusterStub(channel)
    return stub.GetStatus(cluster_pb2.GetStatusRequest(), metadata=metadata)


CALLS = {
    "psys.rpc.v1.Gradients/Exchange": exchange_once,
    "psys.rpc.v1.Shards/LoadSlices": load_once,
    "psys.rpc.v1.Checkpoints/ListCheckpoints": list_once,
    "psys.rpc.v1.Checkpoints/WatchCheckpoints": watch_once,
    "psys.rpc.v1.Checkpoints/ReadFile": read_once,
    "psys.rpc.v1.Checkpoints/ReadManifest": read_manifest_once,
    "psys.rpc.v1.Checkpoints/KeepManifest": keep_manifest_once,
    "psys.rpc.v1.Checkpoints/DeleteCheckpoint": delete_once,
    "psys.rpc.v1.Cluster/Attend": attend_once,
    "psys.rpc.v1.Cluster/GetStatus": status_once,
}


def test_every_call_of_every_service_is_listed_here() -> None:
    modules = (gradients_pb2, shard_pb2, checkpoints_pb2, cluster_pb2)
    found = {
        f"{service.full_name}/{method.name}"
        for module in modules
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert found == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("given", [None, "wrong", "secret ", "", "secre"])
def test_a_call_without_the_token_is_denied(
    new_job: NewJob, channel: Any, name: str, given: str | None
) -> None:
    job = new_job(token="secret")
    metadata = () if given is None else ((TOKEN_KEY, given),)
    with pytest.raises(grpc.RpcError) as caught:
        CALLS[name](channel(job.address), metadata)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "PSYS_JOB_TOKEN" in (caught.value.details() or "")


@pytest.mark.parametrize("name", CALLS)
def test_a_call_with_the_token_is_served(new_job: NewJob, channel: Any, name: str) -> None:
    job = new_job(token="secret")
    job.go_live()
    job.commit()
    job.host.fail("so that a watch has something to tell")
    refusals = {
        "LoadSlices": grpc.StatusCode.ABORTED,
        "KeepManifest": grpc.StatusCode.ABORTED,
        "DeleteCheckpoint": grpc.StatusCode.ABORTED,
        "ReadFile": grpc.StatusCode.NOT_FOUND,
        "ReadManifest": grpc.StatusCode.NOT_FOUND,
    }
    refusal = refusals.get(name.rpartition("/")[2])
    if refusal is None:
        assert CALLS[name](channel(job.address), ((TOKEN_KEY, "secret"),)) is not None
        return
    with pytest.raises(grpc.RpcError) as caught:
        CALLS[name](channel(job.address), ((TOKEN_KEY, "secret"),))
    assert caught.value.code() is refusal


def test_health_needs_no_token(new_job: NewJob) -> None:
    job = new_job(token="secret")
    assert health.check(job.address)
    job.server.stop(0.0)
    assert not health.check(job.address)


def test_a_client_with_the_wrong_token_is_told_at_once(new_job: NewJob) -> None:
    job = new_job(token="secret")
    shard = RemoteShard(0, job.address, "wrong")
    shard.begin_exchange(ExchangeRequest("", "chief", 0, 0, 0, None, False, {}, False))
    for act in (
        shard.finish_exchange,
        lambda: shard.load("none", 1, []),
        lambda: remote_catalog.list_checkpoints(job.address, "wrong"),
        lambda: next(remote_catalog.watch_checkpoints(job.address, "wrong")),
        lambda: remote_cluster.fetch_status(job.address, "wrong"),
    ):
        with pytest.raises(ConfigError, match="token"):
            act()
    shard.close()


def test_a_task_with_the_wrong_token_does_not_keep_trying(new_job: NewJob) -> None:
    job = new_job(token="secret")
    attendance = Attendance(Report("worker:0", "i", 0), RemoteLink(job.address, None), 60.0, 60.0)
    attendance.begin()
    with pytest.raises(ConfigError, match="token"):
        attendance.wait_for(lambda one: one.member > 0, "a place", 20)
    attendance.close()


@pytest.mark.parametrize(
    ("address", "token", "warns"),
    [
        ("127.0.0.1", None, False),
        ("localhost", None, False),
        ("0.0.0.0", None, True),
        ("0.0.0.0", "secret", False),
    ],
)
def test_a_server_anyone_can_reach_says_so(
    new_job: NewJob, caplog: pytest.LogCaptureFixture, address: str, token: str | None, warns: bool
) -> None:
    new_job(token, address + ":0")
    assert ("no job token is set" in caplog.text) is warns


# ---------------------------------------------------------------- the address


def test_two_servers_cannot_share_a_port(new_job: NewJob) -> None:
    job = new_job()
    with pytest.raises(ConfigError, match=re.escape(job.address)) as caught:
        Server(job.host, MemoryStorage(), job.address, 2, None)
    assert "in use" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_port_is_free_again_when_its_server_stopped(new_job: NewJob) -> None:
    job = new_job()
    job.server.stop(0.0)
    again = new_job(address=job.address)
    assert health.check(again.address)


@pytest.mark.parametrize("address", ["no.such.host.invalid:1234", "203.0.113.7:1234"])
def test_an_address_that_is_not_this_machines_is_an_error_of_the_config(
    new_job: NewJob, address: str
) -> None:
    with pytest.raises(ConfigError, match=r"Cannot listen on .* \(TF_CONFIG\)"):
        new_job(address=address)


def test_a_port_in_use_is_one_clear_line_and_grpc_adds_none(new_job: NewJob) -> None:
    job = new_job()
    done = subprocess.run(
        [sys.executable, SMALL_PS, job.address], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[-1].startswith(f"psys: ConfigError: Cannot listen on {job.address}")
    assert "add_port.cc" not in done.stderr


# ---------------------------------------------------------------- limits


def test_more_calls_than_threads_are_refused_not_left_waiting(
    new_job: NewJob, channel: Any
) -> None:
    job = new_job()
    stub = checkpoints_pb2_grpc.CheckpointsStub(channel(job.address))
    job.chief.begin()
    job.commit(CheckpointEntry("0" * 12, 1, "path"))  # an event for every watch
    watches = [
        stub.WatchCheckpoints(checkpoints_pb2.WatchCheckpointsRequest())
        for _ in range(3 * STREAMS_PER_TASK + RESERVE + 1)
    ]
    codes = []
    for watch in watches:
        try:
            codes.append(next(watch).WhichOneof("event"))
        except grpc.RpcError as error:
            codes.append(error.code())
    assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 1
    assert codes.count("committed") == len(watches) - 1
    for watch in watches:
        watch.cancel()


def test_what_is_not_well_formed_ends_the_stream_with_invalid_argument(
    new_job: NewJob, channel: Any
) -> None:
    job = new_job()
    job.go_live()
    stub = gradients_pb2_grpc.GradientsStub(channel(job.address))
    gradient, reply = tensors_pb2.TENSOR_ROLE_GRADIENT, tensors_pb2.TENSOR_ROLE_ROWS
    float32 = tensors_pb2.DATA_TYPE_FLOAT32
    huge = tensors_pb2.Tensor(name="weight", role=gradient, dtype=float32, shape=[2**62])
    odd_role = tensors_pb2.Tensor(name="weight", role=reply, dtype=float32, shape=[2, 3])
    for tensor in (huge, odd_role):
        header = gradients_pb2.ExchangeRequestHeader(
            generation=job.generation, task="chief", member=1, has_push=True, tensors=[tensor]
        )
        with pytest.raises(grpc.RpcError) as caught:
            next(
                stub.Exchange(iter([gradients_pb2.ExchangeRequest(header=header, bulk=bytes(24))]))
            )
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "weight" in (caught.value.details() or "")


# ---------------------------------------------------------------- a stock client


def test_a_client_made_from_the_protos_alone_can_train(new_job: NewJob, channel: Any) -> None:
    job = new_job()
    job.go_live()
    stub = gradients_pb2_grpc.GradientsStub(channel(job.address))
    gradient = np.full((2, 3), 0.5, np.float32)
    header = gradients_pb2.ExchangeRequestHeader(
        generation=job.generation,
        task="chief",
        member=job.member,
        sequence=1,
        has_push=True,
        pull_dense=True,
        wants_grant=True,
        tensors=[
            tensors_pb2.Tensor(
                name="weight",
                role=tensors_pb2.TENSOR_ROLE_GRADIENT,
                dtype=tensors_pb2.DATA_TYPE_FLOAT32,
                shape=[2, 3],
            ),
            tensors_pb2.Tensor(
                name="table",
                role=tensors_pb2.TENSOR_ROLE_PULL,
                dtype=tensors_pb2.DATA_TYPE_INT64,
                shape=[2],
            ),
        ],
    )
    bulk = gradient.tobytes() + np.array([4, 99], np.int64).tobytes()
    (reply,) = stub.Exchange(iter([gradients_pb2.ExchangeRequest(header=header, bulk=bulk)]))
    assert reply.header.outcome == gradients_pb2.OUTCOME_APPLIED
    assert reply.header.grant == gradients_pb2.GRANT_GO
    assert (reply.header.version, reply.header.global_step) == (1, 1)
    assert [(one.name, list(one.shape)) for one in reply.header.tensors] == [
        ("weight", [2, 3]),
        ("table", [2, 2]),
    ]
    np.testing.assert_array_equal(np.frombuffer(reply.bulk, np.float32)[:6], [0.5] * 6)


def test_a_ps_that_is_not_the_lead_says_so(small_ps: Callable[..., Any]) -> None:
    ps = small_ps()
    for act in (
        lambda: remote_catalog.list_checkpoints(ps.address),
        lambda: remote_cluster.fetch_status(ps.address),
    ):
        with pytest.raises(ConfigError, match="same TF_CONFIG"):
            act()
