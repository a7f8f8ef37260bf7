"""Which label sequences of frames a pronunciation stands for, and what they cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TypeAlias

from seqtrain.errors import ArgumentError
from seqtrain.fsa import Transitions

__all__ = ["CtcTopology", "HmmTopology", "RnaTopology", "Topology"]


@dataclass(frozen=True)
class HmmTopology:
    """Hidden Markov models: a chain of states for each phoneme, optional silence of one state around each
    word.

    Attributes:
        states_per_phone: states of each phoneme other than silence, each with a label of its own.
        phone: what a state of a phoneme pays (natural log).
        silence: what the state of silence pays.
        silence_probability: of silence between two words; 0: never.
        edge_silence_probability: of silence before the first and after the last word; None: as between words.

    Raises:
        ArgumentError: no states, or a probability outside [0, 1].
    """

    states_per_phone: int = 3
    phone: Transitions = field(default_factory=Transitions)
    silence: Transitions = field(default_factory=Transitions)
    silence_probability: float = 0.5
    edge_silence_probability: float | None = None

    def __post_init__(self) -> None:
        if self.states_per_phone < 1:
            raise ArgumentError(
                f"states_per_phone must be at least 1, got {self.states_per_phone}",
                argument="states_per_phone",
            )
        for name in ("silence_probability", "edge_silence_probability"):
            value = getattr(self, name)
            if value is not None and not 0.0 <= value <= 1.0:
                raise ArgumentError(f"{name} must be in [0, 1], got {value}", argument=name)

    @property
    def has_silence(self) -> bool:
        """Whether silence can occur anywhere."""
        return self.silence_probability > 0.0 or bool(self.edge_silence_probability)

    def describe(self) -> dict[str, object]:
        """All that decides what automata look like, for digests."""
        return {"type": "hmm", **asdict(self)}


@dataclass(frozen=True)
class CtcTopology:
    """Connectionist temporal classification: one label for each phoneme, blanks around them, no silence.

    Attributes:
        blank: name of the blank's label, which is column 0; a lexicon with a blank phoneme of its own names
            it instead, and its column is the phoneme's place in the inventory.
    """

    blank: str = "<blank>"

    def describe(self) -> dict[str, object]:
        """All that decides what automata look like, for digests."""
        return {"type": "ctc", **asdict(self)}


@dataclass(frozen=True)
class RnaTopology:
    """Recurrent neural aligner: as CTC, but each label stands on exactly one frame.

    Attributes:
        blank: as of `CtcTopology`.
    """

    blank: str = "<blank>"

    def describe(self) -> dict[str, object]:
        """All that decides what automata look like, for digests."""
        return {"type": "rna", **asdict(self)}


Topology: TypeAlias = HmmTopology | CtcTopology | RnaTopology
