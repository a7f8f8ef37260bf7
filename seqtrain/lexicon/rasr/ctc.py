"""Connectionist temporal classification: the flat automaton in time, with blanks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seqtrain.lexicon.rasr.acoustics import HmmStates
from seqtrain.lexicon.rasr.flat import FlatAutomaton
from seqtrain.lexicon.rasr.frames import FrameArcs, FrameAutomaton
from seqtrain.lexicon.rasr.hmm import hmm_automaton
from seqtrain.lexicon.rasr.transitions import TransitionCosts

__all__ = ["ctc_automaton"]


def ctc_automaton(
    flat: FlatAutomaton, states: HmmStates, costs: TransitionCosts, *, blank: tuple[int, int]
) -> FrameAutomaton:
    """The HMM automaton with a blank on each way between two states.

    RASR makes a state of blank for each arc between two states of labels, not for each state, so that ways that part
    or meet have several where one would do. The arc itself stays, unless both states have the same class: then a blank
    must stand between. Behind each final state there is a last blank.

    Args:
        flat, states, costs: as for `hmm_automaton`; loops and steps are free.
        blank: number and class of blank's allophone state.
    """
    labels = hmm_automaton(flat, states, costs)
    size = labels.num_states
    arcs = labels.arcs
    class_of = np.full(size, -1)
    class_of[arcs.target] = arcs.label
    loop = arcs.source == arcs.target
    direct = loop | (class_of[arcs.source] != arcs.label)
    # The blanks of a state have numbers in reverse order of its arcs, those of the start excepted; it shows in the
    # order of the states of variants.
    steps = np.flatnonzero(~loop)
    order = np.lexsort((np.where(arcs.source[steps] == 0, steps, -steps), arcs.source[steps]))
    ways = arcs.take(steps[order])
    between = size + np.arange(len(steps))
    ends = np.array(list(labels.finals), dtype=np.int64)
    behind = size + len(steps) + np.arange(len(ends))
    blanks = np.concatenate((between, behind))

    def blank_arcs(source: NDArray[np.int64]) -> FrameArcs:
        number, label = (np.full(len(blanks), value) for value in blank)
        return FrameArcs(source, blanks, number, label, np.zeros(len(blanks)))

    return FrameAutomaton(
        size + len(blanks),
        FrameArcs.joined(
            (
                arcs.take(direct),
                blank_arcs(np.concatenate((ways.source, ends))),
                blank_arcs(blanks),
                ways._replace(source=between),
            )
        ),
        {**labels.finals, **dict(zip(behind.tolist(), labels.finals.values(), strict=True))},
    )
