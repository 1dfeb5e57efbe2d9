"""The committed generated code is what the protos say, and the protos keep their own rules."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2

PROTOS = Path(__file__).resolve().parent.parent / "protos"
FILES = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))


def committed(name: str) -> Any:
    """Return the descriptor in the committed code of a proto file."""
    module = importlib.import_module(name.removesuffix(".proto").replace("/", ".") + "_pb2")
    return descriptor_pb2.FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generate all code again, where the pinned generator is installed."""
    pytest.importorskip(
        "grpc_tools", reason="needs the pinned generator: pip install '.[protos]' (CI does)"
    )
    spec = importlib.util.spec_from_file_location("generate", PROTOS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    output = tmp_path_factory.mktemp("generated")
    generate.generate(output)
    return output


def serialized(code: Path) -> Any:
    """Return the descriptor in generated code, without importing it a second time."""
    match = re.search(r"AddSerializedFile\((b'.*')\)", code.read_text())
    assert match is not None, f"{code} has no serialized descriptor"
    return descriptor_pb2.FileDescriptorProto.FromString(ast.literal_eval(match[1]))


def test_there_are_protos() -> None:
    assert len(FILES) >= 5


@pytest.mark.parametrize("name", FILES)
def test_committed_code_describes_what_the_proto_says(generated: Path, name: str) -> None:
    again = serialized(generated / (name.removesuffix(".proto") + "_pb2.py"))
    assert again == committed(name), "run: python protos/generate.py"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("suffix", ["_pb2.py", "_pb2.pyi", "_pb2_grpc.py"])
def test_committed_files_are_what_the_generator_writes(
    generated: Path, name: str, suffix: str
) -> None:
    file = name.removesuffix(".proto") + suffix
    assert (PROTOS.parent / file).read_text() == (generated / file).read_text()


def test_no_generated_file_is_left_over(generated: Path) -> None:
    v1 = Path("psys/rpc/v1")
    there = {path.name for path in (PROTOS.parent / v1).glob("*_pb2*")}
    assert there == {path.name for path in (generated / v1).glob("*_pb2*")}


# ---------------------------------------------------------------- the rules of protos/README.md


@pytest.mark.parametrize("name", FILES)
def test_one_package_and_zeros_are_unspecified(name: str) -> None:
    file = committed(name)
    assert (file.package, file.syntax) == ("psys.rpc.v1", "proto3")
    for enum in file.enum_type:
        zero = enum.value[0]
        assert zero.number == 0
        assert zero.name.endswith("_UNSPECIFIED")


def test_every_call_has_a_request_and_a_response_of_its_own() -> None:
    seen: set[str] = set()
    for name in FILES:
        for service in committed(name).service:
            for method in service.method:
                types = {method.input_type, method.output_type}
                assert not types & seen
                seen |= types
                assert method.input_type == f".psys.rpc.v1.{method.name}Request"
                assert method.output_type == f".psys.rpc.v1.{method.name}Response"


def test_frames_hold_their_header_and_bulk_where_the_codec_looks() -> None:
    from psys.rpc.v1 import gradients_pb2, shard_pb2

    for message in (
        gradients_pb2.ExchangeRequest,
        gradients_pb2.ExchangeResponse,
        shard_pb2.LoadSlicesRequest,
    ):
        fields = {field.number: field for field in message.DESCRIPTOR.fields}
        assert sorted(fields) == [1, 15]
        assert fields[1].message_type is not None
        assert fields[15].name == "bulk"
        assert fields[15].type == fields[15].TYPE_BYTES


def test_the_paths_the_codec_calls_are_those_of_the_protos() -> None:
    from psys.rpc import codec, load_codec
    from psys.rpc.v1 import gradients_pb2, shard_pb2

    for path, module in ((codec.EXCHANGE, gradients_pb2), (load_codec.LOAD_SLICES, shard_pb2)):
        _, service, method = path.split("/")
        described = module.DESCRIPTOR.services_by_name[service.rpartition(".")[2]]
        assert described.full_name == service
        assert method in described.methods_by_name


def test_enums_on_the_wire_are_one_more_than_in_python() -> None:
    from psys.ps import messages
    from psys.rpc.v1 import cluster_pb2, gradients_pb2

    for kind, wire, prefix in (
        (messages.Outcome, gradients_pb2.Outcome, "OUTCOME"),
        (messages.Grant, gradients_pb2.Grant, "GRANT"),
        (messages.TaskPhase, cluster_pb2.TaskPhase, "TASK_PHASE"),
        (messages.ShardPhase, cluster_pb2.ShardPhase, "SHARD_PHASE"),
        (messages.Standing, cluster_pb2.Standing, "STANDING"),
        (messages.JobPhase, cluster_pb2.JobPhase, "JOB_PHASE"),
    ):
        ours = {f"{prefix}_{one.name}": one.value + 1 for one in kind}
        assert {**ours, f"{prefix}_UNSPECIFIED": 0} == dict(wire.items())
