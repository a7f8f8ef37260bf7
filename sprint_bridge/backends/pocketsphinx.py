"""PocketSphinx as an engine: alignments of recordings by an acoustic model that has nothing to do with ours."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from seqtrain.errors import ConfigError
from sprint_bridge.backends.pool import PooledBackend, host_engine
from sprint_bridge.workers.settings import WorkerSettings

__all__ = ["PocketsphinxBackendConfig", "load_pocketsphinx_backend"]

_STATES = (1, 3)
_SHIFT = 0.01


@dataclass(frozen=True)
class PocketsphinxBackendConfig:
    """PocketSphinx with its own English model.

    Labels are those of an `HmmTopology` over the 39 phones of cmudict: silence, then the phones in alphabetical order,
    `states_per_phone` each. Frames are those of our features and models: one for each 10 ms, of which each
    `frame_shift / 10 ms`-th is kept, the first among them.

    Attributes:
        manifest: the utterances (JSON lines), their recordings and words.
        pronunciations: plain lexicon of words that PocketSphinx' dictionary lacks, with phones of cmudict without
            stress; or None.
        frame_shift: seconds from one label to the next, a multiple of 0.01.
        states_per_phone: 1, or 3, which is what PocketSphinx' own phones have.
        silence: the label of silence and noises.
        workers: how many, and how long they may take.
        log: file that what the workers print is appended to, or None.
    """

    manifest: Path
    pronunciations: Path | None = None
    frame_shift: float = _SHIFT
    states_per_phone: int = 1
    silence: str = "[SILENCE]"
    workers: WorkerSettings = field(default_factory=WorkerSettings)
    log: Path | None = None

    def __post_init__(self) -> None:
        stride = round(self.frame_shift / _SHIFT)
        if stride < 1 or abs(stride * _SHIFT - self.frame_shift) > 1e-9:
            raise ConfigError(
                f"frame_shift must be a multiple of {_SHIFT} s, found {self.frame_shift}", key="frame_shift"
            )
        if self.states_per_phone not in _STATES:
            raise ConfigError(
                f"states_per_phone must be 1 or 3, found {self.states_per_phone}", key="states_per_phone"
            )

    @property
    def stride(self) -> int:
        """Frames of 10 ms from one label to the next."""
        return round(self.frame_shift / _SHIFT)


def load_pocketsphinx_backend(config: PocketsphinxBackendConfig) -> PooledBackend:
    """Starts workers that host the engine.

    Raises:
        EngineStartError: they don't get ready; EngineMissingError where pocketsphinx isn't installed.
        EngineMismatchError: they don't say the same.
    """
    return host_engine(
        "pocketsphinx",
        {
            "manifest": str(config.manifest.absolute()),
            "pronunciations": None
            if config.pronunciations is None
            else str(config.pronunciations.absolute()),
            "stride": config.stride,
            "states_per_phone": config.states_per_phone,
            "silence": config.silence,
        },
        config.workers,
        log=config.log,
    )
