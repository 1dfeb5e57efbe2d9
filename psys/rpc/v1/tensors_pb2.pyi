from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DataType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DATA_TYPE_UNSPECIFIED: _ClassVar[DataType]
    DATA_TYPE_FLOAT32: _ClassVar[DataType]
    DATA_TYPE_FLOAT64: _ClassVar[DataType]
    DATA_TYPE_INT32: _ClassVar[DataType]
    DATA_TYPE_INT64: _ClassVar[DataType]
    DATA_TYPE_FLOAT16: _ClassVar[DataType]
    DATA_TYPE_BFLOAT16: _ClassVar[DataType]

class TensorRole(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TENSOR_ROLE_UNSPECIFIED: _ClassVar[TensorRole]
    TENSOR_ROLE_GRADIENT: _ClassVar[TensorRole]
    TENSOR_ROLE_INDICES: _ClassVar[TensorRole]
    TENSOR_ROLE_VALUES: _ClassVar[TensorRole]
    TENSOR_ROLE_PULL: _ClassVar[TensorRole]
    TENSOR_ROLE_DENSE: _ClassVar[TensorRole]
    TENSOR_ROLE_ROWS: _ClassVar[TensorRole]
    TENSOR_ROLE_VALUE: _ClassVar[TensorRole]
    TENSOR_ROLE_SLOT: _ClassVar[TensorRole]
DATA_TYPE_UNSPECIFIED: DataType
DATA_TYPE_FLOAT32: DataType
DATA_TYPE_FLOAT64: DataType
DATA_TYPE_INT32: DataType
DATA_TYPE_INT64: DataType
DATA_TYPE_FLOAT16: DataType
DATA_TYPE_BFLOAT16: DataType
TENSOR_ROLE_UNSPECIFIED: TensorRole
TENSOR_ROLE_GRADIENT: TensorRole
TENSOR_ROLE_INDICES: TensorRole
TENSOR_ROLE_VALUES: TensorRole
TENSOR_ROLE_PULL: TensorRole
TENSOR_ROLE_DENSE: TensorRole
TENSOR_ROLE_ROWS: TensorRole
TENSOR_ROLE_VALUE: TensorRole
TENSOR_ROLE_SLOT: TensorRole

class Tensor(_message.Message):
    __slots__ = ("name", "role", "dtype", "shape")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    role: TensorRole
    dtype: DataType
    shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., role: _Optional[_Union[TensorRole, str]] = ..., dtype: _Optional[_Union[DataType, str]] = ..., shape: _Optional[_Iterable[int]] = ...) -> None: ...

class MemoryRegion(_message.Message):
    __slots__ = ("segment", "offset_bytes", "length_bytes")
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    LENGTH_BYTES_FIELD_NUMBER: _ClassVar[int]
    segment: int
    offset_bytes: int
    length_bytes: int
    def __init__(self, segment: _Optional[int] = ..., offset_bytes: _Optional[int] = ..., length_bytes: _Optional[int] = ...) -> None: ...
