"""One worker: it starts, answers, and ends however things go."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sprint_bridge.workers.errors import EngineMissingError, EngineStartError, WorkerFailedError
from sprint_bridge.workers.process import Command, WorkerProcess
from tests.bridge.test_process import is_running
from tests.bridge.toy_pool import ROOT, command, wait_until, within, worker


def ask(process: WorkerProcess, segment: str, *, seconds: float = 5.0) -> int:
    answer = process.request(
        {"operation": "automaton", "segment": segment}, {}, deadline=time.monotonic() + seconds
    )
    return int(answer.message["num_states"])


def test_life_of_a_worker(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    toy = command()
    process = WorkerProcess(
        Command("toy", toy.arguments, environment=toy.environment, log=log),
        description={"operation": "describe"},
    )
    assert process.describe(deadline=time.monotonic() + 10)["engine"] == "toy"
    assert process.is_alive()
    assert os.getsid(process.pid) == process.pid
    assert Path(f"/proc/{process.pid}/fd/0").readlink() == Path("/dev/null")
    assert ask(process, "abc") == 4
    process.ping(deadline=time.monotonic() + 5)
    scores = np.ones((3, 2), dtype=np.float32)
    answer = process.request(
        {"operation": "loss", "segment": "a"}, {"scores": scores}, deadline=time.monotonic() + 5
    )
    np.testing.assert_array_equal(answer.arrays["signal"], 2 * scores)
    began = time.monotonic()
    process.stop(5.0)
    assert time.monotonic() - began < 3
    assert not process.is_alive()
    process.kill()
    process.dispose()
    assert "asked for abc" in log.read_text()


def open_descriptors() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


@pytest.mark.parametrize(
    ("segment", "message"),
    [
        ("kill", r"it died; killed by SIGKILL; it said:\nasked for kill"),
        ("exit", r"it died; ended with status 3; it said:\nasked for exit\nI give up"),
        ("hang", r"no answer within 0\.3 s; killed by SIGKILL"),
        ("garbage", r"the answer begins with b'Segm', no frame does; killed by SIGKILL"),
    ],
)
def test_what_became_of_it(segment: str, message: str) -> None:
    process = worker()
    process.describe(deadline=time.monotonic() + 10)
    with pytest.raises(WorkerFailedError, match=message):
        within(5, lambda: ask(process, segment, seconds=0.3))
    assert not process.is_alive()
    process.dispose()


def test_somebody_else_kills_it_while_it_is_waited_for() -> None:
    process = worker()
    process.describe(deadline=time.monotonic() + 10)
    with pytest.raises(WorkerFailedError, match="killed by SIGTERM"):
        within(5, lambda: (os.kill(process.pid, signal.SIGTERM), ask(process, "hang")))
    process.dispose()


def test_a_stopped_process_is_one_that_hangs() -> None:
    process = worker()
    process.describe(deadline=time.monotonic() + 10)
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(WorkerFailedError, match=r"no answer within 0\.2 s; killed by SIGKILL"):
        process.ping(deadline=time.monotonic() + 0.2)
    process.dispose()


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        (("fail=failed",), EngineStartError, "toy can't be started: it can't be"),
        (("fail=missing_module",), EngineMissingError, "toy can't be started: it can't be"),
        (
            ("start=exit",),
            EngineStartError,
            r"toy can't be started: it died; ended with status 3; it said:\n",
        ),
        (("start=hang",), EngineStartError, r"toy can't be started: no answer within 0\.\d s; killed"),
    ],
)
def test_one_that_does_not_start(options: tuple[str, ...], kind: type[Exception], message: str) -> None:
    process = worker(*options)
    with pytest.raises(kind, match=message):
        process.describe(deadline=time.monotonic() + 0.9)
    process.dispose()


def test_programs_that_cannot_be_run(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/nowhere/interpreter\n")
    broken.chmod(0o755)

    def start(program: str) -> None:
        process = WorkerProcess(
            Command("toy", lambda read, write: [program]), description={"operation": "describe"}
        )
        try:
            process.describe(deadline=time.monotonic() + 5)
        finally:
            process.dispose()

    before = open_descriptors()
    for program, message in (
        ("worker", "the program must be an absolute path, found worker"),
        ("/nowhere/worker", "there is no program /nowhere/worker"),
        (str(tmp_path), "there is no program"),
        (str(ROOT / "README.md"), r"README\.md may not be run \(chmod \+x\)"),
        (str(broken), r"toy can't be started: it died; .*broken can't be run: No such file or directory"),
    ):
        with pytest.raises(EngineStartError, match=rf"(?s){message}"):
            start(program)
    wait_until(lambda: open_descriptors() == before)


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    before = open_descriptors()
    toy = command()
    nowhere = Command("toy", toy.arguments, environment=toy.environment, log=tmp_path / "nowhere" / "log")
    with pytest.raises(
        EngineStartError, match=r"toy can't be started: .*No such file or directory: .*nowhere/log"
    ):
        WorkerProcess(nowhere, description={"operation": "describe"})
    assert open_descriptors() == before
    full = Command("toy", toy.arguments, environment=toy.environment, log=Path("/dev/full"))
    process = WorkerProcess(full, description={"operation": "describe"})
    process.describe(deadline=time.monotonic() + 10)
    assert [ask(process, segment) for segment in ("a", "bb")] == [2, 3]
    process.dispose()
    wait_until(lambda: open_descriptors() == before)


def test_a_chatty_worker_neither_blocks_nor_fills_memory() -> None:
    code = "import os\nwhile True: os.write(2, b'x' * 65536)"
    chatty = WorkerProcess(
        Command("toy", lambda read, write: [sys.executable, "-c", code]),
        description={"operation": "describe"},
    )
    with pytest.raises(EngineStartError) as caught:
        chatty.describe(deadline=time.monotonic() + 0.5)
    chatty.dispose()
    assert len(str(caught.value)) < 5000


def test_it_ends_with_its_parent() -> None:
    # Even one that hangs, and looks neither at its pipe nor at its parent.
    code = (
        "import time\n"
        "from tests.bridge.toy_pool import worker\n"
        "process = worker('start=hang')\n"
        "print(process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    time.sleep(0.2)
    assert is_running(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: not is_running(pid))


def test_a_wrapper_script_ends_with_what_it_has_started(tmp_path: Path) -> None:
    wrapper = tmp_path / "wrapper"
    wrapper.write_text('#!/bin/sh\n"$@"\nstatus=$?\nexit $status\n')
    wrapper.chmod(0o755)
    toy = command()
    for segment, message in (("exit", "it died; ended with status 3"), ("hang", "no answer within")):
        process = WorkerProcess(
            Command(
                "toy",
                lambda read, write: [str(wrapper), *toy.arguments(read, write)],
                environment=toy.environment,
            ),
            description={"operation": "describe"},
        )
        process.describe(deadline=time.monotonic() + 10)
        (child,) = map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
        with pytest.raises(WorkerFailedError, match=message):
            ask(process, segment, seconds=0.5)
        process.dispose()
        wait_until(lambda child=child: not is_running(child))  # type: ignore[misc]
