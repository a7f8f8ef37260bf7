"""From a layer dict to a loss: keys, options, aliases, normalization, and what is said of bad ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from seqtrain.compat.returnn import CLASSES, LayerOutput, build_loss, fast_bw_layer, loss_layer
from seqtrain.compat.returnn.base import Batch
from seqtrain.errors import (
    ArgumentError,
    ConfigError,
    DerivativeError,
    DtypeError,
    InfeasibleError,
    LabelError,
    NonFiniteScoresError,
    ShapeError,
)
from seqtrain.losses import LogUniformSampler
from seqtrain.losses.frames import Frames

LOGITS = torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(0))
LENGTHS = torch.tensor([6, 0, 4])
LABELS = torch.randint(0, 5, (3, 6), generator=torch.Generator().manual_seed(1))


def test_all_classes_are_there() -> None:
    """The eighteenth is the layer of class "loss"."""
    assert set(CLASSES) == {
        "ce", "bin_ce", "generic_ce", "ctc", "edit_distance", "bleu", "expected_loss", "deep_clustering", "l1", "mse",
        "mean_l1", "sprint", "fast_bw", "via_layer", "as_is", "sampling_loss", "triplet_loss",
    }  # fmt: skip


def test_value_error_norm_factor_and_objective() -> None:
    loss = build_loss(
        {"class": "softmax", "loss": "ce", "loss_scale": 0.5, "loss_opts": {"use_normalized_loss": True}}
    )
    result = loss(LOGITS, LENGTHS, LABELS)
    rows = torch.cat([LOGITS[0], LOGITS[2, :4]])
    labels = torch.cat([LABELS[0], LABELS[2, :4]])
    expected = torch.nn.functional.cross_entropy(rows, labels, reduction="sum")
    torch.testing.assert_close(result.value, expected)
    torch.testing.assert_close(result.error, (rows.argmax(-1) != labels).sum().float())
    assert result.norm_factor.item() == pytest.approx(0.1)
    torch.testing.assert_close(result.objective, 0.05 * expected)


@pytest.mark.parametrize("scale", [{"loss_scale": 0.0}, {"loss_opts": {"scale": 0.0}}])
def test_scale_zero_has_no_objective(scale: dict[str, Any]) -> None:
    result = build_loss({"activation": "softmax", "loss": "ce", **scale})(LOGITS, LENGTHS, LABELS)
    assert result.objective is None
    assert result.value is not None


def test_an_alias_and_the_activation() -> None:
    target = torch.rand(3, 6, 5)
    plain = build_loss({"loss": "bin_ce"})(LOGITS, LENGTHS, target).value
    alias = build_loss({"loss": "sse_sigmoid"})(LOGITS, LENGTHS, target).value
    twice = build_loss({"loss": "bin_ce", "activation": "sigmoid"})(LOGITS, LENGTHS, target).value
    given = build_loss({"loss": "bin_ce"}, activation="sigmoid")(LOGITS, LENGTHS, target).value
    assert torch.equal(torch.stack([alias, twice]), torch.stack([plain, given]))
    assert not torch.equal(plain, twice)


def test_only_on_eval() -> None:
    loss = build_loss({"activation": "softmax", "loss": "ce", "only_on_eval": True})
    assert loss(LOGITS, LENGTHS, LABELS, train=True).value == 0.0
    assert loss(LOGITS, LENGTHS, LABELS, train=False).value > 0.0


def test_a_custom_norm_factor_may_be_a_function() -> None:
    options = {
        "custom_norm_factor": lambda self, output, layer: 1.0 / output.shape[0],
        "use_normalized_loss": True,
    }
    result = build_loss({"activation": "softmax", "loss": "ce", "loss_opts": options})(
        LOGITS, LENGTHS, LABELS
    )
    torch.testing.assert_close(result.objective, result.value / 3)


def test_a_sequence_without_frames_and_a_batch_without_sequences() -> None:
    loss = build_loss({"activation": "softmax", "loss": "ce"})
    nothing = loss(LOGITS, torch.zeros(3, dtype=torch.int64), LABELS)
    assert nothing.value == 0.0
    assert torch.isinf(nothing.norm_factor)
    assert loss(LOGITS[:0], LENGTHS[:0], LABELS[:0]).value == 0.0


def test_behavior_version_decides_about_sequences_without_a_path() -> None:
    layer = {"activation": "softmax", "loss": "ctc", "loss_opts": {"use_viterbi": True}}
    arguments = (LOGITS[:1], torch.tensor([1]), torch.tensor([[1, 2]]), torch.tensor([2]))
    assert build_loss(layer)(*arguments).value == torch.inf
    assert build_loss(layer, config={"behavior_version": 30})(*arguments).value == 0.0


def test_samplers_are_made_for_the_layer() -> None:
    weight, bias = torch.randn(20, 5), torch.randn(20)
    logits = LOGITS @ weight.t() + bias
    layer = LayerOutput(logits.softmax(-1), LENGTHS, "softmax", logits, weights=(LOGITS, weight, bias))
    labels = torch.randint(1, 20, (3, 6))
    for options in (
        {},
        {"sampler": "uniform", "nce_loss": True},
        {"sampler": "learned_unigram", "num_splits": 2},
        {"sampler": "fixed_unigram", "sampler_args": {"unigrams": list(range(1, 20)), "num_reserved_ids": 1}},
    ):
        loss = build_loss({"loss": "sampling_loss", "loss_opts": {"num_sampled": 4, **options}})
        assert loss(layer, None, labels).value.isfinite()
        assert loss.option("num_sampled") == 4
    assert isinstance(build_loss({"loss": "sampling_loss"}), torch.nn.Module)
    learned = build_loss(
        {
            "loss": "sampling_loss",
            "loss_opts": {"sampler": "learned_unigram", "num_sampled": 3, "num_splits": 2},
        }
    )
    learned(layer, None, labels)
    counts = [sampler.weights.sum().item() for sampler in learned.sampler.samplers]
    assert counts == [25.0, 25.0]  # 20 labels at 1 each, and the labels of five frames


def test_a_vocabulary_file_of_counts(tmp_path: Any) -> None:
    path = tmp_path / "counts.csv"
    path.write_text("a,3\nb,1\n\n")
    weight, bias = torch.eye(2), torch.zeros(2)
    inputs = torch.randn(1, 3, 2)
    layer = LayerOutput(inputs, torch.tensor([3]), weights=(inputs, weight, bias))
    options = {"sampler": "fixed_unigram", "sampler_args": {"vocab_file": str(path)}, "num_sampled": 2}
    loss = build_loss({"loss": "sampling_loss", "loss_opts": options})
    assert loss(layer, None, torch.tensor([[0, 1, 0]])).value.isfinite()
    assert loss.sampler.probabilities.tolist() == [0.75, 0.25]


BOTH = {"label_loop": True, "ctc_merge_repeated": True}
EXPECTED = {"loss": {"class": "edit_distance"}, "loss_kind": "errors"}


@pytest.mark.parametrize(
    ("name", "options", "key", "message"),
    [
        ("hinge", {}, "loss", "loss 'hinge' is unknown; there are: as_is, bin_ce, bleu, ce, ctc"),
        ("ce", {"focal": 1}, "loss_opts.focal", "has no option 'focal'; valid are: .*focal_loss_factor"),
        ("ce", 3, "loss_opts", "loss_opts must be a dict, got 3"),
        ("ce", {"input_type": "x"}, "loss_opts.input_type", "'prob' or 'logits', got 'x'"),
        ("ce", {"custom_norm_factor": 1}, "loss_opts.custom_norm_factor", "a float or a function, got 1"),
        (
            "ce",
            {"custom_norm_factor": 1.0, "custom_inv_norm_factor": "x"},
            "loss_opts.custom_norm_factor",
            "exclude each other",
        ),
        ("fast_bw", {}, "loss_opts.sprint_opts", "lacks 'sprint_opts', which is required"),
        ("via_layer", {}, "loss_opts.align_layer", "exactly one of error_signal_layer and align_layer"),
        (
            "ctc",
            {"ctc_opts": {"label_loop": True}},
            "loss_opts.ctc_opts.label_loop",
            "no option 'label_loop' here; valid are: preprocess_collapse_repeated",
        ),
        ("ctc", {"use_viterbi": True, "ctc_opts": {"x": 1}}, "loss_opts.ctc_opts.x", "none with use_viterbi"),
        (
            "ctc",
            {"use_native": True, "ctc_opts": BOTH},
            "loss_opts.ctc_opts.label_loop",
            "the same; pass one",
        ),
        ("expected_loss", EXPECTED, "loss_opts.loss_kind", "'error' or 'value', got 'errors'"),
        ("expected_loss", {"loss": "bleu", "loss_kind": "error"}, "loss_opts.loss", "a dict with the key"),
        ("expected_loss", {"loss": {"class": "blue"}, "loss_kind": "error"}, "loss", "'blue' is unknown"),
        ("sampling_loss", {"sampler": "zipf"}, "loss_opts.sampler", "'zipf' is unknown; there are: fixed_"),
    ],
)
def test_bad_options(name: str, options: Any, key: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build_loss({"loss": name, "loss_opts": options})
    assert caught.value.key == key


@pytest.mark.parametrize(
    ("layer", "key", "message"),
    [
        ({}, "loss", "the layer has no loss: the key 'loss' names one"),
        ({"loss_scale": 2.0}, "loss", "loss_scale without a loss"),
        (
            {"loss": "ce", "loss_scale": 2.0, "loss_opts": {"scale": 3.0}},
            "loss_scale",
            "is 2.0, but loss_opts says",
        ),
        ({"loss": "ce", "activation": "softmix"}, "activation", "'softmix' is unknown; there are: abs, elu"),
        (
            {"class": "loss", "loss_": "ce", "loss_opts_": {"x": 1}},
            "loss_opts_.x",
            "loss_opts_ of loss 'ce' has no",
        ),
    ],
)
def test_bad_configs(layer: dict[str, Any], key: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build_loss(layer)
    assert caught.value.key == key


def changed(tensor: torch.Tensor, index: tuple[int, ...], value: float) -> torch.Tensor:
    copy = tensor.clone()
    copy[index] = value
    return copy


@pytest.mark.parametrize("name", ["ce", "mse", "generic_ce"])
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"targets": changed(LABELS, (2, 3), 5)}, LabelError, "targets of utterance 2 hold 5 at frame 3"),
        ({"targets": None}, ArgumentError, "needs targets"),
        ({"targets": LABELS[:, :4]}, ShapeError, r"targets must have shape \(3, 6\), like the scores"),
        (
            {"layer": changed(LOGITS, (2, 1, 0), torch.nan)},
            NonFiniteScoresError,
            "layer output of utterance 2 hold NaN",
        ),
        ({"lengths": torch.tensor([6, 0, 7])}, ShapeError, r"lengths\[2\] = 7 must lie in 0 … 6"),
        ({"lengths": LENGTHS.float()}, DtypeError, "lengths must be an integer tensor"),
        (
            {"target_lengths": torch.tensor([6, 0, 3])},
            ShapeError,
            r"target_lengths\[2\] = 3, but lengths\[2\] = 4",
        ),
    ],
)
def test_bad_batches(name: str, changes: dict[str, Any], error: type[ArgumentError], message: str) -> None:
    loss = build_loss({"loss": name, "activation": "softmax"})
    arguments: dict[str, Any] = {"layer": LOGITS, "lengths": LENGTHS, "targets": LABELS} | changes
    with pytest.raises(error, match=message):
        loss(**arguments)


def test_targets_of_the_wrong_kind() -> None:
    dense = torch.rand(3, 6, 5)
    with pytest.raises(DtypeError, match=r"targets must be dense \(floating-point\), got torch.int64"):
        build_loss({"loss": "l1"})(LOGITS, LENGTHS, LABELS)
    with pytest.raises(ArgumentError, match="label_smoothing needs sparse targets"):
        build_loss({"activation": "softmax", "loss": "ce", "loss_opts": {"label_smoothing": 0.1}})(
            LOGITS, LENGTHS, dense
        )
    with pytest.raises(DtypeError, match="targets must be integer labels"):
        build_loss({"activation": "softmax", "loss": "ctc"})(LOGITS, LENGTHS, dense, LENGTHS)


def test_ctc_names_what_has_no_path() -> None:
    loss = build_loss({"activation": "softmax", "loss": "ctc"})
    targets = torch.tensor([[0, 1], [0, 1], [2, 3]])
    with pytest.raises(
        InfeasibleError, match=r"utterance 1 \(b\): 0 frames given, needs 2: more labels than frames"
    ):
        loss(LOGITS, LENGTHS, targets, torch.tensor([2, 2, 2]), tags=["a", "b", "c"])
    with pytest.raises(LabelError, match="the blank, which may not stand in the targets"):
        loss(LOGITS, LENGTHS, changed(targets, (0, 0), 4), torch.tensor([2, 0, 2]))


def test_an_empty_target_is_all_blanks() -> None:
    loss = build_loss({"activation": "softmax", "loss": "ctc"})
    result = loss(LOGITS[:1], torch.tensor([3]), torch.zeros(1, 0, dtype=torch.int64), torch.tensor([0]))
    torch.testing.assert_close(result.value, -LOGITS[0, :3].log_softmax(-1)[:, 4].sum())


@pytest.mark.parametrize("name", ["sprint", "fast_bw"])
def test_an_aligner_is_needed(name: str) -> None:
    loss = build_loss({"class": "softmax", "loss": name, "loss_opts": {"sprint_opts": {}}})
    with pytest.raises(ConfigError, match="aligner=AlignerClient"):
        loss(LOGITS, LENGTHS, tags=["a", "b", "c"])
    linear = build_loss({"class": "linear", "loss": name, "loss_opts": {"sprint_opts": {}}})
    with pytest.raises(ConfigError, match="needs a layer with the activation softmax, got None"):
        linear(LOGITS, LENGTHS, tags=["a", "b", "c"])


def test_layers_that_options_name() -> None:
    loss = build_loss(
        {"class": "copy", "loss": "via_layer", "loss_opts": {"align_layer": "bw"}}, activation="softmax"
    )
    with pytest.raises(ConfigError, match="align_layer names the layer 'bw'; the layers passed are: none"):
        loss(LOGITS, LENGTHS)
    without_loss = LayerOutput(LOGITS, LENGTHS)
    with pytest.raises(ArgumentError, match="the layer 'bw' has no loss"):
        loss(LOGITS, LENGTHS, layers={"bw": without_loss})
    wrong = build_loss(
        {"loss": "via_layer", "loss_opts": {"align_layer": "bw", "loss_wrt_to_act_in": "tanh"}},
        activation="softmax",
    )
    with pytest.raises(
        ConfigError, match="loss_wrt_to_act_in is 'tanh', but the layer's activation is 'softmax'"
    ):
        wrong(LOGITS, LENGTHS, layers={"bw": LayerOutput(LOGITS, LENGTHS, loss=torch.zeros(3))})


@pytest.mark.parametrize(
    ("options", "key", "message"),
    [
        ({"align_target": "hmm"}, "align_target", "one of ctc, sprint, staircase, got 'hmm'"),
        (
            {"align_target": "ctc", "input_type": "logits"},
            "input_type",
            "one of log_prob, prob, got 'logits'",
        ),
    ],
)
def test_options_of_the_fast_bw_layer(options: dict[str, Any], key: str, message: str) -> None:
    layer = LayerOutput.of(LOGITS, LENGTHS, activation="softmax")
    batch = Batch(layer, None, None, None, {}, True, Frames(LENGTHS, 6, False, LOGITS.device))
    with pytest.raises(ConfigError, match=message) as caught:
        fast_bw_layer(options, batch)
    assert caught.value.key == key


def test_a_loss_layer_needs_a_number_a_frame() -> None:
    source = LayerOutput.of(LOGITS, LENGTHS, activation="softmax")
    for name, targets in (("ctc", LABELS[:, :2]), ("bin_ce", torch.rand(3, 6, 5))):
        loss = build_loss({"class": "loss", "loss_": name})
        lengths = torch.tensor([0, 0, 0]) if name == "ctc" else None
        with pytest.raises(ConfigError, match=f"loss '{name}' has no value for each frame"):
            loss_layer(loss, source, targets, lengths)
    with pytest.raises(ConfigError, match="use_flatten_frames=False"):
        loss_layer(build_loss({"loss": "ce"}), source, LABELS)


def test_scaling_is_exact_unless_returnns_is_not() -> None:
    """grad(objective with scale 2) = 2 grad(objective), but for generic_ce, whose manual gradient takes no notice."""
    for name, factor in (("ce", 2.0), ("mse", 2.0), ("generic_ce", 1.0)):
        gradients = []
        for scale in (1.0, 2.0):
            leaf = LOGITS.clone().requires_grad_()
            loss = build_loss({"loss": name, "activation": "softmax", "loss_opts": {"scale": scale}})
            gradients.append(torch.autograd.grad(loss(leaf, LENGTHS, LABELS).objective, leaf)[0])
        torch.testing.assert_close(gradients[1], factor * gradients[0])


def test_the_default_sampler() -> None:
    inputs = torch.randn(1, 2, 3)
    layer = LayerOutput(inputs, torch.tensor([2]), weights=(inputs, torch.randn(9, 3), torch.zeros(9)))
    loss = build_loss({"loss": "sampling_loss", "loss_opts": {"num_sampled": 2}})
    loss(layer, None, torch.tensor([[1, 2]]))
    assert isinstance(loss.sampler, LogUniformSampler)


@pytest.mark.parametrize("name", ["ce", "ctc"])
def test_logs_of_what_is_no_probability_are_clipped(name: str) -> None:
    """A log_softmax layer taken for probabilities, as there: the log of 1e-20, whose gradient is 1e20."""
    x = LOGITS[:1].clone().requires_grad_()
    loss = build_loss({"loss": name, "activation": "log_softmax"})
    lengths, targets = torch.tensor([3]), LABELS[:1] if name == "ce" else torch.tensor([[1, 2]])
    result = loss(x, lengths, targets, None if name == "ce" else torch.tensor([2]))
    assert result.value.isfinite()
    if name == "ce":
        assert result.value.item() == pytest.approx(3 * 46.0517, rel=1e-5)


def test_half_precision_probabilities_of_zero_have_a_finite_gradient() -> None:
    y = torch.tensor([[[0.0, 0.5, 0.5], [0.2, 0.3, 0.5]]], dtype=torch.float16, requires_grad=True)
    result = build_loss({"loss": "ctc"})(y, torch.tensor([2]), torch.tensor([[1]]), torch.tensor([1]))
    (gradient,) = torch.autograd.grad(result.objective, y)
    assert result.value.isfinite()
    assert not gradient.isnan().any()


@pytest.mark.parametrize("logit", [-torch.inf, -1e8, -3e4])
def test_a_bounded_loss_is_the_bound_however_far_off(logit: float) -> None:
    x = torch.tensor([[[logit, 0.0, 1.0]]], requires_grad=True)
    loss = build_loss({"loss": "ce", "activation": "softmax", "loss_opts": {"fake_upper_bound": 1.5}})
    result = loss(x, torch.tensor([1]), torch.tensor([[0]]))
    assert result.value.item() == 1.5
    (gradient,) = torch.autograd.grad(result.objective, x)
    torch.testing.assert_close(gradient, x.detach().softmax(-1) - torch.tensor([1.0, 0.0, 0.0]))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"target_lengths": torch.tensor([3, 2, 9])},
            ShapeError,
            r"target_lengths\[2\] = 9 must lie in 0 … 3",
        ),
        ({"target_lengths": torch.tensor([3, 2, -1])}, ShapeError, r"target_lengths\[2\] = -1 must lie in"),
        ({"target_lengths": None}, ArgumentError, "'ctc' needs target_lengths"),
        ({"lengths": None}, ArgumentError, "'ctc' needs a time axis: pass the lengths"),
        (
            {"targets": torch.tensor([[1, 2, 3]]), "target_lengths": torch.tensor([3])},
            ShapeError,
            "targets are of 1 seq",
        ),
        ({"layer": LayerOutput.of(LOGITS, LENGTHS)}, ArgumentError, "brings its own lengths"),
        ({"layer": [1.0]}, ArgumentError, "layer must be a torch.Tensor or a LayerOutput, got list"),
    ],
)
def test_bad_batches_of_a_sequence_loss(
    arguments: dict[str, Any], error: type[ArgumentError], message: str
) -> None:
    loss = build_loss({"loss": "ctc", "activation": "softmax"})
    given: dict[str, Any] = {
        "layer": LOGITS, "lengths": LENGTHS, "targets": LABELS[:, :3], "target_lengths": torch.tensor([3, 0, 1])
    }  # fmt: skip
    with pytest.raises(error, match=message):
        loss(**given | arguments)


def test_a_blank_that_is_no_label() -> None:
    loss = build_loss(
        {
            "loss": "ctc",
            "activation": "softmax",
            "loss_opts": {"use_native": True, "ctc_opts": {"blank_index": 7}},
        }
    )
    with pytest.raises(ConfigError, match="blank_index 7 isn't one of 5 labels"):
        loss(LOGITS, LENGTHS, LABELS[:, :1], torch.tensor([1, 0, 1]))


def test_without_a_path_for_want_of_probability() -> None:
    logits = torch.randn(1, 4, 4)
    logits[..., 1] = -torch.inf
    loss = build_loss({"loss": "ctc", "activation": "softmax"})
    assert loss(logits, torch.tensor([4]), torch.tensor([[1]]), torch.tensor([1])).value == torch.inf


def test_binary_cross_entropy_without_a_feature_axis() -> None:
    logits, targets = LOGITS[..., 0], (LABELS > 2).float()
    result = build_loss({"loss": "bin_ce"})(logits, LENGTHS, targets)
    inside = torch.arange(6) < LENGTHS[:, None]
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        logits[inside], targets[inside], reduction="sum"
    )
    torch.testing.assert_close(result.value, expected)


def test_triplets_compare_labels_as_int32_does() -> None:
    embeddings = torch.randn(3, 12, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[16, 16, 3], [2, 2, 32], [5, 5, 16]])
    loss = build_loss({"loss": "triplet_loss", "loss_opts": {"margin": 0.5}})
    values = {
        loss(embeddings, None, labels.to(kind)).value.item()
        for kind in (torch.uint8, torch.int32, torch.int64)
    }
    assert len(values) == 1


def test_a_second_derivative_of_a_hand_written_gradient_is_refused() -> None:
    x = LOGITS.clone().requires_grad_()
    objective = build_loss({"loss": "generic_ce", "activation": "exp"})(x, LENGTHS, LABELS).objective
    (gradient,) = torch.autograd.grad(objective + x.square().sum(), x, create_graph=True)
    with pytest.raises(DerivativeError, match="hand-written gradient has no derivative"):
        torch.autograd.grad(gradient.sum(), x)


def test_an_empty_staircase() -> None:
    layer = LayerOutput.of(torch.randn(2, 5, 6), torch.tensor([5, 0]), activation="softmax")
    batch = Batch(layer, None, None, None, {}, True, Frames(torch.tensor([5, 0]), 5, False, LOGITS.device))
    found = fast_bw_layer({"align_target": "staircase", "input_type": "prob"}, batch)
    assert found.loss is not None
    assert found.loss[1] == 0.0


def test_unknown_options_of_the_fast_bw_layers_automata() -> None:
    layer = LayerOutput.of(LOGITS, LENGTHS, activation="softmax")
    batch = Batch(
        layer,
        LABELS[:, :2],
        torch.tensor([1, 0, 1]),
        None,
        {},
        True,
        Frames(LENGTHS, 6, False, LOGITS.device),
    )
    with pytest.raises(ConfigError, match="ctc_opts has no 'blank_index'; valid are: blank_idx"):
        fast_bw_layer({"align_target": "ctc", "ctc_opts": {"blank_index": 4}}, batch)
