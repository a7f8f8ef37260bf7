"""NVRTC, CUDA's run-time compiler: found where torch or a package of its own brings it; needs no GPU and no driver."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from seqtrain.errors import CudaError, MissingDependencyError
from seqtrain.ops.cuda.source import Source

__all__ = ["Compiled", "Compiler", "find_compiler", "libraries"]


_uselocale = ctypes.CDLL(None).uselocale
_uselocale.argtypes, _uselocale.restype = [ctypes.c_void_p], ctypes.c_void_p


@contextmanager
def _same_locale() -> Iterator[None]:
    """NVRTC 11.7 leaves the thread that called it in the C locale, where Python would read files as ASCII."""
    ours = _uselocale(None)  # asks
    try:
        yield
    finally:
        _uselocale(ours)


class Compiled(NamedTuple):
    """`image` is what the driver loads; `log` is what the compiler said."""

    image: bytes
    log: str


class Compiler:
    """NVRTC behind its C interface; `library` is what ctypes loaded."""

    def __init__(self, library: Any) -> None:
        self._library = library
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        self.version = f"{major.value}.{minor.value}"

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code != 0:
            raise CudaError(f"{name} failed with NVRTC's error {code}", call=name, code=code)

    def architectures(self) -> tuple[int, ...]:
        """Those that it compiles for, ascending: 75 is compute capability 7.5."""
        count = ctypes.c_int()
        self._call("nvrtcGetNumSupportedArchs", ctypes.byref(count))
        found = (ctypes.c_int * count.value)()
        self._call("nvrtcGetSupportedArchs", found)
        return tuple(sorted(found))

    def target(self, capability: int) -> str:
        """Option value for a device: its own machine code, or, where the device is newer than the compiler, the newest
        intermediate code, which the driver translates. Raises CudaError where the device is too old."""
        known = self.architectures()
        if capability in known:
            return f"sm_{capability}"
        older = [a for a in known if a < capability]
        if not older:
            raise CudaError(
                f"the GPU has compute capability {capability / 10}, and NVRTC {self.version} compiles for "
                f"{known[0] / 10} and newer: install an older CUDA build of torch, or run on the CPU",
                call="nvrtcGetSupportedArchs",
            )
        return f"compute_{older[-1]}"

    def compile(self, text: Source, target: str, options: tuple[str, ...]) -> Compiled:
        """Machine code for sm_XX, PTX for compute_XX. Raises CudaError with the compiler's messages."""
        program = ctypes.c_void_p()
        names, bodies = list(text.headers), list(text.headers.values())
        self._call(
            "nvrtcCreateProgram",
            ctypes.byref(program),
            text.main.encode(),
            b"kernels.cu",
            ctypes.c_int(len(names)),
            (ctypes.c_char_p * len(names))(*(body.encode() for body in bodies)),
            (ctypes.c_char_p * len(names))(*(name.encode() for name in names)),
        )
        try:
            flags = [f"--gpu-architecture={target}", *options]
            with _same_locale():
                code = self._library.nvrtcCompileProgram(
                    program,
                    ctypes.c_int(len(flags)),
                    (ctypes.c_char_p * len(flags))(*(f.encode() for f in flags)),
                )
            log = self._bytes(program, "ProgramLog").rstrip(b"\0").decode("utf-8", "replace")
            if code != 0:
                raise CudaError(
                    f"NVRTC {self.version} refused the kernels for {target}:\n{log}",
                    call="nvrtcCompileProgram",
                    code=code,
                )
            return Compiled(self._bytes(program, "CUBIN" if target.startswith("sm_") else "PTX"), log)
        finally:
            self._call("nvrtcDestroyProgram", ctypes.byref(program))

    def _bytes(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self._call(f"nvrtcGet{what}", program, buffer)
        return buffer.raw


def libraries() -> Iterator[Path]:
    """Candidates in the packages on the path: torch's own first, which fits the driver that torch runs on."""
    for pattern in (
        "torch/lib/libnvrtc*.so*",
        "nvidia/cuda_nvrtc/lib/libnvrtc.so*",
        "nvidia/cu*/lib/libnvrtc.so*",
    ):
        for entry in sys.path:
            for path in sorted(Path(entry or ".").glob(pattern), reverse=True):
                if "builtins" not in path.name:
                    yield path


@cache
def find_compiler() -> Compiler:
    """The first that loads, or the system's. Raises MissingDependencyError."""
    for candidate in [*map(str, libraries()), "libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"]:
        try:
            return Compiler(ctypes.CDLL(candidate))
        except OSError:
            continue
    raise MissingDependencyError("nvidia-cuda-nvrtc (CUDA's run-time compiler)", extra="cuda")
