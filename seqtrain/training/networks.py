"""The networks of a recipe's stages: their labels, how they begin, where they are kept, and how they score."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seqtrain.data import Corpus, Dataset, generator
from seqtrain.errors import ArgumentError, CheckpointError, DataError
from seqtrain.files import replace_file
from seqtrain.fsa import Fsa, Transitions
from seqtrain.lexicon import AutomatonBuilder, CtcTopology, HmmTopology, Lexicon, read_lexicon
from seqtrain.losses import PriorEstimator
from seqtrain.training.acoustics import ScoredSet, score_set
from seqtrain.training.checkpoint import load_checkpoint
from seqtrain.training.config import NETWORKS, FineTuningConfig, RecipeConfig, StageConfig
from seqtrain.training.criteria import HmmCriterion
from seqtrain.training.criterion import Criterion
from seqtrain.training.metrics import MetricsLog
from seqtrain.training.model import ConvAcousticModel
from seqtrain.training.phone_model import phone_model_graph
from seqtrain.training.settings import fingerprint

__all__ = ["Networks", "TrainedNetwork"]

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
    """The networks of a recipe's stages, for its corpus, in a working folder.

    A stage that goes on from another one's network keeps, beside its checkpoint, the name of that stage in `start`.
    """

    def __init__(self, config: RecipeConfig, corpus: Corpus, workdir: Path) -> None:
        self._config = config
        self._corpus = corpus
        self._workdir = workdir
        self._builders: dict[str, AutomatonBuilder] = {}
        self._phone_models: dict[str, Fsa] = {}

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

    def origin(self, stage: str) -> str:
        """The stage whose labels and automata this one has: "ctc" or "hmm".

        Raises:
            CheckpointError: the stage goes on from another one, and hasn't begun.
        """
        return self.origin(self.start(stage)) if self._is_fine_tuned(stage) else stage

    def builder(self, stage: str) -> AutomatonBuilder:
        """Labels and automata of a stage; those of the HMM are the aligner service's, too."""
        origin = self.origin(stage)
        if origin not in self._builders:
            topology = CtcTopology() if origin == "ctc" else self.hmm_topology
            self._builders[origin] = AutomatonBuilder(self.lexicon, topology)
        return self._builders[origin]

    def phone_model(self, stage: str) -> Fsa:
        """The graph of the phone n-gram of the training transcripts, in the labels of a stage."""
        origin = self.origin(stage)
        if origin not in self._phone_models:
            self._phone_models[origin] = phone_model_graph(
                self.builder(stage), [utterance.text for utterance in self._corpus.train],
                order=self._config.phone_model.order, smoothing=self._config.phone_model.smoothing,
                seed=self._config.seed,
            )  # fmt: skip
        return self._phone_models[origin]

    def stage_config(self, stage: str) -> StageConfig:
        """The stage's section of the configuration."""
        section: StageConfig = getattr(self._config, stage)
        return section

    def trained_stages(self) -> tuple[str, ...]:
        """Those of which there must be a network: the two that begin from nothing, and others that have begun."""
        return tuple(s for s in NETWORKS if not self._is_fine_tuned(s) or self.checkpoint(s).exists())

    def start(self, stage: str) -> str:
        """The stage whose network a fine-tuned one has gone on from.

        Raises:
            CheckpointError: it hasn't begun.
        """
        path = self._start_file(stage)
        if not path.is_file():
            raise CheckpointError(
                f"stage {stage} hasn't been trained ({path} doesn't exist): run it first", path=str(path)
            )
        return path.read_text(encoding="utf-8").strip()

    def choose_start(self, stage: str) -> str:
        """Decides which network a fine-tuned stage goes on from, and keeps the decision.

        "best" is the one with the fewest phone errors on the first held-out set at the end of its training, with the
        phone n-gram or without, of those that have been trained.

        Raises:
            ArgumentError: the stage begins from nothing. CheckpointError: none has been trained.
        """
        config = self.stage_config(stage)
        if not isinstance(config, FineTuningConfig):
            raise ArgumentError(f"stage {stage} begins from nothing", argument="stage")
        chosen = config.start
        if chosen == "best":
            errors = {}
            for earlier in config.predecessors:
                if self.checkpoint(earlier).exists():
                    errors[earlier] = self._last_error_rate(earlier)
            if not errors:
                raise CheckpointError(
                    f"stage {stage} goes on from a network, and none is there: run the stage ctc or hmm first",
                    path=str(self.checkpoint(config.predecessors[0])),
                )
            chosen = min(errors, key=lambda earlier: errors[earlier])
        replace_file(self._start_file(stage), f"{chosen}\n".encode())
        return chosen

    def checkpoint(self, stage: str) -> Path:
        """The file of a stage's last checkpoint."""
        return self._workdir / stage / "checkpoint.safetensors"

    def identity(self, stage: str) -> str:
        """Changes with whatever decides what a stage's training computes; checkpoints carry it."""
        settings = asdict(self.stage_config(stage))
        decisive = {name: value for name, value in settings.items() if name not in _INCIDENTAL}
        config = self._config
        before: tuple[Any, ...] = ()
        if self._is_fine_tuned(stage):
            start = self.start(stage)
            before = (start, self.identity(start), config.phone_model)
        return fingerprint(
            stage, decisive, *before, config.seed, config.batch_frames, config.features, config.augmentation,
            config.model, config.optimizer, self.builder(stage).digest, [(u.id, u.text) for u in self._corpus.train],
        )  # fmt: skip

    def begin(self, stage: str) -> ConvAcousticModel:
        """A stage's network before training; sets torch's global random numbers to the stage's seed.

        Where it goes on from the HMM's, the prior becomes part of the output's bias: its logits are the scores.

        Raises:
            CheckpointError: the network that it goes on from hasn't been trained to its end.
        """
        torch.manual_seed(generator(self._config.seed, "model", stage).initial_seed())
        model = self._model(stage)
        if self._is_fine_tuned(stage):
            before = self.trained(self.start(stage))
            model.load_state_dict(before.model.state_dict())
            if before.log_prior is not None:
                with torch.no_grad():
                    model.output.bias.sub_(before.prior_scale * before.log_prior)
        return model

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
        if stage != "hmm":
            return TrainedNetwork(model)
        prior = PriorEstimator(len(self.builder(stage).inventory))
        prior.load_state_dict(saved.group("criterion"))
        return TrainedNetwork(model, prior.log_prior, self._config.hmm.prior_scale)

    def _is_fine_tuned(self, stage: str) -> bool:
        return isinstance(self.stage_config(stage), FineTuningConfig)

    def _start_file(self, stage: str) -> Path:
        return self._workdir / stage / "start"

    def _last_error_rate(self, stage: str) -> float:
        heldout = next(iter(self._corpus.heldout), None)
        names = (f"per_{heldout}", f"per_lm_{heldout}")
        rates = [
            min(float(record[name]) for name in names if name in record)
            for record in MetricsLog(self._workdir / stage / "metrics.jsonl")
            if names[0] in record
        ]
        if not rates:
            raise DataError(f"stage {stage} has measured no phone errors: train it to its end first")
        return rates[-1]

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
