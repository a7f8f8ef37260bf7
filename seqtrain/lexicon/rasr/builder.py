"""The builder: a RASR configuration in, the automata that RASR's exporter makes of it out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from seqtrain.errors import ArgumentError, LexiconError, OutOfVocabularyError, UnknownSegmentError
from seqtrain.fsa import Fsa, FsaBatch
from seqtrain.lexicon.bliss_corpus import read_bliss_corpus
from seqtrain.lexicon.digest import content_digest
from seqtrain.lexicon.inventory import LabelInventory
from seqtrain.lexicon.rasr.canonical import ExportedAutomaton, canonical
from seqtrain.lexicon.rasr.configuration import Configuration
from seqtrain.lexicon.rasr.lemma_acceptor import lemma_acceptor
from seqtrain.lexicon.rasr.model import ExporterModel, read_model, select

__all__ = ["RasrAutomatonBuilder", "read_corpus"]

# Part of the digest: raise it when the same configuration and corpus give other automata than before.
_REVISION = 1

_log = logging.getLogger(__name__)


class RasrAutomatonBuilder:
    """Builds the automata that RASR exports for the segments of a corpus, arc by arc; made by `from_config`.

    The way is RASR's own: lemmas of the words with silence between them (`lemma_acceptor`), pronunciations and
    allophones (`flat`), HMM states and transition costs (`hmm`; or `ctc`, `rna`), and states in topological order, arcs
    sorted and merged, one end (`canonical`). Quirks of RASR are named where they are reproduced.

    Wherever a source of automata is taken (`automata(tags)`), this and an `AlignerClient` are interchangeable.

    Args:
        model: everything but the transcripts.
        transcripts: full name of a segment → its words, separated by white space.
        unknown_words: what becomes of words that the lexicon doesn't have, and for which it has no lemma
            special="unknown" either: "raise" an error, or "skip" them with a warning in the log, as RASR does
            (once for an utterance).
    """

    def __init__(
        self,
        model: ExporterModel,
        transcripts: Mapping[str, str],
        *,
        unknown_words: Literal["raise", "skip"] = "raise",
    ) -> None:
        if unknown_words not in ("raise", "skip"):
            raise ArgumentError(
                f"unknown_words must be 'raise' or 'skip', got {unknown_words!r}", argument="unknown_words"
            )
        self.model = model
        self.transcripts = transcripts
        self.unknown_words = unknown_words
        self._warned: set[str] = set()

    @classmethod
    def from_config(
        cls,
        path: str | Path,
        *,
        setup_variables: Mapping[str, str] | None = None,
        selection: str | None = None,
        unknown_words: Literal["raise", "skip"] = "raise",
    ) -> RasrAutomatonBuilder:
        """Reads a configuration of RASR, and the lexicon, corpus and other files that it names.

        Args:
            path: the configuration, as RASR reads it. Relative paths in it are taken from its own folder.
            setup_variables: values of references such as `$(SETUP)`, over those of the file.
            selection: the program whose parameters are read; None: `neural-network-trainer`, or if that has no lexicon
                `lib-rasr`.
            unknown_words: see the class.

        Raises:
            ConfigError: the configuration can't be read, lacks a parameter, or asks for what isn't supported; names the
                parameter and the valid values.
            LexiconError, DataError: a file that it names can't be read or is malformed.
        """
        program = select(Configuration(path, variables=setup_variables), selection)
        return cls(read_model(program), _read_corpus(program), unknown_words=unknown_words)

    @property
    def segments(self) -> tuple[str, ...]:
        """Full names of the segments, in the order of the corpus."""
        return tuple(self.transcripts)

    @property
    def allophones(self) -> tuple[str, ...]:
        """Names of the allophones; the number of a state of one is `index | state << 26`."""
        return self.model.allophones.names

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """A name of each emission class."""
        return self.model.tying.labels()

    @cached_property
    def inventory(self) -> LabelInventory:
        """The emission classes as a label inventory."""
        return LabelInventory(self.labels, silence=self.model.silence_class, blank=self.model.blank_class)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that decides the automata: model, transcripts, treatment of unknown words; 64 hex digits."""
        return content_digest([_REVISION, self.model.description, dict(self.transcripts), self.unknown_words])

    def orthography(self, segment: str) -> str:
        """The words of a segment, with single spaces between them.

        Raises:
            UnknownSegmentError: the corpus has no such segment.
        """
        text = self.transcripts.get(segment)
        if text is None:
            raise UnknownSegmentError(
                f"no segment {segment!r} among the {len(self.transcripts)} of the corpus; a segment has its full name, "
                "corpus/recording/segment",
                utterance=segment,
            )
        return text

    def export(self, text: str, *, tag: str | None = None) -> ExportedAutomaton:
        """The automaton of words separated by white space, as arrays; `tag` names the utterance in messages.

        Raises:
            OutOfVocabularyError: the lexicon lacks words (unless these are skipped); names them all.
            LexiconError: there is no path: no sequence of lemmas spells the words, allophones are missing from the
                inventory, or transition costs forbid everything.
        """
        model = self.model
        words = text.split()
        spelled, unknown = model.lexicon.spell(words)
        if unknown and model.lexicon.unknown is None:
            self._report_unknown(unknown, tag)
            # Without them, others stand next to each other.
            missing = set(unknown)
            spelled, _ = model.lexicon.spell([word for word in words if word not in missing])
        lemmas = lemma_acceptor(
            spelled,
            model.lexicon.silence,
            repeat_silence=model.repeat_silence,
            normalize=model.normalize_lemmas,
        )
        flat = model.flat.build(lemmas)
        automaton = None if flat is None else canonical(model.in_time(flat))
        if automaton is None:
            raise LexiconError(
                _prefix(tag)
                + f"no path through the automaton of {text!r}: no sequence of lemmas and allophones in the "
                "inventory spells it, or the transition costs forbid it"
            )
        return automaton

    def build(self, segment: str) -> Fsa:
        """The automaton of a segment: weights are -cost, labels emission classes, the last state is the only final one.

        Raises:
            UnknownSegmentError: the corpus has no such segment.
            OutOfVocabularyError, LexiconError: as `export`.
        """
        return self.build_text(self.orthography(segment), tag=segment)

    def build_text(self, text: str, *, tag: str | None = None) -> Fsa:
        """The automaton of words separated by white space; `tag` names the utterance in errors.

        Raises:
            OutOfVocabularyError, LexiconError: as `export`.
        """
        return self.build_batch([text], tags=None if tag is None else [tag])[0]

    def build_batch(self, texts: Sequence[str], *, tags: Sequence[str] | None = None) -> FsaBatch:
        """The automata of several texts, with `tags`.

        Raises:
            OutOfVocabularyError, LexiconError: as `export`, for the first such text.
            ArgumentError: not as many tags as texts.
        """
        if tags is not None and len(tags) != len(texts):
            raise ArgumentError(f"{len(tags)} tags for {len(texts)} texts", argument="tags")
        exported = [
            self.export(text, tag=None if tags is None else tags[index]) for index, text in enumerate(texts)
        ]
        count = len(exported)
        num_states = np.array([automaton.num_states for automaton in exported], dtype=np.int64)
        edges = [automaton.edges for automaton in exported]
        costs = [automaton.costs for automaton in exported]
        # 0.0 - cost: what costs nothing has the weight 0.0, not -0.0.
        weights = np.float32(0.0) - np.concatenate([*costs, np.zeros(0)]).astype(np.float32)
        return FsaBatch(
            np.concatenate([*edges, np.zeros((3, 0), dtype=np.int64)], axis=1).T,
            weights,
            final_states=num_states - 1,
            final_weights=np.zeros(count, dtype=np.float32),
            starts=np.zeros(count, dtype=np.int64),
            num_states=num_states,
            arc_offsets=np.cumsum([0, *(len(cost) for cost in costs)], dtype=np.int64),
            final_offsets=np.arange(count + 1),
            tags=tags,
        )

    def automata(self, tags: Sequence[str]) -> FsaBatch:
        """The automata of the segments named, in this order, with `tags` set.

        Raises:
            UnknownSegmentError: the corpus has no such segment.
            OutOfVocabularyError, LexiconError: as `export`, for the first such segment.
        """
        return self.build_batch([self.orthography(tag) for tag in tags], tags=tags)

    def _report_unknown(self, unknown: Sequence[str], tag: str | None) -> None:
        words = tuple(dict.fromkeys(unknown))
        message = _prefix(tag) + f"not in the lexicon: {', '.join(map(repr, words))}"
        if self.unknown_words == "raise":
            raise OutOfVocabularyError(message, words=words, utterance=tag)
        # Once: an utterance comes again in each epoch.
        if message not in self._warned:
            self._warned.add(message)
            _log.warning("%s; skipped", message)


def read_corpus(
    path: str | Path,
    *,
    setup_variables: Mapping[str, str] | None = None,
    selection: str | None = None,
) -> Mapping[str, str]:
    """The words of each segment of the corpus that a configuration of RASR names, by the segment's full name.

    Args:
        path, setup_variables, selection: as of `RasrAutomatonBuilder.from_config`.

    Raises:
        ConfigError, DataError: the configuration, or the corpus.
    """
    return _read_corpus(select(Configuration(path, variables=setup_variables), selection))


def _read_corpus(program: Configuration) -> Mapping[str, str]:
    if program.flag("corpus.capitalize-transcriptions", False):
        raise program.error("corpus.capitalize-transcriptions", "is yes, which isn't supported")
    return read_bliss_corpus(program.file("corpus.file"))


def _prefix(tag: str | None) -> str:
    return "" if tag is None else f"segment {tag!r}: "
