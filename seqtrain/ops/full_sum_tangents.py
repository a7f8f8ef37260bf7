"""Tangents of the full sum as an operator: its slope in a direction, and how its gradient changes in that direction.

    full_sum_tangents(grad_value (B,), scores (B, T, V) | (ΣT, V), offsets (B + 1,) | None, lengths (B,), <automata>,
                      tangent_scores like scores | None, tangent_weights (ΣA,) | None,
                      tangent_final_weights (ΣF,) | None, status (B,), with_scores, with_weights, size, stride)
        → slope (B,), scores_tangent of `size` and `stride`, weights_tangent (ΣA,), final_weights_tangent (ΣF,)

The slope is that of the value alone. The other three are Hessian-vector products of Σ_b grad_value[b] · value[b]; one
that isn't asked for is empty. Arithmetic is float64. Equations: `seqtrain.reference.full_sum_tangents`.
"""

from __future__ import annotations

import torch

from seqtrain.ops import arguments
from seqtrain.ops.automata import SCHEMA, Automata, summarize
from seqtrain.ops.kernels import KERNELS
from seqtrain.ops.library import refuse_derivative, register
from seqtrain.ops.occupancies import scores_backward as scatter
from seqtrain.ops.occupancies import weights_backward as weighted_sum

__all__ = ["full_sum_tangents"]

_NOTHING = (0, 0, 0, 0, 0, 0)


def _forward(
    grad_value: torch.Tensor,
    scores: torch.Tensor,
    offsets: torch.Tensor | None,
    lengths: torch.Tensor,
    arcs: torch.Tensor,
    weights: torch.Tensor,
    arc_offsets: torch.Tensor,
    final_states: torch.Tensor,
    final_weights: torch.Tensor,
    final_offsets: torch.Tensor,
    starts: torch.Tensor,
    num_states: torch.Tensor,
    tangent_scores: torch.Tensor | None,
    tangent_weights: torch.Tensor | None,
    tangent_final_weights: torch.Tensor | None,
    status: torch.Tensor,
    with_scores: bool,
    with_weights: bool,
    size: list[int],
    stride: list[int],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    automata = Automata(
        arcs, weights, arc_offsets, final_states, final_weights, final_offsets, starts, num_states
    ).for_kernels()
    lengths = arguments.int64(lengths)
    batch = arguments.batch_size(scores, offsets)
    shared = automata.size == 1
    width = int(summarize(automata).labels.max()) if automata.size else 0
    # Of utterances without a path neither is touched.
    status = status.clone()
    slope = torch.zeros(batch, dtype=torch.float64)
    columns = torch.full((automata.size, width), -1, dtype=torch.int64)
    occupancies = arguments.new_output((*scores.shape[:-1], width) if with_scores else (0,), torch.float64)
    per_arc = (batch, arcs.shape[0]) if shared else (arcs.shape[0],)
    per_final = (batch, final_states.shape[0]) if shared else (final_states.shape[0],)
    arc_occupancies = torch.zeros(per_arc if with_weights else (0,), dtype=torch.float64)
    final_occupancies = torch.zeros(per_final if with_weights else (0,), dtype=torch.float64)
    direction = [
        None if tangent is None else tangent.detach().to(torch.float64).contiguous()
        for tangent in (tangent_weights, tangent_final_weights)
    ]
    if batch:
        KERNELS.full_sum_tangents(
            arguments.tensor_argument(scores, offsets),
            _NOTHING if tangent_scores is None else arguments.tensor_argument(tangent_scores, offsets),
            *(0 if tangent is None else tangent.data_ptr() for tangent in direction),
            batch,
            0 if offsets is not None else scores.shape[1],
            lengths.data_ptr(),
            automata.argument(),
            width,
            slope.data_ptr(),
            occupancies.data_ptr() if with_scores else 0,
            columns.data_ptr(),
            arc_occupancies.data_ptr() if with_weights else 0,
            final_occupancies.data_ptr() if with_weights else 0,
            status.data_ptr(),
            torch.get_num_threads(),
        )
        arguments.check_status(slope, status, lengths, "mask", infinite=0.0)
    dense = (
        scatter(grad_value, scores, weights, offsets, lengths, occupancies, columns, status, size, stride)
        if with_scores
        else scores.new_empty((0,))
    )
    to_weights, to_finals = (
        weighted_sum(grad_value, scores, items, tangents, item_offsets, status)
        if with_weights
        else items.new_empty((0,))
        for items, tangents, item_offsets in (
            (weights, arc_occupancies, automata.arc_offsets),
            (final_weights, final_occupancies, automata.final_offsets),
        )
    )
    return slope.to(arguments.value_dtype(scores)), dense, to_weights, to_finals


def _fake(
    grad_value: torch.Tensor,
    scores: torch.Tensor,
    offsets: torch.Tensor | None,
    lengths: torch.Tensor,
    arcs: torch.Tensor,
    weights: torch.Tensor,
    arc_offsets: torch.Tensor,
    final_states: torch.Tensor,
    final_weights: torch.Tensor,
    final_offsets: torch.Tensor,
    starts: torch.Tensor,
    num_states: torch.Tensor,
    tangent_scores: torch.Tensor | None,
    tangent_weights: torch.Tensor | None,
    tangent_final_weights: torch.Tensor | None,
    status: torch.Tensor,
    with_scores: bool,
    with_weights: bool,
    size: list[int],
    stride: list[int],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    return (
        scores.new_empty((arguments.batch_size(scores, offsets),), dtype=arguments.value_dtype(scores)),
        scores.new_empty_strided(size, stride) if with_scores else scores.new_empty((0,)),
        torch.empty_like(weights) if with_weights else weights.new_empty((0,)),
        torch.empty_like(final_weights) if with_weights else final_weights.new_empty((0,)),
    )


_NAME = register(
    f"full_sum_tangents(Tensor grad_value, Tensor scores, Tensor? offsets, Tensor lengths, {SCHEMA}, "
    "Tensor? tangent_scores, Tensor? tangent_weights, Tensor? tangent_final_weights, Tensor status, "
    "bool with_scores, bool with_weights, SymInt[] size, SymInt[] stride) "
    "-> (Tensor slope, Tensor scores_tangent, Tensor weights_tangent, Tensor final_weights_tangent)",
    cpu=_forward,
    fake=_fake,
)
refuse_derivative(_NAME, "full_sum has no third derivative")

full_sum_tangents = torch.ops.seqtrain.full_sum_tangents
