"""The builder: what its automata accept, whatever the lexicon and the options; and what it refuses."""

from __future__ import annotations

import logging
import math
import pickle
import random
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, pairwise, product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqtrain.errors import (
    ArgumentError,
    ConfigError,
    LexiconError,
    OutOfVocabularyError,
    UnknownSegmentError,
)
from seqtrain.fsa import Fsa
from seqtrain.lexicon.rasr import RasrAutomatonBuilder
from seqtrain.losses import FastBaumWelchLoss
from tests.fsa.strategies import quick
from tests.lexicon.rasr.setup import ACOUSTICS, BLANK, EXPORTER, PARSER, SILENCE, lexicon_text, write_setup

WORDS = {"ab": ["A B"], "a": ["A"], "ba": ["B A", "B B A"], "aa": ["A A"], "hm": ["[N]"]}
MONO = (
    f"{ACOUSTICS}.fix-allophone-context-at-word-boundaries = no",
    f"{ACOUSTICS}.transducer-builder-filter-out-invalid-allophones = no",
)


def make(
    *lines: str, lexicon: str | None = None, text: str = "ab", base: str = "mono3", **options: object
) -> RasrAutomatonBuilder:
    with tempfile.TemporaryDirectory() as folder:
        config = write_setup(
            Path(folder), *lines, lexicon=lexicon or lexicon_text(WORDS), segments={"s": text}, base=base
        )
        return RasrAutomatonBuilder.from_config(config, **options)  # type: ignore[arg-type]


def pattern(
    words: list[str], builder: RasrAutomatonBuilder, *, states: int, repetitions: int, pause: str
) -> str:
    """The class sequences of words as a regular expression over characters, one a class; `pause` is silence's."""

    def letter(label: str) -> str:
        return re.escape(chr(0x100 + builder.labels.index(label)))

    silence = f"(?:{letter('[SILENCE].0')}+){pause}"

    def spoken(variant: str) -> str:
        return "".join(
            f"{letter(f'{phoneme}.{state}')}+"
            for phoneme in variant.split()
            for state in range(states)
            for _ in range(repetitions)
        )

    return silence + "".join("(?:" + "|".join(map(spoken, WORDS[word])) + ")" + silence for word in words)


def walks(fsa: Fsa, source: random.Random, count: int) -> list[str]:
    """Random accepted sequences, written as in `pattern`."""
    onward: dict[int, list[tuple[int, int]]] = {}
    for start, end, label in fsa.arcs.tolist():
        onward.setdefault(start, []).append((end, label))
    found = []
    for _ in range(count):
        state, labels = 0, ""
        while state != fsa.num_states - 1:
            steps = onward[state]
            loops = [step for step in steps if step[0] == state]
            others = [step for step in steps if step[0] != state]
            state, label = source.choice(loops if loops and source.random() < 0.2 else others)
            labels += chr(0x100 + label)
        found.append(labels)
    return found


def accepts(fsa: Fsa, labels: str) -> bool:
    onward: dict[tuple[int, str], set[int]] = {}
    for start, end, label in fsa.arcs.tolist():
        onward.setdefault((start, chr(0x100 + label)), set()).add(end)
    states = {0}
    for label in labels:
        states = {end for state in states for end in onward.get((state, label), ())}
    return fsa.num_states - 1 in states


def is_canonical(fsa: Fsa) -> bool:
    """Topological order, sorted but for the copies into the end, one end that isn't left, and no arc twice.

    Copies into the end may coincide, where a state leads to several old ends with one label: arcs are merged before.
    """
    arcs = fsa.arcs.tolist()
    end = fsa.num_states - 1
    inner = [(start, to, label) for start, to, label in arcs if to != end]
    keys = [(to - start, to, start) for start, to, _ in arcs if to != end]
    return (
        all(start <= to for start, to, _ in arcs)
        and keys == sorted(keys)
        and len(set(inner)) == len(inner)
        and not any(start == end or to == 0 for start, to, _ in arcs)
        and {to for _, to, _ in arcs} == set(range(1, fsa.num_states))
        and fsa.final_states.tolist() == [end]
        and bool(torch.isfinite(fsa.weights).all())
    )


texts = st.lists(st.sampled_from(sorted(WORDS)), max_size=4)
yes_no = st.sampled_from(["yes", "no"])


@quick
@given(
    words=texts,
    states=st.integers(1, 3),
    repetitions=st.integers(1, 2),
    history=st.integers(0, 1),
    future=st.integers(0, 1),
    across=yes_no,
    fix=yes_no,
    repeat=yes_no,
    normalize=yes_no,
    applicator=st.sampled_from(["legacy", "corrected"]),
    seed=st.integers(0, 999),
)
def test_paths_are_the_words_states_with_silence_between(
    words: list[str],
    states: int,
    repetitions: int,
    history: int,
    future: int,
    across: str,
    fix: str,
    repeat: str,
    normalize: str,
    applicator: str,
    seed: int,
) -> None:
    builder = make(
        f"{ACOUSTICS}.hmm.states-per-phone = {states}",
        f"{ACOUSTICS}.hmm.state-repetitions = {repetitions}",
        f"{ACOUSTICS}.hmm.across-word-model = {across}",
        f"{ACOUSTICS}.phonology.history-length = {history}",
        f"{ACOUSTICS}.phonology.future-length = {future}",
        f"{ACOUSTICS}.fix-allophone-context-at-word-boundaries = {fix}",
        f"{ACOUSTICS}.tdp.applicator-type = {applicator}",
        f"{PARSER}.allow-for-silence-repetitions = {repeat}",
        f"{PARSER}.normalize-lemma-sequence-scores = {normalize}",
    )
    fsa = builder.build_text(" ".join(words))
    assert is_canonical(fsa)
    # Without contexts across words, `#` at the edge of a word is right beside silence alone.
    apart = fix == "yes" and across == "no" and (history or future)
    # ("hm" is spoken without context, so it needs none.)
    loose = pattern(words, builder, states=states, repetitions=repetitions, pause="?")
    source = random.Random(seed)
    assert all(re.fullmatch(loose, walk) for walk in walks(fsa, source, 20))
    strict = pattern(words, builder, states=states, repetitions=repetitions, pause="" if apart else "?")
    silence = chr(0x100 + builder.labels.index("[SILENCE].0"))
    for sample in samples(words, builder, states * repetitions, silence, source, certain=bool(apart)):
        assert re.fullmatch(strict, sample)
        assert accepts(fsa, sample)


def samples(
    words: list[str],
    builder: RasrAutomatonBuilder,
    states: int,
    silence: str,
    source: random.Random,
    *,
    certain: bool,
) -> list[str]:
    """Random class sequences of the words, made without the automaton."""
    classes = {label: chr(0x100 + number) for number, label in enumerate(builder.labels)}
    found = []
    for _ in range(5):

        def pause() -> str:
            return silence * source.randrange(1, 3) if certain or source.random() < 0.5 else ""

        text = pause()
        for word in words:
            for phoneme in source.choice(WORDS[word]).split():
                names = sorted(label for label in classes if label.startswith(f"{phoneme}."))
                for state in range(states):
                    text += classes[names[state * len(names) // states]] * source.randrange(1, 3)
            text += pause()
        # An utterance without words is silence; there is no empty sequence.
        found.append(text or silence)
    return found


@quick
@given(
    words=texts.filter(bool),
    states=st.integers(1, 3),
    contexts=st.integers(0, 1),
    applicator=st.sampled_from(["legacy", "corrected"]),
)
def test_every_other_state_may_be_skipped_but_for_the_last_of_a_word(
    words: list[str], states: int, contexts: int, applicator: str
) -> None:
    builder = make(
        f"{ACOUSTICS}.hmm.states-per-phone = {states}",
        f"{ACOUSTICS}.phonology.history-length = {contexts}",
        f"{ACOUSTICS}.phonology.future-length = {contexts}",
        f"{ACOUSTICS}.tdp.applicator-type = {applicator}",
        f"{ACOUSTICS}.tdp.*.skip = 3",
        f"{ACOUSTICS}.tdp.silence.skip = 3",
    )
    fsa = builder.build_text(" ".join(words))
    assert is_canonical(fsa)
    shortest = [min(math.ceil(states * len(said.split()) / 2) for said in WORDS[word]) for word in words]
    assert fsa.min_length() == sum(shortest)


@quick
@given(words=texts, seed=st.integers(0, 999))
def test_ctc_paths_collapse_to_the_phonemes(words: list[str], seed: int) -> None:
    lexicon = lexicon_text(WORDS, special=BLANK)
    ctc = make(lexicon=lexicon, base="ctc")
    rna = make(lexicon=lexicon, base="rna")
    spoken = {""}
    for word in words:
        spoken = {before + said.replace(" ", "") for before in spoken for said in WORDS[word]}
    names = [label.removesuffix(".0").strip("[]") for label in ctc.labels]

    def phonemes(walk: str, *, collapse: bool) -> str:
        frames = [names[ord(label) - 0x100] for label in walk]
        labels = [label for label, _ in groupby(frames)] if collapse else frames
        return "".join(label for label in labels if label != "<blk>")

    source = random.Random(seed)
    wanted = {text.replace("[N]", "N") for text in spoken}
    assert {
        phonemes(walk, collapse=True) for walk in walks(ctc.build_text(" ".join(words)), source, 20)
    } <= wanted
    graph = rna.build_text(" ".join(words))
    if graph.num_states > 1:
        assert {phonemes(walk, collapse=False) for walk in walks(graph, source, 20)} <= wanted
    frames = sum(len(WORDS[word][0].split()) for word in words)
    assert graph.min_length() == frames


def costs(fsa: Fsa) -> dict[tuple[int, int], float]:
    return {
        (start, to): -weight
        for (start, to, _), weight in zip(fsa.arcs.tolist(), fsa.weights.tolist(), strict=True)
    }


def test_an_unknown_segment() -> None:
    with pytest.raises(
        UnknownSegmentError, match="no segment 's' among the 1 of the corpus; a segment has its full name"
    ) as caught:
        make().build("s")
    assert caught.value.utterance == "s"
    assert make().segments == ("c/r/s",)


def test_unknown_words_are_all_named() -> None:
    builder = make(text="ab xx ba yy xx")
    assert builder.orthography("c/r/s") == "ab xx ba yy xx"
    with pytest.raises(
        OutOfVocabularyError, match=r"^segment 'c/r/s': not in the lexicon: 'xx', 'yy'$"
    ) as caught:
        builder.automata(["c/r/s"])
    assert caught.value.words == ("xx", "yy")
    assert caught.value.utterance == "c/r/s"


def test_unknown_words_may_be_skipped(caplog: pytest.LogCaptureFixture) -> None:
    builder = make(text="ab xx ba", unknown_words="skip")
    with caplog.at_level(logging.WARNING):
        fsa = builder.build("c/r/s")
        assert builder.build("c/r/s").equal(fsa)
    assert caplog.messages == ["segment 'c/r/s': not in the lexicon: 'xx'; skipped"]
    assert fsa.equal(builder.build_text("ab ba"))
    assert builder.build_text("xx").equal(builder.build_text(""))
    with pytest.raises(ArgumentError, match="unknown_words must be 'raise' or 'skip', got 'ignore'"):
        make(unknown_words="ignore")


def test_a_lemma_of_unknown_words_stands_for_them() -> None:
    special = SILENCE + '<lemma special="unknown"><orth>[UNKNOWN]</orth><phon>[N]</phon></lemma>'
    builder = make(lexicon=lexicon_text(WORDS, special=special))
    assert builder.build_text("ab xx").equal(builder.build_text("ab hm"))
    silent = SILENCE + '<lemma special="unknown"><orth>[UNKNOWN]</orth></lemma>'
    with pytest.raises(OutOfVocabularyError):
        make(lexicon=lexicon_text(WORDS, special=silent)).build_text("xx")


def test_silence_alone() -> None:
    fsa = make().build_text("")
    assert fsa.arcs.tolist() == [[1, 1, 0], [0, 1, 0], [1, 2, 0], [0, 2, 0]]
    assert fsa.min_length() == 1


def test_orthographies_of_several_words() -> None:
    builder = make(lexicon=lexicon_text({**WORDS, "ab ba": ["[N]"], "ba a": ["A"]}))
    fsa = builder.build_text("ab ba")
    # Either both words, or the one lemma that is spelled so.
    assert fsa.min_length() == 3
    assert sorted({label for _, _, label in fsa.arcs.tolist()}) == list(range(len(builder.labels)))
    with pytest.raises(OutOfVocabularyError, match="'xx'"):
        builder.build_text("ab xx ba")
    with pytest.raises(LexiconError, match="segment 't': no path through the automaton of 'x y z'"):
        make(lexicon=lexicon_text({"x y": ["A"], "y z": ["B"]})).build_text("x y z", tag="t")


def test_weights_of_pronunciations() -> None:
    special = (
        SILENCE + "<lemma><orth>w</orth><phon score='0.5'>A</phon><phon weight='0.25'>B</phon></lemma>"
        "<lemma><orth>v</orth><phon weight='3'>A</phon><phon>B</phon></lemma>"
    )
    lexicon = lexicon_text(WORDS, special=special)
    name = f"{EXPORTER}.model-combination.lexicon.normalize-pronunciation"
    raw = make(f"{name} = no", lexicon=lexicon)
    normalized = make(f"{name} = yes", lexicon=lexicon)
    given, made = costs(raw.build_text("w")), costs(normalized.build_text("v"))
    assert (given[0, 2], given[0, 3]) == pytest.approx((0.5, math.log(4)))
    assert (made[0, 2], made[0, 3]) == pytest.approx((math.log(4 / 3), math.log(4)))


def test_lemma_sequences_normalized() -> None:
    lexicon = lexicon_text(WORDS, special=SILENCE + "<lemma><orth>a</orth><phon>B</phon></lemma>")
    made = costs(make(f"{PARSER}.normalize-lemma-sequence-scores = yes", lexicon=lexicon).build_text("a"))
    # Silence, or one of two lemmas; behind silence one of two.
    assert (made[0, 1], made[0, 2], made[0, 3]) == pytest.approx((math.log(3),) * 3)
    assert (made[1, 2], made[1, 3]) == pytest.approx((2.5 + math.log(2),) * 2)


def test_without_silence_there_may_be_one_end_already() -> None:
    lexicon = lexicon_text({"ab": ["A B"]}, special="")
    fsa = make(f"{ACOUSTICS}.hmm.states-per-phone = 1", lexicon=lexicon).build_text("ab")
    assert fsa.arcs.tolist() == [[1, 1, 0], [2, 2, 1], [0, 1, 0], [1, 2, 1]]
    left = make(
        f"{ACOUSTICS}.hmm.states-per-phone = 1", f"{ACOUSTICS}.tdp.*.exit = 1.5", lexicon=lexicon
    ).build_text("ab")
    assert left.arcs.tolist()[4:] == [[2, 3, 1], [1, 3, 1]]
    assert left.weights.tolist()[4:] == pytest.approx([-0.7 - 1.5, -0.4 - 1.5])


def test_missing_allophones() -> None:
    lines = (
        f"{ACOUSTICS}.hmm.across-word-model = yes",
        f"{ACOUSTICS}.phonology.future-length = 1",
        f"{ACOUSTICS}.allophones.add-from-lexicon = no",
        f"{ACOUSTICS}.allophones.add-from-file = known.txt",
    )
    with tempfile.TemporaryDirectory() as folder:
        config = write_setup(Path(folder), *lines, *MONO, lexicon=lexicon_text(WORDS), segments={"s": "ab"})
        known = Path(folder) / "known.txt"
        known.write_text("# two\n[SILENCE]{#+#}@i@f\nA{#+B}@i\n")
        builder = RasrAutomatonBuilder.from_config(config)
        assert builder.allophones == ("[SILENCE]{#+#}@i@f", "A{#+B}@i")
        with pytest.raises(LexiconError, match=r"allophone B\{#\+#\}@f isn't in the inventory of 2; add it"):
            builder.build("c/r/s")
        left_out = f"{ACOUSTICS}.transducer-builder-filter-out-invalid-allophones = yes"
        config.write_text(f"{config.read_text()}\n{left_out}\n")
        with pytest.raises(LexiconError, match="segment 'c/r/s': no path through the automaton of 'ab'"):
            RasrAutomatonBuilder.from_config(config).build("c/r/s")
        known.write_text("[SILENCE]{#+#}@i@f\nA{#+B}@i\nB{#+#}@f\n")
        assert RasrAutomatonBuilder.from_config(config).build("c/r/s").min_length() == 6
        known.write_text("\nA{#+X}@i\n")
        with pytest.raises(LexiconError, match=r"known.txt, line 2: allophone 'A\{#\+X\}@i': no phoneme 'X'"):
            RasrAutomatonBuilder.from_config(config)
        known.unlink()
        with pytest.raises(LexiconError, match=r"known\.txt can't be read"):
            RasrAutomatonBuilder.from_config(config)


@pytest.mark.parametrize(
    ("lines", "lexicon", "base", "message"),
    [
        (
            [],
            lexicon_text(WORDS),
            "ctc",
            r'topology is ctc, which needs a lemma special="blank" in the lexicon',
        ),
        (
            [f"{ACOUSTICS}.tdp.*.forward = 0.5"],
            lexicon_text(WORDS, special=BLANK),
            "ctc",
            r"tdp\.\*\.forward is 0\.5; with topology ctc it must be 0",
        ),
        (
            [f"{ACOUSTICS}.tdp.silence.loop = 0"],
            lexicon_text(WORDS, special=SILENCE + BLANK),
            "rna",
            r"tdp\.silence\.loop is 0; with topology rna it must be infinity",
        ),
        (
            [f"{EXPORTER}.allophone-state-graph-builder.topology = transducer"],
            lexicon_text(WORDS),
            "mono3",
            "topology is 'transducer'; it must be one of hmm, ctc, rna",
        ),
        (
            [f"{ACOUSTICS}.state-tying.type = cart"],
            lexicon_text(WORDS),
            "mono3",
            r"state-tying\.type is 'cart'; it must be one of monophone, monophone-dense, monophone-eow, "
            "no-tying-dense, lookup",
        ),
        (
            [f"{ACOUSTICS}.phonology.future-length = 2"],
            lexicon_text(WORDS),
            "mono3",
            r"future-length is 2; it must be in 0…1",
        ),
        (
            [f"{ACOUSTICS}.allophones.add-from-lexicon = no"],
            lexicon_text(WORDS),
            "mono3",
            "there is no allophone",
        ),
        (
            ["neural-network-trainer.corpus.capitalize-transcriptions = yes"],
            lexicon_text(WORDS),
            "mono3",
            "capitalize-transcriptions is yes, which isn't supported",
        ),
    ],
)
def test_what_is_not_supported_is_named(lines: list[str], lexicon: str, base: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(*lines, lexicon=lexicon, base=base)


def test_the_costs_may_forbid_everything() -> None:
    builder = make(f"{ACOUSTICS}.tdp.*.exit = infinity", f"{ACOUSTICS}.tdp.silence.exit = infinity")
    with pytest.raises(LexiconError, match="or the transition costs forbid it"):
        builder.build_text("ab")


def test_malformed_lexica() -> None:
    for special, message in (
        (SILENCE + SILENCE, "a second lemma of silence"),
        (
            '<lemma special="silence"><phon>A A</phon></lemma>',
            "the lemma of silence must have one pronunciation",
        ),
        (
            SILENCE + "<lemma><orth>x</orth><phon/></lemma>",
            "a lemma that isn't special has an empty pronunciation",
        ),
    ):
        with pytest.raises(LexiconError, match=message):
            make(lexicon=lexicon_text(WORDS, special=special))


def test_another_selection() -> None:
    lexicon = lexicon_text(WORDS)
    with tempfile.TemporaryDirectory() as folder:
        config = write_setup(Path(folder), lexicon=lexicon, segments={"s": "ab"})
        wanted = RasrAutomatonBuilder.from_config(config).build("c/r/s")
        with pytest.raises(ConfigError, match=r"no value of lib-rasr\.alignment-fsa-exporter.*lexicon\.file"):
            RasrAutomatonBuilder.from_config(config, selection="lib-rasr")
        config.write_text(config.read_text().replace("neural-network-trainer", "lib-rasr"))
        assert RasrAutomatonBuilder.from_config(config).build("c/r/s").equal(wanted)
        config.write_text(
            config.read_text().replace("lib-rasr.corpus.file = ", "lib-rasr.corpus.file = $(DATA)/")
        )
        with pytest.raises(ConfigError, match=r"\$\(DATA\) has no value"):
            RasrAutomatonBuilder.from_config(config)
        found = RasrAutomatonBuilder.from_config(config, setup_variables={"DATA": folder})
        assert found.build("c/r/s").equal(wanted)


def test_the_digest_is_of_what_decides_the_automata() -> None:
    digest = make().digest
    assert re.fullmatch("[0-9a-f]{64}", digest)
    assert make().digest == digest
    assert make("neural-network-trainer.log.channel = elsewhere").digest == digest
    others = [
        make(f"{ACOUSTICS}.tdp.*.loop = 0.8"),
        make(text="ba"),
        make(lexicon=lexicon_text({**WORDS, "b": ["B"]})),
        make(f"{ACOUSTICS}.state-tying.type = monophone-eow"),
        make(unknown_words="skip"),
    ]
    assert len({digest, *(other.digest for other in others)}) == 6


def test_a_batch() -> None:
    builder = make()
    batch = builder.build_batch(["ab", "", "ba aa"], tags=["x", "y", "z"])
    assert batch.tags == ("x", "y", "z")
    assert [
        fsa.equal(builder.build_text(text)) for fsa, text in zip(batch, ("ab", "", "ba aa"), strict=True)
    ] == [True] * 3
    assert len(builder.automata([])) == 0
    with pytest.raises(ArgumentError, match="1 tags for 2 texts"):
        builder.build_batch(["ab", "a"], tags=["x"])


def test_a_source_of_automata_for_training() -> None:
    builder = make()
    log_probs = torch.randn(1, 20, len(builder.labels)).log_softmax(-1).requires_grad_()
    loss = FastBaumWelchLoss(builder)(log_probs, torch.tensor([20]), ["c/r/s"])
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert log_probs.grad is not None
    assert np.isfinite(log_probs.grad.numpy()).all()


def test_threads_and_processes() -> None:
    lines = (f"{ACOUSTICS}.phonology.history-length = 1", f"{ACOUSTICS}.phonology.future-length = 1")
    texts = [" ".join(words) for words in product(sorted(WORDS), repeat=3)]
    wanted = [make(*lines).build_text(text) for text in texts]
    builder = make(*lines)
    with ThreadPoolExecutor(4) as pool:
        built = list(pool.map(builder.build_text, texts))
    assert all(fsa.equal(other) for fsa, other in zip(built, wanted, strict=True))
    for base in ("mono3", "ctc", "rna"):
        builder = make(lexicon=lexicon_text(WORDS, special=BLANK if base != "mono3" else SILENCE), base=base)
        copy = pickle.loads(pickle.dumps(builder))
        assert copy.digest == builder.digest
        assert copy.build_text("ab ba").equal(builder.build_text("ab ba"))


def test_pairs_of_words_do_not_depend_on_what_was_built_before() -> None:
    # Words are worked out once and kept.
    texts = [f"{a} {b}" for a, b in pairwise(sorted(WORDS) * 2)]
    lines = (f"{ACOUSTICS}.phonology.history-length = 1", f"{ACOUSTICS}.phonology.future-length = 1")
    used = make(*lines)
    first = [used.build_text(text) for text in texts]
    assert all(used.build_text(text).equal(fsa) for text, fsa in zip(texts, first, strict=True))
    assert all(make(*lines).build_text(text).equal(fsa) for text, fsa in zip(texts, first, strict=True))
