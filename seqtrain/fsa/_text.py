"""What the text formats of automata have in common: fields, numbers, and errors that name the line."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import numpy as np
import torch

from seqtrain.errors import ArgumentError, FsaError
from seqtrain.fsa.automaton import Fsa

__all__ = [
    "built",
    "check_dense",
    "check_dtype",
    "label_field",
    "numbered_fields",
    "state_field",
    "weight_field",
    "weight_texts",
]

# Python's int() and float() take more than these formats do: underscores, other alphabets' digits.
_INTEGER = re.compile(r"[0-9]{1,10}")
_FLOAT = re.compile(
    r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|inf(?:inity)?|nan)", re.IGNORECASE
)
_INT32_MAX = np.iinfo(np.int32).max


def numbered_fields(text: str) -> Iterator[tuple[int, list[str]]]:
    """The lines that aren't blank, with their numbers from 1, split at white space."""
    for number, line in enumerate(text.split("\n"), start=1):
        fields = line.split()
        if fields:
            yield number, fields


def _integer(field: str, *, what: str, line: int) -> int:
    if _INTEGER.fullmatch(field) is None or int(field) > _INT32_MAX:
        raise FsaError(
            f"line {line}: {what} must be a whole number 0…{_INT32_MAX}, got {field!r:.40}", line=line
        )
    return int(field)


def state_field(field: str, *, line: int) -> int:
    """A state number.

    Raises:
        FsaError: not a number, or too large.
    """
    state = _integer(field, what="a state", line=line)
    if state == _INT32_MAX:
        raise FsaError(f"line {line}: state {state} is too large", line=line, state=state)
    return state


def label_field(field: str, *, line: int) -> int:
    """A label, 0 or more.

    Raises:
        FsaError: not a number, or too large.
    """
    return _integer(field, what="a label", line=line)


def weight_field(field: str, *, line: int, sign: int, dtype: torch.dtype) -> float:
    """A number times `sign`, as a log weight.

    Raises:
        FsaError: not a number, NaN, a log weight of +inf, or too large for the dtype.
    """
    if _FLOAT.fullmatch(field) is None:
        raise FsaError(f"line {line}: the weight {field!r:.40} is not a number", line=line)
    value = sign * float(field)
    written_infinite = "inf" in field.lower()
    if math.isnan(value) or (written_infinite and value > 0):
        raise FsaError(f"line {line}: the weight {field!r:.40} stands for no probability", line=line)
    if not written_infinite and abs(value) > torch.finfo(dtype).max:
        raise FsaError(f"line {line}: the weight {field!r:.40} is too large for {dtype}", line=line)
    return value + 0.0  # never -0


def check_dtype(dtype: torch.dtype) -> None:
    """Raises ArgumentError unless float32 or float64."""
    if dtype not in (torch.float32, torch.float64):
        raise ArgumentError(f"dtype must be torch.float32 or torch.float64, got {dtype}", argument="dtype")


def check_dense(state: int, *, line: int, lines: int) -> None:
    """Refuse a state number out of all proportion to the text: memory goes with the highest number.

    Raises:
        FsaError: more than 16 states for each line, and more than 1024.
    """
    if state >= 16 * lines + 1024:
        raise FsaError(
            f"line {line}: state {state} in a text of {lines} lines: number the states without large gaps",
            line=line,
            state=state,
        )


def weight_texts(weights: torch.Tensor, *, sign: int, infinity: str) -> list[str]:
    """The shortest texts that read back as the same numbers, times `sign`; infinite ones as `infinity`."""
    values = sign * weights.detach().cpu().numpy() + 0.0
    return [str(value) if np.isfinite(value) else infinity for value in values]


def built(
    arcs: list[tuple[int, int, int]],
    weights: list[float],
    *,
    num_states: int,
    start: int,
    final: dict[int, float],
    dtype: torch.dtype,
) -> Fsa:
    """The automaton that a text describes."""
    return Fsa(
        np.array(arcs, dtype=np.int64).reshape(-1, 3),
        torch.tensor(weights, dtype=dtype),
        num_states=num_states,
        start=start,
        final=(list(final), torch.tensor(list(final.values()), dtype=dtype)),
    )
