"""From words to automata: pronunciations, label inventories, HMM and CTC topologies, transcripts."""

from seqtrain.lexicon.automata import AutomatonBuilder
from seqtrain.lexicon.bliss import read_bliss_lexicon
from seqtrain.lexicon.inventory import LabelInventory
from seqtrain.lexicon.lexicon import Lexicon, Pronunciation
from seqtrain.lexicon.text import read_lexicon, write_lexicon
from seqtrain.lexicon.topology import CtcTopology, HmmTopology, RnaTopology, Topology
from seqtrain.lexicon.transcripts import read_transcripts

__all__ = [
    "AutomatonBuilder",
    "CtcTopology",
    "HmmTopology",
    "LabelInventory",
    "Lexicon",
    "Pronunciation",
    "RnaTopology",
    "Topology",
    "read_bliss_lexicon",
    "read_lexicon",
    "read_transcripts",
    "write_lexicon",
]
