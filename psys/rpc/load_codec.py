"""The codec of loads: the slices of a shard as frames, and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from psys import initializers
from psys.arrays import DTYPES, Array, Plan, PlannedSlice, VariableSpec
from psys.errors import ModelError
from psys.ps.shard import LoadedSlice
from psys.rpc import wire
from psys.rpc.frames import (
    Incoming,
    Named,
    check_shape,
    describe,
    dtype_code,
    dtype_of,
    memory_bytes,
    open_message,
    read_tensors,
    write_frames,
)
from psys.rpc.v1 import shard_pb2, tensors_pb2
from psys.sharding import ShardMap, Slice

LOAD_SLICES = "/psys.rpc.v1.Shards/LoadSlices"
"""The call whose frames these are."""

_SENDER = "A load"


class Load(NamedTuple):
    """What a load brought: the slices of one shard, and for the lead's the plan of all.

    Nothing else keeps the slices: who takes one off the list alone has it.
    """

    generation: str
    slices: list[LoadedSlice]
    plan: Plan


def encode_load(
    generation: str, member: int, slices: Sequence[LoadedSlice], plan: Plan = ()
) -> Iterator[bytes]:
    """Yield the frames by which the chief puts slices into a shard.

    Args:
        generation: as the lead ordered it.
        member: the chief's member number.
        slices: of the shard; they stay the caller's.
        plan: of all shards, where the receiver is the lead's.
    """
    planned = [wire.fill(shard_pb2.PlannedSlice(), one) for one in plan]
    if not slices:
        header = shard_pb2.SliceHeader(generation=generation, member=member, plan=planned)
        yield from write_frames(header, ())
    for number, one in enumerate(slices):
        tensors: list[Named] = []
        if one.value is not None:
            tensors.append((one.spec.name, tensors_pb2.TENSOR_ROLE_VALUE, one.value))
        for slot, array in one.slots.items():
            tensors.append((slot, tensors_pb2.TENSOR_ROLE_SLOT, array))
        optimizer = one.spec.optimizer
        header = shard_pb2.SliceHeader(
            generation=generation,
            member=member,
            slices=len(slices),
            variable=one.spec.name,
            shape=one.spec.shape,
            dtype=dtype_code(DTYPES[one.spec.dtype], one.spec.name),
            sparse=one.spec.sparse,
            initializer_json=json.dumps(one.spec.initializer.to_config()),
            optimizer_json="" if optimizer is None else json.dumps(dict(optimizer)),
            start=one.start,
            stop=one.stop,
            seed=one.seed,
            tensors=describe(tensors),
            scalars=dict(one.scalars),
            plan=planned if number == 0 else (),
            stack=one.spec.stack,
        )
        yield from write_frames(header, tensors)


def decode_load(frames: Iterator[bytes], check: Callable[[str, int], None]) -> Load:
    """Return what a load brought.

    Args:
        frames: of the whole stream.
        check: called with the generation and the chief's member number before anything is
            allocated; raises to refuse it.

    Raises:
        ModelError: if it is not well formed, or larger than this machine's memory.
    """
    announced: tuple[str, int, int] | None = None
    plan: Plan = ()
    slices: dict[str, LoadedSlice] = {}
    room_bytes = memory_bytes()
    for frame in frames:
        incoming = open_message(frame, frames, shard_pb2.SliceHeader, _SENDER)
        header = incoming.header
        if announced is None:
            check(header.generation, header.member)
            announced = header.generation, header.member, header.slices
            plan = _decode_plan(header)
        same = announced == (header.generation, header.member, header.slices)
        if not same or len(slices) >= max(announced[2], 1):
            raise ModelError("A load's slices do not belong together.")
        if not header.slices:
            continue
        if header.variable in slices:
            raise ModelError(f"A load sent two slices of {header.variable!r}.")
        one, size = _decode_slice(incoming, room_bytes)
        slices[header.variable] = one
        room_bytes -= size
    generation, _, expected = announced or ("", 0, 0)
    if announced is None or len(slices) != expected:
        raise ModelError(f"A load sent {len(slices)} of the {expected} slices it announced.")
    return Load(generation, list(slices.values()), plan)


def _decode_plan(header: shard_pb2.SliceHeader) -> Plan:
    """Return the plan a load carries: every row of every variable once, or none at all."""
    plan = tuple(wire.read(one, PlannedSlice) for one in header.plan)
    if plan:
        slices = tuple(Slice(one.variable, one.start, one.stop, one.shard) for one in plan)
        ShardMap(1 + max(one.shard for one in plan), slices)
    return plan


def _decode_slice(
    incoming: Incoming[shard_pb2.SliceHeader], room_bytes: int
) -> tuple[LoadedSlice, int]:
    """Return a slice and the least memory it needs, which is at most ``room_bytes``."""
    header = incoming.header
    dtype = dtype_of(header.dtype, header.variable, _SENDER)
    spec = VariableSpec(
        name=header.variable,
        shape=tuple(header.shape),
        dtype=dtype.name,
        initializer=initializers.from_config(_json(header.initializer_json)),
        optimizer=_json(header.optimizer_json) if header.optimizer_json else None,
        sparse=header.sparse,
        stack=header.stack,
    )
    if not header.start <= header.stop <= spec.rows:
        raise ModelError(
            f"A load of {spec.name!r} names rows [{header.start}, {header.stop}) of {spec.rows}."
        )
    expected = (header.stop - header.start, *spec.row_shape)
    size = check_shape(expected, dtype, spec.name, _SENDER) * max(len(header.tensors), 1)
    if size > room_bytes:
        raise ModelError(
            f"A load of {spec.name!r} needs {size:,} bytes; {room_bytes:,} are left on this "
            "machine. Use more ps."
        )
    roles = [tensor.role for tensor in header.tensors]
    for tensor in header.tensors:
        if tuple(tensor.shape) != expected or tensor.dtype != header.dtype:
            raise ModelError(
                f"A load of {spec.name!r} announces {tuple(tensor.shape)}; "
                f"expected {expected} {spec.dtype}."
            )
    if roles.count(tensors_pb2.TENSOR_ROLE_VALUE) > 1 or not {*roles} <= {
        tensors_pb2.TENSOR_ROLE_VALUE,
        tensors_pb2.TENSOR_ROLE_SLOT,
    }:
        raise ModelError(f"A load of {spec.name!r} sent tensors in roles {roles}.")
    value: Array | None = None
    slots: dict[str, Array] = {}
    limit_bytes = size + 8 * len(roles)
    for name, role, array in read_tensors(incoming, header.tensors, limit_bytes, _SENDER):
        if role == tensors_pb2.TENSOR_ROLE_VALUE:
            value = array
        else:
            slots[name] = array
    scalars = dict(header.scalars)
    return (
        LoadedSlice(spec, header.start, header.stop, header.seed, value, slots, scalars),
        size,
    )


def _json(text: str) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ModelError(f"A load carries a configuration that is not JSON: {error}.") from error
    if not isinstance(config, dict):
        raise ModelError("A load carries a configuration that is not a JSON object.")
    return config
