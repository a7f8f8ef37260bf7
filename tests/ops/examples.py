"""Random batches for the operators: scores, lengths and automata from a seed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from seqtrain.fsa import Fsa, FsaBatch, Transitions, ctc, hmm, linear, rna

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
TOPOLOGIES = ("ctc", "rna", "hmm", "linear")


class Batch(NamedTuple):
    """`scores` (B, T, V), `lengths` (B,) and B automata."""

    scores: torch.Tensor
    lengths: torch.Tensor
    automata: FsaBatch


class CtcBatch(NamedTuple):
    """`scores` (B, T, V), `targets` (B, U), `lengths` (B,), `target_lengths` (B,): every utterance has a path."""

    scores: torch.Tensor
    targets: torch.Tensor
    lengths: torch.Tensor
    target_lengths: torch.Tensor


def random_scores(
    random: np.random.Generator, *shape: int, dtype: torch.dtype = torch.float32, scale: float = 3.0
) -> torch.Tensor:
    """Normally distributed scores."""
    return torch.from_numpy(random.normal(scale=scale, size=shape)).to(dtype)


def random_fsa(
    random: np.random.Generator,
    *,
    states: int,
    arcs: int,
    labels: int,
    acyclic: bool = False,
    forbidden: float = 0.1,
    dtype: torch.dtype = torch.float32,
) -> Fsa:
    """Any automaton: parallel arcs, several labels into a state, dead and unreachable states, forbidden arcs.

    The start is any state (the first, if acyclic), entered again where there are cycles; a third of the states are
    final, the start perhaps among them, one of them forbidden now and then.
    """
    ends = random.integers(0, states, size=(arcs, 2))
    if acyclic:
        ends.sort(axis=1)
        ends = ends[ends[:, 0] < ends[:, 1]]
    weights = random.normal(size=len(ends))
    weights[random.random(len(ends)) < forbidden] = -np.inf
    finals = random.permutation(states)[: max(1, states // 3)]
    if acyclic:
        finals = np.union1d(finals, [states - 1])
    final_weights = random.normal(size=finals.size)
    final_weights[1:][random.random(finals.size - 1) < forbidden] = -np.inf
    return Fsa(
        np.column_stack((ends, random.integers(0, labels, size=len(ends)))),
        torch.tensor(weights, dtype=dtype),
        num_states=states,
        start=0 if acyclic else int(random.integers(states)),
        final=(finals, torch.tensor(final_weights, dtype=dtype)),
    )


def ergodic(
    random: np.random.Generator, states: int, out_degree: int, labels: int, *, all_final: bool = True
) -> Fsa:
    """Labels on states, loops everywhere, as of a phone language model."""
    source = np.repeat(np.arange(states), out_degree)
    destination = random.integers(0, states, size=source.size)
    destination[::out_degree] = np.arange(states)
    label = random.integers(0, labels, size=states)[destination]
    final = np.arange(states) if all_final else np.array([states - 1])
    return Fsa(
        np.column_stack((source, destination, label)),
        torch.from_numpy(np.log(random.dirichlet(np.ones(out_degree), size=states)).ravel()).float(),
        num_states=states,
        final=(final, np.zeros(final.size)),
    )


def random_batch(
    seed: int,
    *,
    batch: int = 4,
    frames: int = 9,
    labels: int = 7,
    states: int = 9,
    arcs: int = 40,
    acyclic: bool = False,
    dtype: torch.dtype = torch.float32,
    scale: float = 3.0,
) -> Batch:
    """Random automata; some utterances may have no path."""
    random = np.random.default_rng(seed)
    double = torch.float64 if dtype == torch.float64 else torch.float32
    automata = [
        random_fsa(random, states=states, arcs=arcs, labels=labels, acyclic=acyclic, dtype=double)
        for _ in range(batch)
    ]
    return Batch(
        random_scores(random, batch, frames, labels, dtype=dtype, scale=scale),
        torch.from_numpy(random.integers(0, frames + 1, size=batch)),
        FsaBatch.from_list(automata),
    )


def random_ctc_batch(
    seed: int,
    *,
    batch: int = 4,
    frames: int = 24,
    labels: int = 7,
    targets: int = 8,
    dtype: torch.dtype = torch.float32,
    scale: float = 3.0,
) -> CtcBatch:
    """Targets of 0 … `targets` labels (blank is 0, neighbours often equal); each fits into its frames."""
    random = np.random.default_rng(seed)
    rows = random.integers(1, labels, size=(batch, targets))
    repeat = random.random((batch, targets)) < 0.3
    for u in range(1, targets):
        rows[:, u] = np.where(repeat[:, u], rows[:, u - 1], rows[:, u])
    target_lengths = random.integers(0, targets + 1, size=batch)
    if batch:
        target_lengths[0] = targets
    needed = target_lengths + [
        int((row[1:length] == row[: max(length - 1, 0)]).sum())
        for row, length in zip(rows, target_lengths, strict=True)
    ]
    lengths = np.array([random.integers(n, frames + 1) for n in needed], dtype=np.int64)
    if batch:
        lengths[-1] = frames
    return CtcBatch(
        random_scores(random, batch, frames, labels, dtype=dtype, scale=scale),
        torch.from_numpy(rows),
        torch.from_numpy(lengths),
        torch.from_numpy(target_lengths),
    )


def random_topology(
    name: str, seed: int, *, batch: int = 3, frames: int = 20, dtype: torch.dtype = torch.float32
) -> Batch:
    """Automata of one of `TOPOLOGIES` over 8 labels, and scores of as many frames as they accept."""
    random = np.random.default_rng(seed)
    labels = 8
    longest = frames if name == "linear" else frames // 4
    targets = random.integers(1, labels // (2 if name == "hmm" else 1), size=(batch, longest))
    target_lengths = random.integers(1, longest + 1, size=batch)
    lengths = random.integers(frames * 3 // 4, frames + 1, size=batch)
    if name == "ctc":
        automata = ctc(targets, target_lengths)
    elif name == "rna":
        automata = rna(targets, target_lengths)
    elif name == "hmm":
        weights = Transitions(loop=-0.4, forward=-1.1, skip=-2.5)
        automata = hmm(targets, target_lengths, states_per_label=2, transitions=weights)
    elif name == "linear":
        automata, lengths = linear(targets, target_lengths), target_lengths
    else:
        raise ValueError(name)
    if dtype == torch.float64:
        automata = automata.with_weights(automata.weights.double(), automata.final_weights.double())
    return Batch(
        random_scores(random, batch, frames, labels, dtype=dtype), torch.from_numpy(lengths), automata
    )


def packed_rows(scores: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """(ΣT, V): the frames of all utterances without padding."""
    return torch.cat(
        [scores[b, :length] for b, length in enumerate(lengths.tolist())] or [scores.flatten(0, 1)]
    )


def offsets_of(lengths: torch.Tensor) -> torch.Tensor:
    """(B + 1,) offsets of packed scores."""
    return torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
