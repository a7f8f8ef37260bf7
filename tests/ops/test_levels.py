"""The kernels of every architecture level that this processor runs, against the reference."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from seqtrain.ops.kernels import LEVEL

LEVELS = ("x86_64_v2", "x86_64_v3", "x86_64_v4")

PROGRAM = """
import sys
from seqtrain.ops.kernels import LEVEL
from tests.ops.examples import DTYPES, random_batch, random_ctc_batch, random_topology
from tests.ops.exact import (
    assert_best_path_exact, assert_ctc_exact, assert_full_sum_exact, assert_posteriors_exact
)

assert LEVEL == sys.argv[1], LEVEL
for seed, dtype in enumerate(DTYPES * 2):
    for batch in (random_batch(seed, states=35, arcs=200, dtype=dtype), random_topology("hmm", seed, dtype=dtype)):
        assert_full_sum_exact(*batch)
        assert_best_path_exact(*batch)
        assert_posteriors_exact(*batch)
    for labels in (7, 130):
        batch = random_ctc_batch(seed, labels=labels, targets=19, frames=50, dtype=dtype)
        assert_ctc_exact(batch, normalize=True)
        assert_ctc_exact(batch, normalize=False)
print("agrees with the reference")
"""


def run(level: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python with the kernels of a level."""
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"SEQTRAIN_CPU_LEVEL": level},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def usable() -> tuple[str, ...]:
    """Levels of this processor; the one that is chosen anyway has the whole suite."""
    return LEVELS[: LEVELS.index(LEVEL) + 1] if LEVEL in LEVELS else (LEVEL,)


@pytest.mark.parametrize("level", usable())
def test_level(level: str) -> None:
    result = run(level, "-c", PROGRAM, level)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "agrees with the reference\n"


@pytest.mark.parametrize("level", ["x86_64_v9", "portable2", ""])
def test_a_level_that_is_not_there(level: str) -> None:
    result = run(level, "-c", "import seqtrain")
    assert result.returncode == 1
    assert f"ConfigError: SEQTRAIN_CPU_LEVEL={level!r}, but this processor runs" in result.stderr
    assert "unset the variable to let seqtrain choose" in result.stderr
