"""Reports, directives and verdicts as protobuf messages, and back.

The dataclasses of ``psys.ps.messages`` and the messages of ``cluster.proto`` have the same
field names, so one rule per kind of field converts them all; a test converts each of them.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from google.protobuf.message import Message

from psys.errors import ModelError
from psys.ps.messages import Fences
from psys.rpc.v1 import cluster_pb2

T = TypeVar("T")


@functools.cache
def _fields(kind: Any) -> tuple[tuple[str, Any], ...]:
    """Return name and type of each field of a dataclass, ``X | None`` reduced to X."""
    hints = typing.get_type_hints(kind)
    result = []
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
            hint = next(part for part in typing.get_args(hint) if part is not type(None))
        result.append((field.name, hint))
    return tuple(result)


def fill(message: Message, value: Any) -> Any:
    """Copy a dataclass into a message; None is left absent. Returns the message."""
    for name, hint in _fields(cast(Any, type(value))):
        item = getattr(value, name)
        if item is None:
            continue
        if isinstance(item, enum.Enum):
            # Zero is UNSPECIFIED on the wire, so every value is one more than in the enum.
            setattr(message, name, item.value + 1)
        elif dataclasses.is_dataclass(item):
            target = getattr(message, name)
            target.SetInParent()
            fill(target, item)
        elif isinstance(item, Mapping):
            _fill_map(getattr(message, name), item, hint)
        elif isinstance(item, (tuple, frozenset)):
            _fill_repeated(getattr(message, name), item)
        elif isinstance(item, str):
            # An error's text may hold bytes of a file name that are no UTF-8.
            setattr(message, name, item.encode("utf-8", "replace").decode())
        else:
            setattr(message, name, item)
    return message


def _fill_map(target: Any, item: Mapping[str, Any], hint: Any) -> None:
    target.SetInParent()
    for key, entry in item.items():
        if hint == Fences:
            target.by_task[key].member, target.by_task[key].sequence = entry
        else:
            target.by_task[key] = entry


def _fill_repeated(target: Any, item: tuple[Any, ...] | frozenset[str]) -> None:
    if isinstance(item, frozenset):
        target.extend(sorted(item))
        return
    for entry in item:
        if dataclasses.is_dataclass(entry):
            fill(target.add(), entry)
        else:
            target.append(entry)


def read(message: Message, kind: type[T]) -> T:
    """Return the dataclass a message carries.

    Raises:
        ModelError: if an enum has a value this version does not know.
    """
    values = {}
    for name, hint in _fields(cast(Any, kind)):
        item = getattr(message, name)
        if isinstance(item, Message):
            if message.HasField(name):
                values[name] = _read_message(item, hint)
        elif isinstance(hint, type) and issubclass(hint, enum.Enum):
            try:
                values[name] = hint(item - 1)
            except ValueError as error:
                raise ModelError(f"{kind.__name__}.{name}: unknown value {item}.") from error
        elif typing.get_origin(hint) is frozenset:
            values[name] = frozenset(item)
        elif typing.get_origin(hint) is tuple:
            (entry_kind, *_) = typing.get_args(hint)
            values[name] = tuple(
                read(entry, entry_kind) if isinstance(entry, Message) else entry for entry in item
            )
        else:
            values[name] = item
    return kind(**values)


def _read_message(item: Message, hint: Any) -> Any:
    if isinstance(item, cluster_pb2.Fences):
        return {task: (fence.member, fence.sequence) for task, fence in item.by_task.items()}
    if isinstance(item, cluster_pb2.Numbers):
        return dict(item.by_task)
    return read(item, hint)
