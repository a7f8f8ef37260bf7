"""A worker for tests, quick to start: `python toy_worker.py READ_FD WRITE_FD [OPTION=VALUE …]`.

Its automata are chains as long as the segment's name. A segment whose name holds one of these words is treated so:

    kill, exit, garbage, hang   it dies by SIGKILL or with status 3, writes what is no frame, or never answers
    once-…                      as above, but only the first time that anybody is asked for it (option `state`)
    nonsense                    the answer is a frame, but no automaton
    bad                         the automaton has a label that the inventory lacks
    torn                        the automaton has an arc to a state that it doesn't have
    unknown, skipped            an error of the item
    slow                        it takes 0.2 s
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from sprint_bridge.workers.frames import ByteChannel, Frame, FrameChannel
from sprint_bridge.workers.loop import answer_frames, failure


class Toy:
    def __init__(self, write_fd: int, options: dict[str, str]) -> None:
        self.write_fd = write_fd
        self.options = options

    def misbehave(self, segment: str) -> None:
        words = segment.split("-")
        if "once" in words:
            seen = Path(self.options["state"]) / segment.replace("/", "_")
            if seen.exists():
                return
            seen.touch()
        print(f"asked for {segment}", flush=True)
        if "kill" in words:
            os.kill(os.getpid(), signal.SIGKILL)
        if "exit" in words:
            print("I give up", file=sys.stderr, flush=True)
            os._exit(3)
        if "garbage" in words:
            os.write(self.write_fd, b"Segmentation fault (core dumped)\n")
        if "hang" in words:
            while True:
                time.sleep(60)

    def answer(self, request: Frame) -> Frame:
        message = request.message
        if message["operation"] == "describe":
            if "fail" in self.options:
                return failure(self.options["fail"], "it can't be")
            if "start" in self.options:
                self.misbehave(self.options["start"])
            return Frame(
                {
                    "engine": "toy",
                    "capabilities": ["automata_by_segment", "forced_alignment", "losses"],
                    "config_digest": self.options.get("digest", "7"),
                    "labels": ["a", "b"],
                    "silence": None,
                    "blank": 0,
                },
                {},
            )
        segment = message["segment"]
        self.misbehave(segment)
        if message["operation"] == "loss":
            scores = request.arrays["scores"]
            return Frame({}, {"loss": np.array(float(scores.sum())), "signal": 2 * scores})
        words = segment.split("-")
        if "slow" in words:
            time.sleep(0.2)
        if "unknown" in words:
            return failure("unknown_segment", f"who is {segment}?")
        if "skipped" in words:
            return failure("skipped", "no lattice")
        if "nonsense" in words:
            return Frame({"num_states": "many", "start": 0}, {})
        size = len(segment)
        label = 2 if "bad" in words else 1
        arcs = np.stack([np.arange(size), np.arange(size) + 1, np.full(size, label)], axis=1)
        return Frame(
            {"num_states": 1 if "torn" in words else size + 1, "start": 0},
            {
                "arcs": arcs.astype(np.int32),
                "weights": np.zeros(size, dtype=np.float32),
                "final_states": np.array([0 if "torn" in words else size], dtype=np.int32),
                "final_weights": np.zeros(1, dtype=np.float32),
            },
        )


def main() -> None:
    read_fd, write_fd = map(int, sys.argv[1:3])
    options = dict(argument.split("=", 1) for argument in sys.argv[3:])
    if "digests" in options:
        # The instances draw lots: whoever comes first gets the first digest.
        digests = options["digests"].split(",")
        for index, digest in enumerate(digests):
            try:
                (Path(options["state"]) / f"taken{index}").touch(exist_ok=False)
            except FileExistsError:
                continue
            options["digest"] = digest
            break
        else:
            options["digest"] = digests[-1]
    answer_frames(FrameChannel(ByteChannel(read_fd, write_fd)), Toy(write_fd, options).answer)


if __name__ == "__main__":
    main()
