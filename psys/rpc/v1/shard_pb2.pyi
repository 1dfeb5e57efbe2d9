from psys.rpc.v1 import tensors_pb2 as _tensors_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LoadSlicesRequest(_message.Message):
    __slots__ = ("slice", "bulk")
    SLICE_FIELD_NUMBER: _ClassVar[int]
    BULK_FIELD_NUMBER: _ClassVar[int]
    slice: SliceHeader
    bulk: bytes
    def __init__(self, slice: _Optional[_Union[SliceHeader, _Mapping]] = ..., bulk: _Optional[bytes] = ...) -> None: ...

class SliceHeader(_message.Message):
    __slots__ = ("generation", "slices", "variable", "shape", "dtype", "sparse", "initializer_json", "optimizer_json", "start", "stop", "seed", "tensors", "scalars", "member", "plan", "stack")
    class ScalarsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    SLICES_FIELD_NUMBER: _ClassVar[int]
    VARIABLE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SPARSE_FIELD_NUMBER: _ClassVar[int]
    INITIALIZER_JSON_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_JSON_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    SCALARS_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    STACK_FIELD_NUMBER: _ClassVar[int]
    generation: str
    slices: int
    variable: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    dtype: _tensors_pb2.DataType
    sparse: bool
    initializer_json: str
    optimizer_json: str
    start: int
    stop: int
    seed: int
    tensors: _containers.RepeatedCompositeFieldContainer[_tensors_pb2.Tensor]
    scalars: _containers.ScalarMap[str, float]
    member: int
    plan: _containers.RepeatedCompositeFieldContainer[PlannedSlice]
    stack: str
    def __init__(self, generation: _Optional[str] = ..., slices: _Optional[int] = ..., variable: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., dtype: _Optional[_Union[_tensors_pb2.DataType, str]] = ..., sparse: bool = ..., initializer_json: _Optional[str] = ..., optimizer_json: _Optional[str] = ..., start: _Optional[int] = ..., stop: _Optional[int] = ..., seed: _Optional[int] = ..., tensors: _Optional[_Iterable[_Union[_tensors_pb2.Tensor, _Mapping]]] = ..., scalars: _Optional[_Mapping[str, float]] = ..., member: _Optional[int] = ..., plan: _Optional[_Iterable[_Union[PlannedSlice, _Mapping]]] = ..., stack: _Optional[str] = ...) -> None: ...

class PlannedSlice(_message.Message):
    __slots__ = ("variable", "start", "stop", "shard", "nbytes")
    VARIABLE_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    NBYTES_FIELD_NUMBER: _ClassVar[int]
    variable: str
    start: int
    stop: int
    shard: int
    nbytes: int
    def __init__(self, variable: _Optional[str] = ..., start: _Optional[int] = ..., stop: _Optional[int] = ..., shard: _Optional[int] = ..., nbytes: _Optional[int] = ...) -> None: ...

class LoadSlicesResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
