"""PocketSphinx in this process, as a worker hosts it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqtrain.align.pocketsphinx import PocketSphinxAligner
from seqtrain.align.resample import resample
from seqtrain.data.audio import read_audio
from seqtrain.data.manifest import read_manifest
from seqtrain.data.utterance import Utterance
from seqtrain.errors import (
    AlignerItemError,
    MissingDependencyError,
    OutOfVocabularyError,
    SeqtrainError,
    SkippedError,
    UnknownSegmentError,
)
from seqtrain.lexicon import LabelInventory, read_lexicon
from seqtrain.lexicon.digest import content_digest
from sprint_bridge.backends.base import (
    BatchAlignments,
    BatchAutomata,
    BatchLosses,
    Capability,
    Orthography,
    Segment,
)
from sprint_bridge.backends.incapable import incapable
from sprint_bridge.backends.pool import batch_alignments
from sprint_bridge.rasr.digest import file_digest
from sprint_bridge.workers.errors import EngineMissingError

__all__ = ["PocketsphinxEngine", "StateAligner"]

_REVISION = 1
_SAMPLE_RATE = 16000
_SAMPLES_PER_FRAME = 160
# fmt: off
_PHONES = (
    "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY", "F", "G",
    "HH", "IH", "IY", "JH", "K", "L", "M", "N", "NG", "OW", "OY", "P", "R", "S", "SH",
    "T", "TH", "UH", "UW", "V", "W", "Y", "Z", "ZH",
)
# fmt: on


class StateAligner(PocketSphinxAligner):
    """Aligns down to the states of phones."""

    def missing_words(self, text: str) -> tuple[str, ...]:
        """Every word of `text` that neither PocketSphinx' dictionary nor the pronunciations have."""
        return tuple(
            word
            for word in dict.fromkeys(text.split())
            if word not in self._pronunciations and self._decoder.lookup_word(word) is None
        )

    def states(
        self, samples: NDArray[np.float32], sample_rate: int, text: str, *, utterance: str
    ) -> list[tuple[str, int, int, int]]:
        """Of each state in order: its phone, its number within that, its first frame of 10 ms, and how many it lasts.

        Raises:
            LexiconError, AlignerItemError: as `align`.
        """
        audio = resample(samples, sample_rate, _SAMPLE_RATE)
        if not self.align(audio, _SAMPLE_RATE, text, utterance=utterance):
            return []
        # The decoder has found the words. What they are made of it says after a second pass.
        pcm = np.clip(np.rint(audio * 32768.0), -32768, 32767).astype("<i2").tobytes()
        self._decoder.set_alignment()
        self._decoder.start_utt()
        self._decoder.process_raw(pcm, full_utt=True)
        self._decoder.end_utt()
        return [
            (phone.name, number, state.start, state.duration)
            for word in self._decoder.get_alignment()
            for phone in word
            for number, state in enumerate(phone)
        ]


class PocketsphinxEngine:
    """Alignments of a manifest's recordings.

    Args:
        aligner: that finds the states.
        utterances: the manifest, by id.
        stride: frames of 10 ms from one label to the next.
        states_per_phone: 1 or 3.
        silence: the label of silence.
        digest: of the configuration.
    """

    def __init__(
        self,
        aligner: StateAligner,
        utterances: Mapping[str, Utterance],
        *,
        stride: int,
        states_per_phone: int,
        silence: str,
        digest: str,
    ) -> None:
        self._aligner = aligner
        self._utterances = utterances
        self._stride = stride
        self._states_per_phone = states_per_phone
        states = range(states_per_phone)
        self._inventory = LabelInventory(
            (
                silence,
                *(
                    phone if states_per_phone == 1 else f"{phone}.{state}"
                    for phone in _PHONES
                    for state in states
                ),
            ),
            silence=0,
        )
        self._columns = {phone: 1 + index * states_per_phone for index, phone in enumerate(_PHONES)}
        self._digest = digest

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> PocketsphinxEngine:
        """The engine of a configuration as `load_pocketsphinx_backend` hands it to workers.

        Raises:
            EngineMissingError: pocketsphinx isn't installed.
            DataError, LexiconError: manifest or pronunciations can't be read or are malformed.
        """
        manifest = Path(values["manifest"])
        pronunciations = None if values["pronunciations"] is None else Path(values["pronunciations"])
        words = {} if pronunciations is None else read_lexicon(pronunciations)
        try:
            aligner = StateAligner({word: variants[0].phonemes for word, variants in words.items()})
        except MissingDependencyError as error:
            raise EngineMissingError(str(error)) from error
        settings = {name: values[name] for name in ("stride", "states_per_phone", "silence")}
        digest = content_digest(
            [
                _REVISION,
                "pocketsphinx",
                version("pocketsphinx"),
                file_digest(manifest, key="manifest"),
                None if pronunciations is None else file_digest(pronunciations, key="pronunciations"),
                settings,
            ]
        )
        utterances = {utterance.id: utterance for utterance in read_manifest(manifest)}
        return cls(aligner, utterances, digest=digest, **settings)

    @property
    def name(self) -> str:
        return "pocketsphinx"

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset({Capability.ALIGNMENTS})

    @property
    def inventory(self) -> LabelInventory:
        return self._inventory

    @property
    def config_digest(self) -> str:
        return self._digest

    def automata(self, items: Sequence[Segment | Orthography]) -> BatchAutomata:
        raise incapable(self.name, Capability.AUTOMATA_BY_SEGMENT)

    def alignments(self, segments: Sequence[str]) -> BatchAlignments:
        return batch_alignments([self._alignment(segment) for segment in segments])

    def align(self, segments: Sequence[str], scores: Sequence[NDArray[np.float32]]) -> BatchAlignments:
        raise incapable(self.name, Capability.FORCED_ALIGNMENT)

    def losses(self, segments: Sequence[str], log_posteriors: Sequence[NDArray[np.float32]]) -> BatchLosses:
        raise incapable(self.name, Capability.LOSSES)

    def close(self) -> None:
        """The process ends with it."""

    def _alignment(self, segment: str) -> NDArray[np.int32] | SeqtrainError:
        utterance = self._utterances.get(segment)
        if utterance is None:
            return UnknownSegmentError(
                f"no utterance {segment!r} among {len(self._utterances)}", utterance=segment
            )
        missing = self._aligner.missing_words(utterance.text)
        if missing:
            return OutOfVocabularyError(
                f"neither PocketSphinx' dictionary nor the pronunciations have: {', '.join(map(repr, missing))}",
                words=missing,
                utterance=segment,
            )
        try:
            audio = read_audio(utterance.audio, utterance=segment)
            states = self._aligner.states(audio.samples, audio.sample_rate, utterance.text, utterance=segment)
        except AlignerItemError as error:
            return SkippedError(str(error), segment=segment)
        except SeqtrainError as error:
            return error
        return self._labels(states, audio.duration)

    def _labels(self, states: Sequence[tuple[str, int, int, int]], duration: float) -> NDArray[np.int32]:
        """The label of each frame that is kept; silence, and what PocketSphinx leaves over at the end, is 0."""
        frames = int(duration * _SAMPLE_RATE / _SAMPLES_PER_FRAME + 0.5)
        labels = np.zeros(frames, dtype=np.int32)
        for phone, number, start, length in states:
            column = self._columns.get(phone)
            if column is not None:
                labels[start : start + length] = column + min(number, self._states_per_phone - 1)
        kept: NDArray[np.int32] = labels[:: self._stride].copy()
        return kept
