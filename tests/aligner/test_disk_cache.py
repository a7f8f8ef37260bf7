"""Automata in files: found again, never mistaken, bounded, and no reason to fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from seqtrain.aligner import AlignerClient
from seqtrain.aligner.cache import CacheKey
from seqtrain.aligner.disk_cache import DiskCache
from seqtrain.fsa import Fsa, FsaBatch, Transitions
from seqtrain.lexicon import HmmTopology
from tests.aligner.test_client import TAGS, equal
from tests.bridge.toy import builder, serve

KEY = CacheKey("labels", "configuration", "toy/1")


def automaton() -> Fsa:
    return builder().automata(["toy/1"])[0]


def same(one: Fsa | None, other: Fsa) -> bool:
    return one is not None and equal(FsaBatch.from_list([one]), FsaBatch.from_list([other]))


def test_what_is_put_is_found_bit_for_bit_by_its_key_alone(tmp_path: Path) -> None:
    DiskCache(tmp_path, 1 << 20).put(KEY, automaton())
    cache = DiskCache(tmp_path, 1 << 20)
    assert same(cache.get(KEY), automaton())
    for other in (
        KEY._replace(segment="toy/2"),
        KEY._replace(config_digest="x"),
        KEY._replace(inventory_etag="x"),
    ):
        assert cache.get(other) is None


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "garbage"])
def test_a_damaged_file_counts_as_none(tmp_path: Path, damage: str) -> None:
    cache = DiskCache(tmp_path, 1 << 20)
    cache.put(KEY, automaton())
    (path,) = tmp_path.glob("*/*")
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-3] ^= 1
    path.write_bytes({"cut": content[:-1], "flip": content, "empty": b"", "garbage": b"x" * 500}[damage])
    assert cache.get(KEY) is None
    cache.put(KEY, automaton())
    assert same(cache.get(KEY), automaton())


def test_the_oldest_go_when_there_is_no_room(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 20_000)
    keys = [KEY._replace(segment=f"toy/{number}") for number in range(60)]
    for key in keys:
        cache.put(key, automaton())
    files = list(tmp_path.glob("*/*"))
    assert sum(path.stat().st_size for path in files) <= 20_000
    assert same(cache.get(keys[-1]), automaton())
    assert cache.get(keys[0]) is None


def test_a_later_run_needs_no_automaton_again(tmp_path: Path, address: str) -> None:
    server = serve(address)
    with AlignerClient(address, timeout=5.0, cache_folder=tmp_path) as client:
        first = client.automata(TAGS)
    server.stop()
    server = serve(address)
    with AlignerClient(address, timeout=5.0, cache_folder=tmp_path) as client:
        client.server_info()
        server.stop()
        assert equal(client.automata(TAGS), first)


def test_another_configuration_finds_nothing(tmp_path: Path, address: str) -> None:
    server = serve(address)
    with AlignerClient(address, timeout=5.0, cache_folder=tmp_path) as client:
        client.automata(TAGS[:3])
    server.stop()
    other = HmmTopology(states_per_phone=2, phone=Transitions.from_probabilities(loop=0.5))
    server = serve(address, topology=other)
    with AlignerClient(address, timeout=5.0, cache_folder=tmp_path) as client:
        assert equal(client.automata(TAGS[:3]), builder(other).automata(TAGS[:3]))
    server.stop()
