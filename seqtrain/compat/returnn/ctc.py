"""RETURNN's `ctc`."""

from __future__ import annotations

import torch

from seqtrain.compat.returnn.base import Batch, SequenceLoss, Settings
from seqtrain.compat.returnn.full_sum import BaumWelch, baum_welch, viterbi
from seqtrain.compat.returnn.layer_output import LayerOutput
from seqtrain.compat.returnn.options import Option
from seqtrain.decoding.ctc_prefix_beam import ctc_prefix_beam
from seqtrain.decoding.greedy import ctc_greedy
from seqtrain.errors import ConfigError, Infeasible, InfeasibleError
from seqtrain.losses.ctc import ctc_automata
from seqtrain.losses.ctc_soft_alignment import ctc_soft_alignment
from seqtrain.losses.edit_distance import edit_distance
from seqtrain.losses.error_signal import error_signal_loss
from seqtrain.losses.frames import widened
from seqtrain.scores import check_scores

__all__ = ["ConnectionistTemporalClassification", "ctc_logits", "padded_labels"]

_TF_OPTIONS = ("preprocess_collapse_repeated", "ctc_merge_repeated", "ignore_longer_outputs_than_inputs")
_NATIVE_OPTIONS = (
    "label_loop", "ctc_merge_repeated", "logits_normalize", "grad_wrt_softmax_in", "blank_index", "zero_infinity",
)  # fmt: skip


def ctc_logits(layer: LayerOutput, *, in_log_space: bool) -> torch.Tensor:
    """(B, T, V) what log-softmax is applied to: an output in log space, the input of softmax or exp, or log output."""
    x = layer.before_activation
    if in_log_space:
        return layer.output
    return x if x is not None and layer.activation in ("softmax", "exp") else layer.log_output()


def padded_labels(sequences: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Label sequences as (B, U) int64, padded with 0, and their lengths (B,)."""
    lengths = torch.tensor([len(sequence) for sequence in sequences], dtype=torch.int64)
    padded = torch.zeros(len(sequences), int(lengths.max()) if sequences else 0, dtype=torch.int64)
    for row, sequence in zip(padded, sequences, strict=True):
        row[: len(sequence)] = torch.tensor(sequence, dtype=torch.int64)
    return padded, lengths


def _collapsed(labels: list[int]) -> list[int]:
    return [label for u, label in enumerate(labels) if u == 0 or label != labels[u - 1]]


class ConnectionistTemporalClassification(SequenceLoss):
    """CTC by TensorFlow's op, by RETURNN's own full sum (`use_native`), or by the best path (`use_viterbi`)."""

    class_name = "ctc"
    needs_time = True
    native = "`ctc_loss`, `ctc_soft_alignment`"
    options = (
        Option(
            "target_collapse_repeated",
            False,
            "",
            "equal neighbours in the targets become one (with TensorFlow's op; in the error always)",
        ),
        Option(
            "auto_clip_target_len",
            False,
            "`on_infeasible=`",
            "cuts targets to the frames - 1 (with TensorFlow's op; in the error always)",
        ),
        Option("output_in_log_space", False, "`normalize=`"),
        Option(
            "beam_width",
            100,
            "`decoding.ctc_prefix_beam`",
            "of the error in evaluation; in training it is greedy",
        ),
        Option(
            "ctc_opts",
            None,
            "`label_loop=`, `blank=`, `on_infeasible=`",
            "TensorFlow's op: " + ", ".join(_TF_OPTIONS) + "; use_native: " + ", ".join(_NATIVE_OPTIONS),
        ),
        Option("use_native", False, "", "RETURNN demands beam_width=1 with it; here any will do"),
        Option("use_viterbi", False, "`paths='best'`"),
    )
    notes = (
        "The blank is the last label; natively `blank=` says, 0 by default.",
        "use_native: a sequence without a path has the loss 0 and the gradient softmax, a pull to uniform; "
        "use_viterbi and TensorFlow's op: inf and softmax (- one-hot 0). Natively it is named, or masked, or inf "
        "with gradient 0.",
        "TensorFlow's op fails for an empty target and for more labels than frames; here the former has the loss of "
        "all blanks, and the latter raises InfeasibleError.",
        "grad_wrt_softmax_in=False with logits_normalize=True, and True with False, give gradients of neither; "
        "natively the gradient is always exact.",
    )

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        given = dict(self.option("ctc_opts") or {})
        viterbi_paths, native = bool(self.option("use_viterbi")), bool(self.option("use_native"))
        valid = () if viterbi_paths else _NATIVE_OPTIONS if native else _TF_OPTIONS
        for name in given:
            if name not in valid:
                raise ConfigError(
                    f"ctc_opts has no option {name!r} here; valid are: {', '.join(valid) or 'none with use_viterbi'}",
                    key=f"loss_opts.ctc_opts.{name}",
                )
        if "label_loop" in given and "ctc_merge_repeated" in given:
            raise ConfigError(
                "ctc_opts: label_loop and ctc_merge_repeated are the same; pass one",
                key="loss_opts.ctc_opts.label_loop",
            )
        self.paths = "viterbi" if viterbi_paths else "native" if native else "tensorflow"
        self.label_loop = bool(given.get("label_loop", given.get("ctc_merge_repeated", True)))
        self.logits_normalize = bool(given.get("logits_normalize", True))
        self.grad_wrt_softmax_in = bool(given.get("grad_wrt_softmax_in", True))
        self.blank_index = int(given.get("blank_index", -1))
        self.collapse_in_op = bool(given.get("preprocess_collapse_repeated", False))
        self.ignore_longer = bool(given.get("ignore_longer_outputs_than_inputs", False))
        zero = given.get("zero_infinity")
        if zero is None:
            zero = settings.config.get("tf_native_ctc_zero_infinity")
        self.zero_infinity = (
            int(settings.config.get("behavior_version", 0)) >= 30 if zero is None else bool(zero)
        )

    def _logits(self, layer: LayerOutput) -> torch.Tensor:
        return ctc_logits(layer, in_log_space=bool(self.option("output_in_log_space")))

    def _labels(self, batch: Batch, *, changed: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Targets (B, U) and lengths, collapsed and clipped as the options say where `changed`."""
        targets, target_lengths = batch.sequence_targets()
        frames = batch.frames.lengths.tolist()
        sequences = [
            row[:count].tolist() for row, count in zip(targets, target_lengths.tolist(), strict=True)
        ]
        if changed and self.option("auto_clip_target_len"):
            sequences = [labels[: max(t - 1, 0)] for labels, t in zip(sequences, frames, strict=True)]
        if changed and self.option("target_collapse_repeated"):
            sequences = [_collapsed(labels) for labels in sequences]
        return padded_labels(sequences)

    def value(self, batch: Batch) -> torch.Tensor:
        z = self._logits(batch.layer)
        check_scores(z, None)
        lengths, num_labels = batch.frames.lengths, z.shape[-1]
        labels, counts = self._labels(batch, changed=self.paths == "tensorflow")
        if self.collapse_in_op:
            labels, counts = padded_labels(
                [_collapsed(row[:count].tolist()) for row, count in zip(labels, counts.tolist(), strict=True)]
            )
        blank = num_labels - 1
        if self.paths == "native":
            if not -num_labels <= self.blank_index < num_labels:
                raise ConfigError(
                    f"blank_index {self.blank_index} isn't one of {num_labels} labels",
                    key="loss_opts.ctc_opts.blank_index",
                )
            blank = self.blank_index % num_labels
        graphs = ctc_automata(
            num_labels, labels, counts, blank=blank, label_loop=self.label_loop, tags=batch.tags
        )
        infeasible = lengths < graphs.min_length()
        longer = self._longer_than_frames(batch, counts) if self.paths == "tensorflow" else infeasible
        wide = widened(z.detach())
        normalized = self.paths != "native" or self.logits_normalize
        scores = wide.log_softmax(-1) if normalized else wide
        found = (viterbi if self.paths == "viterbi" else baum_welch)(scores, lengths, graphs)
        occupied = (found.posteriors > 0).any(-1).any(-1)
        signal = -found.posteriors
        if self.paths != "native" or self.grad_wrt_softmax_in:
            signal = scores.exp() - found.posteriors
        found = BaumWelch(found.losses, signal)
        if self.paths == "tensorflow":
            found = _zeroed(found, longer)
            # Without any posterior there is no path, for want of frames or of probability.
            without = infeasible | ((lengths > 0) & ~occupied)
            found = found._replace(losses=found.losses.masked_fill(without & ~longer, torch.inf))
        elif self.zero_infinity:
            found = _zeroed(found, infeasible)
        return error_signal_loss(z, found.losses, lengths, error_signal=found.posteriors.to(z.dtype))

    def _longer_than_frames(self, batch: Batch, counts: torch.Tensor) -> torch.Tensor:
        """(B,) whether there are more labels than frames, where that isn't an error."""
        lengths = batch.frames.lengths
        longer = counts > lengths
        if bool(longer.any()) and not self.ignore_longer:
            reason = (
                "more labels than frames (ctc_opts: ignore_longer_outputs_than_inputs gives it the loss 0)"
            )
            raise InfeasibleError(
                [
                    Infeasible(b, None, int(lengths[b]), int(counts[b]), reason)
                    for b in longer.nonzero().flatten().tolist()
                ]
            ).with_tags(batch.tags)
        return longer

    def error(self, batch: Batch) -> torch.Tensor:
        z = self._logits(batch.layer).detach()
        lengths, blank = batch.frames.lengths, z.shape[-1] - 1
        width = int(self.option("beam_width"))
        if width > 1 and not batch.train and self.paths != "native":
            decoded = ctc_prefix_beam(z, lengths, blank=blank, beam_width=width)
        else:
            decoded = ctc_greedy(z, lengths, blank=blank)
        hypotheses, hypothesis_lengths = padded_labels(decoded)
        labels, counts = self._labels(batch, changed=True)
        return edit_distance(hypotheses, labels, hypothesis_lengths, counts)

    def soft_alignment(self, batch: Batch) -> torch.Tensor:
        """(B, T, V) posteriors of the labels, and softmax past the end (`get_soft_alignment`)."""
        z = widened(self._logits(batch.layer).detach())
        labels, counts = self._labels(batch, changed=True)
        aligned = ctc_soft_alignment(
            z.log_softmax(-1), labels, batch.frames.lengths, counts, blank=z.shape[-1] - 1,
            label_loop=self.label_loop, on_infeasible="mask", tags=batch.tags,
        )  # fmt: skip
        return torch.where(batch.frames.inside()[:, :, None], aligned, z.softmax(-1))


def _zeroed(found: BaumWelch, where: torch.Tensor) -> BaumWelch:
    return BaumWelch(
        found.losses.masked_fill(where, 0.0), found.posteriors.masked_fill(where[:, None, None], 0.0)
    )
