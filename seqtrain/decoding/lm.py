"""Language models as acceptors of words, without epsilon."""

from __future__ import annotations

import torch

from seqtrain.decoding.bigram import SENTENCE_END, SENTENCE_START, Bigram
from seqtrain.decoding.symbols import SymbolTable
from seqtrain.fsa import Fsa

__all__ = ["bigram_acceptor"]


def bigram_acceptor(bigram: Bigram, symbols: SymbolTable) -> Fsa:
    """The bigram over the words of a table: labels are their ids, weights log p(word | history).

    State 0 is the start, state 1 + k stands behind the k-th word of the table; the final weights are those of the
    sentence's end. There is an arc for each pair of words: for a large vocabulary `word_loop` shares backoffs instead.
    """
    words = [word for word in symbols if word not in (SENTENCE_START, SENTENCE_END)]
    histories = [SENTENCE_START, *words]
    arcs = [[p, 1 + k, symbols.id(word)] for p in range(len(histories)) for k, word in enumerate(words)]
    weights = [bigram.log_prob(word, history) for history in histories for word in words]
    ends = [bigram.log_prob(SENTENCE_END, history) for history in histories]
    return Fsa(
        torch.tensor(arcs, dtype=torch.int64).reshape(-1, 3),
        torch.tensor(weights, dtype=torch.float64),
        num_states=len(histories),
        final=(list(range(len(histories))), torch.tensor(ends, dtype=torch.float64)),
    )
