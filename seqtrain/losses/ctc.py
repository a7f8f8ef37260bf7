"""Connectionist temporal classification.

A. Graves, S. Fernández, F. Gomez, J. Schmidhuber: Connectionist Temporal Classification: Labelling Unsegmented Sequence
Data with Recurrent Neural Networks. ICML 2006. The recursion: `seqtrain.reference.ctc_loss`.

Without label loops, each target on one frame, it is the recurrent neural aligner (H. Sak et al., Interspeech 2017);
with the best path instead of the sum over all, its maximum approximation. Both run on automata (`seqtrain.fsa.ctc`,
`rna`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from seqtrain.capture import refuse_capture
from seqtrain.errors import ArgumentError, DtypeError, InfeasibleError, LabelError, ShapeError
from seqtrain.fsa import FsaBatch, ctc, rna
from seqtrain.functional import full_sum
from seqtrain.infeasible import InfeasibleCount, handle, report
from seqtrain.losses import ctc_second_derivative  # noqa: F401  # registers it
from seqtrain.losses.frames import widened
from seqtrain.losses.reduction import check_reduction, reduce
from seqtrain.losses.viterbi import viterbi_loss
from seqtrain.ops.ctc import ctc_loss as ctc_loss_op
from seqtrain.scores import (
    Packed,
    Scores,
    check_derivative,
    check_gradient_out,
    check_policy,
    check_scores,
    derivative_anchor,
    integers_beside,
    split_scores,
)
from seqtrain.torch_versions import is_compiling
from seqtrain.transforms import check_transforms, has_tangent, inside_transform, outside_transforms, plain

__all__ = ["CTCLoss", "check_paths", "ctc_automata", "ctc_loss"]

_PATHS = ("all", "best")


def check_paths(paths: str) -> None:
    """Raises ArgumentError unless `paths` is "all" or "best"."""
    if paths not in _PATHS:
        raise ArgumentError(f"paths must be 'all' (their sum) or 'best', got {paths!r}", argument="paths")


def ctc_automata(
    num_labels: int,
    targets: torch.Tensor,
    target_lengths: torch.Tensor,
    *,
    blank: int = 0,
    label_loop: bool = True,
    tags: Sequence[str] | None = None,
) -> FsaBatch:
    """The automata of CTC, or of the recurrent neural aligner where there is no label loop, for V = `num_labels`.

    Raises:
        LabelError: the blank or a target isn't a column of the scores.
    """
    graphs = (ctc if label_loop else rna)(targets, target_lengths, blank=blank)
    inside = torch.arange(targets.shape[1]) < target_lengths.cpu()[:, None]
    outside = ((targets.cpu() >= num_labels) & inside).nonzero()
    if outside.numel():
        b, u = outside[0].tolist()
        raise LabelError(
            f"targets[{b}, {u}] = {int(targets[b, u])} is not a column of the scores, which have {num_labels} labels "
            f"(0 … {num_labels - 1})",
            argument="targets", utterance=b, position=u, label=int(targets[b, u]), num_labels=num_labels,
        )  # fmt: skip
    return graphs.with_tags(tags)


def _over_automata(
    scores: Scores, lengths: torch.Tensor, graphs: FsaBatch, normalize: bool, paths: str, on_infeasible: str,
    infeasible: InfeasibleCount | None,
) -> torch.Tensor:  # fmt: skip
    if normalize:
        # Half precision would round each frame's log-probabilities; the sum over frames would show it.
        scores = (
            scores._replace(values=widened(scores.values).log_softmax(-1))
            if isinstance(scores, Packed)
            else widened(scores).log_softmax(-1)
        )
    if paths == "best":
        return viterbi_loss(scores, lengths, graphs, on_infeasible=on_infeasible, infeasible=infeasible)
    return -full_sum(scores, lengths, graphs, on_infeasible=on_infeasible, infeasible=infeasible)


def ctc_loss(
    scores: Scores,
    targets: torch.Tensor,
    lengths: torch.Tensor,
    target_lengths: torch.Tensor,
    *,
    blank: int = 0,
    normalize: bool = False,
    label_loop: bool = True,
    paths: str = "all",
    reduction: str = "none",
    on_infeasible: str = "raise",
    gradient_out: torch.Tensor | None = None,
    tags: Sequence[str] | None = None,
    infeasible: InfeasibleCount | None = None,
) -> torch.Tensor:
    """Negative log of the summed probability of all frame labelings that collapse to the targets.

    The gradient is exact for what was passed: log-probabilities, log-probabilities minus a scaled prior, or any other
    scores; with `normalize`, logits.

    Args:
        scores: (B, T, V) or `Packed` (ΣT, V), float16 … float64, any strides; natural log, larger is better.
        targets: (B, U) int labels, padded with anything.
        lengths: (B,) int frames of each utterance.
        target_lengths: (B,) int.
        blank: the label between and around targets.
        normalize: apply log-softmax over V to the scores first, fused with the rest.
        label_loop: a target may stay for several frames, and equal neighbours need a blank between them. False: each
            target takes one frame, all others are blank (RNA).
        paths: "all": the sum over the labelings; "best": only the best one counts (its gradient is -1 along it).
        reduction: one of `seqtrain.losses.reduction.REDUCTIONS`.
        on_infeasible: what to do with an utterance that has fewer frames than its targets and the blanks between equal
            neighbours need: "raise" InfeasibleError, "mask" (loss 0, gradient 0), or "inf" (loss inf, gradient 0).
        gradient_out: memory like the scores that the gradient is written to instead of to fresh memory; the scores
            themselves may be passed (detached), and are overwritten then. Excludes create_graph and torch.compile.
            In place suits only scores whose values nobody else has saved for a backward of their own: autograd
            raises otherwise. One memory serves one loss of a backward pass.
        tags: names of the utterances for messages; compiled code names them by their position.
        infeasible: counts the utterances that were masked.

    In a capture of a CUDA graph, targets, lengths, target_lengths and offsets must be on the device of the scores,
    where replays read them, and `on_infeasible` "mask" or "inf": docs/cuda.md.

    Returns:
        (B,) positive losses where the scores are log-probabilities, or their reduction; float32, float64 for float64.

    Raises:
        InfeasibleError, LabelError (blank or a label ≥ V in the targets), NonFiniteScoresError, ShapeError,
        DtypeError, DeviceError, ArgumentError. DerivativeError: when the gradient is differentiated more than once, or
        at all in compiled code. CudaError: in a capture, for what can't be captured.
    """
    values, offsets = split_scores(scores)
    check_scores(values, offsets, cuda=True)
    check_policy(on_infeasible)
    check_reduction(reduction)
    transformed = inside_transform() or has_tangent(values)
    if transformed:
        check_transforms()
    if not transformed:
        check_gradient_out(gradient_out, values)
    batch = values.shape[0] if offsets is None else offsets.shape[0] - 1
    lengths = integers_beside(values, lengths, "lengths", (batch,))
    target_lengths = integers_beside(values, target_lengths, "target_lengths", (batch,))
    targets = integers_beside(values, targets, "targets", (batch, None))
    if not isinstance(blank, int):
        raise DtypeError(f"blank must be an int, got {blank!r}", argument="blank")
    check_paths(paths)
    if not 0 <= blank < values.shape[-1]:
        raise LabelError(
            f"blank = {blank} is not a column of the scores, which have {values.shape[-1]} labels",
            argument="blank", utterance=-1, position=-1, label=blank, num_labels=values.shape[-1],
        )  # fmt: skip
    if tags is not None and len(tags) != batch:
        raise ShapeError(f"tags must name {batch} utterances, got {len(tags)}", argument="tags")
    if paths == "best" or not label_loop or transformed:
        if gradient_out is not None:
            raise ArgumentError(
                "gradient_out serves the sum over all paths with label loops alone, and no transform of torch.func",
                argument="gradient_out",
            )
        refuse_capture(
            values.device, "ctc_loss over automata (paths='best', label_loop=False, torch.func)",
            "they are made of the targets in host memory", "compute it outside of the capture",
        )  # fmt: skip
        if paths == "best":
            check_derivative(values)
        with outside_transforms():
            graphs = ctc_automata(
                values.shape[-1], plain(targets), plain(target_lengths), blank=blank, label_loop=label_loop,
                tags=tags,
            )  # fmt: skip
        losses = _over_automata(scores, lengths, graphs, normalize, paths, on_infeasible, infeasible)
        return reduce(losses, reduction, lengths=lengths, target_lengths=target_lengths)
    with_gradient = torch.is_grad_enabled() and values.requires_grad
    anchor = derivative_anchor(values, gradient_out) if with_gradient else None
    arguments = (
        values, offsets, targets, lengths, target_lengths, anchor, gradient_out, blank, normalize, with_gradient,
        on_infeasible, handle(infeasible),
    )  # fmt: skip
    if is_compiling():
        losses = ctc_loss_op(*arguments)[0]
    else:
        try:
            losses, _, _, status = ctc_loss_op(*arguments)
        except InfeasibleError as error:
            raise error.with_tags(tags) from None
        report(status, tags, infeasible, on_infeasible)
    return reduce(losses, reduction, lengths=lengths, target_lengths=target_lengths)


class CTCLoss(torch.nn.Module):
    """`ctc_loss` with its options kept; `infeasible` counts what a policy of "mask" or "inf" took out.

    Called with (scores, targets, lengths, target_lengths, *, tags=None); shapes and errors as in `ctc_loss`. By default
    the scores are logits (`normalize`) and the loss is the batch's sum divided by the number of utterances.
    """

    def __init__(
        self,
        *,
        blank: int = 0,
        normalize: bool = True,
        label_loop: bool = True,
        paths: str = "all",
        reduction: str = "batch",
        on_infeasible: str = "raise",
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        check_policy(on_infeasible)
        check_paths(paths)
        self.blank = blank
        self.normalize = normalize
        self.label_loop = label_loop
        self.paths = paths
        self.reduction = reduction
        self.on_infeasible = on_infeasible
        self.infeasible = InfeasibleCount()

    def forward(
        self,
        scores: Scores,
        targets: torch.Tensor,
        lengths: torch.Tensor,
        target_lengths: torch.Tensor,
        *,
        tags: Sequence[str] | None = None,
    ) -> torch.Tensor:
        return ctc_loss(
            scores, targets, lengths, target_lengths, blank=self.blank, normalize=self.normalize,
            label_loop=self.label_loop, paths=self.paths, reduction=self.reduction, on_infeasible=self.on_infeasible,
            tags=tags, infeasible=self.infeasible,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return (
            f"blank={self.blank}, normalize={self.normalize}, label_loop={self.label_loop}, paths={self.paths!r}, "
            f"reduction={self.reduction!r}, on_infeasible={self.on_infeasible!r}"
        )
