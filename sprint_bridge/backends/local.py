"""Our own automaton builder as an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from seqtrain.errors import DataError, OutOfVocabularyError, SeqtrainError, UnknownSegmentError
from seqtrain.lexicon import AutomatonBuilder, LabelInventory, read_lexicon, read_transcripts
from seqtrain.lexicon.digest import content_digest
from sprint_bridge.alignment_file import read_alignments
from sprint_bridge.backends.base import (
    BatchAlignments,
    BatchAutomata,
    BatchLosses,
    Capability,
    Orthography,
    Segment,
)
from sprint_bridge.backends.scored import align_with_automata, full_sum_losses
from sprint_bridge.config import LocalBackendConfig

__all__ = ["LocalBackend", "load_local_backend"]


class LocalBackend:
    """Automata from a lexicon, a topology and transcripts; alignments from what it was given."""

    def __init__(
        self, builder: AutomatonBuilder, alignments: Mapping[str, NDArray[np.int32]] | None = None
    ) -> None:
        self._builder = builder
        self._alignments = alignments
        given = (
            {name: labels.tolist() for name, labels in alignments.items()} if alignments is not None else None
        )
        # Without alignments the digest is the builder's own.
        self._digest = builder.digest if given is None else content_digest([builder.digest, given])

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
        texts: list[str] = []
        errors: list[SeqtrainError | None] = []
        for item in items:
            try:
                text = item.text if isinstance(item, Orthography) else self._builder.transcript(item.name)
            except UnknownSegmentError as error:
                errors.append(error)
                continue
            missing = self._builder.lexicon.missing_words([text])
            if missing:
                errors.append(
                    OutOfVocabularyError(
                        f"not in the lexicon: {', '.join(map(repr, missing))}", words=missing
                    )
                )
                continue
            errors.append(None)
            texts.append(text)
        return BatchAutomata(self._builder.build_batch(texts), tuple(errors))

    def alignments(self, segments: Sequence[str]) -> BatchAlignments:
        known = self._alignments if self._alignments is not None else {}
        none = np.zeros(0, dtype=np.int32)
        return BatchAlignments(
            labels=tuple(known.get(segment, none) for segment in segments),
            errors=tuple(
                None
                if segment in known
                else UnknownSegmentError(f"no alignment among {len(known)}", utterance=segment)
                for segment in segments
            ),
        )

    def align(self, segments: Sequence[str], scores: Sequence[NDArray[np.float32]]) -> BatchAlignments:
        answer = self.automata([Segment(name) for name in segments])
        labels, errors = align_with_automata(answer, scores)
        return BatchAlignments(labels, errors)

    def losses(self, segments: Sequence[str], log_posteriors: Sequence[NDArray[np.float32]]) -> BatchLosses:
        return full_sum_losses(self.automata([Segment(name) for name in segments]), log_posteriors)

    def close(self) -> None:
        """Nothing was started."""


def load_local_backend(config: LocalBackendConfig) -> LocalBackend:
    """Loads lexicon, transcripts and alignments.

    Raises:
        LexiconError, DataError: a file can't be read or is malformed, two files of transcripts name the same
            utterance, or an alignment has a label that the inventory lacks.
    """
    lexicon = read_lexicon(config.lexicon, probabilities=config.lexicon_probabilities)
    if config.normalize_pronunciations:
        lexicon = lexicon.normalized()
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
    builder = AutomatonBuilder(lexicon, config.topology, transcripts)
    if config.alignments is None:
        return LocalBackend(builder)
    return LocalBackend(builder, read_alignments(config.alignments, num_labels=len(builder.inventory)))
