"""Imports run one way."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALLOWED = {
    # The server knows the wire format, automata, lexicon and kernels; nothing that trains, and not the client.
    "sprint_bridge": (
        "sprint_bridge",
        "errors",
        "fsa",
        "lexicon",
        "functional",
        "scores",
        "align.sprint_cache",
        # Of the PocketSphinx engine, which reads audio, in a worker process.
        "align.pocketsphinx",
        "align.resample",
        "data.audio",
        "data.manifest",
        "data.utterance",
        "aligner.v1",
        # Of recordings: what a client does to check an answer.
        "aligner.answers",
    ),
    # The client knows the wire format and the automata; and the label inventory, which it hands out.
    "seqtrain/aligner": ("errors", "files", "fsa", "aligner", "lexicon.inventory"),
    "seqtrain/aligner/v1": ("errors", "fsa", "aligner.v1"),
    "seqtrain/lexicon": ("errors", "files", "fsa", "lexicon"),
}
# What only the part that needs it may import.
EXTERNAL = {
    "sprint_bridge": {
        "google",
        "grpc",
        "grpc_health",
        "grpc_reflection",
        "numpy",
        "prometheus_client",
        "torch",
        "yaml",
    },
    "seqtrain/aligner": {"google", "grpc", "numpy", "torch"},
    "seqtrain/aligner/v1": {"grpc", "grpc_health", "numpy"},
    "seqtrain/lexicon": {"numpy", "torch"},
}


def imported(path: Path) -> set[str]:
    """Modules that a file imports, a package's own names included (`from seqtrain import errors`)."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            module = node.module or ""
            whole = module in ("seqtrain", "seqtrain.aligner")
            found.update(f"{module}.{alias.name}" for alias in node.names) if whole else found.add(module)
    return found


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_run_one_way(package: str) -> None:
    folder = ROOT / package
    files = [*folder.glob("*.py")] if package == "seqtrain/aligner" else [*folder.rglob("*.py")]
    files = [path for path in files if not path.stem.endswith(("_pb2", "_pb2_grpc"))]
    assert files
    prefixes = [name if name == "sprint_bridge" else f"seqtrain.{name}" for name in ALLOWED[package]]
    for path in files:
        for module in imported(path):
            top = module.partition(".")[0]
            if top in ("seqtrain", "sprint_bridge"):
                assert any(f"{module}.".startswith(f"{prefix}.") for prefix in prefixes), (path, module)
            else:
                assert top in sys.stdlib_module_names | EXTERNAL[package], (path, module)
