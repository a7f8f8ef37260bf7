"""The generated code is that of the protocol."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

from seqtrain.aligner.v1 import aligner_pb2, aligner_pb2_grpc

ROOT = Path(__file__).parents[2]
PROTO = "seqtrain/aligner/v1/aligner.proto"


def test_generated_code_matches_the_protocol(tmp_path: Path) -> None:
    out = tmp_path / "descriptors"
    include = files("grpc_tools") / "_proto"
    arguments = [
        f"--proto_path={ROOT / 'proto'}",
        f"--proto_path={include}",
        f"--descriptor_set_out={out}",
        PROTO,
    ]
    assert protoc.main(["protoc", *arguments]) == 0
    (described,) = FileDescriptorSet.FromString(out.read_bytes()).file
    generated = FileDescriptorProto.FromString(aligner_pb2.DESCRIPTOR.serialized_pb)
    for file in (described, generated):
        for message in file.message_type:
            for field in message.field:
                field.ClearField("json_name")  # some compilers write the default down
    assert generated == described, "run proto/generate.py"


def test_every_rpc_has_a_stub_and_says_its_status_codes() -> None:
    service = aligner_pb2.DESCRIPTOR.services_by_name["Aligner"]
    text = (ROOT / "proto" / PROTO).read_text(encoding="utf-8")
    for method in service.methods:
        assert hasattr(aligner_pb2_grpc.AlignerServicer, method.name)
        comment = text[: text.index(f"rpc {method.name}(")].rpartition("\n\n")[2]
        for status in ("OK", "UNAVAILABLE", "DEADLINE_EXCEEDED"):
            assert f"//   {status} " in comment or f"//   {status}\n" in comment, (method.name, status)
