"""`torch.export`: the criteria are operators of an exported program."""

from __future__ import annotations

import pytest
import torch

import seqtrain as st
from tests.ops.examples import random_ctc_batch, random_topology

pytestmark = [
    pytest.mark.torch2,  # torch.export
    # Torch's own exporter imports what torch itself has deprecated.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
]


class Ctc(torch.nn.Module):
    def forward(
        self, scores: torch.Tensor, targets: torch.Tensor, lengths: torch.Tensor, target_lengths: torch.Tensor
    ) -> torch.Tensor:
        return st.ctc_loss(scores, targets, lengths, target_lengths, normalize=True)


class Aligned(torch.nn.Module):
    """Posteriors, full sum and best path with fixed automata."""

    def __init__(self, graphs: st.fsa.FsaBatch) -> None:
        super().__init__()
        self.graphs = graphs

    def forward(self, scores: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (
            st.posteriors(scores, lengths, self.graphs),
            st.full_sum(scores, lengths, self.graphs),
            st.best_path(scores, lengths, self.graphs).labels,
        )


def operators(program: torch.export.ExportedProgram) -> set[str]:
    return {str(node.target) for node in program.graph.nodes if "seqtrain" in str(node.target)}


def test_ctc() -> None:
    arguments = tuple(random_ctc_batch(1))
    program = torch.export.export(Ctc(), arguments)
    assert operators(program) == {"seqtrain.ctc_loss.default"}
    assert torch.equal(program.module()(*arguments), Ctc()(*arguments))


def test_automata() -> None:
    scores, lengths, graphs = random_topology("hmm", 2)
    model = Aligned(graphs)
    program = torch.export.export(model, (scores, lengths))
    assert operators(program) == {f"seqtrain.{n}.default" for n in ("posteriors", "full_sum", "best_path")}
    for found, expected in zip(program.module()(scores, lengths), model(scores, lengths), strict=True):
        assert torch.equal(found, expected)
