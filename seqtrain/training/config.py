"""What a recipe's configuration says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seqtrain.data import Augmentation, LogMel
from seqtrain.errors import ArgumentError
from seqtrain.training.schedule import StepSchedule
from seqtrain.training.settings import from_mapping, read_toml, with_assignments

__all__ = [
    "FROM_SCRATCH",
    "NETWORKS",
    "AlignmentConfig",
    "CtcConfig",
    "DecodingConfig",
    "FineTuningConfig",
    "HmmConfig",
    "LfmmiConfig",
    "MbrConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PhoneModelConfig",
    "RecipeConfig",
    "StageConfig",
    "TargetsConfig",
    "read_config",
]

FROM_SCRATCH = ("ctc", "hmm")
NETWORKS = (*FROM_SCRATCH, "lfmmi", "mbr")
"""The stages that train a network: two from scratch, the others go on from a network of a stage before them."""


def _positive(config: object, *names: str) -> None:
    for name in names:
        if not getattr(config, name) > 0:
            raise ArgumentError(f"{name} is {getattr(config, name)}; it must be positive", argument=name)


def _not_negative(config: object, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(config, name) < float("inf"):
            raise ArgumentError(
                f"{name} is {getattr(config, name)}; it must be finite and not negative", argument=name
            )


def _probability(config: object, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            raise ArgumentError(f"{name} is {getattr(config, name)}; it must lie in [0, 1]", argument=name)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Size of the network (see `ConvAcousticModel`)."""

    width: int = 256
    kernel: int = 7
    stride: int = 3
    dilations: tuple[int, ...] = (1, 1, 2, 3, 3, 3)
    dropout: float = 0.15

    def __post_init__(self) -> None:
        _positive(self, "width", "kernel", "stride")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW's peak learning rate and weight decay, the bound on the gradient's norm."""

    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    clip: float = 1.0

    def __post_init__(self) -> None:
        _positive(self, "learning_rate", "clip")


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """A stage of training: how many steps, how the learning rate runs, how often to log, save, evaluate."""

    steps: int
    warmup: int = 200
    plateau: float = 0.3
    floor: float = 0.02
    log_every: int = 20
    checkpoint_every: int = 100
    evaluate_every: int = 200

    def __post_init__(self) -> None:
        _positive(self, "steps", "log_every", "checkpoint_every")

    @property
    def schedule(self) -> StepSchedule:
        """The learning rate by step."""
        return StepSchedule(steps=self.steps, warmup=self.warmup, plateau=self.plateau, floor=self.floor)


@dataclass(frozen=True, kw_only=True)
class CtcConfig(StageConfig):
    """The CTC stage."""


@dataclass(frozen=True, kw_only=True)
class HmmConfig(StageConfig):
    """The full-sum HMM stage: topology, scales, and how the aligner service is talked to.

    Args:
        states_per_phone: of each phone; silence has one.
        phone_loop: probability that a phone's state is stayed in.
        silence_loop: the same for silence.
        silence_probability: of silence between two words, and at both ends.
        prior_scale: a in log p(s | x) - a · log p(s). Without it silence takes over in training from a flat
            start.
        prior_momentum: share of a step in the running mean that is the prior.
        timeout: seconds that the service has for an answer, reconnecting included.
        prefetch: batches whose automata are fetched ahead of the step.
    """

    states_per_phone: int = 1
    phone_loop: float = 0.6
    silence_loop: float = 0.8
    silence_probability: float = 0.5
    prior_scale: float = 0.4
    prior_momentum: float = 0.05
    timeout: float = 30.0
    prefetch: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(self, "states_per_phone", "timeout", "prefetch")
        _probability(self, "phone_loop", "silence_loop", "silence_probability", "prior_momentum")


@dataclass(frozen=True, kw_only=True)
class PhoneModelConfig:
    """The n-gram over phones that discriminative training competes with, and that phones are decoded with.

    Args:
        order: n.
        smoothing: "witten-bell" or "kneser-ney".
    """

    order: int = 3
    smoothing: str = "witten-bell"

    def __post_init__(self) -> None:
        _positive(self, "order")
        if self.smoothing not in ("witten-bell", "kneser-ney"):
            raise ArgumentError(
                f"smoothing is {self.smoothing!r}; it must be 'witten-bell' or 'kneser-ney'",
                argument="smoothing",
            )


@dataclass(frozen=True, kw_only=True)
class FineTuningConfig(StageConfig):
    """A stage that goes on from a trained network.

    Args:
        start: the stage whose network it goes on from; "best" takes the one with the fewest phone errors on the first
            held-out set, which has served for development then.
        learning_rate: the peak, in place of the optimizer's.
        ctc_scale: weight of the full sum over the transcript's own paths (with CTC's labels: CTC), per frame.
    """

    steps: int = 100
    warmup: int = 20
    evaluate_every: int = 50
    start: str = "best"
    learning_rate: float = 5e-4
    ctc_scale: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(self, "learning_rate")
        _not_negative(self, "ctc_scale")
        if self.start != "best" and self.start not in self.predecessors:
            raise ArgumentError(
                f"start is {self.start!r}; it must be 'best' or one of {', '.join(self.predecessors)}",
                argument="start",
            )

    @property
    def predecessors(self) -> tuple[str, ...]:
        """The stages whose networks it may go on from."""
        return FROM_SCRATCH


@dataclass(frozen=True, kw_only=True)
class LfmmiConfig(FineTuningConfig):
    """Lattice-free MMI; the options are those of `seqtrain.losses.LFMMILoss`."""

    den_scale: float = 1.0
    acoustic_scale: float = 1.0
    leak: float = 1e-5
    boost: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(self, "acoustic_scale")
        _not_negative(self, "den_scale", "leak", "boost")


@dataclass(frozen=True, kw_only=True)
class MbrConfig(FineTuningConfig):
    """Minimum Bayes risk.

    Args:
        risk: "frames": the frames whose phone is wrong, expected over a lattice, exactly (MPFE); "edits": the edit
            distance of phones, expected over samples.
        count: samples of an utterance.
        beam: of the lattice, natural log.
        acoustic_scale: of the scores in the lattice.
    """

    learning_rate: float = 2e-4
    risk: str = "frames"
    count: int = 8
    beam: float = 8.0
    acoustic_scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(self, "beam", "acoustic_scale")
        if self.risk not in ("frames", "edits"):
            raise ArgumentError(f"risk is {self.risk!r}; it must be 'frames' or 'edits'", argument="risk")
        if self.count < 2:
            raise ArgumentError(f"count is {self.count}; it must be at least 2", argument="count")

    @property
    def predecessors(self) -> tuple[str, ...]:
        return (*FROM_SCRATCH, "lfmmi")


@dataclass(frozen=True, kw_only=True)
class DecodingConfig:
    """Word decoding: scale of the bigram, score added at each word, probability of words never seen, and the beam of
    the lattice that words with times and confidences come from."""

    lm_scale: float = 1.0
    word_score: float = 0.0
    unseen_probability: float = 1e-3
    beam: float = 10.0

    def __post_init__(self) -> None:
        _positive(self, "lm_scale", "unseen_probability", "beam")


@dataclass(frozen=True, kw_only=True)
class AlignmentConfig:
    """What forced alignment is compared with, and what the report shows of it.

    Args:
        pocketsphinx: whether word boundaries are compared with PocketSphinx's.
        tolerance: seconds within which two boundaries count as the same.
        shown: utterances that the report shows.
    """

    pocketsphinx: bool = True
    tolerance: float = 0.05
    shown: int = 4


_MEASURES = ("per", "per_lm", "wer_open", "wer_closed", "starts_within", "ends_within")


@dataclass(frozen=True, kw_only=True)
class TargetsConfig:
    """Bounds that the results are meant to keep to, in percent, by `set.stage.measure` (see `check_targets`)."""

    at_most: dict[str, float] = field(default_factory=dict)
    at_least: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for table in ("at_most", "at_least"):
            for name, bound in getattr(self, table).items():
                parts = name.split(".")
                if len(parts) != 3 or parts[1] not in NETWORKS or parts[2] not in _MEASURES:
                    raise ArgumentError(
                        f"{name!r} isn't set.stage.measure, with one of {', '.join(NETWORKS)} and one of "
                        f"{', '.join(_MEASURES)}",
                        argument=table,
                    )
                if isinstance(bound, bool) or not isinstance(bound, (int, float)):
                    raise ArgumentError(f"{name} is {bound!r}; it must be a number", argument=table)


@dataclass(frozen=True, kw_only=True)
class RecipeConfig:
    """A recipe: a corpus, one network per stage, and what is measured.

    Args:
        name: of the recipe; its working folder is called that.
        corpus: `module:function` that prepares the corpus (see `seqtrain.training.run`).
        corpus_options: handed to that function.
        seed: of everything that is random.
        threads: of torch.
        batch_frames: bound on the padded size of a batch, in input frames.
    """

    name: str
    corpus: str
    features: LogMel
    ctc: CtcConfig
    hmm: HmmConfig
    lfmmi: LfmmiConfig = field(default_factory=LfmmiConfig)
    mbr: MbrConfig = field(default_factory=MbrConfig)
    phone_model: PhoneModelConfig = field(default_factory=PhoneModelConfig)
    seed: int = 1
    threads: int = 2
    batch_frames: int = 3000
    corpus_options: dict[str, Any] = field(default_factory=dict)
    augmentation: Augmentation = field(default_factory=Augmentation)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    targets: TargetsConfig = field(default_factory=TargetsConfig)

    def __post_init__(self) -> None:
        _positive(self, "threads", "batch_frames")
        if not all(c.isalnum() or c in "-_" for c in self.name) or not self.name:
            raise ArgumentError(f"name is {self.name!r}; it names a folder", argument="name")

    @property
    def frame_shift(self) -> float:
        """Seconds from one output frame to the next."""
        return self.features.frame_shift_ms * self.model.stride / 1000

    @property
    def frame_offset(self) -> float:
        """Seconds at which output frame 0 begins: it is centred on the first feature frame, not on its stride."""
        return -self.features.frame_shift_ms * (self.model.stride - 1) / 2 / 1000


def read_config(path: str | Path, assignments: Sequence[str] = ()) -> RecipeConfig:
    """A recipe's configuration from TOML, dotted keys reassigned by `key=value`.

    Raises:
        ConfigError: the file can't be read, a key is unknown or missing, a value is wrong.
    """
    return from_mapping(RecipeConfig, with_assignments(read_toml(path), assignments))
