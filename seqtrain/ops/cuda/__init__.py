"""The operators on CUDA tensors: the kernels of csrc/cuda, compiled when first used. Importing needs no CUDA.

Fake kernels and derivatives are those of the CPU's operators; only what is computed where differs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from seqtrain.capture import refuse_capture
from seqtrain.ops.cuda import best_path, ctc, denominator, full_sum, lattice_total, risk
from seqtrain.ops.cuda.runtime import Runtime, runtime
from seqtrain.ops.library import LIBRARY

__all__ = ["call", "register"]

IMPLEMENTATIONS: dict[str, Callable[..., Any]] = {
    "best_path": best_path.forward,
    "ctc_loss": ctc.forward,
    "ctc_loss_backward": ctc.backward,
    "ctc_loss_backward_into": ctc.backward_into,
    "denominator": denominator.forward,
    "denominator_scores_backward": full_sum.scores_backward,
    "denominator_scores_backward_into": full_sum.scores_backward_into,
    "denominator_weights_backward": full_sum.weights_backward,
    "full_sum": full_sum.forward,
    "full_sum_gradient": full_sum.gradient,
    "full_sum_scores_backward": full_sum.scores_backward,
    "full_sum_scores_backward_into": full_sum.scores_backward_into,
    "full_sum_tangents": full_sum.tangents,
    "full_sum_weights_backward": full_sum.weights_backward,
    "lattice_risk": risk.forward,
    "lattice_risk_risks_backward": risk.risks_backward,
    "lattice_risk_weights_backward": risk.weights_backward,
    "lattice_total": lattice_total.forward,
    "lattice_total_backward": lattice_total.backward,
    "posteriors": full_sum.posteriors,
}
"""Of each operator: the function to call with a `Runtime` and then the operator's arguments."""

_AUTOMATA = (
    "automata are laid out in host memory in each call",
    "compute it outside of the capture; CTC on targets (ctc_loss) and sums over one Fsa that all utterances share can "
    "be captured",
)
_LATTICES = ("lattices are checked in host memory in each call", "compute it outside of the capture")
_REFUSED = {
    "best_path": ("best_path", *_AUTOMATA),
    "full_sum": ("full_sum over automata of each utterance", *_AUTOMATA),
    "lattice_risk": ("lattice.expected_risk", *_LATTICES),
    "lattice_total": ("lattice.total_score", *_LATTICES),
    "posteriors": ("posteriors of automata of each utterance", *_AUTOMATA),
}


def call(name: str, on: Runtime, *inputs: Any) -> Any:
    """The operator; raises CudaError where it's captured in a CUDA graph and can't be."""
    if name in _REFUSED:
        refuse_capture(on.device, *_REFUSED[name])
    return IMPLEMENTATIONS[name](on, *inputs)


def register(library: Any, key: str, runtime_of: Callable[[torch.device], Runtime]) -> None:
    """Makes the operators of `library` run here for tensors of the dispatch key."""

    def bind(name: str) -> Callable[..., Any]:
        def run(*inputs: Any) -> Any:
            device = next(x.device for x in inputs if isinstance(x, torch.Tensor))
            return call(name, runtime_of(device), *inputs)

        return run

    for name in IMPLEMENTATIONS:
        library.impl(name, bind(name), key)


register(LIBRARY, "CUDA", runtime)
