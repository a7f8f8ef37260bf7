"""The criterion of each stage of a recipe, out of its configuration and its corpus."""

from __future__ import annotations

from collections.abc import Callable

import torch

from seqtrain.data import Corpus
from seqtrain.errors import ConfigError
from seqtrain.training.config import RecipeConfig
from seqtrain.training.criteria import CtcCriterion, HmmCriterion
from seqtrain.training.criterion import AutomatonSource, BuilderSource, Criterion
from seqtrain.training.evaluation import reference_phones
from seqtrain.training.lfmmi import LfmmiCriterion
from seqtrain.training.mpfe import MpfeCriterion
from seqtrain.training.mwer import MwerCriterion
from seqtrain.training.networks import Networks

__all__ = ["StageCriteria"]


class StageCriteria:
    """Makes the criteria of a recipe's stages.

    Args:
        config, corpus, networks: of the recipe.
        service: the aligner service, for stages with the HMM's labels; None: the automata are built here.
    """

    def __init__(
        self, config: RecipeConfig, corpus: Corpus, networks: Networks, *, service: AutomatonSource | None
    ) -> None:
        self._config = config
        self._corpus = corpus
        self._networks = networks
        self._service = service

    def criterion(self, stage: str) -> Criterion:
        """The criterion of a stage."""
        made: dict[str, Callable[[], Criterion]] = {
            "ctc": self._ctc, "hmm": self._hmm, "lfmmi": self._lfmmi, "mbr": self._mbr,
        }  # fmt: skip
        return made[stage]()

    def _ctc(self) -> Criterion:
        return CtcCriterion(self._targets("ctc"), blank=self._networks.builder("ctc").inventory.blank or 0)

    def _hmm(self) -> Criterion:
        inventory = self._networks.builder("hmm").inventory
        return HmmCriterion(
            self._source("hmm"),
            num_labels=len(inventory),
            silence=inventory.silence,
            prior_scale=self._config.hmm.prior_scale,
            prior_momentum=self._config.hmm.prior_momentum,
        )

    def _lfmmi(self) -> Criterion:
        config = self._config.lfmmi
        return LfmmiCriterion(
            self._source("lfmmi"),
            self._networks.phone_model("lfmmi"),
            blank=self._blank("lfmmi"),
            den_scale=config.den_scale,
            acoustic_scale=config.acoustic_scale,
            leak=config.leak,
            boost=config.boost,
            ctc_scale=config.ctc_scale,
        )

    def _mbr(self) -> Criterion:
        config = self._config.mbr
        if config.risk == "edits":
            if self._networks.origin("mbr") != "ctc":
                raise ConfigError(
                    f"mbr.risk = 'edits' samples from CTC, and the network of stage {self._networks.start('mbr')} has "
                    "the labels of the HMM: set mbr.risk = 'frames', or mbr.start = 'ctc'",
                    key="mbr.risk",
                )
            return MwerCriterion(
                self._targets("mbr"),
                blank=self._networks.builder("mbr").inventory.blank or 0,
                count=config.count,
                ctc_scale=config.ctc_scale,
                seed=self._config.seed,
            )
        return MpfeCriterion(
            self._source("mbr"),
            self._networks.phone_model("mbr"),
            blank=self._blank("mbr"),
            phones=self._phone_of_label("mbr"),
            beam=config.beam,
            acoustic_scale=config.acoustic_scale,
            ctc_scale=config.ctc_scale,
        )

    def _targets(self, stage: str) -> dict[str, torch.Tensor]:
        inventory = self._networks.builder(stage).inventory
        return {
            utterance.id: torch.tensor(
                [
                    inventory.index(phone)
                    for phone in reference_phones(self._networks.lexicon, utterance.text)
                ],
                dtype=torch.int64,
            )
            for utterance in self._corpus.train
        }

    def _source(self, stage: str) -> AutomatonSource:
        if self._service is not None:
            return self._service
        return BuilderSource(self._networks.builder(stage), {u.id: u.text for u in self._corpus.train})

    def _blank(self, stage: str) -> int | None:
        inventory = self._networks.builder(stage).inventory
        return inventory.silence if inventory.blank is None else inventory.blank

    def _phone_of_label(self, stage: str) -> list[int | None] | None:
        """With an HMM, the phone of each state's label."""
        if self._networks.origin(stage) == "ctc":
            return None
        builder = self._networks.builder(stage)
        phones: list[int | None] = [None] * len(builder.inventory)
        for phone, columns in enumerate(builder.columns):
            for column in columns:
                phones[column] = phone
        return phones
