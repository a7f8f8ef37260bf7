"""Becomes another program that ends when the thread ends that started it, however that happens.

    python -I -S guard.py PARENT PROGRAM [ARGUMENT …]

A worker may be a program that knows nothing of us, and may hang where no Python code of ours gets a turn; so the kernel
has to do it. This can't be done between fork and exec in a process with threads, hence a program of its own.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Runs the program of the command line in place of this one."""
    parent, program = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(1)  # it ended before the line above
    # Python ignores SIGPIPE, and what is ignored is inherited.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execv(program[0], program)
    except OSError as error:
        raise SystemExit(f"{program[0]} can't be run: {error.strerror}") from error


if __name__ == "__main__":
    main()
