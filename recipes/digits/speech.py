"""Speech from espeak-ng, whose library and voices come as a wheel (espeakng-loader)."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seqtrain.errors import DataError, MissingDependencyError

__all__ = ["Synthesizer", "synthesizer"]

# From espeak-ng's speak_lib.h.
_RETRIEVAL = 1  # samples go to the callback, not to a sound device
_CHARS_UTF8 = 1
_POSITION_CHARACTER = 1
_RATE, _PITCH = 1, 3
_DONT_EXIT = 0x8000  # on a broken installation return an error instead of ending the process

_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


@functools.cache
def synthesizer() -> Synthesizer:
    """The synthesizer of this process: the engine is global, and hangs when it is started twice."""
    return Synthesizer()


class Synthesizer:
    """Turns text into speech; to be had from `synthesizer()`, and used from one thread.

    The same text doesn't give the very same samples twice, so what must be reproducible has to be kept.

    Raises:
        MissingDependencyError: espeakng-loader isn't installed.
        DataError: the engine doesn't start.
    """

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise MissingDependencyError("espeakng-loader", extra="recipes") from error
        self._variants = Path(espeakng_loader.get_data_path()) / "voices" / "!v"
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = Path(espeakng_loader.get_data_path())
        self.sample_rate = int(self._library.espeak_Initialize(_RETRIEVAL, 0, str(data).encode(), _DONT_EXIT))
        if self.sample_rate <= 0:
            raise DataError(f"espeak-ng doesn't start with its data in {data}", path=str(data))
        self._chunks: list[NDArray[np.int16]] = []
        # The engine keeps the address only; the object must live as long as it.
        self._callback = _Callback(self._receive)
        self._library.espeak_SetSynthCallback(self._callback)

    def __call__(self, text: str, *, voice: str, rate: int = 170, pitch: int = 50) -> NDArray[np.float32]:
        """Samples (N,) float32 in [-1, 1] at `sample_rate`.

        Args:
            text: what to say.
            voice: name of a language, a `+`, a variant: `en-us+m3`.
            rate: words a minute.
            pitch: 0 to 100.

        Raises:
            DataError: there is no such voice, or the engine refuses the text.
        """
        # An unknown variant the engine passes over in silence, for an unknown language it keeps the voice it had.
        variant = voice.partition("+")[2]
        known = not variant or (self._variants / variant).is_file()
        if not known or self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise DataError(f"espeak-ng has no voice {voice!r}")
        self._library.espeak_SetParameter(_RATE, rate, 0)
        self._library.espeak_SetParameter(_PITCH, pitch, 0)
        self._chunks = []
        content = text.encode() + b"\0"
        failed = self._library.espeak_Synth(
            content, len(content), 0, _POSITION_CHARACTER, 0, _CHARS_UTF8, None, None
        )
        if failed or self._library.espeak_Synchronize():
            raise DataError(f"espeak-ng can't say {text!r}")
        if not self._chunks:
            raise DataError(f"espeak-ng gives no sound for {text!r}")
        return np.concatenate(self._chunks).astype(np.float32) / 32768.0

    def _receive(self, samples: ctypes._Pointer[ctypes.c_short], count: int, _events: int | None) -> int:
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0
