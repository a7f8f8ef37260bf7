"""Lexicon ∘ LM: a language model's acceptor of words, each word replaced by its pronunciations.

A pronunciation stands there once for each state of the language model that the word leads to, so that a bigram costs
as many copies as words, and an n-gram as many as it has histories of a last word.
"""

from __future__ import annotations

from collections.abc import Sequence

from seqtrain.decoding.bigram import SENTENCE_START
from seqtrain.decoding.splice import Gap, WordAcceptor, WordLoop, _Acceptor, _Arcs, _Entry, _join, _Node
from seqtrain.decoding.symbols import SymbolTable
from seqtrain.errors import ArgumentError
from seqtrain.fsa import Fsa

__all__ = ["splice_lm"]


class _States:
    """The states of a language model as histories: `str(state)`, and SENTENCE_START for its start."""

    def __init__(self, lm: Fsa, lm_scale: float, word_score: float) -> None:
        self.start = lm.start
        self.targets: dict[tuple[int, int], int] = {}
        """Number of each (word, state that it leads to)."""
        self._successors: dict[str, list[tuple[int, float]]] = {}
        for (p, q, word), weight in zip(lm.arcs.tolist(), lm.weights.tolist(), strict=True):
            if weight > float("-inf"):
                number = self.targets.setdefault((word, q), len(self.targets))
                self._successors.setdefault(str(p), []).append((number, lm_scale * weight + word_score))
        finals = zip(lm.final_states.tolist(), lm.final_weights.tolist(), strict=True)
        self._ends = {str(state): lm_scale * weight for state, weight in finals if weight > float("-inf")}

    def _name(self, history: str | None) -> str:
        return str(self.start) if history == SENTENCE_START else str(history)

    def successors(self, history: str | None) -> Sequence[tuple[int, float]]:
        return self._successors.get(self._name(history), [])

    def end(self, history: str | None) -> float | None:
        return self._ends.get(self._name(history))


def splice_lm(
    pronunciations: Sequence[WordAcceptor],
    lm: Fsa,
    symbols: SymbolTable,
    *,
    lm_scale: float = 1.0,
    word_score: float = 0.0,
    gap: Gap | None = None,
    separate_repeats: bool = False,
) -> WordLoop:
    """Builds the graph of the language model's sentences; arguments are those of `lexicon_graph` and `splice_loop`.

    Raises:
        ArgumentError: a word of the language model that has no pronunciation or no symbol, `lm_scale` not above 0, or
            an acceptor that accepts zero frames or leads back into its own start state.
    """
    if not lm_scale > 0.0:
        raise ArgumentError(f"lm_scale must be positive, got {lm_scale}", argument="lm_scale")
    spelled: dict[str, list[WordAcceptor]] = {}
    for p in pronunciations:
        spelled.setdefault(p.word, []).append(p)
    model = _States(lm, lm_scale, word_score)
    graph = _Arcs()
    graph.node(_Node(SENTENCE_START, None, gap=False))
    words = tuple(dict.fromkeys(symbols[word] for word, _ in model.targets))
    index = {word: i for i, word in enumerate(words)}
    entries: list[list[_Entry]] = []
    for word, state in model.targets:
        name = symbols[word]
        if name not in spelled:
            raise ArgumentError(
                f"the language model's word {name!r} (id {word}) has no pronunciation",
                argument="pronunciations",
            )
        exits = [(_Node(str(state), None, gap=False), 0.0)]
        entries.append([])
        for p in spelled[name]:
            acceptor = _Acceptor(p.acceptor, f"the pronunciation of {name!r}")
            entries[-1] += acceptor.splice(graph, exits, index[name], p.log_weight)
    return _join(graph, entries, words, model, gap, separate_repeats)
