"""The automata that RASR's alignment-FSA exporter makes, from RASR's own configuration, lexicon and corpus."""

from seqtrain.lexicon.rasr.builder import RasrAutomatonBuilder, read_corpus
from seqtrain.lexicon.rasr.canonical import ExportedAutomaton
from seqtrain.lexicon.rasr.configuration import Configuration
from seqtrain.lexicon.rasr.exported_files import write_allophones, write_automata, write_labels

__all__ = [
    "Configuration",
    "ExportedAutomaton",
    "RasrAutomatonBuilder",
    "read_corpus",
    "write_allophones",
    "write_automata",
    "write_labels",
]
