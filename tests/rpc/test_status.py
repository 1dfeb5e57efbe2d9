"""Errors over gRPC: one table, both ways, over real calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from psys import errors
from psys.rpc.channel import open_channel
from psys.rpc.status import TABLE, error_of, errors_to_status

Call = Callable[[BaseException], Exception]


@pytest.fixture
def call() -> Iterator[Call]:
    """Raise an error inside a service; return what the client makes of it."""
    raised: list[BaseException] = []

    def serve(_: bytes, context: Any) -> bytes:
        with errors_to_status(context):
            raise raised[-1]

    server = grpc.server(ThreadPoolExecutor(1))
    handler = grpc.unary_unary_rpc_method_handler(serve)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("S", {"M": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    channel = open_channel(f"127.0.0.1:{port}")

    def make(error: BaseException) -> Exception:
        raised.append(error)
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/S/M", None, None)(b"")
        return error_of(caught.value, "ps:1 (host:1)")

    yield make
    channel.close()
    server.stop(0).wait()


@pytest.mark.parametrize("kind", [kind for kind, _ in TABLE], ids=lambda kind: kind.__name__)
def test_an_error_arrives_as_what_it_was(call: Call, kind: type[Exception]) -> None:
    found = call(kind("what went wrong"))
    assert type(found) is kind
    assert "ps:1 (host:1)" in str(found)
    assert "what went wrong" in str(found)


def test_no_status_stands_for_two_errors() -> None:
    codes = [code for _, code in TABLE]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize(
    ("kind", "arrives"),
    [
        (errors.NanLossDuringTrainingError, errors.ModelError),
        (errors.ConfigTypeError, errors.ConfigError),
        (errors.JobFailed, errors.ClusterError),
        (errors.CheckpointError, errors.ClusterError),
    ],
)
def test_an_error_that_is_not_in_the_table_arrives_as_a_wider_one(
    call: Call, kind: type[Exception], arrives: type[Exception]
) -> None:
    assert type(call(kind("why"))) is arrives


def test_a_long_message_with_odd_characters_arrives(call: Call) -> None:
    found = call(errors.ModelError("é\n\udce9" * 10_000))
    assert type(found) is errors.ModelError
    assert "é" in str(found)


class _Failure(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode, details: str | None) -> None:
        super().__init__()
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str | None:
        return self._details


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, "Connection reset", errors.ShardUnavailable),
        (grpc.StatusCode.CANCELLED, None, errors.ShardUnavailable),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Concurrent RPC limit", errors.ShardUnavailable),
        (grpc.StatusCode.UNKNOWN, "Stream removed", errors.ShardUnavailable),
        (grpc.StatusCode.INTERNAL, "Received RST_STREAM with code 2", errors.ShardUnavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "", errors.ShardTimeout),
        (grpc.StatusCode.PERMISSION_DENIED, "the token", errors.ConfigError),
        (grpc.StatusCode.UNIMPLEMENTED, "Method not found!", errors.ConfigError),
        (grpc.StatusCode.UNKNOWN, "a bug", errors.ClusterError),
        (grpc.StatusCode.INTERNAL, "a bug", errors.ClusterError),
    ],
)
def test_what_grpc_itself_says(
    code: grpc.StatusCode, details: str | None, kind: type[Exception]
) -> None:
    assert type(error_of(_Failure(code, details), "ps:0")) is kind
