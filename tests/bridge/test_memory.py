"""Memory that is freed and taken again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
from sprint_bridge.memory import keep_freed_memory
if "keep" in sys.argv:
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for turn in range(3):  # the first turns are what glibc learns from
    before = faults()
    for _ in range(20):
        messages = [bytes(1 << 20) for _ in range(8)]
        del messages
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc's")
def test_freed_memory_is_kept() -> None:
    kept, given_back = (
        int(
            subprocess.run([sys.executable, "-c", FAULTS, *arguments], capture_output=True, check=True).stdout
        )
        for arguments in (["keep"], [])
    )
    assert kept < 100 < 1000 < given_back
