from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Checkpoint(_message.Message):
    __slots__ = ("checkpoint_id", "global_step", "path", "final")
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_STEP_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    checkpoint_id: str
    global_step: int
    path: str
    final: bool
    def __init__(self, checkpoint_id: _Optional[str] = ..., global_step: _Optional[int] = ..., path: _Optional[str] = ..., final: bool = ...) -> None: ...

class ListCheckpointsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListCheckpointsResponse(_message.Message):
    __slots__ = ("checkpoints",)
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    checkpoints: _containers.RepeatedCompositeFieldContainer[Checkpoint]
    def __init__(self, checkpoints: _Optional[_Iterable[_Union[Checkpoint, _Mapping]]] = ...) -> None: ...

class WatchCheckpointsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WatchCheckpointsResponse(_message.Message):
    __slots__ = ("committed", "verdict", "keep_alive")
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    KEEP_ALIVE_FIELD_NUMBER: _ClassVar[int]
    committed: Checkpoint
    verdict: JobVerdict
    keep_alive: KeepAlive
    def __init__(self, committed: _Optional[_Union[Checkpoint, _Mapping]] = ..., verdict: _Optional[_Union[JobVerdict, _Mapping]] = ..., keep_alive: _Optional[_Union[KeepAlive, _Mapping]] = ...) -> None: ...

class KeepAlive(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class JobVerdict(_message.Message):
    __slots__ = ("finished", "reason", "global_step", "checkpoint", "export", "evaluated")
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_STEP_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    EXPORT_FIELD_NUMBER: _ClassVar[int]
    EVALUATED_FIELD_NUMBER: _ClassVar[int]
    finished: bool
    reason: str
    global_step: int
    checkpoint: str
    export: str
    evaluated: bool
    def __init__(self, finished: bool = ..., reason: _Optional[str] = ..., global_step: _Optional[int] = ..., checkpoint: _Optional[str] = ..., export: _Optional[str] = ..., evaluated: bool = ...) -> None: ...

class ReadFileRequest(_message.Message):
    __slots__ = ("checkpoint_id", "global_step", "shard_index", "shard_count")
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_STEP_FIELD_NUMBER: _ClassVar[int]
    SHARD_INDEX_FIELD_NUMBER: _ClassVar[int]
    SHARD_COUNT_FIELD_NUMBER: _ClassVar[int]
    checkpoint_id: str
    global_step: int
    shard_index: int
    shard_count: int
    def __init__(self, checkpoint_id: _Optional[str] = ..., global_step: _Optional[int] = ..., shard_index: _Optional[int] = ..., shard_count: _Optional[int] = ...) -> None: ...

class ReadFileResponse(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class ReadManifestRequest(_message.Message):
    __slots__ = ("checkpoint_id", "global_step")
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_STEP_FIELD_NUMBER: _ClassVar[int]
    checkpoint_id: str
    global_step: int
    def __init__(self, checkpoint_id: _Optional[str] = ..., global_step: _Optional[int] = ...) -> None: ...

class ReadManifestResponse(_message.Message):
    __slots__ = ("manifest_json",)
    MANIFEST_JSON_FIELD_NUMBER: _ClassVar[int]
    manifest_json: str
    def __init__(self, manifest_json: _Optional[str] = ...) -> None: ...

class KeepManifestRequest(_message.Message):
    __slots__ = ("generation", "manifest_json", "member")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_JSON_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    generation: str
    manifest_json: str
    member: int
    def __init__(self, generation: _Optional[str] = ..., manifest_json: _Optional[str] = ..., member: _Optional[int] = ...) -> None: ...

class KeepManifestResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DeleteCheckpointRequest(_message.Message):
    __slots__ = ("generation", "checkpoint_id", "global_step", "member")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_STEP_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    generation: str
    checkpoint_id: str
    global_step: int
    member: int
    def __init__(self, generation: _Optional[str] = ..., checkpoint_id: _Optional[str] = ..., global_step: _Optional[int] = ..., member: _Optional[int] = ...) -> None: ...

class DeleteCheckpointResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
