"""The word loop: one automaton that accepts any sequence of words, weighted with a bigram.

`Fsa` has no epsilon arcs, so the usual null nodes between words are folded into the arcs. A node stands for "a word
has just ended here". The last frame of word w leads, besides staying in the word, to

* the node of history w, which has an arc into each word v that was seen after w, weighted log p(v | w), and
* the backoff node, weighted with log backoff(w), which has an arc into every word v that was seen, weighted log p(v),
and
* the node before unseen words, which has an arc into each of them, weighted with the floor.

Each node has a twin that is reached through the gap between two words (silence, or blank). The size is O(states +
bigrams) and not O(words²); with CTC's rule about equal neighbours, each node stands there once for each last label. The
best path is the exact Viterbi solution: a stored bigram of `Bigram` is never below its backoff alternative, so the
maximum over both arcs is log p(v | w).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from seqtrain.decoding.bigram import SENTENCE_END, SENTENCE_START, Bigram
from seqtrain.errors import ArgumentError
from seqtrain.fsa import Fsa
from seqtrain.functional import best_path

__all__ = ["Gap", "WordAcceptor", "WordLoop", "splice_loop"]


_UTTERANCES_AT_A_TIME = 16


@dataclass(frozen=True)
class WordAcceptor:
    """One pronunciation of `word`: the frames it may take, and its log weight among the pronunciations.

    Nothing may lead back into the acceptor's start state, and the start state may not be final.
    """

    word: str
    acceptor: Fsa
    log_weight: float = 0.0


@dataclass(frozen=True)
class Gap:
    """What may stand once before the first word, between two words and after the last: silence, or blanks.

    The choice for a gap pays `present`, that against it `absent`; at both ends of the utterance (and, without any
    word, for the only choice) `edge_present` and `edge_absent`, natural-log weights all. `acceptor` is under the same
    rules as that of a word.
    """

    acceptor: Fsa
    present: float = 0.0
    absent: float = 0.0
    edge_present: float = 0.0
    edge_absent: float = 0.0


@dataclass(frozen=True)
class WordLoop:
    """An automaton over words, with what each arc means.

    `word_of_arc` (A,) int64 is the index into `words`, -1 in a gap; `starts_word` (A,) bool marks the arcs that
    consume the first frame of a word.
    """

    fsa: Fsa
    words: tuple[str, ...]
    word_of_arc: Tensor
    starts_word: Tensor

    def words_of(self, arcs: Tensor) -> list[str]:
        """The words along one path; `arcs` (T,) int64 as in `Alignment.arcs`, entries below 0 are padding."""
        arcs = arcs[arcs >= 0].cpu()
        return [self.words[i] for i in self.word_of_arc[arcs[self.starts_word[arcs]]].tolist()]

    def decode(self, scores: Tensor, lengths: Tensor) -> list[list[str]]:
        """The words of the best path of each utterance.

        Args:
            scores: (B, T, V) per-frame label scores, natural log, larger is better; a prior is to be subtracted
                before.
            lengths: (B,) frames of each utterance.

        Raises:
            InfeasibleError: an utterance is too short for any path.
            ShapeError, DtypeError, NonFiniteScoresError: as `best_path`.
        """
        decoded: list[list[str]] = []
        # A few utterances at a time: the way back through the loop takes frames x states integers for each.
        for first in range(0, scores.shape[0], _UTTERANCES_AT_A_TIME):
            part = slice(first, first + _UTTERANCES_AT_A_TIME)
            arcs = best_path(scores[part], lengths[part], self.fsa).arcs
            decoded += [self.words_of(path) for path in arcs]
        return decoded


class _Entry(NamedTuple):
    """An arc that consumes the first frame of a pronunciation; where it leads is known, where it starts is not."""

    label: int
    target: int
    weight: float
    word: int


class _Node(NamedTuple):
    """`history` None is the backoff node, `_UNSEEN` that before unseen words; `label` is the last label before the
    node, None behind a gap."""

    history: str | None
    label: int | None
    gap: bool


# No word is called that.
_UNSEEN = ""

# The node behind the gap at the end of the utterance.
_END = _Node(SENTENCE_END, None, gap=True)


@dataclass
class _Arcs:
    """Arcs in the making, and the states behind nodes."""

    arcs: list[tuple[int, int, int]] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    words: list[int] = field(default_factory=list)
    starts: list[bool] = field(default_factory=list)
    nodes: dict[_Node, int] = field(default_factory=dict)
    num_states: int = 0

    def new_states(self, count: int) -> int:
        first = self.num_states
        self.num_states += count
        return first

    def node(self, node: _Node) -> int:
        state = self.nodes.get(node)
        if state is None:
            state = self.nodes[node] = self.new_states(1)
        return state

    def add(
        self, source: int, target: int, label: int, weight: float, word: int = -1, start: bool = False
    ) -> None:
        self.arcs.append((source, target, label))
        self.weights.append(weight)
        self.words.append(word)
        self.starts.append(start)


class _Acceptor:
    """An `Fsa` as Python numbers, checked for what splicing needs."""

    def __init__(self, fsa: Fsa, name: str) -> None:
        self.arcs: list[list[int]] = fsa.arcs.tolist()
        self.weights: list[float] = fsa.weights.tolist()
        self.start = fsa.start
        self.num_states = fsa.num_states
        self.final: dict[int, float] = dict(
            zip(fsa.final_states.tolist(), fsa.final_weights.tolist(), strict=True)
        )
        if self.start in self.final:
            raise ArgumentError(f"{name} accepts zero frames: its start state is final", argument="acceptor")
        if any(target == self.start for _, target, _ in self.arcs):
            raise ArgumentError(f"{name} has an arc back into its start state", argument="acceptor")
        self.has_exit = {source for source, _, _ in self.arcs}

    def splice(
        self, graph: _Arcs, exits: Sequence[tuple[_Node, float]], word: int, weight: float
    ) -> list[_Entry]:
        """Copies the arcs into `graph`, final states leading to `exits`; the start state's arcs are returned.

        An exit without a label gets that of the arc which leads to it.
        """
        offset = graph.new_states(self.num_states)
        entries = []
        for (source, target, label), arc_weight in zip(self.arcs, self.weights, strict=True):
            targets: list[tuple[int, float]] = []
            if target in self.has_exit:
                targets.append((offset + target, 0.0))
            if target in self.final:
                targets += (
                    (
                        graph.node(node if node.gap else node._replace(label=label)),
                        self.final[target] + exit_weight,
                    )
                    for node, exit_weight in exits
                )
            for state, extra in targets:
                if source == self.start:
                    entries.append(_Entry(label, state, weight + arc_weight + extra, word))
                else:
                    graph.add(offset + source, state, label, arc_weight + extra, word)
        return entries


def splice_loop(
    pronunciations: Sequence[WordAcceptor],
    *,
    bigram: Bigram | None = None,
    lm_scale: float = 1.0,
    word_score: float = 0.0,
    gap: Gap | None = None,
    separate_repeats: bool = False,
) -> WordLoop:
    """Builds the loop over `pronunciations`.

    Args:
        pronunciations: the vocabulary; a word may have several.
        bigram: the language model; None gives every word and the end the weight 0. Words it holds but the vocabulary
            doesn't can't be recognized; words of the vocabulary it never saw cost its floor.
        lm_scale: factor on the language model's log probabilities, positive.
        word_score: added at each word (positive favours many short words).
        gap: what may stand around words; None for nothing.
        separate_repeats: a word may not directly follow a word that ends in the label it begins with; the gap must
            stand between them. This is CTC's rule.

    Raises:
        ArgumentError: no pronunciation, `lm_scale` not above 0, an acceptor that accepts zero frames or leads back
            into its own start state, or a word named like a sentence boundary.
    """
    if not pronunciations:
        raise ArgumentError("a word loop needs at least one pronunciation", argument="pronunciations")
    if not lm_scale > 0.0:
        raise ArgumentError(f"lm_scale must be positive, got {lm_scale}", argument="lm_scale")
    words = tuple(dict.fromkeys(p.word for p in pronunciations))
    if SENTENCE_START in words or SENTENCE_END in words:
        raise ArgumentError(
            f"{SENTENCE_START} and {SENTENCE_END} are the sentence's boundaries, not words",
            argument="pronunciations",
        )
    model = _Model(bigram, lm_scale, word_score, words)
    graph = _Arcs()
    graph.node(_Node(SENTENCE_START, None, gap=False))
    entries = _add_words(graph, pronunciations, words, model)
    return _join(graph, entries, words, model, gap, separate_repeats)


class _Grammar(Protocol):
    """What may follow a history, as an index into the entries, and what the end costs there (None: it may not)."""

    def successors(self, history: str | None) -> Sequence[tuple[int, float]]: ...

    def end(self, history: str | None) -> float | None: ...


def _join(
    graph: _Arcs,
    entries: Sequence[Sequence[_Entry]],
    words: tuple[str, ...],
    model: _Grammar,
    gap: Gap | None,
    separate_repeats: bool,
) -> WordLoop:
    """Leads the nodes behind words into the words that may follow, with gaps between them."""
    start = graph.node(_Node(SENTENCE_START, None, gap=False))
    between = list(graph.nodes.items())
    if gap is not None:
        _add_gaps(graph, gap, between, model)
    _add_entries(graph, gap, entries, model, separate_repeats)

    edge_absent = gap.edge_absent if gap is not None else 0.0
    final = {
        state: end + edge_absent for node, state in between if (end := model.end(node.history)) is not None
    }
    after_gap = graph.nodes.get(_END)
    if after_gap is not None:
        final[after_gap] = 0.0
    return WordLoop(
        fsa=_compact(graph, start, final),
        words=words,
        word_of_arc=torch.tensor(graph.words, dtype=torch.int64),
        starts_word=torch.tensor(graph.starts, dtype=torch.bool),
    )


def _add_words(
    graph: _Arcs, pronunciations: Sequence[WordAcceptor], words: Sequence[str], model: _Model
) -> list[list[_Entry]]:
    """Copies the words' acceptors, which lead to the nodes behind them; for each word the arcs that enter it."""
    index = {word: i for i, word in enumerate(words)}
    entries: list[list[_Entry]] = [[] for _ in words]
    for p in pronunciations:
        exits = [(_Node(None, None, gap=False), model.backoff(p.word))]
        if model.has_unseen:
            exits.append((_Node(_UNSEEN, None, gap=False), 0.0))
        if p.word in model.followers or p.word in model.ends:
            exits.append((_Node(p.word, None, gap=False), 0.0))
        acceptor = _Acceptor(p.acceptor, f"the pronunciation of {p.word!r}")
        entries[index[p.word]] += acceptor.splice(graph, exits, index[p.word], p.log_weight)
    return entries


def _add_gaps(graph: _Arcs, gap: Gap, between: Sequence[tuple[_Node, int]], model: _Grammar) -> None:
    """Gives each history a gap to the twin of its nodes, and all of them together one before the end."""
    acceptor = _Acceptor(gap.acceptor, "the gap")
    sources: dict[str | None, list[int]] = {}
    for node, state in between:
        sources.setdefault(node.history, []).append(state)
    for history, states in sources.items():
        present = gap.edge_present if history == SENTENCE_START else gap.present
        for entry in acceptor.splice(graph, [(_Node(history, None, gap=True), 0.0)], -1, present):
            for state in states:
                graph.add(state, entry.target, entry.label, entry.weight)
    for entry in acceptor.splice(graph, [(_END, 0.0)], -1, gap.edge_present):
        for node, state in between:
            end = model.end(node.history)
            if end is not None:
                graph.add(state, entry.target, entry.label, entry.weight + end)


def _add_entries(
    graph: _Arcs,
    gap: Gap | None,
    entries: Sequence[Sequence[_Entry]],
    model: _Grammar,
    separate_repeats: bool,
) -> None:
    """Leads each node into the words that the language model lets follow there."""
    for node, state in list(graph.nodes.items()):
        absent = 0.0
        if gap is not None and not node.gap:
            absent = gap.edge_absent if node.history == SENTENCE_START else gap.absent
        for word, weight in model.successors(node.history):
            for entry in entries[word]:
                if separate_repeats and not node.gap and node.label == entry.label:
                    continue
                total = absent + weight + entry.weight
                graph.add(state, entry.target, entry.label, total, entry.word, start=True)


def _compact(graph: _Arcs, start: int, final: Mapping[int, float]) -> Fsa:
    """The automaton without the states that splicing left over."""
    arcs = torch.tensor(graph.arcs, dtype=torch.int64).reshape(-1, 3)
    used = torch.unique(torch.cat([arcs[:, :2].flatten(), torch.tensor([start, *final])]))
    arcs[:, :2] = torch.searchsorted(used, arcs[:, :2].contiguous())
    position = {state: i for i, state in enumerate(used.tolist())}
    return Fsa(
        arcs.to(torch.int32),
        torch.tensor(graph.weights, dtype=torch.float32),
        num_states=len(used),
        start=position[start],
        final={position[state]: weight for state, weight in final.items()},
    )


class _Model:
    """The language model as the loop's nodes see it: scaled, and restricted to the vocabulary."""

    def __init__(
        self, bigram: Bigram | None, lm_scale: float, word_score: float, words: Sequence[str]
    ) -> None:
        self._bigram, self._scale = bigram, lm_scale
        # Histories of the vocabulary: the words seen after them, as indices into `words`, and the end.
        self.followers: dict[str, list[tuple[int, float]]] = {}
        self.ends: dict[str, float] = {}
        index = {word: i for i, word in enumerate(words)}
        for (history, word), log_prob in bigram.bigrams.items() if bigram is not None else ():
            if history not in index:
                continue
            if word == SENTENCE_END:
                self.ends[history] = lm_scale * log_prob
            elif word in index:
                self.followers.setdefault(history, []).append((index[word], lm_scale * log_prob + word_score))
        self._first = [(i, self._first_word(word) + word_score) for i, word in enumerate(words)]
        weights = [(word, (i, self._unigram(word) + word_score)) for i, word in enumerate(words)]
        seen = words if bigram is None else bigram.unigrams
        self._seen = [weight for word, weight in weights if word in seen]
        self._unseen = [weight for word, weight in weights if word not in seen]

    def _unigram(self, word: str) -> float:
        return 0.0 if self._bigram is None else self._scale * self._bigram.unigram(word)

    def _first_word(self, word: str) -> float:
        return 0.0 if self._bigram is None else self._scale * self._bigram.log_prob(word, SENTENCE_START)

    @property
    def has_unseen(self) -> bool:
        return bool(self._unseen)

    def backoff(self, word: str) -> float:
        return 0.0 if self._bigram is None else self._scale * self._bigram.backoffs.get(word, 0.0)

    def successors(self, history: str | None) -> list[tuple[int, float]]:
        if history is None:
            return self._seen
        if history == _UNSEEN:
            return self._unseen
        return self._first if history == SENTENCE_START else self.followers.get(history, [])

    def end(self, history: str | None) -> float | None:
        if history is None:
            return self._unigram(SENTENCE_END)
        return self._first_word(SENTENCE_END) if history == SENTENCE_START else self.ends.get(history)
