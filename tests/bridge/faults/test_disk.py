"""The disk of the client's cache is full: training goes on without it, and says so once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bridge.toy import serve

TRAINING = """
import logging, resource, signal, sys
from pathlib import Path

from seqtrain.aligner import AlignerClient
from tests.bridge.toy import builder

target, folder, limit = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
logging.basicConfig(format="%(message)s")
tags = [f"toy/{number}" for number in range(40)]
local = builder()
if limit:
    # No file may grow beyond this: a write fails as on a full disk, with EFBIG.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
with AlignerClient(target, timeout=20.0, cache_bytes=0, cache_folder=folder) as client:
    for _ in range(2):
        for begin in range(0, 40, 4):
            batch = client.automata(tags[begin : begin + 4])
            for one, other in zip(batch, local.automata(tags[begin : begin + 4]), strict=True):
                assert one.equal(other)
    left = [path for path in folder.rglob("*") if path.is_file()]
    # Whatever lies there is whole: a later run reads it, and nothing half written is left.
    assert not [path for path in left if path.suffix != ".automaton"], left
    print(f"{len(left)} files")
"""


def train(folder: Path, target: str, *, limit: int = 0, tmpfs: bool = False) -> tuple[int, list[str]]:
    """Files that are left after some steps, and what they said."""
    folder.mkdir()
    command = [sys.executable, "-c", TRAINING, target, str(folder), str(limit)]
    if tmpfs:
        mounted = f"mount -t tmpfs -o size=32k none {folder} && exec " + '"$@"'
        command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mounted, "sh", *command]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[0]), done.stderr.splitlines()


def can_mount() -> bool:
    """Whether a file system of one's own can be had: a real one that is full."""
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", "mount -t tmpfs none /mnt"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture
def target(tmp_path: Path) -> str:
    return f"unix:{tmp_path}/a.sock"


def test_a_full_disk(tmp_path: Path, target: str) -> None:
    server = serve(target)
    try:
        files, said = train(tmp_path / "limited", target, limit=400)
        assert said == [
            f"automata aren't written to the cache {tmp_path / 'limited'} any more: File too large"
        ]
        assert files < 40
        if can_mount():
            files, said = train(tmp_path / "full", target, tmpfs=True)
            assert said == [
                f"automata aren't written to the cache {tmp_path / 'full'} any more: No space left on device"
            ]
            assert 0 < files < 40
        # A disk with room takes all of them.
        assert train(tmp_path / "roomy", target) == (40, [])
    finally:
        server.stop()
