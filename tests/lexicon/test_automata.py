"""Automata of transcripts."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from seqtrain.errors import ArgumentError, LexiconError, OutOfVocabularyError, UnknownSegmentError
from seqtrain.fsa import Silence, Transitions, ctc, rna, word_hmm
from seqtrain.lexicon import AutomatonBuilder, CtcTopology, HmmTopology, Lexicon, Pronunciation, RnaTopology
from seqtrain.reference import full_sum

LEXICON = Lexicon(
    {
        "to": [["T"]],
        "two": [["T", "UW"], Pronunciation(("T", "T"), -0.5)],
        "at": [["AH", "T"]],
    }
)
TOPOLOGY = HmmTopology(
    states_per_phone=2,
    phone=Transitions.from_probabilities(loop=0.6),
    silence=Transitions.from_probabilities(loop=0.8),
    silence_probability=0.25,
)
TRANSCRIPTS = {"a": "to at", "b": "two", "c": "", "d": "at nine at ten nine"}


def test_columns_of_an_hmm() -> None:
    builder = AutomatonBuilder(LEXICON, TOPOLOGY)
    assert builder.inventory.labels == ("[SILENCE]", "AH.0", "AH.1", "T.0", "T.1", "UW.0", "UW.1")
    assert (builder.inventory.silence, builder.inventory.blank) == (0, None)
    one = AutomatonBuilder(LEXICON, HmmTopology(states_per_phone=1))
    assert one.inventory.labels == ("[SILENCE]", "AH", "T", "UW")


def test_an_hmm_is_the_topology_of_its_pronunciations() -> None:
    builder = AutomatonBuilder(LEXICON, TOPOLOGY, TRANSCRIPTS)
    wanted = word_hmm(
        [
            [[(0.0, [2])], [(0.0, [1, 2])]],
            [[(0.0, [2, 3]), (-0.5, [2, 2])]],
            [],
        ],
        columns=[[0], [1, 2], [3, 4], [5, 6]],
        transitions=TOPOLOGY.phone,
        silence=Silence.from_probabilities((0,), probability=0.25, transitions=TOPOLOGY.silence),
    )
    batch = builder.automata(["a", "b", "c"])
    assert batch.tags == ("a", "b", "c")
    assert [fsa.equal(other) for fsa, other in zip(batch, wanted, strict=True)] == [True] * 3
    assert all(builder.build(TRANSCRIPTS[tag]).equal(fsa) for tag, fsa in zip("abc", batch, strict=True))


def test_silence_at_the_edges() -> None:
    quiet = AutomatonBuilder(LEXICON, HmmTopology(1, silence_probability=0.0))
    assert 0 not in quiet.build("to at").arcs[:, 2]
    edges = AutomatonBuilder(LEXICON, HmmTopology(1, silence_probability=0.0, edge_silence_probability=1.0))
    # Silence is certain before the first word and after the last, impossible between them.
    scores = np.zeros((5, 4))
    assert edges.build("to at").min_length() == 5
    assert full_sum(scores, edges.build("to at")) == pytest.approx(0.0, abs=1e-6)


def test_without_silence() -> None:
    lexicon = Lexicon({"to": [["T"]]}, silence=None)
    builder = AutomatonBuilder(lexicon, HmmTopology(states_per_phone=1, silence_probability=0.0))
    assert (builder.inventory.labels, builder.inventory.silence) == (("T",), None)
    assert builder.build("to to").min_length() == 2
    with pytest.raises(LexiconError, match="no phoneme for it; name one with silence="):
        AutomatonBuilder(lexicon, HmmTopology())


def test_ctc_is_the_topology_of_its_phones() -> None:
    builder = AutomatonBuilder(LEXICON, CtcTopology(), {"a": "to to at", "c": ""})
    assert builder.inventory.labels == ("<blank>", "AH", "T", "UW")
    assert (builder.inventory.silence, builder.inventory.blank) == (None, 0)
    wanted = ctc(torch.tensor([[2, 2, 1, 2], [0, 0, 0, 0]]), torch.tensor([4, 0]))
    batch = builder.automata(["a", "c"])
    assert all(fsa.equal(other) for fsa, other in zip(batch, wanted, strict=True))


def test_ctc_sums_over_pronunciation_variants() -> None:
    builder = AutomatonBuilder(LEXICON, CtcTopology())
    scores = np.random.default_rng(1).normal(size=(9, 4))
    sequences = {
        (2, 3, 1, 2, 2, 3): 0.0,
        (2, 2, 1, 2, 2, 3): -0.5,
        (2, 3, 1, 2, 2, 2): -0.5,
        (2, 2, 1, 2, 2, 2): -1.0,
    }
    each = []
    for labels, weight in sequences.items():
        alone = ctc(torch.tensor([labels]), torch.tensor([len(labels)]))[0]
        each.append(weight + full_sum(scores, alone))
    assert full_sum(scores, builder.build("two at two")) == pytest.approx(np.logaddexp.reduce(each), rel=1e-6)


def test_rna_is_the_topology_of_its_phones() -> None:
    builder = AutomatonBuilder(LEXICON, RnaTopology(), {"a": "to to at", "c": ""})
    assert builder.inventory == AutomatonBuilder(LEXICON, CtcTopology()).inventory
    wanted = rna(torch.tensor([[2, 2, 1, 2], [0, 0, 0, 0]]), torch.tensor([4, 0]))
    batch = builder.automata(["a", "c"])
    assert all(fsa.equal(other) for fsa, other in zip(batch, wanted, strict=True))
    with pytest.raises(ArgumentError, match="states of RNA stand for no phone"):
        builder.states_of(["to"])


def test_rna_sums_over_pronunciation_variants() -> None:
    builder = AutomatonBuilder(LEXICON, RnaTopology())
    scores = np.random.default_rng(2).normal(size=(8, 4))
    each = []
    for first, second in itertools.product(LEXICON["two"], repeat=2):
        spelled = [*first.phonemes, "AH", "T", *second.phonemes]
        labels = [builder.inventory.index(phoneme) for phoneme in spelled]
        alone = rna(torch.tensor([labels]), torch.tensor([len(labels)]))[0]
        each.append(first.log_weight + second.log_weight + full_sum(scores, alone))
    assert len(each) == 4
    assert full_sum(scores, builder.build("two at two")) == pytest.approx(np.logaddexp.reduce(each), rel=1e-6)


def test_a_blank_of_the_lexicon_keeps_its_place() -> None:
    lexicon = Lexicon({"to": [["T"]]}, phonemes=["T", "B"], blank="B", silence=None)
    builder = AutomatonBuilder(lexicon, CtcTopology())
    assert (builder.inventory.labels, builder.inventory.blank) == (("T", "B"), 1)
    hmm = AutomatonBuilder(lexicon, HmmTopology(states_per_phone=1, silence_probability=0.0))
    assert hmm.inventory.labels == ("T",)


def test_unknown_words_are_all_named() -> None:
    builder = AutomatonBuilder(LEXICON, TOPOLOGY, TRANSCRIPTS)
    with pytest.raises(
        OutOfVocabularyError, match="utterance 'd': not in the lexicon: 'nine', 'ten'"
    ) as caught:
        builder.automata(["a", "d"])
    assert (caught.value.words, caught.value.word, caught.value.utterance) == (("nine", "ten"), "nine", "d")
    with pytest.raises(OutOfVocabularyError, match=r"^not in the lexicon: 'ten'$"):
        builder.build("ten to")
    with pytest.raises(UnknownSegmentError, match="no transcript of utterance 'x' among 4") as unknown:
        builder.automata(["a", "x"])
    assert unknown.value.utterance == "x"
    with pytest.raises(UnknownSegmentError, match="among 0"):
        AutomatonBuilder(LEXICON, TOPOLOGY).automata(["a"])
    with pytest.raises(ArgumentError, match="1 tags for 2 texts"):
        builder.build_batch(["to", "at"], tags=["a"])


def test_words_without_labels_are_refused() -> None:
    lexicon = Lexicon({"hm": [["[SILENCE]"]]})
    assert AutomatonBuilder(lexicon, HmmTopology()).build("hm").min_length() == 1
    with pytest.raises(LexiconError, match=r"word 'hm' is pronounced with '\[SILENCE\]', which has no label"):
        AutomatonBuilder(lexicon, CtcTopology())


def test_the_digest_tells_configurations_apart() -> None:
    builders = [
        AutomatonBuilder(LEXICON, TOPOLOGY, TRANSCRIPTS),
        AutomatonBuilder(LEXICON, TOPOLOGY),
        AutomatonBuilder(LEXICON, TOPOLOGY, {**TRANSCRIPTS, "a": "at"}),
        AutomatonBuilder(LEXICON, CtcTopology(), TRANSCRIPTS),
        AutomatonBuilder(LEXICON, RnaTopology(), TRANSCRIPTS),
        AutomatonBuilder(LEXICON.normalized(), TOPOLOGY, TRANSCRIPTS),
        AutomatonBuilder(LEXICON, HmmTopology(2, phone=Transitions(skip=-math.inf, loop=-1.0)), TRANSCRIPTS),
    ]
    assert len({builder.digest for builder in builders}) == len(builders)
    assert (
        AutomatonBuilder(LEXICON, TOPOLOGY, dict(reversed(TRANSCRIPTS.items()))).digest == builders[0].digest
    )


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"states_per_phone": 0}, "states_per_phone"),
        ({"silence_probability": 1.5}, "silence_probability"),
        ({"edge_silence_probability": -0.1}, "edge_silence_probability"),
        ({"silence_probability": math.nan}, "silence_probability"),
    ],
)
def test_malformed_topologies(options: dict[str, float], argument: str) -> None:
    with pytest.raises(ArgumentError, match=f"{argument} must be") as caught:
        HmmTopology(**options)
    assert caught.value.argument == argument
