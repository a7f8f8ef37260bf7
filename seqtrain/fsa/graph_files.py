"""Graphs in files: OpenFst's binary format and text, k2's text and its saved dictionaries.

k2's labels are columns of the scores, OpenFst's are columns plus one, with 0 for epsilon.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seqtrain.errors import ArgumentError, DataError, FsaError
from seqtrain.fsa.automaton import Fsa
from seqtrain.fsa.batch import FsaBatch
from seqtrain.fsa.k2 import load_k2, save_k2
from seqtrain.fsa.openfst import (
    from_openfst,
    pywrapfst,
    read_openfst,
    symbol_table,
    to_openfst,
    write_openfst,
)
from seqtrain.fsa.text_k2 import from_k2_text, to_k2_text
from seqtrain.fsa.wfst import Wfst

__all__ = ["FORMATS", "format_of", "from_openfst_table", "read_graph", "to_openfst_table", "write_graph"]

FORMATS = {".fst": "openfst", ".txt": "openfst-text", ".k2": "k2-text", ".pt": "k2"}
"""How a file's name ends → its format."""


def format_of(path: Path, given: str | None = None) -> str:
    """The format given, or that of the file's name.

    Raises:
        ArgumentError: the name ends in nothing known.
    """
    if given is not None:
        return given
    if path.suffix not in FORMATS:
        raise ArgumentError(
            f"{path} doesn't end in one of {', '.join(FORMATS)}: name its format, "
            f"one of {', '.join(FORMATS.values())}",
            argument="format",
        )
    return FORMATS[path.suffix]


def from_openfst_table(
    text: str,
    *,
    acceptor: bool = True,
    input_symbols: Mapping[int, str] | None = None,
    output_symbols: Mapping[int, str] | None = None,
) -> Wfst:
    """OpenFst's text with epsilons, outputs or symbols, which OpenFst itself reads; costs are -log.

    `seqtrain.fsa.from_openfst_text` reads automata over columns without OpenFst.

    Raises:
        FsaError: OpenFst refuses the text; what it says is in the standard error.
    """
    module = pywrapfst()
    outputs = input_symbols if acceptor else output_symbols
    # The compiler points to the tables without holding them: they have to outlive it.
    names, output_names = symbol_table(input_symbols), symbol_table(outputs)
    compiler = module.Compiler(
        arc_type="log64",
        acceptor=acceptor,
        isymbols=names,
        osymbols=output_names,
        keep_isymbols=input_symbols is not None,
        keep_osymbols=outputs is not None,
        keep_state_numbering=True,
    )
    try:
        compiler.write(text)
        return from_openfst(compiler.compile())
    except (module.FstError, RuntimeError, ValueError) as error:
        raise FsaError(f"OpenFst can't read this text: {error}") from error


def to_openfst_table(graph: Wfst) -> str:
    """OpenFst's text, with names where the graph has symbols; an acceptor has one label a line."""
    fst = to_openfst(graph, semiring="log")
    text: str = fst.print(acceptor=graph.is_acceptor)
    return text


def read_graph(
    path: Path,
    *,
    format: str | None = None,
    transducer: bool = False,
    input_symbols: Mapping[int, str] | None = None,
    output_symbols: Mapping[int, str] | None = None,
) -> Wfst:
    """The graph in a file.

    Raises:
        DataError: missing or broken. ArgumentError: no format.
        MissingDependencyError: the package for this format isn't installed.
    """
    kind = format_of(path, format)
    if kind == "openfst":
        return read_openfst(path)
    if kind == "k2":
        loaded, attributes = load_k2(path)
        if isinstance(loaded, FsaBatch):
            raise DataError(f"{path} holds {len(loaded)} graphs: one at a time, please", path=str(path))
        return _with_outputs(loaded, attributes.arcs.get("aux_labels"), path)
    try:
        text = path.read_text()
        if kind == "k2-text":
            return Wfst.from_fsa(from_k2_text(text, num_aux_labels=int(transducer), dtype=torch.float64))
        return from_openfst_table(
            text, acceptor=not transducer, input_symbols=input_symbols, output_symbols=output_symbols
        )
    except (OSError, UnicodeDecodeError, FsaError) as error:
        raise DataError(f"{path} can't be read as {kind}: {error}", path=str(path)) from error


def _with_outputs(fsa: Fsa, aux_labels: Any, path: Path) -> Wfst:
    if aux_labels is None:
        return Wfst.from_fsa(fsa)
    if not isinstance(aux_labels, torch.Tensor):
        raise DataError(f"{path} has several auxiliary labels on an arc: no transducer has", path=str(path))
    return Wfst.from_fsa(fsa, output_labels=aux_labels.numpy())


def write_graph(graph: Wfst, path: Path, *, format: str | None = None, semiring: str = "tropical") -> None:
    """Writes the graph; the semiring is the type of arcs in OpenFst's binary file.

    k2's text has input labels alone.

    Raises:
        FsaError: epsilons, or a start other than state 0, in a format of k2. DataError: the file can't be written.
        ArgumentError: no format, or a transducer where outputs would be lost.
    """
    kind = format_of(path, format)
    if kind == "openfst":
        write_openfst(graph, path, semiring=semiring)
        return
    if kind == "k2":
        fsa = graph.to_fsa()
        outputs = None if graph.is_acceptor else torch.from_numpy(graph.arcs[:, 3].astype(np.int32))
        save_k2(fsa, path, aux_labels=outputs)
        return
    if kind == "k2-text" and not graph.is_acceptor:
        raise ArgumentError("k2's text would lose the output labels: write .pt, k2's own", argument="format")
    text = to_openfst_table(graph) if kind == "openfst-text" else to_k2_text(graph.to_fsa(dtype=np.float64))
    try:
        path.write_text(text)
    except OSError as error:
        raise DataError(f"{path} can't be written: {error}", path=str(path)) from error
