"""Forced alignment with PocketSphinx, whose wheel brings an English acoustic model and dictionary.

A second opinion on where words begin and end, from a model that has nothing to do with ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqtrain.align.resample import resample
from seqtrain.align.segments import Segment
from seqtrain.errors import AlignerItemError, LexiconError, MissingDependencyError

__all__ = ["PocketSphinxAligner"]

_SAMPLE_RATE = 16000
_FRAME_SHIFT = 0.01


class PocketSphinxAligner:
    """Aligns words with PocketSphinx' US English model (16 kHz, frames of 10 ms).

    The model knows recordings with some noise in them. Through digital silence (all samples 0) it may find no path.

    Args:
        pronunciations: word → phones (the 39 of cmudict, without stress), for words that PocketSphinx' dictionary
            lacks; its own pronunciations, all variants, come first.

    Raises:
        MissingDependencyError: pocketsphinx isn't installed.
    """

    def __init__(self, pronunciations: Mapping[str, Sequence[str]] | None = None) -> None:
        try:
            import pocketsphinx
        except ImportError as error:
            raise MissingDependencyError("pocketsphinx", extra="recipes") from error
        # Without a language model the decoder waits for a text to align; dither would make runs differ.
        self._decoder: Any = pocketsphinx.Decoder(
            samprate=_SAMPLE_RATE, lm=None, dither=False, loglevel="FATAL"
        )
        self._pronunciations = {} if pronunciations is None else pronunciations

    def align(
        self, samples: NDArray[np.float32], sample_rate: int, text: str, *, utterance: str = ""
    ) -> tuple[Segment, ...]:
        """The words of `text` in time; `score` of the segments is None.

        Args:
            samples: (N,) float32 in [-1, 1], one channel.
            sample_rate: in hertz; resampled to 16 kHz where it differs.
            text: words separated by white space, in the spelling of the dictionary (lower case).
            utterance: its name, for error messages.

        Raises:
            LexiconError: neither PocketSphinx nor `pronunciations` has a word, or a pronunciation has a phone that
                the model doesn't.
            AlignerItemError: PocketSphinx finds no path through the recording.
        """
        words = text.split()
        self._add_missing(words)
        if not words:
            return ()
        audio = resample(samples, sample_rate, _SAMPLE_RATE)
        pcm = np.clip(np.rint(audio * 32768.0), -32768, 32767).astype("<i2")
        self._decoder.set_align_text(" ".join(words))
        self._decoder.start_utt()
        self._decoder.process_raw(pcm.tobytes(), full_utt=True)
        self._decoder.end_utt()
        found = []
        for entry in self._decoder.seg() if self._decoder.hyp() is not None else ():
            word = entry.word.split("(")[0]
            if word.startswith("<") or word.startswith("["):
                continue
            start, end = int(entry.start_frame), int(entry.end_frame) + 1
            found.append(Segment(word, start, end, start * _FRAME_SHIFT, end * _FRAME_SHIFT))
        if [segment.symbol for segment in found] != words:
            raise AlignerItemError(
                f"PocketSphinx finds no path for {utterance or 'the utterance'} "
                f"({len(samples) / sample_rate:.2f} s): {text!r}",
                segment=utterance,
                status="no path",
            )
        return tuple(found)

    def _add_missing(self, words: Sequence[str]) -> None:
        for word in dict.fromkeys(words):
            if self._decoder.lookup_word(word) is not None:
                continue
            phones = self._pronunciations.get(word)
            if phones is None:
                raise LexiconError(
                    f"neither PocketSphinx' dictionary nor the pronunciations given have {word!r}", word=word
                )
            try:
                self._decoder.add_word(word, " ".join(phones), True)
            except RuntimeError as error:
                raise LexiconError(
                    f"PocketSphinx refuses the pronunciation {' '.join(phones)!r} of {word!r}: "
                    "its phones are the 39 of cmudict, without stress",
                    word=word,
                ) from error
