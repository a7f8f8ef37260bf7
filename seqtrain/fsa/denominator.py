"""Denominators: all that a language model over labels allows, in frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from seqtrain.errors import ArgumentError, LabelError
from seqtrain.fsa.automaton import Fsa
from seqtrain.fsa.token_model import TokenModel
from seqtrain.fsa.topology.chains import Inventory
from seqtrain.fsa.topology.transitions import Transitions

__all__ = ["denominator"]


class _Builder:
    """Numbers states by what they stand for, and collects arcs."""

    def __init__(self) -> None:
        self.number: dict[tuple[int, ...], int] = {}
        self.arcs: list[tuple[int, int, int]] = []
        self.weights: list[float] = []
        self.final: dict[int, float] = {}

    def state(self, *key: int) -> int:
        return self.number.setdefault(key, len(self.number))

    def arc(self, source: int, destination: int, label: int, weight: float) -> None:
        if weight > -np.inf:
            self.arcs.append((source, destination, label))
            self.weights.append(weight)

    def end(self, state: int, weight: float) -> None:
        if weight > -np.inf:
            self.final[state] = weight

    def built(self) -> Fsa:
        return Fsa(
            np.array(self.arcs, dtype=np.int64).reshape(-1, 3),
            torch.tensor(self.weights, dtype=torch.float32),
            num_states=len(self.number),
            final=self.final,
        )


def _ctc(model: TokenModel, leaving: list[list[int]], blank: int) -> Fsa:
    graph = _Builder()
    graph.state(model.start, -1)
    for source in range(model.num_states):
        graph.state(source, -1)
    for _, destination, token in model.arcs.tolist():
        graph.state(destination, token)
    for (history, last), state in list(graph.number.items()):
        if last >= 0:
            graph.arc(state, state, last, 0.0)
        graph.arc(state, graph.state(history, -1), blank, 0.0)
        for a in leaving[history]:
            _, destination, token = model.arcs[a].tolist()
            if token != last:
                graph.arc(state, graph.state(destination, token), token, float(model.weights[a]))
        graph.end(state, float(model.final[history]))
    return graph.built()


def _hmm(
    model: TokenModel,
    leaving: list[list[int]],
    columns: Mapping[int, Sequence[int]],
    transitions: Mapping[int, Transitions],
) -> Fsa:
    graph = _Builder()
    start = graph.state(model.start, -1, 0)
    entered = sorted({(destination, token) for _, destination, token in model.arcs.tolist()})

    def enter(state: int, history: int, k: int, weight: float) -> None:
        """State k of each token that may follow."""
        for a in leaving[history]:
            _, destination, token = model.arcs[a].tolist()
            target = graph.state(destination, token, k)
            graph.arc(state, target, columns[token][k], weight + float(model.weights[a]))

    enter(start, model.start, 0, 0.0)
    graph.end(start, float(model.final[model.start]))
    for history, token in entered:
        own, paid = columns[token], transitions[token]
        for k, column in enumerate(own):
            state = graph.state(history, token, k)
            graph.arc(state, state, column, paid.loop)
            for step, weight in ((1, paid.forward), (2, paid.skip)):
                if k + step < len(own):
                    graph.arc(state, graph.state(history, token, k + step), own[k + step], weight)
                elif weight > -np.inf:
                    enter(state, history, k + step - len(own), weight)
        graph.end(graph.state(history, token, len(own) - 1), paid.forward + float(model.final[history]))
    return graph.built()


def _states(
    model: TokenModel,
    states_per_label: int,
    columns: Sequence[Sequence[int]] | None,
    transitions: Transitions | Sequence[Transitions],
) -> tuple[dict[int, Sequence[int]], dict[int, Transitions]]:
    """The columns and the transitions of each token of the model."""
    tokens = np.unique(model.arcs[:, 2])
    inventory = Inventory(states_per_label=states_per_label, columns=columns, name="states_per_label")
    flat, sizes = inventory.expand(tokens)
    ends = np.cumsum(sizes)
    own = {
        v: flat[end - size : end].tolist() for v, end, size in zip(tokens.tolist(), ends, sizes, strict=True)
    }
    if not isinstance(transitions, Transitions) and tokens.size and int(tokens[-1]) >= len(transitions):
        raise ArgumentError(
            f"transitions are given for {len(transitions)} labels, and the token model has label {tokens[-1]}",
            argument="transitions",
        )
    paid = {v: transitions if isinstance(transitions, Transitions) else transitions[v] for v in own}
    if any(t.skip > -np.inf for t in paid.values()) and any(len(c) == 1 for c in own.values()):
        raise ArgumentError(
            "a skip would jump over a whole token: use at least 2 states a label", argument="transitions"
        )
    return own, paid


def denominator(
    model: TokenModel,
    topology: str,
    *,
    blank: int = 0,
    states_per_label: int = 1,
    columns: Sequence[Sequence[int]] | None = None,
    transitions: Transitions | Sequence[Transitions] = Transitions(),  # noqa: B008  # frozen, so that one shared default is safe
    all_final: bool = False,
) -> Fsa:
    """The automaton of all token sequences of a model, in the frames of a topology.

    It sums, for each token sequence that the model has, the paths of `seqtrain.fsa.ctc` or `seqtrain.fsa.hmm` of that
    sequence, times the sequence's probability. It's one Fsa, which all utterances share.

    Args:
        model: of tokens that are labels (`estimate_token_model`, `read_arpa`, `token_model_of` an OpenFst graph).
        topology: "ctc" or "hmm".
        blank: the label of CTC's blank, which is no token.
        states_per_label, columns, transitions: of "hmm", as in `seqtrain.fsa.hmm`: state k of token v has the column
            v * states_per_label + k, or `columns[v][k]`. Transitions may be given for each token. A skip needs at least
            two states of every token.
        all_final: every state ends a path for nothing, for chunks of utterances.

    Raises:
        ArgumentError: another topology, no states, a skip over a token's only state.
        LabelError: the blank is a token, a token is negative, or `columns` doesn't describe it.
    """
    leaving: list[list[int]] = [[] for _ in range(model.num_states)]
    for a, source in enumerate(model.arcs[:, 0].tolist()):
        leaving[source].append(a)
    tokens = model.arcs[:, 2]
    bad = np.flatnonzero((tokens < 0) | ((tokens == blank) & (topology == "ctc")))
    if bad.size:
        token = int(tokens[bad[0]])
        raise LabelError(
            f"arc {bad[0]} of the token model has label {token}, "
            + ("which is negative" if token < 0 else "the blank, which CTC puts between tokens itself"),
            argument="model",
            utterance=0,
            position=int(bad[0]),
            label=token,
            num_labels=None,
        )
    if topology == "ctc":
        graph = _ctc(model, leaving, blank)
    elif topology == "hmm":
        graph = _hmm(model, leaving, *_states(model, states_per_label, columns, transitions))
    else:
        raise ArgumentError(f"topology must be 'ctc' or 'hmm', got {topology!r}", argument="topology")
    if not all_final:
        return graph
    every = np.arange(graph.num_states)
    return Fsa(graph.arcs, graph.weights, num_states=graph.num_states, final=(every, np.zeros(every.size)))
