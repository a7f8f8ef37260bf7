"""Expected risk of lattices: where a `Lattice` meets the operator."""

from __future__ import annotations

import torch

from seqtrain.errors import DeviceError, DtypeError, Infeasible, InfeasibleError, ShapeError
from seqtrain.infeasible import InfeasibleCount, handle, report
from seqtrain.lattice.lattice import Lattice
from seqtrain.lattice.total_score import check_summable
from seqtrain.ops.risk import lattice_risk
from seqtrain.scores import FLOATS, check_derivative, check_policy
from seqtrain.torch_versions import is_compiling

__all__ = ["expected_risk"]


def expected_risk(
    lattice: Lattice,
    risks: torch.Tensor,
    final_risks: torch.Tensor | None = None,
    *,
    on_infeasible: str = "raise",
    infeasible: InfeasibleCount | None = None,
) -> torch.Tensor:
    """Risk that is expected of a path: Σ_π p(π) (Σ of the risks of its arcs + the risk of its final state). Exact.

    p(π) = exp(score(π) - total score). Computed in float64 by (probability, risk) pairs in one sweep over the arcs, and
    one more for the gradients, which reach the lattice's weights (and through them the scores) and the risks. Equation:
    `seqtrain.reference.expected_risk`. A constant added to the risk of every path moves the value alone.

    Args:
        lattice: of B utterances.
        risks: (ΣA,) float, the risk of each arc, any sign; minus an accuracy does as well.
        final_risks: (ΣF,) of the final states; None: 0.
        on_infeasible: what to do with an utterance without a path: "raise" InfeasibleError naming all of them, "mask"
            (value 0, gradient 0), or "inf" (value inf, gradient 0).
        infeasible: counts the utterances that were masked.

    Returns:
        (B,) float64 where weights or risks are, else float32; smaller is better.

    Raises:
        InfeasibleError, ShapeError, DtypeError, DeviceError, ArgumentError. NonFiniteScoresError: a risk is NaN or
        infinite (`frame` is the arc). FsaError: a weight is NaN or above 4e7. DerivativeError: when the gradient is
        differentiated again.
    """
    check_summable(lattice)
    check_policy(on_infeasible)
    if final_risks is None:
        final_risks = torch.zeros_like(lattice.final_weights)
    for argument, tensor, like in (
        ("risks", risks, lattice.weights),
        ("final_risks", final_risks, lattice.final_weights),
    ):
        if not isinstance(tensor, torch.Tensor) or tensor.dtype not in FLOATS:
            kind = tensor.dtype if isinstance(tensor, torch.Tensor) else type(tensor).__name__
            raise DtypeError(f"{argument} must be a tensor of floats, got {kind}", argument=argument)
        if tensor.shape != like.shape:
            raise ShapeError(
                f"{argument} must have shape {tuple(like.shape)}, one of each weight, got {tuple(tensor.shape)}",
                argument=argument,
            )
        if tensor.device != lattice.device:
            raise DeviceError(
                f"{argument} is on {tensor.device}, the lattice on {lattice.device}", argument=argument
            )
    inputs = (lattice.weights, lattice.final_weights, risks, final_risks)
    check_derivative(*inputs)
    graphs = lattice.to_fsa()
    with_gradient = torch.is_grad_enabled() and any(t.requires_grad for t in inputs)
    arguments = (
        graphs.arcs, graphs.weights, graphs.arc_offsets, graphs.final_states, graphs.final_weights,
        graphs.final_offsets, graphs.starts, graphs.num_states, risks, final_risks, with_gradient, on_infeasible,
        handle(infeasible),
    )  # fmt: skip
    value: torch.Tensor
    if is_compiling():
        value = lattice_risk(*arguments)[0]
        return value
    try:
        value, *_, status = lattice_risk(*arguments)
    except InfeasibleError as error:
        raise InfeasibleError(
            [
                Infeasible(
                    u.index,
                    None if lattice.tags is None else lattice.tags[u.index],
                    int(lattice.lengths[u.index]),
                    None,
                    u.reason,
                )
                for u in error.utterances
            ]
        ) from None
    report(status, lattice.tags, infeasible, on_infeasible)
    return value
