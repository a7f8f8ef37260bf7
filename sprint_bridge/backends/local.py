"""Our own automaton builder as an engine, in this process or in worker processes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from seqtrain.errors import (
    DataError,
    OutOfVocabularyError,
    SeqtrainError,
    UnknownSegmentError,
)
from seqtrain.fsa import Fsa, FsaBatch
from seqtrain.lexicon import AutomatonBuilder, LabelInventory, read_lexicon, read_transcripts
from seqtrain.lexicon.digest import content_digest
from seqtrain.lexicon.rasr import RasrAutomatonBuilder, read_corpus
from sprint_bridge.alignment_file import read_alignments
from sprint_bridge.backends.base import (
    Backend,
    BatchAlignments,
    BatchAutomata,
    BatchLosses,
    Capability,
    Orthography,
    Segment,
)
from sprint_bridge.backends.pool import host_engine
from sprint_bridge.backends.scored import align_with_automata, full_sum_losses
from sprint_bridge.cache_alignments import CacheAlignments
from sprint_bridge.config.local import LocalBackendConfig, RasrSetup, dump_local

__all__ = ["LocalBackend", "load_local_backend", "load_local_engine"]


class LocalBackend:
    """Automata of a builder, and alignments from what it was given.

    Args:
        builder: of lexicon, topology and transcripts; or of a RASR configuration.
        alignments: segment → labels (T,) int32, or None; cached ones are closed with this.
    """

    def __init__(
        self,
        builder: AutomatonBuilder | RasrAutomatonBuilder,
        alignments: Mapping[str, NDArray[np.int32]] | None = None,
    ) -> None:
        self._builder = builder
        self._alignments = alignments
        self._digest = _digest(builder, alignments)

    @property
    def name(self) -> str:
        return "local"

    @property
    def capabilities(self) -> frozenset[Capability]:
        able = {
            Capability.AUTOMATA_BY_SEGMENT,
            Capability.AUTOMATA_BY_ORTHOGRAPHY,
            Capability.FORCED_ALIGNMENT,
            Capability.LOSSES,
        }
        return frozenset(able if self._alignments is None else able | {Capability.ALIGNMENTS})

    @property
    def inventory(self) -> LabelInventory:
        return self._builder.inventory

    @property
    def config_digest(self) -> str:
        return self._digest

    def automata(self, items: Sequence[Segment | Orthography]) -> BatchAutomata:
        texts: dict[int, str] = {}
        errors: list[SeqtrainError | None] = [None] * len(items)
        for index, item in enumerate(items):
            try:
                texts[index] = self._text(item)
            except SeqtrainError as error:
                errors[index] = error
        try:
            return BatchAutomata(self._builder.build_batch(list(texts.values())), tuple(errors))
        except SeqtrainError:
            # Something is wrong with one of them; find out which, and build the others.
            automata: list[Fsa] = []
            for index, text in texts.items():
                try:
                    automata.append(self._builder.build_batch([text])[0])
                except SeqtrainError as error:
                    errors[index] = error
            return BatchAutomata(FsaBatch.from_list(automata), tuple(errors))

    def alignments(self, segments: Sequence[str]) -> BatchAlignments:
        known = self._alignments if self._alignments is not None else {}
        labels = [np.zeros(0, dtype=np.int32)] * len(segments)
        errors: list[SeqtrainError | None] = [None] * len(segments)
        for index, segment in enumerate(segments):
            try:
                labels[index] = known[segment]
            except KeyError:
                errors[index] = UnknownSegmentError(f"no alignment among {len(known)}", utterance=segment)
            except SeqtrainError as error:
                errors[index] = error
        return BatchAlignments(tuple(labels), tuple(errors))

    def align(self, segments: Sequence[str], scores: Sequence[NDArray[np.float32]]) -> BatchAlignments:
        answer = self.automata([Segment(name) for name in segments])
        labels, errors = align_with_automata(answer, scores)
        return BatchAlignments(labels, errors)

    def losses(self, segments: Sequence[str], log_posteriors: Sequence[NDArray[np.float32]]) -> BatchLosses:
        return full_sum_losses(self.automata([Segment(name) for name in segments]), log_posteriors)

    def close(self) -> None:
        if isinstance(self._alignments, CacheAlignments):
            self._alignments.close()

    def _text(self, item: Segment | Orthography) -> str:
        """The words of an item; raises UnknownSegmentError, OutOfVocabularyError."""
        builder = self._builder
        if isinstance(builder, RasrAutomatonBuilder):
            # That builder says itself what its lexicon lacks, and what of that it skips.
            return item.text if isinstance(item, Orthography) else builder.orthography(item.name)
        text = item.text if isinstance(item, Orthography) else builder.transcript(item.name)
        missing = builder.lexicon.missing_words([text])
        if missing:
            raise OutOfVocabularyError(f"not in the lexicon: {', '.join(map(repr, missing))}", words=missing)
        return text


def _digest(
    builder: AutomatonBuilder | RasrAutomatonBuilder, alignments: Mapping[str, NDArray[np.int32]] | None
) -> str:
    if alignments is None:
        return builder.digest
    if isinstance(alignments, CacheAlignments):
        return content_digest([builder.digest, "cache", alignments.digest])
    return content_digest([builder.digest, {name: labels.tolist() for name, labels in alignments.items()}])


def load_local_backend(config: LocalBackendConfig) -> Backend:
    """The engine in this process; or, where the configuration has workers, in processes of its own.

    Raises:
        ConfigError, LexiconError, DataError: as `load_local_engine`.
        EngineStartError: workers don't get ready.
    """
    if config.workers is None:
        return load_local_engine(config)
    texts = _transcripts(config)

    def length(item: Segment | Orthography) -> float:
        return len(item.text if isinstance(item, Orthography) else texts.get(item.name, ""))

    in_worker = dump_local(dataclasses.replace(config, workers=None, log=None))
    return host_engine("local", in_worker, config.workers, log=config.log, cost=length)


def load_local_engine(config: LocalBackendConfig) -> LocalBackend:
    """Loads lexicon, transcripts and alignments, into this process.

    Raises:
        ConfigError: RASR's configuration asks for what isn't supported.
        LexiconError, DataError: a file can't be read or is malformed, two files of transcripts name the same
            utterance, an alignment has a label that the inventory lacks, or an archive lies outside the folders
            allowed.
    """
    builder = _builder(config)
    return LocalBackend(builder, _alignments(config, builder.inventory))


def _builder(config: LocalBackendConfig) -> AutomatonBuilder | RasrAutomatonBuilder:
    setup = config.rasr
    if setup is not None:
        return RasrAutomatonBuilder.from_config(
            setup.config,
            setup_variables=setup.variables,
            selection=setup.selection,
            unknown_words="skip" if setup.unknown_words == "skip" else "raise",
        )
    if config.lexicon is None:
        raise LookupError("a configuration without rasr has a lexicon")  # LocalBackendConfig has seen to it
    lexicon = read_lexicon(config.lexicon, probabilities=config.lexicon_probabilities)
    if config.normalize_pronunciations:
        lexicon = lexicon.normalized()
    return AutomatonBuilder(lexicon, config.topology, _transcripts(config))


def _transcripts(config: LocalBackendConfig) -> Mapping[str, str]:
    if config.rasr is not None:
        return _corpus(config.rasr)
    transcripts: dict[str, str] = {}
    for path in config.transcripts:
        for name, text in read_transcripts(path).items():
            if name in transcripts:
                raise DataError(
                    f"{path}: utterance {name!r} has a transcript in an earlier file already",
                    path=str(path),
                    utterance=name,
                )
            transcripts[name] = text
    return transcripts


def _corpus(setup: RasrSetup) -> Mapping[str, str]:
    return read_corpus(setup.config, setup_variables=setup.variables, selection=setup.selection)


def _alignments(
    config: LocalBackendConfig, inventory: LabelInventory
) -> Mapping[str, NDArray[np.int32]] | None:
    if not config.alignments:
        return None
    if config.alignment_file is not None:
        return read_alignments(config.alignment_file, num_labels=len(inventory))
    return CacheAlignments(
        config.alignments,
        folders=config.cache_folders,
        inventory=inventory,
        allophones=config.allophones,
    )
