"""Words by way of a lattice, and graphs of a lexicon and a language model."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

import seqtrain as st
from seqtrain import lattice as lt
from seqtrain.decoding import (
    DecodedWords,
    SymbolTable,
    bigram_acceptor,
    decode_words,
    lexicon_graph,
    witten_bell,
    word_lattice,
    word_loop,
)
from seqtrain.decoding.splice import WordAcceptor
from seqtrain.decoding.splice_lm import splice_lm
from seqtrain.errors import ArgumentError, DataError, InfeasibleError, OutOfVocabularyError
from seqtrain.fsa import Fsa
from seqtrain.lexicon import AutomatonBuilder, CtcTopology
from tests.decoding.test_loops import HMM, LEXICON, LM_SCALE, TEXT, WORD_SCORE

SYMBOLS = SymbolTable({3: "a", 5: "ab", 7: "b", 2: "baa"})
BIGRAM = witten_bell(TEXT, floor=-3.0)


def random_scores(columns: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(4, 7, columns, generator=generator, dtype=torch.float64) * 3
    return scores, torch.tensor([7, 6, 3, 5])


@pytest.mark.parametrize("topology", [CtcTopology(), HMM], ids=["ctc", "hmm"])
@pytest.mark.parametrize("seed", range(5))
def test_lexicon_and_bigram_are_the_word_loop(topology: CtcTopology, seed: int) -> None:
    builder = AutomatonBuilder(LEXICON, topology)
    loop = word_loop(builder, bigram=BIGRAM, lm_scale=LM_SCALE, word_score=WORD_SCORE)
    lm = bigram_acceptor(BIGRAM, SYMBOLS)
    graph = lexicon_graph(builder, lm, SYMBOLS, lm_scale=LM_SCALE, word_score=WORD_SCORE)
    scores, lengths = random_scores(int(loop.fsa.arcs[:, 2].max()) + 1, seed)
    ours = decode_words(scores, lengths, graph)
    theirs = st.best_path(scores, lengths, loop.fsa).score
    np.testing.assert_allclose([words.score for words in ours], theirs, atol=1e-4)
    assert [str(words).split() for words in ours] == loop.decode(scores, lengths)
    assert [str(words) for words in decode_words(scores, lengths, loop)] == [str(words) for words in ours]
    assert all(words.truncated == 0 for words in ours)


def test_a_language_model_with_two_words_of_history() -> None:
    # Sentences of two words out of a and b; "a b" twice as likely as the others, "b b" impossible.
    lm = Fsa([[0, 1, 3], [0, 2, 7], [1, 3, 3], [1, 3, 7], [2, 3, 3]], np.log([1.0, 1.0, 1.0, 2.0, 1.0]))
    builder = AutomatonBuilder(LEXICON, HMM)
    graph = lexicon_graph(builder, lm, SYMBOLS)
    assert graph.words == ("a", "b")
    scores, lengths = random_scores(int(graph.fsa.arcs[:, 2].max()) + 1, 0)
    best = lt.nbest(word_lattice(scores, lengths, graph), 9, unique="aux")
    for found in best.by_utterance(best.aux()):
        said = {tuple(graph.words[i] for i in words) for words in found}
        assert said == {("a", "a"), ("a", "b"), ("b", "a")}
    # The graph is the sum over its sentences' automata, each with the weight of the language model.
    total = st.full_sum(scores, lengths, graph.fsa)
    sentences = []
    for words, weight in ((("a", "a"), 0.0), (("a", "b"), math.log(2)), (("b", "a"), 0.0)):
        batch = builder.build_batch([" ".join(words)] * 4)
        sentences.append(st.full_sum(scores, lengths, batch) + weight)
    np.testing.assert_allclose(total, torch.logsumexp(torch.stack(sentences), 0), atol=1e-5)


def test_times_confidence_and_beam() -> None:
    builder = AutomatonBuilder(LEXICON, CtcTopology())
    loop = word_loop(builder, bigram=BIGRAM)
    scores, lengths = random_scores(3, 1)
    for words, length in zip(decode_words(scores, lengths, loop), lengths.tolist(), strict=True):
        assert all(a.end == b.begin for a, b in itertools.pairwise(words.words))
        assert not words.words or words.words[-1].end == length
        assert all(0 < word.confidence <= 1 for word in words.words)
    narrow = decode_words(scores, lengths, loop, beam=3.0, on_infeasible="mask")
    assert any(words.truncated for words in narrow)
    for words, exact in zip(narrow, decode_words(scores, lengths, loop), strict=True):
        assert words.score <= exact.score + 1e-9
    scaled = decode_words(scores, lengths, loop, acoustic_scale=0.1)
    alone = decode_words(scores * 0.1, lengths, loop)
    assert scaled == alone
    packed = st.Packed(
        torch.cat([row[:n] for row, n in zip(scores, lengths.tolist(), strict=True)]),
        torch.tensor([0, 7, 13, 16, 21]),
    )
    assert decode_words(packed, lengths, loop, acoustic_scale=0.1) == scaled


def test_an_utterance_too_short() -> None:
    lm = Fsa([[0, 1, 5]])
    graph = lexicon_graph(AutomatonBuilder(LEXICON, CtcTopology()), lm, SYMBOLS)
    scores, lengths = torch.zeros(2, 4, 3), torch.tensor([4, 1])
    with pytest.raises(InfeasibleError, match="utterance 1: 1 frames given, needs 2"):
        decode_words(scores, lengths, graph)
    found = decode_words(scores, lengths, graph, on_infeasible="mask")
    assert str(found[0]) == "ab"
    assert found[1] == DecodedWords((), -math.inf, 0)


def test_bad_input() -> None:
    builder = AutomatonBuilder(LEXICON, CtcTopology())
    with pytest.raises(ArgumentError, match="no symbol has the id 9"):
        lexicon_graph(builder, Fsa([[0, 1, 9]]), SYMBOLS)
    with pytest.raises(OutOfVocabularyError, match="zebra"):
        lexicon_graph(builder, Fsa([[0, 1, 0]]), SymbolTable(["zebra"]))
    with pytest.raises(ArgumentError, match="lm_scale must be positive, got 0"):
        lexicon_graph(builder, Fsa([[0, 1, 3]]), SYMBOLS, lm_scale=0)
    with pytest.raises(ArgumentError, match=r"word 'ab' \(id 5\) has no pronunciation"):
        splice_lm([WordAcceptor("a", Fsa([[0, 1, 1]]))], Fsa([[0, 1, 5]]), SYMBOLS)
    with pytest.raises(ArgumentError, match="acoustic_scale must be positive, got -1"):
        decode_words(torch.zeros(1, 1, 3), torch.tensor([1]), word_loop(builder), acoustic_scale=-1)


def test_symbol_tables() -> None:
    text = "<eps> 0\na 3\nb 1\n\n"
    table = SymbolTable.from_text(text)
    assert (table[3], table.id("b"), len(table), "a" in table, "c" in table) == ("a", 1, 3, True, False)
    assert list(table) == ["<eps>", "a", "b"]
    assert SymbolTable.from_text(table.to_text()).to_text() == table.to_text() == "<eps> 0\nb 1\na 3\n"
    for line, message in (
        ("a b c", "line 1 isn't 'symbol id'"),
        ("a -1", "isn't"),
        ("a 1\nb 1", "line 2 gives the id"),
    ):
        with pytest.raises(DataError, match=message):
            SymbolTable.from_text(line)
    for symbols, message in (
        (["a", "a"], "symbol 'a' has two ids, 0 and 1"),
        (["a b"], "holds white space"),
        ([""], "is empty"),
        ({-1: "a"}, "has the id -1"),
    ):
        with pytest.raises(ArgumentError, match=message):
            SymbolTable(symbols)
    with pytest.raises(ArgumentError, match="no symbol 'zebra'"):
        table.id("zebra")
