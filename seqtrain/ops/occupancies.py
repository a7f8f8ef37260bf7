"""From occupancies to gradients, of the scores and of weights: operators that `full_sum` and `denominator` have alike.

<operator>_scores_backward(grad_value (B,), anchor, weights, offsets, lengths, occupancies, column_labels, status,
    size, stride) → gradient of the scores, in the dtype of `anchor`
<operator>_scores_backward_into(…, gradient): likewise, into memory
<operator>_weights_backward(grad_value (B,), anchor, weights, occupancies, item_offsets, status)
    → gradient of the weights, of arcs or of final states
"""

from __future__ import annotations

import torch

from seqtrain.ops import arguments
from seqtrain.ops.kernels import KERNELS
from seqtrain.ops.library import refuse_derivative, register

__all__ = ["register_gradients", "scores_backward", "weights_backward"]


def _into(
    grad_value: torch.Tensor,
    anchor: torch.Tensor,
    weights: torch.Tensor,
    offsets: torch.Tensor | None,
    lengths: torch.Tensor,
    occupancies: torch.Tensor,
    column_labels: torch.Tensor,
    status: torch.Tensor,
    gradient: torch.Tensor,
) -> None:
    lengths = arguments.int64(lengths)
    batch = arguments.batch_size(gradient, offsets)
    if batch == 0:
        return
    weight = grad_value.to(torch.float64).contiguous()
    double = occupancies.dtype == torch.float64
    kernel = KERNELS.scatter_occupancies_float64 if double else KERNELS.scatter_occupancies_float32
    kernel(
        arguments.tensor_argument(gradient, offsets),
        batch,
        gradient.shape[-1],
        0 if offsets is not None else gradient.shape[1],
        column_labels.shape[1],
        lengths.data_ptr(),
        occupancies.data_ptr(),
        column_labels.data_ptr(),
        column_labels.shape[0] == 1,
        weight.data_ptr(),
        status.data_ptr(),
        torch.get_num_threads(),
    )


def scores_backward(
    grad_value: torch.Tensor,
    anchor: torch.Tensor,
    weights: torch.Tensor,
    offsets: torch.Tensor | None,
    lengths: torch.Tensor,
    occupancies: torch.Tensor,
    column_labels: torch.Tensor,
    status: torch.Tensor,
    size: list[int],
    stride: list[int],
) -> torch.Tensor:
    """weight · occupancy at the labels of the columns, zero elsewhere and where an utterance has no path."""
    gradient = arguments.new_output(size, anchor.dtype, stride=stride)
    _into(grad_value, anchor, weights, offsets, lengths, occupancies, column_labels, status, gradient)
    return gradient


def _fake_scores(
    grad_value: torch.Tensor,
    anchor: torch.Tensor,
    weights: torch.Tensor,
    offsets: torch.Tensor | None,
    lengths: torch.Tensor,
    occupancies: torch.Tensor,
    column_labels: torch.Tensor,
    status: torch.Tensor,
    size: list[int],
    stride: list[int],
) -> torch.Tensor:
    return anchor.new_empty_strided(size, stride)


def weights_backward(
    grad_value: torch.Tensor,
    anchor: torch.Tensor,
    weights: torch.Tensor,
    occupancies: torch.Tensor,
    item_offsets: torch.Tensor,
    status: torch.Tensor,
) -> torch.Tensor:
    """Σ over the utterances that use an item (an arc, a final state) of gradient · occupancy, in a fixed order.

    Computed where the occupancies are; the result is where the weights are.
    """
    alive = grad_value.to(torch.float64).masked_fill(status != 0, 0.0)
    if occupancies.dim() == 1:
        counts = (item_offsets[1:] - item_offsets[:-1]).to(alive.device)
        per_item = alive.repeat_interleave(counts, output_size=occupancies.shape[0])
        return (per_item * occupancies).to(weights)
    total = torch.zeros_like(occupancies[0]) if occupancies.shape[0] else occupancies.sum(0)
    for b in range(occupancies.shape[0]):
        total.add_(occupancies[b] * alive[b])
    return total.to(weights)


def _fake_weights(
    grad_value: torch.Tensor,
    anchor: torch.Tensor,
    weights: torch.Tensor,
    occupancies: torch.Tensor,
    item_offsets: torch.Tensor,
    status: torch.Tensor,
) -> torch.Tensor:
    return torch.empty_like(weights)


_COMMON = (
    "Tensor grad_value, Tensor anchor, Tensor weights, Tensor? offsets, Tensor lengths, Tensor occupancies, "
    "Tensor column_labels, Tensor status"
)


def register_gradients(operator: str, refusal: str) -> None:
    """Defines the three operators; their own derivatives raise DerivativeError, which says `refusal`."""
    to_scores = register(
        f"{operator}_scores_backward({_COMMON}, SymInt[] size, SymInt[] stride) -> Tensor",
        cpu=scores_backward,
        fake=_fake_scores,
    )
    register(
        f"{operator}_scores_backward_into({_COMMON}, Tensor(a!) gradient) -> ()",
        cpu=_into,
        fake=lambda *_: None,
    )
    to_weights = register(
        f"{operator}_weights_backward(Tensor grad_value, Tensor anchor, Tensor weights, Tensor occupancies, "
        "Tensor item_offsets, Tensor status) -> Tensor",
        cpu=weights_backward,
        fake=_fake_weights,
    )
    for name in (to_scores, to_weights):
        refuse_derivative(name, refusal)
