"""What RETURNN itself computed comes out here, and a difference doesn't go unseen."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqtrain.cli import main
from seqtrain.compat.returnn.parity import read_cases, run_case
from seqtrain.errors import DataError

GOLDENS = Path(__file__).parents[2] / "goldens" / "returnn"
CASES = read_cases(GOLDENS)
NOT_RUN = {
    "expected_real_search": "layer 'rec' is of class 'rec'",
    "sampling_nce_random": "random samples that weren't recorded",
}


@pytest.mark.parametrize("name", sorted(set(CASES) - set(NOT_RUN)))
def test_case(name: str) -> None:
    result = run_case(GOLDENS, name, CASES[name])
    assert (result.status, result.details) == ("ok", ())
    recorded = [
        key
        for key in CASES[name]["arrays"]
        if key in ("value", "error", "norm_factor", "objective") or key.startswith("grad_")
    ]
    assert result.compared >= max(1, len(recorded))


@pytest.mark.parametrize("name", sorted(NOT_RUN))
def test_cases_that_cannot_be_run_say_why(name: str) -> None:
    result = run_case(GOLDENS, name, CASES[name])
    assert result.status == "skipped"
    assert NOT_RUN[name] in result.details[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two cases, to be spoilt."""
    for name in ("ce_default", "edit_distance_default"):
        shutil.copy(GOLDENS / f"{name}.npz", tmp_path)
    cases = {name: CASES[name] for name in ("ce_default", "edit_distance_default")}
    (tmp_path / "index.json").write_text(json.dumps({"cases": cases}))
    return tmp_path


def change(path: Path, **changes: Any) -> None:
    with np.load(path) as file:
        arrays = dict(file)
    arrays |= {key: function(arrays[key]) for key, function in changes.items()}
    np.savez(path, **arrays)


def test_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["returnn-parity", str(folder)]) == 0
    assert capsys.readouterr().out == "2 ok, 0 different, 0 skipped\n"
    assert main(["returnn-parity", str(folder), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["ok"], printed["different"], printed["skipped"]) == (2, 0, 0)
    assert printed["cases"][0]["name"] == "ce_default"


@pytest.mark.parametrize("key", ["value", "error", "norm_factor", "objective", "grad_data"])
def test_any_number_that_differs_is_a_difference(
    folder: Path, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(folder / "ce_default.npz", **{key: lambda array: array * 1.001 + 1e-3})
    assert main(["returnn-parity", str(folder)]) == 1
    out = capsys.readouterr().out
    assert f"different: ce_default: {key}[" in out
    assert out.endswith("1 ok, 1 different, 0 skipped\n")


def test_a_case_that_fails_is_a_difference_and_the_others_go_on(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(folder / "ce_default.npz", in_classes=lambda array: array + 6)
    assert main(["returnn-parity", str(folder)]) == 1
    out = capsys.readouterr().out
    assert "different: ce_default: LabelError: targets of utterance 0 hold" in out
    assert "1 ok, 1 different, 0 skipped" in out


def test_folders_that_hold_no_cases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["returnn-parity", str(tmp_path)]) == 2
    assert "index.json isn't an index of cases" in capsys.readouterr().err
    (tmp_path / "index.json").write_text(json.dumps({"cases": {"gone": {"kind": "layer"}}}))
    with pytest.raises(DataError, match=r"lists the case 'gone', but its file is missing"):
        read_cases(tmp_path)


def test_cases_of_an_unknown_kind_are_skipped(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = json.loads((folder / "index.json").read_text())
    index["cases"]["ce_default"]["kind"] = "dream"
    (folder / "index.json").write_text(json.dumps(index))
    assert main(["returnn-parity", str(folder)]) == 0
    assert "skipped: ce_default: cases of kind 'dream' are unknown" in capsys.readouterr().out
