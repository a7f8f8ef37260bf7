"""Automata between processes, devices and page-locked memory."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch

import seqtrain as st
from seqtrain.fsa import FsaBatch
from tests.ops.examples import random_topology

TENSORS = (
    "arcs", "weights", "final_states", "final_weights", "starts", "num_states", "arc_offsets", "final_offsets",
)  # fmt: skip


def saved_and_loaded(batch: FsaBatch) -> FsaBatch:
    file = io.BytesIO()
    torch.save(batch, file)
    file.seek(0)
    loaded: FsaBatch = torch.load(file, weights_only=False)
    return loaded


@pytest.mark.parametrize(
    "travel", [copy.deepcopy, copy.copy, lambda batch: pickle.loads(pickle.dumps(batch)), saved_and_loaded]
)
def test_a_copy_computes_the_same(travel: object) -> None:
    scores, lengths, graphs = random_topology("hmm", 1)
    named = graphs.with_tags(["a", "b", "c"])
    found = travel(named)  # type: ignore[operator]  # a function, of whatever type
    assert found.tags == named.tags
    assert all(torch.equal(getattr(found, name), getattr(named, name)) for name in TENSORS)
    assert torch.equal(st.full_sum(scores, lengths, found), st.full_sum(scores, lengths, named))


def test_a_copy_of_trainable_weights_is_a_leaf_of_its_own() -> None:
    scores, lengths, graphs = random_topology("hmm", 2)
    weights = graphs.weights.clone().requires_grad_()
    found = copy.deepcopy(graphs.with_weights(weights))
    assert found.weights.requires_grad
    st.full_sum(scores, lengths, found).sum().backward()
    assert found.weights.grad is not None
    assert weights.grad is None


@pytest.mark.parametrize("non_blocking", [False, True])
def test_to(non_blocking: bool) -> None:
    _, _, graphs = random_topology("hmm", 3)
    assert graphs.to("cpu", non_blocking=non_blocking) is graphs
    moved = graphs.to("meta", non_blocking=non_blocking)
    assert moved.device == torch.device("meta")
    assert all(getattr(moved, name).device.type == "meta" for name in TENSORS)


def test_pinned_memory() -> None:
    """Torch pins memory for an accelerator alone; what can be seen without one is that it is asked to."""
    scores, lengths, graphs = random_topology("hmm", 4)
    # torch.accelerator came with 2.6.
    if not getattr(torch, "accelerator", torch.cuda).is_available():
        with pytest.raises(RuntimeError):
            graphs.pin_memory()
        return
    pinned = graphs.pin_memory()
    assert all(getattr(pinned, name).is_pinned() for name in TENSORS)
    assert torch.equal(st.full_sum(scores, lengths, pinned), st.full_sum(scores, lengths, graphs))
