"""The compiled kernels for this machine's processor."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

from seqtrain.errors import ConfigError

__all__ = ["KERNELS", "LEVEL"]

_FORCED = "SEQTRAIN_CPU_LEVEL"
_LEVELS = ("x86_64_v2", "x86_64_v3", "x86_64_v4")


def _choose() -> str:
    """The highest architecture level that the processor has; tests force a lower one by the environment."""
    found: str = importlib.import_module("seqtrain.ops._cpu_level").level()
    if found == "x86_64":
        raise ConfigError(
            "this processor lacks x86-64-v2 (SSE4.2), the least that the kernels are compiled for; a virtual machine "
            "may hide what its host has: let it pass the host's processor through",
            key="processor",
        )
    forced = os.environ.get(_FORCED)
    if forced is None:
        return found
    if forced != found and (forced not in _LEVELS or found not in _LEVELS or forced > found):
        usable = _LEVELS[: _LEVELS.index(found) + 1] if found in _LEVELS else (found,)
        raise ConfigError(
            f"{_FORCED}={forced!r}, but this processor runs {', '.join(usable)}; unset the variable to let "
            "seqtrain choose",
            key=_FORCED,
        )
    return forced


LEVEL: str = _choose()
KERNELS: ModuleType = importlib.import_module(f"seqtrain.ops._kernels_{LEVEL}")
