"""The service as a process of its own: start, drain, death of either side."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import pytest

from seqtrain.aligner.v1 import aligner_pb2 as pb
from seqtrain.aligner.v1.aligner_pb2_grpc import AlignerStub
from seqtrain.errors import AlignerTimeoutError, AlignerUnavailableError, ConfigError
from sprint_bridge import cli
from sprint_bridge.process import BridgeProcess
from tests.bridge.toy import write_config


def is_running(pid: int) -> bool:
    """Whether the process lives; a zombie doesn't."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(condition: object, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False


def test_life_of_a_service(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bridge = BridgeProcess(write_config(tmp_path), log=tmp_path / "bridge.log")
    with pytest.raises(AlignerUnavailableError, match="hasn't been started"):
        _ = bridge.target
    with bridge:
        path = Path(bridge.target.removeprefix("unix:"))
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
        bridge.check()

        assert cli.main(["ping", bridge.target, "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert (report["status"], report["backend"]) == ("serving", "local")

        # SIGTERM while calls run: they are answered.
        with grpc.insecure_channel(bridge.target) as channel:
            request = pb.GetAutomataRequest(items=[pb.ItemKey(orthography="one two three " * 300)] * 20)
            running = [AlignerStub(channel).GetAutomata.future(request, timeout=20) for _ in range(3)]
            time.sleep(0.2)
            pid = bridge.pid
            assert pid is not None
            os.kill(pid, signal.SIGTERM)
            assert [len(call.result().statuses) for call in running] == [20, 20, 20]
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(AlignerUnavailableError, match="has ended with status 0; it said:") as caught:
            bridge.check()
        assert str(caught.value).endswith("stopped")
        assert cli.main(["ping", bridge.target]) == 1
        assert "status: unreachable" in capsys.readouterr().out
    assert not path.parent.exists()
    assert "serving 17 labels" in (tmp_path / "bridge.log").read_text()


def test_what_a_child_says_when_it_dies_at_start(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    (tmp_path / "lexicon.txt").write_text("one\n")
    began = time.monotonic()
    with pytest.raises(
        AlignerUnavailableError, match="ended with status 2 while it started; it said:\n"
    ) as caught:
        BridgeProcess(config).start()
    assert "line 1: word 'one' has no phonemes" in str(caught.value)
    assert time.monotonic() - began < 30


def test_a_service_that_does_not_get_ready(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    # Reading this lexicon takes as long as nobody writes to it.
    (tmp_path / "lexicon.txt").unlink()
    os.mkfifo(tmp_path / "lexicon.txt")
    bridge = BridgeProcess(config, start_timeout=2.5)
    pids: list[int] = []

    def note_pid() -> None:
        if wait_until(lambda: bridge.pid is not None, 5):
            pids.append(bridge.pid or 0)

    watcher = threading.Thread(target=note_pid)
    watcher.start()
    with pytest.raises(AlignerTimeoutError, match=r"wasn't ready after 2\.5 s"):
        bridge.start()
    watcher.join()
    assert pids
    assert not is_running(pids[0])


def test_a_child_ends_with_its_parent(tmp_path: Path) -> None:
    config = tmp_path / "bridge.json"
    config.write_text(json.dumps(write_config(tmp_path)))
    # The command that BridgeProcess runs, in a parent that is quick to start.
    code = (
        "import os, subprocess, sys, time\n"
        "command = [sys.executable, '-m', 'sprint_bridge', 'serve', '--config', sys.argv[1]]\n"
        "child = subprocess.Popen([*command, '--parent', str(os.getpid())], stdout=subprocess.PIPE,\n"
        "                         stderr=subprocess.DEVNULL, text=True)\n"
        "target = child.stdout.readline().split()[1]\n"
        "assert child.stdout.readline() == 'serving\\n'\n"
        "print(child.pid, target, flush=True); time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(config)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid, target = parent.stdout.readline().split()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert wait_until(lambda: not is_running(int(pid)), 10)
    assert not Path(target.removeprefix("unix:")).parent.exists()


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "--config", str(tmp_path / "missing.yaml")]) == 2
    assert "can't be read" in capsys.readouterr().err
    assert cli.main(["serve", "--lexicon", "l", "--transcripts", "t", "--listen", "0.0.0.0:1"]) == 2
    assert "TCP needs TLS" in capsys.readouterr().err
    config = tmp_path / "bridge.json"
    config.write_text(json.dumps(write_config(tmp_path)))
    assert cli.main(["serve", "--config", str(config), "--lexicon", "l"]) == 2
    assert "--config says it all; leave out: lexicon" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        cli.main([])
    assert caught.value.code == 2
    with pytest.raises(ConfigError, match="lexicon must be a string"):
        BridgeProcess({"backend": {"transcripts": "t"}})
