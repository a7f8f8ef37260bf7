"""The check of the protocol: it passes, and it catches what is planted."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PROTO = "seqtrain/aligner/v1/aligner.proto"


def load() -> ModuleType:
    """proto/ is a folder of tools and no package."""
    specification = importlib.util.spec_from_file_location("proto_check", ROOT / "proto" / "check.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


tool = load()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy to spoil."""
    shutil.copytree(
        ROOT / "proto", tmp_path / "proto", ignore=shutil.ignore_patterns("*.py", "__pycache__", "*.txt")
    )
    return tmp_path / "proto"


def test_the_protocol_is_well_formed_and_breaks_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["check.py"])
    assert tool.main() == 0, capsys.readouterr().out
    assert "breaks nothing" in capsys.readouterr().out


def spoil(folder: Path, before: str, after: str) -> None:
    path = folder / PROTO
    text = path.read_text(encoding="utf-8")
    assert text.count(before) >= 1, f"{before!r} isn't in the protocol any more"
    path.write_text(text.replace(before, after, 1), encoding="utf-8")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("  uint32 max_name_length = 2;", "", "Previously present field \"2\" with name \"max_name_length\""),
        ("uint32 max_name_length = 2;", "uint32 max_name_length = 20;", "Previously present field \"2\""),
        ("uint32 max_batch = 1;", "string max_batch = 1;", "changed type from \"uint32\" to \"string\""),
        ("uint32 max_batch = 1;", "repeated uint32 max_batch = 1;", "changed cardinality"),
        ("uint32 max_batch = 1;", "uint32 most = 1;", "changed name from \"max_batch\" to \"most\""),
        ("ITEM_CODE_CRASHED = 6;", "ITEM_CODE_DIED = 6;", "changed name from \"ITEM_CODE_CRASHED\""),
        ("  ITEM_CODE_SKIPPED = 8;", "", "Previously present enum value \"8\""),
        ("rpc UnregisterSharedMemory(", "rpc ForgetSharedMemory(", "Previously present RPC \"UnregisterSharedMemory\""),
        ("returns (stream GetAlignmentsResponse)", "returns (GetAlignmentsResponse)", "server streaming"),
        ("package seqtrain.aligner.v1;", "package seqtrain.aligner.v2;", "package"),
        ("    bytes raw = 3;", "    bytes raw = 1;", "used more than once"),
    ],
)  # fmt: skip
def test_what_breaks_clients_is_caught(folder: Path, before: str, after: str, message: str) -> None:
    spoil(folder, before, after)
    problems = "\n".join(tool.check(folder))
    assert message in problems, problems


def test_what_breaks_clients_doesnt_become_right_by_being_accepted(folder: Path) -> None:
    spoil(folder, "uint32 max_batch = 1;", "string max_batch = 1;")
    baseline = (folder / tool.BASELINE).read_text(encoding="utf-8")
    assert tool.check(folder, accept=True)
    assert (folder / tool.BASELINE).read_text(encoding="utf-8") == baseline


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("  D_TYPE_UNSPECIFIED = 0;", "  D_TYPE_NONE = 0;", "suffixed with \"_UNSPECIFIED\""),
        ("  D_TYPE_FLOAT16 = 5;", "  D_TYPE_FLOAT16 = 5;\n  FLOAT8 = 6;", "prefixed with \"D_TYPE_\""),
        ("uint64 max_score_bytes = 7;", "uint64 maxScoreBytes = 7;", "lower_snake_case"),
        ("message RegisterSharedMemoryResponse {}", "message RegisterSharedMemoryResponse {}\nmessage bad_name {}",
         "PascalCase"),
        ("rpc GetServerInfo(GetServerInfoRequest)", "rpc GetServerInfo(ItemKey)",
         "should be named \"GetServerInfoRequest\""),
        ("package seqtrain.aligner.v1;", "package seqtrain.aligner;",
         "should be suffixed with a correctly formed version"),
    ],
)  # fmt: skip
def test_what_is_badly_named_is_caught(folder: Path, before: str, after: str, message: str) -> None:
    spoil(folder, before, after)
    problems = "\n".join(tool.check(folder))
    assert message in problems, problems


def test_what_an_rpc_doesnt_say_is_caught(folder: Path) -> None:
    comment = "  //   UNAVAILABLE        not reachable, loading"
    spoil(folder, comment, "  //   UNREACHABLE        not reachable, loading")
    assert [problem.partition("rpc ")[2] for problem in tool.check(folder)] == [
        "GetServerInfo doesn't say when it ends with UNAVAILABLE",
        "GetServerInfo lists UNREACHABLE, which is no status code",
    ]
    spoil(folder, "service Aligner {", "service Aligner {\n  rpc Mute(MuteRequest) returns (MuteResponse);\n")
    spoil(
        folder,
        "message GetServerInfoRequest {}",
        "message GetServerInfoRequest {}\nmessage MuteRequest {}\nmessage MuteResponse {}",
    )
    problems = tool.check(folder)
    assert any('RPC "Mute" should have a non-empty comment' in problem for problem in problems), problems
    assert any("rpc Mute doesn't say when it ends with OK" in problem for problem in problems), problems


def test_additions_are_fine_once_they_are_in_the_baseline(folder: Path) -> None:
    spoil(folder, "  D_TYPE_FLOAT16 = 5;", "  D_TYPE_FLOAT16 = 5;\n  D_TYPE_BFLOAT16 = 6;")
    assert tool.check(folder) == ["baseline.json lacks additions; run proto/check.py --accept"]
    assert tool.check(folder, accept=True) == []
    assert tool.check(folder) == []
    # From then on it can't go again.
    spoil(folder, "\n  D_TYPE_BFLOAT16 = 6;", "")
    assert 'Previously present enum value "6"' in "\n".join(tool.check(folder))
    # Unless its number is reserved: FILE is stricter than that, and says so.
    spoil(folder, "  D_TYPE_FLOAT16 = 5;", "  D_TYPE_FLOAT16 = 5;\n  reserved 6;")
    assert tool.check(folder)
    (folder / tool.BASELINE).unlink()
    assert tool.check(folder) == ["there is no baseline.json; run proto/check.py --accept"]
