"""Function transforms and forward mode under a torch that takes no operators into them: refused, no silent zero."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch

import seqtrain as st
from seqtrain import torch_versions
from seqtrain.errors import DerivativeError
from tests.ops.examples import random_ctc_batch, random_topology

# Torch loads its forward-mode rules with what torch itself has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

NAMES = ("ctc", "full sum", "posteriors", "arc weights", "best path")


def example(name: str) -> tuple[Callable[[torch.Tensor], torch.Tensor], torch.Tensor]:
    scores, *rest = random_ctc_batch(1)
    other, lengths, graphs = random_topology("hmm", 1)
    if name == "ctc":
        return lambda x: st.ctc_loss(x, *rest).sum(), scores
    if name == "arc weights":
        return lambda w: st.full_sum(other, lengths, graphs.with_weights(w)).sum(), graphs.weights.clone()
    function = {"full sum": st.full_sum, "posteriors": st.posteriors}.get(name)
    if function is None:
        return lambda x: st.best_path(x, lengths, graphs).score.sum(), other
    return lambda x: function(x, lengths, graphs).sum(), other


def transforms() -> Any:
    """torch.func, or the package that it was before torch 2.0."""
    return getattr(torch, "func", None) or importlib.import_module("functorch")


@pytest.fixture(autouse=True)
def older_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As before torch 2.0; where torch is that old, nothing changes."""
    monkeypatch.setattr(torch_versions, "HAS_TRANSFORMS", False)


@pytest.mark.parametrize("transform", ["grad", "vmap"])
@pytest.mark.parametrize("name", NAMES)
def test_function_transforms(name: str, transform: str) -> None:
    function, x = example(name)
    argument = x if transform == "grad" else torch.stack((x, x))
    reason = "operator" if name == "best path" else r"torch .* takes no operator into function transforms"
    with pytest.raises(DerivativeError, match=reason):
        getattr(transforms(), transform)(function)(argument)


@pytest.mark.parametrize("name", NAMES)
def test_forward_mode(name: str) -> None:
    function, x = example(name)
    reason = (
        "no forward-mode derivative" if name == "best path" else r"use torch\.autograd \(backward, grad\)"
    )
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, x)  # type: ignore[no-untyped-call]  # of torch
        with pytest.raises(DerivativeError, match=reason):
            function(dual)
