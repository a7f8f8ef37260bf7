"""The operators on CUDA tensors: the kernels of csrc/cuda, compiled when first used. Importing needs no CUDA.

Fake kernels and derivatives are those of the CPU's operators; only what is computed where differs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from seqtrain.errors import CudaError
from seqtrain.ops.cuda import best_path, ctc, denominator, full_sum, lattice_total, risk
from seqtrain.ops.cuda.runtime import Runtime, runtime
from seqtrain.ops.library import LIBRARY

__all__ = ["IMPLEMENTATIONS", "register"]

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


def register(library: Any, key: str, runtime_of: Callable[[torch.device], Runtime]) -> None:
    """Makes the operators of `library` run here for tensors of the dispatch key."""

    def bind(implementation: Callable[..., Any]) -> Callable[..., Any]:
        def run(*inputs: Any) -> Any:
            device = next(x.device for x in inputs if isinstance(x, torch.Tensor))
            return implementation(runtime_of(device), *inputs)

        return run

    for name, implementation in IMPLEMENTATIONS.items():
        library.impl(name, bind(implementation), key)


def _runtime_now(device: torch.device) -> Runtime:
    if torch.cuda.is_current_stream_capturing():
        raise CudaError(
            "seqtrain's operators look at lengths and targets in host memory and can't be captured in a CUDA graph "
            "yet: compute the loss outside of the capture",
            call="cudaStreamBeginCapture",
        )
    return runtime(device)


register(LIBRARY, "CUDA", _runtime_now)
