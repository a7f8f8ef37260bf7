"""Runs recorded cases of RETURNN's losses through `build_loss`, and compares value, error, norm factor, objective,
gradients.

A folder of cases has `index.json` (`cases`: by name the network, the loss, notes) and a file `<name>.npz` for each,
with the arrays that were fed (`in_…`) and that RETURNN computed. Cases that RETURNN itself failed on hold no numbers
and aren't run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from seqtrain.compat.returnn.automata import ctc_edges
from seqtrain.compat.returnn.comparison import Comparison
from seqtrain.compat.returnn.ctc import ConnectionistTemporalClassification
from seqtrain.compat.returnn.full_sum import baum_welch, viterbi
from seqtrain.compat.returnn.layer_output import LayerOutput
from seqtrain.compat.returnn.network import Network, UnsupportedLayerError, targets_of
from seqtrain.compat.returnn.registry import build_loss
from seqtrain.compat.returnn.sampling import Sampling
from seqtrain.errors import DataError
from seqtrain.fsa import FsaBatch
from seqtrain.losses.samplers import (
    FixedUnigramSampler,
    LearnedUnigramSampler,
    LogUniformSampler,
    ReplayedSampler,
    Sample,
    UniformSampler,
)
from seqtrain.losses.sources import ErrorSignals

__all__ = ["CaseResult", "read_cases", "run_case"]

Arrays = Mapping[str, NDArray[Any]]

_NO_POSTERIOR = 50.0
"""-log posteriors above are those of labels that have none to speak of, in float32."""


@dataclass(frozen=True)
class CaseResult:
    """How a case went: `status` "ok", "different" or "skipped", and what is to be said about it."""

    name: str
    status: str
    details: tuple[str, ...] = ()
    compared: int = 0


class _Skip(Exception):  # noqa: N818  # it is no error
    """A case that can't be run here."""


class _RecordedAligner:
    """Answers what the recording's aligner answered."""

    def __init__(self, arrays: Arrays, notes: str) -> None:
        self._arrays = arrays
        label = re.search(r"log p\((\d+)\)", notes)
        self._label = None if label is None else int(label.group(1))

    def automata(self, tags: Sequence[str]) -> FsaBatch:
        return _automata(self._arrays, "extra_").with_tags(tags)

    def error_signals(
        self, tags: Sequence[str], log_posteriors: torch.Tensor, lengths: torch.Tensor
    ) -> ErrorSignals:
        if self._label is None:
            raise _Skip("the notes don't say what the aligner answered")
        inside = torch.arange(log_posteriors.shape[1]) < lengths[:, None]
        losses = -(log_posteriors[:, :, self._label] * inside).sum(dim=1)
        signals = log_posteriors.exp()
        signals[:, :, self._label] -= 1.0
        return ErrorSignals(losses, signals)


def read_cases(directory: Path) -> dict[str, dict[str, Any]]:
    """The cases of a folder that hold numbers, by name.

    Raises:
        DataError: there is no readable `index.json`, or the file of a case is missing.
    """
    path = directory / "index.json"
    try:
        cases = json.loads(path.read_text())["cases"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} isn't an index of cases: {error}", path=str(path)) from error
    valued = {name: case for name, case in cases.items() if "raises" not in case}
    for name, case in valued.items():
        if not (directory / case.get("file", f"{name}.npz")).is_file():
            raise DataError(f"{path} lists the case {name!r}, but its file is missing", path=str(path))
    return valued


def run_case(directory: Path, name: str, case: Mapping[str, Any]) -> CaseResult:
    """Runs one case."""
    kinds: dict[str, Callable[[Mapping[str, Any], Arrays, Comparison], None]] = {
        "layer": _run_layer, "op": _run_op, "expected_loss": _run_expected, "sampler": _run_sampler,
    }  # fmt: skip
    with np.load(directory / case.get("file", f"{name}.npz")) as file:
        arrays = dict(file)
    comparison = Comparison()
    try:
        kind = case.get("kind")
        if kind not in kinds:
            raise _Skip(f"cases of kind {kind!r} are unknown")
        kinds[kind](case, arrays, comparison)
    except _Skip as skip:
        return CaseResult(name, "skipped", (str(skip),))
    except UnsupportedLayerError as error:
        return CaseResult(name, "skipped", (str(error),))
    except Exception as error:  # a case that fails is a difference, and the others go on
        return CaseResult(name, "different", (f"{type(error).__name__}: {error}",))
    if comparison.count == 0:
        return CaseResult(name, "different", ("nothing was compared",))
    status = "different" if comparison.differences else "ok"
    return CaseResult(name, status, tuple(comparison.differences), comparison.count)


def _tensor(arrays: Arrays, key: str) -> torch.Tensor:
    return torch.from_numpy(np.array(arrays[key]))


def _automata(arrays: Arrays, prefix: str) -> FsaBatch:
    return FsaBatch.from_rasr(
        None,
        _tensor(arrays, f"{prefix}edges"),
        _tensor(arrays, f"{prefix}weights"),
        _tensor(arrays, f"{prefix}start_end_states"),
    )


def _lengths(arrays: Arrays, key: str) -> torch.Tensor | None:
    return _tensor(arrays, f"{key}_len").long() if f"{key}_len" in arrays else None


def _compare_result(result: Any, arrays: Arrays, comparison: Comparison) -> None:
    for field in ("value", "error", "norm_factor", "objective"):
        comparison.add(field, getattr(result, field), arrays.get(field))


def _compare_gradients(
    objective: torch.Tensor | None, leaves: Mapping[str, torch.Tensor], arrays: Arrays, comparison: Comparison
) -> None:
    wanted = {key: leaf for key, leaf in leaves.items() if f"grad_{key}" in arrays}
    unknown = [key for key in arrays if key.startswith("grad_") and key.removeprefix("grad_") not in leaves]
    if unknown:
        raise _Skip(f"there is no input that {unknown[0]} is the gradient of")
    if not wanted:
        return
    if objective is None or not objective.requires_grad:
        comparison.differences.append("there is no objective with a gradient")
        return
    found = torch.autograd.grad(objective.sum(), list(wanted.values()), allow_unused=True)
    for (key, leaf), gradient in zip(wanted.items(), found, strict=True):
        comparison.add(
            f"grad_{key}", torch.zeros_like(leaf) if gradient is None else gradient, arrays[f"grad_{key}"]
        )


def _unreduced(arrays: Arrays) -> bool:
    return any(np.ndim(arrays[key]) for key in ("value", "error", "objective") if key in arrays)


def _options_of(notes: str) -> dict[str, Any]:
    """Settings of the whole config that a case's notes name: "config option NAME=VALUE"."""
    return {
        name: {"True": True, "False": False}.get(value, value)
        for name, value in re.findall(r"config option (\w+)=(\w+)", notes)
    }


def _run_layer(case: Mapping[str, Any], arrays: Arrays, comparison: Comparison) -> None:
    net, notes = case["net"], case.get("notes", "")
    leaves: dict[str, torch.Tensor] = {}
    data: dict[str, LayerOutput] = {}
    for key in (
        key.removeprefix("in_") for key in arrays if key.startswith("in_") and not key.endswith("_len")
    ):
        if arrays[f"in_{key}"].dtype.kind == "U":
            continue
        tensor = _tensor(arrays, f"in_{key}")
        if tensor.is_floating_point():
            leaves[key] = tensor.requires_grad_()
        data[key] = LayerOutput(tensor, _lengths(arrays, f"in_{key}"))
    parameters = {}
    for weight_key in (key for key in arrays if re.fullmatch(r"param_\w+_W", key)):
        layer_name = weight_key.removeprefix("param_").removesuffix("_W")
        pair = [_tensor(arrays, f"param_{layer_name}_{part}").requires_grad_() for part in "Wb"]
        parameters[layer_name] = (pair[0], pair[1])
        leaves |= {f"param_{layer_name}_{part}": tensor for part, tensor in zip("Wb", pair, strict=True)}
    tags = [str(tag) for tag in arrays["in_seq_tag"]] if "in_seq_tag" in arrays else None
    network = Network(
        net, data, parameters=parameters, tags=tags, aligner=_RecordedAligner(arrays, notes), config=_options_of(notes),
        train=bool(case.get("train_flag", True)),
    )  # fmt: skip
    (name,) = [name for name, layer in net.items() if layer.get("loss") is not None]
    loss = network.build(name)
    if isinstance(loss, Sampling):
        _replay(loss, arrays)
    result = network.run(name, loss, reduce=not _unreduced(arrays))
    _compare_result(result, arrays, comparison)
    _compare_gradients(result.objective, leaves, arrays, comparison)
    if "extra_layer_output" in arrays:
        comparison.add("layer output", network.output(name).output, arrays["extra_layer_output"])
    if "extra_fast_bw_layer_output_TBV" in arrays:
        layer = network.output("fast_bw")
        comparison.add("posteriors", layer.output.transpose(0, 1), arrays["extra_fast_bw_layer_output_TBV"])
        comparison.add("loss of the layer", layer.loss, arrays["extra_fast_bw_layer_output_loss_B"])
    if "extra_soft_align" in arrays and isinstance(loss, ConnectionistTemporalClassification):
        batch = network.batch(network.output(name), network.output("classes"))
        comparison.add(
            "soft alignment", loss.soft_alignment(batch).transpose(0, 1), arrays["extra_soft_align"]
        )


def _replay(loss: Sampling, arrays: Arrays) -> None:
    """Gives the loss the samples that were recorded."""
    if loss.option("use_full_softmax"):
        return
    if "extra_sampled" not in arrays:
        raise _Skip("random samples that weren't recorded")
    samples = _tensor(arrays, "extra_sampled").reshape(-1, arrays["extra_sampled"].shape[-1])
    loss.sampler = ReplayedSampler(list(samples), _tensor(arrays, "extra_expected_count_per_class"))


def _run_expected(case: Mapping[str, Any], arrays: Arrays, comparison: Comparison) -> None:
    beam_scores = _tensor(arrays, "in_beam_scores").requires_grad_()
    leaves = {"beam_scores": beam_scores}
    if "in_losses" in arrays:
        leaves["losses"] = _tensor(arrays, "in_losses").requires_grad_()
        layer = LayerOutput(leaves["losses"], beam_scores=beam_scores)
    else:
        layer = LayerOutput(_tensor(arrays, "in_hyps"), _lengths(arrays, "in_hyps"), beam_scores=beam_scores)
    targets: LayerOutput | None = None
    if "in_classes" in arrays:
        targets = LayerOutput(_tensor(arrays, "in_classes"), _lengths(arrays, "in_classes"))
    loss = build_loss({"loss": case["loss"], "loss_opts": case["loss_opts"]})
    result = loss(layer, None, *targets_of(targets), reduce=not _unreduced(arrays))
    for field in ("value", "norm_factor"):
        comparison.add(field, getattr(result, field), arrays.get(field))
    _compare_gradients(result.value, leaves, arrays, comparison)


def _run_op(case: Mapping[str, Any], arrays: Arrays, comparison: Comparison) -> None:
    if case.get("op") == "get_ctc_fsa_fast_bw":
        _run_ctc_automaton(case, arrays, comparison)
    elif case.get("op") == "fast_baum_welch + fast_viterbi":
        _run_recursions(arrays, comparison)
    else:
        raise _Skip(f"the operator {case.get('op')!r} is unknown")


def _run_ctc_automaton(case: Mapping[str, Any], arrays: Arrays, comparison: Comparison) -> None:
    options = case.get("opts", {})
    found = ctc_edges(
        _tensor(arrays, "in_targets"), _tensor(arrays, "in_lens"), blank=int(options["blank_idx"]),
        label_loop=bool(options.get("label_loop", True)),
    )  # fmt: skip
    comparison.add("edges", found.edges, arrays["edges"])
    comparison.add("weights", found.weights, arrays["weights"])
    comparison.add("start_end_states", found.start_end_states, arrays["start_end_states"])


def _run_recursions(arrays: Arrays, comparison: Comparison) -> None:
    scores = -_tensor(arrays, "in_am_scores").transpose(0, 1)
    lengths = _tensor(arrays, "in_lens").long()
    graphs = _automata(arrays, "in_")
    inside = torch.arange(scores.shape[1]) < lengths[:, None]
    found = baum_welch(scores, lengths, graphs)
    comparison.add("obs_scores", (found.losses[:, None] * inside).T, arrays["obs_scores"])
    recorded = np.asarray(arrays["fwdbwd"], dtype=np.float64)
    posteriors = found.posteriors.transpose(0, 1)
    comparison.add("posteriors", posteriors, np.exp(-recorded))
    there = torch.from_numpy(recorded < _NO_POSTERIOR)
    comparison.add("-log posteriors", -posteriors[there].log(), recorded[recorded < _NO_POSTERIOR])
    best = viterbi(scores, lengths, graphs)
    comparison.add("viterbi_score", -best.losses, arrays["viterbi_score"])
    labels = best.posteriors.argmax(-1) * inside
    comparison.add("viterbi_alignment", labels.T, arrays["viterbi_alignment"])


def _run_sampler(case: Mapping[str, Any], arrays: Arrays, comparison: Comparison) -> None:
    """Checks that every recorded draw's expected counts are those of some number of tries, the same for all classes."""
    num_labels = arrays["uniform_true_ec"].shape[1]
    distortion = float(re.search(r"distortion=([\d.]+)", case.get("notes", "")).group(1))  # type: ignore[union-attr]  # it says so
    samplers = {
        "uniform": UniformSampler(num_labels),
        "log_uniform": LogUniformSampler(num_labels),
        "fixed_unigram": FixedUnigramSampler(torch.arange(1.0, num_labels + 1), distortion=distortion),
        "learned_unigram": LearnedUnigramSampler(num_labels),
    }
    everything = torch.arange(num_labels)
    for name, sampler in samplers.items():
        for draw, classes in enumerate(_tensor(arrays, f"{name}_sampled")):
            recorded = _tensor(arrays, f"{name}_true_ec")[draw].double()
            tries = _tries(sampler.probabilities, recorded, classes.shape[0])
            sample = Sample(classes, tries)
            where = f"{name}, draw {draw}"
            comparison.add(
                f"{where}, true classes", sampler.expected_counts(sample, everything), recorded.numpy()
            )
            comparison.add(
                f"{where}, sampled classes",
                sampler.expected_counts(sample, classes),
                arrays[f"{name}_sampled_ec"][draw],
            )
            if isinstance(sampler, LearnedUnigramSampler):
                sampler.observe(everything)


def _tries(probabilities: torch.Tensor, counts: torch.Tensor, size: int) -> int:
    """The number of tries that gives a class this expected count."""
    if torch.allclose(counts, probabilities * size, rtol=1e-4):
        return size
    best = int(probabilities.argmax())
    return round(float(torch.log1p(-counts[best]) / torch.log1p(-probabilities[best])))
