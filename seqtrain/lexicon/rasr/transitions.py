"""Time distortion penalties (TDPs): what it costs to stay in a state, to go on, to skip one, to leave a word."""

from __future__ import annotations

import math
from dataclasses import dataclass

from seqtrain.lexicon.rasr.configuration import Configuration

__all__ = ["StateCosts", "TransitionCosts"]


@dataclass(frozen=True)
class StateCosts:
    """Costs (-ln) of the ways out of a state; infinity forbids one.

    Attributes:
        loop: staying.
        forward: to the next state.
        skip: to the state behind the next one; takes the place of `forward`.
        exit: besides, at the end of a word.
    """

    loop: float
    forward: float
    skip: float
    exit: float


@dataclass(frozen=True)
class TransitionCosts:
    """The costs of a transition model.

    Attributes:
        phone: states of phonemes; of all of them, the ones of `state-0` in the configuration.
        silence: the state of silence.
        entry: where no state has been before, `entry-m1` in the configuration.
        legacy: whether what comes behind the start and behind the end of a word costs `entry.forward` or `entry.skip`,
            whatever the state before; otherwise the start is free, and the state before decides.
    """

    phone: StateCosts
    silence: StateCosts
    entry: StateCosts
    legacy: bool

    @classmethod
    def from_configuration(cls, configuration: Configuration) -> TransitionCosts:
        """The costs in a configuration (`acoustic-model.tdp`), times its `scale`.

        `tying-type=global-and-nonword` is accepted and changes nothing: RASR's exporter tells silence from other
        phonemes, no more.

        Raises:
            ConfigError: an unknown applicator or tying, or a cost that isn't a number.
        """
        configuration.choice("tying-type", ("global", "global-and-nonword"), "global")
        applicator = configuration.choice("applicator-type", ("legacy", "corrected"), "legacy")
        scale = configuration.number("scale", 1.0)
        if not math.isfinite(scale):
            raise configuration.error("scale", f"is {scale}; it must be finite")

        def costs(state: str) -> StateCosts:
            def cost(kind: str, default: float) -> float:
                value = configuration.number(f"{state}.{kind}", default)
                if value == -math.inf:
                    raise configuration.error(f"{state}.{kind}", "is -infinity; a cost may only be infinity")
                # Zero times infinity would be no number: what is forbidden stays so.
                return value if value == math.inf else value * scale

            return StateCosts(cost("loop", 3.0), cost("forward", 0.0), cost("skip", 3.0), cost("exit", 0.0))

        return cls(costs("state-0"), costs("silence"), costs("entry-m1"), applicator == "legacy")
