"""Language models from OpenFst's world as token models: epsilons are removed in the log semiring, which keeps sums."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from seqtrain.errors import LabelError
from seqtrain.fsa.automaton import Fsa
from seqtrain.fsa.operations import connect, remove_epsilon
from seqtrain.fsa.token_model import TokenModel
from seqtrain.fsa.wfst import EPSILON, Wfst

__all__ = ["token_model_of"]


def token_model_of(
    graph: Wfst | Fsa, labels: Mapping[int, int] | None = None, *, silent: Collection[int] = ()
) -> TokenModel:
    """The token model of a graph such as `seqtrain.fsa.openfst.read_openfst` reads; for `denominator`.

    A sequence's probability is the sum over all of the graph's paths with that sequence, epsilons anywhere. So a
    backoff that is an epsilon counts beside the n-gram itself, as in all of OpenFst; `read_arpa` takes it for what a
    state doesn't have.

    Args:
        graph: its input labels are tokens, 0 is epsilon.
        labels: token of each input label; None: the label less one, as columns have it throughout.
        silent: input labels that stand for nothing, such as `#0` of a backoff.

    Raises:
        LabelError: an input label has no token. MissingDependencyError: OpenFst (pynini) isn't installed.
    """
    graph = Wfst.from_fsa(graph) if isinstance(graph, Fsa) else graph
    heard = np.where(np.isin(graph.arcs[:, 2], list(silent)), EPSILON, graph.arcs[:, 2])
    used = np.unique(heard[heard != EPSILON]).tolist()
    missing = [label for label in used if labels is not None and label not in labels]
    if missing:
        position = int(np.flatnonzero(heard == missing[0])[0])
        raise LabelError(
            f"arc {position} of the language model has label {missing[0]}, which labels gives no token",
            argument="labels", utterance=0, position=position, label=missing[0], num_labels=None,
        )  # fmt: skip
    acceptor = replace(graph, arcs=np.column_stack((graph.arcs[:, :2], heard, heard)))
    plain = connect(remove_epsilon(acceptor, semiring="log"))
    tokens = [label - 1 if labels is None else labels[label] for label in plain.arcs[:, 2].tolist()]
    final = np.full(plain.num_states, -np.inf)
    final[plain.final_states] = plain.final_weights
    arcs = np.column_stack((plain.arcs[:, :2], np.array(tokens, dtype=np.int64)))
    return TokenModel(arcs, plain.weights, final, plain.start)
