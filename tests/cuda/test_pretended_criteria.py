"""Criteria with no kernels of their own, or those of others: everything is on the right side on a device, too.

Lengths, references and hypotheses stay on the host; scores, and targets of frames, are on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from seqtrain import losses
from seqtrain.errors import DeviceError
from seqtrain.losses import ErrorSignals, Hypotheses, MWERLoss, ReplayedSampler, UniformSampler
from seqtrain.scores import Packed
from tests.cuda.pretend import DEVICE, pretended_cuda
from tests.ops.examples import offsets_of, packed_rows

pytestmark = pytest.mark.torch2  # dispatch modes whose results are a subclass

Move = Callable[[torch.Tensor], torch.Tensor]

_RANDOM = torch.Generator().manual_seed(3)
_LENGTHS, _SOME = torch.tensor([7, 4, 0]), torch.tensor([7, 4, 5])
_SCORES = torch.randn(3, 7, 5, generator=_RANDOM)
_LABELS = torch.randint(5, (3, 7), generator=_RANDOM)
_SHARES = torch.rand(3, 7, 5, generator=_RANDOM).softmax(-1)
_MASKS = torch.rand(3, 7, 4, 2, generator=_RANDOM).softmax(-1).flatten(2)
_WEIGHT, _BIAS = torch.randn(5, 5, generator=_RANDOM), torch.randn(5, generator=_RANDOM)
_COUNTS = 0.05 + torch.rand(5, generator=_RANDOM)
_REFERENCES, _REFERENCE_LENGTHS = torch.tensor([[1, 2], [3, 0], [1, 0]]), torch.tensor([2, 1, 1])
_HYPOTHESES = Hypotheses.from_lists([[[1, 2], [1], [1]], [[3], [2, 3]], [[1], [2]]])


class Aligner:
    """Answers from the host."""

    def error_signals(
        self, tags: Sequence[str], log_posteriors: torch.Tensor, lengths: torch.Tensor
    ) -> ErrorSignals:
        return ErrorSignals(-log_posteriors.cpu().sum((1, 2)), log_posteriors.cpu().exp())


def _packed(to: Move) -> Packed:
    return Packed(to(packed_rows(_SCORES, _LENGTHS)), offsets_of(_LENGTHS))


def _sampled(criterion: Callable[..., torch.Tensor], to: Move, **options: object) -> torch.Tensor:
    inputs = (to(_SCORES), to(_WEIGHT), to(_BIAS), to(_LABELS), _LENGTHS)
    return criterion(*inputs, num_sampled=3, **options)


CRITERIA: dict[str, Callable[[Move], torch.Tensor]] = {
    "cross_entropy": lambda to: losses.cross_entropy(to(_SCORES), to(_LABELS), _LENGTHS, label_smoothing=0.1),
    "dense cross_entropy": lambda to: losses.cross_entropy(to(_SCORES), to(_SHARES), _LENGTHS, reduction="frames"),
    "focal cross_entropy": lambda to: losses.cross_entropy(to(_SCORES), to(_LABELS), _LENGTHS, focal_factor=2.0),
    "cross_entropy of a gaussian": lambda to: losses.cross_entropy(
        to(_SCORES), to(_LABELS), _LENGTHS, gaussian_stddev=1.0
    ),
    "packed cross_entropy": lambda to: losses.cross_entropy(_packed(to), to(packed_rows(_LABELS, _LENGTHS))),
    "binary_cross_entropy": lambda to: losses.binary_cross_entropy(to(_SCORES), to(_SHARES), _LENGTHS),
    "generic_cross_entropy": lambda to: losses.generic_cross_entropy(to(_SHARES), to(_LABELS), _LENGTHS),
    "mse": lambda to: losses.mse(to(_SCORES), to(_SHARES), _LENGTHS, reduction="batch"),
    "l1": lambda to: losses.l1(to(_SCORES), to(_SHARES), _LENGTHS),
    "mean_l1": lambda to: losses.mean_l1(to(_SCORES), to(_SHARES), _LENGTHS),
    "as_is": lambda to: losses.as_is(to(_SCORES[:, :, 0]), _LENGTHS, reduction="frames"),
    "frame_errors": lambda to: losses.frame_errors(to(_SCORES), to(_LABELS), _LENGTHS),
    "deep_clustering": lambda to: losses.deep_clustering(
        to(_MASKS), to(_MASKS.flip(0)), _LENGTHS, embedding_dimension=2, num_sources=2
    ),
    "triplet": lambda to: losses.triplet(to(_SCORES[0]), to(torch.tensor([0, 0, 1, 1, 2, 2, 0])), margin=1.0),
    "sampled_softmax": lambda to: _sampled(
        losses.sampled_softmax, to, sampler=ReplayedSampler([torch.tensor([0, 3, 4])], _COUNTS)
    ),
    "noise_contrastive": lambda to: _sampled(
        losses.noise_contrastive, to, sampler=UniformSampler(5), generator=torch.Generator().manual_seed(1)
    ),
    "expected_loss": lambda to: losses.expected_loss(
        to(_SCORES[:, :, 0]), to(_SHARES[:, :, 0]), num_hypotheses=torch.tensor([7, 3, 1])
    ),
    "mwer of an n-best list": lambda to: losses.mwer_loss(
        to(_SCORES), _REFERENCES, _SOME, _REFERENCE_LENGTHS, _HYPOTHESES, normalize=True
    ),
    "mwer of draws": lambda to: losses.mwer_loss(
        to(_SCORES), _REFERENCES, _SOME, _REFERENCE_LENGTHS, _HYPOTHESES, normalize=True, estimate="sampled"
    ),
    "mwer without a path": lambda to: losses.mwer_loss(
        to(_SCORES), _REFERENCES, _LENGTHS, _REFERENCE_LENGTHS, _HYPOTHESES, normalize=True, on_infeasible="inf"
    ),
    "mwer, searched": lambda to: MWERLoss("nbest", count=4)(
        to(_SCORES), _REFERENCES, _SOME, _REFERENCE_LENGTHS
    ),
    "mwer, drawn": lambda to: MWERLoss(count=5)(to(_SCORES), _REFERENCES, _SOME, _REFERENCE_LENGTHS),
    "error_signal": lambda to: losses.error_signal_loss(
        to(_SCORES), to(torch.ones(3)), _LENGTHS, error_signal=to(_SHARES)
    ),
    "extern_sprint": lambda to: losses.extern_sprint_loss(to(_SCORES), _LENGTHS, ["a", "b", "c"], Aligner()),
}  # fmt: skip


@pytest.mark.parametrize("name", CRITERIA)
def test_criteria(name: str) -> None:
    torch.manual_seed(1)
    expected = CRITERIA[name](lambda x: x)
    torch.manual_seed(1)
    with pretended_cuda():
        found = CRITERIA[name](lambda x: x.to(DEVICE))
        assert found.device == DEVICE
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-6)


def test_draws_are_made_where_the_scores_are() -> None:
    with (
        pretended_cuda(),
        pytest.raises(
            DeviceError, match="generator is on cpu, the scores on cuda:0: draws are made where"
        ) as caught,
    ):
        losses.sample_ctc_hypotheses(_SCORES.to(DEVICE), _SOME, 3, generator=torch.Generator())
    assert caught.value.argument == "generator"
