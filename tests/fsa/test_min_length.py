"""Fewest frames, against a search in plain Python."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from seqtrain.fsa import Fsa, FsaBatch, Silence, Transitions, ctc, hmm, rna, word_hmm
from tests.fsa.strategies import automata, quick

FORBIDDEN = float("-inf")


def searched(fsa: Fsa) -> int:
    allowed = [arc for arc, w in zip(fsa.arcs.tolist(), fsa.weights.tolist(), strict=True) if w > FORBIDDEN]
    finals = zip(fsa.final_states.tolist(), fsa.final_weights.tolist(), strict=True)
    final = {state for state, weight in finals if weight > FORBIDDEN}
    reached = {fsa.start}
    for frames in range(fsa.num_states):
        if reached & final:
            return frames
        reached = {destination for source, destination, _ in allowed if source in reached}
    return -1


@quick
@given(st.lists(automata(max_states=7, max_arcs=14), max_size=4))
def test_agrees_with_a_plain_search(graphs: list[Fsa]) -> None:
    expected = [searched(fsa) for fsa in graphs]
    assert FsaBatch.from_list(graphs).min_length().tolist() == expected
    assert [fsa.min_length() for fsa in graphs] == expected


transitions = st.builds(
    Transitions,
    loop=st.sampled_from([0.0, FORBIDDEN]),
    forward=st.sampled_from([-0.5, FORBIDDEN]),
    skip=st.sampled_from([FORBIDDEN, -1.0]),
)
words = st.lists(
    st.lists(
        st.tuples(st.sampled_from([-0.5, FORBIDDEN]), st.lists(st.integers(0, 3), min_size=1)), min_size=1
    ),
    max_size=3,
)


@quick
@given(
    st.lists(st.lists(st.integers(1, 3), min_size=4, max_size=4), min_size=1, max_size=3),
    st.data(),
    transitions,
)
def test_what_topologies_know_about_themselves(
    targets: list[list[int]], data: st.DataObject, kind: Transitions
) -> None:
    lengths = [data.draw(st.integers(0, 4)) for _ in targets]
    for batch in (
        ctc(targets, lengths),
        rna(targets, lengths),
        hmm(targets, lengths, states_per_label=2, transitions=kind),
    ):
        assert batch.min_length().tolist() == [searched(fsa) for fsa in batch]


@quick
@given(st.lists(words, max_size=3), transitions, st.sampled_from([-0.5, FORBIDDEN]), st.booleans())
def test_what_word_sequences_know_about_themselves(
    utterances: list[list[list[tuple[float, list[int]]]]], kind: Transitions, absent: float, silent: bool
) -> None:
    silence = Silence((9, 10), kind, absent=absent) if silent else None
    batch = word_hmm(utterances, states_per_phone=2, transitions=kind, silence=silence)
    assert batch.min_length().tolist() == [searched(fsa) for fsa in batch]


def test_other_weights_change_what_counts() -> None:
    batch = ctc([[1, 2]], [2])
    assert batch.min_length().tolist() == [2]
    weights = batch.weights.clone()
    weights[batch.arcs[:, 1] - batch.arcs[:, 0] == 2] = FORBIDDEN
    assert batch.with_weights(weights).min_length().tolist() == [3]
    assert batch.min_length().tolist() == [2]
    batch.min_length()[0] = 7
    assert batch.min_length().tolist() == [2], "callers get a copy"
