"""The lead's catalogue from afar: list it, watch it, and fetch shard files.

The watch is list-then-changes on one stream; a broken one is opened again and what was seen
before is skipped, so nothing is missed and nothing told twice.
"""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from psys.errors import ShardUnavailable
from psys.ps.messages import CheckpointEntry, Verdict
from psys.rpc import wire
from psys.rpc.channel import metadata, open_channel
from psys.rpc.status import error_of
from psys.rpc.v1 import checkpoints_pb2, checkpoints_pb2_grpc

LIST_LIMIT_SECS = 5.0
READ_LIMIT_SECS = 600.0


def list_checkpoints(address: str, token: str | None = None) -> list[CheckpointEntry]:
    """Return the checkpoints the lead at ``address`` knows, oldest first.

    Raises:
        ShardUnavailable: if nobody answers there.
    """
    channel = open_channel(address)
    try:
        response = checkpoints_pb2_grpc.CheckpointsStub(channel).ListCheckpoints(
            checkpoints_pb2.ListCheckpointsRequest(),
            timeout=LIST_LIMIT_SECS,
            metadata=metadata(token),
        )
    except grpc.RpcError as failure:
        raise error_of(failure, address) from failure
    finally:
        channel.close()
    return [wire.read(one, CheckpointEntry) for one in response.checkpoints]


def watch_checkpoints(
    address: str, token: str | None = None
) -> Iterator[CheckpointEntry | Verdict | None]:
    """Yield all checkpoints there are, then each as it is committed, then the verdict.

    None is yielded when nothing happened for a while. An entry comes again, with ``final``
    set, when it becomes the job's last. Ends after the verdict.

    Raises:
        ShardUnavailable: when the stream breaks; call again and skip what was seen.
    """
    channel = open_channel(address)
    try:
        stub = checkpoints_pb2_grpc.CheckpointsStub(channel)
        for response in stub.WatchCheckpoints(
            checkpoints_pb2.WatchCheckpointsRequest(), metadata=metadata(token)
        ):
            event = response.WhichOneof("event")
            if event == "committed":
                yield wire.read(response.committed, CheckpointEntry)
            elif event == "verdict":
                yield wire.read(response.verdict, Verdict)
                return
            else:
                yield None
        raise ShardUnavailable(f"{address} ended the watch without a verdict.")
    except grpc.RpcError as failure:
        raise error_of(failure, address) from failure
    finally:
        channel.close()


def read_manifest(
    address: str, global_step: int, checkpoint_id: str, token: str | None = None
) -> str:
    """Return the text of the manifest that the ps at ``address`` keeps of a checkpoint.

    Raises:
        CheckpointNotFound: if that ps has none.
        ShardUnavailable: if it cannot be reached.
    """
    channel = open_channel(address)
    try:
        response = checkpoints_pb2_grpc.CheckpointsStub(channel).ReadManifest(
            checkpoints_pb2.ReadManifestRequest(
                global_step=global_step, checkpoint_id=checkpoint_id
            ),
            timeout=LIST_LIMIT_SECS,
            metadata=metadata(token),
        )
    except grpc.RpcError as failure:
        raise error_of(failure, address) from failure
    finally:
        channel.close()
    return str(response.manifest_json)


def read_shard_file(
    address: str,
    checkpoint_id: str,
    global_step: int,
    shard_index: int,
    shard_count: int,
    token: str | None = None,
) -> Iterator[bytes]:
    """Yield one shard file of a checkpoint from the ps at ``address``, in pieces.

    Raises:
        CheckpointNotFound: if that ps has no such file.
        ShardUnavailable: if it cannot be reached.
    """
    channel = open_channel(address)
    try:
        stub = checkpoints_pb2_grpc.CheckpointsStub(channel)
        request = checkpoints_pb2.ReadFileRequest(
            checkpoint_id=checkpoint_id,
            global_step=global_step,
            shard_index=shard_index,
            shard_count=shard_count,
        )
        for response in stub.ReadFile(request, timeout=READ_LIMIT_SECS, metadata=metadata(token)):
            yield response.data
    except grpc.RpcError as failure:
        raise error_of(failure, address) from failure
    finally:
        channel.close()
