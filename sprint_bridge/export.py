"""Automata of a corpus in one file, as RASR's exporter would write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from seqtrain.lexicon.rasr import (
    ExportedAutomaton,
    RasrAutomatonBuilder,
    write_allophones,
    write_automata,
    write_labels,
)

__all__ = ["export"]


def export(
    config: Path,
    out: Path,
    *,
    segments: Sequence[str] | None = None,
    allophones: Path | None = None,
    labels: Path | None = None,
    variables: Mapping[str, str] | None = None,
    unknown_words: Literal["raise", "skip"] = "skip",
) -> dict[str, Any]:
    """Writes the automata that RASR makes of a configuration; no RASR is needed for it.

    Args:
        config: RASR's configuration, with sections for `neural-network-trainer` or `lib-rasr`.
        out: the file to write, see `write_automata`.
        segments: full names of the segments; None: all of the corpus.
        allophones: where to write the allophone inventory, one a line in index order, as RASR stores it; or None.
        labels: where to write the names of the emission classes, a JSON list; or None.
        variables: values of references such as `$(SETUP)`, over those of the file.
        unknown_words: "skip" them with a warning in the log, as RASR does, or "raise" an error.

    Returns counts of segments, states, edges, classes and allophones, and the builder's digest.

    Raises:
        ConfigError, LexiconError, DataError: the configuration or a file that it names is malformed, or has no such
            segment; see `RasrAutomatonBuilder`.
        DataError: a file can't be written.
    """
    builder = RasrAutomatonBuilder.from_config(config, setup_variables=variables, unknown_words=unknown_words)
    chosen = builder.segments if segments is None else segments
    automata: dict[str, ExportedAutomaton] = {
        segment: builder.export(builder.orthography(segment), tag=segment) for segment in chosen
    }
    write_automata(out, automata)
    if allophones is not None:
        write_allophones(allophones, builder)
    if labels is not None:
        write_labels(labels, builder)
    return {
        "segments": len(automata),
        "states": sum(automaton.num_states for automaton in automata.values()),
        "edges": sum(len(automaton.costs) for automaton in automata.values()),
        "classes": builder.model.tying.num_classes,
        "allophones": len(builder.allophones),
        "digest": builder.digest,
    }
