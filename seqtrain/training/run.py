"""A recipe from its first stage to its last.

    prepare   the corpus: manifests, lexicon
    ctc       a network trained with CTC
    hmm       another one, from a flat start, with the full sum over automata from an aligner service
    lfmmi     goes on from the better one of these with lattice-free MMI
    mbr       goes on from the best network so far with minimum Bayes risk
    align     forced alignment of the held-out sets with all of them
    score     error rates of all of them on the held-out sets, and what they recognize
    report    the page to look at

Everything lies in the working folder. A stage takes what the stages before it left there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seqtrain.align import AlignedUtterance, write_jsonl
from seqtrain.data import Corpus, Dataset, DurationBatches, FeatureCache, Utterance, read_corpus
from seqtrain.errors import ArgumentError
from seqtrain.training.acoustics import ScoredSet
from seqtrain.training.boundaries import agreement, pocketsphinx_boundaries
from seqtrain.training.config import FROM_SCRATCH, NETWORKS, FineTuningConfig, RecipeConfig
from seqtrain.training.criterion import Criterion
from seqtrain.training.decoded import write_decoded
from seqtrain.training.entry import Prepare
from seqtrain.training.evaluation import Decoder, reference_phones
from seqtrain.training.forced_alignment import force_align
from seqtrain.training.loop import Stage, train
from seqtrain.training.metrics import MetricsLog
from seqtrain.training.networks import Networks
from seqtrain.training.optimizer import adamw
from seqtrain.training.progress import Console
from seqtrain.training.report import AlignmentTrack, write_report
from seqtrain.training.results import STAGE_NAMES, Results, describe_rate, format_table
from seqtrain.training.service import ServiceSource, automaton_service
from seqtrain.training.settings import with_settings
from seqtrain.training.side_by_side import train_side_by_side
from seqtrain.training.stage_criteria import StageCriteria
from seqtrain.training.summary import report_data
from seqtrain.training.targets import Target, check_targets
from seqtrain.training.tracks import alignment_views, of_middling_length, stage_tracks

__all__ = ["STAGES", "RecipeRun"]

STAGES = ("prepare", *NETWORKS, "align", "score", "report")
# Speech that was trained on has rarely more silence than this.
_TOO_SILENT = 0.5


class RecipeRun:
    """One run of a recipe in its working folder.

    Files there: `data/` (corpus), `features/` (cache), `<stage>/checkpoint.safetensors`, `<stage>/metrics.jsonl`,
    `results.json`, `alignments/<set>-<stage>.jsonl`, `decoded/<set>-<stage>.jsonl`, `report.html`.

    Args:
        config: the recipe.
        workdir: the working folder.
        prepare: prepares the corpus; None where that has been done.
        console: where the run speaks.
        resume: go on from the checkpoints that are there.
    """

    def __init__(
        self,
        config: RecipeConfig,
        workdir: str | Path,
        *,
        prepare: Prepare | None = None,
        console: Console,
        resume: bool = False,
    ) -> None:
        self._given = config
        self.workdir = Path(workdir)
        self.console = console
        self.resume = resume
        self.results = Results(self.workdir / "results.json")
        self._prepare = prepare
        self._features: dict[str, torch.Tensor] = {}
        self._decoders: dict[str, Decoder] = {}

    def run(self, stages: Sequence[str] = STAGES) -> dict[str, Any]:
        """Runs the stages in their own order, whatever order they are named in; returns what was measured.

        The two that train from scratch don't need each other: with two threads or more, they train side by side.

        Raises:
            ArgumentError: an unknown stage.
            DataError, CheckpointError: a stage before hasn't been run, or its files are broken.
            AlignerError: the aligner service failed.
            StageError: the process of a stage died.
        """
        for stage in stages:
            if stage not in STAGES:
                raise ArgumentError(
                    f"there is no stage {stage!r}; the stages are {', '.join(STAGES)}", argument="stages"
                )
        torch.set_num_threads(self._given.threads)
        if "prepare" in stages:
            self.prepare()
        training = [stage for stage in FROM_SCRATCH if stage in stages]
        if len(training) > 1 and self._given.threads > 1:
            measured = train_side_by_side(
                training, self.config, self.workdir, console=self.console, resume=self.resume
            )
            self.results.update("stages", measured)
            training = []
        for stage in NETWORKS:
            if stage in stages and (stage in training or stage not in FROM_SCRATCH):
                self.results.update("stages", {stage: self.train(stage)})
        functions: dict[str, Callable[[], None]] = {
            "align": self.align,
            "score": self.score,
            "report": self.report,
        }
        for stage, function in functions.items():
            if stage in stages:
                function()
        return self.results.read()

    def prepare(self) -> None:
        """Prepares the corpus and computes the features."""
        if self._prepare is None:
            raise ArgumentError("there is no function that prepares the corpus", argument="prepare")
        corpus = self._prepare(self.workdir / "data", self._given.corpus_options, self.console)
        for stale in ("corpus", "config", "networks"):
            self.__dict__.pop(stale, None)
        self._decoders.clear()
        for name, value in corpus.settings.items():
            self.console.say(f"this corpus needs {name} = {value}")
        if not self.resume:
            self.results.clear()
        self._load_features(corpus.utterances)
        sets = {"train": corpus.train, **corpus.heldout}
        described = {name: self._describe(utterances) for name, utterances in sets.items()}
        for name, about in described.items():
            self.console.say(
                f"{name}: {about['utterances']} utterances, {about['minutes']:.1f} min, {about['words']} "
                f"words, {about['phones']} phones ({corpus.note})"
            )
        self.results.update(
            "corpus",
            {
                "recipe": self.config.name,
                "title": corpus.title,
                "note": corpus.note,
                "seed": self.config.seed,
                "train": described.pop("train"),
                "heldout": described,
                "left_out": dict(corpus.left_out),
            },
        )

    def train(self, stage: str) -> dict[str, Any]:
        """Trains the network of a stage, here and now; returns its steps, its size, the seconds it took.

        "ctc" is connectionist temporal classification; "hmm" begins from a flat start, with the full sum over
        automata from the aligner service; "lfmmi" and "mbr" go on from a network (`start` among what is measured).
        """
        about: dict[str, Any] = {}
        if stage not in FROM_SCRATCH:
            resumed = self.resume and self.networks.checkpoint(stage).exists()
            about["start"] = self.networks.start(stage) if resumed else self.networks.choose_start(stage)
            self.console.say(f"{stage} goes on from the network of {about['start']}")
        if self.networks.origin(stage) == "ctc":
            return self._train(stage, self._criteria(None).criterion(stage)) | about
        with self._service() as source:
            measured = self._train(stage, self._criteria(source).criterion(stage)) | about
        share = next((r["silence"] for r in reversed(list(self._metrics(stage))) if "silence" in r), 0.0)
        if share > _TOO_SILENT:
            self.console.say(
                f"WARNING: {100 * share:.0f} % of the network's output is silence. Training has most likely failed: "
                f"raise hmm.prior_scale, which is {self.config.hmm.prior_scale:g}"
            )
        return measured

    def align(self) -> None:
        """Aligns the held-out sets with every network, and compares word boundaries with PocketSphinx's."""
        aligned: dict[str, dict[str, Mapping[str, AlignedUtterance]]] = {}
        with self._service() as source:
            for stage in self.networks.trained_stages():
                for name, utterances in self.corpus.heldout.items():
                    found = force_align(
                        self._scored(stage, name),
                        utterances,
                        builder=self.networks.builder(stage),
                        # The service has the HMM's automata; CTC's topology is our own affair.
                        source=source if self.networks.origin(stage) == "hmm" else None,
                        frame_shift=self.config.frame_shift,
                        frame_offset=self.config.frame_offset,
                    )
                    aligned.setdefault(name, {})[stage] = found
                    write_jsonl(self.workdir / "alignments" / f"{name}-{stage}.jsonl", found.values())
        if not self.config.alignment.pocketsphinx:
            return
        tolerance = self.config.alignment.tolerance
        for name, utterances in self.corpus.heldout.items():
            with self.console.progress(f"PocketSphinx, {name}", total=len(utterances)) as progress:
                reference = pocketsphinx_boundaries(
                    utterances, self.networks.lexicon, progress=progress.update
                )
            values: dict[str, Any] = {"without": list(reference.without)}
            for stage, aligned_by_stage in aligned[name].items():
                values[stage] = asdict(agreement(reference, aligned_by_stage, tolerance=tolerance))
            self.results.update("boundaries", {name: values})

    def aligned(self, stage: str, name: str) -> dict[str, AlignedUtterance]:
        """A held-out set's words and phones in time, by the network of `stage` ("ctc", "hmm" …), without the service.

        Raises:
            CheckpointError, DataError: that stage hasn't been trained to its end.
        """
        return force_align(
            self._scored(stage, name),
            self.corpus.heldout[name],
            builder=self.networks.builder(stage),
            source=None,
            frame_shift=self.config.frame_shift,
            frame_offset=self.config.frame_offset,
        )

    def score(self) -> None:
        """Decodes the held-out sets with every network and prints the table."""
        for name in self.corpus.heldout:
            rates = {}
            for stage in self.networks.trained_stages():
                scored = self._scored(stage, name)
                decoder = self._decoder(stage)
                words = decoder.word_error_rates(scored)
                with_model = decoder.phone_error_rate_with_model(scored)
                write_decoded(
                    self.workdir / "decoded" / f"{name}-{stage}.jsonl",
                    decoder.recognized(scored),
                    frame_shift=self.config.frame_shift,
                    frame_offset=self.config.frame_offset,
                )
                rates[stage] = {
                    "per": describe_rate(decoder.phone_error_rate(scored)),
                    **({} if with_model is None else {"per_lm": describe_rate(with_model)}),
                    "wer_open": describe_rate(words.open),
                    "wer_closed": describe_rate(words.closed),
                }
            self.results.update("scores", {name: rates})
        self.console.say(format_table(self.results.read()))
        for target in self.targets():
            self.console.say(str(target))

    def targets(self) -> list[Target]:
        """The configured targets, and whether what was measured meets them."""
        targets = self.config.targets
        return check_targets(self.results.read(), at_most=targets.at_most, at_least=targets.at_least)

    def report(self) -> None:
        """Writes the page to look at."""
        name, heldout = next(iter(self.corpus.heldout.items()))
        chosen = of_middling_length(heldout, self.config.alignment.shown)
        aligners = []
        with self._service() as source:
            for stage in self.networks.trained_stages():
                tracks = stage_tracks(
                    self._scored(stage, name).subset([u.id for u in chosen]),
                    name=STAGE_NAMES[stage],
                    builder=self.networks.builder(stage),
                    source=source if self.networks.origin(stage) == "hmm" else None,
                    utterances=chosen,
                    frame_shift=self.config.frame_shift,
                    frame_offset=self.config.frame_offset,
                )
                aligners.append(tracks)
        if self.config.alignment.pocketsphinx:
            words = pocketsphinx_boundaries(chosen, self.networks.lexicon).words
            aligners.append(
                {tag: AlignmentTrack("PocketSphinx", words=found) for tag, found in words.items()}
            )
        views = alignment_views(
            self._dataset(chosen), aligners, frame_shift=self.config.features.frame_shift_ms / 1000
        )
        metrics = [record for stage in NETWORKS for record in self._metrics(stage)]
        path = self.workdir / "report.html"
        write_report(path, report_data(self.results.read(), metrics, views))
        self.console.say(f"report: {path}")

    @cached_property
    def corpus(self) -> Corpus:
        """The prepared corpus."""
        return read_corpus(self.workdir / "data")

    @cached_property
    def config(self) -> RecipeConfig:
        """The configuration, with the values that the corpus needs."""
        return with_settings(self._given, self.corpus.settings) if self.corpus.settings else self._given

    @cached_property
    def networks(self) -> Networks:
        """The networks of the stages."""
        return Networks(self.config, self.corpus, self.workdir)

    def _describe(self, utterances: Sequence[Utterance]) -> dict[str, float]:
        return {
            "utterances": len(utterances),
            "minutes": sum(u.duration for u in utterances) / 60,
            "words": sum(len(u.words) for u in utterances),
            "phones": sum(len(reference_phones(self.networks.lexicon, u.text)) for u in utterances),
        }

    def _load_features(self, utterances: Sequence[Utterance]) -> None:
        missing = [u for u in utterances if u.id not in self._features]
        if not missing:
            return
        cache = FeatureCache(self.workdir / "features", self.config.features)
        with self.console.progress("features", total=len(missing)) as progress:
            for utterance, features in zip(
                missing, cache.load(missing, progress=progress.update), strict=True
            ):
                self._features[utterance.id] = features

    def _dataset(self, utterances: Sequence[Utterance]) -> Dataset:
        self._load_features(utterances)
        return Dataset(utterances, [self._features[u.id] for u in utterances])

    @contextmanager
    def _service(self) -> Iterator[ServiceSource]:
        with automaton_service(
            lexicon=self.corpus.lexicon,
            manifest=self.corpus.manifest,
            topology=self.networks.hmm_topology,
            builder=self.networks.builder("hmm"),
            timeout=self.config.hmm.timeout,
            prefetch=self.config.hmm.prefetch,
            log=self.workdir / "hmm" / "aligner.log",
        ) as source:
            yield source

    def _criteria(self, service: ServiceSource | None) -> StageCriteria:
        return StageCriteria(self.config, self.corpus, self.networks, service=service)

    def _metrics(self, stage: str) -> MetricsLog:
        return MetricsLog(self.workdir / stage / "metrics.jsonl")

    def _train(self, name: str, criterion: Criterion) -> dict[str, Any]:
        dataset = self._dataset(self.corpus.train)
        model = self.networks.begin(name)
        config, optimizer = self.networks.stage_config(name), self.config.optimizer
        learning_rate = (
            config.learning_rate if isinstance(config, FineTuningConfig) else optimizer.learning_rate
        )
        stage = Stage(
            name=name,
            run=self.networks.identity(name),
            model=model,
            optimizer=adamw(model, learning_rate=learning_rate, weight_decay=optimizer.weight_decay),
            schedule=config.schedule,
            dataset=dataset,
            batches=DurationBatches(
                dataset.lengths, max_frames=self.config.batch_frames, seed=self.config.seed
            ),
            criterion=criterion,
            seed=self.config.seed,
            augmentation=self.config.augmentation,
            clip=optimizer.clip,
            log_every=config.log_every,
            checkpoint_every=config.checkpoint_every,
            evaluate_every=config.evaluate_every,
            evaluate=lambda trained: self._evaluate(name, trained, criterion),
        )
        used = train(
            stage,
            checkpoint=self.networks.checkpoint(name),
            metrics=self._metrics(name),
            console=self.console,
            resume=self.resume,
        )
        parameters = sum(p.numel() for p in model.parameters())
        return {"steps": config.steps, "parameters": parameters, **used}

    def _evaluate(self, stage: str, model: nn.Module, criterion: Criterion) -> dict[str, float]:
        """Phone error rates on the held-out sets while training goes on; where it has a phone n-gram, with it, too."""
        network, decoder = self.networks.in_training(model, criterion), self._decoder(stage)
        measured = {}
        for name, utterances in self.corpus.heldout.items():
            scored = network.score(self._dataset(utterances))
            measured[f"per_{name}"] = decoder.phone_error_rate(scored).percent
            with_model = None if stage in FROM_SCRATCH else decoder.phone_error_rate_with_model(scored)
            if with_model is not None:
                measured[f"per_lm_{name}"] = with_model.percent
        return measured

    def _scored(self, stage: str, name: str) -> ScoredSet:
        return self.networks.trained(stage).score(self._dataset(self.corpus.heldout[name]))

    def _decoder(self, stage: str) -> Decoder:
        if stage not in self._decoders:
            self._decoders[stage] = Decoder(
                self.networks.builder(stage),
                texts={u.id: u.text for u in self.corpus.utterances},
                training=[u.text for u in self.corpus.train],
                phone_model=lambda: self.networks.phone_model(stage),
                config=self.config.decoding,
            )
        return self._decoders[stage]
