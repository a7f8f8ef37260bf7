from __future__ import annotations

import platform

import torch

import seqtrain
from seqtrain.training.report.machine import machine_facts


def test_facts_name_processor_threads_and_versions() -> None:
    facts = machine_facts()
    assert list(facts) == ["Machine", "Versions"]
    assert f", {torch.get_num_threads()} of " in facts["Machine"]
    assert not facts["Machine"].startswith(",")
    assert facts["Versions"] == (
        f"seqtrain {seqtrain.__version__}, torch {torch.__version__}, Python {platform.python_version()}"
    )
