"""Every dataclass of the control stream survives the wire, whatever its fields hold."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psys.errors import ModelError
from psys.ps import messages
from psys.ps.messages import Directive, Fences, Report
from psys.rpc import wire
from psys.rpc.v1 import checkpoints_pb2, cluster_pb2

MESSAGES: Mapping[Any, Any] = {
    messages.Policy: cluster_pb2.Policy,
    messages.UpdateOrder: cluster_pb2.UpdateOrder,
    messages.ShardFile: cluster_pb2.ShardFile,
    messages.ShardFacts: cluster_pb2.ShardFacts,
    messages.PastFence: cluster_pb2.PastFence,
    messages.CheckpointEntry: checkpoints_pb2.Checkpoint,
    messages.Verdict: checkpoints_pb2.JobVerdict,
    messages.ChiefFacts: cluster_pb2.ChiefFacts,
    messages.EvaluatorFacts: cluster_pb2.EvaluatorFacts,
    messages.Report: cluster_pb2.Report,
    messages.ShardOrders: cluster_pb2.ShardOrders,
    messages.SaveResult: cluster_pb2.SaveResult,
    messages.PushCounts: cluster_pb2.PushCounts,
    messages.ChiefOrders: cluster_pb2.ChiefOrders,
    messages.Directive: cluster_pb2.Directive,
}
TEXT = st.text(st.characters(codec="utf-8"), max_size=6)
COUNTS = st.integers(0, 2**32 - 1)


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for one field, from its type."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        (kind,) = (one for one in typing.get_args(hint) if one is not type(None))
        return st.none() | values(kind)
    if hint == Fences:
        return st.dictionaries(TEXT, st.tuples(COUNTS, COUNTS), max_size=3)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is frozenset:
        return st.frozensets(values(arguments[0]), max_size=3)
    if origin is tuple:
        return st.lists(values(arguments[0]), max_size=3).map(tuple)
    if origin is not None:
        return st.dictionaries(values(arguments[0]), values(arguments[1]), max_size=3)
    if dataclasses.is_dataclass(hint):
        return instances(hint)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return st.sampled_from(hint)
    return {str: TEXT, bool: st.booleans(), int: COUNTS}[hint]


def instances(kind: Any) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(kind)
    return st.builds(kind, **{f.name: values(hints[f.name]) for f in dataclasses.fields(kind)})


def through(value: Any) -> Any:
    message = wire.fill(MESSAGES[type(value)](), value)
    parsed = type(message).FromString(message.SerializeToString())
    return wire.read(parsed, type(value))


def test_every_dataclass_of_the_protocol_is_tested_here() -> None:
    kinds = {
        kind
        for kind in vars(messages).values()
        if isinstance(kind, type)
        and dataclasses.is_dataclass(kind)
        and kind.__module__.startswith("psys.ps.")
    }
    assert kinds - {messages.ExchangeRequest, messages.ExchangeReply} == set(MESSAGES)


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_fields_of_dataclass_and_message_have_the_same_names(kind: Any) -> None:
    names = {field.name for field in dataclasses.fields(kind)}
    assert names == set(MESSAGES[kind].DESCRIPTOR.fields_by_name)


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_any_value_survives(kind: Any) -> None:
    @given(instances(kind))
    @settings(max_examples=60)
    def check(value: Any) -> None:
        assert through(value) == value

    check()


@pytest.mark.parametrize("kind", [Report, Directive])
def test_what_is_absent_stays_absent(kind: Any) -> None:
    required = {"task": "t", "instance": "i", "revision": 0} if kind is Report else {}
    assert through(kind(**required)) == kind(**required)


def test_no_cut_and_a_cut_of_nothing_are_told_apart() -> None:
    assert through(messages.ShardOrders(cut=None)).cut is None
    assert through(messages.ShardOrders(cut={})).cut == {}


@pytest.mark.parametrize(
    ("kind", "field"), [(Report, "phase"), (Directive, "standing"), (Directive, "job")]
)
@pytest.mark.parametrize("number", [0, 60])
def test_a_value_this_version_does_not_know_is_refused_in_words(
    kind: Any, field: str, number: int
) -> None:
    message = MESSAGES[kind](**{"phase": 1, field: number} if kind is Report else {})
    if kind is Directive:
        message.standing = message.job = 1
        setattr(message, field, number)
    with pytest.raises(ModelError, match=rf"{kind.__name__}\.{field}: unknown value {number}"):
        wire.read(message, kind)


def test_an_error_that_quotes_odd_bytes_can_be_told() -> None:
    report = Report("worker:0", "i", 1, reason="no file caf\udce9")
    assert through(report).reason == "no file caf?"
