"""Our own automaton builder, in a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from seqtrain.errors import ConfigError
from seqtrain.lexicon import HmmTopology, Topology
from sprint_bridge.config.section import Section, plain_path, plain_paths
from sprint_bridge.config.topology import dump_topology, parse_topology
from sprint_bridge.config.workers import dump_workers, parse_workers
from sprint_bridge.workers.settings import WorkerSettings

__all__ = ["LocalBackendConfig", "RasrSetup", "dump_local", "parse_local"]

_UNKNOWN_WORDS = ("raise", "skip")


@dataclass(frozen=True)
class RasrSetup:
    """The automata that RASR would make of its own configuration.

    Attributes:
        config: RASR's configuration; lexicon, corpus and topology are those that it names.
        variables: values of references such as `$(SETUP)`, over those of the file.
        selection: the program whose parameters are read; None: see `RasrAutomatonBuilder.from_config`.
        unknown_words: "raise" an error for words that the lexicon lacks, or "skip" them as RASR does.
    """

    config: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    selection: str | None = None
    unknown_words: str = "raise"


@dataclass(frozen=True)
class LocalBackendConfig:
    """Our own automaton builder, from a lexicon, transcripts and a topology, or from RASR's configuration.

    Attributes:
        lexicon: plain text, or Bliss XML where the name ends in .xml or .xml.gz.
        lexicon_probabilities: whether a plain lexicon has the probability of each variant in its second
            column.
        normalize_pronunciations: whether the weights of each word's variants are normalized first.
        transcripts: files of names and words: Kaldi's `text`, or JSON lines with `id` and `text`.
        topology: HMM, CTC or RNA.
        rasr: instead of all these, or None.
        alignments: alignments to serve besides: a file (.jsonl or .npz), or archives, folders or bundles of Sprint's
            cache.
        cache_folders: the folders that such archives, and what their bundles and links name, may lie in.
        allophones: list that the ids of allophone states in such archives count, or None.
        workers: of the processes that the builder runs in; None: it runs in the server's own.
        log: file that what such processes print is appended to, or None.
    """

    lexicon: Path | None = None
    transcripts: tuple[Path, ...] = ()
    topology: Topology = field(default_factory=HmmTopology)
    lexicon_probabilities: bool = False
    normalize_pronunciations: bool = False
    rasr: RasrSetup | None = None
    alignments: tuple[Path, ...] = ()
    cache_folders: tuple[Path, ...] = ()
    allophones: Path | None = None
    workers: WorkerSettings | None = None
    log: Path | None = None

    def __post_init__(self) -> None:
        if self.rasr is None and self.lexicon is None:
            raise ConfigError("lexicon must be a file, or rasr a configuration of RASR's", key="lexicon")
        if self.rasr is not None and (self.lexicon is not None or self.transcripts):
            raise ConfigError(
                "rasr names lexicon and corpus itself; leave out: lexicon, transcripts", key="rasr"
            )

    @property
    def alignment_file(self) -> Path | None:
        """The file of alignments of our own formats, None where they come from archives or there are none."""
        if len(self.alignments) == 1 and self.alignments[0].suffix in (".jsonl", ".npz"):
            return self.alignments[0]
        return None


def parse_local(section: Section) -> LocalBackendConfig:
    """The configuration of a section."""
    hosted = section.has("instances") or section.has("worker")
    rasr = _parse_rasr(section) if section.has("rasr_config") else None
    alignments = section.paths("alignments") if section.has("alignments") else ()
    config = LocalBackendConfig(
        lexicon=None if rasr is not None else section.path("lexicon"),
        transcripts=() if rasr is not None else section.paths("transcripts"),
        topology=HmmTopology() if rasr is not None else parse_topology(section.section("topology")),
        lexicon_probabilities=rasr is None and section.flag("lexicon_probabilities", False),
        normalize_pronunciations=rasr is None and section.flag("normalize_pronunciations", False),
        rasr=rasr,
        alignments=alignments,
        cache_folders=section.paths("cache_folders") if section.has("cache_folders") else (),
        allophones=section.optional_path("allophones"),
        workers=parse_workers(section) if hosted else None,
        log=section.optional_path("log"),
    )
    section.finish()
    if alignments and config.alignment_file is None and not config.cache_folders:
        raise ConfigError(
            f"{section.key('cache_folders')} must name the folders that alignment archives may lie in; a file of "
            "alignments of our own ends in .jsonl or .npz",
            key=section.key("cache_folders"),
        )
    return config


def _parse_rasr(section: Section) -> RasrSetup:
    for key in (
        "lexicon",
        "transcripts",
        "topology",
        "lexicon_probabilities",
        "normalize_pronunciations",
    ):
        if section.has(key):
            raise ConfigError(
                f"{section.key(key)}: RASR's configuration says that; leave it out with rasr_config",
                key=section.key(key),
            )
    return RasrSetup(
        config=section.path("rasr_config"),
        variables=section.texts_by_name("rasr_variables"),
        selection=section.optional_text("rasr_selection"),
        unknown_words=section.choice("unknown_words", "raise", _UNKNOWN_WORDS),
    )


def dump_local(config: LocalBackendConfig) -> dict[str, object]:
    """The configuration as plain values that `parse_local` reads back; paths are made absolute."""
    values: dict[str, object] = {
        "type": "local",
        "alignments": plain_paths(config.alignments) or None,
        "cache_folders": plain_paths(config.cache_folders) or None,
        "allophones": plain_path(config.allophones),
        "log": plain_path(config.log),
    }
    if config.workers is not None:
        values |= dump_workers(config.workers)
    if config.rasr is not None:
        return values | {
            "rasr_config": plain_path(config.rasr.config),
            "rasr_variables": dict(config.rasr.variables),
            "rasr_selection": config.rasr.selection,
            "unknown_words": config.rasr.unknown_words,
        }
    return values | {
        "lexicon": plain_path(config.lexicon),
        "transcripts": plain_paths(config.transcripts),
        "topology": dump_topology(config.topology),
        "lexicon_probabilities": config.lexicon_probabilities,
        "normalize_pronunciations": config.normalize_pronunciations,
    }
