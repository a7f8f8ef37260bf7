"""Word boundaries against PocketSphinx's, an aligner that has nothing to do with what was trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from seqtrain.align import AlignedUtterance, Segment
from seqtrain.align.boundaries import BoundaryAgreement, compare_boundaries
from seqtrain.align.pocketsphinx import PocketSphinxAligner
from seqtrain.data import Utterance, read_audio
from seqtrain.errors import AlignerItemError
from seqtrain.lexicon import Lexicon

__all__ = ["ReferenceBoundaries", "agreement", "pocketsphinx_boundaries"]


@dataclass(frozen=True)
class ReferenceBoundaries:
    """Words in time by utterance, and the utterances that the reference aligner finds no path for."""

    words: Mapping[str, tuple[Segment, ...]]
    without: tuple[str, ...]


def pocketsphinx_boundaries(
    utterances: Sequence[Utterance], lexicon: Lexicon, *, progress: Callable[[int], None] | None = None
) -> ReferenceBoundaries:
    """Aligns utterances with PocketSphinx; words that its dictionary lacks get the first pronunciation of
    `lexicon`.

    Raises:
        AudioError: a recording is missing or broken.
        LexiconError: neither dictionary has a word.
        MissingDependencyError: pocketsphinx or soundfile isn't installed.
    """
    aligner = PocketSphinxAligner({word: variants[0].phonemes for word, variants in lexicon.items()})
    words: dict[str, tuple[Segment, ...]] = {}
    without = []
    for done, utterance in enumerate(utterances, start=1):
        audio = read_audio(utterance.audio, utterance=utterance.id)
        try:
            words[utterance.id] = aligner.align(
                audio.samples, audio.sample_rate, utterance.text, utterance=utterance.id
            )
        except AlignerItemError:
            without.append(utterance.id)
        if progress is not None:
            progress(done)
    return ReferenceBoundaries(words, tuple(without))


def agreement(
    reference: ReferenceBoundaries, aligned: Mapping[str, AlignedUtterance], *, tolerance: float
) -> BoundaryAgreement:
    """How many word boundaries lie within `tolerance` seconds of the reference's, where that has any."""
    return compare_boundaries(
        reference.words.values(), [aligned[tag].words for tag in reference.words], tolerance=tolerance
    )
