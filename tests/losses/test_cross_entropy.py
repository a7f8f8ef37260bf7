"""Cross-entropy: every option against its definition, and the edges where naive formulas give NaN."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as hs

from seqtrain.errors import ArgumentError, LabelError, NonFiniteScoresError
from seqtrain.losses.cross_entropy import CrossEntropyLoss, cross_entropy
from tests.fsa.strategies import quick
from tests.losses.frame_examples import (
    Bad,
    Example,
    Values,
    bad_arguments,
    bad_name,
    check_formula,
    check_gradients,
    check_module,
    check_nothing,
    check_refused,
    distributions,
    dtypes,
    labels,
    layouts,
    normal,
    positive,
    random_example,
    seeds,
    uniform,
)

INF = torch.inf
EXAMPLE = Example(torch.randn(2, 3, 4), torch.tensor([[0, 1, 2], [3, 0, 9]]), torch.tensor([3, 2]))

inputs = hs.sampled_from(["logits", "log_probs", "probs"])


def log_distributions(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    return distributions(shape, generator).log()


SCORES: dict[str, Values] = {"logits": normal, "log_probs": log_distributions, "probs": distributions}


def log_probs_of(scores: torch.Tensor, input: str, min_prob: float) -> torch.Tensor:
    if input == "logits":
        return scores - scores.exp().sum(dim=1, keepdim=True).log()
    if input == "log_probs":
        return scores
    return torch.where(scores < min_prob, min_prob, scores).log()


def formula(
    scores: torch.Tensor,
    targets: torch.Tensor,
    *,
    input: str = "logits",
    label_smoothing: float = 0.0,
    gaussian_stddev: float | None = None,
    subtract_entropy: bool = False,
    focal_factor: float = 0.0,
    upper_bound: float | None = None,
    min_prob: float = 0.0,
) -> torch.Tensor:
    """The definition, for scores where nothing is infinite."""
    log_probs = log_probs_of(scores, input, min_prob)
    size = scores.shape[1]
    if targets.dim() == 2:
        wanted = targets
    else:
        at_target = targets[:, None] == torch.arange(size)
        if gaussian_stddev is not None:
            deviations = (torch.arange(size).double() - targets[:, None]) / gaussian_stddev
            density = (-(deviations**2) / 2).exp() / (gaussian_stddev * math.sqrt(2 * math.pi))
            wanted = density / density.sum(dim=1, keepdim=True)
        elif label_smoothing:
            elsewhere = torch.full_like(scores, label_smoothing / (size - 1))
            wanted = torch.where(at_target, 1.0 - label_smoothing, elsewhere)
        else:
            wanted = at_target.double()
    losses = -(wanted * log_probs).sum(dim=1)
    if subtract_entropy:
        losses = losses + torch.where(wanted > 0, wanted * wanted.clamp(min=1e-300).log(), 0.0).sum(dim=1)
    if focal_factor:
        probs = log_probs.exp()[at_target]
        certain = probs >= 1.0
        rest = 1.0 - torch.where(certain, 0.5, probs)
        losses = losses * torch.where(certain, 0.0, rest**focal_factor)
    if upper_bound is not None:
        losses = torch.where(losses > upper_bound, upper_bound, losses)
    return losses


def check(seed: int, dtype: torch.dtype, layout: str, targets: Values, **options: Any) -> None:
    example = random_example(
        seed, scores=SCORES[options.get("input", "logits")], targets=targets, dtype=dtype
    )
    if options.get("label_smoothing"):
        assume(example.scores.shape[2] > 1)
    criterion, definition = partial(cross_entropy, **options), partial(formula, **options)
    check_formula(criterion, definition, example, layout=layout)


@quick
@given(seed=seeds, dtype=dtypes, layout=layouts, input=inputs)
def test_labels(seed: int, dtype: torch.dtype, layout: str, input: str) -> None:
    check(seed, dtype, layout, labels, input=input)


@quick
@given(seed=seeds, dtype=dtypes, layout=layouts, input=inputs, subtract_entropy=hs.booleans())
def test_dense(seed: int, dtype: torch.dtype, layout: str, input: str, subtract_entropy: bool) -> None:
    """Of weights that sum to anything; without the entropy also negative ones."""
    targets = positive if subtract_entropy else normal
    check(seed, dtype, layout, targets, input=input, subtract_entropy=subtract_entropy)


@quick
@given(
    seed=seeds, dtype=dtypes, layout=layouts, input=inputs, subtract_entropy=hs.booleans(),
    distribution=hs.sampled_from(
        [{"label_smoothing": 0.1}, {"label_smoothing": 0.9}, {"gaussian_stddev": 0.5}, {"gaussian_stddev": 3.0}]
    ),
)  # fmt: skip
def test_smoothing(
    seed: int,
    dtype: torch.dtype,
    layout: str,
    input: str,
    subtract_entropy: bool,
    distribution: dict[str, float],
) -> None:
    check(seed, dtype, layout, labels, input=input, subtract_entropy=subtract_entropy, **distribution)


@quick
@given(
    seed=seeds, dtype=dtypes, layout=layouts, input=inputs, focal_factor=hs.sampled_from([0.5, 1.0, 2.0]),
    distribution=hs.sampled_from([{}, {}, {"label_smoothing": 0.2}, {"gaussian_stddev": 1.0}]),
    upper_bound=hs.sampled_from([None, 0.3]),
)  # fmt: skip
def test_focus(
    seed: int,
    dtype: torch.dtype,
    layout: str,
    input: str,
    focal_factor: float,
    distribution: dict[str, float],
    upper_bound: float | None,
) -> None:
    check(
        seed,
        dtype,
        layout,
        labels,
        input=input,
        focal_factor=focal_factor,
        upper_bound=upper_bound,
        **distribution,
    )


@quick
@given(seed=seeds, dtype=dtypes, layout=layouts, input=inputs, upper_bound=hs.sampled_from([0.01, 0.7, 2.0]))
def test_upper_bound(seed: int, dtype: torch.dtype, layout: str, input: str, upper_bound: float) -> None:
    check(seed, dtype, layout, labels, input=input, upper_bound=upper_bound)
    check(seed, dtype, layout, uniform, input=input, upper_bound=upper_bound)


@quick
@given(
    seed=seeds, dtype=dtypes, layout=layouts, targets=hs.sampled_from([labels, normal]),
    min_prob=hs.sampled_from([1e-20, 0.15, 0.6]), focal_factor=hs.sampled_from([0.0, 1.5]),
)  # fmt: skip
def test_min_prob(
    seed: int, dtype: torch.dtype, layout: str, targets: Values, min_prob: float, focal_factor: float
) -> None:
    focal_factor = focal_factor if targets is labels else 0.0
    check(seed, dtype, layout, targets, input="probs", min_prob=min_prob, focal_factor=focal_factor)


@pytest.mark.parametrize("input", ["logits", "log_probs", "probs"])
@pytest.mark.parametrize(
    ("targets", "options"),
    [
        (labels, {}),
        (normal, {}),
        (positive, {"subtract_entropy": True}),
        (labels, {"label_smoothing": 0.2, "focal_factor": 2.0}),
        (labels, {"gaussian_stddev": 1.0, "upper_bound": 1.0}),
    ],
)
def test_gradients(input: str, targets: Values, options: dict[str, Any]) -> None:
    # Finite differences of log-probabilities and probabilities leave the simplex, which is no matter.
    example = random_example(3, scores=SCORES[input], targets=targets)
    check_gradients(partial(cross_entropy, input=input, **options), example)


def test_is_torchs() -> None:
    """Where torch has the same options: its smoothing gives all V labels a share."""
    logits, targets = EXAMPLE.scores, EXAMPLE.targets.clamp(max=3)
    found = cross_entropy(logits, targets, label_smoothing=0.3, reduction="per_frame")
    wanted = torch.nn.functional.cross_entropy(
        logits.transpose(1, 2), targets, label_smoothing=0.3 * 4 / 3, reduction="none"
    )
    torch.testing.assert_close(found, wanted)
    dense = targets.new_zeros(2, 3, 4).float().scatter_(2, targets[..., None], 1.0) * 0.6 + 0.1
    divergence = cross_entropy(logits, dense, subtract_entropy=True)
    wanted = torch.nn.functional.kl_div(logits.log_softmax(-1), dense, reduction="none").sum((1, 2))
    torch.testing.assert_close(divergence, wanted)


def differentiated(scores: list[float], target: int | list[float], **options: Any) -> tuple[Any, Any]:
    """Loss and gradient of one frame; of no type that would forbid to compare them with an approximate one."""
    leaf = torch.tensor([[scores]], requires_grad=True)
    loss = cross_entropy(leaf, torch.tensor([[target]]), **options)
    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    return loss.item(), gradient.flatten().tolist()


@pytest.mark.parametrize("target", [0, [1.0, 0.0, 0.0]])
def test_a_label_of_probability_zero_adds_nothing(target: int | list[float]) -> None:
    loss, gradient = differentiated([0.0, 0.0, -INF], target)
    assert (loss, gradient) == (pytest.approx(0.6931472), pytest.approx([-0.5, 0.5, 0.0]))
    assert differentiated([-1.0, -1.0, -INF], target, input="log_probs") == (1.0, [-1.0, 0.0, 0.0])
    loss, gradient = differentiated([0.5, 0.5, 0.0], target, input="probs")
    assert (loss, gradient) == (pytest.approx(0.6931472), [-2.0, 0.0, 0.0])


@pytest.mark.parametrize("target", [2, [0.0, 0.0, 1.0]])
def test_a_target_of_probability_zero_has_an_infinite_loss(target: int | list[float]) -> None:
    loss, gradient = differentiated([0.0, 0.0, -INF], target)
    assert (loss, gradient) == (INF, [0.5, 0.5, -1.0])
    assert differentiated([-1.0, -1.0, -INF], target, input="log_probs") == (INF, [0.0, 0.0, -1.0])
    assert differentiated([0.5, 0.5, 0.0], target, input="probs") == (INF, [0.0, 0.0, -INF])


def test_weights_of_labels_of_probability_zero() -> None:
    """A smoothed target gives each label some weight; of a narrow Gaussian, far labels' weights vanish in float32."""
    assert differentiated([0.0, 0.0, -INF], 0, label_smoothing=0.2)[0] == INF
    assert differentiated([0.0, 0.0, -INF], 0, gaussian_stddev=1.0)[0] == INF
    loss, gradient = differentiated([0.0, 0.0, -INF], 0, gaussian_stddev=0.01)
    assert (loss, gradient) == (pytest.approx(0.6931472), pytest.approx([-0.5, 0.5, 0.0]))
    loss, gradient = differentiated([0.0, 0.0, -INF], 0, gaussian_stddev=1e-30, subtract_entropy=True)
    assert (loss, gradient) == (pytest.approx(0.6931472), pytest.approx([-0.5, 0.5, 0.0]))


@pytest.mark.parametrize("focal_factor", [0.25, 1.0, 2.0])
def test_focus_at_the_ends(focal_factor: float) -> None:
    """Of a certain target nothing is left to learn; an impossible one has the cross-entropy's derivative."""
    focused = partial(differentiated, focal_factor=focal_factor)
    assert focused([200.0, 0.0], 0) == (0.0, [0.0, 0.0])
    assert focused([0.0, -INF], 0, input="log_probs") == (0.0, [0.0, 0.0])
    assert focused([1.0, 0.0], 0, input="probs") == (0.0, [0.0, 0.0])
    assert focused([0.0, -INF], 1) == (INF, [1.0, -1.0])
    assert focused([0.0, -INF], 1, input="log_probs") == (INF, [0.0, -1.0])
    assert focused([1.0, 0.0], 1, input="probs") == (INF, [0.0, -INF])
    loss, gradient = focused([1.0, 0.0], 1, input="probs", label_smoothing=0.1)
    assert (loss, gradient) == (INF, [pytest.approx(-0.1), -INF])
    loss, gradient = focused([1.0, 0.0], 0, input="probs", label_smoothing=0.1)
    assert (loss, gradient) == (INF, [pytest.approx(-0.9), -INF])


@pytest.mark.parametrize("input", ["log_probs", "probs"])
def test_rounding_above_a_probability_of_one(input: str) -> None:
    scores = [1e-6, -20.0] if input == "log_probs" else [1.000001, 0.0]
    loss, gradient = differentiated(scores, 0, input=input, focal_factor=0.5)
    assert (loss, gradient) == (pytest.approx(0.0, abs=1e-6), [0.0, 0.0])


@pytest.mark.parametrize(
    "options",
    [{}, {"label_smoothing": 0.1}, {"focal_factor": 0.5}, {"label_smoothing": 0.1, "focal_factor": 2.0}],
)
@pytest.mark.parametrize(
    ("input", "scores"),
    [("logits", [-INF, 1.0, 0.0]), ("log_probs", [-INF, -1.0, -0.5]), ("probs", [0.0, 0.4, 0.6])],
)
def test_an_infinite_loss_can_be_bounded(input: str, scores: list[float], options: dict[str, float]) -> None:
    loss, gradient = differentiated(scores, 0, input=input, upper_bound=3.0, **options)
    assert (loss, gradient) == (3.0, [0.0, 0.0, 0.0])


def test_min_prob_at_zero() -> None:
    loss, gradient = differentiated([0.0, 1.0], 0, input="probs", min_prob=1e-20)
    assert (loss, gradient) == (pytest.approx(46.0517), [0.0, 0.0])


def test_logits_of_no_distribution() -> None:
    scores = EXAMPLE.scores.clone()
    scores[1, 1] = -INF
    with pytest.raises(NonFiniteScoresError, match="utterance 1 hold -inf for every label at frame 1") as e:
        cross_entropy(scores, EXAMPLE.targets, EXAMPLE.lengths)
    assert (e.value.argument, e.value.utterance, e.value.frame) == ("scores", 1, 1)
    scores[1, 1], scores[1, 2] = 0.0, -INF
    assert cross_entropy(scores, EXAMPLE.targets, EXAMPLE.lengths).isfinite().all()
    losses = cross_entropy(torch.full((1, 1, 2), -INF), torch.tensor([[0]]), input="log_probs")
    assert losses.tolist() == [INF]


def test_gradients_reach_weights_of_zero() -> None:
    """∂loss/∂t_k = -log p_k, whatever t_k is."""
    targets = torch.tensor([[[1.0, 0.0]]], requires_grad=True)
    logits = torch.tensor([[[0.0, 1.0]]])
    (gradient,) = torch.autograd.grad(cross_entropy(logits, targets), targets)
    torch.testing.assert_close(gradient, -logits.log_softmax(-1))


@pytest.mark.parametrize("targets", [labels, uniform])
@pytest.mark.parametrize("options", [{}, {"upper_bound": 1.0}])
def test_nothing(targets: Values, options: dict[str, Any]) -> None:
    check_nothing(partial(cross_entropy, **options), targets=targets)


@pytest.mark.parametrize(
    "options", [{"label_smoothing": 0.1, "focal_factor": 1.0}, {"gaussian_stddev": 1.0, "upper_bound": 1.0}]
)
def test_nothing_smoothed(options: dict[str, Any]) -> None:
    check_nothing(partial(cross_entropy, **options))


def test_module() -> None:
    text = (
        "CrossEntropyLoss(input='logits', label_smoothing=0.0, gaussian_stddev=None, subtract_entropy=False, "
        "focal_factor=0.0, upper_bound=None, min_prob=0.0, reduction='batch')"
    )
    check_module(CrossEntropyLoss(), cross_entropy, EXAMPLE, text)


@pytest.mark.parametrize(
    "options",
    [
        {"input": "log_probs", "label_smoothing": 0.2, "subtract_entropy": True},
        {"gaussian_stddev": 0.5, "focal_factor": 2.0, "reduction": "frames"},
        {"input": "probs", "min_prob": 0.3, "upper_bound": 0.9, "reduction": "per_frame"},
    ],
)
def test_the_module_keeps_its_options(options: dict[str, Any]) -> None:
    scores = EXAMPLE.scores.softmax(-1)
    example = EXAMPLE._replace(scores=scores.log() if options.get("input") != "probs" else scores)
    expected = cross_entropy(*example, **{"reduction": "batch"} | options)
    assert torch.equal(CrossEntropyLoss(**options)(*example), expected)


NEGATIVE = EXAMPLE.scores.softmax(-1)
NEGATIVE[1, 0, 2] = -0.25
ABOVE = EXAMPLE.scores.softmax(-1)
ABOVE[0, 1, 1] = 1.5
DENSE = torch.rand(2, 3, 4)
NEGATIVE_DENSE = DENSE.clone()
NEGATIVE_DENSE[1, 1, 0] = -1.0


def bad(argument: str, message: str, **changes: Any) -> Bad:
    return Bad(changes, ArgumentError, argument, message)


@pytest.mark.parametrize(
    "case",
    [
        *bad_arguments("scores", EXAMPLE, dense=False),
        *(
            case._replace(changes={"targets": DENSE} | case.changes)
            for case in bad_arguments("scores", EXAMPLE._replace(targets=DENSE), dense=True)
        ),
        bad("input", "input must be one of 'logits', 'log_probs', 'probs', got 'prob'", input="prob"),
        bad("label_smoothing", r"must lie in \[0, 1\), got 1\.0", label_smoothing=1.0),
        bad("label_smoothing", r"must lie in \[0, 1\), got -0\.1", label_smoothing=-0.1),
        bad("gaussian_stddev", r"must be positive and finite, got 0\.0", gaussian_stddev=0.0),
        bad("gaussian_stddev", "must be positive and finite, got inf", gaussian_stddev=INF),
        bad(
            "gaussian_stddev", r"label_smoothing = 0\.1 and gaussian_stddev = 2\.0 are two distr.*: pass one",
            label_smoothing=0.1, gaussian_stddev=2.0,
        ),
        bad("focal_factor", r"must be finite and not negative, got -1\.0", focal_factor=-1.0),
        bad("focal_factor", "must be finite and not negative, got nan", focal_factor=torch.nan),
        bad("upper_bound", r"upper_bound must be positive, got 0\.0", upper_bound=0.0),
        bad("upper_bound", "upper_bound must be positive, got nan", upper_bound=torch.nan),
        bad("min_prob", r"must lie in \[0, 1\), got -0\.5", min_prob=-0.5, input="probs"),
        bad("min_prob", r"min_prob = 0\.1 is a bound of probabilities, but input='logits'", min_prob=0.1),
        bad(
            "scores", r"scores of utterance 1 hold -0\.25 at frame 0: probabilities must not be negative",
            scores=NEGATIVE, input="probs",
        ),
        bad(
            "scores", r"utterance 0 hold 1\.5 at frame 1: focal_factor needs probabilities of at most 1",
            scores=ABOVE, input="probs", focal_factor=1.0,
        ),
        bad(
            "scores", r"utterance 0 hold 0\.405465 at frame 1: focal_factor needs probabilities of at most 1",
            scores=ABOVE.log(), input="log_probs", focal_factor=1.0,
        ),
        bad(
            "label_smoothing", r"label_smoothing = 0\.1 needs another label .*, but the scores have one",
            scores=EXAMPLE.scores[..., :1], targets=torch.zeros(2, 3, dtype=torch.int64), label_smoothing=0.1,
        ),
        bad("label_smoothing", r"= 0\.1 needs integer targets", targets=DENSE, label_smoothing=0.1),
        bad("gaussian_stddev", r"= 2\.0 needs integer targets", targets=DENSE, gaussian_stddev=2.0),
        bad("focal_factor", r"= 1\.0 needs integer targets", targets=DENSE, focal_factor=1.0),
        bad(
            "targets", r"targets of utterance 1 hold -1 at frame 1: subtract_entropy needs weights of 0 or more",
            targets=NEGATIVE_DENSE, subtract_entropy=True,
        ),
    ],
    ids=bad_name,
)  # fmt: skip
def test_arguments(case: Bad) -> None:
    check_refused(cross_entropy, EXAMPLE, case)


@pytest.mark.parametrize("label", [-1, 4])
def test_a_label_that_is_no_column(label: int) -> None:
    targets = torch.tensor([[0, 1, 2], [3, label, 9]])
    with pytest.raises(LabelError, match=f"targets of utterance 1 hold {label} at frame 1") as caught:
        cross_entropy(EXAMPLE.scores, targets, EXAMPLE.lengths)
    error = caught.value
    assert (error.utterance, error.position, error.label, error.num_labels) == (1, 1, label, 4)


@pytest.mark.parametrize(
    "options",
    [
        {"input": "prob"},
        {"label_smoothing": 2.0},
        {"focal_factor": -1.0},
        {"upper_bound": -1.0},
        {"min_prob": 0.1},
    ],
)
def test_the_modules_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError) as caught:
        CrossEntropyLoss(**options)
    assert caught.value.argument in options


def test_autocast_leaves_the_loss_in_single_precision() -> None:
    layer = torch.nn.Linear(4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = layer(EXAMPLE.scores)
        loss = CrossEntropyLoss(label_smoothing=0.1)(logits, EXAMPLE.targets, EXAMPLE.lengths)
    assert (logits.dtype, loss.dtype) == (torch.bfloat16, torch.float32)
    torch.autograd.backward(loss)
    assert layer.weight.grad is not None
    assert layer.weight.grad.isfinite().all()
