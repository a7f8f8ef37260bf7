"""What a report says about the machine and the software that its figures come from."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

import seqtrain

__all__ = ["machine_facts"]


def machine_facts() -> dict[str, str]:
    """Name → value: the processor and its threads, the system, versions."""
    return {
        "Machine": f"{_processor()}, {torch.get_num_threads()} of {os.cpu_count()} threads, {platform.system()}",
        "Versions": f"seqtrain {seqtrain.__version__}, torch {torch.__version__}, Python {platform.python_version()}",
    }


def _processor() -> str:
    """The processor's name as Linux tells it, elsewhere its architecture."""
    description = Path("/proc/cpuinfo")
    if description.is_file():
        for line in description.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    return platform.machine()
