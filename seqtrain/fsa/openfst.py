"""OpenFst's own graphs and files, through its Python module `pywrapfst` (of the package pynini), the one place that
imports it.

OpenFst's weights are costs, -log. Its semirings differ in what becomes of paths that meet: "log" adds their
probabilities (arcs of type log64, double precision), "tropical" keeps the best (arcs of type standard, float32).
"""

from __future__ import annotations

import importlib
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqtrain.errors import ArgumentError, DataError, FsaError, MissingDependencyError
from seqtrain.fsa.automaton import Fsa
from seqtrain.fsa.wfst import Wfst

__all__ = [
    "SEMIRINGS",
    "check_semiring",
    "from_openfst",
    "pywrapfst",
    "read_openfst",
    "read_symbols",
    "symbol_table",
    "to_openfst",
    "write_openfst",
    "write_symbols",
]

SEMIRINGS = {"log": "log64", "tropical": "standard"}
"""Semiring → OpenFst's type of arc."""

_WEIGHTS = {"standard": "<f4", "log": "<f4", "log64": "<f8"}
"""Type of arc → its weights in the binary form."""


def pywrapfst() -> Any:
    """OpenFst's module.

    Raises:
        MissingDependencyError: pynini isn't installed.
    """
    try:
        return importlib.import_module("pywrapfst")
    except ImportError as error:
        raise MissingDependencyError("pynini", extra="openfst") from error


def check_semiring(semiring: str) -> str:
    """OpenFst's type of arc for it.

    Raises:
        ArgumentError: neither "log" nor "tropical".
    """
    if semiring not in SEMIRINGS:
        raise ArgumentError(
            f"semiring must be 'log' (paths add up) or 'tropical' (the best path counts), got {semiring!r}",
            argument="semiring",
        )
    return SEMIRINGS[semiring]


def symbol_table(symbols: Mapping[int, str] | None) -> Any:
    """OpenFst's table of these names, or None."""
    if symbols is None:
        return None
    table = pywrapfst().SymbolTable()
    for label, name in symbols.items():
        table.add_symbol(name, label)
    return table


def _symbols(table: Any) -> dict[int, str] | None:
    return None if table is None else {int(label): str(name) for label, name in table}


def to_openfst(graph: Wfst | Fsa, *, semiring: str) -> Any:
    """The graph as a `pywrapfst.VectorFst`; an `Fsa` with its columns plus one as labels.

    Raises:
        ArgumentError: an unknown semiring. MissingDependencyError: pynini isn't installed.
    """
    arc_type = check_semiring(semiring)
    module = pywrapfst()
    wfst = Wfst.from_fsa(graph) if isinstance(graph, Fsa) else graph
    fst = module.VectorFst(arc_type=arc_type)
    fst.add_states(wfst.num_states)
    fst.set_start(wfst.start)
    for (source, destination, label, output), weight in zip(
        wfst.arcs.tolist(), wfst.weights.tolist(), strict=True
    ):
        cost = module.Weight(fst.weight_type(), 0.0 - weight)
        fst.add_arc(source, module.Arc(label, output, cost, destination))
    for state, weight in zip(wfst.final_states.tolist(), wfst.final_weights.tolist(), strict=True):
        fst.set_final(state, module.Weight(fst.weight_type(), 0.0 - weight))
    fst.set_input_symbols(symbol_table(wfst.input_symbols))
    fst.set_output_symbols(symbol_table(wfst.output_symbols))
    return fst


def from_openfst(fst: Any) -> Wfst:
    """A `pywrapfst.Fst` with arcs of type standard, log or log64; arcs by source, in their order there.

    A graph without states becomes one state that isn't final.

    Raises:
        FsaError: another type of arc, or a weight that is NaN, which is how OpenFst marks a failed operation.
    """
    if fst.arc_type() not in _WEIGHTS:
        raise FsaError(
            f"OpenFst's arcs of type {fst.arc_type()!r} can't be read: convert them to standard, log or log64"
        )
    # Python's view of a weight is a text of 9 digits; the binary form has all of them.
    plain = pywrapfst().VectorFst.read_from_string(pywrapfst().convert(fst, "vector").write_to_string())
    plain.set_input_symbols(None)
    plain.set_output_symbols(None)
    arcs, finals = _states_and_arcs(plain.write_to_string(), _WEIGHTS[fst.arc_type()])
    final_weights = 0.0 - finals.astype(np.float64)
    final = np.flatnonzero(final_weights > -np.inf)
    return Wfst(
        np.column_stack([arcs[name] for name in ("source", "destination", "input", "output")]),
        0.0 - arcs["weight"].astype(np.float64),
        max(len(finals), 1),
        max(plain.start(), 0),
        final,
        final_weights[final],
        _symbols(fst.input_symbols()),
        _symbols(fst.output_symbols()),
    )


def _states_and_arcs(binary: bytes, weight: str) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
    """Columns of arcs and the cost of each state as a final one, of OpenFst's binary form without symbol tables."""
    place = 4
    for _ in ("type of the graph", "type of its arcs"):
        (length,) = struct.unpack_from("<i", binary, place)
        place += 4 + length
    place += 4 + 4 + 8  # version, flags, properties
    _, num_states, _ = struct.unpack_from("<qqq", binary, place)
    place += 3 * 8
    row = np.dtype([("input", "<i4"), ("output", "<i4"), ("weight", weight), ("destination", "<i4")])
    final = np.dtype([("weight", weight), ("arcs", "<i8")])
    costs, counts, tables = [], [], [np.zeros(0, dtype=row)]
    for _ in range(num_states):
        state = np.frombuffer(binary, dtype=final, count=1, offset=place)[0]
        place += final.itemsize
        costs.append(state["weight"])
        counts.append(int(state["arcs"]))
        tables.append(np.frombuffer(binary, dtype=row, count=counts[-1], offset=place))
        place += counts[-1] * row.itemsize
    table = np.concatenate(tables)
    columns = {name: table[name].astype(np.int64) for name in ("input", "output", "destination")}
    columns["source"] = np.repeat(np.arange(num_states), np.array(counts, dtype=np.int64))
    return {**columns, "weight": table["weight"]}, np.array(costs, dtype=weight)


def read_openfst(path: str | Path) -> Wfst:
    """OpenFst's binary file, with the symbol tables in it.

    Raises:
        DataError: missing, or no such file.
    """
    module = pywrapfst()
    try:
        fst = module.Fst.read(str(path))
    except (module.FstError, OSError) as error:
        raise DataError(f"{path} can't be read as an OpenFst file: {error}", path=str(path)) from error
    return from_openfst(fst)


def write_openfst(graph: Wfst | Fsa, path: str | Path, *, semiring: str) -> None:
    """Writes OpenFst's binary file: arcs of type standard for "tropical", which all of Kaldi reads, log64 for "log".

    Raises:
        DataError: the file can't be written.
    """
    fst = to_openfst(graph, semiring=semiring)
    try:
        fst.write(str(path))
    except (pywrapfst().FstError, OSError) as error:
        raise DataError(f"{path} can't be written: {error}", path=str(path)) from error


def read_symbols(path: str | Path) -> dict[int, str]:
    """A symbol table in text, lines `symbol label`, as OpenFst, Kaldi and k2 have them.

    Raises:
        DataError: missing, or a line of another form, or a label that occurs twice; names the line.
    """
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} can't be read: {error}", path=str(path)) from error
    symbols: dict[int, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 2 or not fields[1].isdecimal():
            raise DataError(f"{path}, line {number}: {line!r:.60} isn't `symbol label`", path=str(path))
        if int(fields[1]) in symbols:
            raise DataError(f"{path}, line {number}: label {fields[1]} occurs twice", path=str(path))
        symbols[int(fields[1])] = fields[0]
    return symbols


def write_symbols(symbols: Mapping[int, str], path: str | Path) -> None:
    """Writes a symbol table in text, lines `symbol label`, labels rising."""
    Path(path).write_text("".join(f"{symbols[label]}\t{label}\n" for label in sorted(symbols)))
