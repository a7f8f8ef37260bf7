"""CTC prefix beam search, against the sum over all alignments of all label sequences."""

from __future__ import annotations

import itertools
from collections import defaultdict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

from seqtrain.decoding.ctc_prefix_beam import ctc_prefix_beam
from seqtrain.decoding.greedy import ctc_greedy
from seqtrain.errors import ArgumentError, NonFiniteScoresError, ShapeError
from seqtrain.losses import ctc_loss
from tests.fsa.strategies import quick


def probabilities(scores: torch.Tensor, blank: int) -> dict[tuple[int, ...], float]:
    """Of each label sequence, from (T, V) probabilities, by enumeration of all paths."""
    table = scores.tolist()
    found: dict[tuple[int, ...], float] = defaultdict(float)
    for path in itertools.product(range(scores.shape[1]), repeat=len(table)):
        probability = 1.0
        for frame, label in zip(table, path, strict=True):
            probability *= frame[label]
        found[tuple(label for label, _ in itertools.groupby(path) if label != blank)] += probability
    return found


@quick
@given(
    seed=hs.integers(0, 2**32),
    frames=hs.integers(0, 5),
    num_labels=hs.integers(1, 3),
    blank=hs.integers(0, 2),
    forbidden=hs.booleans(),
    dtype=hs.sampled_from([torch.float16, torch.float32, torch.float64]),
)
def test_a_wide_beam_is_exact(
    seed: int, frames: int, num_labels: int, blank: int, forbidden: bool, dtype: torch.dtype
) -> None:
    blank = min(blank, num_labels - 1)
    g = torch.Generator().manual_seed(seed)
    scores = torch.randn(1, frames, num_labels, generator=g, dtype=torch.float64) * 2
    if forbidden:
        scores[..., 1:] = scores[..., 1:].masked_fill(
            torch.rand(1, frames, num_labels - 1, generator=g) < 0.3, -torch.inf
        )
    scores = scores.to(dtype)
    (labels,) = ctc_prefix_beam(scores, torch.tensor([frames]), blank=blank)
    sums = probabilities(scores[0].double().softmax(dim=-1), blank)
    assert sums[tuple(labels)] == pytest.approx(max(sums.values()), rel=1e-9)


def test_the_best_labels_are_not_those_of_the_best_path() -> None:
    """Two paths of blank-then-label and its like outweigh the single best one (Graves et al. 2006, figure 2)."""
    scores = torch.tensor([[[0.6, 0.4], [0.6, 0.4]]]).log()
    assert ctc_greedy(scores, torch.tensor([2])) == [[]]
    assert ctc_prefix_beam(scores, torch.tensor([2])) == [[1]]
    assert ctc_prefix_beam(scores, torch.tensor([2]), beam_width=1) == [[]]


@pytest.mark.parametrize("beam_width", [1, 3, 20])
def test_peaked_scores_are_decoded_by_any_beam(beam_width: int) -> None:
    path = torch.tensor([[1, 1, 0, 1, 2, 2, 3, 0, 0, 3, 3]])
    scores = torch.nn.functional.one_hot(path, 4).double() * 9
    assert ctc_prefix_beam(scores, torch.tensor([11]), beam_width=beam_width) == [[1, 1, 2, 3, 3]]


def test_a_wider_beam_finds_nothing_worse_on_long_utterances() -> None:
    """Compared by the exact loss of what was found."""
    g = torch.Generator().manual_seed(0)
    scores, lengths = torch.randn(3, 40, 12, generator=g, dtype=torch.float64) * 2, torch.tensor([40, 25, 0])
    losses = []
    for beam_width in (1, 50):
        decoded = ctc_prefix_beam(scores, lengths, blank=11, beam_width=beam_width)
        assert decoded[2] == []
        counts = torch.tensor([len(labels) for labels in decoded])
        targets = torch.zeros(3, 40, dtype=torch.int64)
        for b, labels in enumerate(decoded):
            targets[b, : len(labels)] = torch.tensor(labels)
        losses.append(ctc_loss(scores, targets, lengths, counts, blank=11, normalize=True))
    assert bool((losses[1] <= losses[0]).all())


def test_a_prefix_that_comes_back_is_recognized() -> None:
    """With a beam of two the empty prefix falls out of it and its extension by 1 stays; nothing is counted twice."""
    g = torch.Generator().manual_seed(1)
    for _ in range(30):
        scores = torch.randn(1, 6, 3, generator=g, dtype=torch.float64) * 2
        for beam_width in (2, 3, 5):
            (labels,) = ctc_prefix_beam(scores, torch.tensor([6]), beam_width=beam_width)
            assert labels == plainly(scores[0].softmax(dim=-1).tolist(), beam_width)


def plainly(frames: list[list[float]], beam_width: int) -> list[int]:
    """Prefixes as tuples in a dictionary, probabilities as they are; blank is 0."""
    beam = {(): (1.0, 0.0)}
    for frame in frames:
        following: dict[tuple[int, ...], list[float]] = defaultdict(lambda: [0.0, 0.0])
        for prefix, (in_blank, in_label) in beam.items():
            following[prefix][0] += (in_blank + in_label) * frame[0]
            for label in range(1, len(frame)):
                again = bool(prefix) and prefix[-1] == label
                if again:
                    following[prefix][1] += in_label * frame[label]
                following[(*prefix, label)][1] += (in_blank if again else in_blank + in_label) * frame[label]
        best = sorted(following.items(), key=lambda item: -sum(item[1]))[:beam_width]
        beam = {prefix: (values[0], values[1]) for prefix, values in best}
    return list(next(iter(beam)))


def test_ties_go_to_what_is_there_then_to_the_smaller_label() -> None:
    scores = torch.zeros(1, 1, 4)
    assert ctc_prefix_beam(scores, torch.tensor([1]), blank=3) == [[]]
    scores[0, 0, 3] = -1.0
    assert ctc_prefix_beam(scores, torch.tensor([1]), blank=3) == [[0]]
    assert ctc_prefix_beam(scores, torch.tensor([1]), blank=3, beam_width=1) == [[0]]
    many = torch.zeros(4, 6, 5)
    decoded = ctc_prefix_beam(many, torch.full((4,), 6), beam_width=7)
    assert decoded == [decoded[0]] * 4


def test_normalize() -> None:
    scores = torch.tensor([[[2.0, 1.5], [0.0, -0.5]]])
    lengths = torch.tensor([2])
    assert ctc_prefix_beam(scores, lengths) == ctc_prefix_beam(
        scores.log_softmax(dim=-1), lengths, normalize=False
    )
    # Whatever is added to all labels of a frame is the same for all prefixes.
    assert ctc_prefix_beam(scores - 1000.0, lengths, normalize=False) == ctc_prefix_beam(scores, lengths)


def test_padding_is_not_read_and_scores_may_need_a_gradient() -> None:
    scores = torch.nn.functional.one_hot(torch.tensor([[1, 1, 2], [2, 1, 2]]), 3).double() * 9
    scores[0, 2], scores[1] = torch.nan, torch.inf
    lengths = torch.tensor([2, 0], dtype=torch.int32)
    assert ctc_prefix_beam(scores.requires_grad_(), lengths) == [[1], []]


def test_no_utterances_and_no_frames() -> None:
    assert ctc_prefix_beam(torch.zeros(0, 4, 3), torch.zeros(0, dtype=torch.int64)) == []
    assert ctc_prefix_beam(torch.zeros(2, 0, 3), torch.zeros(2, dtype=torch.int64)) == [[], []]


def test_bad_arguments_are_named() -> None:
    scores, lengths = torch.zeros(2, 4, 3), torch.tensor([4, 4])
    with pytest.raises(ShapeError, match=r"must be \(B, T, V\)"):
        ctc_prefix_beam(scores[0], lengths)
    with pytest.raises(ShapeError, match=r"lengths must be \(2,\)"):
        ctc_prefix_beam(scores, torch.tensor([4]))
    with pytest.raises(ShapeError, match=r"0\.\.4, got 1\.\.5"):
        ctc_prefix_beam(scores, torch.tensor([1, 5]))
    with pytest.raises(ArgumentError, match="blank is 3, but scores have 3 columns"):
        ctc_prefix_beam(scores, lengths, blank=3)
    with pytest.raises(ArgumentError, match="beam_width must be at least 1, got 0") as caught:
        ctc_prefix_beam(scores, lengths, beam_width=0)
    assert caught.value.argument == "beam_width"


@pytest.mark.parametrize(
    ("value", "message"),
    [(torch.nan, r"NaN or \+inf"), (torch.inf, r"NaN or \+inf"), (-torch.inf, "no label above -inf")],
)
@pytest.mark.parametrize("normalize", [False, True])
def test_scores_that_are_no_numbers(value: float, message: str, normalize: bool) -> None:
    scores = torch.zeros(2, 4, 3)
    scores[1, 2] = value
    match = rf"scores of utterance 1 hold {message} at frame 2"
    with pytest.raises(NonFiniteScoresError, match=match) as caught:
        ctc_prefix_beam(scores, torch.tensor([4, 4]), normalize=normalize)
    assert (caught.value.argument, caught.value.utterance, caught.value.frame) == ("scores", 1, 2)
