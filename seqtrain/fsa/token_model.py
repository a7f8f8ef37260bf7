"""Language models over labels (phones, subwords), as automata whose arcs carry tokens instead of frames."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seqtrain.errors import ArgumentError, DataError, MissingDependencyError

__all__ = ["TokenModel", "estimate_token_model", "read_arpa"]


_CONVERT = """
import sys, kaldilm
print(kaldilm.arpa2fst(sys.argv[1], disambig_symbol="#0", read_symbol_table=sys.argv[2], max_arpa_warnings=0))
"""


@dataclass(frozen=True)
class TokenModel:
    """A weighted automaton of token sequences, without epsilon.

    Attributes:
        arcs: (A, 3) int64 rows [source, destination, token]; a token is a label of the scores.
        weights: (A,) log probabilities.
        final: (S,) log probability that the sequence ends in a state; -inf where it can't.
        start: state before the first token.
    """

    arcs: NDArray[np.int64]
    weights: NDArray[np.float64]
    final: NDArray[np.float64]
    start: int = 0

    @property
    def num_states(self) -> int:
        """S."""
        return len(self.final)

    def score(self, tokens: Sequence[int]) -> float:
        """Log probability of a sequence and its end, summed over its paths; -inf where the model doesn't have it."""
        reached = np.full(self.num_states, -np.inf)
        reached[self.start] = 0.0
        for token in tokens:
            arcs = np.flatnonzero(self.arcs[:, 2] == token)
            after = np.full(self.num_states, -np.inf)
            np.logaddexp.at(after, self.arcs[arcs, 1], reached[self.arcs[arcs, 0]] + self.weights[arcs])
            reached = after
        return float(np.logaddexp.reduce(reached + self.final))


def estimate_token_model(
    transcripts: Iterable[Sequence[int]],
    *,
    order: int = 3,
    smoothing: str = "kneser-ney",
    discount: float = 0.1,
) -> TokenModel:
    """An interpolated n-gram of the transcripts, estimated by NLTK (`nltk.lm`, the extra "denominator").

    Every history that occurs is a state, from which every token that occurs can follow: with V tokens an n-gram has
    up to V^(n-1) states of V arcs each.

    Args:
        transcripts: label sequences; each starts anew and ends.
        order: n >= 1.
        smoothing: "kneser-ney" or "witten-bell".
        discount: of Kneser-Ney.

    Raises:
        ArgumentError: order or smoothing outside of what there is. DataError: no token at all.
        MissingDependencyError: NLTK isn't installed.
    """
    kinds = ("kneser-ney", "witten-bell")
    if order < 1:
        raise ArgumentError(f"order must be at least 1, got {order}", argument="order")
    if smoothing not in kinds:
        raise ArgumentError(
            f"smoothing must be one of {', '.join(map(repr, kinds))}, got {smoothing!r}", argument="smoothing"
        )
    if smoothing == "kneser-ney" and order == 1:
        raise ArgumentError(
            "Kneser-Ney counts what precedes a token, so its order must be at least 2: use 'witten-bell'",
            argument="smoothing",
        )
    try:
        from nltk.lm import KneserNeyInterpolated, WittenBellInterpolated
        from nltk.util import everygrams
    except ImportError as error:
        raise MissingDependencyError("nltk", extra="denominator") from error

    begin, end = "<s>", "</s>"
    sentences = [[str(int(token)) for token in transcript] for transcript in transcripts]
    tokens = sorted({token for sentence in sentences for token in sentence}, key=int)
    if not tokens:
        raise DataError("the transcripts hold no token: a language model needs at least one")
    padded = [[begin] * (order - 1) + [*sentence, end] for sentence in sentences]
    model = (
        KneserNeyInterpolated(order, discount=discount)
        if smoothing == "kneser-ney"
        else WittenBellInterpolated(order)
    )
    model.fit(
        (everygrams(sentence, max_len=order) for sentence in padded), vocabulary_text=[*tokens, begin, end]
    )

    histories = {
        tuple(sentence[i - size : i])
        for sentence in padded
        for i in range(order - 1, len(sentence))
        for size in range(order)
    }
    start: tuple[str, ...] = (begin,) * (order - 1)
    number: dict[tuple[str, ...], int] = {start: 0}
    queue: list[tuple[str, ...]] = [start]
    arcs: list[tuple[int, int, int]] = []
    masses: list[float] = []
    finals: list[float] = []
    for history in queue:
        scores = np.array([model.score(token, history) for token in (*tokens, end)])
        # What the vocabulary's other entries (the begin, the unknown) got is given back.
        scores /= scores.sum()
        finals.append(float(scores[-1]))
        for token, mass in zip(tokens, scores[:-1], strict=True):
            if not mass > 0.0:
                continue
            after = (*history, token)[-(order - 1) :] if order > 1 else ()
            while after and after not in histories:
                after = after[1:]
            if after not in number:
                number[after] = len(queue)
                queue.append(after)
            arcs.append((number[history], number[after], int(token)))
            masses.append(float(mass))
    with np.errstate(divide="ignore"):
        return TokenModel(np.array(arcs, dtype=np.int64).reshape(-1, 3), np.log(masses), np.log(finals))


def _without_backoff(
    arcs: list[tuple[int, int, int, float]], final: Mapping[int, float], start: int, backoff: int
) -> TokenModel:
    """Backoff is taken for what a state doesn't have itself, so that probabilities sum to one."""
    direct: dict[int, dict[int, tuple[int, float]]] = {}
    lower: dict[int, tuple[int, float]] = {}
    for source, destination, label, weight in arcs:
        if label in (0, backoff):
            if source in lower:
                raise DataError(
                    f"state {source} of the language model has two backoff arcs: one is what there may be"
                )
            lower[source] = (destination, weight)
        else:
            direct.setdefault(source, {})[label] = (destination, weight)

    def resolved(state: int) -> tuple[dict[int, tuple[int, float]], float]:
        found: dict[int, tuple[int, float]] = {}
        ending, paid, seen = -np.inf, 0.0, set[int]()
        while True:
            for label, (destination, weight) in direct.get(state, {}).items():
                found.setdefault(label, (destination, paid + weight))
            if ending == -np.inf and state in final:
                ending = paid + final[state]
            if state not in lower:
                return found, ending
            if state in seen:
                raise DataError(f"the backoff of the language model's state {state} leads back to it")
            seen.add(state)
            state, weight = lower[state][0], lower[state][1]
            paid += weight

    number = {start: 0}
    queue = [start]
    out: list[tuple[int, int, int]] = []
    weights: list[float] = []
    endings: list[float] = []
    for state in queue:
        found, ending = resolved(state)
        endings.append(ending)
        for label, (destination, weight) in sorted(found.items()):
            if destination not in number:
                number[destination] = len(queue)
                queue.append(destination)
            out.append((number[state], number[destination], label))
            weights.append(weight)
    return TokenModel(np.array(out, dtype=np.int64).reshape(-1, 3), np.array(weights), np.array(endings))


def read_arpa(path: str | Path, symbols: Mapping[str, int]) -> TokenModel:
    """An ARPA language model, by kaldilm (the extra "denominator").

    Args:
        path: the file.
        symbols: label of each token; every token of the file must be there, apart from <s>, </s> and <unk>.

    Raises:
        DataError: kaldilm can't read the file, or it holds a token without a label.
        MissingDependencyError: kaldilm isn't installed.
    """
    if importlib.util.find_spec("kaldilm") is None:
        raise MissingDependencyError("kaldilm", extra="denominator")
    known = {token: number for number, token in enumerate(symbols, start=4)}
    table = {"<eps>": 0, "#0": 1, "<s>": 2, "</s>": 3} | known
    table.setdefault("<unk>", len(table))
    with tempfile.TemporaryDirectory() as folder:
        names = Path(folder) / "symbols"
        names.write_text("".join(f"{token} {number}\n" for token, number in table.items()))
        # In a process of its own: what it can't read ends the process.
        command = [sys.executable, "-c", _CONVERT, str(path), str(names)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = " ".join(line for line in done.stderr.splitlines() if "ERROR" in line or "Error" in line)
        raise DataError(f"{path}: kaldilm can't read it as ARPA with these symbols: {reason[:500]}")
    arcs: list[tuple[int, int, int, float]] = []
    final: dict[int, float] = {}
    start: int | None = None
    for line in done.stdout.splitlines():
        fields = line.split()
        if not fields:
            continue
        start = int(fields[0]) if start is None else start
        if len(fields) <= 2:
            final[int(fields[0])] = -float(fields[1]) if len(fields) == 2 else 0.0
            continue
        weight = -float(fields[4]) if len(fields) > 4 else 0.0
        arcs.append((int(fields[0]), int(fields[1]), int(fields[2]), weight))
    if start is None:
        raise DataError(f"{path}: the language model is empty")
    labels = {number: symbols[token] for token, number in known.items()} | {table["<unk>"]: -1}
    model = _without_backoff(arcs, final, start, table["#0"])
    tokens = np.array([labels.get(int(label), -1) for label in model.arcs[:, 2]], dtype=np.int64)
    keep = tokens >= 0
    return TokenModel(
        np.column_stack((model.arcs[keep, :2], tokens[keep])), model.weights[keep], model.final, model.start
    )
