"""Automata of transcripts: lexicon, topology and words put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from seqtrain.errors import ArgumentError, LexiconError, OutOfVocabularyError, UnknownSegmentError
from seqtrain.fsa import Fsa, FsaBatch, Silence, Word, WordStates, word_hmm, word_hmm_states
from seqtrain.lexicon.digest import content_digest
from seqtrain.lexicon.inventory import LabelInventory
from seqtrain.lexicon.lexicon import Lexicon
from seqtrain.lexicon.topology import CtcTopology, HmmTopology, RnaTopology, Topology
from seqtrain.lexicon.word_ctc import word_ctc, word_ctc_states
from seqtrain.lexicon.word_rna import word_rna

__all__ = ["AutomatonBuilder"]

# Part of the digest: raise it when the same lexicon, topology and words give other automata than before.
_REVISION = 1


class AutomatonBuilder:
    """Builds the automata of transcripts; labels are columns of `inventory`.

    With an HMM the columns are the states of the phonemes, in the order of the lexicon's inventory,
    `states_per_phone` each, one for silence. With CTC and RNA they are the blank, then the phonemes without silence.

    Wherever a source of automata is taken (`automata(tags)`), a builder and an `AlignerClient` are
    interchangeable.

    Args:
        lexicon: words and their pronunciations; their weights are used as they are (see
            `Lexicon.normalized`).
        topology: `HmmTopology`, `CtcTopology` or `RnaTopology`.
        transcripts: what is said in each utterance, for `automata`: name → words separated by white space.

    Attributes:
        inventory: the labels.
        columns: with an HMM, for each phoneme the columns of its states (`columns` of `fsa.word_hmm`); with
            CTC and RNA, for each phoneme, the blank included, its one column.
        phoneme_numbers: the number of each phoneme, an index into `columns`.
        silence: the optional silence between words; None where there is none.

    Raises:
        LexiconError: the topology has silence, and the lexicon has no phoneme for it; with CTC or RNA, a word
            is pronounced with silence or blank.
    """

    def __init__(
        self, lexicon: Lexicon, topology: Topology, transcripts: Mapping[str, str] | None = None
    ) -> None:
        self.lexicon = lexicon
        self.topology = topology
        self.transcripts = transcripts
        has_blank = isinstance(topology, CtcTopology | RnaTopology)
        if isinstance(topology, CtcTopology | RnaTopology):
            self.inventory = _ctc_inventory(lexicon, topology)
            labels = {phoneme: column for column, phoneme in enumerate(self.inventory.labels)}
            self.columns = [range(column, column + 1) for column in labels.values()]
            self.silence: Silence | None = None
        else:
            self.inventory, labels, self.columns = _hmm_inventory(lexicon, topology)
            self.silence = self._make_silence(topology)
        self.phoneme_numbers: Mapping[str, int] = labels
        reserved = {lexicon.blank, lexicon.silence if has_blank else None}
        self._words: dict[str, Word] = {}
        for word, variants in lexicon.items():
            for variant in variants:
                if not reserved.isdisjoint(variant.phonemes):
                    phoneme = next(p for p in variant.phonemes if p in reserved)
                    raise LexiconError(
                        f"word {word!r} is pronounced with {phoneme!r}, which has no label of its own here",
                        word=word,
                    )
            self._words[word] = tuple(
                (v.log_weight, tuple(labels[phoneme] for phoneme in v.phonemes)) for v in variants
            )

    def build(self, text: str, *, tag: str | None = None) -> Fsa:
        """The automaton of a text (words separated by white space); `tag` names the utterance in errors.

        Raises:
            OutOfVocabularyError: the lexicon lacks words; names them all.
        """
        return self.build_batch([text], tags=None if tag is None else [tag])[0]

    def build_batch(self, texts: Sequence[str], *, tags: Sequence[str] | None = None) -> FsaBatch:
        """The automata of several texts, with `tags`.

        Raises:
            OutOfVocabularyError: the lexicon lacks words: names them all for the first such utterance.
            ArgumentError: not as many tags as texts.
        """
        utterances = self._utterances(texts, tags)
        if isinstance(self.topology, HmmTopology):
            batch = word_hmm(
                utterances, columns=self.columns, transitions=self.topology.phone, silence=self.silence
            )
            return batch if tags is None else batch.with_tags(tags)
        automaton = word_rna if isinstance(self.topology, RnaTopology) else word_ctc
        return FsaBatch.from_list([automaton(words, blank=self._blank) for words in utterances], tags=tags)

    def states_of(self, texts: Sequence[str], *, tags: Sequence[str] | None = None) -> WordStates:
        """What the states of `build_batch`, called with the same arguments, stand for; with CTC, a state of
        blank stands for no word.

        Raises:
            OutOfVocabularyError, ArgumentError: as `build_batch`.
            ArgumentError: the topology is RNA, whose states stand for what has been said, not for what is being said.
        """
        if isinstance(self.topology, RnaTopology):
            raise ArgumentError(
                "states of RNA stand for no phone: its labels are on arcs", argument="topology"
            )
        utterances = self._utterances(texts, tags)
        if isinstance(self.topology, HmmTopology):
            return word_hmm_states(utterances, columns=self.columns, silence=self.silence)
        return word_ctc_states(utterances, blank=self._blank)

    def variants(self, word: str) -> Word:
        """The variants of a word, as `build_batch` uses them: (log weight, phoneme numbers) each.

        Raises:
            OutOfVocabularyError: the lexicon lacks the word.
        """
        if word not in self._words:
            raise OutOfVocabularyError(f"not in the lexicon: {word!r}", words=(word,))
        return self._words[word]

    def _utterances(self, texts: Sequence[str], tags: Sequence[str] | None) -> list[list[Word]]:
        if tags is not None and len(tags) != len(texts):
            raise ArgumentError(f"{len(tags)} tags for {len(texts)} texts", argument="tags")
        for index, text in enumerate(texts):
            missing = self.lexicon.missing_words([text])
            if missing:
                utterance = tags[index] if tags is not None else None
                raise OutOfVocabularyError(
                    f"utterance {utterance!r}: " * (utterance is not None)
                    + f"not in the lexicon: {', '.join(map(repr, missing))}",
                    words=missing,
                    utterance=utterance,
                )
        return [[self._words[word] for word in text.split()] for text in texts]

    @property
    def _blank(self) -> int:
        if self.inventory.blank is None:
            raise LexiconError("CTC and RNA need a blank")
        return self.inventory.blank

    def automata(self, tags: Sequence[str]) -> FsaBatch:
        """The automata of the utterances named, in this order, with `tags` set.

        Raises:
            UnknownSegmentError: there is no transcript of an utterance.
            OutOfVocabularyError: the lexicon lacks words: names them all for the first such utterance.
        """
        return self.build_batch([self.transcript(tag) for tag in tags], tags=tags)

    def transcript(self, tag: str) -> str:
        """The words of an utterance.

        Raises:
            UnknownSegmentError: there is no transcript of it.
        """
        text = self.transcripts.get(tag) if self.transcripts is not None else None
        if text is None:
            count = len(self.transcripts) if self.transcripts is not None else 0
            raise UnknownSegmentError(f"no transcript of utterance {tag!r} among {count}", utterance=tag)
        return text

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that decides the automata: lexicon, topology, transcripts; 64 hex digits."""
        transcripts = dict(self.transcripts) if self.transcripts is not None else None
        return content_digest([_REVISION, self.lexicon.digest, self.topology.describe(), transcripts])

    def _make_silence(self, topology: HmmTopology) -> Silence | None:
        if not topology.has_silence:
            return None
        if self.inventory.silence is None:
            raise LexiconError(
                "the topology has silence between words, but the lexicon has no phoneme for it; name one "
                "with silence=, or set silence_probability=0"
            )
        return Silence.from_probabilities(
            (self.inventory.silence,),
            probability=topology.silence_probability,
            edge_probability=topology.edge_silence_probability,
            transitions=topology.silence,
        )


def _ctc_inventory(lexicon: Lexicon, topology: CtcTopology | RnaTopology) -> LabelInventory:
    phonemes = [phoneme for phoneme in lexicon.phonemes if phoneme != lexicon.silence]
    if lexicon.blank is not None:
        return LabelInventory(tuple(phonemes), blank=phonemes.index(lexicon.blank))
    return LabelInventory((topology.blank, *phonemes), blank=0)


def _hmm_inventory(
    lexicon: Lexicon, topology: HmmTopology
) -> tuple[LabelInventory, dict[str, int], list[range]]:
    """The inventory, the number of each phoneme, and for each number the columns of its states."""
    names: list[str] = []
    phones: dict[str, int] = {}
    columns: list[range] = []
    silence = None
    for phoneme in lexicon.phonemes:
        if phoneme == lexicon.blank:
            continue
        phones[phoneme] = len(columns)
        if phoneme == lexicon.silence:
            silence = len(names)
        states = 1 if phoneme == lexicon.silence else topology.states_per_phone
        columns.append(range(len(names), len(names) + states))
        names += [phoneme] if states == 1 else [f"{phoneme}.{state}" for state in range(states)]
    return LabelInventory(tuple(names), silence=silence), phones, columns
