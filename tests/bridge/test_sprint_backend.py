"""The engine that is an executable under our control module; a stand-in for it."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import seqtrain as st
from seqtrain.align.sprint_cache import Allophones, columns_of, frame_labels, open_archive, read_alignment
from seqtrain.errors import (
    ConfigError,
    DataError,
    EngineError,
    OutOfVocabularyError,
    QuarantinedError,
    SeqtrainError,
    SkippedError,
    UnknownSegmentError,
    WorkerCrashedError,
)
from sprint_bridge.backends.base import Capability, Orthography, Segment
from sprint_bridge.backends.pool import batch_automata
from sprint_bridge.backends.sprint import SprintBackend, SprintLossConfig
from sprint_bridge.rasr.automaton import automaton_of_costs
from sprint_bridge.workers.errors import EngineStartError
from sprint_bridge.workers.settings import WorkerSettings
from tests.bridge.stand_in import AUTOMATA, GOLDENS, LEXICON, QUICK, install, inventory, orthographies
from tests.bridge.toy_pool import within

SEGMENTS = list(orthographies())


def returnn_batch(path: Path, segment: str) -> st.fsa.Fsa:
    """An automaton that RASR has exported, through the batch that RETURNN would make of it."""
    arrays = np.load(path)
    edges = np.vstack([arrays[f"{segment}|edges"], np.zeros_like(arrays[f"{segment}|edges"][:1])])
    states = int(arrays[f"{segment}|num_states"])
    weights = torch.from_numpy(arrays[f"{segment}|weights"])
    return st.fsa.FsaBatch.from_rasr(states, edges, weights, np.array([[0], [states - 1]]))[0]


def golden(segment: str) -> st.fsa.Fsa:
    """The automaton that the stand-in has of a segment."""
    return returnn_batch(AUTOMATA, segment)


def kinds(errors: tuple[SeqtrainError | None, ...]) -> list[type | None]:
    return [None if error is None else type(error) for error in errors]


@pytest.mark.parametrize("path", sorted((GOLDENS / "fsa").glob("*.npz")), ids=lambda path: path.stem)
def test_rasrs_numbers_become_automata(path: Path) -> None:
    arrays = np.load(path)
    segments = [name.removesuffix("|edges") for name in arrays if name.endswith("|edges")]
    assert segments
    automata = [
        automaton_of_costs(
            int(arrays[f"{segment}|num_states"]),
            arrays[f"{segment}|edges"].reshape(-1),
            arrays[f"{segment}|weights"],
            segment=segment,
            num_labels=1 << 20,
        )
        for segment in segments
    ]
    answer = batch_automata([Segment(segment) for segment in segments], automata)
    assert not any(answer.errors)
    for segment, fsa in zip(segments, answer.automata, strict=True):
        assert fsa.equal(returnn_batch(path, segment)), segment


def test_automata_by_segment_and_by_orthography(tmp_path: Path) -> None:
    backend = install(tmp_path, extra={"toy/oov": "one nine two"}).backend(
        lexicon=LEXICON, workers={"instances": 2}
    )
    try:
        assert backend.inventory.labels == inventory().labels
        assert backend.inventory.silence == 0
        assert backend.capabilities == {Capability.AUTOMATA_BY_SEGMENT, Capability.AUTOMATA_BY_ORTHOGRAPHY}
        items = [
            *map(Segment, SEGMENTS),
            # RASR itself would end over these blanks.
            Orthography("  one \t two"),
            Orthography("one nine two ten eleven"),
            Segment("toy/nope"),
            Segment("toy/oov"),
        ]
        answer = backend.automata(items)
        assert kinds(answer.errors) == [
            *[None] * 7,
            OutOfVocabularyError,
            UnknownSegmentError,
            OutOfVocabularyError,
        ]
        for fsa, segment in zip(answer.automata, [*SEGMENTS, SEGMENTS[0]], strict=True):
            assert fsa.equal(golden(segment)), segment
        assert isinstance(answer.errors[7], OutOfVocabularyError)
        assert answer.errors[7].words == ("nine", "eleven")
        assert "unknown segment name 'toy/nope'" in str(answer.errors[8])
    finally:
        backend.close()


def test_what_ends_the_executable_ends_no_batch(tmp_path: Path) -> None:
    first, second, third, fourth, fifth, sixth = SEGMENTS
    misbehave = {first: "kill-once", second: "hang", third: "garbage", fourth: "exit", fifth: "abort"}
    backend = install(tmp_path, misbehave=misbehave).backend(workers={"instances": 2, "item_timeout": 0.7})
    try:
        answer = within(30, lambda: backend.automata([Segment(name) for name in SEGMENTS]))
        assert kinds(answer.errors) == [None, *[WorkerCrashedError] * 4, None]
        for fsa, name in zip(answer.automata, (first, sixth), strict=True):
            assert fsa.equal(golden(name))
        messages = [str(error) for error in answer.errors]
        assert "no answer within 0.7 s; killed by SIGKILL" in messages[1]
        assert "the answer begins with b'\\x00\\x80<i'" in messages[2]
        assert f"ended with status 1; it said:\n<critical-error>cannot cope with {fourth}" in messages[3]
        assert "killed by SIGABRT" in messages[4]
        again = backend.automata([Segment(fourth), Segment(first)])
        assert kinds(again.errors) == [QuarantinedError, None]
        counters = backend.counters()["sprint"]
        assert (counters.crashes, counters.quarantined, counters.retried) == (9, 4, 5)
    finally:
        backend.close()


def test_cached_alignments(tmp_path: Path) -> None:
    allophones = GOLDENS / "allophones" / "mono3.txt"
    with open_archive(GOLDENS / "align" / "mono3.viterbi.cache", folders=[GOLDENS]) as archive:
        alignments = {name: read_alignment(archive, name) for name in archive.segments}
    np.savez(tmp_path / "cache.npz", **{name: item.labels for name, item in alignments.items()})
    backend = install(tmp_path).backend(alignment_cache=tmp_path / "cache.npz", allophones=allophones)
    try:
        assert Capability.ALIGNMENTS in backend.capabilities
        answer = backend.alignments([*SEGMENTS, "toy/nope"])
        assert kinds(answer.errors) == [*[None] * 6, EngineError]
        for name, labels in zip(SEGMENTS, answer.labels, strict=False):
            columns = columns_of(alignments[name], inventory(), Allophones.read(allophones))
            np.testing.assert_array_equal(labels, frame_labels(alignments[name], columns))
    finally:
        backend.close()


@pytest.mark.parametrize("lattice", [False, True])
def test_losses_while_it_walks_through_its_corpus(tmp_path: Path, lattice: bool) -> None:
    frames = 30
    first, second, third, *_ = SEGMENTS
    stand_in = install(tmp_path, misbehave={second: "discard", third: "kill-once"})
    loop = (
        *stand_in.arguments,
        "--*.stand-in.loop=iterate-corpus",
        f"--*.stand-in.lattice={lattice}".lower(),
    )
    backend = stand_in.backend(losses=SprintLossConfig(loop, WorkerSettings(**QUICK)))
    try:
        assert Capability.LOSSES in backend.capabilities
        names = [first, second, "toy/nope", third, first]
        generator = torch.Generator().manual_seed(1)
        logits = torch.randn(len(names), frames, 34, generator=generator, requires_grad=True)
        scores = logits.log_softmax(-1)
        answer = backend.losses(names, list(scores.detach().numpy()))
        assert kinds(answer.errors) == [None, SkippedError, UnknownSegmentError, None, None]
        for index, name in enumerate(names):
            if answer.errors[index] is not None:
                assert answer.losses[index] == np.inf
                assert not answer.signals[index].any()
                continue
            loss = -st.full_sum(scores[index : index + 1], torch.tensor([frames]), golden(name))
            (gradient,) = torch.autograd.grad(loss.sum(), logits, retain_graph=True)
            assert answer.losses[index] == pytest.approx(loss.item(), rel=1e-5)
            np.testing.assert_allclose(answer.signals[index], gradient[index].numpy(), atol=1e-5)
        if lattice:
            wrong = backend.losses([first], [np.zeros((frames - 1, 34), dtype=np.float32)])
            assert "scores are (29, 34), Sprint needs (30, 34) (frames, labels)" in str(wrong.errors[0])
            assert kinds(backend.losses([first], [scores[0].detach().numpy()]).errors) == [None]
        assert backend.counters()["sprint losses"].crashes == 1
    finally:
        backend.close()


def test_set_ups_that_cannot_work(tmp_path: Path) -> None:
    stand_in = install(tmp_path)
    for options, kind, message in (
        ({"executable": tmp_path / "nothing"}, EngineStartError, r"sprint: there is no program .*/nothing"),
        ({"executable": stand_in.labels}, EngineStartError, r"labels\.txt may not be run \(chmod \+x\)"),
        (
            {"arguments": ("noise",)},
            EngineStartError,
            r"status 1; it said:\n<critical-error>unexpected argument",
        ),
        ({"arguments": ("--config=/nowhere/a",)}, ConfigError, r"arguments: /nowhere/a can't be read"),
        ({"minimum_version": 9}, EngineStartError, r"has the control interface 5, needed is 9"),
        (
            {"losses": SprintLossConfig(stand_in.arguments, WorkerSettings(**QUICK))},
            EngineStartError,
            "set python-control-loop-type = iterate-corpus",
        ),
        ({"labels": tmp_path / "nothing"}, DataError, r"labels .*/nothing can't be read"),
    ):
        config = dataclasses.replace(stand_in.config(), **options)
        with pytest.raises(kind, match=message):
            within(10, lambda config=config: SprintBackend(config))
    with pytest.raises(ConfigError, match="allophones is needed with alignment_cache"):
        stand_in.config(alignment_cache=tmp_path)


def test_labels_of_another_state_tying(tmp_path: Path) -> None:
    stand_in = install(tmp_path)
    stand_in.labels.write_text("\n".join(inventory().labels[:20]) + "\n", encoding="utf-8")
    backend = stand_in.backend()
    try:
        (error,) = backend.automata([Segment(SEGMENTS[0])]).errors
        assert "the inventory has 20; labels and state tying don't belong together" in str(error)
        # It isn't the worker's fault.
        assert backend.counters()["sprint"].crashes == 0
    finally:
        backend.close()


def test_the_digest_says_what_the_automata_depend_on(tmp_path: Path) -> None:
    stand_in = install(tmp_path)

    def digest(**options: Any) -> str:
        backend = stand_in.backend(**options)
        backend.close()
        return backend.config_digest

    plain = digest()
    assert plain == digest(workers={"instances": 2})
    probed = digest(probes=("oh",))
    assert len({plain, probed, digest(lexicon=LEXICON), digest(digest_files=(LEXICON,))}) == 4
    # The probe is what tells that another automaton comes out of the same configuration.
    arrays = dict(np.load(tmp_path / "automata.npz"))
    arrays["toy/rec1/seg2|weights"] = arrays["toy/rec1/seg2|weights"] + 1
    np.savez(tmp_path / "automata.npz", **arrays)
    assert digest() == plain
    assert digest(probes=("oh",)) != probed


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    backend = install(tmp_path).backend()
    assert [*folder.iterdir()]
    backend.close()
    assert not [*folder.iterdir()]
