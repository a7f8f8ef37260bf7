"""CTC prefix beam search: the most probable labels, summed over the alignments of those that stay in the beam.

For each prefix l = m · v with last label v, p_b(l) sums the paths so far that collapse to l and end in blank, p_n(l)
those that end in v. A frame with probabilities y leads to
    p_b'(l) = (p_b(l) + p_n(l)) y(blank),
    p_n'(l) = (p_n(l) + p_b(m) + [last label of m ≠ v] p_n(m)) y(v),
and the best prefixes by p_b' + p_n' are kept. A. Graves, N. Jaitly: Towards End-to-End Speech Recognition with
Recurrent Neural Networks, ICML 2014; A. Hannun, A. Maas, D. Jurafsky, A. Ng: First-Pass Large Vocabulary Continuous
Speech Recognition using Bi-Directional Recurrent DNNs, 2014.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from torch import Tensor

from seqtrain.decoding.arguments import check_ctc_arguments
from seqtrain.errors import ArgumentError, NonFiniteScoresError

__all__ = ["ctc_prefix_beam"]

_Floats = npt.NDArray[np.float64]


def ctc_prefix_beam(
    scores: Tensor, lengths: Tensor, *, blank: int = 0, beam_width: int = 100, normalize: bool = True
) -> list[list[int]]:
    """The labels of the best prefix of each utterance after its last frame.

    With a beam that holds every prefix this is the most probable label sequence. Of prefixes with equal scores, the one
    that was in the beam already comes first, then that of the better prefix, then that of the smaller label.

    Args:
        scores: (B, T, V) logits or log-probabilities of any floating dtype, larger is better.
        lengths: (B,) frames of each utterance, any integer dtype.
        blank: the column of blank.
        beam_width: how many prefixes are kept.
        normalize: apply log-softmax over V first; of log-probabilities it changes nothing.

    Returns:
        One list of labels for each utterance, without blank.

    Raises:
        ShapeError: the shapes don't fit each other, or a length exceeds T.
        ArgumentError: `blank` is no column of `scores`, or `beam_width` is below 1.
        NonFiniteScoresError: a frame that counts holds NaN or +inf, or nothing above -inf.
    """
    check_ctc_arguments(scores, lengths, blank)
    if beam_width < 1:
        raise ArgumentError(f"beam_width must be at least 1, got {beam_width}", argument="beam_width")
    utterances = scores.detach().cpu().double().numpy()
    return [
        _decode(_log_probs(utterances[b, :length], b, normalize), blank, beam_width)
        for b, length in enumerate(lengths.tolist())
    ]


def _log_probs(scores: _Floats, utterance: int, normalize: bool) -> _Floats:
    """(T, V) scores, checked and normalized."""
    best = scores.max(axis=1, keepdims=True)
    # A maximum is NaN where anything is.
    bad = ~np.isfinite(best[:, 0])
    if bad.any():
        frame = int(bad.argmax())
        what = "no label above -inf" if np.isneginf(best[frame, 0]) else "NaN or +inf"
        raise NonFiniteScoresError(
            f"scores of utterance {utterance} hold {what} at frame {frame}",
            argument="scores", utterance=utterance, frame=frame,
        )  # fmt: skip
    if not normalize:
        return scores
    shifted = scores - best
    normalized: _Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return normalized


@dataclass
class _Prefixes:
    """Every prefix met so far, as a tree; 0 is the empty one. One that left the beam and comes back is the same."""

    parent: list[int] = field(default_factory=lambda: [-1])
    label: list[int] = field(default_factory=lambda: [-1])
    children: dict[tuple[int, int], int] = field(default_factory=dict)

    def child(self, prefix: int, label: int) -> int:
        child = self.children.setdefault((prefix, label), len(self.parent))
        if child == len(self.parent):
            self.parent.append(prefix)
            self.label.append(label)
        return child

    def labels(self, prefix: int) -> list[int]:
        found = []
        while prefix:
            found.append(self.label[prefix])
            prefix = self.parent[prefix]
        return found[::-1]


def _decode(log_probs: _Floats, blank: int, beam_width: int) -> list[int]:
    prefixes = _Prefixes()
    beam = [0]
    in_blank, in_label = np.zeros(1), np.full(1, -np.inf)
    for frame in log_probs:
        total = np.logaddexp(in_blank, in_label)
        last = np.array([prefixes.label[prefix] for prefix in beam])
        ends = np.flatnonzero(last >= 0)
        # The prefixes as they are, K of them, and each followed by each label, (K, V).
        stays_in_blank = total + frame[blank]
        stays_in_label = np.full(len(beam), -np.inf)
        stays_in_label[ends] = in_label[ends] + frame[last[ends]]
        extended = total[:, None] + frame
        # A label again is another one only behind a blank.
        extended[ends, last[ends]] = in_blank[ends] + frame[last[ends]]
        extended[:, blank] = -np.inf
        # An extended prefix that is in the beam already is that prefix.
        place = {prefix: k for k, prefix in enumerate(beam)}
        for k in ends:
            parent = place.get(prefixes.parent[beam[k]])
            if parent is not None:
                stays_in_label[k] = np.logaddexp(stays_in_label[k], extended[parent, last[k]])
                extended[parent, last[k]] = -np.inf
        chosen = _best(
            np.concatenate([np.logaddexp(stays_in_blank, stays_in_label), extended.ravel()]), beam_width
        )
        in_blank = np.concatenate([stays_in_blank, np.full(extended.size, -np.inf)])[chosen]
        in_label = np.concatenate([stays_in_label, extended.ravel()])[chosen]
        beam = [
            beam[i]
            if i < len(beam)
            else prefixes.child(beam[(i - len(beam)) // len(frame)], (i - len(beam)) % len(frame))
            for i in chosen.tolist()
        ]
    return prefixes.labels(beam[0])


def _best(candidates: _Floats, count: int) -> npt.NDArray[np.intp]:
    """Indices of the largest candidates above -inf, in falling order; of equal ones the smaller index comes first."""
    floor = np.partition(candidates, -count)[-count] if count < candidates.size else -np.inf
    kept = np.flatnonzero((candidates >= floor) & (candidates > -np.inf))
    return kept[np.argsort(-candidates[kept], kind="stable")][:count]
