"""The word loops against oracles that enumerate: label paths for CTC, word sequences and their automata for HMMs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from seqtrain import reference
from seqtrain.decoding import Bigram, WordLoop, ctc_greedy, phone_loop, witten_bell, word_loop
from seqtrain.decoding.splice import Gap, WordAcceptor, splice_loop
from seqtrain.errors import ArgumentError, OutOfVocabularyError
from seqtrain.fsa import Fsa, Transitions
from seqtrain.lexicon import AutomatonBuilder, CtcTopology, HmmTopology, Lexicon, Pronunciation

# Equal neighbours inside a word and across words, a word that begins another one, variants, homophones.
LEXICON = Lexicon(
    {
        "a": ["A"],
        "ab": ["AB"],
        "baa": [Pronunciation(("B", "A", "A"), -0.3), Pronunciation(("B",), -1.2)],
        "b": ["B"],
    },
    silence="si",
)
TEXT = [["a", "ab"], ["ab", "baa", "a"], ["baa", "baa"], ["a"]]
LM_SCALE, WORD_SCORE = 1.5, -0.25
HMM = HmmTopology(
    states_per_phone=1,
    phone=Transitions.from_probabilities(loop=0.6),
    silence=Transitions.from_probabilities(loop=0.8),
    silence_probability=0.3,
    edge_silence_probability=0.9,
)


def language(words: tuple[str, ...], bigram: Bigram | None) -> float:
    return LM_SCALE * bigram.score(words) + WORD_SCORE * len(words) if bigram else WORD_SCORE * len(words)


def found(loop: WordLoop, scores: torch.Tensor) -> tuple[float, tuple[str, ...]]:
    best = reference.best_path(scores.numpy(), loop.fsa)
    return best.score, tuple(loop.words_of(torch.as_tensor(best.arcs)))


def readings(phones: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], float]]:
    """Every way to read phones as words, with the weight of the pronunciations."""
    if not phones:
        yield (), 0.0
    for word, variants in LEXICON.items():
        for variant in variants:
            if phones[: len(variant.phonemes)] == variant.phonemes:
                for words, weight in readings(phones[len(variant.phonemes) :]):
                    yield (word, *words), variant.log_weight + weight


def ctc_oracle(
    scores: torch.Tensor, labels: tuple[str, ...], bigram: Bigram | None
) -> tuple[float, tuple[str, ...]]:
    best: tuple[float, tuple[str, ...]] = (-math.inf, ())
    for path in itertools.product(range(scores.shape[1]), repeat=scores.shape[0]):
        acoustic = sum(float(scores[t, label]) for t, label in enumerate(path))
        phones = tuple(labels[label] for label, _ in itertools.groupby(path) if label != 0)
        for words, weight in readings(phones):
            best = max(best, (acoustic + weight + language(words, bigram), words))
    return best


@pytest.mark.parametrize("with_bigram", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_ctc_equals_the_enumeration_of_label_paths(with_bigram: bool, seed: int) -> None:
    torch.manual_seed(seed)
    scores = torch.randn(seed % 6 + 1, 3, dtype=torch.float64) * 3
    bigram = witten_bell(TEXT, floor=-3.0) if with_bigram else None
    builder = AutomatonBuilder(LEXICON, CtcTopology())
    loop = word_loop(builder, bigram=bigram, lm_scale=LM_SCALE, word_score=WORD_SCORE)
    score, words = found(loop, scores)
    expected_score, expected_words = ctc_oracle(scores, builder.inventory.labels, bigram)
    assert score == pytest.approx(expected_score, abs=1e-5)
    assert words == expected_words


@pytest.mark.parametrize(
    "topology",
    [
        HMM,
        replace(HMM, silence_probability=0.0, edge_silence_probability=0.0),
        replace(HMM, silence_probability=0.0, edge_silence_probability=1.0),
        replace(HMM, states_per_phone=2, phone=Transitions.from_probabilities(loop=0.5, skip=0.2)),
    ],
    ids=["silence", "no-silence", "edge-silence-only", "two-states"],
)
@pytest.mark.parametrize("seed", range(8))
def test_hmm_equals_the_best_automaton_of_all_word_sequences(topology: HmmTopology, seed: int) -> None:
    torch.manual_seed(seed)
    bigram = witten_bell(TEXT, floor=-3.0) if seed % 2 else None
    builder = AutomatonBuilder(LEXICON, topology)
    frames = 2 + seed % 4
    scores = torch.randn(frames, len(builder.inventory), dtype=torch.float64) * 3
    expected: tuple[float, tuple[str, ...]] = (-math.inf, ())
    for count in range(frames + 1):
        for words in itertools.product(LEXICON, repeat=count):
            automaton = builder.build(" ".join(words))
            if 0 <= automaton.min_length() <= frames:
                acoustic = reference.best_path(scores.numpy(), automaton).score
                expected = max(expected, (acoustic + language(words, bigram), words))
    loop = word_loop(builder, bigram=bigram, lm_scale=LM_SCALE, word_score=WORD_SCORE)
    score, words = found(loop, scores)
    assert score == pytest.approx(expected[0], abs=1e-5)
    if expected[0] > -math.inf:
        assert words == expected[1]


@pytest.mark.parametrize("seed", range(5))
def test_ctc_phone_loop_without_language_model_is_greedy(seed: int) -> None:
    torch.manual_seed(seed)
    builder = AutomatonBuilder(LEXICON, CtcTopology())
    scores = torch.randn(1, 9, 3)
    (labels,) = ctc_greedy(scores, torch.tensor([9]))
    assert found(phone_loop(builder), scores[0])[1] == tuple(builder.inventory.labels[i] for i in labels)


def test_hmm_phone_loop_reads_a_clear_state_sequence() -> None:
    builder = AutomatonBuilder(LEXICON, replace(HMM, states_per_phone=2))
    labels = builder.inventory.labels
    said = ["si", "A.0", "A.0", "A.1", "A.0", "A.1", "B.0", "B.1", "B.1", "si", "si", "B.0", "B.1"]
    scores = torch.full((len(said), len(labels)), -9.0)
    scores[range(len(said)), [labels.index(s) for s in said]] = 0.0
    assert found(phone_loop(builder), scores)[1] == ("A", "A", "B", "B")


def test_only_words_of_the_vocabulary_are_found() -> None:
    builder = AutomatonBuilder(LEXICON, CtcTopology())
    scores = torch.tensor([[0.0, 0.0, 5.0]])
    loop = word_loop(builder, words=["a", "baa", "a"])
    assert loop.words == ("a", "baa")
    assert found(loop, scores)[1] == ("baa",)


def test_bad_arguments_are_named() -> None:
    builder = AutomatonBuilder(LEXICON, CtcTopology())
    with pytest.raises(OutOfVocabularyError, match="not in the lexicon: 'c'") as caught:
        word_loop(builder, words=["a", "c"])
    assert caught.value.words == ("c",)
    with pytest.raises(ArgumentError, match="at least one pronunciation"):
        word_loop(builder, words=[])
    with pytest.raises(ArgumentError, match="lm_scale must be positive, got 0"):
        word_loop(builder, lm_scale=0.0)
    with pytest.raises(ArgumentError, match="<s> and </s> are the sentence's boundaries"):
        word_loop(AutomatonBuilder(Lexicon({"</s>": ["A"]}), CtcTopology()))


def test_acceptors_that_cannot_be_spliced_are_named() -> None:
    with pytest.raises(ArgumentError, match="the pronunciation of 'a' accepts zero frames"):
        splice_loop([WordAcceptor("a", Fsa([[0, 1, 1]], final={0: 0.0, 1: 0.0}))])
    with pytest.raises(ArgumentError, match="the gap has an arc back into its start state"):
        splice_loop([WordAcceptor("a", Fsa([[0, 1, 1]]))], gap=Gap(Fsa([[0, 0, 0], [0, 1, 0]])))


@pytest.mark.parametrize("topology", [CtcTopology(), HMM])
def test_decoding_a_batch_reads_each_utterance_alone(topology: CtcTopology | HmmTopology) -> None:
    torch.manual_seed(0)
    builder = AutomatonBuilder(LEXICON, topology)
    loop = word_loop(builder, bigram=witten_bell(TEXT))
    scores = torch.randn(40, 8, len(builder.inventory))
    lengths = torch.randint(1, 9, (40,))
    expected = [list(found(loop, scores[b, :n])[1]) for b, n in enumerate(lengths.tolist())]
    assert loop.decode(scores, lengths) == expected
    assert loop.decode(scores[:0], lengths[:0]) == []
