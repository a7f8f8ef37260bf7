"""What each CUDA kernel takes of a processor, on every architecture: the compilers' own report. Needs no GPU.

    python -m tests.cuda.resources [--nvcc]

Compiles with NVRTC, with --nvcc by the toolkit's compiler, and prints a table. Fails where a kernel spills registers,
or where the registers of its largest block are more than a processor has. Where there is no nvcc, --nvcc says so.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from seqtrain.ops.cuda.compiler import find_compiler
from seqtrain.ops.cuda.runtime import LARGEST_BLOCK
from seqtrain.ops.cuda.source import OPTIONS, source

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
_REGISTERS = 1 << 16  # of one processor, on all of them
_UNIT = 256  # a warp's registers are given out in such portions
_ROOT = Path(__file__).parents[2]


class Use(NamedTuple):
    """Of one kernel on one architecture."""

    kernel: str
    registers: int
    spilled: int
    shared: int

    @property
    def fault(self) -> str | None:
        """What is wrong, if anything."""
        if self.spilled:
            return f"spills {self.spilled} bytes"
        of_a_warp = -(-self.registers * 32 // _UNIT) * _UNIT
        if of_a_warp * (LARGEST_BLOCK // 32) > _REGISTERS:
            return f"{LARGEST_BLOCK} threads of {self.registers} registers don't fit into {_REGISTERS}"
        return None


def uses(log: str) -> Iterator[Use]:
    """What ptxas reports of each kernel, whichever compiler has called it."""
    for part in re.split(r"Compiling entry function ", log)[1:]:
        name = re.match(r"'(\w+)'", part)
        registers = re.search(r"Used (\d+) registers", part)
        spills = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", part)
        if name is None or registers is None or spills is None:
            raise ValueError(f"not a report of ptxas: {part!r:.300}")
        shared = re.search(r"(\d+) bytes smem", part)
        yield Use(name[1], int(registers[1]), sum(map(int, spills.groups())), int(shared[1]) if shared else 0)


def nvrtc(architecture: int) -> str:
    """Its log."""
    return find_compiler().compile(source(), f"sm_{architecture}", (*OPTIONS, "--ptxas-options=-v")).log


def nvcc(architecture: int) -> str:
    """Its log."""
    # NVRTC's alone: to nvcc a lambda belongs where it stands.
    options = [option for option in OPTIONS if option != "--device-as-default-execution-space"]
    with tempfile.TemporaryDirectory() as folder:
        command = [
            "nvcc", f"-arch=sm_{architecture}", *options, "--ptxas-options=-v", "-cubin",
            "-o", str(Path(folder) / "kernels.cubin"), str(_ROOT / "csrc" / "cuda" / "kernels.cu"),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"nvcc refused the kernels for sm_{architecture}:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nvcc", action="store_true", help="compile with the toolkit's compiler")
    by_toolkit = parser.parse_args(arguments).nvcc
    if by_toolkit and shutil.which("nvcc") is None:
        print("nvcc is not on this machine: the kernels were not compiled by it")
        return 0
    compile_: Callable[[int], str] = nvcc if by_toolkit else nvrtc
    print(f"registers of each kernel, of {'nvcc' if by_toolkit else 'NVRTC ' + find_compiler().version}:")
    table: dict[str, dict[int, Use]] = {}
    # NVRTC compiles one program of a process at a time.
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        logs = list(pool.map(compile_, ARCHITECTURES))
    for architecture, log in zip(ARCHITECTURES, logs, strict=True):
        for use in uses(log):
            table.setdefault(use.kernel, {})[architecture] = use
    width = max(map(len, table))
    print(" " * width, *(f"sm_{a:<4}" for a in ARCHITECTURES))
    for kernel, row in sorted(table.items()):
        print(f"{kernel:<{width}}", *(f"{row[a].registers:>7}" for a in ARCHITECTURES))
    faults = [
        f"{kernel} on sm_{a}: {use.fault}"
        for kernel, row in table.items()
        for a, use in row.items()
        if use.fault
    ]
    static = {use.shared for row in table.values() for use in row.values()}
    print(*faults or [f"no spills; a block of {LARGEST_BLOCK} threads fits everywhere"], sep="\n")
    print(f"static shared memory: at most {max(static)} bytes; what a launch asks for is said by its caller")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
