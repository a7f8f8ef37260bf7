"""Automata packed one by one and joined are the message of their batch."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqtrain.aligner.answers import read_automata, read_automata_batch
from seqtrain.aligner.v1 import aligner_pb2 as pb
from seqtrain.aligner.v1.automata import PackedAutomaton, automata_message, join_automata, pack_automata
from seqtrain.fsa import Fsa, FsaBatch

OK = pb.ItemStatus(code=pb.ITEM_CODE_OK)


def joined(packed: list[PackedAutomaton], statuses: list[pb.ItemStatus]) -> pb.GetAutomataResponse:
    return join_automata(packed, statuses, inventory_etag="e", config_digest="d", request_id=3)


def of_batch(batch: FsaBatch) -> pb.GetAutomataResponse:
    return automata_message(batch, [OK] * len(batch), inventory_etag="e", config_digest="d", request_id=3)


@st.composite
def automata(draw: st.DrawFn, dtypes: tuple[type, ...] = (np.float32, np.float64)) -> Fsa:
    states = draw(st.integers(1, 4))
    state = st.integers(0, states - 1)
    weight = st.floats(-10, 10, width=32) | st.just(-np.inf)
    arcs = draw(st.lists(st.tuples(state, state, st.integers(0, 9), weight), max_size=5))
    final = draw(st.dictionaries(state, weight, max_size=states))
    weights = np.array([arc[3] for arc in arcs], dtype=draw(st.sampled_from(dtypes)))
    rows = np.array([arc[:3] for arc in arcs], dtype=np.int32).reshape(-1, 3)
    return Fsa(rows, weights, num_states=states, start=draw(state), final=final)


@settings(deadline=None)
@given(st.lists(automata(), max_size=5))
def test_joined_is_the_message_of_the_batch(graphs: list[Fsa]) -> None:
    batch = FsaBatch.from_list(graphs)
    message = of_batch(batch)
    packed = pack_automata(batch)
    assert joined(packed, [OK] * len(graphs)) == message
    assert sum(one.num_bytes for one in packed) == sum(
        len(array.raw)
        for array in (message.arcs, message.weights, message.final_states, message.final_weights)
    )


@settings(deadline=None)
@given(st.lists(automata(), max_size=5))
def test_packed_apart_they_take_the_widest_dtype(graphs: list[Fsa]) -> None:
    packed = [pack_automata(FsaBatch.from_list([graph]))[0] for graph in graphs]
    message = joined(packed, [OK] * len(graphs))
    wanted = FsaBatch.from_list(graphs)
    assert message == of_batch(wanted)
    names = [str(number) for number in range(len(graphs))]
    answer = read_automata_batch(message, names, target="here")
    assert (answer.batch.tags, answer.errors) == (tuple(names), {})
    for one, other, indexed in zip(
        read_automata(message, names, target="here"), wanted, answer.batch, strict=True
    ):
        assert isinstance(one, Fsa)
        assert one.equal(other)
        assert one.equal(indexed)


def test_what_was_read_owns_its_memory() -> None:
    graph = Fsa([[0, 1, 5], [1, 1, 5]], torch.tensor([-0.5, -1.0]), num_states=2)
    message = joined(pack_automata(FsaBatch.from_list([graph, graph])), [OK, OK])
    first, second = read_automata(message, ["a", "b"], target="here")
    assert isinstance(first, Fsa)
    assert isinstance(second, Fsa)
    for fsa in (first, second):
        for tensor in (fsa.arcs, fsa.weights, fsa.final_states, fsa.final_weights):
            # UntypedStorage came with torch 2.0; before, a storage counts elements.
            storage = getattr(tensor, "untyped_storage", tensor.storage)()
            assert storage.nbytes() == tensor.numel() * tensor.element_size()


def test_an_error_stands_in_its_place() -> None:
    graph = Fsa([[0, 1, 5]], num_states=2)
    unknown = pb.ItemStatus(code=pb.ITEM_CODE_UNKNOWN_SEGMENT, message="nix")
    message = joined(pack_automata(FsaBatch.from_list([graph])), [unknown, OK])
    answer = read_automata_batch(message, ["a", "b"], target="here")
    assert answer.batch.tags == ("b",)
    assert [error.segment for error in answer.errors.values()] == ["a"]
    assert list(answer.errors) == [0]
    assert [isinstance(item, Fsa) for item in answer.items()] == [False, True]
