"""Word loops and phone loops with the topology of an `AutomatonBuilder`: what was trained is what is decoded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from seqtrain.decoding.bigram import Bigram
from seqtrain.decoding.splice import Gap, WordAcceptor, WordLoop, splice_loop
from seqtrain.decoding.splice_lm import splice_lm
from seqtrain.decoding.symbols import SymbolTable
from seqtrain.errors import LexiconError
from seqtrain.fsa import Fsa, Silence, hmm
from seqtrain.lexicon import AutomatonBuilder, HmmTopology

__all__ = ["lexicon_graph", "phone_loop", "word_loop"]


def word_loop(
    builder: AutomatonBuilder,
    *,
    words: Iterable[str] | None = None,
    bigram: Bigram | None = None,
    lm_scale: float = 1.0,
    word_score: float = 0.0,
) -> WordLoop:
    """The loop over words: CTC or HMM, with the pronunciations, transitions and silence of `builder`.

    Args:
        builder: lexicon and topology; the columns of the scores are its `inventory`.
        words: the vocabulary; None is the whole lexicon. A word may stand there twice.
        bigram: the language model; None gives every word and the end the weight 0. Words that it holds and the
            vocabulary doesn't can't be recognized; words that it never saw cost its floor.
        lm_scale: factor on the language model's log probabilities, positive.
        word_score: added at each word (positive favours many short words).

    Raises:
        OutOfVocabularyError: the lexicon lacks one of `words`.
        ArgumentError: no word, `lm_scale` not above 0, or a word named like a sentence boundary.
    """
    vocabulary = list(builder.lexicon if words is None else dict.fromkeys(words))
    pronunciations = [
        WordAcceptor(word, _acceptor(builder, phones), weight)
        for word in vocabulary
        for weight, phones in builder.variants(word)
    ]
    return _loop(builder, pronunciations, bigram, lm_scale, word_score)


def lexicon_graph(
    builder: AutomatonBuilder,
    lm: Fsa,
    symbols: SymbolTable,
    *,
    lm_scale: float = 1.0,
    word_score: float = 0.0,
) -> WordLoop:
    """Lexicon ∘ LM: the paths of a language model over words, each word spelled as `builder` has it.

    Args:
        builder: lexicon and topology; the columns of the scores are its `inventory`.
        lm: an acceptor of words: its labels are ids of `symbols`, its weights log probabilities; no epsilon.
        symbols: the words of the ids.
        lm_scale: factor on the language model's weights, positive.
        word_score: added at each word (positive favours many short words).

    Raises:
        OutOfVocabularyError: the lexicon lacks a word of the language model.
        ArgumentError: a label of the language model isn't in `symbols`, or `lm_scale` isn't above 0.
    """
    used = [symbols[i] for i in torch.unique(lm.arcs[:, 2]).tolist()]
    pronunciations = [
        WordAcceptor(word, _acceptor(builder, phones), weight)
        for word in used
        for weight, phones in builder.variants(word)
    ]
    is_ctc = not isinstance(builder.topology, HmmTopology)
    return splice_lm(
        pronunciations,
        lm,
        symbols,
        lm_scale=lm_scale,
        word_score=word_score,
        gap=_blanks(_blank(builder)) if is_ctc else _silence(builder.silence),
        separate_repeats=is_ctc,
    )


def phone_loop(
    builder: AutomatonBuilder,
    *,
    bigram: Bigram | None = None,
    lm_scale: float = 1.0,
    phone_score: float = 0.0,
) -> WordLoop:
    """The loop over the phonemes of the lexicon, without silence and blank; its "words" are phonemes.

    `bigram` is over phonemes. With CTC and without a bigram, the best path is that of `ctc_greedy`.

    Raises:
        ArgumentError: no phoneme, or `lm_scale` not above 0.
    """
    lexicon = builder.lexicon
    phonemes = [phoneme for phoneme in lexicon.phonemes if phoneme not in (lexicon.silence, lexicon.blank)]
    number = builder.phoneme_numbers
    acceptors = [WordAcceptor(phoneme, _acceptor(builder, [number[phoneme]])) for phoneme in phonemes]
    return _loop(builder, acceptors, bigram, lm_scale, phone_score)


def _loop(
    builder: AutomatonBuilder,
    pronunciations: Sequence[WordAcceptor],
    bigram: Bigram | None,
    lm_scale: float,
    word_score: float,
) -> WordLoop:
    is_ctc = not isinstance(builder.topology, HmmTopology)
    return splice_loop(
        pronunciations,
        bigram=bigram,
        lm_scale=lm_scale,
        word_score=word_score,
        gap=_blanks(_blank(builder)) if is_ctc else _silence(builder.silence),
        separate_repeats=is_ctc,
    )


def _acceptor(builder: AutomatonBuilder, phones: Sequence[int]) -> Fsa:
    if isinstance(builder.topology, HmmTopology):
        return hmm([phones], [len(phones)], columns=builder.columns, transitions=builder.topology.phone)[0]
    return _ctc_phones([builder.columns[phone][0] for phone in phones], _blank(builder))


def _blank(builder: AutomatonBuilder) -> int:
    if builder.inventory.blank is None:
        raise LexiconError("CTC needs a blank")
    return builder.inventory.blank


def _blanks(blank: int) -> Gap:
    return Gap(Fsa(torch.tensor([[0, 1, blank], [1, 1, blank]])))


def _silence(silence: Silence | None) -> Gap | None:
    if silence is None:
        return None
    present, absent = silence.choice(edge=False)
    edge_present, edge_absent = silence.choice(edge=True)
    acceptor = hmm([[0]], [1], columns=[silence.columns], transitions=silence.transitions)[0]
    return Gap(acceptor, present, absent, edge_present, edge_absent)


def _ctc_phones(labels: Sequence[int], blank: int) -> Fsa:
    """Labels with blanks between them but none around: state 2u - 1 is label u, state 2u the blank behind it."""
    arcs = []
    for u, label in enumerate(labels, start=1):
        state = 2 * u - 1
        arcs += [[state, state, label], [state - 1, state, label]]
        if u > 1:
            arcs += [[state - 2, state - 1, blank], [state - 1, state - 1, blank]]
            if labels[u - 2] != label:
                arcs.append([state - 2, state, label])
    return Fsa(torch.tensor(arcs))
