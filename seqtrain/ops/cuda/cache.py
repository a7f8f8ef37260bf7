"""Compiled kernels on disk, shared by all processes of a user.

A file is named by the digest of all that went into it and begins with the digest of what follows, so that a file that
was damaged is compiled again. It's renamed into place when it is whole: of processes that compile at once, the last
wins, with the same content.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from seqtrain.files import replace_file
from seqtrain.ops.cuda.compiler import Compiler
from seqtrain.ops.cuda.source import OPTIONS, Source

__all__ = ["cache_directory", "cache_key", "compiled"]


def cache_directory() -> Path:
    """The user's directory for caches (XDG base directories), `seqtrain/cuda` in it."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "seqtrain" / "cuda"


def cache_key(text: Source, target: str, options: tuple[str, ...], version: str) -> str:
    """Hexadecimal digest of source, architecture, options and compiler."""
    digest = hashlib.sha256()
    for part in (version, target, *options, text.main, *(x for item in text.headers.items() for x in item)):
        data = part.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def _read(path: Path) -> bytes | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    head, image = content[:32], content[32:]
    return image if hashlib.sha256(image).digest() == head else None


def _write(path: Path, image: bytes) -> None:
    # Without a place to write to, each process compiles for itself.
    with contextlib.suppress(OSError):
        replace_file(path, hashlib.sha256(image).digest() + image)


def compiled(compiler: Compiler, text: Source, capability: int, directory: Path) -> bytes:
    """The image for a device of this compute capability (90: 9.0), from `directory` or compiled into it."""
    target = compiler.target(capability)
    path = directory / f"{cache_key(text, target, OPTIONS, compiler.version)}.{target}"
    image = _read(path)
    if image is None:
        image = compiler.compile(text, target, OPTIONS).image
        _write(path, image)
    return image
