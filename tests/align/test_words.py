from __future__ import annotations

import pytest
import torch

from seqtrain.align.words import Transcript, align_words
from seqtrain.errors import InfeasibleError, OutOfVocabularyError, ShapeError
from seqtrain.fsa import Transitions
from seqtrain.lexicon import AutomatonBuilder, CtcTopology, HmmTopology, Lexicon

LEXICON = Lexicon({"see": ["SI"], "easy": ["IZI", "ISI"], "zz": ["ZZ"]}, silence="sil")
HMM = HmmTopology(
    states_per_phone=1,
    phone=Transitions.from_probabilities(loop=0.5),
    silence=Transitions.from_probabilities(loop=0.5),
)


def scores_of(builder: AutomatonBuilder, said: str) -> torch.Tensor:
    """(1, T, V) scores that leave no doubt: one letter a frame, `-` for silence or blank."""
    labels = builder.inventory.labels
    pause = builder.inventory.blank if builder.inventory.blank is not None else builder.inventory.silence
    scores = torch.full((1, len(said), len(labels)), -20.0)
    for t, letter in enumerate(said):
        scores[0, t, pause if letter == "-" else labels.index(letter)] = -0.5
    return scores


@pytest.mark.parametrize(
    ("topology", "said", "words", "phones"),
    [
        (HMM, "--SSIZZ-", "see 2-5, zz 5-7", "S 2-4, I 4-5, Z 5-6, Z 6-7"),
        # The second pronunciation of "easy".
        (HMM, "SSI-ISSI", "see 0-3, easy 4-8", "S 0-2, I 2-3, I 4-5, S 5-7, I 7-8"),
        # Equal phones meet where one word ends and the next begins: only the states tell which is which.
        (HMM, "SIIZI", "see 0-2, easy 2-5", "S 0-1, I 1-2, I 2-3, Z 3-4, I 4-5"),
        # Blanks between the phones of a word belong to it, blanks around it don't.
        (CtcTopology(), "-S-I--IS-I-", "see 1-4, easy 6-10", "S 1-2, I 3-4, I 6-7, S 7-8, I 9-10"),
        (CtcTopology(), "Z-ZZ", "zz 0-4", "Z 0-1, Z 2-4"),
        (CtcTopology(), "--", "", ""),
        (HMM, "-", "", ""),
    ],
)
def test_segments_of_clear_scores(
    topology: CtcTopology | HmmTopology, said: str, words: str, phones: str
) -> None:
    builder = AutomatonBuilder(LEXICON, topology)
    text = " ".join(word.split()[0] for word in words.split(", ") if word)
    (found,) = align_words(
        scores_of(builder, said),
        torch.tensor([len(said)]),
        [Transcript("u", text, len(said) * 0.03)],
        builder,
        frame_shift=0.03,
    )
    assert ", ".join(f"{s.symbol} {s.start_frame}-{s.end_frame}" for s in found.words) == words
    assert ", ".join(f"{s.symbol} {s.start_frame}-{s.end_frame}" for s in found.phones) == phones
    for segment in (*found.words, *found.phones):
        assert segment.score == pytest.approx(-0.5)
        assert segment.end_s == pytest.approx(segment.end_frame * 0.03)


def test_a_batch_keeps_names_and_path_scores() -> None:
    builder = AutomatonBuilder(LEXICON, CtcTopology())
    scores = torch.cat([scores_of(builder, "S-I-Z-Z"), scores_of(builder, "Z-Z----")])
    transcripts = [Transcript("one", "see zz", 0.21), Transcript("two", "zz", 0.09)]
    one, two = align_words(scores, torch.tensor([7, 3]), transcripts, builder, frame_shift=0.03)
    assert (one.id, two.id) == ("one", "two")
    assert (one.duration_s, two.duration_s) == (0.21, 0.09)
    assert one.score == pytest.approx(7 * -0.5)
    assert two.score == pytest.approx(3 * -0.5)
    assert [s.symbol for s in two.words] == ["zz"]


def test_what_cannot_be_aligned_is_named() -> None:
    builder = AutomatonBuilder(LEXICON, CtcTopology())
    scores, lengths = scores_of(builder, "--"), torch.tensor([2])
    with pytest.raises(OutOfVocabularyError, match="utterance 'menu/1': not in the lexicon: 'press'"):
        align_words(scores, lengths, [Transcript("menu/1", "press zz", 1.0)], builder, frame_shift=0.03)
    with pytest.raises(InfeasibleError, match=r"menu/1.*2 frames given, needs 3"):
        align_words(scores, lengths, [Transcript("menu/1", "zz", 1.0)], builder, frame_shift=0.03)
    with pytest.raises(ShapeError, match="0 transcripts for the scores of 1 utterances"):
        align_words(scores, lengths, [], builder, frame_shift=0.03)
