from psys.rpc.v1 import tensors_pb2 as _tensors_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[Outcome]
    OUTCOME_NONE: _ClassVar[Outcome]
    OUTCOME_APPLIED: _ClassVar[Outcome]
    OUTCOME_DUPLICATE: _ClassVar[Outcome]
    OUTCOME_FENCED: _ClassVar[Outcome]
    OUTCOME_GENERATION_CHANGED: _ClassVar[Outcome]
    OUTCOME_GAP: _ClassVar[Outcome]
    OUTCOME_REFUSED: _ClassVar[Outcome]
    OUTCOME_DROPPED: _ClassVar[Outcome]
    OUTCOME_ACCUMULATED: _ClassVar[Outcome]
    OUTCOME_WAITING: _ClassVar[Outcome]

class Grant(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GRANT_UNSPECIFIED: _ClassVar[Grant]
    GRANT_NONE: _ClassVar[Grant]
    GRANT_GO: _ClassVar[Grant]
    GRANT_WAIT: _ClassVar[Grant]
    GRANT_STOP: _ClassVar[Grant]
OUTCOME_UNSPECIFIED: Outcome
OUTCOME_NONE: Outcome
OUTCOME_APPLIED: Outcome
OUTCOME_DUPLICATE: Outcome
OUTCOME_FENCED: Outcome
OUTCOME_GENERATION_CHANGED: Outcome
OUTCOME_GAP: Outcome
OUTCOME_REFUSED: Outcome
OUTCOME_DROPPED: Outcome
OUTCOME_ACCUMULATED: Outcome
OUTCOME_WAITING: Outcome
GRANT_UNSPECIFIED: Grant
GRANT_NONE: Grant
GRANT_GO: Grant
GRANT_WAIT: Grant
GRANT_STOP: Grant

class ExchangeRequest(_message.Message):
    __slots__ = ("header", "bulk")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    BULK_FIELD_NUMBER: _ClassVar[int]
    header: ExchangeRequestHeader
    bulk: bytes
    def __init__(self, header: _Optional[_Union[ExchangeRequestHeader, _Mapping]] = ..., bulk: _Optional[bytes] = ...) -> None: ...

class ExchangeRequestHeader(_message.Message):
    __slots__ = ("generation", "task", "member", "sequence", "base_version", "has_push", "pull_dense", "wants_grant", "tensors", "global_step", "input_batches", "examples", "least_version", "known_version", "bulk_region", "reply_region")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    HAS_PUSH_FIELD_NUMBER: _ClassVar[int]
    PULL_DENSE_FIELD_NUMBER: _ClassVar[int]
    WANTS_GRANT_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_STEP_FIELD_NUMBER: _ClassVar[int]
    INPUT_BATCHES_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    LEAST_VERSION_FIELD_NUMBER: _ClassVar[int]
    KNOWN_VERSION_FIELD_NUMBER: _ClassVar[int]
    BULK_REGION_FIELD_NUMBER: _ClassVar[int]
    REPLY_REGION_FIELD_NUMBER: _ClassVar[int]
    generation: str
    task: str
    member: int
    sequence: int
    base_version: int
    has_push: bool
    pull_dense: bool
    wants_grant: bool
    tensors: _containers.RepeatedCompositeFieldContainer[_tensors_pb2.Tensor]
    global_step: int
    input_batches: int
    examples: int
    least_version: int
    known_version: int
    bulk_region: _tensors_pb2.MemoryRegion
    reply_region: _tensors_pb2.MemoryRegion
    def __init__(self, generation: _Optional[str] = ..., task: _Optional[str] = ..., member: _Optional[int] = ..., sequence: _Optional[int] = ..., base_version: _Optional[int] = ..., has_push: bool = ..., pull_dense: bool = ..., wants_grant: bool = ..., tensors: _Optional[_Iterable[_Union[_tensors_pb2.Tensor, _Mapping]]] = ..., global_step: _Optional[int] = ..., input_batches: _Optional[int] = ..., examples: _Optional[int] = ..., least_version: _Optional[int] = ..., known_version: _Optional[int] = ..., bulk_region: _Optional[_Union[_tensors_pb2.MemoryRegion, _Mapping]] = ..., reply_region: _Optional[_Union[_tensors_pb2.MemoryRegion, _Mapping]] = ...) -> None: ...

class ExchangeResponse(_message.Message):
    __slots__ = ("header", "bulk")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    BULK_FIELD_NUMBER: _ClassVar[int]
    header: ExchangeResponseHeader
    bulk: bytes
    def __init__(self, header: _Optional[_Union[ExchangeResponseHeader, _Mapping]] = ..., bulk: _Optional[bytes] = ...) -> None: ...

class ExchangeResponseHeader(_message.Message):
    __slots__ = ("generation", "sequence", "outcome", "reason", "version", "staleness", "global_step", "grant", "waiting_for", "tensors", "bulk_region", "shared_memory")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STALENESS_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_STEP_FIELD_NUMBER: _ClassVar[int]
    GRANT_FIELD_NUMBER: _ClassVar[int]
    WAITING_FOR_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    BULK_REGION_FIELD_NUMBER: _ClassVar[int]
    SHARED_MEMORY_FIELD_NUMBER: _ClassVar[int]
    generation: str
    sequence: int
    outcome: Outcome
    reason: str
    version: int
    staleness: int
    global_step: int
    grant: Grant
    waiting_for: str
    tensors: _containers.RepeatedCompositeFieldContainer[_tensors_pb2.Tensor]
    bulk_region: _tensors_pb2.MemoryRegion
    shared_memory: SharedMemoryOffer
    def __init__(self, generation: _Optional[str] = ..., sequence: _Optional[int] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., reason: _Optional[str] = ..., version: _Optional[int] = ..., staleness: _Optional[int] = ..., global_step: _Optional[int] = ..., grant: _Optional[_Union[Grant, str]] = ..., waiting_for: _Optional[str] = ..., tensors: _Optional[_Iterable[_Union[_tensors_pb2.Tensor, _Mapping]]] = ..., bulk_region: _Optional[_Union[_tensors_pb2.MemoryRegion, _Mapping]] = ..., shared_memory: _Optional[_Union[SharedMemoryOffer, _Mapping]] = ...) -> None: ...

class SharedMemoryOffer(_message.Message):
    __slots__ = ("socket", "ticket", "secret")
    SOCKET_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    socket: str
    ticket: bytes
    secret: bytes
    def __init__(self, socket: _Optional[str] = ..., ticket: _Optional[bytes] = ..., secret: _Optional[bytes] = ...) -> None: ...
