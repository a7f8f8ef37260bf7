"""What a RASR configuration says about the automata, read and put together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

from seqtrain.errors import ConfigError, LexiconError
from seqtrain.lexicon.bliss import read_bliss
from seqtrain.lexicon.rasr.acoustics import HmmStates
from seqtrain.lexicon.rasr.allophones import AllophoneInventory
from seqtrain.lexicon.rasr.configuration import Configuration
from seqtrain.lexicon.rasr.ctc import ctc_automaton
from seqtrain.lexicon.rasr.flat import FlatAutomaton, FlatBuilder
from seqtrain.lexicon.rasr.frames import FrameAutomaton
from seqtrain.lexicon.rasr.hmm import hmm_automaton
from seqtrain.lexicon.rasr.lexicon import RasrLexicon
from seqtrain.lexicon.rasr.phonology import NO_CONTEXT, Allophone, Phonology
from seqtrain.lexicon.rasr.rna import rna_automaton
from seqtrain.lexicon.rasr.state_tying import StateTying, make_state_tying
from seqtrain.lexicon.rasr.transitions import TransitionCosts

__all__ = ["SELECTIONS", "TOPOLOGIES", "ExporterModel", "read_model", "select"]

SELECTIONS = ("neural-network-trainer", "lib-rasr")
"""The programs whose parameters are looked for, in this order."""
TOPOLOGIES = ("hmm", "ctc", "rna")

# (loop, forward, skip, exit) without which these topologies aren't what they are called.
_NO_COSTS = {"ctc": ("0", "0", "infinity", "0"), "rna": ("infinity", "0", "infinity", "0")}


@dataclass(frozen=True)
class ExporterModel:
    """Everything but the transcripts.

    Attributes:
        lexicon: lemmas and pronunciations.
        allophones: the allophone inventory.
        tying: HMM states of allophones → emission classes.
        flat: makes flat automata.
        in_time: what the topology makes of them.
        repeat_silence, normalize_lemmas: options of the lemma acceptor.
        silence_class, blank_class: classes of these, or None.
        description: all that decides the automata, for digests.
    """

    lexicon: RasrLexicon
    allophones: AllophoneInventory
    tying: StateTying
    flat: FlatBuilder
    in_time: Callable[[FlatAutomaton], FrameAutomaton]
    repeat_silence: bool
    normalize_lemmas: bool
    silence_class: int | None
    blank_class: int | None
    description: object


def select(configuration: Configuration, selection: str | None = None) -> Configuration:
    """The parameters of the program `selection`; None: of the first of `SELECTIONS` that has a lexicon.

    Raises:
        ConfigError: none has one.
    """
    candidates = SELECTIONS if selection is None else (selection,)
    parameter = "alignment-fsa-exporter.model-combination.lexicon.file"
    for name in candidates:
        found = configuration.select(name)
        if found.get(parameter) is not None:
            return found
    names = " nor ".join(f"{name}.{parameter}" for name in candidates)
    raise ConfigError(f"{configuration.path} has no value of {names}", key=f"{candidates[0]}.{parameter}")


def read_model(program: Configuration) -> ExporterModel:
    """The model of a program's `alignment-fsa-exporter`, with the files it names.

    Raises:
        ConfigError: a parameter is missing, unknown or out of range, or doesn't go with the topology.
        LexiconError: a file of the model can't be read or is malformed.
    """
    exporter = program.select("alignment-fsa-exporter")
    graph = exporter.select("allophone-state-graph-builder")
    parser = graph.select("orthographic-parser")
    acoustics = exporter.select("model-combination.acoustic-model")
    topology = graph.choice("topology", TOPOLOGIES, "hmm")

    lexicon, phonology = _read_lexicon(exporter.select("model-combination.lexicon"), acoustics)
    allophones = _read_allophones(acoustics.select("allophones"), phonology, lexicon)
    states_per_phone = acoustics.integer("hmm.states-per-phone", 3, least=1, most=63)
    repetitions = acoustics.integer("hmm.state-repetitions", 2, least=1, most=100)
    silence = lexicon.silence_phoneme
    tying = make_state_tying(
        acoustics.select("state-tying"), allophones, states_per_phone=states_per_phone, silence=silence
    )
    states = HmmStates(
        allophones,
        tying,
        states_per_phone=states_per_phone,
        repetitions=repetitions,
        silence=silence,
    )
    costs = TransitionCosts.from_configuration(acoustics.select("tdp"))
    in_time: Callable[[FlatAutomaton], FrameAutomaton]
    blank_class = None
    if topology == "hmm":
        in_time = partial(hmm_automaton, states=states, costs=costs)
    else:
        _check_costs(topology, costs, acoustics.select("tdp"), with_silence=silence is not None)
        blank = _blank_state(topology, lexicon, allophones, states, graph)
        blank_class = blank[1]
        if topology == "ctc":
            in_time = partial(ctc_automaton, states=states, costs=costs, blank=blank)
            if lexicon.silence is None:
                allophones.add_missing_silence()
        else:
            in_time = partial(rna_automaton, states=states, blank=blank)
    fix_contexts = acoustics.flag("fix-allophone-context-at-word-boundaries", False)
    skip_invalid = acoustics.flag("transducer-builder-filter-out-invalid-allophones", False)
    repeat_silence = parser.flag("allow-for-silence-repetitions", True)
    normalize_lemmas = parser.flag("normalize-lemma-sequence-scores", False)
    return ExporterModel(
        lexicon=lexicon,
        allophones=allophones,
        tying=tying,
        flat=FlatBuilder(allophones, fix_contexts=fix_contexts, skip_invalid=skip_invalid),
        in_time=in_time,
        repeat_silence=repeat_silence,
        normalize_lemmas=normalize_lemmas,
        silence_class=None if silence is None else _class_alone(silence, tying),
        blank_class=blank_class,
        description={
            "topology": topology,
            "phonology": asdict(phonology),
            "lexicon": lexicon.description,
            "allophones": allophones.names,
            "tying": tying.description,
            "states_per_phone": states_per_phone,
            "state_repetitions": repetitions,
            "costs": asdict(costs),
            "options": [fix_contexts, skip_invalid, repeat_silence, normalize_lemmas],
        },
    )


def _read_lexicon(configuration: Configuration, acoustics: Configuration) -> tuple[RasrLexicon, Phonology]:
    path = configuration.file("file")
    bliss = read_bliss(path)
    normalize = configuration.flag("normalize-pronunciation", True)
    phonology = Phonology(
        bliss.phonemes,
        history=acoustics.integer("phonology.history-length", 1, least=0, most=1),
        future=acoustics.integer("phonology.future-length", 1, least=0, most=1),
        across_words=acoustics.flag("hmm.across-word-model", False),
    )
    return RasrLexicon(bliss, path=path, normalize=normalize), phonology


def _read_allophones(
    configuration: Configuration, phonology: Phonology, lexicon: RasrLexicon
) -> AllophoneInventory:
    allophones = AllophoneInventory(phonology)
    if configuration.flag("add-from-lexicon", True):
        allophones.add_from_lexicon(lexicon.pronunciations)
    if configuration.flag("add-all", False):
        allophones.add_all()
    if configuration.get("add-from-file") is not None:
        allophones.add_from_file(configuration.file("add-from-file"))
    if not len(allophones):
        raise configuration.error(
            "add-from-lexicon",
            "is no, and so is add-all, and no add-from-file is given: there is no allophone",
        )
    return allophones


def _alone(phoneme: int) -> Allophone:
    return Allophone(phoneme, NO_CONTEXT, NO_CONTEXT, True, True)


def _class_alone(phoneme: int, tying: StateTying) -> int | None:
    try:
        return tying.class_of(_alone(phoneme), 0)
    except LexiconError:
        return None  # a lookup without silence, which is an error where silence is needed


def _blank_state(
    topology: str,
    lexicon: RasrLexicon,
    allophones: AllophoneInventory,
    states: HmmStates,
    graph: Configuration,
) -> tuple[int, int]:
    if lexicon.blank_phoneme is None:
        raise graph.error("topology", f'is {topology}, which needs a lemma special="blank" in the lexicon')
    index = allophones.index(_alone(lexicon.blank_phoneme))
    if index is None:
        name = allophones.phonology.name(_alone(lexicon.blank_phoneme))
        raise LexiconError(f"allophone {name}, which is blank, isn't in the inventory of {len(allophones)}")
    table = states.chains([index])
    return int(table.numbers[0, 0]), int(table.classes[0, 0])


def _check_costs(topology: str, costs: TransitionCosts, tdp: Configuration, *, with_silence: bool) -> None:
    wanted = _NO_COSTS[topology]
    for state, given in (("*", costs.phone), ("silence", costs.silence)):
        if state == "silence" and not with_silence:
            continue
        for kind, text, value in zip(
            ("loop", "forward", "skip", "exit"),
            wanted,
            (given.loop, given.forward, given.skip, given.exit),
            strict=True,
        ):
            if value != float(text):
                raise tdp.error(
                    f"{state}.{kind}", f"is {value:g}; with topology {topology} it must be {text}"
                )
