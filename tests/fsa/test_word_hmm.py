"""Word sequences: variants, silence, weights; against RASR's automata and by enumeration."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from seqtrain.errors import ArgumentError, LabelError
from seqtrain.fsa import Fsa, FsaBatch, Silence, Transitions, Word, hmm, word_hmm, word_hmm_states
from seqtrain.reference import enumerate_paths, full_sum

RASR = Path(__file__).parents[1] / "data" / "rasr"
PHONES = ["NOISE", "AA", "B", "D", "EH", "IY", "K", "N", "OW", "S", "T"]
LEXICON = {
    "one": ["B AA N"], "two": ["T OW"], "see": ["S IY"], "dot": ["D AA T", "D OW T"], "ten": ["T EH N"],
    "oh": ["OW"], "nab": ["N AA B"], "bob": ["B AA B"], "sees": ["S IY S"],
}  # fmt: skip
TRANSCRIPTS = {
    "toy/rec1/seg1": "one two",
    "toy/rec1/seg2": "oh",
    "toy/rec2/seg1": "dot see sees",
    "toy/rec2/seg2": "bob bob",
    "toy/rec3/seg2": "ten dot nab one two oh see",
}
SILENCE = Transitions(loop=-0.1, forward=-2.5)
SPEECH = Transitions(loop=-0.7, forward=-0.4)
COLUMNS = [[1 + 3 * phone + k for k in range(3)] for phone in range(len(PHONES))]


def words(transcript: str) -> list[Word]:
    return [
        [(0.0, [PHONES.index(phone) for phone in variant.split()]) for variant in LEXICON[word]]
        for word in transcript.split()
    ]


def exported(variant: str, segment: str) -> Fsa:
    data = np.load(RASR / "automata.npz")
    edges, weights = data[f"{variant}|{segment}|edges"], data[f"{variant}|{segment}|weights"]
    return Fsa(edges.T.astype(np.int64), -weights)


@pytest.mark.parametrize(
    ("variant", "choice", "segment"),
    [("mono3", 0.0, segment) for segment in TRANSCRIPTS]
    + [("mono3_normlem", -math.log(2), segment) for segment in ("toy/rec1/seg1", "toy/rec2/seg1")],
)
def test_agrees_with_rasr_but_for_leaving_the_last_state(variant: str, choice: float, segment: str) -> None:
    utterances = [words(TRANSCRIPTS[segment])]
    silence = Silence((0,), SILENCE, present=choice, absent=choice)
    batch = word_hmm(utterances, columns=COLUMNS, transitions=SPEECH, silence=silence)
    # RASR doesn't charge the forward weight at the end of the utterance.
    is_silence = (
        word_hmm_states(utterances, columns=COLUMNS, silence=silence).word[batch.final_states.long()] == -1
    )
    forward = torch.where(is_silence, SILENCE.forward, SPEECH.forward)
    fsa = batch.with_weights(batch.weights, batch.final_weights - forward)[0]
    theirs = exported(variant, segment)
    assert fsa.min_length() == theirs.min_length()
    random = np.random.default_rng(0)
    for frames in (fsa.min_length(), fsa.min_length() + 1, fsa.min_length() + 30):
        scores = random.normal(scale=2.0, size=(frames, 34))
        assert full_sum(scores, fsa) == pytest.approx(full_sum(scores, theirs), abs=2e-4)


def test_hmm_is_the_case_of_one_word() -> None:
    kind = Transitions(loop=-1.0, forward=-2.0, skip=-3.0)
    word: list[Word] = [[(0.0, [4, 1, 1])]]
    one = word_hmm([word, []], states_per_phone=3, transitions=kind)
    batch = hmm([[4, 1, 1], [0, 0, 0]], [3, 0], states_per_label=3, transitions=kind)
    assert one[0].equal(batch[0])
    assert one[1].equal(batch[1])


def paths(fsa: Fsa, frames: int) -> dict[tuple[int, ...], float]:
    found = {path.labels: path.score for path in enumerate_paths(np.zeros((frames, 12)), fsa)}
    assert len(found) == sum(1 for _ in enumerate_paths(np.zeros((frames, 12)), fsa))
    return found


def test_what_paths_pay() -> None:
    silence = Silence(
        (9, 10),
        Transitions(loop=-0.01, forward=-0.02),
        present=-0.1,
        absent=-0.2,
        edge_present=-0.3,
        edge_absent=-0.4,
    )
    utterance: list[Word] = [[(-1.0, [1, 2]), (-2.0, [3])], [(-4.0, [5])]]
    kind = Transitions(loop=-10.0, forward=-20.0)
    fsa = word_hmm([utterance], transitions=kind, silence=silence)[0]
    exactly = paths(fsa, 2)
    assert exactly == pytest.approx({(3, 5): -0.4 - 2.0 - 20.0 - 0.2 - 4.0 - 20.0 - 0.4})
    longer = paths(fsa, 5)
    assert longer[1, 2, 9, 10, 5] == pytest.approx(-0.4 - 1 - 20 - 20 - 0.1 - 0.02 - 0.02 - 4 - 20 - 0.4)
    assert longer[9, 10, 10, 3, 5] == pytest.approx(-0.3 - 0.02 - 0.01 - 0.02 - 2 - 20 - 0.2 - 4 - 20 - 0.4)
    assert longer[3, 5, 5, 9, 10] == pytest.approx(-0.4 - 2 - 20 - 0.2 - 4 - 10 - 20 - 0.3 - 0.02 - 0.02)
    assert (9, 10, 9, 3, 5) not in longer, "silence is taken once at a place"


def test_without_words_there_is_silence_or_nothing() -> None:
    silence = Silence((9,), Transitions(loop=-0.5, forward=-0.25), edge_present=-1.0, edge_absent=-2.0)
    fsa = word_hmm([[]], silence=silence)[0]
    assert paths(fsa, 0) == {(): -2.0}
    assert paths(fsa, 2) == {(9, 9): -1.75}
    assert word_hmm([[]])[0].min_length() == 0


def test_skips_stay_inside_a_pronunciation() -> None:
    kind = Transitions(loop=-math.inf, forward=0.0, skip=0.0)
    fsa = word_hmm([[[(0.0, [0, 1])], [(0.0, [2])]]], states_per_phone=2, transitions=kind)[0]
    found = {labels for frames in range(7) for labels in paths(fsa, frames)}
    assert found == {(0, 1, 2, 3, 4, 5), (0, 2, 3, 4, 5), (0, 1, 3, 4, 5)}


def test_all_weights_are_normalised() -> None:
    kind = Transitions.from_probabilities(loop=0.3)
    silence = Silence.from_probabilities(
        (9,), probability=0.3, edge_probability=0.8, transitions=Transitions.from_probabilities(loop=0.6)
    )
    utterance: list[Word] = [
        [(math.log(0.25), [1, 2]), (math.log(0.75), [3])],
        [(math.log(0.5), [3, 3]), (math.log(0.5), [1])],
    ]
    fsa = word_hmm([utterance], states_per_phone=1, transitions=kind, silence=silence)[0]
    total = sum(math.exp(full_sum(np.zeros((frames, 10)), fsa)) for frames in range(80))
    assert total == pytest.approx(1.0, abs=1e-6)


def test_a_batch_is_its_utterances_one_by_one() -> None:
    utterances = [words(transcript) for transcript in TRANSCRIPTS.values()]
    utterances.insert(2, [])

    def build(some: list[list[Word]]) -> FsaBatch:
        return word_hmm(some, columns=COLUMNS, transitions=SPEECH, silence=Silence((0,), SILENCE))

    for fsa, utterance in zip(build(utterances), utterances, strict=True):
        assert fsa.equal(build([utterance])[0])
    assert len(build([])) == 0


def test_states_are_told() -> None:
    utterances: list[list[Word]] = [[[(0.0, [4]), (0.0, [5, 6])]], []]
    states = word_hmm_states(utterances, states_per_phone=2, silence=Silence((0, 1)))
    assert states.offsets.tolist() == [0, 11, 14]
    assert states.word.tolist() == [-1, -1, -1, 0, 0, 0, 0, 0, 0, -1, -1, -1, -1, -1]
    assert states.variant.tolist() == [-1, -1, -1, 0, 0, 1, 1, 1, 1, -1, -1, -1, -1, -1]
    assert states.phone.tolist() == [-1, -1, -1, 0, 0, 0, 0, 1, 1, -1, -1, -1, -1, -1]
    assert states.state.tolist() == [-1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, -1, 0, 1]


def test_states_agree_with_the_labels_of_the_arcs() -> None:
    utterances = [words(TRANSCRIPTS["toy/rec2/seg1"]), words("bob")]
    silence = Silence((0,))
    batch = word_hmm(utterances, columns=COLUMNS, silence=silence)
    states = word_hmm_states(utterances, columns=COLUMNS, silence=silence)
    for index, fsa in enumerate(batch):
        rows = slice(*states.offsets[index : index + 2].tolist())
        columns = [getattr(states, name)[rows].tolist() for name in ("word", "variant", "phone", "state")]
        described = list(zip(*columns, strict=True))
        assert len(described) == fsa.num_states
        for _, state, label in fsa.arcs.tolist():
            word, variant, phone, k = described[state]
            assert label == (0 if word < 0 else COLUMNS[utterances[index][word][variant][1][phone]][k])


REFUSED: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: word_hmm([[[(0.0, [1])], []]]), ArgumentError, "utterance 0, word 1 has no pronunciation"),
    (lambda: word_hmm([[], [[(0.0, [])]]]), ArgumentError, "utterance 1, word 0, variant 0 has no phones"),
    (lambda: word_hmm([[[(math.nan, [1])]]]), ArgumentError, "variant 0 has the weight nan"),
    (
        lambda: word_hmm([[], [[(0.0, [0])], [(0.0, [0]), (0.0, [0, 7])]]], columns=[[0], [1]]),
        LabelError,
        "utterance 1, word 1, variant 1: label 7 must be one of the 2",
    ),
    (
        lambda: word_hmm([[[(0.0, [-1])]]]),
        LabelError,
        "utterance 0, word 0, variant 0: label -1 must be 0 or more",
    ),
    (lambda: word_hmm([], states_per_phone=0), ArgumentError, "states_per_phone must be at least 1"),
    (lambda: Silence(()), ArgumentError, "columns must be the silence's columns"),
    (lambda: Silence((0,), edge_absent=math.nan), ArgumentError, "edge_absent must be a log weight"),
    (
        lambda: Silence.from_probabilities((0,), probability=2.0),
        ArgumentError,
        "probability must be a probability",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_refuses(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
