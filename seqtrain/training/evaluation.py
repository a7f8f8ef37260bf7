"""Error rates of a stage: phones without a language model or with one, words by a word loop with a bigram."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from seqtrain.decoding import (
    DecodedWords,
    ErrorRate,
    WordLoop,
    ctc_greedy,
    decode_words,
    error_rate,
    phone_loop,
    witten_bell,
    word_loop,
)
from seqtrain.fsa import Fsa
from seqtrain.functional import best_path
from seqtrain.lexicon import AutomatonBuilder, CtcTopology, Lexicon
from seqtrain.training.acoustics import ScoredSet
from seqtrain.training.config import DecodingConfig

__all__ = ["Decoder", "WordErrorRates", "reference_phones"]


def reference_phones(lexicon: Lexicon, text: str) -> tuple[str, ...]:
    """The phones of a text: of each word the first pronunciation."""
    return tuple(phone for word in text.split() for phone in lexicon[word][0].phonemes)


@dataclass(frozen=True)
class WordErrorRates:
    """`open`: the vocabulary has the held-out sets' words too; `closed`: the training text's words only."""

    open: ErrorRate
    closed: ErrorRate


class Decoder:
    """Decodes the scores of one stage and counts the errors.

    The phone error rate needs no language model, greedy with CTC, otherwise the best path through a loop over
    all phones. Another one is that of the best path through the phone n-gram of the training text, the denominator
    of discriminative training. The word error rate is that of the best path through a loop over all words with a
    Witten-Bell bigram of the training text. Words that the training text lacks have the configured probability.

    Args:
        builder: lexicon and topology of the stage.
        texts: the transcript of every utterance, by id.
        training: the transcripts that the bigram and the closed vocabulary come from.
        phone_model: gives the phone n-gram's graph, for labels of CTC.
        config: scales.
    """

    def __init__(
        self,
        builder: AutomatonBuilder,
        *,
        texts: Mapping[str, str],
        training: Sequence[str],
        phone_model: Callable[[], Fsa],
        config: DecodingConfig,
    ) -> None:
        self._builder = builder
        self._texts = texts
        self._training = training
        self._config = config
        self._phone_model = phone_model
        self._phone_loop = None if isinstance(builder.topology, CtcTopology) else phone_loop(builder)

    def phones(self, scored: ScoredSet) -> list[list[str]]:
        """The phones decoded for each utterance."""
        if self._phone_loop is not None:
            return _decode(scored, self._phone_loop)
        blank = self._builder.inventory.blank
        labels = self._builder.inventory.labels
        return [
            [labels[column] for column in columns]
            for batch in scored.batches()
            for columns in ctc_greedy(batch.scores, batch.lengths, blank=0 if blank is None else blank)
        ]

    def phone_error_rate(self, scored: ScoredSet) -> ErrorRate:
        """The error rate of `phones` against each word's first pronunciation."""
        references = [reference_phones(self._builder.lexicon, self._texts[tag]) for tag in scored.tags]
        return error_rate(references, self.phones(scored))

    def phone_error_rate_with_model(self, scored: ScoredSet) -> ErrorRate | None:
        """That of the best path through the phone n-gram; None with an HMM, whose labels don't tell whether a phone
        goes on or comes again."""
        if self._phone_loop is not None:
            return None
        labels, blank, model = (
            self._builder.inventory.labels,
            self._builder.inventory.blank,
            self._phone_model(),
        )
        found = []
        for batch in scored.batches():
            path = best_path(batch.scores, batch.lengths, model)
            for columns, length in zip(path.labels, batch.lengths.tolist(), strict=True):
                merged = torch.unique_consecutive(columns[:length]).tolist()
                found.append([labels[column] for column in merged if column != blank])
        references = [reference_phones(self._builder.lexicon, self._texts[tag]) for tag in scored.tags]
        return error_rate(references, found)

    def word_error_rates(self, scored: ScoredSet) -> WordErrorRates:
        """The word error rates with an open and a closed vocabulary."""
        references = [self._texts[tag].split() for tag in scored.tags]
        closed = sorted({word for text in self._training for word in text.split()})
        return WordErrorRates(
            open=error_rate(references, _decode(scored, self._open_loop)),
            closed=error_rate(references, _decode(scored, self._loop(closed))),
        )

    def recognized(self, scored: ScoredSet) -> dict[str, DecodedWords]:
        """The words of each utterance, with their frames and confidences, of the open vocabulary.

        They come out of the lattice within the configured beam; `truncated` says what it dropped.
        """
        beam, found = self._config.beam, dict[str, DecodedWords]()
        for batch in scored.batches():
            decoded = decode_words(
                batch.scores, batch.lengths, self._open_loop, beam=beam, on_infeasible="mask"
            )
            found.update(zip(batch.tags, decoded, strict=True))
        return found

    @cached_property
    def _open_loop(self) -> WordLoop:
        return self._loop(sorted(self._builder.lexicon))

    def _loop(self, words: Sequence[str]) -> WordLoop:
        bigram = witten_bell(
            [text.split() for text in self._training], floor=math.log(self._config.unseen_probability)
        )
        return word_loop(
            self._builder,
            words=words,
            bigram=bigram,
            lm_scale=self._config.lm_scale,
            word_score=self._config.word_score,
        )


def _decode(scored: ScoredSet, loop: WordLoop) -> list[list[str]]:
    found = []
    for batch in scored.batches():
        path = best_path(batch.scores, batch.lengths, loop.fsa)
        found += [loop.words_of(arcs) for arcs in path.arcs]
    return found
