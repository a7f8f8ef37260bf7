"""What the training transcripts allow: an n-gram over phones, in the frames of a network's labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from seqtrain.data import generator
from seqtrain.fsa import Fsa, denominator, estimate_token_model
from seqtrain.lexicon import AutomatonBuilder, HmmTopology

__all__ = ["phone_model_graph"]


def phone_model_graph(
    builder: AutomatonBuilder,
    texts: Sequence[str],
    *,
    order: int,
    smoothing: str,
    seed: int,
) -> Fsa:
    """The denominator of a recipe: all phone sequences, by an n-gram of the texts' first pronunciations.

    With an HMM silence is a phone like the others; whether it stands between two words of a text, before the first and
    after the last one, is drawn with the topology's probability.

    Args:
        builder: lexicon and topology of the network.
        texts: the training transcripts.
        order, smoothing: of the n-gram, as in `seqtrain.fsa.estimate_token_model`.
        seed: of what is drawn.
    """
    topology = builder.topology
    if not isinstance(topology, HmmTopology):
        sequences = [
            [builder.columns[phone][0] for word in text.split() for phone in builder.variants(word)[0][1]]
            for text in texts
        ]
        model = estimate_token_model(sequences, order=order, smoothing=smoothing)
        return denominator(model, "ctc", blank=builder.inventory.blank or 0)
    random = generator(seed, "silence")
    model = estimate_token_model(
        [_with_silence(builder, topology, text, random) for text in texts], order=order, smoothing=smoothing
    )
    transitions = [topology.phone] * len(builder.columns)
    if builder.lexicon.silence is not None:
        transitions[builder.phoneme_numbers[builder.lexicon.silence]] = topology.silence
    return denominator(model, "hmm", columns=builder.columns, transitions=transitions)


def _with_silence(
    builder: AutomatonBuilder, topology: HmmTopology, text: str, random: torch.Generator
) -> list[int]:
    silence = builder.lexicon.silence
    words = [builder.variants(word)[0][1] for word in text.split()]
    between = topology.silence_probability
    edge = between if topology.edge_silence_probability is None else topology.edge_silence_probability
    draws = torch.rand(len(words) + 1, generator=random, dtype=torch.float64).tolist()
    phones: list[int] = []
    for place, draw in enumerate(draws):
        probability = edge if place in (0, len(words)) else between
        if silence is not None and draw < probability:
            phones.append(builder.phoneme_numbers[silence])
        if place < len(words):
            phones += words[place]
    return phones
