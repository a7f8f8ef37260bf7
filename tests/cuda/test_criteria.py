"""Criteria over automata give the same numbers by the CUDA kernels, on the emulated block, as by those of the CPU."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

import seqtrain as st
from seqtrain.fsa import Fsa, FsaBatch
from seqtrain.lattice import Lattice, total_score
from seqtrain.losses import LatticeRiskLoss
from seqtrain.losses.ctc_soft_alignment import ctc_soft_alignment
from seqtrain.scores import Packed
from tests.cuda.emulation import on_emulated_cuda
from tests.ops.examples import ergodic, offsets_of, packed_rows, random_ctc_batch, random_topology
from tests.ops.gradient import scores_gradient

_TARGETS = random_ctc_batch(5, batch=3, frames=20, labels=8, targets=4)
_HMM = random_topology("hmm", 7)
_ONE = Fsa([[0, 0, v] for v in range(8)], torch.linspace(-1, 1, 8))
_PHONES = ergodic(np.random.default_rng(9), 16, 8, 8)


def _ctc(**options: object) -> Callable[[torch.Tensor], torch.Tensor]:
    rest = (_TARGETS.targets, torch.full((3,), 20), _TARGETS.target_lengths)
    return lambda x: st.ctc_loss(x, *rest, normalize=True, reduction="batch", **options)  # type: ignore[arg-type]


CRITERIA: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "ctc": _ctc(),
    "rna": _ctc(label_loop=False),
    "ctc of the best path": _ctc(paths="best"),
    "fast_baum_welch": lambda x: st.fast_baum_welch_loss(
        x.log_softmax(-1), *_HMM[1:], am_scale=0.7, tdp_scale=0.5, min_prob=1e-3, reduction="frames"
    ),
    "viterbi": lambda x: st.losses.viterbi_loss(x.log_softmax(-1), *_HMM[1:], reduction="sum"),
    "mmi": lambda x: st.losses.mmi_loss(x, *_HMM[1:], _ONE, boost=0.1, smoothing=0.2, smoothing_kind="ce"),
    "mmi of packed scores": lambda x: st.losses.mmi_loss(
        Packed(packed_rows(x, _HMM.lengths), offsets_of(_HMM.lengths)), *_HMM[1:], _ONE,
        smoothing=0.2, smoothing_kind="ce",
    ),
    "MMILoss": lambda x: st.losses.MMILoss(_PHONES, acoustic_scale=0.5, boost=0.1, reduction="frames")(x, *_HMM[1:]),
    "LFMMILoss": lambda x: st.losses.LFMMILoss(_PHONES, leak=0.1, smoothing=0.3)(x, *_HMM[1:]),
    "LFMMILoss of targets": lambda x: st.losses.LFMMILoss(
        _PHONES, topology=st.fsa.ctc, den_scale=0.8, reduction="sum"
    )(x, torch.full((3,), 20), targets=_TARGETS.targets, target_lengths=_TARGETS.target_lengths),
    "LFMMILoss of packed scores": lambda x: st.losses.LFMMILoss(_PHONES, leak=0.1)(
        Packed(packed_rows(x, _HMM.lengths), offsets_of(_HMM.lengths)), *_HMM[1:]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CRITERIA)
def test_value_and_gradient(name: str) -> None:
    scores = 3 * torch.randn(3, 20, 8, generator=torch.Generator().manual_seed(3))
    expected = scores_gradient(CRITERIA[name], scores)
    with on_emulated_cuda("shuffled") as cuda:
        found = scores_gradient(CRITERIA[name], scores)
    assert cuda.launched
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in CRITERIA if "MMI" in name])
def test_denominators_take_their_own_kernels(name: str) -> None:
    with on_emulated_cuda() as cuda:
        CRITERIA[name](torch.zeros(3, 20, 8))
    assert b"denominator_sweep_float32" in {kernel for kernel, *_ in cuda.launched}


def test_a_soft_alignment() -> None:
    scores = torch.randn(3, 20, 8, generator=torch.Generator().manual_seed(4))
    rest = (_TARGETS.targets, torch.full((3,), 20), _TARGETS.target_lengths)
    expected = ctc_soft_alignment(scores, *rest)
    with on_emulated_cuda():
        torch.testing.assert_close(ctc_soft_alignment(scores, *rest), expected, rtol=1e-5, atol=1e-6)


def lattice_of(weights: torch.Tensor) -> Lattice:
    """Three utterances of twenty levels of three states, four arcs from each to the next level."""
    rows = [
        [1 + 3 * t + i, 4 + 3 * t + (i + k) % 3, k] for t in range(20) for i in range(3) for k in range(4)
    ]
    first = [[0, 1 + i, i] for i in range(3)]
    final = dict.fromkeys(range(61, 64), 0.0)
    fsas = [Fsa([*first, *rows], one, final=final) for one in weights.unbind()]
    return Lattice.from_fsa(FsaBatch.from_list(fsas))


_REFERENCE = torch.arange(63).expand(3, 63) % 4
_LENGTHS = torch.tensor([3, 5, 0])
LATTICE_CRITERIA: dict[str, Callable[[Lattice], torch.Tensor]] = {
    "given risks": lambda lattice: LatticeRiskLoss()(lattice, lattice.arcs[:, 2].double()),
    "smbr": lambda lattice: LatticeRiskLoss("frame_accuracy", scale=0.3, reduction="frames")(
        lattice, _REFERENCE
    ),
    "edit distance": lambda lattice: LatticeRiskLoss("edit", reduction="sum")(
        lattice, _REFERENCE[:, :5], _LENGTHS
    ),
    "total score": lambda lattice: total_score(lattice),
}


@pytest.mark.parametrize("name", LATTICE_CRITERIA)
def test_value_and_gradient_of_a_lattice(name: str) -> None:
    weights = 2 * torch.randn(3, 243, generator=torch.Generator().manual_seed(5))
    expected = scores_gradient(lambda w: LATTICE_CRITERIA[name](lattice_of(w)), weights)
    with on_emulated_cuda("shuffled") as cuda:
        found = scores_gradient(lambda w: LATTICE_CRITERIA[name](lattice_of(w)), weights)
    assert len(cuda.launched) == 3
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
