"""The networks of a recipe's two stages: their labels, how they begin, where they are kept, and how they score."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from seqtrain.data import Corpus, Dataset, generator
from seqtrain.errors import CheckpointError
from seqtrain.fsa import Transitions
from seqtrain.lexicon import AutomatonBuilder, CtcTopology, HmmTopology, Lexicon, read_lexicon
from seqtrain.losses import PriorEstimator
from seqtrain.training.acoustics import ScoredSet, score_set
from seqtrain.training.checkpoint import load_checkpoint
from seqtrain.training.config import RecipeConfig, StageConfig
from seqtrain.training.criteria import HmmCriterion
from seqtrain.training.criterion import Criterion
from seqtrain.training.model import ConvAcousticModel
from seqtrain.training.settings import fingerprint

__all__ = ["NETWORKS", "Networks", "TrainedNetwork"]

NETWORKS = ("ctc", "hmm")
"""The stages that train a network."""

# Settings of a stage that don't change what its training computes.
_INCIDENTAL = ("log_every", "checkpoint_every", "evaluate_every", "timeout", "prefetch")


@dataclass(frozen=True)
class TrainedNetwork:
    """A network and the scores it stands for: log p(s | x) - `prior_scale` · `log_prior` (V,), None for no prior."""

    model: nn.Module
    log_prior: torch.Tensor | None = None
    prior_scale: float = 0.0

    def score(self, dataset: Dataset) -> ScoredSet:
        """The scores of all frames of a set."""
        scored = score_set(self.model, dataset)
        return scored if self.log_prior is None else scored.minus(self.prior_scale * self.log_prior)


class Networks:
    """The networks of the stages "ctc" and "hmm", for a recipe's corpus, in a working folder."""

    def __init__(self, config: RecipeConfig, corpus: Corpus, workdir: Path) -> None:
        self._config = config
        self._corpus = corpus
        self._workdir = workdir
        self._builders: dict[str, AutomatonBuilder] = {}

    @cached_property
    def lexicon(self) -> Lexicon:
        """Pronunciations of all words of the corpus."""
        return read_lexicon(self._corpus.lexicon)

    @cached_property
    def hmm_topology(self) -> HmmTopology:
        """The configured topology."""
        hmm = self._config.hmm
        return HmmTopology(
            states_per_phone=hmm.states_per_phone,
            phone=Transitions.from_probabilities(loop=hmm.phone_loop),
            silence=Transitions.from_probabilities(loop=hmm.silence_loop),
            silence_probability=hmm.silence_probability,
        )

    def builder(self, stage: str) -> AutomatonBuilder:
        """Labels and automata of a stage; those of the HMM are the aligner service's, too."""
        if stage not in self._builders:
            topology = CtcTopology() if stage == "ctc" else self.hmm_topology
            self._builders[stage] = AutomatonBuilder(self.lexicon, topology)
        return self._builders[stage]

    def stage_config(self, stage: str) -> StageConfig:
        """The stage's section of the configuration."""
        return self._config.ctc if stage == "ctc" else self._config.hmm

    def checkpoint(self, stage: str) -> Path:
        """The file of a stage's last checkpoint."""
        return self._workdir / stage / "checkpoint.safetensors"

    def identity(self, stage: str) -> str:
        """Changes with whatever decides what a stage's training computes; checkpoints carry it."""
        settings = asdict(self.stage_config(stage))
        decisive = {name: value for name, value in settings.items() if name not in _INCIDENTAL}
        config = self._config
        return fingerprint(
            stage, decisive, config.seed, config.batch_frames, config.features, config.augmentation, config.model,
            config.optimizer, self.builder(stage).digest, [(u.id, u.text) for u in self._corpus.train],
        )  # fmt: skip

    def begin(self, stage: str) -> ConvAcousticModel:
        """A stage's network before training; sets torch's global random numbers to the stage's seed."""
        torch.manual_seed(generator(self._config.seed, "model", stage).initial_seed())
        return self._model(stage)

    def in_training(self, model: nn.Module, criterion: Criterion) -> TrainedNetwork:
        """A network as it stands, with its criterion's prior."""
        if not isinstance(criterion, HmmCriterion):
            return TrainedNetwork(model)
        return TrainedNetwork(model, criterion.log_prior, self._config.hmm.prior_scale)

    def trained(self, stage: str) -> TrainedNetwork:
        """A stage's network after training.

        Raises:
            CheckpointError: the stage hasn't been trained to its end, or with other settings.
        """
        path, steps = self.checkpoint(stage), self.stage_config(stage).steps
        saved = load_checkpoint(path, run=self.identity(stage))
        if saved.position.step < steps:
            raise CheckpointError(
                f"stage {stage} has done {saved.position.step} of its {steps} steps; run it again with --resume first",
                path=str(path),
            )
        model = self._model(stage)
        model.load_state_dict(saved.group("model"))
        model.eval()
        if stage == "ctc":
            return TrainedNetwork(model)
        prior = PriorEstimator(len(self.builder(stage).inventory))
        prior.load_state_dict(saved.group("criterion"))
        return TrainedNetwork(model, prior.log_prior, self._config.hmm.prior_scale)

    def _model(self, stage: str) -> ConvAcousticModel:
        model = self._config.model
        return ConvAcousticModel(
            num_features=self._config.features.num_bins,
            num_labels=len(self.builder(stage).inventory),
            width=model.width,
            kernel=model.kernel,
            stride=model.stride,
            dilations=model.dilations,
            dropout=model.dropout,
        )
