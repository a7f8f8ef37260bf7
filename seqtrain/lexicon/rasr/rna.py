"""Recurrent neural aligner: one frame a label, blanks anywhere between."""

from __future__ import annotations

from seqtrain.lexicon.rasr.acoustics import HmmStates
from seqtrain.lexicon.rasr.flat import FlatAutomaton
from seqtrain.lexicon.rasr.frames import FrameArcs, FrameAutomaton

__all__ = ["rna_automaton"]


def rna_automaton(flat: FlatAutomaton, states: HmmStates, *, blank: tuple[int, int]) -> FrameAutomaton:
    """The flat automaton, with loops of blank on all states, also the start and the ends.

    Args:
        flat: allophone sequences.
        states: the states of allophones, each consumed once.
        blank: number and class of blank's allophone state.
    """
    allophones = sorted({allophone for arcs in flat.arcs for allophone, _, _ in arcs})
    table = states.chains(allophones)
    chains = {
        allophone: list(zip(numbers[:size], classes[:size], strict=True))
        for allophone, size, numbers, classes in zip(
            allophones, table.sizes.tolist(), table.numbers.tolist(), table.classes.tolist(), strict=True
        )
    }
    rows: list[tuple[int, int, int, int, float]] = []
    finals: dict[int, float] = {}
    num_states = len(flat.arcs)
    # The states inside an allophone of several are shared by all ways into the same state of `flat` with it.
    inside: dict[tuple[int, int], int] = {}
    for source, between in enumerate(flat.between):
        # What stands behind the end of a word belongs to the end itself.
        onward = source if between is None else between
        if onward in flat.finals:
            finals[source] = flat.finals[onward]
        for allophone, target, cost in flat.arcs[onward]:
            (number, label), *rest = chains[allophone]
            begin = inside.get((target, allophone), num_states) if rest else target
            rows.append((source, begin, number, label, cost))
            if begin == num_states:
                inside[target, allophone] = begin
                num_states += len(rest)
                for place, (number, label) in enumerate(rest, start=begin):
                    rows.append((place, target if place + 1 == num_states else place + 1, number, label, 0.0))
    rows += [(state, state, *blank, 0.0) for state in range(num_states)]
    return FrameAutomaton(num_states, FrameArcs.from_rows(rows), finals)
