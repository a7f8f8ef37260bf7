"""Allophones, and labels of frames: from a cache, into one, along paths of our own automata."""

from __future__ import annotations

import gzip
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from seqtrain.align import Transcript, align_words
from seqtrain.align.sprint_cache import (
    DISAMBIGUATOR,
    Allophone,
    Allophones,
    AllophoneState,
    CachedScores,
    SprintAlignment,
    align_for_cache,
    align_phones,
    columns_of,
    frame_labels,
    from_frame_labels,
    from_soft_labels,
    join_id,
    open_archive,
    read_alignment,
    soft_labels,
    split_id,
)
from seqtrain.errors import ArgumentError, DataError, ShapeError
from seqtrain.lexicon import (
    AutomatonBuilder,
    CtcTopology,
    HmmTopology,
    LabelInventory,
    Lexicon,
    read_bliss_lexicon,
)
from tests.fsa.strategies import quick

GOLDENS = Path(__file__).parents[1] / "goldens" / "rasr"
MONO = Allophones.read(GOLDENS / "allophones" / "mono3.txt")
TRI = Allophones.read(GOLDENS / "allophones" / "tri3_notying.txt")
BUILDER = AutomatonBuilder(read_bliss_lexicon(GOLDENS / "setup" / "lexicon.xml"), HmmTopology())
TEXTS = {
    "toy/rec1/seg1": "one two",
    "toy/rec1/seg2": "oh",
    "toy/rec2/seg1": "dot see sees",
    "toy/rec2/seg2": "bob bob",
    "toy/rec3/seg1": "ss tea [NOISE] eat",
    "toy/rec3/seg2": "ten dot nab one two oh see",
}


def cached(name: str) -> dict[str, SprintAlignment]:
    with open_archive(GOLDENS / "align" / f"mono3.{name}.cache") as archive:
        return {segment: read_alignment(archive, segment) for segment in archive}


# Allophones.


def test_rasrs_names_of_its_ids() -> None:
    lines = gzip.decompress((GOLDENS / "align" / "mono3.txt.gz").read_bytes()).decode().splitlines()
    named = {(int(fields[1]), fields[2]) for line in lines if len(fields := line.split()) == 5}
    assert len(named) == 55
    for label, symbol in named:
        assert str(MONO.state(label)) == symbol
        assert MONO.label(AllophoneState.parse(symbol)) == label


def test_lists_of_allophones() -> None:
    assert len(MONO) == 19
    assert str(MONO[0]) == "B{#+#}@i"
    assert MONO[1] == Allophone("AA")
    assert [str(a) for a in MONO[17:]] == ["[SILENCE]{#+#}@i@f", "[NOISE]{#+#}@i@f"]
    assert MONO[17] in MONO
    assert (MONO.has_context, MONO.crosses_words) == (False, False)
    assert (TRI.has_context, TRI.crosses_words) == (True, True)
    assert TRI.phones_without_context == {"[SILENCE]", "[NOISE]"}


@given(index=st.integers(0, (1 << 26) - 1), state=st.integers(0, 15))
@quick
def test_ids(index: int, state: int) -> None:
    label = join_id(index, state)
    assert label == index + (state << 26)
    assert split_id(label) == (index, state)


_phone = st.text(st.characters(codec="utf-8", exclude_characters="{}+"), min_size=1, max_size=4) | st.just(
    "{"
)


@given(
    phone=_phone, left=_phone | st.none(), right=_phone | st.none(), initial=st.booleans(), final=st.booleans(),
    state=st.integers(0, 15),
)  # fmt: skip
@quick
def test_symbols(
    phone: str, left: str | None, right: str | None, initial: bool, final: bool, state: int
) -> None:
    if any("\n" in p or "@" in p for p in (phone, left or "", right or "")):
        return
    allophone = Allophone.of(phone, left, right, initial=initial, final=final)
    assert Allophone.parse(str(allophone)) == allophone
    assert AllophoneState.parse(str(AllophoneState(allophone, state))) == AllophoneState(allophone, state)


def test_what_no_allophone_is() -> None:
    for action, message in (
        (lambda: Allophone.parse("AA"), r"allophone 'AA' isn't of the form phone\{left\+right\}"),
        (
            lambda: AllophoneState.parse("AA{#+#}"),
            "allophone state 'AA{#\\+#}' doesn't end in a dot and a number",
        ),
        (
            lambda: split_id(DISAMBIGUATOR | 3),
            "label 0x40000003 is no allophone state: it has the bit of a disambig",
        ),
        (lambda: split_id(-1), "label -0x1 is no allophone state"),
        (lambda: join_id(1 << 26, 0), "index must be in 0 … 67108863, got 67108864"),
        (lambda: join_id(0, 16), "state must be in 0 … 15, got 16"),
        (
            lambda: MONO.state(19),
            "label 19 is allophone 19, and the list has 19: it belongs to another lexicon",
        ),
        (lambda: MONO.label(AllophoneState(Allophone("X"), 0)), r"there is no allophone X\{#\+#\} among 19"),
        (lambda: Allophones([Allophone("X"), Allophone("X")]), r"allophone X\{#\+#\} stands twice"),
    ):
        with pytest.raises(ArgumentError, match=message):
            action()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "allophones.txt holds no allophone"),
        (b"# Number of allophones: 2\nAA{#+#}\n", "holds 1 allophones, and says that it has 2"),
        (b"# a\n\nAA{#+#}\nAA\n", r"allophones.txt, line 4: allophone 'AA' isn't of the form"),
        (b"AA{#+#}\nB{#+#}\nAA{#+#}\n", r"line 3: allophone AA\{#\+#\} stands in line 1 already"),
        (b"\xff", "can't be read"),
        (None, "can't be read"),
    ],
)
def test_broken_lists(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "allophones.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        Allophones.read(path)
    assert caught.value.path == str(path)


# Labels of frames.


def test_allophone_states_and_emissions_are_the_same_columns() -> None:
    emissions = cached("viterbi_emission")
    for segment, alignment in cached("viterbi").items():
        columns = frame_labels(alignment, columns_of(alignment, BUILDER.inventory, MONO))
        expected = emissions[segment]
        assert columns.dtype == np.int32
        assert columns.tolist() == expected.labels.tolist()
        assert frame_labels(expected, columns_of(expected, BUILDER.inventory)).tolist() == columns.tolist()
        # An alphabet in the cache stands for the list.
        names = {label: str(MONO.state(label)) for label in set(alignment.labels.tolist())}
        named = SprintAlignment(alignment.kind, alignment.times, alignment.labels, alphabet=names)
        assert frame_labels(named, columns_of(named, BUILDER.inventory)).tolist() == columns.tolist()


def test_soft_labels_of_a_baum_welch_alignment() -> None:
    for segment, alignment in cached("bw").items():
        soft = soft_labels(
            alignment, columns_of(alignment, BUILDER.inventory, MONO), num_labels=len(BUILDER.inventory)
        )
        assert soft.dtype == np.float32
        assert soft.shape == (len(cached("viterbi")[segment]), 34)
        assert soft.sum(axis=1) == pytest.approx(1, abs=1e-6)
        # A label that several allophones share gets the weights of all of them.
        assert alignment.weights is not None
        expected = np.zeros(soft.shape)
        for time, label, weight in zip(alignment.times, alignment.labels, alignment.weights, strict=True):
            state = MONO.state(int(label))
            phone = state.allophone.phone
            column = 0 if phone == "[SILENCE]" else BUILDER.inventory.index(f"{phone}.{state.state}")
            expected[time, column] += weight
        assert soft == pytest.approx(expected, abs=1e-6)


def test_labels_of_a_word_end_model() -> None:
    """RASR's monophone-eow: labels of their own at the end of words."""
    inventory = LabelInventory(("[SILENCE].0", "N.0", "N.1", "N.2", "N@eow.0", "N@eow.1", "N@eow.2", "AA"))
    states = ["N{#+#}.1", "N{#+#}@f.1", "[SILENCE]{#+#}@i@f.0", "AA{#+#}@f.0"]
    alignment = SprintAlignment(
        "allophone-state",
        np.arange(4),
        np.arange(4, dtype=np.uint32),
        alphabet=dict(enumerate(states)),
    )
    assert frame_labels(alignment, columns_of(alignment, inventory)).tolist() == [2, 5, 0, 7]


@given(labels=hnp.arrays(np.int32, st.integers(0, 40), elements=st.integers(0, 9)))
@quick
def test_label_paths_round_trip(labels: np.ndarray) -> None:
    inventory = LabelInventory(tuple("abcdefghij"))
    alignment = from_frame_labels(labels)
    assert np.array_equal(frame_labels(alignment, columns_of(alignment, inventory)), labels)
    assert np.array_equal(soft_labels(alignment, lambda label: label, num_labels=10), np.eye(10)[labels])
    ids = np.arange(10)[::-1] * 1000
    other = from_frame_labels(labels, kind="allophone-state", ids=ids)
    assert other.labels.tolist() == [9000 - 1000 * label for label in labels.tolist()]
    assert np.array_equal(frame_labels(other, {int(i): c for c, i in enumerate(ids)}.__getitem__), labels)


@given(
    posteriors=hnp.arrays(
        np.float32, st.tuples(st.integers(0, 6), st.integers(1, 5)), elements=st.floats(2.0**-20, 1, width=32)
    )
)
@quick
def test_soft_labels_round_trip(posteriors: np.ndarray) -> None:
    posteriors = posteriors / posteriors.sum(axis=1, keepdims=True)
    again = soft_labels(from_soft_labels(posteriors), lambda label: label, num_labels=posteriors.shape[1])
    assert again == pytest.approx(posteriors, abs=1e-6)


def test_small_posteriors_can_be_left_out() -> None:
    posteriors = np.array([[0.2, 0.7, 0.1], [0.1, 0.1, 0.8], [0.0, 0.0, 0.0]])
    alignment = from_soft_labels(posteriors, least=0.15, ids=np.array([5, 6, 7]))
    assert alignment.times.tolist() == [0, 0, 1, 2]
    assert alignment.labels.tolist() == [5, 6, 7, 5]
    with pytest.raises(DataError, match="the weights of frame 2 are all 0"):
        soft_labels(alignment, lambda label: label - 5, num_labels=3)


def made(times: list[int], labels: list[int], *, kind: str = "emission") -> SprintAlignment:
    return SprintAlignment(kind, np.array(times, dtype=np.int64), np.array(labels, dtype=np.uint32))  # type: ignore[arg-type]


def test_alignments_without_labels_of_frames() -> None:
    inventory = LabelInventory(("a", "b"))
    states = made([0], [1], kind="allophone-state")
    for alignment, allophones, message in (
        (made([0, 2], [0, 0]), None, "frame 1 has no label"),
        (made([1], [0]), None, "frame 0 has no label"),
        (made([0, 1, 1, 2], [0, 0, 0, 0]), None, "frame 1 has several labels"),
        (made([0, 1], [0, 2]), None, "label 2 is no column: there are 2"),
        (made([0], [DISAMBIGUATOR], kind="allophone-state"), MONO, "has the bit of a disambiguator"),
        (made([0], [19], kind="allophone-state"), MONO, "label 19 is allophone 19, and the list has 19"),
        (states, MONO, r"allophone state AA\{#\+#\}\.0: there is no label 'AA\.0' or 'AA' among 2"),
        (SprintAlignment(states.kind, states.times, states.labels, alphabet={}), None, "isn't one of the 0 that the"),
        (from_soft_labels(np.ones((1, 1))), None, "is weighted, it has no single label for a frame; see soft_labels"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=message) as caught:
            frame_labels(alignment, columns_of(alignment, inventory, allophones), path="a.cache", name="x")
        assert str(caught.value).startswith("archive a.cache, entry 'x': ")
        assert (caught.value.path, caught.value.utterance) == ("a.cache", "x")
    for alignment, columns, message in (
        (made([0, 2], [0, 0]), {0: 0}, "frame 1 has no label"),
        (made([0], [5]), {0: 0}, "label 5 has no column"),
        (made([0], [0]), {0: 7}, "a label has the column 7, and there are 2"),
        (made([0], [0]), {0: -1}, "label 0 has the column -1"),
    ):
        with pytest.raises(DataError, match=message):
            soft_labels(alignment, columns.__getitem__, num_labels=2)
    with pytest.raises(ArgumentError, match="mean nothing without allophones, the list that they count"):
        columns_of(states, inventory)


def test_what_no_label_path_is() -> None:
    with pytest.raises(ShapeError, match=r"labels must be \(T,\), got \(1, 2\)"):
        from_frame_labels(np.zeros((1, 2), dtype=np.int32))
    with pytest.raises(ArgumentError, match="labels go from -1 to -1; ids have 32 bits"):
        from_frame_labels(np.array([-1]))
    with pytest.raises(ArgumentError, match="labels go from 0 to 3; ids are given for 2"):
        from_frame_labels(np.array([0, 3]), ids=np.array([4, 5]))
    with pytest.raises(ArgumentError, match="labels go from -5 to -5; ids have 32 bits"):
        from_frame_labels(np.array([0]), ids=np.array([-5]))
    with pytest.raises(ShapeError, match=r"posteriors must be \(T, V\), got \(2,\)"):
        from_soft_labels(np.zeros(2))
    with pytest.raises(ArgumentError, match="posteriors must be finite and not negative"):
        from_soft_labels(np.array([[np.nan]]))


# Along the paths of our automata.


def scores_of(seed: int, frames: int, *, silence: float = 0.0) -> torch.Tensor:
    scores = 3 * np.random.default_rng(seed).normal(size=(len(TEXTS), frames, len(BUILDER.inventory)))
    scores[:, :, BUILDER.inventory.index("[SILENCE]")] += silence
    return torch.from_numpy(scores.astype(np.float32))


def transcripts(frames: int) -> list[Transcript]:
    return [Transcript(tag, text, frames * 0.01) for tag, text in TEXTS.items()]


def test_a_cache_of_rasr_gives_its_words_back() -> None:
    """RASR's alignments are paths of our automata, and come out as they went in."""
    expected = cached("viterbi")
    with open_archive(GOLDENS / "align" / "mono3.viterbi.cache") as archive:
        scores = CachedScores(archive, BUILDER.inventory, allophones=MONO)
        assert list(scores) == list(TEXTS)
        assert len(scores) == 6
        assert "none" not in scores
        with pytest.raises(KeyError):
            scores["none"]
        for tag, table in scores.items():
            said = [Transcript(tag, TEXTS[tag], len(table) * 0.01)]
            padded, lengths = torch.from_numpy(table)[None], torch.tensor([len(table)])
            (again,) = align_for_cache(padded, lengths, said, BUILDER, allophones=MONO)
            assert again.equal(expected[tag])
            (aligned,) = align_words(padded, lengths, said, BUILDER, frame_shift=0.01)
            assert [word.symbol for word in aligned.words] == TEXTS[tag].split()
            # The phones are those that the names of the allophones say, silence aside.
            phones = align_phones(expected[tag], MONO, name=tag, frame_shift=0.01)
            assert phones.words == ()
            assert [
                (p.symbol, p.start_frame, p.end_frame) for p in phones.phones if p.symbol != "[SILENCE]"
            ] == [(p.symbol, p.start_frame, p.end_frame) for p in aligned.phones]
            assert phones.duration_s == pytest.approx(len(table) * 0.01)


def accepts(num_states: int, edges: np.ndarray, classes: list[int]) -> bool:
    arcs = defaultdict(set)
    for source, target, label in edges.T.tolist():
        arcs[source, label].add(target)
    states = {0}
    for label in classes:
        states = {target for state in states for target in arcs[state, label]}
    return num_states - 1 in states


@pytest.mark.parametrize("silence", [0.0, -100.0, 5.0])
def test_allophones_in_context_are_rasrs(silence: float) -> None:
    """RASR's automata of triphones, untied, accept the paths of our automata of monophones."""
    automata = np.load(GOLDENS / "fsa" / "tri3_notying.npz")
    number = {phoneme: n for n, phoneme in enumerate(BUILDER.lexicon.phonemes, start=1)}
    number["#"] = 0

    def untied(label: int) -> int:
        state = TRI.state(label)
        left, right = state.allophone.context.split("+")
        index = number[state.allophone.phone] * 3 + state.state
        return (index * len(number) + number[left]) * len(number) + number[right]

    for seed in range(5):
        scores = scores_of(seed, 80, silence=silence)
        found = align_for_cache(scores, torch.full((6,), 80), transcripts(80), BUILDER, allophones=TRI)
        for tag, alignment in zip(TEXTS, found, strict=True):
            classes = [untied(label) for label in alignment.labels.tolist()]
            assert accepts(int(automata[f"{tag}|num_states"]), automata[f"{tag}|edges"], classes), tag


def test_allophones_that_stay_within_words() -> None:
    within = Allophones([a for a in TRI if not a.initial or a.context.startswith("#+")])
    within = Allophones([a for a in within if not a.final or a.context.endswith("+#")])
    assert not within.crosses_words
    found = align_for_cache(
        scores_of(0, 60, silence=-100.0), torch.full((6,), 60), transcripts(60), BUILDER, allophones=within
    )
    names = [str(within.state(label)) for label in dict.fromkeys(found[0].labels.tolist())]
    assert [name for name in names if name.endswith(".0")] == [
        "B{#+AA}@i.0", "AA{B+N}.0", "N{AA+#}@f.0", "T{#+OW}@i.0", "OW{T+#}@f.0",
    ]  # fmt: skip


def test_emissions_are_the_best_path() -> None:
    scores, lengths = scores_of(1, 70), torch.tensor([70, 40, 70, 69, 70, 68])
    found = align_for_cache(scores, lengths, transcripts(70), BUILDER)
    with_allophones = align_for_cache(scores, lengths, transcripts(70), BUILDER, allophones=MONO)
    for length, emissions, states in zip(lengths.tolist(), found, with_allophones, strict=True):
        assert len(emissions) == length
        assert emissions.kind == "emission"
        columns = frame_labels(states, columns_of(states, BUILDER.inventory, MONO))
        assert columns.tolist() == emissions.labels.tolist()


def test_ctc_paths() -> None:
    builder = AutomatonBuilder(Lexicon({"see": [["S", "I"]]}), CtcTopology(blank="<blk>"))
    scores = torch.zeros(1, 4, 3)
    scores[0, torch.arange(4), torch.tensor([0, 2, 0, 1])] = 9.0
    said, lengths = [Transcript("a", "see", 0.04)], torch.tensor([4])
    names = ["I{#+#}@f", "S{#+#}@i", "<blk>{#+#}@i@f"]
    allophones = Allophones([Allophone.parse(name) for name in names])
    (alignment,) = align_for_cache(scores, lengths, said, builder, allophones=allophones)
    assert alignment.labels.tolist() == [2, 1, 2, 0]
    with pytest.raises(ArgumentError, match="the list has allophones in context, and with CTC"):
        align_for_cache(scores, lengths, said, builder, allophones=Allophones([Allophone.parse("S{#+I}@i")]))
    with pytest.raises(ArgumentError, match=r"there is no allophone <blk>\{#\+#\}@i@f among 1"):
        align_for_cache(scores, lengths, said, builder, allophones=Allophones([Allophone("S")]))


def test_phones_by_name() -> None:
    allophones = Allophones([Allophone("S"), Allophone("I", initial=True)])
    labels = [join_id(0, 0), join_id(0, 1), join_id(0, 1), join_id(0, 0), join_id(1, 2)]
    utterance = align_phones(
        made([*range(5)], labels, kind="allophone-state"),
        allophones,
        name="x",
        frame_shift=0.5,
        frame_offset=1.0,
    )
    assert utterance.id == "x"
    assert [(p.symbol, p.start_frame, p.end_frame, p.start_s) for p in utterance.phones] == [
        ("S", 0, 3, 1.0), ("S", 3, 4, 2.5), ("I", 4, 5, 3.0),
    ]  # fmt: skip
    empty = align_phones(made([], [], kind="allophone-state"), allophones, name="x", frame_shift=0.5)
    assert empty.phones == ()
    for alignment, message in (
        (made([0], [0]), "has emissions, which don't say to which phones they belong"),
        (made([0], [7], kind="allophone-state"), "label 7 is allophone 7, and the list has 2"),
        (made([0, 2], [0, 0], kind="allophone-state"), "frame 1 has no label"),
    ):
        with pytest.raises(DataError, match=f"archive a.cache, entry 'x': {message}"):
            align_phones(alignment, allophones, name="x", frame_shift=0.5, path="a.cache")
    with pytest.raises(ArgumentError, match="mean nothing without allophones"):
        align_phones(made([0], [0], kind="allophone-state"), name="x", frame_shift=0.5)
