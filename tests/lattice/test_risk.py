"""Expected risk of a `Lattice`, and the costs of its arcs, against the paths one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as hs

from seqtrain.errors import (
    ArgumentError,
    DerivativeError,
    DtypeError,
    InfeasibleError,
    LatticeSizeError,
    NonFiniteScoresError,
    ShapeError,
)
from seqtrain.fsa import Fsa, FsaBatch
from seqtrain.infeasible import InfeasibleCount
from seqtrain.lattice import (
    Lattice,
    edit_risk,
    expected_risk,
    frame_accuracy,
    overlap_accuracy,
    total_score,
)
from tests.fsa.strategies import quick
from tests.lattice.examples import LatticePath, enumerate_lattice, random_lattice


def paths_of(lattice: Lattice) -> tuple[list[LatticePath], np.ndarray]:
    """The paths of a lattice of one utterance, and their probabilities."""
    paths = list(enumerate_lattice(lattice))
    scores = np.array([path.score for path in paths])
    return paths, np.exp(scores - np.logaddexp.reduce(scores)) if paths else scores


def levenshtein(hypothesis: list[int], reference: list[int]) -> int:
    """By its definition, without a table."""
    if not hypothesis or not reference:
        return len(hypothesis) + len(reference)
    if hypothesis[-1] == reference[-1]:
        return levenshtein(hypothesis[:-1], reference[:-1])
    return 1 + min(
        levenshtein(hypothesis[:-1], reference[:-1]),
        levenshtein(hypothesis[:-1], reference),
        levenshtein(hypothesis, reference[:-1]),
    )


def collapsed(labels: list[int], blank: int) -> list[int]:
    kept = [v for k, v in enumerate(labels) if k == 0 or labels[k - 1] != v]
    return [v for v in kept if v != blank]


@quick
@given(seed=hs.integers(0, 10**6))
def test_expected_risk_of_any_small_lattice(seed: int) -> None:
    lattice = random_lattice(range(seed, seed + 3))
    risks = torch.from_numpy(np.random.default_rng(seed).normal(size=lattice.weights.shape[0]))
    value = expected_risk(lattice, risks, on_infeasible="mask")
    offsets = lattice.arc_offsets.tolist()
    for b, one in enumerate(lattice):
        paths, probabilities = paths_of(one)
        own = risks[offsets[b] : offsets[b + 1]].numpy()
        exact = sum(p * own[list(path.arcs)].sum() for p, path in zip(probabilities, paths, strict=True))
        assert float(value[b]) == pytest.approx(exact, rel=1e-9, abs=1e-9)


def test_the_gradient_reaches_weights_and_risks() -> None:
    lattice = random_lattice(range(4))
    weights = lattice.weights.clamp(min=-5).requires_grad_()
    risks = torch.randn(weights.shape, dtype=torch.float64, requires_grad=True)
    finals = torch.randn(lattice.final_weights.shape, dtype=torch.float64, requires_grad=True)

    def value(w: torch.Tensor, r: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
        return expected_risk(lattice.with_weights(w), r, f)

    assert torch.autograd.gradcheck(value, (weights, risks, finals))


def test_arc_posteriors_are_the_gradient_of_the_risks() -> None:
    lattice = random_lattice(range(3))
    lattice = lattice.with_weights(lattice.weights.clamp(min=-5).requires_grad_())
    risks = torch.zeros(lattice.weights.shape, dtype=torch.float64, requires_grad=True)
    (by_risk,) = torch.autograd.grad(expected_risk(lattice, risks).sum(), risks)
    (by_weight,) = torch.autograd.grad(total_score(lattice).sum(), lattice.weights)
    torch.testing.assert_close(by_risk, by_weight, rtol=1e-12, atol=1e-12)


def test_a_second_derivative_is_refused() -> None:
    lattice = random_lattice(range(1))
    weights = lattice.weights.clamp(min=-5).requires_grad_()
    risks = torch.randn(weights.shape, dtype=torch.float64)
    value = expected_risk(lattice.with_weights(weights), risks)
    (gradient,) = torch.autograd.grad((value**2).sum(), weights, create_graph=True)
    with pytest.raises(DerivativeError, match="second derivative"):
        gradient.sum().backward()


def without_paths() -> Lattice:
    batch = FsaBatch.from_list([Fsa([[0, 1, 0]]), Fsa([[0, 1, 0]], final={})], tags=["good", "bad"])
    return Lattice.from_fsa(batch)


def test_an_utterance_without_a_path_is_named_or_masked_and_counted() -> None:
    lattice, risks = without_paths(), torch.tensor([3.0, 4.0])
    with pytest.raises(InfeasibleError, match=r"utterance 1 \(bad\): 1 frames given"):
        expected_risk(lattice, risks)
    count = InfeasibleCount()
    assert expected_risk(lattice, risks, on_infeasible="mask", infeasible=count).tolist() == [3.0, 0.0]
    assert count.last_tags == ("bad",)
    assert expected_risk(lattice, risks, on_infeasible="inf").tolist() == [3.0, torch.inf]


def test_bad_risks_are_named() -> None:
    lattice = without_paths()
    with pytest.raises(ShapeError, match=r"risks must have shape \(2,\)"):
        expected_risk(lattice, torch.zeros(3))
    with pytest.raises(DtypeError, match="risks must be a tensor of floats"):
        expected_risk(lattice, torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ShapeError, match="final_risks must have shape"):
        expected_risk(lattice, torch.zeros(2), torch.zeros(5))
    with pytest.raises(NonFiniteScoresError, match="risks: the risk of arc 0 .* of lattice 1 is nan"):  # noqa: RUF043
        expected_risk(lattice, torch.tensor([0.0, torch.nan]))


# --- accuracies


def time_lattice(seed: int, frames: int = 6, labels: int = 3) -> Lattice:
    """Arcs of one to three frames between the frames of one utterance; each frame is a state."""
    random = np.random.default_rng(seed)
    arcs = [
        [t, t + d, v]
        for t in range(frames)
        for d in (1, 2, 3)
        for v in range(labels)
        if t + d <= frames and (d == 1 or random.random() < 0.4)
    ]
    weights = torch.from_numpy(random.normal(size=len(arcs)))
    return Lattice.from_fsa(Fsa(arcs, weights, num_states=frames + 1), frames=list(range(frames + 1)))


@quick
@given(seed=hs.integers(0, 10**6), mapped=hs.booleans())
def test_frame_accuracy_counts_the_right_frames_of_a_path(seed: int, mapped: bool) -> None:
    lattice = time_lattice(seed, frames=4)
    random = np.random.default_rng(seed)
    alignment = torch.from_numpy(random.integers(-1, 3, size=(1, 7)))
    phones = [0, None, 0] if mapped else [0, 1, 2]
    accuracy = frame_accuracy(lattice, alignment, label_map=phones if mapped else None)
    first, end = lattice.arc_frames()
    for path in enumerate_lattice(lattice):
        spoken = [int(lattice.arcs[a, 2]) for a in path.arcs for _ in range(int(first[a]), int(end[a]))]
        pairs = zip(spoken, alignment[0].tolist(), strict=False)
        right = sum(r >= 0 and phones[r] is not None and phones[h] == phones[r] for h, r in pairs)
        assert float(accuracy[list(path.arcs)].sum()) == right


def test_overlap_accuracy_by_hand() -> None:
    """Two reference phones of four frames each; the formula's cases one by one."""
    arcs = [[0, 1, 5], [0, 2, 5], [0, 3, 6], [1, 3, 6], [2, 3, 7]]
    lattice = Lattice.from_fsa(Fsa(arcs, num_states=4), frames=[0, 4, 6, 8])
    accuracy = overlap_accuracy(
        lattice, torch.tensor([[5, 6]]), torch.tensor([[0, 4]]), torch.tensor([[4, 8]]), torch.tensor([2])
    )
    found = {tuple(arc): float(a) for arc, a in zip(lattice.arcs.tolist(), accuracy, strict=True)}
    assert found[0, 1, 5] == 1.0  # a hit
    assert found[0, 2, 5] == 1.0  # covers the phone whole, and a part of the next
    assert found[0, 3, 6] == 1.0
    assert found[1, 3, 6] == 1.0
    assert found[2, 3, 7] == -0.5  # a wrong phone on half of the reference's
    silent = overlap_accuracy(
        lattice, torch.tensor([[5, 6]]), torch.tensor([[0, 4]]), torch.tensor([[4, 8]]), torch.tensor([2]),
        label_map=[0, 1, 2, 3, 4, 5, 6, None],
    )  # fmt: skip
    assert silent.tolist() == [1.0, 1.0, 1.0, 1.0, 0.0]
    nothing = overlap_accuracy(
        lattice,
        torch.zeros(1, 0).long(),
        torch.zeros(1, 0).long(),
        torch.zeros(1, 0).long(),
        torch.tensor([0]),
    )
    assert nothing.tolist() == [-1.0] * 5  # insertions


@quick
@given(seed=hs.integers(0, 10**6))
def test_overlap_accuracy_by_its_formula(seed: int) -> None:
    lattice = time_lattice(seed)
    random = np.random.default_rng(seed)
    starts = np.sort(random.integers(0, 6, size=3))
    ends = starts + random.integers(1, 4, size=3)
    labels = random.integers(0, 3, size=3)
    accuracy = overlap_accuracy(
        lattice, *(torch.from_numpy(x)[None] for x in (labels, starts, ends)), torch.tensor([3])
    )
    first, end = lattice.arc_frames()
    for a, label in enumerate(lattice.arcs[:, 2].tolist()):
        best = -1.0
        for z in range(3):
            overlap = max(0, min(int(end[a]), ends[z]) - max(int(first[a]), starts[z])) / (
                ends[z] - starts[z]
            )
            best = max(best, -1 + (2 if label == labels[z] else 1) * overlap)
        assert float(accuracy[a]) == pytest.approx(best, abs=1e-12)


def test_accuracies_refuse_what_does_not_fit() -> None:
    lattice = time_lattice(0)
    with pytest.raises(ShapeError, match="alignment has 5 frames, but an utterance of the lattice has 6"):
        frame_accuracy(lattice, torch.zeros(1, 5).long())
    with pytest.raises(ArgumentError, match="labels: label 2 is not in label_map"):
        frame_accuracy(lattice, torch.zeros(1, 6).long(), label_map=[0, 1])
    with pytest.raises(ShapeError, match=r"labels must have shape"):
        frame_accuracy(lattice, torch.zeros(1, 6).long(), labels=torch.zeros(2).long())
    one = torch.zeros(1, 1).long()
    with pytest.raises(ShapeError, match="reference 0 of utterance 0 runs from frame 0 to 0"):
        overlap_accuracy(lattice, one, one, one, torch.tensor([1]))
    with pytest.raises(ShapeError, match="reference_lengths must lie in"):
        overlap_accuracy(lattice, one, one, one + 1, torch.tensor([2]))


# --- exact edit distance


@quick
@given(seed=hs.integers(0, 10**6), form=hs.sampled_from(["labels", "tokens", "ctc"]))
def test_the_expected_edit_distance_is_exact(seed: int, form: str) -> None:
    lattice = random_lattice(range(seed, seed + 2))
    random = np.random.default_rng(seed)
    references = torch.from_numpy(random.integers(0, 4, size=(2, 4)))
    lengths = torch.from_numpy(random.integers(0, 5, size=2))
    tokens = (
        torch.from_numpy(random.integers(-1, 4, size=lattice.arcs.shape[0])) if form == "tokens" else None
    )
    found = edit_risk(lattice, references, lengths, tokens=tokens, blank=0 if form == "ctc" else None)
    found.lattice.check()
    value = expected_risk(found.lattice, found.risks, found.final_risks, on_infeasible="mask")
    torch.testing.assert_close(total_score(found.lattice), total_score(lattice), rtol=1e-12, atol=1e-12)
    says = lattice.arcs[:, 2] if tokens is None else tokens
    offsets = lattice.arc_offsets.tolist()
    for b, one in enumerate(lattice):
        paths, probabilities = paths_of(one)
        exact = 0.0
        for p, path in zip(probabilities, paths, strict=True):
            said = [int(says[offsets[b] + a]) for a in path.arcs]
            said = collapsed(said, 0) if form == "ctc" else [token for token in said if token >= 0]
            exact += p * levenshtein(said, references[b, : lengths[b]].tolist())
        assert float(value[b]) == pytest.approx(exact, rel=1e-9, abs=1e-9)


def test_histories_of_equal_rows_share_a_state() -> None:
    """A sausage of two labels a position, against a reference of neither: rows depend on the position alone."""
    arcs = [[t, t + 1, v] for t in range(20) for v in range(2)]
    lattice = Lattice.from_fsa(Fsa(arcs))
    found = edit_risk(lattice, torch.full((1, 20), 7), torch.tensor([20]))
    assert found.lattice.frames.shape[0] == 21
    assert expected_risk(found.lattice, found.risks, found.final_risks).tolist() == [20.0]


def test_the_gradient_of_the_expected_edit_distance() -> None:
    lattice = random_lattice(range(2))
    weights = lattice.weights.clamp(min=-5).requires_grad_()
    references, lengths = torch.tensor([[1, 2], [3, 0]]), torch.tensor([2, 1])

    def value(w: torch.Tensor) -> torch.Tensor:
        return expected_risk(*edit_risk(lattice.with_weights(w), references, lengths)[:3])

    assert torch.autograd.gradcheck(value, (weights,))


def test_a_lattice_that_grows_too_large_is_named() -> None:
    arcs = [[t, t + 1, v] for t in range(12) for v in range(4)]
    lattice = Lattice.from_fsa(FsaBatch.from_list([Fsa(arcs)], tags=["wide"]))
    references = torch.tensor([[0, 1, 2, 3] * 3])
    with pytest.raises(
        LatticeSizeError, match=r"utterance 0 \(wide\): its lattice of 13 states needs more than 40"
    ) as e:
        edit_risk(lattice, references, torch.tensor([12]), max_states=40)
    assert (e.value.utterance, e.value.limit) == (0, 40)


def test_edit_risk_refuses_what_does_not_fit() -> None:
    lattice = time_lattice(0)
    references = torch.zeros(1, 2).long()
    with pytest.raises(ShapeError, match=r"reference_lengths\[0\] = 3"):
        edit_risk(lattice, references, torch.tensor([3]))
    with pytest.raises(ArgumentError, match="tokens and blank exclude each other"):
        edit_risk(lattice, references, torch.tensor([2]), tokens=lattice.arcs[:, 2], blank=0)
    with pytest.raises(ArgumentError, match="max_states must be at least 1"):
        edit_risk(lattice, references, torch.tensor([2]), max_states=0)
