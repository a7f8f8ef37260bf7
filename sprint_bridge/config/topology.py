"""The topology of our own builder's automata, in a configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping

from seqtrain.errors import ArgumentError, ConfigError
from seqtrain.fsa import Transitions
from seqtrain.lexicon import CtcTopology, HmmTopology, RnaTopology, Topology
from sprint_bridge.config.section import Section

__all__ = ["dump_topology", "parse_topology"]


def parse_topology(section: Section) -> Topology:
    """The topology of a section."""
    kind = section.text("type", "hmm")
    topology: Topology
    if kind == "hmm":
        default = HmmTopology()
        topology = HmmTopology(
            states_per_phone=section.integer("states_per_phone", default.states_per_phone, least=1),
            phone=_transitions(section.section("phone")),
            silence=_transitions(section.section("silence")),
            silence_probability=section.number(
                "silence_probability", default.silence_probability, least=0.0, most=1.0
            ),
            edge_silence_probability=section.optional_number("edge_silence_probability", least=0.0, most=1.0),
        )
    elif kind == "ctc":
        topology = CtcTopology(blank=section.text("blank", CtcTopology().blank))
    elif kind == "rna":
        topology = RnaTopology(blank=section.text("blank", RnaTopology().blank))
    else:
        raise ConfigError(
            f"{section.key('type')} is {kind!r}; known are: hmm, ctc, rna", key=section.key("type")
        )
    section.finish()
    return topology


def dump_topology(topology: Topology) -> dict[str, object]:
    """The topology as plain values, which JSON can say, that `parse_topology` reads back."""
    return {name: _plain(value) for name, value in topology.describe().items()}


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def _transitions(section: Section) -> Transitions:
    """Either probabilities (`loop_probability`, `skip_probability`) or log weights (`loop`, `forward`,
    `skip`).
    """
    default = Transitions()
    if "loop_probability" in section:
        loop = section.number("loop_probability", least=0.0, most=1.0)
        skip = section.number("skip_probability", 0.0, least=0.0, most=1.0)
        section.finish()
        try:
            return Transitions.from_probabilities(loop=loop, skip=skip)
        except ArgumentError as error:
            raise ConfigError(
                f"{section.key('skip_probability')}: {error}", key=section.key("skip_probability")
            ) from error
    weights = {name: section.number(name, getattr(default, name)) for name in ("loop", "forward", "skip")}
    section.finish()
    try:
        return Transitions(**weights)
    except ArgumentError as error:
        raise ConfigError(
            f"{section.key(error.argument)}: {error}", key=section.key(error.argument)
        ) from error
