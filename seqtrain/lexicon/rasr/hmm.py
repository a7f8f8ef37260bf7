"""Hidden Markov models: the flat automaton in time, with transition costs applied."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from seqtrain.lexicon.rasr.acoustics import HmmStates
from seqtrain.lexicon.rasr.flat import FlatAutomaton
from seqtrain.lexicon.rasr.frames import FrameArcs, FrameAutomaton
from seqtrain.lexicon.rasr.transitions import StateCosts, TransitionCosts

__all__ = ["hmm_automaton"]


def hmm_automaton(flat: FlatAutomaton, states: HmmStates, costs: TransitionCosts) -> FrameAutomaton:
    """The automaton of the HMM states of `flat`'s allophones.

    A state is an HMM state of an allophone on the way to a state of `flat`; being in it is having consumed a frame of
    its class. So the states of an allophone are shared by all ways that lead into the same state of `flat` with it.

    An arc costs what the state it *leaves* asks for: loop, forward or skip, and exit at the end of a word. RASR's
    quirks, reproduced:

    * Legacy: at the start and behind the end of a word, forward and skip are those of `costs.entry`, so that silence's
      own are lost. Corrected: the start is free, though a skip there costs `costs.entry.skip`.
    * Discharge, corrected only: where several ways lead into a state of `flat` and several lead out, RASR puts a state
      without memory between them. Leaving it costs the phones' forward (or skip), though going into it has cost
      forward already: forward counts twice. Going into it at the end of a word costs exit alone; there forward counts
      once, but it is the phones' also where silence is left.
    * The last state before the end of a word can't be skipped; the first one of an utterance or a word can.
    """
    chains = _Chains(flat, states)
    table = states.chains(chains.allophones)
    begins = 1 + np.cumsum(table.sizes) - table.sizes
    parts = _within(table.sizes, begins, table.silence, costs)

    # From the start, and from the last states of chains, to states near the beginning of other chains.
    sources: list[int] = []
    chain_of: list[int] = []
    place_of: list[int] = []
    paid: list[float] = []

    def connect(source: int, to: list[tuple[int, int, float]], cost: float) -> None:
        if cost < math.inf:
            for chain, place, own in to:
                sources.append(source)
                chain_of.append(chain)
                place_of.append(place)
                paid.append(cost + own)

    first = [
        [(chains.numbers[target, allophone], 0, cost) for allophone, target, cost in arcs]
        for arcs in flat.arcs
    ]
    skips = min(costs.phone.skip, costs.silence.skip, costs.entry.skip) < math.inf
    second = [chains.second_states(state, first) if skips else [] for state in range(len(flat.arcs))]
    finals: dict[int, float] = {}
    connect(0, first[0], costs.entry.forward if costs.legacy else 0.0)
    connect(0, second[0], costs.entry.skip)
    if 0 in flat.finals:
        finals[0] = flat.finals[0]
    lasts = (begins + table.sizes - 1).tolist()
    for (state, _), last, size, silence in zip(
        chains.numbers, lasts, table.sizes.tolist(), table.silence.tolist(), strict=True
    ):
        own = costs.silence if silence else costs.phone
        between = flat.between[state]
        if size > 1 and between is None:
            connect(last - 1, first[state], own.skip)
        onward = state if between is None else between
        discharge = not costs.legacy and chains.ways_in[onward] > 1 and len(flat.arcs[onward]) > 1
        forward, skip = _leaving(own, costs, word_end=between is not None, discharge=discharge)
        connect(last, first[onward], forward)
        connect(last, second[onward], skip)
        if onward in flat.finals and own.exit < math.inf:
            finals[last] = own.exit + flat.finals[onward]

    to = np.array(chain_of, dtype=np.int64)
    place = np.array(place_of, dtype=np.int64)
    parts.append((np.array(sources, dtype=np.int64), to, place, np.array(paid, dtype=np.float64)))
    source, to, place, cost = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    arcs = FrameArcs(source, begins[to] + place, table.numbers[to, place], table.classes[to, place], cost)
    return FrameAutomaton(1 + int(table.sizes.sum()), arcs, finals)


_Arcs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]
"""Source state, chain and place in it of the target, cost."""


def _within(
    sizes: NDArray[np.int64], begins: NDArray[np.int64], silence: NDArray[np.bool_], costs: TransitionCosts
) -> list[_Arcs]:
    """The arcs inside chains: loops, forward, skips."""
    places = np.arange(int(sizes.max(initial=0)))
    parts: list[_Arcs] = []
    for steps, phone, quiet in (
        (0, costs.phone.loop, costs.silence.loop),
        (1, costs.phone.forward, costs.silence.forward),
        (2, costs.phone.skip, costs.silence.skip),
    ):
        cost = np.where(silence, quiet, phone)
        chain, place = np.nonzero((places + steps < sizes[:, None]) & (cost < math.inf)[:, None])
        parts.append((begins[chain] + place, chain, place + steps, cost[chain]))
    return parts


def _leaving(
    own: StateCosts, costs: TransitionCosts, *, word_end: bool, discharge: bool
) -> tuple[float, float]:
    """What the last state of an allophone pays: to the next state, and over it."""
    if word_end:
        after = costs.entry if costs.legacy else costs.phone if discharge else own
        return own.exit + after.forward, own.exit + after.skip
    if discharge:
        return own.forward + costs.phone.forward, own.forward + costs.phone.skip
    return own.forward, own.skip


class _Chains:
    """The chains of HMM states of a flat automaton: one for each allophone that leads into a state.

    Attributes:
        numbers: (state of `flat`, allophone) → number of the chain; in that order.
        allophones: the allophone of each chain.
        ways_in: for each state of `flat` how many ways lead into it. An allophone of several states is one way,
            wherever it is entered; one of a single state is as many as there are arcs.
    """

    def __init__(self, flat: FlatAutomaton, states: HmmStates) -> None:
        self._flat = flat
        self._states = states
        self.numbers: dict[tuple[int, int], int] = {}
        self.allophones: list[int] = []
        self.ways_in = [0] * len(flat.arcs)
        for arcs, between in zip(flat.arcs, flat.between, strict=True):
            if between is not None:
                self.ways_in[between] += 1
            for allophone, target, _ in arcs:
                if (target, allophone) not in self.numbers:
                    self.numbers[target, allophone] = len(self.allophones)
                    self.allophones.append(allophone)
                elif states.size(allophone) > 1:
                    continue
                self.ways_in[target] += 1

    def second_states(
        self, state: int, first: list[list[tuple[int, int, float]]]
    ) -> list[tuple[int, int, float]]:
        """What can be reached from a state of `flat` over one HMM state in the same word: chain, place, cost."""
        found: list[tuple[int, int, float]] = []
        for allophone, target, cost in self._flat.arcs[state]:
            if self._states.size(allophone) > 1:
                found.append((self.numbers[target, allophone], 1, cost))
            elif self._flat.between[target] is None:
                found += [(chain, place, cost + own) for chain, place, own in first[target]]
        return found
