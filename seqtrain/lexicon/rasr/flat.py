"""The flat automaton: allophone sequences of a transcript, before anything is said about time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from seqtrain.errors import LexiconError
from seqtrain.lexicon.rasr.allophones import AllophoneInventory
from seqtrain.lexicon.rasr.lemma_acceptor import LemmaAcceptor
from seqtrain.lexicon.rasr.lexicon import Lemma
from seqtrain.lexicon.rasr.phonology import NO_CONTEXT, Allophone

__all__ = ["FlatAutomaton", "FlatBuilder"]


@dataclass
class FlatAutomaton:
    """Allophone sequences; state 0 is the start, each arc is one allophone.

    A word ends in a state of its own, from which the only way is to a state between words; so words that may follow one
    another (silence and what stands before it) don't share their ends, while variants of a word share what they have in
    common there.

    Attributes:
        arcs: for each state (allophone's number, next state, cost).
        between: for each state at the end of a word the state between words behind it; for others None.
        finals: state between words → cost of ending there.
    """

    arcs: list[list[tuple[int, int, float]]] = field(default_factory=list)
    between: list[int | None] = field(default_factory=list)
    finals: dict[int, float] = field(default_factory=dict)


# What is known between words of the next phoneme. A number above 0 is that phoneme itself, as the right context of the
# last one has it.
_OPEN = 0  # the last one had no right neighbour: whatever comes, and what comes has no left neighbour
_ANYTHING = -1  # there are no right contexts: whatever comes
_PAUSE = (
    -2
)  # the last one had no right neighbour: silence (or another phoneme without context) comes, or the end


class _Place(NamedTuple):
    """Where a path is, apart from the lemmas around it: within a word, at its end, or between words."""

    remaining: tuple[int, ...]
    """Phonemes of the word that are still to come."""
    left: int
    """What the next allophone says of its left neighbour; between words: if it doesn't have to be `#`."""
    coming: int
    """At the end of a word and between words: what is known of the next phoneme."""


class _Exits(NamedTuple):
    """What a state between lemmas means for the end of a word before it."""

    begins: frozenset[int]
    """The phonemes with which the lemmas behind it begin."""
    final: bool
    """Whether the utterance may end there."""


_START = _Place((), NO_CONTEXT, _OPEN)
_BETWEEN = -1
"""Stands for the number of a lemma between lemmas."""
# A service builds in several threads. One lock for all builders, which are pickled without it.
_NUMBERING = threading.Lock()


class FlatBuilder:
    """Makes flat automata of lemma acceptors.

    Args:
        inventory: the allophones there are.
        fix_contexts: `fix-allophone-context-at-word-boundaries`: an allophone at the edge of a word has the context
            `#` only beside silence (or another phoneme without context) and at the ends of the utterance; otherwise
            also beside other words. Without contexts at all the option has no meaning and is ignored (RASR crashes).
        skip_invalid: `transducer-builder-filter-out-invalid-allophones`: paths with allophones that aren't in the
            inventory are left out; otherwise they are an error.
    """

    def __init__(self, inventory: AllophoneInventory, *, fix_contexts: bool, skip_invalid: bool) -> None:
        self._inventory = inventory
        self._phonology = inventory.phonology
        self._contexts = bool(self._phonology.history or self._phonology.future)
        self._fix = fix_contexts and self._contexts
        self._skip_invalid = skip_invalid
        # Words come again and again, so everything about them is worked out once. Places are known by number.
        self._places: dict[_Place, int] = {}
        self._place_list: list[_Place] = []
        self._words: dict[tuple[int, int], list[tuple[int, float]]] = {}
        self._steps: dict[tuple[int, bool, _Exits | None], list[tuple[int, int]]] = {}

    def build(self, acceptor: LemmaAcceptor) -> FlatAutomaton | None:
        """The flat automaton of lemma sequences, None if there is no allophone sequence.

        Raises:
            LexiconError: an allophone isn't in the inventory (unless these are left out).
        """
        flat = FlatAutomaton()
        exits = [
            _Exits(acceptor.begins(state), state in acceptor.finals) for state in range(len(acceptor.arcs))
        ]
        # States are known by lemma state, lemma, place.
        numbers: dict[tuple[int, int, int], int] = {}
        waiting: list[tuple[int, int, int]] = []

        def number(state: tuple[int, int, int]) -> int:
            found = numbers.get(state)
            if found is None:
                found = numbers[state] = len(numbers)
                flat.arcs.append([])
                flat.between.append(None)
                waiting.append(state)
            return found

        number((0, _BETWEEN, self._number(_START)))
        while waiting:
            state = waiting.pop()
            source = numbers[state]
            lemma_state, lemma_number, place = state
            arcs = flat.arcs[source]
            if lemma_number == _BETWEEN:
                if lemma_state in acceptor.finals and self._place_list[place].coming <= _OPEN:
                    flat.finals[source] = acceptor.finals[lemma_state]
                for lemma, target, cost in acceptor.arcs[lemma_state]:
                    for begin, variant_cost in self._beginnings(lemma, place):
                        for allophone, following in self._onward(begin, True, exits[target]):
                            to = number((target, lemma.number, following))
                            arcs.append((allophone, to, cost + variant_cost))
            elif self._place_list[place].remaining:
                for allophone, following in self._onward(place, False, exits[lemma_state]):
                    arcs.append((allophone, number((lemma_state, lemma_number, following)), 0.0))
            else:
                flat.between[source] = number((lemma_state, _BETWEEN, place))
        return _trimmed(flat)

    def _number(self, place: _Place) -> int:
        found = self._places.get(place)
        if found is None:
            with _NUMBERING:
                found = self._places.get(place)
                if found is None:
                    found = len(self._place_list)
                    self._place_list.append(place)
                    self._places[place] = found
        return found

    def _beginnings(self, lemma: Lemma, between: int) -> list[tuple[int, float]]:
        """The beginnings of all pronunciations with which a lemma may go on from a place between words, and costs."""
        key = (lemma.number, between)
        found = self._words.get(key)
        if found is None:
            found = self._words[key] = [
                (self._number(_Place(phonemes, left, _OPEN)), cost)
                for phonemes, cost in lemma.variants
                for left in self._lefts(phonemes[0], self._place_list[between])
            ]
        return found

    def _lefts(self, phoneme: int, between: _Place) -> tuple[int, ...]:
        """The left contexts with which a word may begin with `phoneme`; none if it may not."""
        coming = between.coming
        if not self._phonology.has_context(phoneme):
            return () if coming > _OPEN else (NO_CONTEXT,)
        if coming == phoneme:
            return (between.left,)
        if coming == _OPEN:
            return (NO_CONTEXT,)
        if coming == _ANYTHING:
            across = (between.left,) if self._phonology.across_words else ()
            return across if self._fix else (*across, NO_CONTEXT)
        return ()

    def _onward(self, place: int, initial: bool, exits: _Exits) -> list[tuple[int, int]]:
        """The allophones of the next phoneme of a word, and the place behind each."""
        last = len(self._place_list[place].remaining) == 1
        key = (place, initial, exits if last else None)
        found = self._steps.get(key)
        if found is None:
            steps = self._last_step if last else self._inner_step
            found = self._steps[key] = [
                (index, self._number(following))
                for allophone, following in steps(self._place_list[place], initial, exits)
                if (index := self._index(allophone)) is not None
            ]
        return found

    def _inner_step(self, place: _Place, initial: bool, exits: _Exits) -> Iterator[tuple[Allophone, _Place]]:
        phoneme, following = place.remaining[:2]
        right = self._phonology.right(phoneme, following)
        left = self._phonology.left(following, phoneme)
        yield Allophone(phoneme, place.left, right, initial, False), _Place(place.remaining[1:], left, _OPEN)

    def _last_step(self, place: _Place, initial: bool, exits: _Exits) -> Iterator[tuple[Allophone, _Place]]:
        phoneme = place.remaining[0]
        for right, coming in self._ends(phoneme, exits):
            remembers = self._phonology.history and coming not in (_OPEN, _PAUSE)
            behind = _Place((), phoneme if remembers else NO_CONTEXT, coming)
            yield Allophone(phoneme, place.left, right, initial, True), behind

    def _ends(self, phoneme: int, exits: _Exits) -> Iterator[tuple[int, int]]:
        """The right contexts with which a word may end with `phoneme`, and what each says of the next phoneme.

        Only those that something can follow.
        """
        phonology = self._phonology
        if not self._contexts or not phonology.has_context(phoneme):
            yield NO_CONTEXT, _OPEN
            return
        if not phonology.future:
            yield NO_CONTEXT, _ANYTHING
            return
        if phonology.across_words:
            for following in sorted(exits.begins):
                if phonology.has_context(following):
                    yield following, following
        if not self._fix:
            yield NO_CONTEXT, _OPEN
        elif exits.final or not all(map(phonology.has_context, exits.begins)):
            yield NO_CONTEXT, _PAUSE

    def _index(self, allophone: Allophone) -> int | None:
        found = self._inventory.index(allophone)
        if found is None and not self._skip_invalid:
            raise LexiconError(
                f"allophone {self._phonology.name(allophone)} isn't in the inventory of {len(self._inventory)}; add it "
                "(allophones.add-from-lexicon, add-all, add-from-file), or leave such paths out "
                "(transducer-builder-filter-out-invalid-allophones)"
            )
        return found


def _trimmed(flat: FlatAutomaton) -> FlatAutomaton | None:
    """Without what doesn't lead to an end; None if nothing does."""
    sources: list[list[int]] = [[] for _ in flat.arcs]
    for source, arcs in enumerate(flat.arcs):
        for _, target, _ in arcs:
            sources[target].append(source)
        between = flat.between[source]
        if between is not None:
            sources[between].append(source)
    alive = set(flat.finals)
    waiting = list(alive)
    while waiting:
        for source in sources[waiting.pop()]:
            if source not in alive:
                alive.add(source)
                waiting.append(source)
    if 0 not in alive:
        return None
    if len(alive) < len(flat.arcs):
        for source, arcs in enumerate(flat.arcs):
            flat.arcs[source] = [arc for arc in arcs if arc[1] in alive] if source in alive else []
            if source not in alive:
                flat.between[source] = None
    return flat
