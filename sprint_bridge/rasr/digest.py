"""Digests of a RASR setup: what decides its automata, as far as it can be told from outside."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from seqtrain.errors import ConfigError

__all__ = ["describe_arguments", "file_digest"]

_CONFIG = "--config="


def file_digest(path: Path, *, key: str) -> str:
    """SHA-256 of a file's content, 64 hex digits.

    Raises:
        ConfigError: it can't be read; `key` is the configuration's key that named it.
    """
    content = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                content.update(chunk)
    except OSError as error:
        raise ConfigError(f"{key}: {path} can't be read: {error.strerror}", key=key) from error
    return content.hexdigest()


def describe_arguments(arguments: Sequence[str], files: Iterable[Path]) -> list[str]:
    """Arguments and files as a digest takes them: a configuration file counts by its content, not by its place.

    Raises:
        ConfigError: a file can't be read.
    """
    described = [
        _CONFIG + file_digest(Path(argument.removeprefix(_CONFIG)), key="arguments")
        if argument.startswith(_CONFIG)
        else argument
        for argument in arguments
    ]
    return described + [file_digest(path, key="digest_files") for path in files]
