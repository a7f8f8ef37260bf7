"""The client and a service that is well."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from seqtrain.aligner import AlignerClient
from seqtrain.aligner.server_info import ServerInfo
from seqtrain.errors import AlignerError, AlignerItemError, ArgumentError
from seqtrain.fsa import FsaBatch
from sprint_bridge.config import Limits
from sprint_bridge.ping import ping
from sprint_bridge.server import AlignerServer
from tests.bridge.toy import builder, serve

TAGS = [f"toy/{number}" for number in range(40)]


def equal(one: FsaBatch, other: FsaBatch) -> bool:
    """Bit for bit, names included."""
    return one.tags == other.tags and all(a.equal(b) for a, b in zip(one, other, strict=True))


def test_automata_are_those_of_a_local_builder_bit_for_bit(client: AlignerClient) -> None:
    local = builder()
    tags = [*TAGS, "toy/empty", *reversed(TAGS[:5])]
    wanted = local.automata(tags)
    assert equal(client.automata(tags), wanted)
    assert equal(client.automata(tags), wanted)
    assert client.inventory() == local.inventory
    assert client.server_info().config_digest == local.digest


def test_info(client: AlignerClient) -> None:
    info = client.server_info()
    assert isinstance(info, ServerInfo)
    assert info.backend == "local"
    assert info.capabilities == {
        "automata_by_segment", "automata_by_orthography", "forced_alignment", "losses", "shared_memory"
    }  # fmt: skip
    assert info.max_batch == Limits().max_batch


def test_the_cache_answers_for_what_was_fetched(client: AlignerClient, server: AlignerServer) -> None:
    first = client.automata(TAGS[:8])
    server.stop()
    assert equal(client.automata(TAGS[:8]), first)
    assert equal(
        client.automata([TAGS[3], TAGS[3], TAGS[1]]), builder().automata([TAGS[3], TAGS[3], TAGS[1]])
    )


def test_no_cache(server: AlignerServer) -> None:
    with AlignerClient(server.target, timeout=0.3, cache_bytes=0) as client:
        assert equal(client.automata(TAGS[:2]), builder().automata(TAGS[:2]))
        server.stop()
        with pytest.raises(AlignerError, match="not reachable"):
            client.automata(TAGS[:2])


def test_an_empty_batch(client: AlignerClient) -> None:
    assert len(client.automata([])) == 0
    assert client.alignments([]).labels.shape == (0, 0)


def test_batches_larger_than_the_server_takes(address: str) -> None:
    server = serve(address, limits=Limits(max_batch=7))
    with AlignerClient(server.target, timeout=10.0) as client:
        assert equal(client.automata(TAGS), builder().automata(TAGS))
    server.stop()


def test_out_of_vocabulary_words_are_named(client: AlignerClient) -> None:
    with pytest.raises(
        AlignerItemError, match=r"segment 'toy/oov': out_of_vocabulary: .*'nine', 'ten'"
    ) as caught:
        client.automata(["toy/1", "toy/oov"])
    error = caught.value
    assert (error.segment, error.status, error.words) == ("toy/oov", "out_of_vocabulary", ("nine", "ten"))
    assert error.target == client.target


def test_unknown_segments_are_named(client: AlignerClient) -> None:
    with pytest.raises(AlignerItemError, match="segment 'nix': unknown_segment") as caught:
        client.automata(["nix"])
    assert (caught.value.segment, caught.value.status, caught.value.words) == ("nix", "unknown_segment", ())
    with pytest.raises(AlignerItemError, match=r"'nix'.*\(and 2 more of this batch: 'toy/oov', 'nix2'\)"):
        client.automata(["nix", "toy/oov", "toy/1", "nix2"])


def test_going_on_without_what_has_no_automaton(client: AlignerClient) -> None:
    partial = client.automata_partial(["nix", "toy/1", "toy/oov", "toy/2", "toy/1"])
    assert partial.kept == (1, 3, 4)
    assert equal(partial.automata, builder().automata(["toy/1", "toy/2", "toy/1"]))
    assert [error.segment for error in partial.errors] == ["nix", "toy/oov"]
    assert partial.errors[1].words == ("nine", "ten")
    nothing = client.automata_partial(["nix"])
    assert (len(nothing.automata), nothing.kept, len(nothing.errors)) == (0, (), 1)


def test_tcp_on_this_host_and_never_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "no_grpc_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = serve("127.0.0.1:0", insecure_loopback=True)
    with AlignerClient(server.target, timeout=10.0) as client:
        assert equal(client.automata(TAGS[:3]), builder().automata(TAGS[:3]))
    assert ping(server.target, timeout=10.0)["status"] == "serving"
    server.stop()


def test_alignments(address: str) -> None:
    rows = {
        "a": np.array([0, 0, 3], dtype=np.int32),
        "b": np.array([5], dtype=np.int32),
        "c": np.zeros(0, np.int32),
    }
    server = serve(address, alignments=rows, limits=Limits(max_batch=2))
    with AlignerClient(server.target, timeout=10.0) as client:
        batch = client.alignments(["b", "a", "c"])
        assert batch.tags == ("b", "a", "c")
        torch.testing.assert_close(batch.labels, torch.tensor([[5, -1, -1], [0, 0, 3], [-1, -1, -1]]))
        torch.testing.assert_close(batch.lengths, torch.tensor([1, 3, 0]))
        with pytest.raises(AlignerItemError, match="segment 'nix': unknown_segment: no alignment among 3"):
            client.alignments(["a", "nix"])
    server.stop()


def test_alignments_that_are_not_offered(client: AlignerClient) -> None:
    with pytest.raises(AlignerError, match=r"was given no alignments.*UNIMPLEMENTED.*doesn't offer it"):
        client.alignments(["toy/1"])


def test_requests_that_the_server_refuses(client: AlignerClient) -> None:
    with pytest.raises(AlignerError, match=r"item 0: a name of 2000 bytes.*INVALID_ARGUMENT"):
        client.automata(["x" * 2000])


def test_answers_larger_than_allowed(server: AlignerServer) -> None:
    with (
        AlignerClient(server.target, timeout=10.0, max_response_bytes=2000) as client,
        pytest.raises(AlignerError, match=r"RESOURCE_EXHAUSTED.*use smaller batches or raise the limits"),
    ):
        client.automata(TAGS)


def test_a_closed_client(server: AlignerServer) -> None:
    client = AlignerClient(server.target)
    client.wait_until_ready()
    client.automata(TAGS[:2])
    client.close()
    client.close()
    for call in (
        client.server_info,
        client.inventory,
        client.wait_until_ready,
        lambda: client.automata(TAGS[:2]),
        lambda: client.automata([]),
        lambda: client.prefetch([TAGS[:2]]),
        lambda: client.alignments(TAGS[:2]),
    ):
        with pytest.raises(AlignerError, match="is closed"):
            call()


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"target": "localhost"}, "target"),
        ({"target": ":50"}, "target"),
        ({"target": "unix:"}, "target"),
        ({"timeout": 0.0}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"cache_bytes": -1}, "cache_bytes"),
        ({"prefetch_depth": 0}, "prefetch_depth"),
        ({"max_response_bytes": 0}, "max_response_bytes"),
    ],
)
def test_malformed_options(options: dict[str, object], argument: str) -> None:
    with pytest.raises(ArgumentError, match=argument) as caught:
        AlignerClient(**{"target": "unix:/nowhere", **options})
    assert caught.value.argument == argument


def test_malformed_tags(client: AlignerClient) -> None:
    with pytest.raises(ArgumentError, match="not the string 'toy/1'"):
        client.automata("toy/1")
    with pytest.raises(ArgumentError, match="'' isn't the name of a segment"):
        client.automata(["toy/1", ""])


def test_nothing_is_printed_and_nothing_hangs_at_exit(server: AlignerServer) -> None:
    # Neither with a service nor without, also when the client isn't closed and a prefetch is under way.
    code = (
        "import sys\n"
        "from seqtrain.aligner import AlignerClient\n"
        "from seqtrain.errors import AlignerUnavailableError\n"
        "client = AlignerClient(sys.argv[1]); client.automata(['toy/1'])\n"
        "gone = AlignerClient(sys.argv[1] + '.gone', timeout=0.3)\n"
        "try:\n    gone.automata(['toy/1'])\n"
        "except AlignerUnavailableError:\n    pass\n"
        "else:\n    raise SystemExit(1)\n"
        "slow = AlignerClient(sys.argv[1] + '.gone', timeout=60)\n"
        "slow.prefetch([['toy/1'], ['toy/2']])\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, server.target],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
