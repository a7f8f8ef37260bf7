"""Recordings: what a service answered, answered again without it."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import seqtrain as st
from seqtrain.aligner import AlignerClient
from seqtrain.errors import (
    AlignerError,
    AlignerItemError,
    AlignerUnavailableError,
    ConfigError,
    DataError,
    InfeasibleError,
    SkippedError,
    UnknownSegmentError,
    WorkerCrashedError,
)
from seqtrain.losses import ExternSprintLoss, FastBaumWelchLoss
from sprint_bridge import cli
from sprint_bridge.backends.base import Orthography, Segment
from sprint_bridge.backends.replay import ReplayBackend, ReplayBackendConfig, load_replay_backend
from sprint_bridge.config import dump_config, parse_config
from sprint_bridge.process import BridgeProcess
from sprint_bridge.record import RecordingServer, record_segments
from sprint_bridge.recorded import read_recording
from sprint_bridge.recording import Kind, RecordingWriter, read_records
from sprint_bridge.server import AlignerServer
from tests.aligner.test_failed_items import FailingBackend
from tests.bridge.toy import builder, serve

TAGS = ["toy/1", "toy/2", "toy/5", "toy/8"]
LABELS = len(builder().inventory)
FRAMES = 40
ROWS = {tag: np.arange(5, dtype=np.int32) for tag in TAGS}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[AlignerServer]:
    server = serve(f"unix:{tmp_path}/a.sock", alignments=ROWS)
    yield server
    server.stop()


def logits() -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(len(TAGS), FRAMES, LABELS, generator=generator)


class Seen:
    """All that a trainer gets out of a service."""

    def __init__(self, target: str) -> None:
        lengths = torch.tensor([FRAMES, FRAMES - 3, 1, FRAMES])  # the third is too short for any path
        with AlignerClient(target, timeout=20.0) as client:
            self.info = client.server_info()
            self.inventory = client.inventory()
            client.prefetch([TAGS[:2], TAGS[2:]])
            self.automata = [client.automata(TAGS[:2]), client.automata([*TAGS[2:], "toy/empty"])]
            self.failed = client.automata_partial(["toy/oov", "nix", *TAGS])
            self.alignments = client.alignments(TAGS)
            parameters = logits().requires_grad_()
            loss = ExternSprintLoss(client, reduction="none", on_infeasible="mask")
            self.losses = loss(parameters, lengths, TAGS)
            self.losses.sum().backward()
            self.gradient = parameters.grad
            scores = logits().log_softmax(-1)
            self.reasons = client.error_signals(TAGS, scores, lengths).reasons
            full = torch.full((len(TAGS),), FRAMES)
            self.best = client.align(TAGS, scores, full)
            self.half = client.error_signals(TAGS[:2], scores[:2].half(), full[:2])
            self.fast = FastBaumWelchLoss(client, reduction="none")(scores, full, TAGS)


def assert_same(one: Seen, other: Seen) -> None:
    assert one.info.config_digest == other.info.config_digest
    assert one.info.capabilities - {"shared_memory"} == other.info.capabilities - {"shared_memory"}
    assert one.inventory == other.inventory
    for ours, theirs in zip(one.automata, other.automata, strict=True):
        assert all(a.equal(b) for a, b in zip(ours, theirs, strict=True))
    assert one.failed.kept == other.failed.kept
    for ours_error, theirs_error in zip(one.failed.errors, other.failed.errors, strict=True):
        assert (ours_error.status, ours_error.words) == (theirs_error.status, theirs_error.words)
        assert str(ours_error).partition("segment ")[2] == str(theirs_error).partition("segment ")[2]
    assert one.reasons == other.reasons
    assert one.gradient is not None
    assert other.gradient is not None
    for a, b in (
        (one.alignments.labels, other.alignments.labels),
        (one.losses, other.losses),
        (one.gradient, other.gradient),
        (one.best.labels, other.best.labels),
        (one.half.losses, other.half.losses),
        (one.half.signals, other.half.signals),
        (one.fast, other.fast),
    ):
        assert torch.equal(a, b)


def test_a_step_of_training_is_reproduced_without_the_aligner(tmp_path: Path, service: AlignerServer) -> None:
    path = tmp_path / "step.rec"
    plain = Seen(service.target)
    with RecordingServer(service.target, path) as recorder:
        assert_same(Seen(recorder.target), plain)
        records = recorder.records
        # What is in it already isn't written again.
        assert_same(Seen(recorder.target), plain)
        assert recorder.records == records
        assert not path.exists()
    service.stop()

    server = AlignerServer(listen=f"unix:{tmp_path}/b.sock")
    server.start()
    server.serve(load_replay_backend(ReplayBackendConfig(path)))
    try:
        seen = Seen(server.target)
        assert_same(seen, plain)
        assert seen.info.backend == "replay of local"
        with AlignerClient(server.target, timeout=10.0, cache_bytes=0) as client:
            with pytest.raises(
                AlignerItemError, match=r"'toy/9': unknown_segment: not in the recording$"
            ) as caught:
                client.automata(["toy/1", "toy/9"])
            assert caught.value.status == "unknown_segment"
            with pytest.raises(AlignerItemError, match="'toy/9': unknown_segment: not in the recording"):
                client.alignments(["toy/9"])
            other = logits().mul(2).log_softmax(-1)
            lengths = torch.full((len(TAGS),), FRAMES)
            for ask in (client.error_signals, client.align):
                with pytest.raises(AlignerItemError, match="not in the recording with these scores"):
                    ask(TAGS, other, lengths)
    finally:
        server.stop()


def test_what_engines_fail_over_is_recorded_too(tmp_path: Path) -> None:
    server = AlignerServer(listen=f"unix:{tmp_path}/a.sock")
    server.start()
    server.serve(FailingBackend(builder()))
    path = tmp_path / "failed.rec"
    counts = record_segments(
        server.target, path, ["toy/1", "toy/3", "toy/4", "toy/5", "toy/oov", "nix"], timeout=10.0
    )
    assert counts == {
        "ok": 1, "crashed": 1, "quarantined": 1, "skipped": 1, "out_of_vocabulary": 1, "unknown_segment": 1
    }  # fmt: skip
    answers = read_recording(path).automata
    assert {type(answers[Segment(name)]) for name in ("toy/3", "toy/5", "nix")} == {
        WorkerCrashedError,
        SkippedError,
        UnknownSegmentError,
    }
    backend = ReplayBackend(read_recording(path))
    found = backend.automata([Segment("toy/3"), Segment("toy/1"), Orthography("one two")])
    assert str(found.errors[0]) == "the engine died"
    assert found.errors[1] is None
    assert isinstance(found.errors[2], UnknownSegmentError)
    server.stop()
    with pytest.raises(AlignerUnavailableError, match="not ready to be recorded"):
        record_segments(server.target, tmp_path / "none.rec", ["toy/1"], timeout=0.3)
    assert not [*tmp_path.glob("none*")]


def test_a_better_answer_counts(tmp_path: Path, service: AlignerServer) -> None:
    """An item that failed at first, and didn't later."""
    whole, failed = tmp_path / "whole.rec", tmp_path / "failed.rec"
    record_segments(service.target, whole, ["toy/3"])
    service.stop()
    server = AlignerServer(listen=f"unix:{tmp_path}/c.sock")
    server.start()
    server.serve(FailingBackend(builder(), ROWS))
    record_segments(server.target, failed, ["toy/3"])
    server.stop()
    records = [*read_records(failed), *[r for r in read_records(whole) if r.kind is Kind.AUTOMATA]]
    for order, name in ((records, "later.rec"), ([records[0], *reversed(records[1:])], "earlier.rec")):
        writer = RecordingWriter(tmp_path / name)
        for record in order:
            writer.write(record.kind, record.parts)
        writer.close()
        found = read_recording(tmp_path / name).automata[Segment("toy/3")]
        assert isinstance(found, st.fsa.Fsa)
        assert found.equal(builder().build("one"))


def test_statuses_of_calls_come_through(tmp_path: Path, service: AlignerServer) -> None:
    with (
        RecordingServer(service.target, tmp_path / "a.rec") as recorder,
        AlignerClient(recorder.target, timeout=1.0, shared_memory=True) as client,
    ):
        # It shares no memory, and so the client sends.
        assert "shared_memory" not in client.server_info().capabilities
        scores = logits().log_softmax(-1)
        assert client.error_signals(TAGS, scores, torch.full((4,), FRAMES)).losses.isfinite().all()
        with pytest.raises(AlignerError, match=r"a name of 2000 bytes.*INVALID_ARGUMENT"):
            client.automata(["x" * 2000])
        service.stop()
        with pytest.raises(AlignerUnavailableError, match="not reachable"):
            client.automata(["toy/7"])
    assert read_recording(tmp_path / "a.rec").losses


@pytest.fixture
def recorded(tmp_path: Path, service: AlignerServer) -> Path:
    path = tmp_path / "good.rec"
    record_segments(service.target, path, TAGS)
    return path


def test_a_recording_is_never_written_over(tmp_path: Path, recorded: Path, service: AlignerServer) -> None:
    before = recorded.read_bytes()
    with pytest.raises(DataError, match="exists; a recording is never written over") as caught:
        record_segments(service.target, recorded, TAGS)
    assert caught.value.path == str(recorded)
    assert recorded.read_bytes() == before
    with pytest.raises(DataError, match="can't be written"):
        record_segments(service.target, tmp_path / "nowhere" / "a.rec", TAGS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: b"", "byte 0: not a recording of an aligner service"),
        (lambda content: b"\x80\x04K\x01." + content, "byte 0: not a recording"),
        (lambda content: content[:8] + struct.pack("<H", 2) + content[10:], "byte 8: version 2; this reads"),
        (lambda content: content[:300], "byte 10: cut off after 0 records; --recover uses those"),
        (lambda content: content[:-1], r"byte \d+: cut off after 3 records"),
        (lambda content: content[:-60], r"cut off after 2 records"),
        (lambda content: content[:200] + b"\xff" + content[201:], "byte 10: a record whose checksum doesn't"),
        (
            lambda content: content[:10] + b"\x07" + content[11:],
            "byte 10: a record of kind 7, which isn't known",
        ),
        (
            lambda content: content[:15] + b"\xff" * 8 + content[23:],
            "byte 10: .*cut off after 0 records|checksum",
        ),
        (lambda content: content + b"more", r"there are bytes behind the end"),
        (lambda content: content[:-1] + b"\0", r"checksum|aren't those that were written"),
    ],
)
def test_files_that_are_no_recordings(recorded: Path, change: Any, message: str) -> None:
    recorded.write_bytes(change(recorded.read_bytes()))
    with pytest.raises(DataError, match=message) as caught:
        read_recording(recorded)
    assert caught.value.path == str(recorded)


def rewrite(recorded: Path, records: list[tuple[Kind, tuple[bytes, ...]]]) -> Path:
    path = recorded.with_name("rewritten.rec")
    writer = RecordingWriter(path)
    for kind, parts in records:
        writer.write(kind, parts)
    writer.close()
    return path


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ([], "has no records"),
        ([1], "the first record doesn't say which server it is"),
        ([0, 0], "a second server"),
        ([0, (1, (b"\xff" * 9,))], "a malformed record"),
        ([0, (Kind.LOSSES, (b"", b"", b"", b""))], "a malformed record"),
        ([0, (Kind.AUTOMATA, ())], "it has 0 parts"),
        ([0, (Kind.AUTOMATA, (b"", b""))], "it is of another server"),
    ],
)
def test_records_that_make_no_sense(recorded: Path, order: list[Any], message: str) -> None:
    known = [(record.kind, record.parts) for record in read_records(recorded)]
    records = [known[entry] if isinstance(entry, int) else entry for entry in order]
    path = rewrite(recorded, [(Kind(kind), parts) for kind, parts in records])
    with pytest.raises(DataError, match=message):
        read_recording(path)


def test_what_a_killed_recorder_leaves(tmp_path: Path, service: AlignerServer) -> None:
    out = tmp_path / "killed.rec"
    command = [sys.executable, "-m", "sprint_bridge", "record", "--target", service.target, "--out", str(out)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    target = child.stdout.readline().split()[1]
    with AlignerClient(target, timeout=20.0) as client:
        batch = client.automata(TAGS)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    Path(target.removeprefix("unix:")).unlink()
    Path(target.removeprefix("unix:")).parent.rmdir()
    assert not out.exists()
    partial = tmp_path / "killed.rec.part"
    with pytest.raises(DataError, match="cut off after 2 records; --recover"):
        read_recording(partial)
    # Half a record at its end doesn't matter.
    partial.write_bytes(partial.read_bytes() + b"\x02\x02\0\0\0")
    found = read_recording(partial, recover=True).automata
    for tag, fsa in zip(TAGS, batch, strict=True):
        kept = found[Segment(tag)]
        assert isinstance(kept, st.fsa.Fsa)
        assert kept.equal(fsa)


def test_the_command_line(tmp_path: Path, service: AlignerServer, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.rec"
    listed = tmp_path / "segments"
    listed.write_text("toy/1\ntoy/2\n")
    command = ["record", "--target", service.target, "--out", str(out), "--segments", str(listed)]
    assert cli.main([*command, "--json", "--", "toy/5", "toy/8"]) == 0
    assert json.loads(capsys.readouterr().out) == {"recording": str(out), "items": {"ok": 8}}
    assert cli.main(command) == 2
    assert "never written over" in capsys.readouterr().err
    assert (
        cli.main(["record", "--target", f"unix:{tmp_path}/no", "--out", f"{out}2", "--timeout", "0.2", "a"])
        == 1
    )
    assert "not ready to be recorded" in capsys.readouterr().err
    assert (
        cli.main(["record", "--target", "unix:/x", "--out", "y", "--token-file", str(tmp_path / "no")]) == 2
    )
    assert "--token-file: " in capsys.readouterr().err

    # As a process: the same as `serve` with a backend of this type.
    config = {"backend": {"type": "replay", "recording": str(out)}}
    assert dump_config(parse_config(config, folder=tmp_path))["backend"] == {
        "type": "replay",
        "recording": str(out),
        "recover": False,
    }
    with pytest.raises(ConfigError, match=r"backend\.recording must be"):
        parse_config({"backend": {"type": "replay"}}, folder=tmp_path)
    replay = subprocess.Popen(
        [sys.executable, "-m", "sprint_bridge", "replay", str(out)], stdout=subprocess.PIPE, text=True,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert replay.stdout is not None
    target = replay.stdout.readline().split()[1]
    assert replay.stdout.readline() == "serving\n"
    with AlignerClient(target, timeout=20.0) as client:
        for one, other in zip(client.automata(TAGS), builder().automata(TAGS), strict=True):
            assert one.equal(other)
    replay.terminate()
    assert replay.wait(20) == 0
    replay.stdout.close()

    out.write_bytes(b"nonsense")
    with pytest.raises(AlignerUnavailableError, match=r"status 2.*\n.*not a recording of an aligner service"):
        BridgeProcess(config).start()


def test_infeasible_is_recorded_with_its_words(tmp_path: Path, service: AlignerServer) -> None:
    path = tmp_path / "a.rec"
    scores = logits()[:1, :1].log_softmax(-1)
    with RecordingServer(service.target, path) as recorder, AlignerClient(recorder.target) as client:
        (reason,) = client.error_signals(["toy/5"], scores, torch.tensor([1])).reasons
    ((_, found),) = read_recording(path).losses.items()
    assert isinstance(found, InfeasibleError)
    assert reason == f"infeasible: {found}"
