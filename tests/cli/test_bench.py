"""`seqtrain bench`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from seqtrain.cli import main


def test_unknown_benchmark_lists_the_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "ctx"]) == 2
    assert (
        capsys.readouterr().err
        == "seqtrain: unknown benchmark 'ctx'; there are: ctc, full_sum, denominator, lattice, risk, bridge\n"
    )


def test_each_benchmark_is_run_with_the_options_given_and_the_first_failure_ends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commands = []

    def run(command: list[str], *, check: bool) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 3 if "benchmarks.ctc" in command else 0)

    monkeypatch.setattr(subprocess, "run", run)
    options = ["--turns=1", "--threads", "1", "2", "--json"]
    assert main(["bench", "full_sum", "ctc", "risk", *options]) == 3
    assert commands == [
        [sys.executable, "-m", f"benchmarks.{name}", *options] for name in ("full_sum", "ctc")
    ]


def test_full_sum_prints_a_row_for_each_contender() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.full_sum", "--turns=1", "--threads=1", "--frames=150", "--json"],
        cwd=Path(__file__).resolve().parents[2], capture_output=True, text=True, check=True,
    )  # fmt: skip
    table = json.loads(done.stdout)
    rows = {row["contender"]: row for row in table["rows"]}
    assert set(rows) == {
        "seqtrain, compact", "seqtrain, reused", "seqtrain, fresh", "seqtrain, Hessian-vector", "torch, by hand",
    }  # fmt: skip
    assert rows["seqtrain, fresh"]["largest gradient error"] < 5e-6
    assert rows["seqtrain, Hessian-vector"]["largest gradient error"] < 5e-6
    assert rows["seqtrain, Hessian-vector"]["this / gradient"] > 1
    assert table["machine"]["processor"]
