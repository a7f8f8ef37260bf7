"""Exact minimum Bayes risk over lattices: sMBR, MPE, MPFE, and the expected edit distance.

The risk is expected with the probabilities that the lattice gives its paths, in one sweep (`seqtrain.lattice.
expected_risk`); what the arcs cost is `seqtrain.lattice.frame_accuracy`, `overlap_accuracy` or `edit_risk`, or anything
else. The gradient reaches what scored the lattice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from seqtrain.errors import ArgumentError
from seqtrain.infeasible import InfeasibleCount
from seqtrain.lattice.accuracy import frame_accuracy, overlap_accuracy
from seqtrain.lattice.edit_risk import edit_risk
from seqtrain.lattice.lattice import Lattice
from seqtrain.lattice.risk import expected_risk
from seqtrain.lattice.total_score import check_summable
from seqtrain.losses.reduction import check_reduction, reduce
from seqtrain.scores import check_policy

__all__ = ["LatticeRiskLoss", "lattice_risk_loss"]

_COSTS = ("given", "frame_accuracy", "overlap_accuracy", "edit")


def lattice_risk_loss(
    lattice: Lattice,
    risks: torch.Tensor,
    final_risks: torch.Tensor | None = None,
    *,
    scale: float = 1.0,
    reduction: str = "none",
    target_lengths: torch.Tensor | None = None,
    on_infeasible: str = "raise",
    infeasible: InfeasibleCount | None = None,
) -> torch.Tensor:
    """`seqtrain.lattice.expected_risk`, with a scale of the lattice's scores and a reduction.

    Args:
        scale: factor of all log weights, > 0: below 1 it evens the paths' probabilities out (κ of the literature).
        reduction: "none", "sum", "batch", "frames" or "targets".
        target_lengths: (B,) int, the divisor of "targets"; else not used.

    The other arguments and the errors are those of `expected_risk`.

    Returns:
        (B,) expected risks, or their reduction; smaller is better.
    """
    check_reduction(reduction)
    _check_scale(scale)
    if scale != 1.0:
        lattice = lattice.with_weights(lattice.weights * scale, lattice.final_weights * scale)
    risk = expected_risk(lattice, risks, final_risks, on_infeasible=on_infeasible, infeasible=infeasible)
    return reduce(risk, reduction, lengths=lattice.lengths, target_lengths=target_lengths)


def _check_scale(scale: float) -> None:
    if not 0 < scale < float("inf"):
        raise ArgumentError(f"scale must be finite and above 0, got {scale}", argument="scale")


class LatticeRiskLoss(torch.nn.Module):
    """`lattice_risk_loss` with its options, and with what the arcs cost; `infeasible` counts what a policy took out.

    Called with a lattice and what its cost takes:

    * cost="given": (lattice, risks (ΣA,), final_risks (ΣF,) | None)
    * "frame_accuracy": (lattice, alignment (B, T)); sMBR, or with `label_map` MPFE. The loss is minus the expected
      number of right frames.
    * "overlap_accuracy": (lattice, references, starts, ends, reference_lengths); MPE, negative in the same way
    * "edit": (lattice, references, reference_lengths); the expected edit distance, exact

    What arcs cost is found on the CPU, and goes to the lattice's device. Keywords go to the cost's function, as
    `options` do: `label_map`, `blank`, `max_states`, `tokens`, `labels`.
    Reduction "targets" divides by reference_lengths; where the cost has no references, by the keyword target_lengths.
    """

    def __init__(
        self,
        cost: str = "given",
        *,
        options: Mapping[str, Any] | None = None,
        scale: float = 1.0,
        reduction: str = "batch",
        on_infeasible: str = "raise",
    ) -> None:
        super().__init__()
        if cost not in _COSTS:
            raise ArgumentError(
                f"cost must be one of {', '.join(map(repr, _COSTS))}, got {cost!r}", argument="cost"
            )
        check_reduction(reduction)
        check_policy(on_infeasible)
        _check_scale(scale)
        self.cost = cost
        self.options = dict(options or {})
        self.scale = scale
        self.reduction = reduction
        self.on_infeasible = on_infeasible
        self.infeasible = InfeasibleCount()

    def forward(
        self,
        lattice: Lattice,
        *inputs: torch.Tensor,
        target_lengths: torch.Tensor | None = None,
        **options: Any,
    ) -> torch.Tensor:
        check_summable(lattice)
        final_risks: torch.Tensor | None = None
        options = self.options | options
        device = lattice.device
        if self.cost in ("overlap_accuracy", "edit") and target_lengths is None and inputs:
            target_lengths = options.get("reference_lengths", inputs[-1])
        if self.cost == "frame_accuracy":
            risks = -frame_accuracy(lattice.to("cpu"), *inputs, **options).to(device)
        elif self.cost == "overlap_accuracy":
            risks = -overlap_accuracy(lattice.to("cpu"), *inputs, **options).to(device)
        elif self.cost == "edit":
            found = edit_risk(lattice.to("cpu"), *inputs, **options)
            lattice, risks = found.lattice.to(device), found.risks.to(device)
            final_risks = found.final_risks.to(device)
        elif options or not 1 <= len(inputs) <= 2:
            raise ArgumentError(
                f"cost='given' takes the lattice, risks (ΣA,) and final_risks (ΣF,), got {len(inputs)} inputs and the "
                f"options {sorted(options)}",
                argument="risks",
            )
        else:
            risks, final_risks = inputs[0], inputs[1] if len(inputs) == 2 else None
        return lattice_risk_loss(
            lattice, risks.to(lattice.weights.dtype) if self.cost != "given" else risks, final_risks,
            scale=self.scale, reduction=self.reduction, target_lengths=target_lengths,
            on_infeasible=self.on_infeasible, infeasible=self.infeasible,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return (
            f"cost={self.cost!r}, scale={self.scale}, reduction={self.reduction!r}, "
            f"on_infeasible={self.on_infeasible!r}"
        )
