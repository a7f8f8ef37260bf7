"""Accuracies of arcs, of which minus is a risk: what sMBR, MPFE and MPE expect.

sMBR counts the frames whose state (label) is that of the reference alignment (M. Gibson, T. Hain: Hypothesis Spaces
for Minimum Bayes Risk Training in Large Vocabulary Speech Recognition, Interspeech 2006), MPFE those whose phone is
(J. Zheng, A. Stolcke: Improved Discriminative Training Using Phone Lattices, Interspeech 2005): the same with a map
from states to phones. MPE compares the phones themselves by their overlap in time (D. Povey, P. Woodland: Minimum Phone
Error and I-Smoothing for Improved Discriminative Training, ICASSP 2002), an approximation of the edit distance on
phones.
"""

from __future__ import annotations

import torch

from seqtrain.errors import ArgumentError, ShapeError
from seqtrain.label_map import DELETED, LabelMap, label_table
from seqtrain.lattice.lattice import Lattice
from seqtrain.lattice.total_score import check_on_host
from seqtrain.scores import host_integers

__all__ = ["frame_accuracy", "overlap_accuracy"]


def _mapped(labels: torch.Tensor, label_map: LabelMap | None, argument: str) -> torch.Tensor:
    """Classes of labels, DELETED for those that the map deletes or that are negative."""
    labels = labels.to(torch.int64)
    if label_map is None:
        return labels.clamp(min=DELETED)
    table = label_table(label_map)
    if labels.numel() and int(labels.max()) >= table.shape[0]:
        raise ArgumentError(
            f"{argument}: label {int(labels.max())} is not in label_map, which has the labels 0 … {table.shape[0] - 1}",
            argument="label_map",
        )
    return torch.where(labels < 0, DELETED, table[labels.clamp(min=0)] if table.numel() else labels)


def _arc_labels(lattice: Lattice, labels: torch.Tensor | None) -> torch.Tensor:
    if labels is None:
        return lattice.arcs[:, 2]
    return host_integers(labels, "labels", (lattice.arcs.shape[0],))


def frame_accuracy(
    lattice: Lattice,
    alignment: torch.Tensor,
    *,
    labels: torch.Tensor | None = None,
    label_map: LabelMap | None = None,
) -> torch.Tensor:
    """How many of an arc's frames have the class that the reference alignment has there: sMBR, MPFE.

    Args:
        alignment: (B, T) int, the reference's label of each frame, such as `best_path(…).labels`; negative: none.
        labels: (ΣA,) int label of each arc, -1 for none; None: the arcs' own labels.
        label_map: what becomes of labels on both sides before they are compared: sMBR has none, MPFE has the phone of
            each state. Labels that lead to None, such as silence, are never accurate; silences that all lead to one
            class count as one.

    Returns:
        (ΣA,) float64; minus this is a risk. A path's sum is at most the number of its frames.

    Raises:
        ArgumentError (a label that the map doesn't have), ShapeError (also for frames past the alignment), DtypeError,
        DeviceError.
    """
    check_on_host(lattice)
    alignment = host_integers(alignment, "alignment", (len(lattice), None))
    longest = int(lattice.lengths.max()) if len(lattice) else 0
    if alignment.shape[1] < longest:
        raise ShapeError(
            f"alignment has {alignment.shape[1]} frames, but an utterance of the lattice has {longest}",
            argument="alignment",
        )
    reference = _mapped(alignment, label_map, "alignment")
    classes = _mapped(_arc_labels(lattice, labels), label_map, "labels")
    first, end = lattice.arc_frames()
    counts = end - first
    arc = torch.repeat_interleave(counts)
    # The frames of an arc are its first, and on: a flat position minus that of the arc's first.
    frame = torch.arange(arc.shape[0]) - (counts.cumsum(0) - counts)[arc] + first[arc]
    right = (reference[lattice.utterance_of_arcs()[arc], frame] == classes[arc]) & (classes[arc] != DELETED)
    return torch.zeros(counts.shape[0], dtype=torch.float64).index_add_(0, arc, right.to(torch.float64))


def overlap_accuracy(
    lattice: Lattice,
    references: torch.Tensor,
    starts: torch.Tensor,
    ends: torch.Tensor,
    reference_lengths: torch.Tensor,
    *,
    labels: torch.Tensor | None = None,
    label_map: LabelMap | None = None,
) -> torch.Tensor:
    """Povey's approximate accuracy of arcs that are whole phones (or words): MPE (MWE).

    A(q) = max over reference phones z of  -1 + 2 e(q, z)  where q and z are the same, else  -1 + e(q, z), with e the
    share of z's frames that q covers. So a hit counts about 1, a substitution 0, an insertion -1. The number of
    reference phones minus a path's sum approximates its edit distance; the exact one is `edit_risk`.

    Args:
        lattice: each arc spans a phone. Of a lattice of one-frame arcs take `frame_accuracy`.
        references: (B, R) int labels, padded with anything.
        starts, ends: (B, R) int, the frame at which a reference phone begins, and the one behind its last.
        reference_lengths: (B,) int.
        labels, label_map: as in `frame_accuracy`. Arcs whose label leads to None have accuracy 0, and reference phones
            that do aren't compared with.

    Returns:
        (ΣA,) float64; minus this is a risk.

    Raises:
        ArgumentError (a label that the map doesn't have), ShapeError (also where a reference phone has no frame),
        DtypeError, DeviceError.
    """
    check_on_host(lattice)
    batch = len(lattice)
    references = host_integers(references, "references", (batch, None))
    shape = (batch, references.shape[1])
    starts, ends = host_integers(starts, "starts", shape), host_integers(ends, "ends", shape)
    counts = host_integers(reference_lengths, "reference_lengths", (batch,))
    inside = torch.arange(shape[1]) < counts[:, None]
    if bool(((counts < 0) | (counts > shape[1])).any()):
        raise ShapeError(
            f"reference_lengths must lie in 0 … {shape[1]}, got {counts.tolist()}",
            argument="reference_lengths",
        )
    empty = (inside & (starts >= ends)).nonzero()
    if empty.numel():
        b, u = empty[0].tolist()
        raise ShapeError(
            f"reference {u} of utterance {b} runs from frame {int(starts[b, u])} to {int(ends[b, u])}: it must have "
            "at least one frame",
            argument="ends",
        )
    of_reference = _mapped(references.masked_fill(~inside, 0), label_map, "references")
    of_reference.masked_fill_(~inside, DELETED)
    classes = _mapped(_arc_labels(lattice, labels), label_map, "labels")
    first, end = lattice.arc_frames()
    accuracy = torch.full(classes.shape, -1.0, dtype=torch.float64)
    offsets = lattice.arc_offsets.tolist()
    for b in range(batch):
        arcs = slice(offsets[b], offsets[b + 1])
        used = of_reference[b] != DELETED
        if not bool(used.any()) or arcs.start == arcs.stop:
            continue
        begin, stop, label = starts[b][used].double(), ends[b][used].double(), of_reference[b][used]
        overlap = torch.minimum(end[arcs, None].double(), stop) - torch.maximum(
            first[arcs, None].double(), begin
        )
        share = overlap.clamp_(min=0).div_(stop - begin)
        same = classes[arcs, None] == label
        accuracy[arcs] = (share * torch.where(same, 2.0, 1.0) - 1.0).max(dim=1).values
    return accuracy.masked_fill(classes == DELETED, 0.0)
