"""Every automaton that RASR exported, rebuilt: states, arcs in order, costs; and the scores it aligned with."""

from __future__ import annotations

import gzip
import json
import re

import numpy as np
import pytest
import torch

import seqtrain as st
from seqtrain.fsa import FsaBatch
from seqtrain.lexicon.rasr import RasrAutomatonBuilder
from tests.lexicon.rasr.setup import GOLDENS, VARIANTS, golden_builder

SEGMENTS = ("rec1/seg1", "rec1/seg2", "rec2/seg1", "rec2/seg2", "rec3/seg1", "rec3/seg2")
BUILDERS: dict[str, RasrAutomatonBuilder] = {}


def builder(variant: str) -> RasrAutomatonBuilder:
    if variant not in BUILDERS:
        BUILDERS[variant] = golden_builder(variant)
    return BUILDERS[variant]


def test_there_are_goldens() -> None:
    assert len(VARIANTS) == 20
    assert builder("mono3").segments == tuple(f"toy/{segment}" for segment in SEGMENTS)


@pytest.mark.parametrize("segment", SEGMENTS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_an_automaton_is_what_rasr_exported(variant: str, segment: str) -> None:
    name = f"toy/{segment}"
    with np.load(GOLDENS / "fsa" / f"{variant}.npz") as data:
        num_states, edges, costs = (data[f"{name}|{part}"] for part in ("num_states", "edges", "weights"))
    exported = builder(variant).export(builder(variant).orthography(name))
    assert exported.num_states == num_states
    np.testing.assert_array_equal(exported.edges, edges)
    np.testing.assert_allclose(exported.costs, costs, rtol=0, atol=1e-6)
    fsa = builder(variant).build(name)
    assert (fsa.num_states, fsa.start, fsa.final_states.tolist()) == (num_states, 0, [num_states - 1])
    np.testing.assert_array_equal(fsa.arcs.numpy(), edges.T)
    np.testing.assert_allclose(fsa.weights.numpy(), -costs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_allophones_and_orthographies(variant: str) -> None:
    assert builder(variant).model.allophones.text() == (GOLDENS / "allophones" / f"{variant}.txt").read_text()
    recorded = json.loads((GOLDENS / "fsa" / f"{variant}.json").read_text())
    assert {name: f"{builder(variant).orthography(name)} " for name in builder(variant).segments} == {
        name: record["orth"] for name, record in recorded.items()
    }


@pytest.mark.parametrize(
    ("variant", "kind"),
    [
        ("mono1", "monophone_1state"),
        ("tri1_mono", "monophone_1state"),
        ("mono3", "monophone_3state"),
        ("tri3_mono_rep2", "monophone_3state"),
        ("mono3_eow", "monophone_eow_3state"),
        ("ctc", "ctc_1state"),
        ("rna", "ctc_1state"),
    ],
)
def test_labels(variant: str, kind: str) -> None:
    labels = json.loads((GOLDENS / "labels.json").read_text())[kind]
    assert list(builder(variant).labels) == labels
    inventory = builder(variant).inventory
    assert (inventory.silence, inventory.blank) == ((None, 0) if kind == "ctc_1state" else (0, None))


def test_the_batch_is_the_segments() -> None:
    mono = builder("mono3")
    batch = mono.automata(mono.segments)
    assert batch.tags == mono.segments
    assert all(fsa.equal(mono.build(tag)) for fsa, tag in zip(batch, mono.segments, strict=True))


def test_as_the_batch_of_the_fast_baum_welch_layer() -> None:
    mono = builder("mono3")
    with np.load(GOLDENS / "fsa" / "mono3.npz") as data:
        name = mono.segments[2]
        edges, costs = data[f"{name}|edges"], data[f"{name}|weights"]
    rows = np.concatenate([edges, np.zeros((1, edges.shape[1]))]).astype(np.int64)
    recorded = FsaBatch.from_rasr(None, rows, costs, [[0], [int(edges[:2].max())]], tags=[name])
    built = mono.automata([name])
    assert torch.equal(built.arcs, recorded.arcs)
    assert torch.equal(built.final_states, recorded.final_states)
    torch.testing.assert_close(built.weights, recorded.weights, rtol=0, atol=1e-6)


def alignments(kind: str) -> dict[str, tuple[float, list[list[tuple[int, float]]]]]:
    """Segment → score, and for each frame the classes with their weights, of the alignments RASR made."""
    found: dict[str, tuple[float, list[list[tuple[int, float]]]]] = {}
    items: list[list[tuple[int, float]]] = []
    wanted = False
    with gzip.open(GOLDENS / "align" / "mono3.txt.gz", "rt") as file:
        for line in file:
            header = re.match(r"(\w+)\t(\S+)\tscore=(\S+)", line)
            if header is not None:
                items = []
                wanted = header[1] == kind
                if wanted:
                    found[header[2]] = (float(header[3]), items)
            elif wanted:
                time, _, _, label, weight = line.split()
                while len(items) <= int(time):
                    items.append([])
                items[int(time)].append((int(label), float(weight)))
    return found


def scores(segment: str) -> torch.Tensor:
    """(1, T, V) log-probabilities that RASR aligned."""
    content = (GOLDENS / "align" / f"{segment.replace('/', '_')}.f32").read_bytes()
    frames, labels = np.frombuffer(content[:8], "<i4")
    costs = np.frombuffer(content[8:], "<f4").reshape(1, frames, labels)
    return torch.from_numpy(-costs)


@pytest.mark.parametrize("segment", SEGMENTS)
def test_the_best_path_is_the_one_of_rasrs_aligner(segment: str) -> None:
    name = f"toy/{segment}"
    score, items = alignments("viterbi")[name]
    log_probs = scores(name)
    lengths = torch.tensor([log_probs.shape[1]])
    alignment = st.best_path(log_probs, lengths, builder("mono3").automata([name]))
    assert -float(alignment.score[0]) == pytest.approx(score, abs=1e-3)
    assert alignment.labels[0].tolist() == [frame[0][0] for frame in items]


@pytest.mark.parametrize("segment", SEGMENTS)
def test_the_full_sum_is_the_one_of_rasrs_baum_welch(segment: str) -> None:
    name = f"toy/{segment}"
    score, items = alignments("bw")[name]
    log_probs = scores(name)
    lengths = torch.tensor([log_probs.shape[1]])
    fsa = builder("mono3").automata([name])
    assert -float(st.full_sum(log_probs, lengths, fsa)[0]) == pytest.approx(score, abs=1e-3)
    occupancies = st.posteriors(log_probs, lengths, fsa)[0]
    recorded = torch.zeros_like(occupancies)
    for time, frame in enumerate(items):
        for label, weight in frame:
            recorded[time, label] += weight
    # RASR leaves out what is unlikely, and stores weights in 16 bits.
    torch.testing.assert_close(occupancies, recorded, rtol=0, atol=2e-3)
