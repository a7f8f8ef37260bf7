"""`seqtrain doctor`."""

from __future__ import annotations

import json

import pytest

from seqtrain.cli import doctor, main


def test_names_versions_level_threads_and_optional_parts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"seqtrain", "torch", "numpy", "python"} <= set(found["versions"])
    assert found["cpu_level"].startswith("x86_64_v") or found["cpu_level"] == "portable"
    assert found["threads"] >= 1
    assert found["optional"]["grpcio"] is not None
    assert found["healthy"]
    assert 0 < found["kernel_error"] < 1e-6


def test_a_wrong_kernel_shows(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "_kernel_error", lambda: 0.1)
    assert main(["doctor"]) == 1
    assert "WRONG: gradient differs from float64 by 1.0e-01" in capsys.readouterr().out


def test_a_missing_part_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "_version", lambda distribution, module: None)
    assert main(["doctor"]) == 0
    assert "not installed (extra bridge)" in capsys.readouterr().out
