"""Fuzz of the text readers: each mutated text is either refused with FsaError, or a valid automaton that
round-trips.

    python -m tests.fuzz.text_readers --seconds 60 [--seed N]
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable

import torch

from seqtrain.errors import FsaError
from seqtrain.fsa import (
    Fsa,
    FsaBatch,
    Transitions,
    ctc,
    from_k2_text,
    from_openfst_text,
    hmm,
    rna,
    to_k2_text,
    to_openfst_text,
)
from tests.fuzz.turns import turns_for

TOKENS = [
    *("0", "1", "2", "-1", "-2", "00", "+1", "1040", "2147483646", "2147483647", "2147483648", "4294967296"),
    *("0.5", "-0.5", "1.", ".5", "1e5", "-1e38", "1e39", "1e400", "-1e-46", "nan", "inf", "-inf"),
    *("Infinity", "-Infinity", "1_0", "0x1", "٣", "²", "9" * 30, "9" * 5000, ".", "-", "e", "1e", "[", "#"),
    *("\x00", "\ufeff"),
]
SEPARATORS = [" ", "\t", "\n", "\r\n", "\r", "\n\n", "\v", "\f", "\x1c", "\x85", "\u2028", "\u00a0", ""]


def corpus() -> list[str]:
    """Valid texts of both formats."""
    graphs = [
        Fsa([]),
        Fsa([], final={}),
        Fsa([[1, 0, 2], [0, 1, 1], [1, 0, 2]], [-1.0, -torch.inf, 0.25], final={0: -0.5, 1: -1.5}),
        Fsa([[0, 0, 0], [0, 3, 7]], [-1e-30, -1e30], num_states=6, final={3: -torch.inf, 4: 0.0}),
        ctc([[1, 1, 3]], [3])[0],
        rna([[1, 2]], [2])[0],
        hmm([[1, 2]], [2], states_per_label=3, transitions=Transitions(-0.5, -1.0, -2.0))[0],
    ]
    return [to_openfst_text(fsa) for fsa in graphs] + [to_k2_text(fsa) for fsa in graphs]


def mutated(text: str, texts: list[str], source: random.Random) -> str:
    """The text after a few random changes of characters, fields or lines."""
    for _ in range(source.choice((1, 1, 1, 2, 3, 8))):
        kind = source.randrange(9)
        at = source.randrange(len(text) + 1)
        lines = text.split("\n")
        line = source.randrange(len(lines))
        fields = lines[line].split()
        if kind == 0:
            text = text[:at] + text[at + source.choice((1, 1, 5)) :]
        elif kind == 1:
            text = text[:at] + source.choice(SEPARATORS) + text[at:]
        elif kind == 2:
            text = text[:at] + source.choice(TOKENS) + text[at:]
        elif kind == 3:
            text = (
                text[:at]
                + chr(source.choice((source.randrange(128), source.randrange(0x3000))))
                + text[at + 1 :]
            )
        elif kind == 4:
            other = source.choice(texts)
            text = text[:at] + other[source.randrange(len(other) + 1) :]
        else:
            if kind == 5 and fields:
                fields[source.randrange(len(fields))] = source.choice(TOKENS)
                lines[line] = " ".join(fields)
            elif kind == 6:
                fields.insert(source.randrange(len(fields) + 1), source.choice(TOKENS))
                lines[line] = "\t".join(fields)
            elif kind == 7:
                lines.insert(source.randrange(len(lines) + 1), lines[line])
            else:
                other_line = source.randrange(len(lines))
                lines[line], lines[other_line] = lines[other_line], lines[line]
            text = "\n".join(lines)
    return text


Reader = Callable[[str], Fsa]
Writer = Callable[[Fsa], str]


def readers() -> list[tuple[str, Reader, Reader, Writer]]:
    """Each reader with the reader and writer that its automata must round-trip through."""
    single, double = torch.float32, torch.float64

    def openfst(dtype: torch.dtype, offset: int) -> tuple[Reader, Writer]:
        return (
            lambda text: from_openfst_text(text, label_offset=offset, dtype=dtype),
            lambda fsa: to_openfst_text(fsa, label_offset=offset),
        )

    openfst_single, openfst_double = openfst(single, 1), openfst(double, 0)
    return [
        ("openfst", openfst_single[0], *openfst_single),
        ("openfst, no epsilon, double", openfst_double[0], *openfst_double),
        ("openfst transducer", lambda text: from_openfst_text(text, acceptor=False), *openfst_single),
        ("k2", from_k2_text, from_k2_text, to_k2_text),
        (
            "k2, auxiliary label, double",
            lambda text: from_k2_text(text, num_aux_labels=1, dtype=double),
            lambda text: from_k2_text(text, dtype=double),
            to_k2_text,
        ),
    ]


def check(fsa: Fsa, again: Reader, writer: Writer) -> None:
    """The automaton passes the checks of a batch, has a shortest length, and comes back from its own text.

    Raises:
        AssertionError: it doesn't.
    """
    batch = FsaBatch.from_list([fsa])
    FsaBatch(
        batch.arcs,
        batch.weights,
        final_states=batch.final_states,
        final_weights=batch.final_weights,
        starts=batch.starts,
        num_states=batch.num_states,
        arc_offsets=batch.arc_offsets,
        final_offsets=batch.final_offsets,
    )
    if not -1 <= fsa.min_length() < fsa.num_states:
        raise AssertionError(f"shortest length {fsa.min_length()} of {fsa.num_states} states")
    if not again(writer(fsa)).equal(canonical(fsa, writer)):
        raise AssertionError(f"{fsa} came back as {again(writer(fsa))}")


def canonical(fsa: Fsa, writer: Writer) -> Fsa:
    """What the writer may change: k2's writes final states in the order of their numbers."""
    if writer is not to_k2_text:
        return fsa
    order = torch.argsort(fsa.final_states)
    final = (fsa.final_states[order], fsa.final_weights[order])
    return Fsa(fsa.arcs, fsa.weights, num_states=fsa.num_states, start=fsa.start, final=final)


def fuzz(turns: Iterable[object], seed: int) -> Counter[str]:
    """Run for so many turns; how often each reader took and refused a text.

    Raises:
        RuntimeError: anything but a valid automaton or FsaError came out; holds the text.
    """
    source = random.Random(seed)
    texts = corpus()
    valid = len(texts)
    outcomes: Counter[str] = Counter()
    for _ in turns:
        text = mutated(source.choice(texts), texts, source)
        for name, reader, again, writer in readers():
            try:
                fsa = reader(text)
            except FsaError:
                outcomes[f"{name}: refused"] += 1
                continue
            except Exception as error:  # the very thing this program looks for
                raise RuntimeError(f"{name} (seed {seed}): {error!r} from {text!r}") from error
            try:
                check(fsa, again, writer)
            except Exception as error:
                raise RuntimeError(f"{name} (seed {seed}): {error!r} after reading {text!r}") from error
            outcomes[f"{name}: accepted"] += 1
            if len(text) < 400:  # texts that got through are good places to go on from
                if len(texts) < 200:
                    texts.append(text)
                else:
                    texts[source.randrange(valid, len(texts))] = text
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    outcomes = fuzz(turns_for(arguments.seconds), arguments.seed)
    for outcome, count in sorted(outcomes.items()):
        print(f"{count:9d}  {outcome}")
    print(f"{outcomes.total():9d}  texts read, nothing found")


if __name__ == "__main__":
    main()
