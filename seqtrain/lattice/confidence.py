"""How sure a lattice is of a path: of its label at each frame, of its tokens, of its words.

F. Wessel, R. Schlüter, K. Macherey, H. Ney, "Confidence measures for large vocabulary continuous speech recognition",
2001: posteriors of the lattice, accumulated over what says the same.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, overload

import torch

from seqtrain.errors import ArgumentError
from seqtrain.lattice.lattice import Lattice
from seqtrain.lattice.paths import Paths, best_path
from seqtrain.lattice.total_score import arc_posteriors, check_on_host

__all__ = ["Unit", "confidence"]


class Unit(NamedTuple):
    """A token or a word of a path: its label, its frames begin … end - 1, and its confidence in 0 … 1."""

    label: int
    begin: int
    end: int
    confidence: float


@overload
def confidence(
    lattice: Lattice, *, level: Literal["frame"] = "frame", paths: Paths | None = None
) -> torch.Tensor: ...


@overload
def confidence(
    lattice: Lattice, *, level: Literal["token", "word"], paths: Paths | None = None
) -> list[list[Unit]]: ...


def confidence(
    lattice: Lattice, *, level: str = "frame", paths: Paths | None = None
) -> torch.Tensor | list[list[Unit]]:
    """Confidence of the best path of each utterance, or of `paths`.

    Args:
        level: "frame": the posterior of the path's label at each frame, summed over all arcs of that label there.
            "token": for each run of frames with one label, the mean of these posteriors.
            "word": for each auxiliary label of the path, from its arc to the next such arc: the expected number of
            times that the lattice has this auxiliary label nearer to here than to the path's words before and behind
            (the bounds lie half way between two words' first frames), at most 1.
        paths: one path an utterance that has any, such as `nbest(…, 1)`; None: the best.

    Returns:
        "frame": (B, T) float64, 0 past the end and where there is no path. Else a list of units for each utterance.

    Raises:
        ArgumentError: an unknown level, several paths of an utterance, or "word" without auxiliary labels.
    """
    check_on_host(lattice)
    if level not in ("frame", "token", "word"):
        raise ArgumentError(f"level must be 'frame', 'token' or 'word', got {level!r}", argument="level")
    chosen = best_path(lattice) if paths is None else paths
    several = (chosen.counts > 1).nonzero()
    if several.numel():
        b = int(several[0])
        raise ArgumentError(
            f"paths hold {int(chosen.counts[b])} paths of utterance {b}: pass one of each", argument="paths"
        )
    posteriors = arc_posteriors(lattice)
    if level == "word":
        return _words(lattice, chosen, posteriors)
    frames = _frames(lattice, chosen, posteriors)
    return frames if level == "frame" else _tokens(lattice, chosen, frames)


def _frames(lattice: Lattice, paths: Paths, posteriors: torch.Tensor) -> torch.Tensor:
    longest = int(lattice.lengths.max()) if len(lattice) else 0
    result = torch.zeros((len(lattice), longest), dtype=torch.float64)
    begin, end = lattice.arc_frames()
    labels = lattice.arcs[:, 2]
    path_ends = paths.arc_offsets.tolist()
    for n, b in enumerate(paths.utterance.tolist()):
        said = torch.full((longest,), -1, dtype=labels.dtype)
        for a in paths.arcs[path_ends[n] : path_ends[n + 1]].tolist():
            said[begin[a] : end[a]] = labels[a]
        own = slice(*lattice.arc_offsets[b : b + 2].tolist())
        first, last, label, share = begin[own], end[own], labels[own], posteriors[own]
        for step in range(int((last - first).max()) if first.numel() else 0):
            place = first + step
            agree = (place < last) & (said[place.clamp(max=longest - 1)] == label)
            result[b].index_add_(0, place[agree], share[agree])
    return result.clamp_(max=1.0)


def _tokens(lattice: Lattice, paths: Paths, frames: torch.Tensor) -> list[list[Unit]]:
    units: list[list[Unit]] = [[] for _ in range(len(lattice))]
    begin, end = lattice.arc_frames()
    for n, b in enumerate(paths.utterance.tolist()):
        arcs = paths.arcs_of(n)
        spans = zip(lattice.arcs[arcs, 2].tolist(), begin[arcs].tolist(), end[arcs].tolist(), strict=True)
        runs: list[tuple[int, int, int]] = []
        for label, first, last in spans:
            if runs and runs[-1][0] == label:
                runs[-1] = (label, runs[-1][1], last)
            else:
                runs.append((label, first, last))
        units[b] = [Unit(label, i, k, float(frames[b, i:k].mean())) for label, i, k in runs]
    return units


def _words(lattice: Lattice, paths: Paths, posteriors: torch.Tensor) -> list[list[Unit]]:
    if lattice.aux is None:
        raise ArgumentError("the lattice has no auxiliary labels: pass aux to intersect", argument="lattice")
    units: list[list[Unit]] = [[] for _ in range(len(lattice))]
    begin, _ = lattice.arc_frames()
    for n, b in enumerate(paths.utterance.tolist()):
        arcs = paths.arcs_of(n)
        arcs = arcs[lattice.aux[arcs] >= 0]
        starts, words = begin[arcs].tolist(), lattice.aux[arcs].tolist()
        own = slice(*lattice.arc_offsets[b : b + 2].tolist())
        here, label, share = 2 * begin[own], lattice.aux[own], posteriors[own]
        length = int(lattice.lengths[b])
        for i, (start, word) in enumerate(zip(starts, words, strict=True)):
            last = i + 1 == len(starts)
            # Twice the frames, so that the bounds are integers; both ends are open to the utterance's.
            low = -1 if i == 0 else starts[i - 1] + start
            high = 2 * length + 1 if last else start + starts[i + 1]
            inside = (here >= low) & (here < high) & (label == word)
            count = float(share[inside].sum())
            units[b].append(Unit(word, start, length if last else starts[i + 1], min(count, 1.0)))
    return units
