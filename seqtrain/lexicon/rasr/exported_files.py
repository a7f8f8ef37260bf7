"""Files with what RASR exports: automata, the allophone inventory, the emission classes."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqtrain.errors import DataError
from seqtrain.files import replace_file
from seqtrain.lexicon.rasr.builder import RasrAutomatonBuilder
from seqtrain.lexicon.rasr.canonical import ExportedAutomaton

__all__ = ["write_allophones", "write_automata", "write_labels"]


def write_automata(path: Path, automata: Mapping[str, ExportedAutomaton]) -> None:
    """Writes automata by segment into an npz file, with the types that RASR hands them out in.

    For each segment, by its full name, there are `<segment>|num_states` and `<segment>|num_edges` (uint32, no
    dimension), `<segment>|edges` (uint32 (3, E), rows from, to, emission class) and `<segment>|weights` (float32 (E,),
    costs -ln). The start is state 0, the end the last state.

    Raises:
        DataError: the file can't be written.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for segment, automaton in automata.items():
        arrays[f"{segment}|num_states"] = np.array(automaton.num_states, dtype=np.uint32)
        arrays[f"{segment}|num_edges"] = np.array(len(automaton.costs), dtype=np.uint32)
        arrays[f"{segment}|edges"] = automaton.edges.astype(np.uint32)
        arrays[f"{segment}|weights"] = automaton.costs.astype(np.float32)
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]  # mypy takes the names for the option allow_pickle
    _write(path, content.getvalue())


def write_allophones(path: Path, builder: RasrAutomatonBuilder) -> None:
    """Writes the allophone inventory, one a line in index order, as RASR's `allophones.store-to-file` does.

    Raises:
        DataError: the file can't be written.
    """
    _write(path, builder.model.allophones.text().encode())


def write_labels(path: Path, builder: RasrAutomatonBuilder) -> None:
    """Writes the names of the emission classes as a JSON list.

    Raises:
        DataError: the file can't be written.
    """
    _write(path, (json.dumps(builder.labels, ensure_ascii=False, indent=1) + "\n").encode())


def _write(path: Path, content: bytes) -> None:
    try:
        replace_file(path, content)
    except OSError as error:
        raise DataError(f"{path} can't be written: {error}", path=str(path)) from error
