"""Log-mel features."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

import torch

from seqtrain.data.audio import Audio
from seqtrain.errors import ArgumentError, MissingDependencyError

__all__ = ["LogMel"]


@dataclass(frozen=True, kw_only=True)
class LogMel:
    """Kaldi-compatible log-mel filterbank energies (kaldi-native-fbank), mean-normalized over the utterance.

    Without dither and with `snip_edges` off: the same samples always give the same features, and frame t is
    centred on t · `frame_shift` plus half a shift, so that N samples give round(N / shift) frames.

    `scale` divides the normalized energies, which brings speech to about unit variance.
    """

    sample_rate: int
    num_bins: int = 40
    frame_shift_ms: float = 10.0
    frame_length_ms: float = 25.0
    low_frequency: float = 20.0
    scale: float = 3.0

    @property
    def fingerprint(self) -> str:
        """Changes whenever a setting does; part of the feature cache's keys."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def __call__(self, audio: Audio) -> torch.Tensor:
        """Features (T, `num_bins`) float32 of one recording.

        Raises:
            ArgumentError: the recording has another sample rate, or is too short for a single frame.
            MissingDependencyError: kaldi-native-fbank isn't installed.
        """
        try:
            import kaldi_native_fbank
        except ImportError as error:
            raise MissingDependencyError("kaldi-native-fbank", extra="recipes") from error

        if audio.sample_rate != self.sample_rate:
            raise ArgumentError(
                f"the recording is sampled at {audio.sample_rate} Hz, but the features are set up for "
                f"{self.sample_rate} Hz",
                argument="audio",
            )
        options = kaldi_native_fbank.FbankOptions()
        options.frame_opts.samp_freq = self.sample_rate
        options.frame_opts.dither = 0.0
        options.frame_opts.snip_edges = False
        options.frame_opts.frame_shift_ms = self.frame_shift_ms
        options.frame_opts.frame_length_ms = self.frame_length_ms
        options.mel_opts.num_bins = self.num_bins
        options.mel_opts.low_freq = self.low_frequency

        bank = kaldi_native_fbank.OnlineFbank(options)
        # Kaldi's energy floor is meant for samples in the range of 16-bit integers.
        bank.accept_waveform(self.sample_rate, audio.samples * 32768.0)
        bank.input_finished()
        num_frames = bank.num_frames_ready
        if num_frames == 0:
            raise ArgumentError(
                f"the recording lasts {audio.duration * 1000:.1f} ms, too short for one frame",
                argument="audio",
            )
        frames = torch.stack([torch.from_numpy(bank.get_frame(t).copy()) for t in range(num_frames)])
        return (frames - frames.mean(dim=0)) / self.scale
